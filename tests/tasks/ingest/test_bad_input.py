"""One delivery with everything in it that goes wrong, taken in by guarded processes: the rest goes on, by rule."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless

from redraft.deid.check import Identifiers, check
from redraft.errors import ServiceError
from redraft.ledger import verify_ledger
from redraft.project import Project
from redraft.volumes import read_volume
from tasks.ingest.admit import take_in
from tasks.ingest.receipts import Receipt
from tasks.ingest.report import intake_report
from tests.fuzz.seeds import build
from tests.redraft.dicom.test_decode import LOSSLESS, LOSSY, smooth
from tests.redraft.sources.test_dimse import Faulty, running, store_some
from tests.servers.dimse import PATIENT, free_port
from tests.servers.dimse import series as dimse_series
from tests.servers.faulty import Fault, faulty_proxy
from tests.servers.orthanc import Orthanc
from tests.tasks.ingest.conftest import NOW

Add = Callable[..., list[Path]]
Make = Callable[[Path, Add], None]
GOOD = ("admitted", "admitted", {})
ANY = object()  # a measured value that must be there, whatever it is
NAMES = ["山田^太郎", "やまだ^たろう", "김^희중", "Люкceмбypг^Ивaн", "قباني^لنزار", "王^小东", "Διονυσιος^Α"]


@dataclass(frozen=True)
class Thing:
    """What somebody puts into a folder, and the receipts it must end in: (verdict, rule, measured values at least)."""

    make: Make
    expected: list[tuple[str, str, dict[str, Any]]]


def refused(rule: str, **measured: Any) -> list[tuple[str, str, dict[str, Any]]]:
    return [("refused", rule, measured)]


# -- how things go wrong ----------------------------------------------------------------------------------------------
def changed(change: Callable[[Dataset, int], Any], slices: int = 4) -> Make:
    """A series whose headers are altered."""
    return lambda place, add: [add(place.name, change, slices=slices), None][1]


def files(after: Callable[[list[Path]], Any], slices: int = 4) -> Make:
    """A series whose files are treated after they were written."""
    return lambda place, add: after(add(place.name, slices=slices))


def setting(only: int | None = None, **values: Any) -> Callable[[Dataset, int], None]:
    def change(dataset: Dataset, k: int) -> None:
        if only is None or only == k:
            for name, value in values.items():
                setattr(dataset, name, value)

    return change


def at(*heights: float) -> Callable[[Dataset, int], None]:
    return lambda dataset, k: setattr(dataset, "ImagePositionPatient", [0, 0, heights[k]])


def cut(size: int) -> Callable[[list[Path]], None]:
    return lambda paths: paths[2].write_bytes(paths[2].read_bytes()[:size])


def splice(new: bytes) -> Callable[[list[Path]], None]:
    """Bytes between the header and the pixels of one file."""

    def insert(paths: list[Path]) -> None:
        raw = paths[1].read_bytes()
        place = raw.index(b"\xe0\x7f\x10\x00")
        paths[1].write_bytes(raw[:place] + new + raw[place:])

    return insert


def recursive(depth: int, defined: bool) -> bytes:
    """Sequences in sequences (RequestAttributesSequence, which must come behind group 0028: a private group)."""
    if not defined:
        return (b"\x99\x70\x01\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff") * depth
    inner = b""
    for _ in range(depth):
        item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(inner)) + inner
        inner = b"\x99\x70\x01\x10SQ\0\0" + struct.pack("<I", len(item)) + item
    return inner


def halved(place: Path, add: Add) -> None:
    for n, path in enumerate(add(f"{place.name}/a")):
        if n % 2:
            (place / "b").mkdir(exist_ok=True)
            path.rename(place / "b" / path.name)


def declared(rows: int, columns: int) -> Make:
    """A header that announces gigabytes, in a file of two kilobytes."""

    def make(place: Path, add: Add) -> None:
        def change(dataset: Dataset, k: int) -> None:
            dataset.Rows, dataset.Columns, dataset.PixelData = rows, columns, bytes(64)

        for path in add(place.name, change):
            assert path.stat().st_size < 2500

    return make


def declared_compressed(place: Path, add: Add) -> None:
    """JPEG-LS streams of 2 KB that say they hold 16000 x 16000 pixels, as their headers do."""

    def change(dataset: Dataset, k: int) -> None:
        dataset.Rows, dataset.Columns = 40, 36
        smooth(dataset, k)
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        code = bytearray(dataset.PixelData)
        frame = code.index(b"\xff\xf7")
        code[frame + 5 : frame + 9] = struct.pack(">HH", 16_000, 16_000)
        dataset.PixelData, dataset.Rows, dataset.Columns = bytes(code), 16_000, 16_000

    add(place.name, change)


def kills_the_reader(place: Path, add: Add) -> None:
    """A JPEG-lossless stream without its table: the one decoder there is for it ends its process."""
    seed = next(seed for seed in build(place.parent / "seeds") if seed.name == "ct-jpeg-lossless")
    place.mkdir()
    shutil.rmtree(place.parent / "seeds")
    for n, (name, data) in enumerate(seed.files.items()):
        start = data.index(b"\xff\xd8\xff")
        broken = data[:start] + data[start:].replace(b"\xff\xc4", b"\0\xc4", 1)
        (place / name).write_bytes(broken if n == 1 else data)


def zipped(names: Callable[[list[Path]], list[str]], evil: bytes = b"?") -> Make:
    def make(place: Path, add: Add) -> None:
        paths = add(place.name)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, name in zip(paths, names(paths), strict=True):
                archive.writestr(name, path.read_bytes())
                path.unlink()
        (place / "Abendroth.zip").write_bytes(packed.getvalue())

    return make


def tarred(place: Path, add: Add) -> None:
    paths = add(place.name)
    with tarfile.open(place / "exam.tar.gz", "w:gz") as archive:
        for path in paths:
            archive.add(path, path.name)
            path.unlink()
        for name, kind, target in (
            ("/etc/cron.d/x", tarfile.REGTYPE, ""), ("link", tarfile.SYMTYPE, "/etc"), ("dev", tarfile.CHRTYPE, ""),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)


def bomb(place: Path, add: Add) -> None:
    place.mkdir()
    with zipfile.ZipFile(place / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("x.dcm", bytes(400_000_000))


def nifti(array: Any, affine: Any = None, after: Callable[[Any], Any] | None = None) -> Make:
    def make(place: Path, add: Add) -> None:
        place.mkdir()
        image = nib.Nifti1Image(array, np.diag([-2.0, -2, 3, 1]))
        if affine is not None:
            image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = affine[:3]
            image.header["sform_code"], image.header["qform_code"] = 1, 0
        else:
            image.set_sform(image.affine, 1), image.set_qform(image.affine, 1)
        image.header["vox_offset"], image.header["magic"] = 352, b"n+1"
        if after is not None:
            after(image)
        content = image.header.binaryblock + bytes(4) + array.tobytes("F")  # nibabel would mend the header
        (place / f"Abendroth_{place.name}.nii.gz").write_bytes(gzip.compress(content))

    return make


def nifti_of(dims: tuple[int, ...]) -> Make:
    """A header of a volume of that size, and two kilobytes of it."""

    def make(place: Path, add: Add) -> None:
        place.mkdir()
        header = nib.Nifti1Header()  # of a single file
        header.set_data_dtype(np.int16), header.set_data_shape(dims)
        header.set_sform(np.eye(4), 1), header.set_qform(np.eye(4), 1)
        header["vox_offset"] = 352
        (place / f"{place.name}.nii").write_bytes(header.binaryblock + bytes(4) + bytes(1700))

    return make


def scripts(place: Path, add: Add) -> None:
    """Names in other scripts in headers, folders and files; one file name that is no text at all."""
    for n, (name, charset) in enumerate(zip(NAMES, [
        "ISO 2022 IR 87", "ISO 2022 IR 87", "ISO 2022 IR 149", "ISO_IR 144", "ISO_IR 127", "GB18030", "ISO_IR 126",
    ], strict=True)):  # fmt: skip

        def change(dataset: Dataset, k: int, name: str = name, charset: str = charset) -> None:
            for keyword in ("PatientComments", "PatientAddress", "StudyDescription", "SeriesDescription",
                            "ReferringPhysicianName", "OperatorsName", "InstitutionName"):  # fmt: skip
                setattr(dataset, keyword, "plain")
            dataset.SpecificCharacterSet = ["", charset] if "2022" in charset else charset
            dataset.PatientName = f"Roman^Name={name}" if "2022" in charset else name

        for path in add(f"{place.name}/{name.replace('^', ' ')}", change):
            path.rename(path.with_name(f"{name} {n}{path.name}"))
    paths = add(f"{place.name}/bytes")
    os.rename(paths[0], os.fsencode(place / "bytes") + b"/M\xfcller\xff.dcm")
    os.rename(place / "bytes", os.fsencode(place) + b"/\xe9t\xe9")


def strays(place: Path, add: Add) -> None:
    place.mkdir()
    (place / "letter\nto \x1b[31m Dr. Abendroth.txt").write_text("Dear colleague")
    (place / "..%2f..%2fetc").write_bytes(b"")
    (place / ("x" * 250)).write_bytes(b"\0" * 200)
    (place / "loop").symlink_to(place / "loop")
    (place / "dangling").symlink_to(place / "nowhere")
    (place / "up").symlink_to(place.parent, target_is_directory=True)
    os.mkfifo(place / "pipe")


BATCH: dict[str, Thing] = {
    "good": Thing(changed(setting()), [GOOD]),
    "good too": Thing(changed(setting(), 6), [GOOD]),
    "truncated pixels": Thing(files(cut(-40)), refused("truncated")),
    "truncated header": Thing(files(cut(705), 8), [*refused("truncated"), *refused("missing_slices", missing=1)]),
    "empty file": Thing(files(cut(0), 8), [*refused("not_dicom"), *refused("missing_slices", missing=1)]),
    "no pixels": Thing(changed(lambda d, k: k != 1 or d.__delattr__("PixelData")), refused("no_pixels")),
    "no position": Thing(
        changed(lambda d, k: k > 1 or d.__delattr__("ImagePositionPatient")), refused("missing_position", slices=2)
    ),
    "no orientation": Thing(
        changed(lambda d, k: d.__delattr__("ImageOrientationPatient")), refused("missing_orientation", slices=4)
    ),
    "identical": Thing(
        files(lambda paths: [shutil.copy(path, f"{path}.copy") for path in paths[:3]]),
        [("admitted", "admitted", {"identical_duplicates_dropped": 3})],
    ),
    "conflicting": Thing(changed(at(0, 3, 3, 6)), refused("conflicting_duplicates", slices=2)),
    "two in one": Thing(lambda place, add: [add(place.name), add(place.name), None][2], [GOOD, GOOD]),
    "one in two": Thing(halved, [GOOD]),
    "mixed orientation": Thing(
        changed(setting(2, ImageOrientationPatient=[0, 1, 0, 0, 0, -1])), refused("mixed_orientation", range=ANY)
    ),
    "slice missing": Thing(
        files(lambda paths: paths[4].unlink(), 8), refused("missing_slices", missing=1, spacing_mm=3.0)
    ),
    "spacing 4 7 1": Thing(changed(at(0, 4, 11, 12)), refused("uneven_spacing", min_mm=1.0, median_mm=4.0, max_mm=7.0)),
    "tilted": Thing(
        changed(lambda d, k: setattr(d, "ImagePositionPatient", [0, k * 1.5, k * 3])),
        refused("gantry_tilt", degrees=ANY),
    ),
    "3 GB": Thing(declared(38_000, 38_000), refused("too_large", voxels=4 * 38_000**2)),
    "1 GB": Thing(declared(11_000, 11_000), refused("truncated", declared_bytes=242_000_000, file_bytes=ANY)),
    "4 GB compressed": Thing(declared_compressed, refused("too_large", voxels=4 * 16_000**2)),
    "recursive": Thing(files(splice(recursive(3000, False))), refused("nesting", nesting=25)),
    "recursive, by length": Thing(files(splice(recursive(400, True))), refused("nesting", nesting=25)),
    "kills its reader": Thing(kills_the_reader, refused("reader_died", signal=6)),
    "captured": Thing(
        changed(setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.7")), [("quarantined", "class_not_supported", {})]
    ),
    "scripts": Thing(scripts, [GOOD] * 8),
    "strays": Thing(strays, [*refused("not_dicom") * 2, *refused("not_an_image")]),
    "zip": Thing(
        zipped(lambda paths: ["a/1.dcm", "../2.dcm", "a/../../3.dcm", "C:\\4.dcm"]),
        [*refused("archive_path") * 3, *refused("single_slice", slices=1)],
    ),
    "tar": Thing(tarred, [GOOD, *refused("archive_path"), *refused("archive_link"), *refused("archive_device")]),
    "bomb": Thing(bomb, refused("archive_too_large")),
    "nifti": Thing(nifti(np.arange(60, dtype=np.int16).reshape(5, 4, 3)), [GOOD]),
    "nan": Thing(nifti(np.full((4, 4, 4), np.nan, np.float32)), refused("not_finite", voxels=64)),
    "singular": Thing(nifti(np.zeros((4, 4, 4), np.int16), np.diag([2.0, 2, 0, 1])), refused("singular_affine")),
    "conflict": Thing(
        nifti(np.zeros((4, 4, 4), np.int16), after=lambda i: i.set_qform(np.diag([2.0, -2, 3, 1]), 1)),
        refused("form_conflict", shift_mm=ANY),
    ),
    "no rotation": Thing(
        nifti(np.zeros((4, 4, 4), np.int16), after=lambda i: i.header.__setitem__("quatern_b", 7)),
        refused("form_conflict"),
    ),
    "begins in its header": Thing(
        nifti(np.zeros((4, 4, 4), np.int16), after=lambda i: i.header.__setitem__("vox_offset", 0)),
        refused("unreadable"),
    ),
    "nifti of 6 GB": Thing(nifti_of((1500, 1500, 1500)), refused("too_large", shape=[1500, 1500, 1500])),
    "nifti of 1 GB": Thing(nifti_of((800, 800, 800)), refused("unreadable")),
}  # fmt: skip
if shutil.which("dcmcjpeg"):  # Debian's dcmtk writes what no library here does

    def in_syntax(convert: Callable[[Path], None]) -> Make:
        def make(place: Path, add: Add) -> None:
            def image(dataset: Dataset, k: int) -> None:
                dataset.Rows, dataset.Columns = 40, 36
                smooth(dataset, k)

            for path in add(place.name, image):
                convert(path)

        return make

    BATCH |= {
        f"syntax {name}": Thing(in_syntax(convert), [GOOD])
        for name, convert in {**LOSSLESS, **{name: convert for name, (convert, _) in LOSSY.items()}}.items()
    }


def planted(offered: Path) -> list[str]:
    """Every identifier in the delivery's headers, and names of its folders and files."""
    found = {"Abendroth", "Müller", *(part for name in NAMES for part in name.split("^") if len(part.encode()) > 5)}
    for path in offered.rglob("*"):
        if os.path.isfile(path) and not path.is_symlink():
            with contextlib.suppress(Exception):  # damaged on purpose
                dataset = pydicom.dcmread(path, stop_before_pixels=True)
                for name in ("PatientID", "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID",
                             "SOPInstanceUID", "PatientTelephoneNumbers", "PatientAddress"):  # fmt: skip
                    found.add(str(dataset.get(name) or ""))
                found |= set(str(dataset.PatientName).replace("=", "^").split("^"))
    # Short parts of names stand in any text; what the table above sets in the headers is no identity.
    return sorted(text for text in found if len(text) > 5 or not text.isascii() if text not in ("plain", "Roman"))


def top(offered: Path, receipt: Receipt) -> str:
    return receipt.paths[0].relative_to(offered).parts[0]


def as_expected(receipt: Receipt, expected: tuple[str, str, dict[str, Any]]) -> bool:
    verdict, rule, measured = expected
    told = all(name in receipt.measured and value in (ANY, receipt.measured[name]) for name, value in measured.items())
    return (receipt.verdict, receipt.rule) == (verdict, rule) and told


def assert_receipts(found: list[Receipt], expected: list[tuple[str, str, dict[str, Any]]], name: str) -> None:
    """One receipt for each expected one, and no other."""
    left = list(found)
    for one in expected:
        match = next((receipt for receipt in left if as_expected(receipt, one)), None)
        assert match is not None, (name, one, [(r.verdict, r.rule, r.measured) for r in left])
        left.remove(match)
    assert not left, (name, [(r.verdict, r.rule, r.measured) for r in left])


def assert_nothing_leaks(place: Project, identifiers: list[str], receipts: list[Receipt]) -> None:
    report = check([place.root], Identifiers.of(enumerate(identifiers, 1), "list"))
    assert report.searched and not report.found, [vars(finding) for finding in report.found]
    told = json.dumps([receipt.record() for receipt in receipts], ensure_ascii=False)
    assert [text for text in identifiers if text in told] == []


def assert_adds_up(place: Project, receipts: list[Receipt]) -> None:
    """The manifest's totals are those of the receipts, and its rules add up to its totals."""
    report = intake_report(place.ledger.rows("receipt"))
    totals = report["totals"]
    assert totals["series"] == len(receipts) == len({receipt.series_id for receipt in receipts})
    assert totals["files"] == sum(receipt.files for receipt in receipts)
    for verdict in ("admitted", "quarantined", "refused"):
        mine = [receipt for receipt in receipts if receipt.verdict == verdict]
        assert totals[verdict] == {"series": len(mine), "files": sum(receipt.files for receipt in mine)}
        rows = [row for row in report["rules"] if row["verdict"] == verdict]
        assert sum(row["series"] for row in rows) == len(mine)
    assert not verify_ledger(place.ledger).broken


def test_everything_at_once(project: Callable[..., Project], offered: Path, add: Add, tmp_path: Path) -> None:
    """Exactly one receipt for each, its rule and values; good ones are in; totals add up; no name is left."""
    for name, thing in BATCH.items():
        thing.make(offered / name, add)
    place = project(("  modalities: [CT]\n", "  modalities: [CT]\n  limits: {seconds: 60, memory_mb: 2048}\n"))
    receipts = take_in(place, [offered], NOW, "test", workers=2)
    for name, thing in BATCH.items():
        assert_receipts([receipt for receipt in receipts if top(offered, receipt) == name], thing.expected, name)
    assert len(receipts) == sum(len(thing.expected) for thing in BATCH.values())
    assert_adds_up(place, receipts)
    admitted = {receipt.exam_id for receipt in receipts if receipt.verdict == "admitted"}
    assert {row["exam_id"] for row in place.ledger.rows("exam")} == admitted
    assert {path.parent.name for path in place.data.rglob("image.nii.gz")} == admitted
    assert_nothing_leaks(place, planted(offered), receipts)
    assert not (tmp_path / "2.dcm").exists() and not (tmp_path / "3.dcm").exists()
    assert not [path for path in (place.vault_dir / "spool").rglob("*") if path.is_file()]
    images = {
        top(offered, receipt): read_volume(place.image(receipt.exam_id or "")).array
        for receipt in receipts if receipt.verdict == "admitted" and top(offered, receipt).startswith("syntax")
    }  # fmt: skip
    for name in LOSSLESS if images else ():
        np.testing.assert_array_equal(images[f"syntax {name}"], images["syntax explicit little endian"])
    again = take_in(place, [offered], NOW, "test", workers=2)
    assert {receipt.series_id for receipt in again} == {receipt.series_id for receipt in receipts}
    assert {(r.verdict, r.rule) for r in again if r.exam_id} == {("duplicate", "known")}
    assert_adds_up(place, receipts)


# -- a PACS that goes wrong -------------------------------------------------------------------------------------------
def with_source(project: Callable[..., Project], **section: Any) -> Project:
    return project(("  modalities: [CT]\n", f"  modalities: [CT]\n  sources: [{json.dumps(section)}]\n"))


def dicomweb(project: Callable[..., Project], orthanc: Orthanc, url: str, folder: Path) -> Project:
    for name in ("user", "password"):
        (folder / name).write_text(getattr(orthanc, name))
    login = {name: {"file": str(folder / name)} for name in ("user", "password")}
    retry = {"attempts": 2, "wait_seconds": 0.01, "timeout_seconds": 0.5}
    return with_source(project, kind="dicomweb", name="pacs", url=url, basic=login, retry=retry)


def uids(paths: list[Path]) -> tuple[str, str]:
    dataset = pydicom.dcmread(paths[0], specific_tags=["SeriesInstanceUID", "PatientID"])
    return str(dataset.SeriesInstanceUID), str(dataset.PatientID)


def test_a_dicomweb_server_that_lies(
    project: Callable[..., Project], orthanc: Orthanc, offered: Path, add: Add, tmp_path: Path
) -> None:
    """Wrong numbers, broken connections and answers twice: never whole, never in; the rest is; asked again, all is."""
    orthanc.clear()
    series = {name: add(name, slices=5) for name in ("good", "many", "few", "dropped", "locked")}
    for paths in series.values():
        orthanc.put(paths)
    uid = {name: uids(paths)[0] for name, paths in series.items()}

    def told(body: bytes) -> bytes:
        found = json.loads(body)
        for one in found:
            if one["0020000E"]["Value"] == [uid["many"]]:
                one["00201209"]["Value"] = [6]
            if one["0020000E"]["Value"] == [uid["few"]]:
                one["00201209"]["Value"] = [4]
        return json.dumps([*found, *found]).encode()

    faults = [
        Fault(r"GET /series\?", -1, change=told),
        Fault(rf"GET .*/series/{uid['dropped']}$", 1, drop_after=1000),
        Fault(rf"GET .*/series/{uid['locked']}", -1, status=403),
    ]
    with faulty_proxy(orthanc.dicomweb_url, *faults) as proxy:
        place = dicomweb(project, orthanc, proxy.url, tmp_path)
        receipts = take_in(place, None, NOW, "test", workers=1)
        found = {receipt.series_id: (receipt.rule, receipt.measured) for receipt in receipts}
        name = place.pseudonyms.series_id
        assert found.pop(name(uid["locked"]))[0] in ("refused_by_source", "incomplete_transfer")
        assert found == {
            name(uid["good"]): ("admitted", {}),
            name(uid["dropped"]): ("admitted", {}),
            name(uid["many"]): ("incomplete_transfer", {"announced": 6, "arrived": 5}),
            name(uid["few"]): ("incomplete_transfer", {"announced": 4, "arrived": 5}),
        }
        assert len(receipts) == len(series)
        assert_adds_up(place, receipts)
        assert len(place.ledger.rows("exam")) == len(list(place.data.rglob("exam.json"))) == 2
        proxy.faults.clear()
        again = take_in(place, None, NOW, "test", workers=1)
    assert sorted((r.verdict, r.rule) for r in again) == [("admitted", "admitted")] * 3 + [("duplicate", "known")] * 2
    assert_nothing_leaks(place, [value for paths in series.values() for value in uids(paths)], [*receipts, *again])


def test_a_transfer_that_stopped_halfway_goes_on(
    project: Callable[..., Project], orthanc: Orthanc, offered: Path, add: Add, tmp_path: Path
) -> None:
    """A server that falls silent: what is whole is kept, nothing half is in, and the next intake goes on."""
    orthanc.clear()
    large = setting(Rows=256, Columns=256, PixelData=bytes(2 * 256 * 256))  # lines are read in pieces
    series = {name: add(name, large, slices=5) for name in ("a", "b")}
    for paths in series.values():
        orthanc.put(paths)
    uid = {name: uids(paths)[0] for name, paths in series.items()}
    for hang in (False, True):
        place_folder = tmp_path / f"hang{hang}"
        place_folder.mkdir()
        cut = Fault(rf"GET .*/series/{uid['b']}$", 1, drop_after=500_000)
        rest = Fault(rf"GET .*/series/{uid['b']}($|/instances/)", -1, **({"hang": True} if hang else {"status": 503}))
        with faulty_proxy(orthanc.dicomweb_url, cut, rest) as proxy:
            place = dicomweb(project, orthanc, proxy.url, place_folder)
            try:
                receipts = take_in(place, None, NOW, "test", workers=1)
            except ServiceError as error:
                receipts = []
                assert "pacs" in str(error) and uid["b"] not in str(error)
            assert not [r for r in receipts if r.series_id == place.pseudonyms.series_id(uid["b"]) and r.exam_id]
            in_before = {row["series_id"] for row in place.ledger.rows("exam")}
            assert place.pseudonyms.series_id(uid["b"]) not in in_before
            whole = list((place.vault_dir / "spool").rglob("2.*.dcm"))
            assert 0 < len(whole) < 5, "what came whole stays for the next intake"
            proxy.faults.clear()
            proxy.requests.clear()
            again = take_in(place, None, NOW, "test", workers=1)
        assert {receipt.verdict for receipt in again} <= {"admitted", "duplicate"}
        assert len(place.ledger.rows("exam")) == 2
        (exam,) = (r.exam_id for r in again if r.series_id == place.pseudonyms.series_id(uid["b"]))
        assert read_volume(place.image(exam or "")).shape[2] == 5
        assert not [path for path in (place.vault_dir / "spool").rglob("*") if path.is_file()]


def test_a_pacs_that_moves_too_little(project: Callable[..., Project]) -> None:
    """C-MOVE brings too few, breaks off, brings another's instances: never in; then it is whole."""
    sent = dimse_series(4, side=32)
    server = Faulty(sent, announced=6)
    with running(server) as port:
        server.destination = free_port()
        place = with_source(
            project, kind="dimse", name="pacs", host="127.0.0.1", pacs_port=port, pacs_title="PACS",
            port=server.destination, retry={"attempts": 2, "wait_seconds": 0.01, "timeout_seconds": 2.0},
        )  # fmt: skip
        (receipt,) = few = take_in(place, None, NOW, "test", workers=1)
        assert (receipt.verdict, receipt.rule, receipt.exam_id) == ("refused", "incomplete_transfer", None)
        assert (receipt.measured["announced"], receipt.measured["arrived"]) == (6, 4)
        server.announced = 4

        def breaks(event: Any, port: int) -> Any:
            event.assoc.abort()
            yield "127.0.0.1", port
            yield 0

        server.move = breaks
        # What was sent before is whole already and need not come again; nothing is asked for, or it ends in words.
        with contextlib.suppress(ServiceError):
            take_in(place, None, NOW, "test", workers=1)

        def foreign(event: Any, port: int) -> Any:
            store_some([*sent, *dimse_series(1, name="other", side=32)], port)
            yield "127.0.0.1", port
            yield 0

        server.move = foreign
        found = take_in(place, None, NOW, "test", workers=1)
        if not place.ledger.rows("exam"):
            assert [r.rule for r in found] == ["foreign_instances"]
        server.move = None
        last = take_in(place, None, NOW, "test", workers=1)
    assert last[0].verdict in ("admitted", "duplicate")
    (exam,) = place.ledger.rows("exam")
    assert exam["shape"] == [32, 32, 4]
    assert_nothing_leaks(place, [PATIENT, "LEAKY", "MRN-4711", str(sent[0].SeriesInstanceUID)], [*few, *found, *last])
