"""De-identification of DICOM objects: PS3.15 Annex E, basic application confidentiality profile."""

from redraft.deid.apply import Deidentifier
from redraft.deid.quarantine import quarantine_rule

__all__ = ["Deidentifier", "quarantine_rule"]
