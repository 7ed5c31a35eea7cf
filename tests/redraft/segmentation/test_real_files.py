"""Segmentations that others wrote, against what the same people give as arrays."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK

from redraft.config.schema import Structure, StructureKind
from redraft.dicom.geometry import SliceGeometry, series_geometry
from redraft.errors import ExamError
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.origin import Origin, dicom_bytes
from redraft.segmentation.read import interpret
from redraft.segmentation.rtstruct_out import build_rtstruct
from redraft.segmentation.seg_out import build_seg


def organs(*names: str, **aliases: str) -> list[Structure]:
    listed = [*((n, ()) for n in names), *((n, (alias,)) for n, alias in aliases.items())]
    return [Structure(name=n, value=k, kind=StructureKind.ORGAN, aliases=a) for k, (n, a) in enumerate(listed, 1)]


def exam_of(paths: list[Path]) -> ExamGeometry:
    """An exam over real images, under their own UIDs."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    geometry = series_geometry(
        [
            SliceGeometry(
                tuple(map(float, d.ImagePositionPatient)), tuple(map(float, d.ImageOrientationPatient)),
                tuple(map(float, d.PixelSpacing)), (d.Rows, d.Columns),
            )
            for d in headers
        ]
    )  # fmt: skip
    headers = [headers[n] for n in geometry.order]
    first = headers[0]
    return ExamGeometry.of(
        {
            "exam_id": "exam", "subject_id": "subject", "modality": first.Modality,
            "shape": [first.Columns, first.Rows, len(headers)], "affine_ras": geometry.affine.tolist(),
            "slices": {
                "frame_of_reference": first.FrameOfReferenceUID, "study": first.StudyInstanceUID,
                "series": first.SeriesInstanceUID, "sop_class": first.SOPClassUID,
                "orientation_lps": list(map(float, first.ImageOrientationPatient)),
                "instances": [
                    {"uid": d.SOPInstanceUID, "position_lps": list(map(float, d.ImagePositionPatient))}
                    for d in headers
                ],
            },
        }
    )  # fmt: skip


def on(exam: ExamGeometry, path: Path) -> np.ndarray:
    """A label file on the exam's grid by SimpleITK's own notion of space (nearest voxel, no interpolation)."""
    image = SimpleITK.ReadImage(str(path))
    lps, spacing = exam.lps, np.array(exam.spacing)
    grid = SimpleITK.Image(*exam.shape, SimpleITK.sitkUInt8)
    grid.SetOrigin(lps[:3, 3].tolist())
    grid.SetSpacing(spacing.tolist())
    grid.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    back = SimpleITK.Resample(image, grid, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
    return SimpleITK.GetArrayFromImage(back).transpose(2, 1, 0)


def test_dcmqi_liver(shared_data: Path) -> None:
    """A SEG by dcmqi over a GE CT, and the NRRD that it was made from, are one mask."""
    folder = shared_data / "dicom_seg_rt" / "dcmqi"
    exam = exam_of(sorted((folder / "ct-3slice").glob("*.dcm")))
    expected = on(exam, folder / "liver_seg.nrrd") > 0
    found = interpret(folder / "liver.dcm", exam, organs("liver"))
    np.testing.assert_array_equal(found.labels > 0, expected)
    assert expected.sum() == 107098 and not found.other_series
    np.testing.assert_array_equal(interpret(folder / "liver_seg.nrrd", exam, organs("liver")).labels > 0, expected)


def test_dcmqi_overlapping_segments(shared_data: Path) -> None:
    """Five overlapping segments and the three NRRDs that hold them apart: nothing is lost, and overlap is counted."""
    folder = shared_data / "dicom_seg_rt" / "dcmqi"
    exam = exam_of(sorted((folder / "ct-3slice").glob("*.dcm")))
    names = ("green", "orange", "purple", "light_blue", "dark_blue")
    found = interpret(folder / "partial_overlaps.dcm", exam, organs(*names))
    layers = [on(exam, folder / f"partial_overlaps-{n}.nrrd") for n in (1, 2, 3)]
    np.testing.assert_array_equal(found.labels > 0, np.any(layers, axis=0))
    contested = np.sum([layer > 0 for layer in layers], axis=0) > 1
    assert found.contested == contested.sum() > 0
    # Which value of which file is which segment is found by its voxels; dcmqi does not say.
    for value in range(1, 6):
        alone = interpret(folder / "partial_overlaps.dcm", exam, organs(names[value - 1]), unknown="ignore").labels > 0
        assert any(np.array_equal(alone, layer == v) for layer in layers for v in np.unique(layer) if v), value


def test_dcmqi_label_map_and_small_series(shared_data: Path) -> None:
    """SEG BINARY and SegmentationType LABELMAP (with slices left out) over a series whose slices lie in file order."""
    folder = shared_data / "dicom_seg_rt" / "dcmqi"
    exam = exam_of(sorted((folder / "24x38x3" / "image").glob("*.dcm")))
    for seg, array in (
        ("24x38x3/seg/label.seg", "24x38x3/nrrd/label.nrrd"),
        ("sparse-labelmap-ppv5.dcm", "sparse_labelmap_ppv5_seg.nrrd"),
    ):
        found = interpret(folder / seg, exam, organs("liver")).labels
        # The slice that the label map leaves out is filled with its padding value, 5, in the NRRD.
        np.testing.assert_array_equal(found == 1, on(exam, folder / array) == 1)


def test_highdicom_binary_and_fractional_are_one_mask(shared_data: Path) -> None:
    """The same segment as BINARY, as FRACTIONAL of 0 and 1 and of true fractions; of another image it is refused."""
    folder = shared_data / "dicom_seg_rt" / "highdicom"
    exam = exam_of(sorted((folder / "source_ct2").iterdir())[1:])
    structures = organs(bone="first segment")
    masks = [
        interpret(folder / f"seg_image_ct_{name}.dcm", exam, structures).labels
        for name in ("binary", "binary_fractional", "true_fractional")
    ]
    dataset = pydicom.dcmread(folder / "seg_image_ct_binary.dcm")
    positions = [float(i.PlanePositionSequence[0].ImagePositionPatient[2]) for i in
                 dataset.PerFrameFunctionalGroupsSequence]  # fmt: skip
    expected = dataset.pixel_array[np.argsort(positions)].transpose(2, 1, 0)
    for mask in masks:
        np.testing.assert_array_equal(mask, expected)
    with pytest.raises(ExamError) as caught:
        interpret(folder / "seg_image_ct_binary_single_frame.dcm", exam, structures)
    assert caught.value.rule == "frame_of_reference"


def test_a_structure_set_of_another_frame_of_reference_is_refused(shared_data: Path) -> None:
    """rt-utils' example names a frame of reference that its images do not have."""
    folder = shared_data / "dicom_seg_rt" / "rt-utils"
    exam = exam_of([folder / "ct_1.dcm", folder / "ct_2.dcm"])
    with pytest.raises(ExamError) as caught:
        interpret(folder / "rt.dcm", exam, organs(roi="ROI-1"))
    assert caught.value.rule == "frame_of_reference"


@pytest.mark.parametrize("patient", ["STS_003", "STS_008", "STS_018", "STS_031"])
@pytest.mark.parametrize("modality", ["CT", "MR_T1", "PET"])
def test_clinical_contours_are_the_maintainers_masks(
    patient: str, modality: str, shared_data: Path, tmp_path: Path
) -> None:
    """RTSTRUCT of gross tumour volumes against the data set's NIfTI masks; and out again as SEG and RTSTRUCT."""
    root = shared_data / "sts_dicom_rtstruct"
    folder = root / "dicom" / patient / modality
    mask = root / "nifti_mask" / patient / f"{modality}_mask.nii.gz"
    if not folder.is_dir() or not mask.is_file():
        pytest.skip(f"{patient} has no {modality} here")
    exam = exam_of(sorted((folder / "image").glob("*.dcm")))
    kind = {"CT": "GTV_Mass_CT", "MR_T1": "GTV_Mass_MR_T1", "PET": "GTV_Mass_PET"}[modality]
    code = {"category": {"value": "49755003", "meaning": "Morphologically Abnormal Structure"},
            "type": {"value": "1187396000", "meaning": "Sarcoma"}}  # fmt: skip
    (plain,) = organs(sarcoma=kind)
    structures = [Structure.model_validate({**plain.model_dump(), "code": code})]
    found = interpret(folder / "mask" / "RS.dcm", exam, structures)
    assert nib.load(mask).shape == exam.shape
    assert dice(found.labels > 0, on(exam, mask) > 0) >= (0.98 if modality == "PET" else 0.9995)
    origin = Origin("a", "0" * 64, "MANUAL", datetime(2026, 1, 1, tzinfo=UTC))
    for build in (build_seg, build_rtstruct):
        path = tmp_path / "out.dcm"
        path.write_bytes(dicom_bytes(build(found.labels, exam, structures, origin)))
        np.testing.assert_array_equal(interpret(path, exam, structures).labels, found.labels)
        valid(path)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def valid(path: Path) -> None:
    """dciodvfy finds no error; nothing is asserted where it is not installed."""
    program = shutil.which("dciodvfy")
    if program is None:
        return
    report = subprocess.run([program, "-new", path], capture_output=True, text=True, check=False).stderr
    assert "Error" not in report, report
