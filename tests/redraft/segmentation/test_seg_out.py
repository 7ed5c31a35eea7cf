"""What a written SEG or structure set says: codes, how it came about, which images; and that a validator agrees."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from redraft.errors import ExamError, UsageError
from redraft.segmentation.origin import Origin, dicom_bytes
from redraft.segmentation.read import read_segmentation
from redraft.segmentation.rtstruct_out import build_rtstruct
from redraft.segmentation.seg_out import build_seg

SHAPE = (7, 6, 5)
BUILDERS = pytest.mark.parametrize("build", [build_seg, build_rtstruct])


def multiframe(make_exam, count: int = 5):
    """An exam made from two multi-frame objects."""
    plain = make_exam(SHAPE)
    slices = {
        "frame_of_reference": "2.25.1", "study": "2.25.2", "series": "2.25.3",
        "sop_class": "1.2.840.10008.5.1.4.1.1.2.1", "orientation_lps": list(plain.orientation_lps),
        "instances": [
            {"uid": f"2.25.{7 + k // 3}", "frame": k % 3 + 1, "position_lps": list(plain.position(k))}
            for k in range(count)
        ],
    }  # fmt: skip
    return make_exam(SHAPE, slices=slices)


@BUILDERS
@pytest.mark.parametrize("kind", ["dicom", "nifti", "multiframe", "resampled", "empty", "manual"])
def test_a_validator_finds_no_error(build, kind, make_exam, make_labels, structures, origin, tmp_path: Path) -> None:
    """dciodvfy (Debian: dicom3tools), for every kind of exam."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian: apt install dicom3tools)")
    exam = {
        "nifti": lambda: make_exam(SHAPE, slices={}),
        "multiframe": lambda: multiframe(make_exam),
        "resampled": lambda: multiframe(make_exam, 4),
    }.get(kind, lambda: make_exam(SHAPE))()
    labels = make_labels(SHAPE) if kind != "empty" else np.zeros(SHAPE, np.uint8)
    if kind == "manual":
        origin = Origin("a", "0" * 64, "MANUAL", origin.at)
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom_bytes(build(labels, exam, structures, origin)))
    report = subprocess.run([program, "-new", path], capture_output=True, text=True, check=False).stderr
    assert ("Segmentation" if build is build_seg else "RTStructureSet") in report
    assert "Error" not in report, report


@pytest.mark.parametrize("method", ["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"])
def test_it_says_how_it_came_about_and_by_which_model(method, make_exam, make_labels, structures, origin) -> None:
    """Algorithm type, and the model's name and digest wherever a model took part."""
    if method == "MANUAL":
        origin = Origin("a", "0" * 64, "MANUAL", origin.at)
    else:
        origin = replace(origin, method=method)
    dataset = build_seg(make_labels(SHAPE), make_exam(SHAPE), structures, origin)
    for segment in dataset.SegmentSequence:
        assert segment.SegmentAlgorithmType == method
        if method == "MANUAL":
            assert "SegmentationAlgorithmIdentificationSequence" not in segment
        else:
            (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
            assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("kidney", "cd" * 32)
    assert (dataset.ContentDate, dataset.ContentTime) == ("20260302", "083005")


def test_a_model_is_named_where_it_took_part_and_only_there(origin) -> None:
    """A draft without its model, or a drawing with one, is a mistake of the caller."""
    for method, digest in (("MANUAL", "cd"), ("AUTOMATIC", None), ("SEMIAUTOMATIC", None)):
        with pytest.raises(ValueError, match="model"):
            Origin("a", "0", method, origin.at, "m", digest)


def test_segments_are_coded_in_the_order_of_the_project(make_exam, make_labels, structures, origin) -> None:
    """Category, type, region and side, whatever the label values; every structure has its segment."""
    dataset = build_seg(np.where(make_labels(SHAPE) == 3, 3, 0).astype(np.uint8), make_exam(SHAPE), structures, origin)
    kidney, tumor, vein = dataset.SegmentSequence
    assert [s.SegmentNumber for s in dataset.SegmentSequence] == [1, 2, 3]
    assert kidney.SegmentedPropertyTypeCodeSequence[0].CodeValue == "64033007"
    assert tumor.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert tumor.AnatomicRegionSequence[0].CodeValue == "64033007"
    (side,) = vein.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence
    assert side.CodeValue == "7771000"


def test_each_frame_names_the_image_it_lies_on(make_exam, make_labels, structures, origin) -> None:
    """By position, for single images and for frames of multi-frame objects; the list of images is complete."""
    labels = make_labels(SHAPE)
    for exam in (make_exam(SHAPE), multiframe(make_exam)):
        dataset = build_seg(labels, exam, structures, origin)
        for item in dataset.PerFrameFunctionalGroupsSequence:
            place = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
            (k,) = [k for k in range(5) if np.abs(exam.position(k) - place).max() < 1e-6]
            (image,) = item.DerivationImageSequence[0].SourceImageSequence
            assert image.ReferencedSOPInstanceUID == exam.images[k].uid
            assert image.get("ReferencedFrameNumber") == exam.images[k].frame
            assert image.ReferencedSOPClassUID == exam.sop_class
        (series,) = dataset.ReferencedSeriesSequence
        listed = [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence]
        assert listed == list(dict.fromkeys(plane.uid for plane in exam.images))
        assert series.SeriesInstanceUID == exam.series


@BUILDERS
def test_only_what_the_exam_s_record_names_is_referred_to(build, make_exam, make_labels, structures, origin) -> None:
    """Every UID in the object is the exam's, DICOM's own or derived: highdicom's placeholders are gone."""
    exam = make_exam(SHAPE)
    dataset = build(make_labels(SHAPE), exam, structures, origin)
    known = {exam.study, exam.series, exam.frame_of_reference, *(plane.uid for plane in exam.images)}
    for element in dataset.iterall():
        if element.VR == "UI":
            value = str(element.value)
            assert (
                value in known or value.startswith("1.2.840.10008.") or (value.startswith("2.25.") and len(value) > 30)
            )
    assert dataset.PatientID == exam.subject_id and dataset.PatientIdentityRemoved == "YES"


@BUILDERS
def test_what_cannot_be_written_is_refused(build, make_exam, make_labels, structures, origin) -> None:
    """No code, an old exam's record, no frame of reference, another grid: each says what to do."""
    labels, exam = make_labels(SHAPE), make_exam(SHAPE)
    bare = [structures[0].model_copy(update={"code": None}), *structures[1:]]
    with pytest.raises(UsageError, match="kidney") as usage:
        build(labels, exam, bare, origin)
    assert "project.yaml" in usage.value.do
    for other, rule in (
        (replace(exam, study=None), "exam_record"), (replace(exam, sop_class=None), "exam_record"),
        (replace(exam, frame_of_reference=""), "frame_of_reference"),
    ):  # fmt: skip
        with pytest.raises(ExamError) as caught:
            build(labels, other, structures, origin)
        assert caught.value.rule == rule
    with pytest.raises(ExamError) as caught:
        build(labels[:-1], exam, structures, origin)
    assert caught.value.rule == "grid"


def test_values_of_no_structure_are_refused(make_exam, make_labels, structures, origin) -> None:
    """They would vanish."""
    labels = make_labels(SHAPE)
    labels[2, 2, 2] = 9
    with pytest.raises(ExamError) as caught:
        build_seg(labels, make_exam(SHAPE), structures, origin)
    assert caught.value.rule == "unknown_values"


@BUILDERS
def test_a_resampled_exam_refers_to_its_images_as_a_whole(
    build, make_exam, make_labels, structures, origin, tmp_path
) -> None:
    """No slice is an image's: the grid's own positions are written, and the labels come back."""
    exam, labels = multiframe(make_exam, 4), make_labels(SHAPE)
    assert not exam.on_grid
    dataset = build(labels, exam, structures, origin)
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(dataset))
    np.testing.assert_array_equal(read_segmentation(tmp_path / "a.dcm", exam, structures), labels)
    if build is build_seg:
        (shared,) = dataset.SharedFunctionalGroupsSequence[0].DerivationImageSequence
        assert len(shared.SourceImageSequence) == 4
        assert shared.SourceImageSequence[0].SpatialLocationsPreserved == "NO"
