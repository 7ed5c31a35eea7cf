"""From files to volumes: what is set aside and refused by which rule, what a volume carries, and what it costs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from redraft.config.schema import Deid, Ingest, Limits
from redraft.config.sources import Wanted
from redraft.dicom.elements import Walk
from redraft.dicom.series import ReadRules, Series, SeriesVolume, open_series
from redraft.errors import ExamError, ReadError, SetAside
from redraft.selection import Selection

RULES = ReadRules(modalities=("CT",))
SEG, SC, MR = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.4"


def one(series: Series) -> SeriesVolume:
    (volume,) = series.volumes()
    if isinstance(volume, ExamError):
        raise volume
    return volume


def refused(paths: list[Path], rules: ReadRules = RULES) -> ExamError:
    with pytest.raises(ExamError) as caught:
        one(open_series(paths, rules))
    return caught.value


def test_a_volume_carries_what_exam_json_and_a_segmentation_need(series: Callable) -> None:
    """Slices in order with their UIDs and places, the frame of reference, the header of the first one, file sizes."""
    files = series()
    datasets = [pydicom.dcmread(path) for path in files.paths]
    opened = open_series(sorted(files.paths), RULES)
    assert opened.modality == "CT"
    assert dict(opened.instances) == {
        d.SOPInstanceUID: p.stat().st_size for d, p in zip(datasets, files.paths, strict=True)
    }
    assert opened.header.SOPInstanceUID == datasets[0].SOPInstanceUID
    assert opened.header.PatientName == datasets[0].PatientName and "PixelData" not in opened.header
    volume = one(opened)
    assert volume.key == "" and volume.measured == {}
    assert volume.frame_of_reference == datasets[0].FrameOfReferenceUID
    assert volume.orientation_lps == (1, 0, 0, 0, 1, 0)
    assert [item.uid for item in volume.slices] == [d.SOPInstanceUID for d in datasets]
    assert [item.frame for item in volume.slices] == [None] * 4
    assert [item.position_lps for item in volume.slices] == [tuple(d.ImagePositionPatient) for d in datasets]
    np.testing.assert_array_equal(volume.volume.array, files.hu)
    assert volume.volume.array.dtype == np.int16


def test_no_identity_shows_in_what_is_printed(series: Callable) -> None:
    """A series or volume in a log or traceback names no patient and no UID."""
    files = series()
    dataset = pydicom.dcmread(files.paths[0])
    opened = open_series(files.paths, RULES)
    shown = repr(opened) + repr(one(opened))
    for value in (dataset.PatientID, str(dataset.PatientName), dataset.SOPInstanceUID, dataset.FrameOfReferenceUID):
        assert value not in shown


def test_each_file_is_walked_once(series: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at a file serves grouping, judging and pixels."""
    read: list[Path] = []
    original = Path.read_bytes
    starts: list[int] = []
    dataset = Walk.dataset

    def read_bytes(self: Path) -> bytes:
        read.append(self)
        return original(self)

    def walk(self: Walk, pos: int, stop: int, depth: int, *args: Any, **kwargs: Any) -> int:
        starts.append(depth)
        return dataset(self, pos, stop, depth, *args, **kwargs)

    files = series()
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    monkeypatch.setattr(Walk, "dataset", walk)
    one(open_series(files.paths, RULES))
    assert sorted(read) == sorted(files.paths)
    assert starts.count(0) == 2 * len(files.paths)  # meta information and dataset


def test_pixels_are_taken_once(series: Callable) -> None:
    """They are let go as the volume grows, so a second look needs another opening."""
    opened = open_series(series().paths, RULES)
    assert len(list(opened.volumes())) == 1 and list(opened.volumes()) == []


def test_memory_is_the_files_and_one_volume(series: Callable) -> None:
    """Reading 16 MB of slices never holds more than the stored bytes, the volume and a few slices."""
    files = series((512, 512, 32))
    stored = sum(path.stat().st_size for path in files.paths)
    tracemalloc.start()
    volume = one(open_series(files.paths, RULES)).volume
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < stored + volume.array.nbytes + 8 * 512 * 512 * 8


# -- set aside ---------------------------------------------------------------------------------------------------------


def put(name: str, value: object) -> Callable[[Dataset, int], None]:
    def change(dataset: Dataset, k: int) -> None:
        setattr(dataset, name, value)
        if name == "SOPClassUID":
            dataset.file_meta.MediaStorageSOPClassUID = value

    return change


ASIDE: dict[str, tuple[Callable[[Dataset, int], None], str, str]] = {
    "segmentation": (put("SOPClassUID", SEG), "segmentation_object", "refused"),
    "secondary capture": (put("SOPClassUID", SC), "class_not_supported", "quarantined"),
    "burned in": (put("BurnedInAnnotation", "YES"), "burned_in_annotation", "quarantined"),
    "burned in, perhaps": (put("BurnedInAnnotation", "MAYBE"), "burned_in_annotation", "quarantined"),
    "modality of text": (put("Modality", "US"), "modality_quarantined", "quarantined"),
    "modality": (put("Modality", "MR"), "modality_not_wanted", "refused"),
    "localizer": (put("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer", "refused"),
    "reformatted": (put("ImageType", ["DERIVED", "SECONDARY", "MPR"]), "derived_mpr", "refused"),
    "secondary": (put("ImageType", ["DERIVED", "SECONDARY"]), "derived_secondary", "refused"),
    "colour": (put("SamplesPerPixel", 3), "colour", "refused"),
}


@pytest.mark.parametrize("kind", ASIDE)
def test_what_is_no_wanted_volume_is_set_aside(series: Callable, kind: str) -> None:
    """By rule; what may show a name in its pixels goes to the vault, the rest is refused."""
    files = series()
    change, rule, verdict = ASIDE[kind]
    files.edit(change)
    error = refused(files.paths, replace(RULES, quarantine_modalities=("US", "SC")))
    assert isinstance(error, SetAside) and (error.rule, error.verdict) == (rule, verdict)


def test_a_single_slice_is_enough_to_set_a_series_aside(series: Callable) -> None:
    """One localizer, one other class, one other frame of reference, one slice with a burned-in name."""
    for change, rule in (
        (put("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
        (put("SOPClassUID", MR), "mixed_classes"),
        (put("FrameOfReferenceUID", "2.25.1"), "mixed_frame_of_reference"),
        (put("BurnedInAnnotation", "YES"), "burned_in_annotation"),
    ):
        files = series()
        files.edit(change, 2)
        assert refused(files.paths).rule == rule


def test_secondary_images_are_read_where_the_project_wants_them(series: Callable) -> None:
    """Crops and converted units are DERIVED\\SECONDARY."""
    files = series()
    files.edit(put("ImageType", ["DERIVED", "SECONDARY"]))
    np.testing.assert_array_equal(
        one(open_series(files.paths, replace(RULES, accept_secondary=True))).volume.array, files.hu
    )


def test_what_a_source_does_not_want_says_by_which_condition(series: Callable) -> None:
    """Descriptions in any script, and accession numbers that never show in the receipt."""
    files = series()
    files.edit(put("SeriesDescription", "Живот с контрастом"))
    accession = pydicom.dcmread(files.paths[0]).AccessionNumber
    wanted = Wanted(series_description="*контраст*", accessions=Path("list"))
    one(open_series(files.paths, replace(RULES, selection=Selection(wanted, frozenset({accession})))))
    error = refused(files.paths, replace(RULES, selection=Selection(wanted, frozenset({"other"}))))
    assert (error.rule, error.measured) == ("not_selected", {"by": "accessions"}) and accession not in str(error)
    assert refused(files.paths, replace(RULES, selection=Selection(Wanted(series_description="head*")))).measured == {
        "by": "series_description"
    }


def test_what_is_not_selected_goes_into_no_vault(series: Callable) -> None:
    """A capture that the source does not want is refused, not quarantined: nobody asked for its bytes."""
    files = series()
    files.edit(put("SOPClassUID", SC))
    error = refused(files.paths, replace(RULES, selection=Selection(Wanted(modalities=("MR",)))))
    assert isinstance(error, SetAside) and (error.rule, error.verdict) == ("not_selected", "refused")


def test_the_project_s_rules_are_those_of_its_file() -> None:
    """Every rule of reading is taken from project.yaml's sections."""
    ingest = Ingest(
        modalities=("PT",), accept_secondary=True, gantry_tilt="resample", max_spacing_mm=7, max_voxels=99,
        limits=Limits(nesting=5, elements=2000),
    )  # fmt: skip
    config = SimpleNamespace(ingest=ingest, deid=Deid(quarantine_modalities=("ES",)))
    selection = Selection(Wanted(body_part=("KIDNEY",)), frozenset({"A"}))
    rules = ReadRules.of(config, selection)  # type: ignore[arg-type]
    assert rules == ReadRules(
        modalities=("PT",), accept_secondary=True, gantry_tilt="resample", max_spacing_mm=7, max_voxels=99,
        selection=selection, quarantine_modalities=("ES",), nesting=5, elements=2000,
    )  # fmt: skip
    assert rules.resampled == ("gantry_tilt",)
    assert (rules.bounds.nesting, rules.bounds.elements, rules.bounds.voxels) == (5, 2000, 99)


# -- values ------------------------------------------------------------------------------------------------------------


def test_monochrome1_says_how_to_show_values_not_what_they_are(series: Callable) -> None:
    """PS3.3 C.7.6.3.1.2: the values of the modality stay; that low ones are shown bright is noted."""
    files = series()
    files.edit(put("PhotometricInterpretation", "MONOCHROME1"))
    volume = one(open_series(files.paths, RULES))
    np.testing.assert_array_equal(volume.volume.array, files.hu)
    assert volume.measured == {"photometric_interpretation": "MONOCHROME1"}


@pytest.mark.parametrize("implicit", [False, True])
def test_padding_is_counted_and_left_as_it_is(series: Callable, implicit: bool) -> None:
    """Values outside of the scanner's circle: a range of stored values (PS3.3 C.7.5.1.1.2), signed, in real values."""
    files = series()

    def pad(dataset: Dataset, k: int) -> None:
        values = dataset.pixel_array.astype("<i2")
        values[0], values[1, :3] = -2000, -1990
        dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 1, 16, 15
        dataset.PixelData = values.tobytes()
        dataset.add_new("PixelPaddingValue", "SS", -2000)
        dataset.add_new("PixelPaddingRangeLimit", "SS", -1985)

    files.edit(pad)
    for path in files.paths:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"
        pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=True)
    volume = one(open_series(files.paths, RULES))
    assert volume.measured == {"padding": {"low": -3024.0, "high": -3009.0, "voxels": 4 * 10}}
    assert volume.volume.array.min() == -3024


def test_overlays_in_unused_bits_are_not_values(series: Callable) -> None:
    """Old overlays in the bits above BitsStored (retired, still there)."""
    files = series()

    def overlay(dataset: Dataset, k: int) -> None:
        dataset.PixelData = (dataset.pixel_array.astype("<u2") | 0xA000).tobytes()

    files.edit(overlay)
    np.testing.assert_array_equal(one(open_series(files.paths, RULES)).volume.array, files.hu)


def test_values_above_unused_bits_are_refused(series: Callable) -> None:
    """CT, MR and PET must not have them, and readers disagree whether they are shifted."""
    files = series()
    files.edit(put("HighBit", 15), 1)
    assert refused(files.paths).measured == {"allocated": 16, "stored": 12, "high": 15}


def test_tables_of_values_are_refused(series: Callable) -> None:
    """Only linear rescaling is read; ignoring a table would store other values than the scanner's."""
    files = series()
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [2, 0, 16])
    table.add_new("LUTData", "OW", b"\0\0\1\0")
    table.ModalityLUTType = "HU"
    files.edit(put("ModalityLUTSequence", Sequence([table])), 1)
    assert refused(files.paths).rule == "modality_lut"


def as_video(dataset: Dataset) -> None:
    """H.264: no image syntax."""
    dataset.PixelData = encapsulate([dataset.PixelData])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"


# -- refused -----------------------------------------------------------------------------------------------------------


def test_geometry_is_judged_before_pixels(series: Callable) -> None:
    """A series with a slice missing is refused when it is opened; its pixels are not looked at."""
    files = series((7, 5, 6))
    files.edit(put("RescaleSlope", "1e400"), 3)
    with pytest.raises(ExamError) as caught:
        open_series([path for n, path in enumerate(files.paths) if n != 2], RULES)
    assert caught.value.rule in ("rescale", "missing_slices")


def test_declared_sizes_are_held_against_the_limit_as_a_whole(series: Callable) -> None:
    """Four slices of 35 voxels are 140."""
    files = series()
    one(open_series(files.paths, replace(RULES, max_voxels=140)))
    error = refused(files.paths, replace(RULES, max_voxels=139))
    assert (error.rule, error.measured) == ("too_large", {"voxels": 140})


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda d: d.__delattr__("PixelData"), "no_pixels"),
        (lambda d: d.__delattr__("Rows"), "no_size"),
        (lambda d: setattr(d, "Columns", 0), "no_size"),
        (lambda d: setattr(d, "BitsAllocated", 13), "undecodable"),
        (lambda d: setattr(d, "BitsStored", 17), "undecodable"),
        (lambda d: d.__delattr__("PixelRepresentation"), "undecodable"),
        (lambda d: setattr(d.file_meta, "TransferSyntaxUID", "1.2.3.4"), "undecodable"),
        (lambda d: as_video(d), "undecodable"),
        (lambda d: setattr(d, "RescaleSlope", "1e400"), "rescale"),
        (lambda d: setattr(d, "RescaleSlope", "1e39"), "rescale"),
        (lambda d: setattr(d, "SeriesInstanceUID", "2.25.9"), "mixed_series"),
        (lambda d: d.__delattr__("ImagePositionPatient"), "missing_position"),
    ],
)
def test_what_cannot_be_read_is_refused_by_rule(series: Callable, change: Callable, rule: str) -> None:
    """One slice is enough; the error names no value of the header."""
    files = series()
    dataset = pydicom.dcmread(files.paths[1])
    change(dataset)
    pydicom.dcmwrite(files.paths[1], dataset, implicit_vr=False, little_endian=True)
    error = refused(files.paths)
    assert error.rule == rule and error.__cause__ is None
    assert dataset.PatientID not in f"{error} {error.measured}"


def test_files_that_vanish_or_are_no_images_are_refused(series: Callable, tmp_path: Path) -> None:
    """Between listing and reading anything may happen to a folder."""
    files = series()
    assert refused([*files.paths, tmp_path / "gone"]).rule == "read_failed"
    (tmp_path / "text").write_text("no image " * 40)
    assert refused([*files.paths, tmp_path / "text"]).rule == "not_dicom"
    assert refused([]).rule == "no_files"


@given(st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_series_give_volumes_or_typed_errors(series: Callable, tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes of a slice are cut off or changed: one finite volume, or an ExamError with a rule."""
    folder = tmp_path / "whole"
    if not folder.exists():
        kept = series(folder=folder)
        kept.edit(lambda d, k: d.compress(pydicom.uid.RLELossless, generate_instance_uid=False), 1)
    paths = sorted(folder.glob("*.dcm"))
    target = data.draw(st.sampled_from(paths))
    raw = bytearray(target.read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=6)):
            raw[place] = data.draw(st.integers(0, 255))
    (tmp_path / "damaged.dcm").write_bytes(raw)
    try:
        opened = open_series([*(path for path in paths if path != target), tmp_path / "damaged.dcm"], RULES)
        for volume in opened.volumes():
            assert isinstance(volume, ReadError) or np.isfinite(volume.volume.array).all()  # type: ignore[union-attr]
        assert opened.header.get("Rows")
    except ExamError as error:
        assert error.rule
