"""Images as DICOM series again: the same voxels in the same place, under the UIDs that segmentations refer to."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.config.schema import Structure
from redraft.dicom.geometry import LPS_TO_RAS
from redraft.errors import ReadError
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.image_out import build_series
from redraft.segmentation.origin import Origin, dicom_bytes
from redraft.segmentation.seg_out import build_seg
from redraft.volumes import Volume

SHAPE = (7, 6, 5)


def turned(tilt: float, turn: float, flip: int = 1) -> np.ndarray:
    """Voxel to LPS mm of an oblique grid whose slices run up or down."""
    a, b = np.cos(tilt), np.sin(tilt)
    c, d = np.cos(turn), np.sin(turn)
    rotation = np.array([[1, 0, 0], [0, a, -b], [0, b, a]]) @ np.array([[c, -d, 0], [d, c, 0], [0, 0, 1]])
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = rotation @ np.diag([0.9, 1.3, 2.5 * flip]), (-12.5, 40.25, -300.0)
    return lps


GRIDS = {"axial": turned(0, 0), "oblique": turned(0.41, -0.7), "downwards": turned(0.1, 0.2, -1)}


def written(folder: Path, image: Volume, exam: ExamGeometry) -> list[Path]:
    paths = []
    for k, dataset in enumerate(build_series(image, exam)):
        paths.append(folder / f"{k}.dcm")
        paths[-1].write_bytes(dicom_bytes(dataset))
    return paths


def by_itk(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (I, J, K) and voxel-to-LPS matrix of a series as SimpleITK reads it, in its own slice order."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(paths[0].parent)))
    image = reader.Execute()
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), lps


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("grid", GRIDS)
def test_other_readers_see_the_same_voxels_in_the_same_place(
    grid: str, modality: str, make_exam: Callable[..., ExamGeometry], tmp_path: Path
) -> None:
    """GDCM sorts the slices itself: every voxel has its value at its place, on axial, oblique and descending stacks."""
    exam = make_exam(SHAPE, GRIDS[grid], modality=modality)
    image = Volume(np.random.default_rng(1).integers(-1024, 3000, SHAPE).astype(np.int16), exam.affine)
    array, lps = by_itk(written(tmp_path, image, exam))
    if grid == "downwards":  # its third axis is right-handed there: the last slice comes first
        array, lps = array[:, :, ::-1], lps @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1]])
    np.testing.assert_array_equal(array, image.array)
    np.testing.assert_allclose(LPS_TO_RAS @ lps, exam.affine, atol=1e-6)


def test_the_series_is_the_one_that_segmentations_refer_to(
    make_exam: Callable[..., ExamGeometry], make_labels: Callable[..., np.ndarray], structures: list[Structure]
) -> None:
    """Each source image of a SEG's frame is the slice that lies there; study, series and space are the same."""
    exam = make_exam(SHAPE, GRIDS["oblique"])
    series = list(build_series(Volume(np.zeros(SHAPE, np.int16), exam.affine), exam))
    made = Origin("d", "ab" * 32, "AUTOMATIC", datetime(2026, 3, 2, tzinfo=UTC), "kidney", "cd" * 32)
    seg = build_seg(make_labels(SHAPE), exam, structures, made)
    at = {dataset.SOPInstanceUID: list(map(float, dataset.ImagePositionPatient)) for dataset in series}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        here = list(map(float, frame.PlanePositionSequence[0].ImagePositionPatient))
        assert at[source.ReferencedSOPInstanceUID] == here
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientIdentityRemoved"):
        assert {seg[name].value} == {dataset[name].value for dataset in series}
    assert {seg.ReferencedSeriesSequence[0].SeriesInstanceUID} == {dataset.SeriesInstanceUID for dataset in series}


@settings(max_examples=30, deadline=None)
@given(slope=st.floats(1e-4, 30), seed=st.integers(0, 99), largest=st.integers(2, 32_000))
def test_values_that_were_rescaled_come_back(
    make_exam: Callable[..., ExamGeometry], slope: float, seed: int, largest: int
) -> None:
    """Multiples of any slope (PET in Bq/ml) are exact in float32 in each slice, or the exam is refused."""
    exam = make_exam(SHAPE, modality="PT")
    stored = np.random.default_rng(seed).integers(0, largest + 1, SHAPE)
    values = (stored * np.linspace(slope, 2 * slope, SHAPE[2])).astype(np.float32)
    try:
        series = list(build_series(Volume(values, exam.affine), exam))
    except ReadError as error:
        assert error.rule == "not_exact"
        return
    for k, dataset in enumerate(series):
        kind = "<i2" if dataset.PixelRepresentation else "<u2"
        pixels = np.frombuffer(dataset.PixelData, kind).reshape(SHAPE[1], SHAPE[0]).T
        back = (pixels * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)).astype(np.float32)
        np.testing.assert_array_equal(back, values[:, :, k])


def test_plain_slopes_are_found(make_exam: Callable[..., ExamGeometry]) -> None:
    """An ordinary PET slice is not refused."""
    exam = make_exam(SHAPE, modality="PT")
    stored = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    assert len(list(build_series(Volume((stored * 0.37251).astype(np.float32), exam.affine), exam))) == SHAPE[2]


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("resampled", {"resampled": True}),
        ("multi_frame", {"sop_class": "1.2.840.10008.5.1.4.1.1.2.1"}),
        ("exam_record", {"study": None}),
    ],
)
def test_what_has_no_such_form_is_refused(rule: str, changes: dict, make_exam: Callable[..., ExamGeometry]) -> None:
    """Resampled slices, enhanced multi-frame objects, records without a study: named, never approximated."""
    content = make_exam(SHAPE)
    slices = {
        "frame_of_reference": "2.25.1", "study": "2.25.2", "series": "2.25.3",
        "sop_class": "1.2.840.10008.5.1.4.1.1.2", "orientation_lps": list(content.orientation_lps),
        "instances": [{"uid": p.uid, "frame": None, "position_lps": list(p.position_lps)} for p in content.images],
        **changes,
    }  # fmt: skip
    exam = make_exam(SHAPE, slices=slices)
    with pytest.raises(ReadError) as caught:
        list(build_series(Volume(np.zeros(SHAPE, np.int16), exam.affine), exam))
    assert caught.value.rule == rule


def test_values_beyond_sixteen_bits_are_refused(make_exam: Callable[..., ExamGeometry]) -> None:
    """Nothing is clipped or rounded."""
    exam = make_exam(SHAPE)
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    with pytest.raises(ReadError) as caught:
        list(build_series(Volume(values, exam.affine), exam))
    assert caught.value.rule == "not_exact"


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_validator_finds_no_error(modality: str, make_exam: Callable[..., ExamGeometry], tmp_path: Path) -> None:
    """dciodvfy accepts the images, also of an exam whose header kept nothing."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian: apt install dicom3tools)")
    classes = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
    base = make_exam(SHAPE)
    slices = {
        "frame_of_reference": "2.25.1", "study": "2.25.2", "series": "2.25.3", "sop_class": classes[modality],
        "orientation_lps": list(base.orientation_lps),
        "instances": [{"uid": p.uid, "frame": None, "position_lps": list(p.position_lps)} for p in base.images],
    }  # fmt: skip
    exam = make_exam(SHAPE, modality=modality, slices=slices)
    path, *_ = written(tmp_path, Volume(np.ones(SHAPE, np.int16), exam.affine), exam)
    done = subprocess.run([program, "-new", path], capture_output=True, text=True, check=False, timeout=60)
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")] == []
    assert pydicom.dcmread(path).Modality == modality
