"""Phantom exams on disk: valid DICOM, right geometry, planted identities, the same bytes everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import pydicom
import pytest

from redraft.dicom.contours import open_rtstruct, referenced_series, rtstruct_masks
from redraft.dicom.series import ReadRules, SeriesVolume, open_series
from redraft.errors import StorageError, UsageError
from redraft.phantom import write_phantom
from redraft.phantom.reference import snapshot_id
from redraft.phantom.write import SHAPE, SPACING, STRUCTURES, draw_exam, subject_of
from redraft.volumes import Volume

SMALL = {"shape": (48, 40, 16), "spacing": (7.2, 7.2, 12.0)}
EXAMS, SEED = 6, 3


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, EXAMS, SEED)
    return folder


@cache
def series_of(phantom: Path) -> dict[str, list[Path]]:
    """Image files by Series Instance UID."""
    found: dict[str, list[Path]] = {}
    for path in sorted((phantom / "images").rglob("*.dcm")):
        found.setdefault(str(pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID), []).append(path)
    return found


def ingested(paths: list[Path]) -> Volume:
    """A series as the project's ingest reads it."""
    (found,) = open_series(paths, ReadRules()).volumes()
    assert isinstance(found, SeriesVolume)
    return found.volume


def test_ingest_gets_back_every_voxel(phantom):
    """What was drawn is what the project's own ingest and its truth reader see: HU and labels, voxel by voxel."""
    for number in range(EXAMS):
        drawn = draw_exam(SEED, number)
        truth = open_rtstruct(phantom / "truth" / f"exam_{number:04d}.dcm")
        (uid,) = referenced_series(truth)
        volume = ingested(series_of(phantom)[uid])
        assert volume.array.dtype == np.int16
        assert np.array_equal(volume.array, drawn.hu)
        assert volume.spacing == pytest.approx(SPACING)
        masks = rtstruct_masks(truth, volume, dict.fromkeys(STRUCTURES, ()))
        for name, value in STRUCTURES.items():
            assert np.array_equal(masks.get(name, np.zeros(SHAPE, bool)), drawn.labels == value)


def test_simpleitk_reads_the_same_volume(phantom):
    """An independent reader finds the same values at the same places, in LPS, whatever the file names' order."""
    sitk = pytest.importorskip("SimpleITK")
    for uid, paths in series_of(phantom).items():
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(paths[0].parent), uid)
        image = sitk.ReadImage(names)
        volume = ingested(paths)
        assert np.array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), volume.array)
        for index in ((0, 0, 0), (95, 0, 31), (10, 79, 5)):
            ras = (volume.affine @ [*index, 1])[:3]
            np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), ras * [-1, -1, 1], atol=1e-3)


@pytest.mark.parametrize(("kind", "iod"), [("images", "CT_IMAGE"), ("truth", "RT_STRUCTURE_SET")])
def test_every_required_attribute_is_there(phantom, kind, iod):
    """Type 1 attributes of the IOD's mandatory modules have values and type 2 ones are present (PS3.3 A.3, A.19)."""
    pytest.importorskip("highdicom")
    tables = resources.files("highdicom") / "_standard"
    modules = json.loads((tables / "iod_module_map.json").read_text())
    attributes = json.loads((tables / "module_attribute_map.json").read_text())
    name = next(key for key in modules if key.upper().replace("-", "_") == iod)
    path = sorted((phantom / kind).rglob("*.dcm"))[0]
    dataset = pydicom.dcmread(path)
    missing = []
    for module in modules[name]:
        if module["usage"] != "M":
            continue
        for attribute in attributes[module["key"]]:
            for item in _items(dataset, attribute["path"]):
                here = attribute["keyword"] in item
                empty = here and item[attribute["keyword"]].is_empty
                if (attribute["type"] == "1" and (not here or empty)) or (attribute["type"] == "2" and not here):
                    missing.append(f"{module['key']}: {'/'.join([*attribute['path'], attribute['keyword']])}")
    assert not missing


def _items(dataset: pydicom.Dataset, path: list[str]) -> list[pydicom.Dataset]:
    """Datasets at a path of sequences; none where an optional sequence is absent."""
    level = [dataset]
    for keyword in path:
        level = [item for parent in level for item in parent.get(keyword, [])]
    return level


def test_no_value_breaks_its_representation(phantom):
    """Every value obeys its VR: lengths, character sets, dates, UIDs."""
    paths = [next((phantom / "images").rglob("*.dcm")), *sorted((phantom / "truth").glob("*.dcm"))]
    for path in paths:
        with pydicom.config.disable_value_validation():
            dataset = pydicom.dcmread(path)
        for element in dataset.iterall():
            if element.VR == "SQ" or element.is_empty or element.keyword == "PixelData":
                continue
            values = element.value if element.VM > 1 else [element.value]
            for value in values:
                written = getattr(value, "original_string", value) if element.VR in ("DS", "IS") else value
                text = written if element.VR in ("US", "UL", "OB") else str(written)
                pydicom.valuerep.validate_value(element.VR, text, pydicom.config.RAISE)


def test_uids_are_unique(phantom):
    """No two images, series, studies or structure sets share a UID."""
    instances, others = [], set()
    for paths in series_of(phantom).values():
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
        instances += [str(header.SOPInstanceUID) for header in headers]
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            assert len({str(header.get(keyword)) for header in headers}) == 1
            others.add(str(headers[0].get(keyword)))
    assert len(set(instances)) == EXAMS * SHAPE[2]
    assert len(others) == 3 * EXAMS


def test_two_exams_of_one_patient(phantom):
    """A patient with two exams keeps name, id and birth date, with another study, date and order."""
    by_patient: dict[str, list[pydicom.Dataset]] = {}
    for paths in series_of(phantom).values():
        header = pydicom.dcmread(paths[0], stop_before_pixels=True)
        by_patient.setdefault(header.PatientID, []).append(header)
    (pair,) = [headers for headers in by_patient.values() if len(headers) > 1]
    first, second = pair
    for keyword in ("PatientName", "PatientBirthDate", "PatientSex"):
        assert first[keyword] == second[keyword]
    for keyword in ("StudyInstanceUID", "StudyDate", "AccessionNumber", "FrameOfReferenceUID"):
        assert first[keyword] != second[keyword]


def test_planted_identifiers_are_what_the_headers_hold(phantom):
    """Every planted string stands in some file or folder name, and every identifying value is in the list."""
    planted = json.loads((phantom / "planted_identifiers.json").read_text(encoding="utf-8"))
    assert not list((phantom / "images").rglob("*.json"))
    files = [paths[0] for paths in series_of(phantom).values()] + sorted((phantom / "truth").glob("*.dcm"))
    content = b"".join(path.read_bytes() for path in files)
    spaced = content.replace(b"^", b" ")
    assert [text for text in planted if text.encode() not in content and text.encode() not in spaced] == []
    identifying = ("PatientID", "PatientBirthDate", "PatientAddress", "PatientTelephoneNumbers", "InstitutionName",
                   "AccessionNumber", "ReferringPhysicianName", "OperatorsName", "StationName", "DeviceSerialNumber",
                   "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")  # fmt: skip
    for path in files:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        for keyword in identifying:
            assert str(dataset.get(keyword)) in planted or dataset.Modality == "RTSTRUCT", keyword
        for group in str(dataset.PatientName).split("="):
            family = group.split("^")[0]
            assert family in planted
        assert str(dataset.PatientName).split("^")[0] in dataset.StudyDescription  # free text names the patient


def test_some_names_are_not_latin(tmp_path):
    """Among a few dozen people there are names in other scripts, read back unchanged."""
    report = write_phantom(tmp_path, 24, 1, **SMALL)
    assert any(not text.isascii() and text.isalpha() for text in report.planted)
    names = {str(pydicom.dcmread(path, stop_before_pixels=True).PatientName)
             for path in (tmp_path / "images").rglob("IM0001.dcm")}  # fmt: skip
    assert any("=" in name for name in names)


def test_report_counts_what_was_written(phantom, tmp_path):
    """Exams, subjects and tumours in the report are those on disk."""
    report = write_phantom(tmp_path, EXAMS, SEED)
    ill = [path for path in sorted((tmp_path / "truth").glob("*.dcm"))
           if "kidney_tumor" in {roi.ROIName for roi in pydicom.dcmread(path).StructureSetROISequence}]  # fmt: skip
    assert report.exams == len(series_of(phantom)) == EXAMS
    assert report.subjects == len({path.parent.parent.name for path in (tmp_path / "images").rglob("IM0001.dcm")}) == 5
    assert report.with_tumor == len(ill)


def test_the_same_bytes_in_any_process(tmp_path):
    """Hash seed, number of threads and locale change no byte."""
    code = "import sys; from pathlib import Path; from redraft.phantom import write_phantom\n" \
           "write_phantom(Path(sys.argv[1]), 3, 5, shape=(48, 40, 16), spacing=(7.2, 7.2, 12.0))"  # fmt: skip
    found = set()
    for n, extra in enumerate(
        (
            {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"},
            {"PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "4", "LC_ALL": "C", "TZ": "Asia/Tokyo"},
        )
    ):
        out = tmp_path / str(n)
        subprocess.run([sys.executable, "-c", code, str(out)], check=True, env={**os.environ, **extra},
                       cwd=Path(__file__).parents[3])  # fmt: skip
        found.add(snapshot_id(out))
    assert len(found) == 1


def test_an_exam_does_not_depend_on_how_many_there_are(tmp_path):
    """Exam n is the same in a short and in a long series."""
    write_phantom(tmp_path / "short", 2, 9, **SMALL)
    write_phantom(tmp_path / "long", 5, 9, **SMALL)
    for path in (tmp_path / "short").rglob("*.dcm"):
        assert path.read_bytes() == (tmp_path / "long" / path.relative_to(tmp_path / "short")).read_bytes()


def test_seeds_differ(tmp_path):
    """Another seed gives other people, UIDs and bodies."""
    a, b = (write_phantom(tmp_path / str(seed), 2, seed, **SMALL) for seed in (1, 2))
    assert not {text for text in a.planted if text.startswith("2.25.")} & set(b.planted)
    assert not np.array_equal(draw_exam(1, 0).labels, draw_exam(2, 0).labels)


def test_writing_again_repairs(tmp_path):
    """A phantom that was cut short is completed to the very bytes by writing it again."""
    write_phantom(tmp_path, 2, 4, **SMALL)
    whole = snapshot_id(tmp_path)
    victim = next((tmp_path / "images").rglob("*.dcm"))
    victim.write_bytes(victim.read_bytes()[:100])
    (tmp_path / "planted_identifiers.json").unlink()
    write_phantom(tmp_path, 2, 4, **SMALL)
    assert snapshot_id(tmp_path) == whole


def test_bytes_do_not_name_the_library_that_wrote_them(phantom):
    """The file header names this phantom, not pydicom's version: an update changes no byte by itself."""
    meta = pydicom.dcmread(next((phantom / "images").rglob("*.dcm"))).file_meta
    assert meta.ImplementationVersionName == "REDRAFT_PHANTOM"
    assert not any(b"PYDICOM" in path.read_bytes().upper() for path in (phantom / "truth").glob("*.dcm"))


def test_no_exams_is_refused(tmp_path):
    """Zero exams is a mistake in the call."""
    with pytest.raises(UsageError):
        write_phantom(tmp_path, 0)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    """A file in the place of a folder ends in an error that says what to do."""
    (tmp_path / "images").write_text("a file")
    with pytest.raises(StorageError, match="Cannot write"):
        write_phantom(tmp_path, 1, **SMALL)


def test_every_sixth_exam_is_a_second_one():
    """One in five subjects has two exams, next to each other."""
    assert [subject_of(number) for number in range(12)] == [0, 1, 2, 3, 4, 4, 6, 7, 8, 9, 10, 10]
