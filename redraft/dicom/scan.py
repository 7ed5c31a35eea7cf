"""Headers of a folder tree, grouped into series. Only small records are kept, so memory does not grow with pixels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        value = self._value(name)
        return "" if value is None else str(value)

    def numbers(self, name: str) -> tuple[float, ...]:
        """A multi-valued header value as numbers; empty where absent or not numeric."""
        value = self._value(name)
        try:
            return tuple(float(item) for item in value) if value is not None else ()
        except (TypeError, ValueError):
            return ()

    def integer(self, name: str) -> int | None:
        value = self._value(name)
        try:
            return None if value is None else int(value)
        except (TypeError, ValueError):
            return None

    def _value(self, name: str) -> Any:
        """A header value, converted from its bytes now; None where absent or not what its representation allows."""
        try:
            return self.dataset.get(name)
        except Exception:  # pydicom's converters raise a dozen unrelated types for wrong bytes
            return None


@dataclass(frozen=True)
class Foreign:
    """A file that is no readable DICOM object."""

    path: Path
    rule: str  # not_dicom | truncated | unreadable


def files_below(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file below the given folders and files once, in a stable order; linked folders are not entered."""
    seen: set[str] = set()
    for start in paths:
        for path in sorted(path for path in start.rglob("*") if path.is_file()) if start.is_dir() else [start]:
            if (place := os.path.abspath(path)) not in seen:
                seen.add(place)
                yield path


def read_header(path: Path) -> Header | Foreign:
    """Read one file's header without its pixels."""
    try:
        size = path.stat().st_size
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are judged by our own rules below
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
            syntax = str(getattr(dataset.file_meta, "TransferSyntaxUID", "")) if hasattr(dataset, "file_meta") else ""
    except InvalidDicomError:
        return Foreign(path, "not_dicom")
    except EOFError:
        return Foreign(path, "truncated")
    except Exception:  # what pydicom raises for damaged bytes has no common base
        return Foreign(path, "unreadable")
    if "SOPClassUID" not in dataset or "SeriesInstanceUID" not in dataset:
        return Foreign(path, "unreadable")
    return Header(path, size, syntax, dataset)
