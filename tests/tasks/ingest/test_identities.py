"""No invented identifier of the phantom stands in what an intake leaves behind, but in the vault's cipher."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from flows import intake
from redraft.file_names import nifti_stem
from redraft.phantom import write_phantom
from redraft.project import Project

FAMILY = "Wintergarten"


def contents(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what they hold when they are packed (.gz, git's objects)."""
    raw = path.read_bytes()
    yield raw
    if raw[:2] == b"\x1f\x8b":
        yield gzip.decompress(raw)
    elif ".git" in path.parts and "objects" in path.parts:
        with contextlib.suppress(zlib.error):
            yield zlib.decompress(raw)


def needles(texts: list[str]) -> dict[bytes, str]:
    """Each text as UTF-8, Latin-1 where it can be, and as JSON escapes write it; without case."""
    found = {}
    for text in texts:
        for form in (text.encode(), text.encode("latin-1", "ignore"), json.dumps(text).strip('"').encode()):
            if len(form) > 3:
                found[form.lower()] = text
    return found


def leaks(root: Path, texts: list[str]) -> set[str]:
    """The texts that stand in a name or in the content of any file below a folder."""
    wanted = needles(texts)
    found = set()
    for path in root.rglob("*"):
        parts = [str(path.relative_to(root)).encode("utf-8", "surrogateescape")]
        if path.is_file() and not path.is_symlink():
            parts += contents(path)
        for part in parts:
            lowered = part.lower()
            found |= {text for form, text in wanted.items() if form in lowered}
    return found


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve exams with names of several scripts."""
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, 12, 1, shape=(48, 40, 16), spacing=(7.2, 7.2, 12.0))
    return folder


@pytest.fixture(scope="module")
def planted(phantom: Path) -> list[str]:
    texts = json.loads((phantom / "planted_identifiers.json").read_text(encoding="utf-8"))
    return [*texts, FAMILY, str(phantom)]


def offer(phantom: Path, offered: Path) -> None:
    """What an archive hands over: the phantom's images, and files whose names and headers carry a family name."""
    (offered / "images").symlink_to(phantom / "images")
    array = np.arange(60).reshape(5, 4, 3).astype(np.int16)
    image = nib.Nifti1Image(array, np.eye(4))
    image.header["descrip"], image.header["aux_file"] = f"{FAMILY}^A".encode(), f"{FAMILY}.hdr".encode()
    image.header["db_name"], image.header["intent_name"] = FAMILY[:9].encode(), FAMILY.encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", f"Patient {FAMILY}".encode()))
    image.to_filename(offered / f"{FAMILY}_Ada.nii.gz")
    nib.Nifti1Image(array * np.nan, np.eye(4)).to_filename(offered / f"{FAMILY}_bad.nii.gz")
    (offered / f"{FAMILY} letter.txt").write_text(f"Dear Mrs {FAMILY}")
    source = sorted((phantom / "images").rglob("*.dcm"))
    for n, (name, values) in enumerate(
        {
            "capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
            "burned": {"BurnedInAnnotation": "YES"},
            "single": {"PixelSpacing": None},
        }.items()
    ):
        dataset = pydicom.dcmread(source[n])
        dataset.SeriesInstanceUID, dataset.PatientName = f"2.25.77{n}", f"{FAMILY}^{name}"
        for key, value in values.items():
            setattr(dataset, key, value)
        (offered / f"{FAMILY}_{n}").mkdir()
        dataset.save_as(offered / f"{FAMILY}_{n}" / f"{FAMILY}.dcm")


def test_no_identifier_is_left_outside_of_the_vault(
    project: Callable[..., Project], phantom: Path, planted: list[str], offered: Path,
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder,
) -> None:  # fmt: skip
    """Files, tables, logs, output and names of everything below the project, and the vault's own bytes."""
    caplog.set_level(logging.DEBUG)
    offer(phantom, offered)
    place = project()
    sources = [offered, *(offered / "images").iterdir()]  # links to folders are entered only when they are named
    receipts = [*intake.take_in(place, sources), *intake.take_in(place, sources)]
    verdicts = {receipt["verdict"] for receipt in receipts}
    assert verdicts == {"admitted", "refused", "quarantined", "duplicate"}
    assert len(place.ledger.rows("exam")) == 13
    assert leaks(place.root.parent, planted) == set()
    kept = json.dumps([{k: v for k, v in receipt.items() if k != "paths"} for receipt in receipts], ensure_ascii=False)
    said = "".join(capfd.readouterr()) + caplog.text + "".join(str(w.message) for w in recwarn) + kept
    assert [text for text in planted if text in said] == []


def test_the_search_finds_what_is_there(phantom: Path, planted: list[str], tmp_path: Path) -> None:
    """Every identifier is found where it was planted, packed and in either encoding: the test above can fail."""
    texts = [text for text in planted if text not in (FAMILY, str(phantom))]
    spaced = set(texts) - leaks(phantom / "images", texts)
    spaced -= leaks(phantom / "truth", sorted(spaced))
    # A name as somebody would type it stands in free texts only where its header was written in one piece.
    assert all(" " in text for text in spaced)
    for n, content in enumerate(
        (
            "x Žižková".encode(), "x Østerhagen".encode("latin-1"), gzip.compress("Žižková Østerhagen".encode()),
            json.dumps("Østerhagen Žižková").encode(),
        )
    ):  # fmt: skip
        (tmp_path / str(n)).mkdir()
        (tmp_path / str(n) / "file").write_bytes(content)
        assert leaks(tmp_path / str(n), ["Žižková", "Østerhagen"])
    (tmp_path / "names" / "ABENDROTH").mkdir(parents=True)
    assert leaks(tmp_path / "names", ["Abendroth"]) == {"Abendroth"}


def test_the_vault_leads_back(project: Callable[..., Project], phantom: Path, offered: Path) -> None:
    """Who holds the key finds patient, series and place again for every pseudonym."""
    offer(phantom, offered)
    place = project()
    intake.take_in(place, [offered, *(offered / "images").iterdir()])
    patients = {item["identity"]["patient_id"] for item in place.vault.links("subject")}
    assert patients == {path.name for path in (phantom / "images").iterdir()}
    links = {item["pseudonym"]: item["identity"] for item in place.vault.links("series")}
    for exam in place.ledger.rows("exam"):
        identity = links[exam["series_id"]]
        if exam["source_kind"] == "dicom":
            assert place.pseudonyms.series_id(identity["SeriesInstanceUID"]) == exam["series_id"]
            assert place.pseudonyms.subject_id(identity["PatientID"]) == exam["subject_id"]
        else:
            assert nifti_stem(Path(identity["file"])) == f"{FAMILY}_Ada"


def test_warnings_quote_no_header(
    project: Callable[..., Project], phantom: Path, offered: Path, caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:  # fmt: skip
    """A UID with a name in it is wrong, and pydicom would say so in full."""
    caplog.set_level(logging.DEBUG)
    dataset = pydicom.dcmread(next((phantom / "images").rglob("*.dcm")))
    path = offered / "a.dcm"
    dataset.save_as(path)
    start = str(dataset.SeriesInstanceUID)[:20].encode()
    path.write_bytes(path.read_bytes().replace(start, b"2.25.QUINTAVALLE.X.Y"))
    recwarn.clear(), caplog.clear()
    intake.take_in(project(), [offered])
    said = caplog.text + "".join(str(item.message) for item in recwarn)
    assert "QUINTAVALLE" not in said
