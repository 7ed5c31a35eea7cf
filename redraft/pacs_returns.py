"""The way back in from a PACS: segmentations that readers' tools stored beside an exam's images.

The counterpart of the export gateway. Clear UIDs, names and descriptions are compared here and leave this module as
pseudonyms and label values only; files are read outside of the project and removed at once.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from redraft.errors import IntegrityError
from redraft.originals import is_of
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.seg_in import seg_referenced_series

if TYPE_CHECKING:
    from redraft.config.schema import Structure
    from redraft.project import Project

# What ties an object to the one that it was made from: its images, the draft, the draft's segments.
_REFERENCES = ("ReferencedSOPInstanceUID", "TrackingUID")
_TEXTS = ("SeriesDescription", "ContentDescription", "ContentLabel")
_TIMES = (
    ("ContentDate", "ContentTime"),
    ("InstanceCreationDate", "InstanceCreationTime"),
    ("SeriesDate", "SeriesTime"),
)
# As `marked` writes it; people type it without its hyphen, or in small letters.
_CODE = re.compile(r"redraft(?:\s+draft)?[\s:]+([0-9a-z]{4})[-\s]?([0-9a-z]{4})(?![0-9a-z])", re.IGNORECASE)
HEADROOM = 64 << 20  # bytes of a segmentation beside its pixels


class Server(Protocol):
    """What is needed of a DICOMweb server; see redraft.sources.dicomweb.returns.Returns."""

    def segmentations(self, study: str) -> list[str]: ...

    def described(self, text: str) -> list[tuple[str, str, str]]: ...

    def headers(self, study: str, series: str) -> list[Dataset]: ...

    def retrieve(self, study: str, series: str, instance: str, path: Path, limit: int) -> None: ...


@dataclass(frozen=True)
class Found:
    """One segmentation object of a study.

    Attributes
    ----------
    sop_instance : str
        Pseudonym of its UID.
    refers_to : frozenset of str
        Pseudonyms of every instance that it refers to and of its segments' tracking UIDs.
    series : frozenset of str
        Pseudonyms of the series that it refers to; empty where it does not say.
    codes : frozenset of str
        Work codes in its descriptions.
    at : str
        When its content was made, so that later is greater; empty where it does not say.
    place : tuple of str
        Clear UIDs of study, series and instance: never stored, logged or shown.
    """

    sop_instance: str
    refers_to: frozenset[str]
    series: frozenset[str]
    codes: frozenset[str]
    at: str
    place: tuple[str, str, str] = field(repr=False, compare=False)


def marked(code: str, *, draft: bool) -> str:
    """The series description by which work is told: of the draft that goes out, or of what comes back."""
    return f"redraft draft {code}" if draft else f"redraft {code}"


def codes_in(text: str) -> frozenset[str]:
    """Work codes that a description names, in their own form."""
    return frozenset(f"{found[1]}-{found[2]}".upper() for found in _CODE.finditer(text))


class PacsReturns:
    """Segmentations on one DICOMweb source of a project.

    Parameters
    ----------
    name : str
        Of the source in project.yaml.
    server : Server, optional
        The source itself when omitted.

    Raises ConfigError where project.yaml has no such source.
    """

    def __init__(self, project: Project, name: str, server: Server | None = None):
        from redraft.gateway import source_section

        self._project = project
        section = source_section(project, name)
        self._given, self._open = server, lambda: _open(project, section)

    @cached_property
    def _server(self) -> Server:
        return self._given or self._open()

    @cached_property
    def _links(self) -> list[Mapping[str, Any]]:
        return list(self._project.vault.links("series"))

    def look(self, exam: ExamGeometry) -> list[Found]:
        """Every segmentation in the study of an exam, drafts of ours among them.

        Raises
        ------
        IntegrityError
            Code integrity.originals: the vault does not know the exam's series.
        ServiceError
            The server does not answer or does not let us look.
        """
        pseudonyms = self._project.pseudonyms
        studies = {
            str(link["identity"].get("StudyInstanceUID") or "")
            for link in self._links
            if is_of(link["identity"], exam, pseudonyms)
        } - {""}
        if not studies:
            what = f"The original images of exam {exam.exam_id} are not found: the vault has no link for its series."
            raise IntegrityError(what, "Exams from NIfTI cannot be worked on in a PACS.", code="integrity.originals")
        found = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote values
            for study in sorted(studies):
                for series in self._server.segmentations(study):
                    headers = self._server.headers(study, series)
                    found += [_found(header, (study, series), pseudonyms.uid) for header in headers]
        return found

    def elsewhere(self, exams: Iterable[ExamGeometry]) -> frozenset[str]:
        """Work codes that SEG series outside of these exams' studies name. Raises ServiceError."""
        own = {exam.study for exam in exams}
        found: set[str] = set()
        for study, _, description in self._server.described("redraft"):
            if self._project.pseudonyms.uid(study) not in own:
                found |= codes_in(description)
        return frozenset(found)

    def labels(self, found: Found, exam: ExamGeometry, structures: Sequence[Structure]) -> NDArray[np.uint8]:
        """Label values of a segmentation on the exam's own grid, shape (I, J, K).

        Raises
        ------
        LabelError, ReadError
            See redraft.segmentation.read.interpret; and rules deleted, too_large, truncated.
        ServiceError
            The server does not answer.
        """
        from redraft.segmentation.read import read_segmentation

        limit = int(np.prod(exam.shape)) * max(2, len(structures)) + HEADROOM
        self._project.vault_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix="return-", dir=self._project.vault_dir) as folder,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            path = Path(folder) / "label.dcm"
            self._server.retrieve(*found.place, path, limit)
            return read_segmentation(path, exam, structures, uid=self._project.pseudonyms.uid)


def _found(header: Dataset, place: tuple[str, str], uid: Callable[[str], str]) -> Found:
    references = {
        str(value)
        for element in header.iterall()
        if element.keyword in _REFERENCES
        for value in ([element.value] if isinstance(element.value, str) else element.value or ())
    }
    text = " | ".join(str(header.get(name) or "") for name in _TEXTS)
    instance = str(header.get("SOPInstanceUID") or "")
    return Found(
        sop_instance=uid(instance),
        refers_to=frozenset(map(uid, references)),
        series=frozenset(map(uid, seg_referenced_series(header))),
        codes=codes_in(text),
        at=next((at for names in _TIMES if (at := _time(header, *names))), ""),
        place=(*place, instance),
    )


def _time(header: Dataset, date: str, time: str) -> str:
    """Date and time as one text that sorts; empty where either is missing."""
    day, _, clock = (str(header.get(date) or ""), "", str(header.get(time) or ""))
    if not (day and clock):
        return ""
    whole, _, fraction = clock.partition(".")
    return f"{day}{whole:0<6}.{fraction:0<6}"


def _open(project: Project, section: Any) -> Server:
    from redraft.sources.dicomweb.returns import Returns
    from redraft.sources.protocol import SourceContext

    return Returns(section, SourceContext.of(project))
