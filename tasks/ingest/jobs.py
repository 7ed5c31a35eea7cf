"""What a worker is told: the project it works for, and one series at a time. Light: the caller imports no reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from redraft.config.schema import Config
from redraft.file_names import is_label_file, is_nifti
from redraft.project import Project
from redraft.selection import Selection

# Started in workers by name, so that pydicom and the decoders are imported there and not here.
SCANNER, READER = "tasks.ingest.reading:scanner", "tasks.ingest.reading:reader"


@dataclass(frozen=True)
class Setup:
    """What every worker knows. It opens the keys itself: they never travel between processes.

    Attributes
    ----------
    env : mapping
        Where project.yaml's key reference leads; holds the one variable that it names.
    admitted : frozenset of str
        Exams that were admitted before; their images are never replaced.
    """

    root: Path
    config: Config
    env: Mapping[str, str]
    admitted: frozenset[str] = frozenset()

    @classmethod
    def of(cls, project: Project, admitted: frozenset[str] = frozenset()) -> Setup:
        name = project.config.security.keys.env
        env = {name: project.env[name]} if name is not None and name in project.env else {}
        return cls(project.root, project.config, env, admitted)

    def open(self) -> Project:
        return Project(self.root, self.config, self.env)


@dataclass(frozen=True)
class Job:
    """One series (or one NIfTI file) that lies on this machine, whole.

    Attributes
    ----------
    fresh : frozenset of str
        Exams admitted since the workers were set up.
    image : Path, optional
        For a label file: the image of the same name.
    doubt : str, optional
        Rule by which it is not admitted though it may look whole.
    external : str, optional
        Name of the external set that it belongs to.
    """

    series_id: str
    source: str
    kind: Literal["dicom", "nifti", "label"]
    paths: tuple[Path, ...]
    selection: Selection
    fresh: frozenset[str] = frozenset()
    image: Path | None = None
    external: str | None = None
    doubt: str | None = None


def job_kind(path: Path) -> Literal["dicom", "nifti", "label"]:
    """What a single file is, by its name and folder."""
    if not is_nifti(path):
        return "dicom"
    return "label" if is_label_file(path) else "nifti"
