"""Where exams come from: the sources of `ingest.sources`, and which of their series are wanted."""

from __future__ import annotations

from datetime import date
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from redraft.config.base import SecretRef, Section

Seconds = Annotated[float, Field(gt=0, le=86_400)]
# Nothing before an @: a password in a URL would be a literal secret.
Url = Annotated[str, Field(pattern=r"^https?://[^/@\s]+(/[^@\s]*)?$")]
AeTitle = Annotated[str, Field(pattern=r"^[^\\\x00-\x1f]{1,16}$")]


class Wanted(Section):
    """Which series a source gives; a series must meet every condition that is set.

    Texts match without case; `*` and `?` stand for anything, as in DICOM queries (PS3.4 C.2.2.2.4).
    """

    modalities: tuple[str, ...] = ()
    study_description: str | None = None
    series_description: str | None = None
    body_part: tuple[str, ...] = ()
    # Study date, both ends included.
    dates: tuple[date | None, date | None] | None = None
    # A file with one accession number per line: clear identifiers, so it must lie outside of the project.
    accessions: Path | None = None

    @field_validator("dates")
    @classmethod
    def _earliest_first(cls, value: tuple[date | None, date | None] | None) -> tuple[date | None, date | None] | None:
        if value is not None and None not in value and value[0] > value[1]:  # type: ignore[operator]
            raise ValueError("give the first and the last date, in this order")
        return value


class Retry(Section):
    """How a source that does not answer is asked again; the wait doubles each time."""

    attempts: Annotated[int, Field(ge=1, le=20)] = 4
    wait_seconds: Seconds = 1.0
    timeout_seconds: Seconds = 60.0


class Tls(Section):
    """Certificates of one side of a connection: files in PEM, outside of the project."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _together(self) -> Tls:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("give `certificate` and `key` together")
        return self


class SourceSection(Section):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    wanted: Wanted = Wanted()
    # A source that exams do not come from: segmentations are stored there, originals are looked up there.
    take_in: bool = True


class FolderSource(SourceSection):
    """A folder tree with DICOM, NIfTI or archives of DICOM (zip, tar)."""

    kind: Literal["folder"] = "folder"
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = "folder"
    path: Path

    @model_validator(mode="before")
    @classmethod
    def _plain_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, (str, Path)) else value


class Login(Section):
    """Basic authentication."""

    user: SecretRef
    password: SecretRef


class DicomWebSource(SourceSection):
    """A DICOMweb server (PS3.18): QIDO-RS to find, WADO-RS to fetch, STOW-RS to store segmentations."""

    kind: Literal["dicomweb"]
    url: Url
    basic: Login | None = None
    bearer: SecretRef | None = None
    # A login that goes to another machine over http:// can be read, and used, by whoever sees it pass.
    allow_plain_http: bool = False
    tls: Tls = Tls()
    retry: Retry = Retry()
    page: Annotated[int, Field(ge=1, le=10_000)] = 500

    @model_validator(mode="after")
    def _one_way_in(self) -> DicomWebSource:
        if self.basic is not None and self.bearer is not None:
            raise ValueError("give `basic` or `bearer`, not both")
        return self

    @model_validator(mode="after")
    def _login_unseen(self) -> DicomWebSource:
        login = self.basic is not None or self.bearer is not None
        if login and not self.allow_plain_http and self.url.startswith("http:") and not _is_this_machine(self.url):
            raise ValueError(
                "a login over http:// can be read on its way: give an https:// url, or set `allow_plain_http: true` "
                "where you know the network"
            )
        return self


def _is_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class DimseSource(SourceSection):
    """A PACS asked by C-FIND and C-MOVE (PS3.4 C); it must know `ae_title` at this machine's address and `port`."""

    kind: Literal["dimse"]
    host: str
    pacs_port: Annotated[int, Field(ge=1, le=65_535)] = 104
    pacs_title: AeTitle
    ae_title: AeTitle = "REDRAFT"
    # Where the PACS sends to; 0 takes any free port (tests).
    port: Annotated[int, Field(ge=0, le=65_535)] = 11_112
    tls: Tls | None = None
    retry: Retry = Retry()


class Peer(Section):
    """A sender that may store here."""

    ae_title: AeTitle
    host: str | None = None  # any address when omitted


class ReceiveSource(SourceSection):
    """What `redraft receive` (a storage SCP) was sent. Series come in when their transfer ended well and grew quiet."""

    kind: Literal["receive"]
    ae_title: AeTitle = "REDRAFT"
    port: Annotated[int, Field(ge=0, le=65_535)] = 11_112
    bind: str = "0.0.0.0"
    allow: Annotated[tuple[Peer, ...], Field(min_length=1)]
    tls: Tls | None = None
    quiet_seconds: Annotated[float, Field(ge=0)] = 30.0
    folder: Path | None = None  # `inbox` in the vault's folder when omitted; never inside the project


class S3Source(SourceSection):
    """Objects below a prefix of a bucket, on any S3 endpoint."""

    kind: Literal["s3"]
    bucket: str
    prefix: str = ""
    endpoint: Url | None = None
    region: str | None = None
    # The usual chain (environment, profile, role) when omitted.
    access_key: SecretRef | None = None
    secret_key: SecretRef | None = None
    ca: Path | None = None
    retry: Retry = Retry()

    @model_validator(mode="after")
    def _together(self) -> S3Source:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("give `access_key` and `secret_key` together")
        return self


def _kind(value: Any) -> str:
    if isinstance(value, (str, Path)):
        return "folder"
    kind = value.get("kind", "folder") if isinstance(value, dict) else getattr(value, "kind", "folder")
    return str(kind)


AnySource = Annotated[
    Annotated[FolderSource, Tag("folder")]
    | Annotated[DicomWebSource, Tag("dicomweb")]
    | Annotated[DimseSource, Tag("dimse")]
    | Annotated[ReceiveSource, Tag("receive")]
    | Annotated[S3Source, Tag("s3")],
    Discriminator(_kind),
]

SOURCE_KINDS: dict[str, type[SourceSection]] = {
    "folder": FolderSource,
    "dicomweb": DicomWebSource,
    "dimse": DimseSource,
    "receive": ReceiveSource,
    "s3": S3Source,
}
