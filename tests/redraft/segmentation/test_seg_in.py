"""SEG files that do not fit are refused with a rule; those of other kinds (fractional, label map) come in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from redraft.config.schema import Structure
from redraft.errors import ExamError
from redraft.segmentation.origin import dicom_bytes
from redraft.segmentation.read import interpret, read_segmentation
from redraft.segmentation.seg_out import build_seg

Change = Callable[[Dataset], object]
SHAPE = (7, 6, 5)


@pytest.fixture
def changed(make_exam, make_labels, structures, origin, tmp_path) -> Callable[[Change], Path]:
    """A good SEG with something wrong in it."""

    def make(change: Change) -> Path:
        dataset = build_seg(make_labels(SHAPE), make_exam(SHAPE), structures, origin)
        change(dataset)
        (tmp_path / "a.dcm").write_bytes(dicom_bytes(dataset))
        return tmp_path / "a.dcm"

    return make


def shared(dataset: Dataset, sequence: str) -> Dataset:
    return dataset.SharedFunctionalGroupsSequence[0][sequence].value[0]


def shifted(dataset: Dataset, axis: int, by: float) -> None:
    for item in dataset.PerFrameFunctionalGroupsSequence:
        place = list(item.PlanePositionSequence[0].ImagePositionPatient)
        place[axis] = float(place[axis]) + by
        item.PlanePositionSequence[0].ImagePositionPatient = place


def twice(dataset: Dataset) -> None:
    items = dataset.PerFrameFunctionalGroupsSequence
    items[1].PlanePositionSequence = items[0].PlanePositionSequence
    items[1].SegmentIdentificationSequence = items[0].SegmentIdentificationSequence


def orientation(*values: float) -> Change:
    return lambda d: setattr(shared(d, "PlaneOrientationSequence"), "ImageOrientationPatient", list(values))


WRONG: dict[str, tuple[Change, str]] = {
    "another frame of reference": (lambda d: setattr(d, "FrameOfReferenceUID", "2.25.9"), "frame_of_reference"),
    "no frame of reference": (lambda d: delattr(d, "FrameOfReferenceUID"), "frame_of_reference"),
    "half a pixel beside": (lambda d: shifted(d, 0, 0.45), "grid"),
    "a pixel beside": (lambda d: shifted(d, 1, 1.3), "grid"),
    "a slice above the image": (lambda d: shifted(d, 2, 2.5 * 5), "grid"),
    "between slices": (lambda d: shifted(d, 2, 1.25), "grid"),
    "other pixel spacing": (lambda d: setattr(shared(d, "PixelMeasuresSequence"), "PixelSpacing", [1.0, 1.0]), "grid"),
    "thicker slices": (lambda d: setattr(shared(d, "PixelMeasuresSequence"), "SpacingBetweenSlices", 5.0), "grid"),
    "rows mirrored in place": (orientation(-1, 0, 0, 0, 1, 0), "grid"),
    "another plane": (orientation(1, 0, 0, 0, 0, -1), "grid"),
    "oblique": (orientation(0.98, 0.199, 0, -0.199, 0.98, 0), "grid"),
    "tilted": (orientation(1, 0, 0, 0, 0.98, 0.199), "grid"),
    "not at right angles": (orientation(1, 0, 0, 1, 0, 0), "bad_segmentation"),
    "position missing": (
        lambda d: delattr(d.PerFrameFunctionalGroupsSequence[2], "PlanePositionSequence"), "bad_segmentation"),
    "position is no number": (lambda d: shifted(d, 2, float("nan")), "grid"),
    "frames undescribed": (
        lambda d: setattr(d, "PerFrameFunctionalGroupsSequence", d.PerFrameFunctionalGroupsSequence[:-1]),
        "bad_segmentation"),
    "frames declared beyond reason": (lambda d: setattr(d, "NumberOfFrames", 2_000_000_000), "bad_segmentation"),
    "one place twice": (twice, "duplicate_frames"),
    "pixels cut short": (lambda d: setattr(d, "PixelData", d.PixelData[: len(d.PixelData) // 2]), "truncated"),
    "no pixels": (lambda d: delattr(d, "PixelData"), "bad_segmentation"),
    "no segments": (lambda d: delattr(d, "SegmentSequence"), "bad_segmentation"),
    "segment undescribed": (lambda d: setattr(d, "SegmentSequence", d.SegmentSequence[:2]), "bad_segmentation"),
    "two segments of one number": (lambda d: setattr(d.SegmentSequence[1], "SegmentNumber", 1), "bad_segmentation"),
    "unknown type": (lambda d: setattr(d, "SegmentationType", "SURFACE"), "bad_segmentation"),
    "fraction without maximum": (lambda d: setattr(d, "SegmentationType", "FRACTIONAL"), "bad_segmentation"),
    "tiled": (lambda d: setattr(d, "DimensionOrganizationType", "TILED_FULL"), "tiled"),
    "fewer rows": (lambda d: setattr(d, "Rows", 5), "grid"),
    "no size": (lambda d: delattr(d, "Rows"), "bad_segmentation"),
    "an image": (lambda d: setattr(d, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"), "unknown_format"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case: str, changed, make_exam, structures) -> None:
    """Every way of lying elsewhere, being broken or being something else has its rule, and is never moved to fit."""
    change, rule = WRONG[case]
    with pytest.raises(ExamError) as caught:
        read_segmentation(changed(change), make_exam(SHAPE), structures)
    assert caught.value.rule == rule


def test_a_seg_of_another_exam_is_refused(changed, make_exam, structures) -> None:
    """Its frame of reference differs, and if that were the same, its grid."""
    path = changed(lambda d: None)
    other = make_exam(SHAPE, np.diag([0.9, 1.3, 2.5, 1.0]))
    with pytest.raises(ExamError) as caught:
        read_segmentation(path, other, structures)
    assert caught.value.rule == "grid"


@pytest.mark.parametrize("cut", [0, 1, 100, 131, 140, 700, 3000])
def test_a_file_cut_short_is_refused(cut: int, changed, make_exam, structures) -> None:
    """At any length: a typed error, never another."""
    path = changed(lambda d: None)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ExamError):
        read_segmentation(path, make_exam(SHAPE), structures)


def test_unknown_segments_are_refused_or_ignored_and_never_named(changed, make_exam, make_labels, structures) -> None:
    """Its label may be a patient's name: the error gives its number; the others come in when it is ignored."""

    def rename(dataset: Dataset) -> None:
        dataset.SegmentSequence[0].SegmentLabel = "Mueller^Hans"
        dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue = "10200004"

    path, exam, labels = changed(rename), make_exam(SHAPE), make_labels(SHAPE)
    with pytest.raises(ExamError) as caught:
        read_segmentation(path, exam, structures)
    assert caught.value.rule == "unknown_segment" and "Hans" not in str(caught.value)
    assert caught.value.measured == {"segments": [1]}
    found = interpret(path, exam, structures, unknown="ignore")
    assert found.ignored == (1,)
    np.testing.assert_array_equal(found.labels, np.where(labels == 3, 0, labels))


def test_codes_come_before_names(changed, make_exam, make_labels, structures) -> None:
    """Foreign labels with our codes are ours; a code of one structure under another's name is refused."""

    def label(text: str) -> Change:
        return lambda d: setattr(d.SegmentSequence[0], "SegmentLabel", text)

    exam, labels = make_exam(SHAPE), make_labels(SHAPE)
    np.testing.assert_array_equal(read_segmentation(changed(label("Segment_1")), exam, structures), labels)
    with pytest.raises(ExamError) as caught:
        read_segmentation(changed(label("vein")), exam, structures)
    assert caught.value.rule == "ambiguous_segment"


def test_names_and_aliases_serve_where_codes_do_not(changed, make_exam, make_labels, structures) -> None:
    """Compared without case and blanks; SNOMED RT codes of old files are SNOMED CT's."""

    def old(dataset: Dataset) -> None:
        kidney, tumor, _ = dataset.SegmentSequence
        kidney.SegmentedPropertyTypeCodeSequence[0].CodeValue = "T-71000"
        kidney.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator = "SRT"
        kidney.SegmentLabel = "x"
        tumor.SegmentedPropertyTypeCodeSequence[0].CodeValue = "99999"
        tumor.SegmentLabel = " Kidney_TUMOR"

    np.testing.assert_array_equal(read_segmentation(changed(old), make_exam(SHAPE), structures), make_labels(SHAPE))


@pytest.mark.parametrize("reverse", [False, True])
def test_tumours_win_over_organs_and_the_overlap_is_counted(reverse, make_exam, structures, origin, tmp_path) -> None:
    """Overlapping segments, in either order of frames: by kind, whatever their values and places in project.yaml."""
    exam = make_exam(SHAPE)
    organ, tumor = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    organ[1:6, 1:5, 1:4], tumor[4:7, 2:4, 2:5] = 3, 1
    both = organ.astype(bool) & tumor.astype(bool)
    paths = []
    for n, part in enumerate((organ, tumor)):
        (tmp_path / f"{n}.dcm").write_bytes(dicom_bytes(build_seg(part, exam, structures, origin)))
        paths.append(tmp_path / f"{n}.dcm")
    ordered = structures[::-1] if reverse else structures
    found = interpret(paths[::-1] if reverse else paths, exam, ordered)
    np.testing.assert_array_equal(found.labels, np.where(tumor > 0, tumor, organ))
    assert found.contested == both.sum() > 0


def highdicom_seg(exam, array, kind: str, structures: list[Structure], **options) -> Dataset:
    """A segmentation written by highdicom alone, over single-frame images."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    images = []
    for k in range(exam.shape[2]):
        image = Dataset()
        for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
                     "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator"):  # fmt: skip
            setattr(image, name, "")
        image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", exam.images[k].uid
        image.StudyInstanceUID, image.SeriesInstanceUID, image.Modality = exam.study, exam.series, "CT"
        image.FrameOfReferenceUID = exam.frame_of_reference
        image.Columns, image.Rows, _ = exam.shape
        image.PixelSpacing, image.SliceThickness = [1.3, 0.9], 2.5
        image.ImageOrientationPatient, image.ImagePositionPatient = list(exam.orientation_lps), list(exam.position(k))
        images.append(image)
    described = [
        hd.seg.SegmentDescription(n, s.name, codes.SCT.AnatomicalStructure, codes.SCT.Kidney, "MANUAL")
        for n, s in enumerate(structures, 1)
    ]
    for item in described:  # told by name
        item.SegmentedPropertyTypeCodeSequence[0].CodeValue = "85756007"
    return hd.seg.Segmentation(
        images, array, kind, described, "2.25.70", 1, "2.25.71", 1, "m", "m", "1", "1", **options
    )


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 128), (0.25, 64), (1.0, 255)])
def test_fractions_are_cut_at_a_share_of_their_maximum(threshold, expected, make_exam, structures, tmp_path) -> None:
    """A voxel at the threshold or above is inside, half of the maximum unless said otherwise."""
    exam = make_exam(SHAPE)
    stored = np.random.default_rng(3).integers(0, 256, (5, 6, 7))
    dataset = highdicom_seg(exam, (stored / 255).astype(np.float64), "FRACTIONAL", structures[:1])
    dataset.save_as(tmp_path / "a.dcm")
    found = read_segmentation(tmp_path / "a.dcm", exam, structures, threshold=threshold)
    np.testing.assert_array_equal(found == 3, (stored >= expected).transpose(2, 1, 0))


def test_label_maps_and_compressed_frames_come_in(make_exam, make_labels, structures, tmp_path) -> None:
    """SegmentationType LABELMAP, plain and RLE; JPEG 2000 of one bit."""
    exam, labels = make_exam((40, 36, 3)), make_labels((40, 36, 3))
    numbers = np.zeros((40, 36, 3), np.uint8)
    for number, structure in enumerate(structures, 1):
        numbers[labels == structure.value] = number
    frames = np.ascontiguousarray(numbers.transpose(2, 1, 0))
    for kind, syntax in (("LABELMAP", None), ("LABELMAP", RLELossless), ("BINARY", "1.2.840.10008.1.2.4.90")):
        options = {} if syntax is None else {"transfer_syntax_uid": syntax}
        dataset = highdicom_seg(exam, frames, kind, structures, **options)
        dataset.save_as(tmp_path / "a.dcm")
        np.testing.assert_array_equal(read_segmentation(tmp_path / "a.dcm", exam, structures), labels)


def test_jitter_that_intake_tolerates_is_no_other_grid(make_exam, make_labels, structures, origin, tmp_path) -> None:
    """Slices a tenth of a millimetre beside their line: the SEG says what the images say, and comes back."""
    lps = make_exam(SHAPE).lps
    shifts = np.random.default_rng(2).uniform(-0.09, 0.09, (5, 3)) * (1, 1, 0)
    places = [((lps @ [0, 0, k, 1])[:3] + shifts[k]).tolist() for k in range(5)]
    slices = {
        "frame_of_reference": "2.25.1", "study": "2.25.2", "series": "2.25.3", "orientation_lps": [1, 0, 0, 0, 1, 0],
        "sop_class": "1.2.840.10008.5.1.4.1.1.2",
        "instances": [{"uid": f"2.25.{k}", "frame": None, "position_lps": places[k]} for k in range(5)],
    }  # fmt: skip
    exam, labels = make_exam(SHAPE, slices=slices), make_labels(SHAPE)
    assert exam.on_grid
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(build_seg(labels, exam, structures, origin)))
    np.testing.assert_array_equal(read_segmentation(tmp_path / "a.dcm", exam, structures), labels)
    for item in pydicom.dcmread(tmp_path / "a.dcm").PerFrameFunctionalGroupsSequence:
        stated = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        assert np.abs(places - stated).max(axis=1).min() < 1e-9
