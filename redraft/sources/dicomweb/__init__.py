"""DICOMweb servers (PS3.18): QIDO-RS finds series, WADO-RS brings them, STOW-RS stores segmentations."""

from redraft.sources.dicomweb.source import DicomWebSource

__all__ = ["DicomWebSource"]
