"""What every source of exams does: discover → fetch → acknowledge.

A source is asked what it holds (no pixel is read for that), gives one series at a time into a folder, and is told what
became of it. An interrupted fetch goes on where it stopped; what did not arrive whole is never handed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from redraft.errors import ConfigError

if TYPE_CHECKING:
    from redraft.config.base import SecretRef
    from redraft.config.schema import Limits
    from redraft.project import Project
    from redraft.security.pseudonyms import Pseudonyms
    from redraft.sources.index import SourceIndex


@dataclass(frozen=True)
class Offer:
    """One series that a source holds, before anything of it was fetched.

    Attributes
    ----------
    series_id : str
        Pseudonym of the series; of the path for a file that belongs to none.
    version : str
        Digest that changes when what the source holds of this series changes. Keyed where it is made from identifiers.
    files : int
        Instances or files that the source announces; 0 where it does not say.
    handle : object
        What the source itself needs to fetch it. May hold clear identifiers: never stored, logged or shown.
    refused : str, optional
        Rule by which this is refused without being fetched (a file that is no DICOM, say).
    doubt : str, optional
        Rule by which it is not admitted though it may look whole (a file beside it cannot be read, say).
    shown : tuple of str
        Where it lies, in clear, for the terminal of the person who called; nowhere else.
    """

    series_id: str
    version: str
    files: int
    handle: Any = field(repr=False, default=None)
    refused: str | None = None
    shown: tuple[str, ...] = field(repr=False, default=())
    doubt: str | None = None


class Source(Protocol):
    """A place that exams come from."""

    name: str

    def discover(self) -> Iterator[Offer]:
        """Every series the source holds that is wanted, each once.

        Raises ServiceError (naming the source, never a patient) when it does not answer after the configured retries.
        """
        ...

    def fetch(self, offer: Offer, folder: Path) -> Sequence[Path]:
        """Bring the files of one series into `folder` and return their paths, complete and closed.

        `folder` is this offer's own and outlives interruptions: files that are whole there already are not fetched
        again. Files are named by pseudonyms. Sources whose files lie on this machine return those and leave `folder`
        empty. Raises TransferError when fewer, more or other instances arrive than announced; ServiceError when the
        source stops answering.
        """
        ...

    def acknowledge(self, offer: Offer, verdicts: Sequence[str]) -> None:
        """Called once what became of the series is on record (`admitted`, `duplicate`, `quarantined`, `refused`)."""
        ...


@dataclass(frozen=True)
class SourceContext:
    """What sources need of the project.

    Attributes
    ----------
    secret : function
        Resolves a SecretRef to its text.
    project : Path
        The project's directory. Nothing that a source is configured with may lie in it: it gets published.
    inbox : Path
        Folder outside the project for what `redraft receive` is sent.
    index : SourceIndex, optional
        What was seen before; without it everything is read again.
    limits : Limits, optional
        What archives may unpack to; `ingest.limits` as it is when omitted.
    keep_days : int, optional
        Days after which originals that were refused go (`security.vault_retention_days`); they stay when omitted.
    """

    pseudonyms: Pseudonyms
    secret: Callable[[SecretRef], str]
    project: Path
    inbox: Path
    index: SourceIndex | None = None
    limits: Limits | None = None
    keep_days: int | None = None

    @classmethod
    def of(cls, project: Project, index: SourceIndex | None = None) -> SourceContext:
        """What a project gives its sources."""
        from redraft.security.secrets import read_secret

        return cls(
            pseudonyms=project.pseudonyms,
            secret=lambda reference: read_secret(reference, project.env, project.root),
            project=project.root,
            inbox=project.vault_dir / "inbox",
            index=index,
            limits=project.config.ingest.limits,
            keep_days=project.config.security.vault_retention_days,
        )

    def resolve(self, path: str | Path) -> Path:
        """A path of project.yaml to an absolute one. Raises ConfigError inside the project."""
        place = (self.project / Path(path).expanduser()).resolve()
        if place.is_relative_to(self.project.resolve()):
            raise ConfigError(f"{place} lies inside the project.", "Move it out: the project gets published.")
        return place
