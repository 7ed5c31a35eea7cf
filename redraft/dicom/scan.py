"""Headers of a folder tree, grouped into series. Only small records are kept, so memory does not grow with pixels."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

TAGS = [
    "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "PatientID", "PatientName",
    "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "SamplesPerPixel",
    "PhotometricInterpretation", "BurnedInAnnotation", "TemporalPositionIdentifier", "EchoNumbers", "EchoTime",
    "AcquisitionNumber", "SeriesNumber",
]  # fmt: skip


@dataclass(frozen=True)
class Header:
    """One DICOM file's header, as far as grouping and geometry need it. Identifiers stay in here."""

    path: Path
    size: int
    transfer_syntax: str
    dataset: Dataset = field(repr=False)

    def text(self, name: str) -> str:
        """A header value as text, empty where absent."""
        value = self.dataset.get(name)
        return "" if value is None else str(value)

    def numbers(self, name: str) -> tuple[float, ...]:
        """A multi-valued header value as numbers; empty where absent or not numeric."""
        value = self.dataset.get(name)
        try:
            return tuple(float(item) for item in value) if value is not None else ()
        except (TypeError, ValueError):
            return ()

    def integer(self, name: str) -> int | None:
        value = self.dataset.get(name)
        try:
            return None if value is None else int(value)
        except (TypeError, ValueError):
            return None


@dataclass(frozen=True)
class Foreign:
    """A file that is no readable DICOM object."""

    path: Path
    rule: str  # not_dicom | truncated | unreadable


def files_below(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file below the given folders and files, in a stable order; links are not followed out of the tree."""
    for start in paths:
        if start.is_dir():
            yield from sorted(path for path in start.rglob("*") if path.is_file())
        else:
            yield start


def read_header(path: Path) -> Header | Foreign:
    """Read one file's header without its pixels."""
    try:
        size = path.stat().st_size
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are judged by our own rules below
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
    except InvalidDicomError:
        return Foreign(path, "not_dicom")
    except EOFError:
        return Foreign(path, "truncated")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError, OverflowError, MemoryError):
        return Foreign(path, "unreadable")
    if "SOPClassUID" not in dataset or "SeriesInstanceUID" not in dataset:
        return Foreign(path, "unreadable")
    syntax = str(getattr(dataset.file_meta, "TransferSyntaxUID", "")) if hasattr(dataset, "file_meta") else ""
    return Header(path, size, syntax, dataset)
