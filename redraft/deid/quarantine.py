"""Objects whose pixels may show who the patient is: set aside into the vault, unseen, with the rule that decided."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

# What the rule looks at: of a series every image says its own.
ASKED = (
    "SOPClassUID", "Modality", "BurnedInAnnotation", "RecognizableVisualFeatures", "ImageType", "ConversionType",
)  # fmt: skip

if TYPE_CHECKING:
    from redraft.config.schema import Deid

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and .1 to .4, its multi-frame kinds
_ENCAPSULATED = "1.2.840.10008.5.1.4.1.1.104."
# Words of image types (PS3.3 C.7.6.1.1.2 and what scanners write) that mean a picture of a screen or of a page.
_SCREENS = re.compile(
    r"SCREEN[ _-]?(SAVE|SHOT|CAPTURE|GRAB)|DOSE[ _]?(INFO|REPORT|SUMMARY)|(PATIENT|EXAM)[ _]?PROTOCOL|PROTOCOL[ _]?PAGE"
    r"|REPORT|PAPER|SCANNED|DOCUMENT|HARDCOPY|FILM|PRINT"
)
# Conversion types (C.8.6.1) of what came from film, paper, video or a screen.
_CONVERTED = frozenset(("DV", "DI", "DF", "WSD", "SD", "SI", "DRW"))


def quarantine_rule(ds: Dataset, rules: Deid) -> str | None:
    """The rule by which an object is set aside; None for one whose pixels are taken for free of text.

    CT, MR and PET that say nothing about burned-in annotation pass; whoever says anything but NO does not.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote values
        return _rule(ds, rules)


def _rule(ds: Dataset, rules: Deid) -> str | None:
    sop_class, modality = _text(ds, "SOPClassUID"), _text(ds, "Modality").upper()
    if sop_class.startswith(_ENCAPSULATED) or "EncapsulatedDocument" in ds:
        return "encapsulated_document"
    if sop_class == _SECONDARY_CAPTURE or sop_class.startswith(f"{_SECONDARY_CAPTURE}."):
        return "secondary_capture"
    if modality in {name.upper() for name in rules.quarantine_modalities}:
        return "modality_with_text"
    if "BurnedInAnnotation" in ds and _text(ds, "BurnedInAnnotation").upper() != "NO":
        return "burned_in_annotation"
    if "RecognizableVisualFeatures" in ds and _text(ds, "RecognizableVisualFeatures").upper() != "NO":
        return "recognizable_visual_features"
    if any(_SCREENS.search(word) for word in _words(ds, "ImageType")):
        return "screen_capture"
    if _text(ds, "ConversionType").upper() in _CONVERTED:
        return "converted_from_picture"
    return None


def _text(ds: Dataset, keyword: str) -> str:
    try:
        value = ds.get(keyword)
    except Exception:  # pydicom's converters raise a dozen unrelated types for wrong bytes
        return "unreadable"
    return "" if value is None else str(value).strip(" \0")


def _words(ds: Dataset, keyword: str) -> list[str]:
    try:
        value = ds.get(keyword)
    except Exception:  # see above
        return []
    if value is None:
        return []
    return [str(item).strip().upper() for item in ([value] if isinstance(value, str) else value)]
