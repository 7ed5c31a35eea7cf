"""No identifier survives; what is needed to use the object does; the same input gives the same bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from redraft.deid import Deidentifier
from redraft.deid.apply import Refused
from redraft.deid.matcher import Matcher
from redraft.phantom.identities import PEOPLE, draw_identity
from tests.redraft.deid.objects import again, ct, saved

NAMES = [name for _, name in PEOPLE]
TAGS = sorted(tag for tag, row in DicomDictionary.items() if tag >> 16 not in (0, 2, 4, 0xFFFE) and row[0] != "NONE")
TEXT = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", "AS", "DA", "DT", "TM", "DS", "IS", "UI")


def leaks(clean: Dataset, header: dict[str, object], planted: list[str]) -> set[int]:
    matcher = Matcher(enumerate(planted))
    data = saved(clean) + b"\n" + json.dumps(header, ensure_ascii=False).encode() + json.dumps(header).encode()
    return {hit.identifier for hit in matcher.search(data)}


@st.composite
def planted_object(draw: st.DrawFn) -> tuple[Dataset, list[str]]:
    """An object with one patient's name and number in any attributes, of right and wrong representation."""
    name = draw(st.sampled_from(NAMES))
    number = f"QX{draw(st.integers(10**7, 10**8 - 1))}"
    family = name.split("=")[0].split("^")[0]
    spelt = [
        name,
        family,
        family.upper(),
        f"{name.split('^')[1]} {family}",
        number,
        f"study of {family}",
        f"{number}_1",
    ]

    def fill(ds: Dataset, depth: int) -> None:
        for tag in draw(st.lists(st.sampled_from(TAGS), max_size=12, unique=True)):
            value = draw(st.sampled_from(spelt))
            vr = dictionary_VR(tag)
            kind = draw(st.sampled_from(("right", "raw", "wrong")))
            if vr == "SQ" and depth < 3:
                items = [Dataset() for _ in range(draw(st.integers(1, 2)))]
                for item in items:
                    fill(item, depth + 1)
                ds[tag] = DataElement(tag, "SQ", Sequence(items))
            elif kind == "right" and vr in TEXT:
                raw = value.encode() + b" " * (len(value.encode()) % 2)
                ds[tag] = RawDataElement(Tag(tag), vr, len(raw), raw, 0, False, True)
            else:
                wrong = (
                    draw(st.sampled_from(("UN", "LO", "OB", "UT", "PN"))) if kind == "wrong" else vr.split(" or ")[0]
                )
                raw = value.encode("utf-16-le" if draw(st.booleans()) else "utf-8")
                if wrong != "SQ":
                    ds[tag] = RawDataElement(Tag(tag), wrong, len(raw), raw, 0, False, True)
        for group in draw(st.lists(st.sampled_from((0x0009, 0x0019, 0x2001, 0x7FE1, 0x5000, 0x6000)), max_size=3)):
            raw = draw(st.sampled_from(spelt)).encode()
            ds[(group, 0x1010)] = RawDataElement(Tag(group, 0x1010), "LO", len(raw), raw, 0, False, True)

    ds = Dataset()
    fill(ds, 0)
    base = ct(SpecificCharacterSet="ISO_IR 192", PatientName=name, PatientID=number)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "PatientName", "PatientID", "SpecificCharacterSet"):
        ds[keyword] = base[keyword]
    ds.pop(0x7FE00010, None)
    ds.file_meta = base.file_meta
    return ds, [name, family, number]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=planted_object())
def test_no_planted_identifier_survives(deidentifier: Deidentifier, case: tuple[Dataset, list[str]]) -> None:
    """Names and numbers in any attribute, nested, private, of wrong representation: none is in the copy or header."""
    ds, planted = case
    if any(tag in ds for tag in (0x7FE00008, 0x7FE00009)):
        with pytest.raises(Refused):  # pixels are not changed: an object with text in them is not copied
            deidentifier.dataset(ds)
        return
    assert not leaks(deidentifier.dataset(ds), deidentifier.header(ds), planted)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=planted_object())
def test_the_copy_can_be_written_read_and_made_again(
    deidentifier: Deidentifier, case: tuple[Dataset, list[str]]
) -> None:
    """Whatever went in, what comes out is a readable object, and the same one each time."""
    ds, _ = case
    ds.pop(0x7FE00008, None)
    ds.pop(0x7FE00009, None)
    first = saved(deidentifier.dataset(ds))
    assert first == saved(deidentifier.dataset(ds))
    clean = pydicom.dcmread(pydicom.filebase.DicomBytesIO(first))
    str(clean)  # converts every value
    assert clean.PatientIdentityRemoved == "YES"


@pytest.mark.parametrize(
    "keyword", ["Manufacturer", "SoftwareVersions", "ConvolutionKernel", "SequenceName", "StackID"]
)
def test_a_technical_word_with_the_patients_name_in_it_goes(deidentifier: Deidentifier, keyword: str) -> None:
    """Text that stays is compared with the object's own identifiers."""
    assert not deidentifier.dataset(ct(**{keyword: "ABENDROTH 2"})).get(keyword)
    assert not deidentifier.dataset(ct(**{keyword: "KH-0098812"})).get(keyword)


def test_coded_strings_are_known_terms_or_gone(deidentifier: Deidentifier) -> None:
    """A name fits into a coded string; it is no term of the standard."""
    clean = deidentifier.dataset(
        ct(BodyPartExamined="ABENDROTH", ScanOptions="HELIX", ImageType=["ORIGINAL", "ABENDROTH"])
    )
    assert "BodyPartExamined" not in clean
    assert clean.ImageType == ["ORIGINAL", "OTHER"]
    assert deidentifier.dataset(ct(BodyPartExamined="LIVER")).BodyPartExamined == "LIVER"


def test_pixels_and_geometry_stay(deidentifier: Deidentifier) -> None:
    """What places and decodes the pixels is not changed by a bit."""
    values = {
        "ImagePositionPatient": ["-1.5", "2", "3e1"], "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
        "PixelSpacing": ["0.9765625", "0.9765625"], "RescaleSlope": "1", "RescaleIntercept": "-1024",
        "PixelData": bytes(range(8)), "SliceThickness": "2.5", "KVP": "120",
    }  # fmt: skip
    clean = again(deidentifier.dataset(ct(**values)))
    for keyword in values:
        if keyword != "PixelData":
            assert [str(v) for v in np.atleast_1d(clean[keyword].value)] == [
                str(v) for v in np.atleast_1d(ct(**values)[keyword].value)
            ]
    assert clean.PixelData == bytes(range(8))


def test_bytes_behind_the_declared_pixels_go(deidentifier: Deidentifier) -> None:
    """A note hidden behind the last row is no pixel."""
    assert deidentifier.dataset(ct(PixelData=bytes(8) + b"Abendroth^Leopoldine")).PixelData == bytes(8)


def test_uids_are_the_same_everywhere(deidentifier: Deidentifier) -> None:
    """An instance, its file meta information and a reference to it in another object agree; registered UIDs stay."""
    image = deidentifier.dataset(ct())
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ct().SOPClassUID, ct().SOPInstanceUID
    rt = ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3", SOPInstanceUID="1.2.3.4.99")
    rt.ReferencedFrameOfReferenceSequence = Sequence([Dataset()])
    rt.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.2.3.9"
    rt.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence = Sequence([Dataset()])
    study = rt.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    study.RTReferencedSeriesSequence = Sequence([Dataset()])
    study.RTReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3.4.5.6"
    study.RTReferencedSeriesSequence[0].ContourImageSequence = Sequence([item])
    clean = deidentifier.dataset(rt)
    frame = clean.ReferencedFrameOfReferenceSequence[0]
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert frame.FrameOfReferenceUID == image.FrameOfReferenceUID
    assert series.SeriesInstanceUID == image.SeriesInstanceUID
    assert series.ContourImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert series.ContourImageSequence[0].ReferencedSOPClassUID == image.SOPClassUID == ct().SOPClassUID
    assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
    assert image.SOPInstanceUID.startswith("2.25.")


def test_dates_move_together_and_intervals_stay(deidentifier: Deidentifier) -> None:
    """Two exams of a patient are as far apart as before; another patient's dates move by another number of days."""
    from datetime import date

    def day(text: str) -> date:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))

    first = deidentifier.dataset(ct(StudyDate="20240229", AcquisitionDateTime="20240229101112.5+0100"))
    second = deidentifier.dataset(ct(StudyDate="20240310"))
    other = deidentifier.dataset(ct(StudyDate="20240229", PatientID="another"))
    assert (day(second.StudyDate) - day(first.StudyDate)).days == 10
    assert 1 <= (date(2024, 2, 29) - day(first.StudyDate)).days <= 3650
    assert first.AcquisitionDateTime == f"{first.StudyDate}101112.5"
    assert other.StudyDate != first.StudyDate
    assert first.LongitudinalTemporalInformationModified == "MODIFIED"
    assert not first.get("PatientBirthDate")


@pytest.mark.parametrize("value", ["20240230", "2024", "Abendroth", "99999999", "20240101-20240201"])
def test_dates_that_are_none_are_emptied(deidentifier: Deidentifier, value: str) -> None:
    """An impossible date is never copied; the study's date may be empty."""
    ds = ct()
    raw = value.encode() + b" " * (len(value) % 2)
    ds[0x00080020] = RawDataElement(Tag(0x00080020), "DA", len(raw), raw, 0, False, True)
    assert not deidentifier.dataset(ds).StudyDate


@pytest.mark.parametrize(
    ("age", "kept"),
    [("089Y", "089Y"), ("090Y", "090Y"), ("101Y", "090Y"), ("999M", "999M"), ("006M", "006M"), ("92Y", None)],
)
def test_great_ages_are_one_group(deidentifier: Deidentifier, age: str, kept: str | None) -> None:
    """90 and older is one group; what is no age goes."""
    ds = ct()
    raw = age.encode().ljust(4)
    ds[0x00101010] = RawDataElement(Tag(0x00101010), "AS", 4, raw, 0, False, True)
    assert (deidentifier.dataset(ds).get("PatientAge") or None) == kept


def test_options_are_followed(make: Callable[..., Deidentifier]) -> None:
    """Without options: no date, no sex, no device; with them, and their codes are written."""
    ds = ct(DeviceSerialNumber="60064-1", StationName="CT01", PatientAge="044Y")
    bare, full = make(retain=()).dataset(ds), make().dataset(ds)
    assert (
        not bare.StudyDate and not bare.PatientSex and not bare.get("DeviceSerialNumber") and not bare.get("PatientAge")
    )
    assert [item.CodeValue for item in bare.DeidentificationMethodCodeSequence] == ["113100"]
    assert bare.LongitudinalTemporalInformationModified == "REMOVED"
    assert full.StudyDate and full.PatientSex == "F" and full.PatientAge == "044Y"
    assert full.DeviceSerialNumber.startswith("DEV") and "60064" not in full.DeviceSerialNumber
    assert [item.CodeValue for item in full.DeidentificationMethodCodeSequence] == [
        "113100",
        "113107",
        "113108",
        "113109",
    ]


def test_structure_names_stay_only_when_the_project_knows_them(deidentifier: Deidentifier) -> None:
    """Readers write names into structure names."""
    ds = ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3")
    ds.StructureSetROISequence = Sequence([Dataset(), Dataset(), Dataset()])
    for number, name in enumerate(("LIVER", "Dr Vandersloot GTV", "gtv_mass"), 1):
        item = ds.StructureSetROISequence[number - 1]
        item.ROINumber, item.ROIName, item.ReferencedFrameOfReferenceUID = number, name, "1.2.3.9"
    clean = deidentifier.dataset(ds)
    assert [item.ROIName for item in clean.StructureSetROISequence] == ["liver", "structure-2", "GTV_Mass"]


def test_what_was_typed_about_a_segmentation_goes(deidentifier: Deidentifier) -> None:
    """Its description is required and stays, empty: it may name a colleague or another patient."""
    copy = deidentifier.dataset(ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", ContentDescription="as Dr Musterfrau"))
    assert copy["ContentDescription"].value in ("", None)
    assert "00700081" not in deidentifier.header(ct(ContentDescription="as Dr Musterfrau"))


def test_codes_are_published_ones_in_their_own_words(deidentifier: Deidentifier) -> None:
    """A published code keeps its value and gets the dictionary's meaning; a local code goes."""

    def code(value: str, scheme: str, meaning: str) -> Dataset:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
        return item

    known = deidentifier.dataset(ct(AnatomicRegionSequence=Sequence([code("10200004", "SCT", "Leber von Abendroth")])))
    assert known.AnatomicRegionSequence[0].CodeMeaning == "Liver structure (body structure)"
    local = deidentifier.dataset(ct(AnatomicRegionSequence=Sequence([code("ABENDROTH", "99HOUSE", "Abendroth")])))
    assert "AnatomicRegionSequence" not in local
    wrong = deidentifier.dataset(ct(AnatomicRegionSequence=Sequence([code("10200005", "SCT", "Liver")])))
    assert "AnatomicRegionSequence" not in wrong  # its check digit does not fit


def test_the_header_describes_the_series_and_no_slice(deidentifier: Deidentifier) -> None:
    """The same header for every slice of a series, without pixels, and as JSON."""
    first = ct(KVP="120", InstanceNumber="1", ImagePositionPatient=["0", "0", "1"], SliceLocation="1")
    second = ct(KVP="120", InstanceNumber="2", ImagePositionPatient=["0", "0", "2"], SliceLocation="2")
    second.SOPInstanceUID = "1.2.3.4.5.6.8"
    assert deidentifier.header(first) == deidentifier.header(second)
    content = deidentifier.header(first)
    assert content["00180060"] == {"vr": "DS", "Value": [120.0]}
    assert not {"7FE00010", "00080018", "00280010", "00100010", "00100020"} & set(content)
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_an_object_without_identity_of_its_own_is_refused(deidentifier: Deidentifier) -> None:
    """What names no class and no instance cannot be made into a valid copy."""
    ds = ct()
    del ds.SOPInstanceUID
    with pytest.raises(Refused):
        deidentifier.dataset(ds)


@pytest.mark.parametrize("seed", range(6))
def test_the_phantoms_identities_are_gone(deidentifier: Deidentifier, seed: int) -> None:
    """Everything that the phantom plants into its headers, the device and the station included."""
    identity = draw_identity(np.random.default_rng(seed), seed, f"ACC{seed:08d}")
    ds = ct(
        PatientName=identity.name, PatientID=identity.patient_id, PatientBirthDate=identity.birth_date,
        ReferringPhysicianName=identity.physician, OperatorsName=identity.operator, AccessionNumber=identity.accession,
        InstitutionName=identity.institution, PatientTelephoneNumbers=identity.phone, PatientAddress=identity.address,
        StationName=identity.station, DeviceSerialNumber=identity.device_serial, StudyDescription=identity.plain_name,
        SpecificCharacterSet="ISO_IR 192", ImageComments=f"{identity.plain_name}, {identity.phone}",
    )  # fmt: skip
    assert not leaks(deidentifier.dataset(ds), deidentifier.header(ds), identity.planted())


# -- real objects -----------------------------------------------------------------------------------------------------
def one_per_series(folder: Path) -> list[Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in (".dcm", ".seg", ""):
            try:
                ds = pydicom.dcmread(path, stop_before_pixels=True)
            except pydicom.errors.InvalidDicomError:
                continue
            if ds.get("SOPClassUID") and ds.get("SOPInstanceUID"):
                found.setdefault(f"{ds.get('SeriesInstanceUID')} {ds.SOPClassUID}", path)
    return list(found.values())


def identities(ds: Dataset) -> list[str]:
    """What tells who somebody is in an object: names, numbers, addresses, UIDs of its own."""
    words: set[str] = set()
    for element in ds.iterall():
        if element.tag.is_private or element.value in (None, ""):
            continue
        if element.VR == "PN":
            words |= {str(element.value), *str(element.value).replace("^", " ").split()}
        elif element.keyword in ("PatientID", "AccessionNumber", "InstitutionName", "StationName", "PatientBirthDate"):
            words.add(str(element.value))
        elif element.VR == "UI" and not str(element.value).startswith("1.2.840.10008."):
            words |= {str(uid) for uid in (element.value if element.VM > 1 else [element.value])}
    return sorted(word for word in words if len(word) > 5)


@pytest.mark.parametrize("name", ["brain_mr_dicom", "dicom_seg_rt"])
def test_nothing_of_real_headers_survives(deidentifier: Deidentifier, shared_data: Path, name: str) -> None:
    """Names, numbers and UIDs that the files hold, listed from the files, are nowhere in copies and headers."""
    paths = one_per_series(shared_data / name)
    assert len(paths) >= 4
    for path in paths:
        ds = pydicom.dcmread(path)
        found = leaks(deidentifier.dataset(ds), deidentifier.header(ds), identities(ds))
        assert not {identities(ds)[n] for n in found}


def test_what_another_implementation_removes_is_gone_here_too(deidentifier: Deidentifier, shared_data: Path) -> None:
    """Oracle: whatever dicom-anonymizer removes or changes of an object keeps no old value here."""
    from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, initialize_actions

    for path in one_per_series(shared_data / "brain_mr_dicom") + one_per_series(shared_data / "dicom_seg_rt"):
        ds, other = pydicom.dcmread(path), pydicom.dcmread(path)
        anonymize_dataset(other, base_rules_gen=lambda: initialize_actions("dicomfields_2026c"))
        clean = deidentifier.dataset(ds)
        allowed_by_option = {"PatientSex", "PatientAge", "PatientWeight", "PatientSize", "PatientSexNeutered",
                             "SmokingStatus", "PregnancyStatus"}  # fmt: skip
        for element in ds:
            theirs, ours = other.get(element.tag), clean.get(element.tag)
            if element.VR == "SQ" or element.keyword in allowed_by_option or not element.value or ours is None:
                continue
            if theirs is None or theirs.value != element.value:
                assert element.VR == "TM" or ours.value != element.value, (path.name, element.keyword)


def test_copies_are_no_less_valid_than_their_originals(
    deidentifier: Deidentifier, shared_data: Path, tmp_path: Path
) -> None:
    """dciodvfy finds no kind of error in a copy that it does not find in the original."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not installed")

    def errors(path: Path) -> Counter[str]:
        run = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, errors="replace")
        lines = (line.split("= <")[0] for line in (run.stdout + run.stderr).splitlines() if line.startswith("Error"))
        return Counter(lines)

    paths = [*one_per_series(shared_data / "brain_mr_dicom"), *one_per_series(shared_data / "dicom_seg_rt")]
    sts = sorted((shared_data / "sts_dicom_rtstruct").rglob("*.dcm"))
    for path in [*paths, *sts[:1], *[p for p in sts if p.name == "RS.dcm"][:2]]:
        clean = tmp_path / "clean.dcm"
        deidentifier.dataset(pydicom.dcmread(path)).save_as(clean, enforce_file_format=True)
        assert not set(errors(clean)) - set(errors(path)), path.name


def test_references_of_real_structures_lead_to_the_same_images(deidentifier: Deidentifier, shared_data: Path) -> None:
    """SEG frames name the copies of the images that they named before."""
    folder = shared_data / "dicom_seg_rt" / "highdicom"
    image = pydicom.dcmread(folder / "ct_image.dcm")
    seg = pydicom.dcmread(folder / "seg_image_ct_binary_single_frame.dcm")
    copy, segments = deidentifier.dataset(image), deidentifier.dataset(seg)

    def named(ds: Dataset) -> set[str]:
        return {str(e.value) for e in ds.iterall() if e.keyword == "ReferencedSOPInstanceUID"}

    assert (image.SOPInstanceUID in named(seg)) == (copy.SOPInstanceUID in named(segments))
    assert len(named(segments)) == len(named(seg)) > 0
    assert segments.PixelData == seg.PixelData
    assert (
        segments.FrameOfReferenceUID == copy.FrameOfReferenceUID or seg.FrameOfReferenceUID != image.FrameOfReferenceUID
    )
