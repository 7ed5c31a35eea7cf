"""De-identified copies of DICOM files, named by their pseudonymous UIDs, for sharing."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from redraft.deid.apply import Deidentifier
from redraft.deid.forms import SHORTEST
from redraft.deid.matcher import Matcher
from redraft.deid.own import own_identifiers
from redraft.deid.quarantine import quarantine_rule
from redraft.dicom.scan import files_below
from redraft.errors import ExamError, StorageError
from redraft.files import write_bytes

# Objects that the lists of this package were reviewed for. Reports, presentation states, waveforms and the rest keep
# what matters in attributes that nobody reviewed here.
CLASSES = frozenset(
    (
        "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2",  # CT
        "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4",  # MR
        "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.128.1", "1.2.840.10008.5.1.4.1.1.130",  # PET
        "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7",  # SEG
        "1.2.840.10008.5.1.4.1.1.481.3",  # RTSTRUCT
    )
)  # fmt: skip


@dataclass(frozen=True)
class Copied:
    """What became of one file. `source` is its clear path: for the terminal of the person who called, nowhere else."""

    source: Path = field(repr=False)
    written: Path | None
    rule: str


def copy(paths: Iterable[Path], out: Path, deidentifier: Deidentifier) -> Iterator[Copied]:
    """Copy files and folders; a file that cannot be de-identified, or may show text, is named with its rule.

    Raises StorageError when nothing can be written.
    """
    for path in files_below(paths):
        try:
            ds = _read(path)
            if rule := quarantine_rule(ds, deidentifier.rules):
                yield Copied(path, None, rule)
                continue
            clean, data = _clean(ds, deidentifier)
        except ExamError as error:
            yield Copied(path, None, error.rule)
            continue
        series = str(clean.SeriesInstanceUID) if "SeriesInstanceUID" in clean else "no-series"
        target = out / str(clean.PatientID) / series / f"{clean.SOPInstanceUID}.dcm"
        try:
            if target.exists() and target.read_bytes() != data:
                yield Copied(path, None, "conflicting_instance")
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(target, data)
        except OSError as error:
            what = f"The copy cannot be written: {os.strerror(error.errno or 0)}."
            raise StorageError(what, "Check the folder and the disk; run the same command again.") from None
        yield Copied(path, target, "copied")


def _read(path: Path) -> Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(path)
    except InvalidDicomError:
        raise _refused("not_dicom") from None
    except Exception:  # what pydicom raises for damaged bytes has no common base
        raise _refused("unreadable") from None
    if str(ds.get("SOPClassUID", "")) not in CLASSES:
        raise _refused("class_not_reviewed")
    return ds


def _clean(ds: Dataset, deidentifier: Deidentifier) -> tuple[Dataset, bytes]:
    """The copy and its bytes, compared with the object's own identifiers: comments inside of compressed pixels too."""
    clean = deidentifier.dataset(ds)
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clean.save_as(stream, enforce_file_format=True)
    except Exception:  # see `_read`
        raise _refused("not_writable") from None
    data = stream.getvalue()
    own = tuple(text for text in sorted(set(own_identifiers(ds))) if len(text) >= SHORTEST)
    if any(True for _ in _matcher(own).search(data, numeric=True)):
        raise _refused("identifier_in_pixels")
    return clean, data


@lru_cache(maxsize=16)
def _matcher(own: tuple[str, ...]) -> Matcher:
    """Slices of one series name the same people."""
    return Matcher(enumerate(own))


def _refused(rule: str) -> ExamError:
    return ExamError("A file was not copied.", "Its rule says why.", rule=rule)
