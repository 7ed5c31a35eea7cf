"""A folder as hospitals hand it over: every file ends in one receipt with its rule, and the rest goes on."""

from __future__ import annotations

import errno
import json
import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from redraft.digest import sha256_file
from redraft.ledger import verify_ledger
from redraft.ledger.tables import metadata
from redraft.project import Project
from redraft.volumes import read_volume
from tasks.ingest.admit import take_in
from tasks.ingest.receipts import Receipt

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
Change = Callable[[Dataset, int], Any]


def setting(**values: Any) -> Change:
    """Give every slice these values."""

    def change(dataset: Dataset, k: int) -> None:
        for name, value in values.items():
            setattr(dataset, name, value)

    return change


def on(k: int, change: Change) -> Change:
    """Only slice k."""
    return lambda dataset, n: change(dataset, n) if n == k else None


def without(name: str) -> Change:
    return lambda dataset, k: dataset.__delattr__(name)


def at(*heights: float, tilt: float = 0.0) -> Change:
    """Slices at these heights, moved sideways by `tilt` per mm."""
    return lambda dataset, k: setattr(dataset, "ImagePositionPatient", [0, heights[k] * tilt, heights[k]])


def two_frames(dataset: Dataset, k: int) -> None:
    dataset.NumberOfFrames, dataset.PixelData = 2, dataset.PixelData * 2


def four_dimensional(dataset: Dataset, k: int) -> None:
    dataset.ImagePositionPatient = [0, 0, 3 * (k % 2)]
    dataset.TemporalPositionIdentifier = 1 + k // 2


# Folder → how its series is altered, verdict, rule. One series per folder.
MIXTURE: dict[str, tuple[Change | None, str, str]] = {
    "whole": (None, "admitted", "admitted"),
    "per_slice_slope": (lambda d, k: setattr(d, "RescaleSlope", str(1 + k / 4)), "admitted", "admitted"),
    "claimed_tilt": (setting(GantryDetectorTilt="15"), "admitted", "admitted"),
    "uneven": (at(0, 3, 7.4, 9), "refused", "uneven_spacing"),
    "tilted": (at(0, 3, 6, 9, tilt=0.2), "refused", "gantry_tilt"),
    "thick": (at(0, 30, 60, 90), "refused", "spacing_too_large"),
    "conflicting": (at(0, 3, 3, 6), "refused", "conflicting_duplicates"),
    "four_dimensional": (four_dimensional, "admitted", "admitted"),
    "turned": (on(2, setting(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])), "refused", "mixed_orientation"),
    "skewed": (setting(ImageOrientationPatient=[1, 0, 0, 0.2, 1, 0]), "refused", "non_orthonormal"),
    "no_position": (on(1, without("ImagePositionPatient")), "refused", "missing_position"),
    "no_orientation": (without("ImageOrientationPatient"), "refused", "missing_orientation"),
    "no_spacing": (without("PixelSpacing"), "refused", "missing_spacing"),
    "other_spacing": (on(3, setting(PixelSpacing=[1.5, 2.1])), "refused", "mixed_spacing"),
    "no_rows": (on(0, without("Rows")), "refused", "no_size"),
    "absurd": (setting(Rows=65535, Columns=65535), "refused", "too_large"),
    "no_pixels": (on(1, without("PixelData")), "refused", "no_pixels"),
    "infinite": (on(1, setting(RescaleSlope="1e400")), "refused", "rescale"),
    "foreign_frame": (on(1, setting(FrameOfReferenceUID="2.25.7")), "refused", "mixed_frame_of_reference"),
    "monochrome1": (setting(PhotometricInterpretation="MONOCHROME1"), "admitted", "admitted"),
    "colour": (setting(SamplesPerPixel=3), "refused", "colour"),
    "frames": (two_frames, "refused", "not_single_frame"),
    "localizer": (setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "refused", "localizer"),
    "reformatted": (setting(ImageType=["DERIVED", "PRIMARY", "MPR"]), "refused", "derived_mpr"),
    "secondary": (setting(ImageType=["DERIVED", "SECONDARY"]), "refused", "derived_secondary"),
    "mr": (setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.4", Modality="MR"), "refused", "modality_not_wanted"),
    "enhanced": (setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1"), "refused", "frames_differ"),
    "structures": (setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3"), "refused", "segmentation_object"),
    "classes": (on(0, setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.4")), "refused", "mixed_classes"),
    "capture": (setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), "quarantined", "class_not_supported"),
    "burned_in": (on(3, setting(BurnedInAnnotation="YES")), "quarantined", "burned_in_annotation"),
}


def fill(offered: Path, add: Callable) -> dict[str, tuple[str, str]]:
    """Write the whole mixture; returns verdict and rule expected of each folder or file."""
    for name, (change, _, _) in MIXTURE.items():
        add(name, change)
    expected = {name: (verdict, rule) for name, (_, verdict, rule) in MIXTURE.items()}
    add("gap", slices=8)[3].unlink()
    add("single", slices=1)
    cut = add("cut")[2]
    cut.write_bytes(cut.read_bytes()[:-40])
    copied = add("copied")
    shutil.copy(copied[1], copied[1].with_name("copy of a slice"))
    add("two_in_one"), add("two_in_one")
    halves = add("halves/a")
    (offered / "halves" / "b").mkdir()
    for path in halves[::2]:
        path.rename(offered / "halves" / "b" / path.name)
    twice = add("twice/a")
    shutil.copytree(twice[0].parent, offered / "twice" / "b")
    strays = offered / "strays"
    strays.mkdir()
    (strays / "DICOMDIR").write_bytes(b"x")
    (strays / ".hidden").write_bytes(b"x")
    (strays / "letter.txt").write_text("Dear colleague")
    (strays / "header.dcm").write_bytes(copied[0].read_bytes()[:300])
    return expected | {
        "gap": ("refused", "missing_slices"), "single": ("refused", "single_slice"), "cut": ("refused", "truncated"),
        "copied": ("admitted", "admitted"), "two_in_one": ("admitted", "admitted"),
        "halves": ("admitted", "admitted"), "twice": ("admitted", "admitted"),
        "strays/DICOMDIR": ("refused", "not_an_image"), "strays/.hidden": ("refused", "not_an_image"),
        "strays/letter.txt": ("refused", "not_dicom"), "strays/header.dcm": ("refused", "truncated"),
    }  # fmt: skip


def source(offered: Path, receipt: Receipt) -> str:
    """The folder (or, among the strays, the file) that a receipt is about."""
    names = {path.relative_to(offered).parts[0] for path in receipt.paths}
    (name,) = names
    return str(receipt.paths[0].relative_to(offered)) if name == "strays" else name


def state(project: Project) -> dict[str, Any]:
    """Everything an intake could have changed: files of the project and the vault with their times, and all rows."""
    files = {
        str(path): (path.stat().st_mtime_ns, sha256_file(path))
        for top in (project.data, project.vault_dir)
        for path in top.rglob("*")
        if path.is_file()
    }
    rows = {name: project.ledger.rows(name) for name in metadata.tables if name != "lease"}
    return {"files": files, "rows": rows}


def test_every_series_of_a_mixture_has_one_receipt(project: Callable, offered: Path, add: Callable) -> None:
    """Verdict and rule for each kind of damage, every file in exactly one receipt, the good ones admitted."""
    expected = fill(offered, add)
    place = project()
    receipts = take_in(place, [offered], NOW, "test")
    found = {(source(offered, receipt), receipt.verdict, receipt.rule) for receipt in receipts}
    assert found == {(name, *answer) for name, answer in expected.items()}
    files = sorted(path for path in offered.rglob("*") if path.is_file())
    assert sorted({path for receipt in receipts for path in receipt.paths}) == files
    assert sum(receipt.files for receipt in receipts) == len(files)
    by_name = {source(offered, receipt): receipt for receipt in receipts}
    assert by_name["copied"].measured == {"identical_duplicates_dropped": 1}
    assert by_name["twice"].measured == {"identical_duplicates_dropped": 4}
    assert by_name["gap"].measured == {"missing": 1, "spacing_mm": 3.0}
    assert by_name["tilted"].measured["degrees"] == pytest.approx(11.31, abs=0.01)
    several = Counter(source(offered, receipt) for receipt in receipts)
    assert {name: n for name, n in several.items() if n > 1} == {"two_in_one": 2, "four_dimensional": 2}
    # The ledger says the same, and only admitted series are exams with files.
    recorded = sorted((row["series_id"], row["verdict"], row["rule"]) for row in place.ledger.rows("receipt"))
    assert recorded == sorted((receipt.series_id, receipt.verdict, receipt.rule) for receipt in receipts)
    admitted = sorted(receipt.exam_id for receipt in receipts if receipt.verdict == "admitted")
    assert sorted(row["exam_id"] for row in place.ledger.rows("exam")) == admitted
    assert sorted(path.parent.name for path in place.data.rglob("image.nii.gz")) == admitted
    assert not list(place.data.rglob(".partial-*"))
    report = verify_ledger(place.ledger)
    assert not report.broken and report.checked["exam"] == len(admitted)


def test_the_same_input_again_is_all_duplicates_and_writes_nothing(project: Callable, offered: Path, add: Callable):
    """Twice more, in another order and by overlapping paths: no file, row, link or audit event is added."""
    fill(offered, add)
    place = project()
    first = take_in(place, [offered], NOW, "test")
    before = state(place)
    folders = sorted(offered.iterdir(), reverse=True)
    for paths in ([offered], [*folders, offered, offered / "whole"]):
        again = take_in(place, paths, NOW.replace(year=2027), "somebody else")
        assert {(r.series_id, r.exam_id) for r in again} == {(r.series_id, r.exam_id) for r in first}
        for receipt, original in zip(
            sorted(again, key=lambda r: (r.series_id, r.files)),
            sorted(first, key=lambda r: (r.series_id, r.files)),
            strict=True,
        ):
            if original.verdict == "admitted":
                assert (receipt.verdict, receipt.rule) == ("duplicate", "known")
            else:
                assert (receipt.verdict, receipt.rule) == (original.verdict, original.rule)
        assert state(place) == before


def test_stored_exams_are_what_simpleitk_reads(project: Callable, offered: Path, add: Callable) -> None:
    """Values and places of the stored image, and exam.json beside it, against an independent reader."""
    add("plain"), add("slopes", MIXTURE["per_slice_slope"][0])
    add("oblique", setting(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]))
    files = sorted((offered / "oblique").iterdir(), reverse=True)
    for k, path in enumerate(files):
        dataset = pydicom.dcmread(path)
        dataset.ImagePositionPatient = [-4 * k, 11, 20]
        dataset.save_as(path)
    place = project()
    for receipt in take_in(place, [offered], NOW, "test"):
        assert receipt.verdict == "admitted", receipt
        folder = receipt.paths[0].parent
        volume = read_volume(place.image(receipt.exam_id))
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
        image = sitk.ReadImage(names)
        for k, name in enumerate(names):
            values = sitk.GetArrayFromImage(sitk.ReadImage(name, sitk.sitkFloat64))[0]
            np.testing.assert_allclose(volume.array[:, :, k].T, values, rtol=1e-6)
        for index in ((0, 0, 0), (6, 0, 3), (0, 4, 1)):
            ras = (volume.affine @ [*index, 1])[:3]
            np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), ras * [-1, -1, 1], atol=1e-3)
        record = json.loads((place.image(receipt.exam_id).parent / "exam.json").read_text())
        assert record["image_sha256"] == sha256_file(place.image(receipt.exam_id))
        np.testing.assert_allclose(record["affine_ras"], volume.affine, atol=1e-4)
        assert record["range"] == [volume.array.min(), volume.array.max()]
        positions = [item["position_lps"] for item in record["slices"]["instances"]]
        expected = [(volume.affine @ [0, 0, k, 1])[:3] * [-1, -1, 1] for k in range(4)]
        np.testing.assert_allclose(positions, expected, atol=1e-3)


def test_a_series_that_grew_is_refused_and_the_exam_stays(project: Callable, offered: Path, add: Callable) -> None:
    """Labels may exist on an admitted exam's grid: it is never replaced."""
    paths = add("a", slices=6)
    later = offered.parent / "later.dcm"
    paths[5].rename(later)
    place = project()
    (first,) = take_in(place, [offered], NOW, "test")
    before = sha256_file(place.image(first.exam_id))
    later.rename(paths[5])
    (second,) = take_in(place, [offered], NOW, "test")
    assert (second.verdict, second.rule, second.exam_id) == ("refused", "changed_after_admission", first.exam_id)
    assert sha256_file(place.image(first.exam_id)) == before and len(place.ledger.rows("exam")) == 1


def test_a_further_copy_of_an_admitted_series_is_a_duplicate(project: Callable, offered: Path, add: Callable) -> None:
    """The same export again, into another folder, or from one of two folders only, changes nothing."""
    paths = add("a")
    place = project()
    take_in(place, [offered], NOW, "test")
    shutil.copytree(offered / "a", offered / "b")
    for folder in (offered, offered / "b"):
        assert [(r.verdict, r.rule) for r in take_in(place, [folder], NOW, "test")] == [("duplicate", "known")]
    for path in paths:
        path.unlink()
    assert [r.verdict for r in take_in(place, [offered], NOW, "test")] == ["duplicate"]


def test_quarantined_originals_can_be_given_back(project: Callable, offered: Path, add: Callable, tmp_path: Path):
    """What may show text in its pixels lies whole in the vault and nowhere in the project."""
    paths = add("burned_in", setting(BurnedInAnnotation="YES"))
    place = project()
    (receipt,) = take_in(place, [offered], NOW, "test")
    originals = list(place.vault.originals(receipt.series_id))
    assert sorted(item.source for item in originals) == sorted(map(str, paths))
    for item in originals:
        place.vault.read_original(item, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == Path(item.source).read_bytes()
    assert not list(place.data.rglob("*.nii.gz"))


def test_splits_are_by_subject_and_stay(project: Callable, offered: Path, add: Callable) -> None:
    """All exams of one patient are on one side, new exams of a patient join it, and no draw is repeated."""
    for n in range(12):
        add(f"s{n}", patient=n // 2)
    place = project()
    take_in(place, [offered], NOW, "test")
    first = {row["subject_id"]: row["split"] for row in place.ledger.rows("subject")}
    assert len(first) == 6 and set(first.values()) == {"pool", "validation", "test"}
    for n in range(12, 24):
        add(f"s{n}", patient=n // 2 - 3)
    take_in(place, [offered], NOW, "test")
    second = {row["subject_id"]: row["split"] for row in place.ledger.rows("subject")}
    assert len(second) == 9 and {subject: second[subject] for subject in first} == first
    assert len(place.ledger.rows("exam")) == 24


def test_too_few_subjects_wait_and_are_drawn_later(project: Callable, offered: Path, add: Callable) -> None:
    """Below the minimum nobody is drawn; the draw of all together is the one of an intake in one go."""
    for n in range(3):
        add(f"s{n}")
    place, calm = project(), project()
    take_in(place, [offered], NOW, "test")
    assert {row["split"] for row in place.ledger.rows("subject")} == {"undrawn"}
    for n in range(3, 8):
        add(f"s{n}")
    take_in(place, [offered], NOW, "test")
    take_in(calm, sorted(offered.iterdir(), reverse=True), NOW, "test")
    splits = [{row["subject_id"]: row["split"] for row in p.ledger.rows("subject")} for p in (place, calm)]
    assert splits[0] == splits[1] and "undrawn" not in splits[0].values()


def test_external_sets_are_named_by_their_folder(project: Callable, offered: Path, add: Callable) -> None:
    """Their subjects are never drawn into pool, validation or test."""
    for n in range(6):
        add(f"here/s{n}")
    for n in range(4):
        add(f"site-b/s{n}")
    place = project(("min_test: 2}", "min_test: 2, external: [site-b]}"))
    receipts = take_in(place, [offered], NOW, "test")
    split = {row["subject_id"]: row["split"] for row in place.ledger.rows("subject")}
    exams = {row["exam_id"]: row["subject_id"] for row in place.ledger.rows("exam")}
    for receipt in receipts:
        outside = "site-b" in receipt.paths[0].parts
        assert (split[exams[receipt.exam_id]] == "site-b") is outside


def test_receipts_hold_no_identity(project: Callable, offered: Path, add: Callable) -> None:
    """What may be kept of a receipt names no path, patient or UID."""
    fill(offered, add)
    datasets = [pydicom.dcmread(path, force=True, stop_before_pixels=True) for path in offered.rglob("*.dcm")]
    names = ("PatientID", "SeriesInstanceUID", "SOPInstanceUID", "StudyInstanceUID", "AccessionNumber")
    clear = {str(dataset.get(name)) for dataset in datasets for name in names if dataset.get(name)}
    for receipt in take_in(project(), [offered], NOW, "test"):
        text = json.dumps(receipt.record())
        assert not [item for item in clear if item in text] and str(offered) not in text


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_damaged_file_stops_an_intake(
    look: Callable, offered: Path, add: Callable, tmp_path: Path, data: st.DataObject
) -> None:
    """One file cut or altered anywhere: every file still has one receipt, and the other series is admitted."""
    if not (offered / "good").exists():
        add("good"), shutil.copy(add("bad")[1], tmp_path / "whole")
    raw = bytearray((tmp_path / "whole").read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        for place in data.draw(st.lists(st.integers(128, len(raw) - 1), min_size=1, max_size=8)):
            raw[place] = data.draw(st.integers(0, 255))
    sorted((offered / "bad").iterdir())[1].write_bytes(raw)
    receipts = look(offered)
    assert sorted(path for r in receipts for path in r.paths) == sorted(p for p in offered.rglob("*.dcm"))
    good = [r for r in receipts if r.paths[0].parent.name == "good"]
    assert [(r.verdict, r.files) for r in good] == [("admitted", 4)] or len(good[0].paths) > 4


def test_archives_give_the_exams_that_their_files_would(
    project: Callable, offered: Path, add: Callable, tmp_path: Path
):
    """Zip and tar, one series over both and a folder; what is refused in an archive has a receipt of its own."""
    for name in ("a", "b", "c"):
        add(name)
    plain = project()
    expected = {r.exam_id: (r.verdict, r.files) for r in take_in(plain, [offered], NOW, "test")}
    packed = tmp_path / "packed"
    packed.mkdir()
    parts = sorted((offered / "c").iterdir())
    with zipfile.ZipFile(packed / "Abendroth.zip", "w") as archive:
        for path in [*sorted((offered / "a").iterdir()), *parts[:2]]:
            archive.write(path, f"Abendroth/{path.parent.name}-{path.name}")
        archive.writestr("Abendroth/letter.txt", "Dear colleague")
        archive.writestr("../outside.dcm", parts[0].read_bytes())
    with tarfile.open(packed / "rest.tar.gz", "w:gz") as archive:
        for path in [*sorted((offered / "b").iterdir()), parts[2]]:
            archive.add(path, path.name)
    shutil.copy(parts[3], packed / "single")
    place = project()
    receipts = take_in(place, [packed], NOW, "test")
    found = {r.exam_id: (r.verdict, r.files) for r in receipts if r.exam_id}
    assert found == expected
    assert sorted(r.rule for r in receipts if r.exam_id is None) == ["archive_path", "not_dicom"]
    for exam in expected:
        assert sha256_file(place.image(exam)) == sha256_file(plain.image(exam))
    assert not (tmp_path / "outside.dcm").exists()
    assert {p.name for p in place.vault_dir.iterdir()} <= {"links", "originals", "key-check", "spool", "unpacked"}
    assert not [path for path in (place.vault_dir / "spool").rglob("*") if path.is_file()]
    before = state(place)
    again = take_in(place, [packed], NOW, "test")
    assert {(r.verdict, r.rule) for r in again if r.exam_id} == {("duplicate", "known")} and len(again) == len(receipts)
    assert state(place)["rows"] == before["rows"]


def test_series_without_a_name(project: Callable, offered: Path, add: Callable) -> None:
    """Refused file by file, or one series for each folder where the project says that folders are series."""
    empty = setting(SeriesInstanceUID="", StudyInstanceUID="", PatientID="", PatientName="")
    add("a", empty), add("b", empty), add("named")
    place = project()
    refused = [r for r in take_in(place, [offered], NOW, "test") if r.verdict == "refused"]
    assert [r.rule for r in refused] == ["missing_series_uid"] * 8
    text = (place.root / "project.yaml").read_text()
    text = text.replace("modalities: [CT]", "modalities: [CT]\n  nameless_series: by_folder")
    (place.root / "project.yaml").write_text(text)
    receipts = take_in(Project.open(place.root), [offered], NOW, "test")
    assert sorted((source(offered, r), r.verdict, r.files) for r in receipts) == [
        ("a", "admitted", 4), ("b", "admitted", 4), ("named", "duplicate", 4),
    ]  # fmt: skip
    assert len({row["subject_id"] for row in place.ledger.rows("exam")}) == 3


def test_a_source_for_the_way_out_only_is_not_asked(project: Callable, offered: Path, add: Callable) -> None:
    """`take_in: false` keeps a source for segmentations; nothing answers there, and the intake does not notice."""
    add("a")
    out = "{kind: dicomweb, name: out, url: 'http://127.0.0.1:9', take_in: false}"
    place = project(("modalities: [CT]", f"modalities: [CT]\n  sources: [{offered}, {out}]"))
    assert [receipt.verdict for receipt in take_in(place, None, NOW, "test")] == ["admitted"]


def test_a_series_that_its_disk_did_not_give_is_read_again(
    project: Callable, offered: Path, add: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the machine is no verdict on the series: the next intake admits it."""
    paths = add("a")
    place = project()
    whole = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path == paths[1]:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return whole(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        (first,) = take_in(place, [offered], NOW, "test", workers=0)
    assert (first.verdict, first.rule) == ("refused", "read_failed")
    (second,) = take_in(place, [offered], NOW, "test", workers=0)
    assert second.verdict == "admitted"


def test_quarantined_originals_go_when_their_retention_is_over(
    project: Callable, offered: Path, add: Callable, tmp_path: Path
) -> None:
    """Links stay, originals go, the audit trail says how many; what is offered again does not bring them back."""
    add("capture", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.7")), add("good")
    place = project()
    take_in(place, [offered], datetime.now(UTC), "test")
    links = len(list(place.vault.links()))
    assert len(list(place.vault.originals())) == 4
    later = datetime.now(UTC) + timedelta(days=place.config.security.vault_retention_days + 1)
    take_in(place, [offered], later, "test")
    assert list(place.vault.originals()) == [] and len(list(place.vault.links())) == links
    (event,) = [row for row in place.ledger.rows("audit_event") if row["kind"] == "vault.purged"]
    assert '"originals":4' in json.dumps(event["payload"]).replace(" ", "").replace("\\", "")
    assert not verify_ledger(place.ledger).broken


def test_a_last_slice_that_nobody_can_read_makes_no_shorter_exam(
    project: Callable, offered: Path, add: Callable
) -> None:
    """Its header cut off, the file names no series: nothing beside it is taken for whole; elsewhere it goes on."""
    last = add("a")[-1]
    add("b")
    whole = last.read_bytes()
    last.write_bytes(whole[:400])
    place = project()
    found = {(source(offered, r), r.verdict, r.rule) for r in take_in(place, [offered], NOW, "test")}
    assert found == {
        ("a", "refused", "truncated"), ("a", "refused", "folder_not_whole"), ("b", "admitted", "admitted"),
    }  # fmt: skip
    last.write_bytes(whole)
    found = {(source(offered, r), r.verdict, r.files) for r in take_in(place, [offered], NOW, "test")}
    assert found == {("a", "admitted", 4), ("b", "duplicate", 4)}


def test_a_header_that_its_disk_did_not_give_is_read_again(
    project: Callable, offered: Path, add: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is not remembered as refused, and its series does not come in without it meanwhile."""
    last = add("a")[-1]
    place = project()
    opened = open

    def failing(path: Any, *args: Any, **options: Any) -> Any:
        if path == last:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return opened(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr("redraft.dicom.scan.open", failing, raising=False)
        first = take_in(place, [offered], NOW, "test", workers=0)
    assert sorted(r.rule for r in first) == ["folder_not_whole", "read_failed"]
    (second,) = take_in(place, [offered], NOW, "test", workers=0)
    assert (second.verdict, second.files) == ("admitted", 4)
