"""Which series are set aside before their pixels are looked at: not an image of a patient's volume, or not wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from redraft.dicom.part10 import File
from redraft.errors import SetAside
from redraft.selection.wanted import KEYWORDS

if TYPE_CHECKING:
    from redraft.dicom.series import ReadRules

SINGLE_FRAME = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
}
ENHANCED = {
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",  # legacy converted
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",
    "1.2.840.10008.5.1.4.1.1.130": "PT",
    "1.2.840.10008.5.1.4.1.1.128.1": "PT",
}
SEGMENTATION = {
    "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7",
}  # fmt: skip
# Images computed from a series that is offered too, on a grid of their own (PS3.3 C.8.16.1).
REFORMATTED = {"MPR", "MIP", "MINIP", "PROJECTION IMAGE", "REFORMATTED", "CSA RESAMPLED", "DOSE", "SCREEN SAVE"}


def set_aside(files: Sequence[File], rules: ReadRules) -> None:
    """Raise SetAside for a series that is not a wanted CT, MR or PET volume."""
    # First: what a source does not select goes into no vault either.
    if condition := rules.selection.unmet({keyword: files[0].elements.text(keyword) for keyword in KEYWORDS}):
        raise SetAside("The source does not want it.", rule="not_selected", measured={"by": condition})
    classes = {file.sop_class for file in files}
    if len(classes) > 1:
        raise SetAside("A series mixes kinds of objects.", rule="mixed_classes")
    (sop_class,) = classes
    modality = files[0].elements.text("Modality")
    if sop_class in SEGMENTATION:
        raise SetAside("A segmentation or structure set is no exam.", rule="segmentation_object")
    if sop_class not in SINGLE_FRAME and sop_class not in ENHANCED:
        raise SetAside("Objects of this kind are not read.", rule="class_not_supported", verdict="quarantined")
    if any(file.elements.text("BurnedInAnnotation").upper() not in ("", "NO") for file in files):
        raise SetAside("Text may be burned into the pixels.", rule="burned_in_annotation", verdict="quarantined")
    if modality in rules.quarantine_modalities:
        raise SetAside("Images of this modality may carry text.", rule="modality_quarantined", verdict="quarantined")
    if modality not in rules.modalities:
        raise SetAside("The project does not take this modality.", rule="modality_not_wanted")
    kinds = {kind.upper() for file in files for kind in file.elements.texts("ImageType")}
    if "LOCALIZER" in kinds:
        raise SetAside("A localizer is no volume.", rule="localizer")
    if reformatted := sorted(kinds & REFORMATTED):
        raise SetAside("An image computed from another series.", rule=f"derived_{reformatted[0].split()[0].lower()}")
    if "SECONDARY" in kinds and not rules.accept_secondary:
        raise SetAside("A derived image (ingest.accept_secondary).", rule="derived_secondary")
    if any((file.elements.integer("SamplesPerPixel") or 1) > 1 for file in files):
        raise SetAside("An image in colour holds no intensities.", rule="colour")
    if len({file.elements.text("FrameOfReferenceUID") for file in files}) > 1:
        raise SetAside("The images lie in several frames of reference.", rule="mixed_frame_of_reference")
