"""Enhanced multi-frame objects give the volume of the single-frame series they were made from."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEGLSLossless, RLELossless

from redraft.dicom.series import ReadRules, SeriesVolume, open_series
from redraft.errors import ExamError

ENHANCED = {
    "CT": "1.2.840.10008.5.1.4.1.1.2.1", "MR": "1.2.840.10008.5.1.4.1.1.4.1", "PT": "1.2.840.10008.5.1.4.1.1.130",
}  # fmt: skip


def volumes(paths: list[Path], rules: ReadRules | None = None) -> list[SeriesVolume]:
    found = []
    for item in open_series(paths, rules or ReadRules()).volumes():
        if isinstance(item, ExamError):
            raise item
        found.append(item)
    return found


def refused(paths: list[Path]) -> tuple[str, dict[str, object]]:
    with pytest.raises(ExamError) as caught:
        volumes(paths)
    return caught.value.rule, caught.value.measured


def item(**values: Any) -> Sequence:
    """A sequence of one item."""
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return Sequence([dataset])


@pytest.fixture
def enhanced(series: Callable, tmp_path: Path) -> Callable[..., tuple[Any, Path]]:
    """A series and one multi-frame object of the same slices, its frames in another order (PS3.3 A.38, A.36, A.56)."""

    def make(
        modality: str = "CT", change: Callable[[Dataset], None] | None = None,
        frame: Callable[[Dataset, int, int], None] | None = None, shared: bool = False, repeat: int = 1,
    ) -> tuple[Any, Path]:  # fmt: skip
        files = series((7, 6, 5))
        slices = [pydicom.dcmread(path) for path in files.paths]
        result = pydicom.dcmread(files.paths[0])
        for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
                     "RescaleIntercept", "RescaleType", "SliceThickness"):  # fmt: skip
            del result[name]
        result.SOPClassUID = result.file_meta.MediaStorageSOPClassUID = ENHANCED[modality]
        result.Modality, result.SOPInstanceUID = modality, "2.25.99"
        plane = {
            "PlaneOrientationSequence": item(ImageOrientationPatient=slices[0].ImageOrientationPatient),
            "PixelMeasuresSequence": item(PixelSpacing=slices[0].PixelSpacing, SliceThickness="2"),
        }
        values = {
            "PixelValueTransformationSequence": item(RescaleSlope="1", RescaleIntercept="-1024", RescaleType="HU")
        }
        common = {**plane, **(values if shared else {})}
        result.SharedFunctionalGroupsSequence = item(**common)
        groups, pixels = [], []
        for turn in range(repeat):
            for k in (3, 0, 4, 1, 2):
                (group,) = item(**({} if shared else values))
                group.PlanePositionSequence = item(ImagePositionPatient=slices[k].ImagePositionPatient)
                group.FrameContentSequence = item(StackID="1", InStackPositionNumber=k + 1)
                if frame is not None:
                    frame(group, k, turn)
                groups.append(group)
                pixels.append(slices[k].pixel_array + turn)
        result.PerFrameFunctionalGroupsSequence = Sequence(groups)
        result.NumberOfFrames = len(groups)
        result.PixelData = np.stack(pixels).astype("<u2").tobytes()
        if change is not None:
            change(result)
        path = tmp_path / f"enhanced-{modality}.dcm"
        pydicom.dcmwrite(path, result, implicit_vr=False, little_endian=True)
        return files, path

    return make


@pytest.mark.parametrize("modality", ENHANCED)
@pytest.mark.parametrize("shared", [False, True], ids=["per frame", "shared"])
def test_enhanced_objects_equal_their_slices(enhanced: Callable, modality: str, shared: bool) -> None:
    """CT, MR and PET; rescale per frame or shared; frames in any order, numbered as they stand in the file."""
    files, path = enhanced(modality, shared=shared)
    (expected,), (volume,) = volumes(files.paths), volumes([path])
    np.testing.assert_array_equal(volume.volume.array, files.hu)
    np.testing.assert_array_equal(volume.volume.affine, expected.volume.affine)
    assert [slice_.frame for slice_ in volume.slices] == [2, 4, 5, 1, 3]
    assert {slice_.uid for slice_ in volume.slices} == {"2.25.99"}
    assert [slice_.position_lps for slice_ in volume.slices] == [slice_.position_lps for slice_ in expected.slices]
    assert volume.frame_of_reference == expected.frame_of_reference


@pytest.mark.parametrize("kind", ["rle", "jpeg-ls", "no table", "one frame in fragments"])
def test_compressed_frames_are_told_apart(enhanced: Callable, kind: str) -> None:
    """By the offset table, by the number of fragments, or by the streams' own ends."""

    def compress(dataset: Dataset) -> None:
        syntax = RLELossless if kind == "rle" else JPEGLSLossless
        dataset.compress(syntax, generate_instance_uid=False)
        if kind in ("no table", "one frame in fragments"):
            frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=5))
            fragments = 2 if kind != "no table" else 1
            dataset.PixelData = encapsulate(frames, fragments_per_frame=fragments, has_bot=fragments > 1)

    files, path = enhanced("CT", compress)
    (volume,) = volumes([path])
    np.testing.assert_array_equal(volume.volume.array, files.hu)


def test_an_extended_offset_table_is_used(enhanced: Callable) -> None:
    """PS3.5 A.4: 64-bit offsets instead of the basic table."""
    files, path = enhanced(
        "CT", lambda dataset: dataset.compress(RLELossless, generate_instance_uid=False, encapsulate_ext=True)
    )
    np.testing.assert_array_equal(volumes([path])[0].volume.array, files.hu)


def test_rescale_may_differ_from_frame_to_frame(enhanced: Callable) -> None:
    """PET: another tiny slope in every frame."""

    def slope(group: Dataset, k: int, turn: int) -> None:
        group.PixelValueTransformationSequence = item(RescaleSlope=f"0.00{k + 1}", RescaleIntercept="0")

    files, path = enhanced("PT", frame=slope)
    stored = files.hu.astype(float) + 1024
    expected = stored * (np.arange(1, 6) / 1000)
    np.testing.assert_allclose(volumes([path])[0].volume.array, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("frame", "key"),
    [
        (
            lambda g, k, t: setattr(g.FrameContentSequence[0], "TemporalPositionIndex", t + 1),
            "TemporalPositionIndex={}",
        ),
        (lambda g, k, t: setattr(g, "MREchoSequence", item(EffectiveEchoTime=float(t + 1))), "EffectiveEchoTime={}"),
        (lambda g, k, t: setattr(g, "MRDiffusionSequence", item(DiffusionBValue=float(t + 1))), "DiffusionBValue={}"),
        (
            lambda g, k, t: setattr(
                g, "CardiacSynchronizationSequence", item(NominalCardiacTriggerDelayTime=float(t + 1))
            ),
            "NominalCardiacTriggerDelayTime={}",
        ),
    ],
    ids=["time", "echo", "diffusion", "heart"],
)
def test_dimensions_inside_of_one_object_are_split(enhanced: Callable, frame: Callable, key: str) -> None:
    """4D in one file: one volume for each value, each frame known by its number."""
    files, path = enhanced("MR", frame=frame, repeat=3)
    found = volumes([path])
    assert [item_.key for item_ in found] == [key.format(n) for n in (1, 2, 3)]
    for turn, item_ in enumerate(found):
        np.testing.assert_array_equal(item_.volume.array, files.hu + turn)
        assert [slice_.frame for slice_ in item_.slices] == [5 * turn + n for n in (2, 4, 5, 1, 3)]


def test_frames_that_nothing_tells_apart_are_refused(enhanced: Callable) -> None:
    """Two frames at every place without a dimension."""
    _, path = enhanced("MR", repeat=2)
    assert refused([path])[0] == "conflicting_duplicates"


def test_stacks_of_several_orientations_are_refused(enhanced: Callable) -> None:
    """Three planes in one object are no volume."""

    def turn(group: Dataset, k: int, turn: int) -> None:
        if k > 2:
            group.PlaneOrientationSequence = item(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])

    _, path = enhanced("MR", frame=turn)
    assert refused([path])[0] == "mixed_orientation"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda d: setattr(d, "NumberOfFrames", 4), "frames_differ"),
        (lambda d: setattr(d, "NumberOfFrames", 6), "truncated"),
        (lambda d: setattr(d, "NumberOfFrames", 2**31 - 1), "too_large"),
        (lambda d: setattr(d, "PixelData", d.PixelData[:-84]), "truncated"),
        (lambda d: d.__delattr__("PerFrameFunctionalGroupsSequence"), "frames_differ"),
        (lambda d: d.PerFrameFunctionalGroupsSequence[2].__delattr__("PlanePositionSequence"), "missing_position"),
        (lambda d: d.SharedFunctionalGroupsSequence.clear(), "missing_orientation"),
    ],
    ids=["fewer", "more", "absurd", "cut", "no groups", "no place", "no plane"],
)
def test_what_an_object_says_of_its_frames_must_hold(enhanced: Callable, change: Callable, rule: str) -> None:
    """Declared frames, described frames and bytes agree, and every frame has a place."""
    _, path = enhanced("CT", change)
    assert refused([path])[0] == rule


def test_compressed_frames_that_are_missing_are_refused(enhanced: Callable) -> None:
    """Four streams for five frames."""

    def lose(dataset: Dataset) -> None:
        dataset.compress(RLELossless, generate_instance_uid=False)
        frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=5))
        dataset.PixelData = encapsulate(frames[:4])

    _, path = enhanced("CT", lose)
    assert refused([path])[0] == "undecodable"


def test_frames_of_several_objects_are_one_series(enhanced: Callable, tmp_path: Path) -> None:
    """A long series comes in pieces: all frames together are the volume."""
    files, path = enhanced("CT")
    pieces = []
    whole = pydicom.dcmread(path)
    for n, (start, stop) in enumerate(((0, 2), (2, 5))):
        piece = pydicom.dcmread(path)
        piece.PerFrameFunctionalGroupsSequence = Sequence(whole.PerFrameFunctionalGroupsSequence[start:stop])
        piece.NumberOfFrames, piece.SOPInstanceUID = stop - start, f"2.25.10{n}"
        piece.PixelData = whole.PixelData[start * 84 : stop * 84]
        pieces.append(tmp_path / f"piece{n}.dcm")
        piece.save_as(pieces[-1])
    (volume,) = volumes(pieces)
    np.testing.assert_array_equal(volume.volume.array, files.hu)
    assert {(slice_.uid, slice_.frame) for slice_ in volume.slices} == {
        ("2.25.100", 1), ("2.25.100", 2), ("2.25.101", 1), ("2.25.101", 2), ("2.25.101", 3),
    }  # fmt: skip


def test_legacy_converted_objects_equal_their_slices(series: Callable, tmp_path: Path) -> None:
    """As highdicom converts a series (PS3.3 A.70)."""
    files = series((7, 6, 5))
    converted = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        [pydicom.dcmread(path) for path in files.paths], "2.25.5", 1, "2.25.6", 1
    )
    converted.save_as(tmp_path / "converted.dcm")
    (expected,), (volume,) = volumes(files.paths), volumes([tmp_path / "converted.dcm"])
    np.testing.assert_array_equal(volume.volume.array, files.hu)
    np.testing.assert_array_equal(volume.volume.affine, expected.volume.affine)


def test_a_real_legacy_object_equals_its_slices(shared_data: Path) -> None:
    """Another maker's conversion of a real series."""
    folder = shared_data / "dicom_seg_rt" / "dcmqi" / "24x38x3"
    rules = replace(ReadRules(), accept_secondary=True)
    (single,) = volumes(sorted((folder / "image").glob("*.dcm")), rules)
    (many,) = volumes([folder / "multiframe" / "mf.dcm"], rules)
    np.testing.assert_array_equal(many.volume.array, single.volume.array)
    np.testing.assert_allclose(many.volume.affine, single.volume.affine, atol=1e-5)


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="Debian's dcm2niix is not installed")
def test_enhanced_objects_equal_dcm2niix(enhanced: Callable, tmp_path: Path) -> None:
    """An independent reader of functional groups; its rows run the other way."""
    import nibabel as nib

    _files, path = enhanced("CT")
    (tmp_path / "out").mkdir()
    (tmp_path / "in").mkdir()
    shutil.copy(path, tmp_path / "in")
    subprocess.run(
        ["dcm2niix", "-z", "n", "-b", "n", "-f", "x", "-o", str(tmp_path / "out"), str(tmp_path / "in")],
        check=True, capture_output=True,
    )  # fmt: skip
    theirs = nib.as_closest_canonical(nib.load(tmp_path / "out" / "x.nii"))
    (volume,) = volumes([path])
    ours = nib.as_closest_canonical(nib.Nifti1Image(volume.volume.array, volume.volume.affine))
    np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-4)
