"""The rules of de-identification in words, made from the table, the lists and the options that are applied."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydicom.datadict import dictionary_description, keyword_for_tag

from redraft.deid.allowed import ALLOWED, allowed
from redraft.deid.apply import Deidentifier
from redraft.deid.options import kept_by
from redraft.deid.profile import EDITION, PROFILE, Action, table

if TYPE_CHECKING:
    from redraft.config.schema import Config

_WORDS = {
    Action.X: "removed",
    Action.Z: "emptied",
    Action.D: "replaced by a dummy value",
    Action.U: "replaced by the project's pseudonymous UID, the same for every reference",
    Action.ZD: "emptied; a dummy value where the object would not be valid without one",
    Action.XZ: "removed; emptied where the object must have it",
    Action.XD: "removed; a dummy value where the object must have it",
    Action.XZD: "removed; emptied or a dummy value where the object must have it",
    Action.XZU: "removed where the object may do without; else kept with replaced UIDs",
}
_OPTIONS = {
    "device": "kept as a keyed pseudonym, so that exams of one device can be told",
    "patient_characteristics": "kept where it is a number or a known term; ages of 90 and more become 090Y",
    "longitudinal_modified_dates": "moved back by the subject's own number of days (1 to {days}); times of day stay",
}
_SPECIAL = {
    "PatientName": "replaced by the subject's pseudonym",
    "PatientID": "replaced by the subject's pseudonym",
    "ROIName": "kept if it is one of the project's structure names, else replaced by structure-N",
    "SegmentLabel": "kept if it is one of the project's structure names, else replaced by structure-N",
    "CodeMeaning": "kept in the published coding scheme's own words; codes of local schemes are removed",
    "Manufacturer": "kept as the known maker it names, else removed",
    "TrackingID": "replaced by a pseudonym",
}
GENERAL = (
    "Attributes that neither the table nor the list below names: removed, in nested sequences too.",
    "Private attributes (odd groups), curves (50xx), overlays (60xx), signatures, encrypted attributes: removed.",
    "Values that do not follow their representation, and those of unknown representation (UN): removed.",
    "Text that stays must be a known term, a published code, or a scanner's technical word without an identifier of "
    "the same object in it.",
    "UIDs: replaced by 2.25.<keyed hash>, the same for every reference in every object; registered DICOM UIDs stay.",
    "Pixels: not changed. Objects that may show text or a face by their own header are set aside into the vault.",
)


@dataclass(frozen=True)
class Rule:
    """What is done with one attribute."""

    tag: str
    name: str
    keyword: str
    group: str
    action: str
    words: str


def rules(config: Config) -> list[Rule]:
    """One rule for every attribute of the table and of the reviewed list, in the order of tags."""
    options = {tag: option for option in config.deid.retain for tag in kept_by(option)}
    out = []
    for tag in sorted(set(table()) | set(allowed())):
        keyword = keyword_for_tag(tag)
        listed = table().get(tag)
        if keyword in _SPECIAL:
            words = _SPECIAL[keyword]
        elif tag in options:
            words = _OPTIONS[options[tag]].format(days=config.deid.max_shift_days)
        elif listed is not None:
            words = _WORDS[listed]
        else:
            words = "kept where its value is a number, a known term, a code or a technical word"
        group = f"option {options[tag]}" if tag in options else allowed().get(tag) or "table E.1-1"
        out.append(Rule(_tag(tag), _name(tag), keyword, group, str(listed or "kept"), words))
    return out


def describe(config: Config, deidentifier: Deidentifier) -> dict[str, Any]:
    """The whole description: statement, general rules, counts by action, rules by attribute, quarantine."""
    every = rules(config)
    counts: dict[str, int] = {}
    for rule in every:
        counts[rule.words] = counts.get(rule.words, 0) + 1
    return {
        "statement": deidentifier.statement(),
        "profile": PROFILE,
        "edition": EDITION,
        "options": list(config.deid.retain),
        "max_shift_days": config.deid.max_shift_days,
        "general": list(GENERAL),
        "structure_names": sorted({n for s in config.structures for n in (s.name, *s.aliases)}),
        "kept_groups": [{"group": group, "why": why} for group, why, _ in ALLOWED],
        "quarantine_modalities": list(config.deid.quarantine_modalities),
        "counts": dict(sorted(counts.items(), key=lambda item: -item[1])),
        "rules": [asdict(rule) for rule in every],
    }


def _tag(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _name(tag: int) -> str:
    try:
        return dictionary_description(tag)
    except KeyError:
        return "(not in this dictionary)"
