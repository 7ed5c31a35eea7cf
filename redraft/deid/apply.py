"""De-identify one DICOM object: a new object is built from what passes; nothing of the old one is copied unseen."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID

from redraft.deid import values
from redraft.deid.allowed import allowed
from redraft.deid.codes import CODE_PARTS, code_item, is_code
from redraft.deid.options import CLEAN_DESCRIPTORS, CODES, PROFILE_CODE, kept_by
from redraft.deid.own import PACKED, holds, in_bytes, own_identifiers, same_number, spells
from redraft.deid.profile import EDITION, PROFILE, Action, table, type_of
from redraft.deid.reading import (
    DEPTH,
    declared_bytes,
    dictionary_vr,
    items_of,
    judged,
    kept_bytes,
    multiplicity_fits,
    text_of,
    true_vr,
)
from redraft.deid.series import OF_SERIES_NOT
from redraft.deid.values import Unreadable
from redraft.errors import ReadError

if TYPE_CHECKING:
    from redraft.config.schema import Config, Deid
    from redraft.security.pseudonyms import Pseudonyms

_TEXT = frozenset(("AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))
_PIXEL_DATA = 0x7FE00010
_PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_TABLES = frozenset((0x7FE00001, 0x7FE00002, 0x00281201, 0x00281202, 0x00281203))
_PATIENT_NAME, _PATIENT_ID = 0x00100010, 0x00100020
_STRUCTURE_NAMES = frozenset((0x30060026, 0x00620005))  # ROIName, SegmentLabel
_TRACKING_ID = 0x00620020
_CONTENT_DESCRIPTION = 0x00700081  # whoever drew a segmentation types it; it must be there, but may be empty
_DUMMIES: dict[str, Any] = {
    "AS": "000Y", "DA": "19000101", "DT": "19000101000000", "TM": "000000", "DS": "0", "IS": "0", "UR": "about:blank",
    "OB": b"\0\0", "OW": b"\0\0",
}  # fmt: skip
_DUMMY_TEXT = "REMOVED"


class Refused(ReadError):
    """An object that cannot be de-identified as a whole."""


@dataclass
class _Object:
    """What is known of the object at hand while its attributes are walked."""

    sop_class: str
    patient: str  # what its pseudonym is made from
    days: int
    signed: bool
    pixel_bytes: int | None  # of native pixel data; None where it is encapsulated or not declared
    conform: bool  # dummies and empty values that its IOD asks for
    own: frozenset[str] = field(repr=False)  # identifiers that its text must not hold, in lower case


class Deidentifier:
    """De-identification of one project: its keys and the options it chose.

    Parameters
    ----------
    pseudonyms : Pseudonyms
        UIDs, patients, devices and date shifts come from the project's keys: same input, same output, byte for byte.
    rules : Deid
        Section `deid` of project.yaml.
    structure_names : collection of str
        Names of ROIs and segments that may stay (the project's structures and their aliases, any case).
    """

    def __init__(self, pseudonyms: Pseudonyms, rules: Deid, structure_names: Collection[str] = ()):
        self.pseudonyms = pseudonyms
        self.rules = rules
        self._names = {name.strip().lower(): name.strip() for name in structure_names}
        self._kept = {option: kept_by(option) for option in rules.retain}

    @classmethod
    def of(cls, config: Config, pseudonyms: Pseudonyms) -> Deidentifier:
        """The project's own."""
        names = [name for structure in config.structures for name in (structure.name, *structure.aliases)]
        return cls(pseudonyms, config.deid, names)

    # -- what is asked of it ------------------------------------------------------------------------------------------
    def dataset(self, ds: Dataset) -> Dataset:
        """A de-identified copy of a whole object, with file meta information, ready to be saved.

        Raises Refused when the object has no SOP class or instance UID, or text of its own identity in its pixel data
        (a comment of the compression, say).
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote values
            known = self._object(ds, conform=True)
            out = Dataset()
            self._walk(ds, out, known, (), 0)
            if not known.sop_class or "SOPInstanceUID" not in out:
                raise Refused("An object names no class or no instance.", "Ask its sender.", rule="no_instance")
            self._statement(out, known)
            self._meta(ds, out)
            return out

    def header(self, ds: Dataset) -> dict[str, Any]:
        """What is kept of a series' header, as DICOM JSON (PS3.18 F): no pixels, nothing that differs by slice."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = Dataset()
            self._walk(ds, out, self._object(ds, conform=False), (), 0, leave_out=OF_SERIES_NOT)
            content: dict[str, Any] = out.to_json_dict()
            return content

    def statement(self) -> dict[str, Any]:
        """What was done, for exam.json: profile, edition of its table, options, codes (CID 7050)."""
        return {"profile": PROFILE, "edition": EDITION, "options": sorted(self.rules.retain), "codes": self.codes()}

    def codes(self) -> list[str]:
        """Codes of CID 7050 of the profile and of the options that are followed."""
        chosen = [CODES[option] for option in self.rules.retain]
        return sorted([PROFILE_CODE, *chosen, *([CLEAN_DESCRIPTORS] if self._names else [])])

    # -- one object ---------------------------------------------------------------------------------------------------
    def _object(self, ds: Dataset, *, conform: bool) -> _Object:
        patient = text_of(ds, _PATIENT_ID) or text_of(ds, 0x0020000D)
        return _Object(
            sop_class=text_of(ds, 0x00080016),
            patient=patient,
            days=self.pseudonyms.days_back(patient, self.rules.max_shift_days),
            signed=text_of(ds, 0x00280103) == "1",
            pixel_bytes=declared_bytes(ds),
            conform=conform,
            own=frozenset(own_identifiers(ds)),
        )

    def _walk(
        self, ds: Dataset, out: Dataset, known: _Object, path: tuple[str, ...], depth: int,
        leave_out: Collection[int] = frozenset(), place: int = 0,
    ) -> None:  # fmt: skip
        """Fill `out` with what passes of one (nested) data set; `place` is its number in its sequence."""
        if depth and is_code(ds):
            self._code(ds, out, known)
            if not out:
                return  # modifiers of a code that is not kept say nothing
        for tag in sorted(ds.keys()):
            if tag in leave_out or tag in CODE_PARTS or not judged(tag):
                continue
            try:
                element = ds[tag]
                vr = true_vr(element, known.signed)
            except Exception:  # pydicom's converters raise a dozen unrelated types for wrong bytes
                element, vr = None, dictionary_vr(tag)
            keyword = keyword_for_tag(tag)
            kept = self._element(tag, vr, element, known, (*path, keyword), depth, place)
            if kept is not None:
                out.add(kept)

    def _element(
        self, tag: BaseTag, vr: str, element: DataElement | None, known: _Object, path: tuple[str, ...], depth: int,
        place: int,
    ) -> DataElement | None:  # fmt: skip
        """What becomes of one attribute; None when it is removed. `element` is None when it cannot be read."""
        if tag in (_PATIENT_NAME, _PATIENT_ID):
            return DataElement(tag, vr, self.pseudonyms.subject_id(known.patient))
        action = table().get(tag)
        if action is None and tag not in allowed() and vr != "UI":
            return None
        try:
            if element is None:
                raise Unreadable
            if tag in _STRUCTURE_NAMES:
                return DataElement(tag, vr, self._structure_name(element.value, place))
            if action is None or action in (Action.U, Action.XZU) or any(tag in kept for kept in self._kept.values()):
                if action is Action.XZU and known.conform and type_of(known.sop_class, path) == 3:
                    return None
                return self._kept_element(tag, vr, element, known, path, depth)
        except Unreadable:
            kind = type_of(known.sop_class, path) if known.conform else 3
            if action is None and vr not in _TEXT and vr != "SQ":
                return self._instead(tag, vr, kind) if kind == 2 else None  # a number is never made up
            return self._instead(tag, vr, kind)
        if not known.conform:
            return None
        return self._by_action(tag, vr, action, known, path)

    def _by_action(
        self, tag: BaseTag, vr: str, action: Action, known: _Object, path: tuple[str, ...]
    ) -> DataElement | None:
        """Actions D, Z, X and their combinations, by the type in the object's IOD."""
        if action is Action.X:
            return None
        kind = type_of(known.sop_class, path)
        if action is Action.D:
            kind = min(kind, 1) if vr != "SQ" else kind
        elif action in (Action.Z, Action.ZD):
            kind = min(kind, 2)
        return self._instead(tag, vr, kind)

    def _instead(self, tag: BaseTag, vr: str, kind: int) -> DataElement | None:
        """A dummy for what is required (1), an empty value for what may be empty (2), nothing for the rest (3)."""
        if kind == 3:
            return None
        if vr == "SQ" and kind == 1:
            return None  # an item is never made up, and an empty sequence would say that there is none
        if kind == 2:
            return DataElement(tag, vr, Sequence() if vr == "SQ" else None)
        if vr == "UI":
            return DataElement(tag, vr, self.pseudonyms.uid(""))
        return DataElement(tag, vr, _DUMMIES.get(vr, _DUMMY_TEXT if vr in _TEXT else 0))

    # -- values that stay ---------------------------------------------------------------------------------------------
    def _kept_element(
        self, tag: BaseTag, vr: str, element: DataElement, known: _Object, path: tuple[str, ...], depth: int
    ) -> DataElement | None:
        if vr == "SQ":
            return self._sequence(tag, element, known, path, depth)
        if tag in _PIXELS or tag in _TABLES:
            if tag in _TABLES and isinstance(element.value, bytes) and in_bytes(element.value, known.own):
                raise Unreadable
            kept = kept_bytes(tag, vr, element, known.pixel_bytes if tag == _PIXEL_DATA else None)
            if tag in _PIXELS and in_bytes(kept.value, known.own, shortest=8):
                what = "An object's pixel data hold text that names its patient."
                raise Refused(what, "Look at its original; it is not copied.", rule="identifier_in_pixels")
            return kept
        items = items_of(element)
        if not items:
            return DataElement(tag, vr, None)
        if not multiplicity_fits(tag, len(items)):
            raise Unreadable
        clean = [self._value(tag, vr, item, known) for item in items]
        if vr in PACKED and spells(vr, clean, known.own):
            raise Unreadable
        return DataElement(tag, vr, clean[0] if len(clean) == 1 else clean)

    def _value(self, tag: BaseTag, vr: str, value: Any, known: _Object) -> Any:
        """One value. Raises Unreadable."""
        match vr:
            case "UI":
                text = str(value).strip(" \0")
                return text if values.is_registered(text) else self.pseudonyms.uid(text)
            case "DA":
                return values.shifted_date(value, known.days)
            case "DT":
                return values.shifted_moment(value, known.days)
            case "TM":
                return values.time(value)
            case "AS":
                return values.age(value)
            case "CS":
                return self._coded_string(tag, value)
            case "DS" | "IS":
                text = values.decimal(value) if vr == "DS" else values.integer(value)
                if same_number(text, known.own):
                    raise Unreadable
                return text
            case "US" | "SS" | "UL" | "SL" | "UV" | "SV" | "FL" | "FD":
                if same_number(str(value), known.own):
                    raise Unreadable
                return values.number(vr, value)
            case "AT":
                pointed = Tag(value)
                if not judged(pointed) or not dictionary_vr(pointed):
                    raise Unreadable
                return pointed
        if vr in _TEXT:
            return self._technical(tag, value, known)
        raise Unreadable

    def _coded_string(self, tag: BaseTag, value: Any) -> str:
        try:
            return values.term(value)
        except Unreadable:
            if tag in (0x00080008, 0x00089007):  # image and frame type: their values count by their place
                return "OTHER"
            raise

    def _technical(self, tag: BaseTag, value: Any, known: _Object) -> str:
        if tag in self._kept.get("device", ()):
            return f"DEV{self.pseudonyms.device_id(str(value).strip())[:13]}"
        if tag == _TRACKING_ID:
            return self.pseudonyms.uid(str(value))
        if tag == _CONTENT_DESCRIPTION:
            raise Unreadable
        if tag == 0x00080070:
            return values.maker(value)
        text = values.technical(value)
        if holds(text, known.own):
            raise Unreadable
        return text

    def _structure_name(self, value: Any, place: int) -> str:
        return self._names.get(str(value).strip().lower(), f"structure-{place + 1}")

    def _sequence(
        self, tag: BaseTag, element: DataElement, known: _Object, path: tuple[str, ...], depth: int
    ) -> DataElement | None:
        if depth >= DEPTH:
            raise Unreadable
        items = []
        for place, item in enumerate(element.value or ()):
            out = Dataset()
            self._walk(item, out, known, path, depth + 1, place=place)
            if len(out):
                items.append(out)
            elif is_code(item) and known.conform and type_of(known.sop_class, path) == 1:
                items.append(code_item("SCT", "261665006"))  # unknown
        if not items and element.value:
            raise Unreadable
        return DataElement(tag, "SQ", Sequence(items))

    def _code(self, ds: Dataset, out: Dataset, known: _Object) -> None:
        """A code sequence item (PS3.3 8.8): scheme, value and meaning of a published code, or nothing."""
        scheme, value = text_of(ds, 0x00080102), text_of(ds, 0x00080100)
        try:
            if holds(value, known.own):
                return
            out.update(code_item(scheme, value))
        except Unreadable:
            return

    # -- what says that it was done -----------------------------------------------------------------------------------
    def _statement(self, out: Dataset, known: _Object) -> None:
        out.SpecificCharacterSet = "ISO_IR 192"
        out.PatientName = out.PatientID = self.pseudonyms.subject_id(known.patient)
        out.PatientIdentityRemoved = "YES"
        out.DeidentificationMethod = f"redraft: PS3.15 E.2 {EDITION}, unlisted removed"
        out.DeidentificationMethodCodeSequence = Sequence(code_item("DCM", code) for code in self.codes())
        dates = "longitudinal_modified_dates" in self.rules.retain
        out.LongitudinalTemporalInformationModified = "MODIFIED" if dates else "REMOVED"

    def _meta(self, ds: Dataset, out: Dataset) -> None:
        meta = FileMetaDataset()
        meta.FileMetaInformationVersion = b"\0\1"
        meta.MediaStorageSOPClassUID = UID(out.SOPClassUID)
        meta.MediaStorageSOPInstanceUID = UID(out.SOPInstanceUID)
        syntax = text_of(getattr(ds, "file_meta", Dataset()), 0x00020010)
        meta.TransferSyntaxUID = UID(syntax if values.is_registered(syntax) else "1.2.840.10008.1.2.1")
        meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
        meta.ImplementationVersionName = "REDRAFT"
        out.file_meta = meta
        out.preamble = b"\0" * 128
