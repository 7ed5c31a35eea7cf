"""Where exams come from: folders, DICOMweb servers, PACS by DIMSE, a storage receiver, S3; one protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redraft.config.sources import SourceSection
    from redraft.sources.protocol import Source, SourceContext


def open_source(section: SourceSection, context: SourceContext) -> Source:
    """The source that one entry of `ingest.sources` describes. Nothing is asked of it yet.

    Folders are not opened here: the intake opens all of them as one source, so that a series may lie in several.
    """
    # Each kind brings a library of its own; none is loaded for the others, nor for the configuration alone.
    from redraft.config import sources as kinds

    match section:
        case kinds.DicomWebSource():
            from redraft.sources.dicomweb import DicomWebSource

            return DicomWebSource(section, context)
        case kinds.DimseSource():
            from redraft.sources.dimse import DimseSource

            return DimseSource(section, context)
        case kinds.ReceiveSource():
            from redraft.sources.receive.inbox import InboxSource, inbox_folder

            folder = inbox_folder(section, context)
            return InboxSource(section, folder, keep_days=context.keep_days)
        case kinds.S3Source():
            from redraft.sources.s3 import S3Source

            return S3Source(section, context)
        case _:
            raise TypeError(f"{type(section).__name__} is not opened here")
