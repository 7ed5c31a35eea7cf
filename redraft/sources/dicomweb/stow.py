"""Storing on a DICOMweb server (STOW-RS, PS3.18 10.5): one instance a request, and what became of it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

from redraft.sources.dicomweb.session import check

if TYPE_CHECKING:
    import requests
    from pydicom.dataset import Dataset

# Failure reasons, PS3.4 GG.4.2 and PS3.7 C.
_REASONS = {
    0x0106: "an attribute has a value that it does not accept",
    0x0110: "it failed while processing it",
    0x0111: "it holds an instance of this UID already",
    0x0117: "its UID is not valid",
    0x0122: "it does not take objects of this kind (SOP class)",
    0x0124: "it does not permit this user to store",
    0xC122: "it does not take this transfer syntax",
}
_RANGES = {
    0xA700: "it is out of space or memory",
    0xA900: "the object does not match its kind (SOP class)",
    0xC000: "it does not understand the object",
}


@dataclass(frozen=True)
class Stored:
    """What became of one instance.

    Attributes
    ----------
    uid : str
        Its SOP Instance UID, as given: clear where the instance was.
    ok : bool
        Whether the server has it now.
    reason : int, optional
        Failure Reason (0008,1197), or Warning Reason (0008,1196) where it was stored but changed.
    why : str
        The reason in words; empty where it was stored as it is.
    """

    uid: str = field(repr=False)
    ok: bool
    reason: int | None = None
    why: str = ""


def encode(dataset: Dataset) -> tuple[bytes, str]:
    """The body of a request that stores one instance, and its Content-Type."""
    import pydicom

    boundary = uuid.uuid4().hex
    body = BytesIO()
    body.write(f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode())
    part = BytesIO()
    pydicom.dcmwrite(part, dataset, enforce_file_format=True)
    body.write(part.getbuffer())
    body.write(f"\r\n--{boundary}--\r\n".encode())
    return body.getvalue(), f'multipart/related; type="application/dicom"; boundary={boundary}'


def outcome(response: requests.Response, uid: str) -> Stored:
    """Read the answer to a request that stored one instance. Raises NotNow or Refusal when it is none (PS3.18 I.2)."""
    answer = _json(response)
    failed, stored = _items(answer, "00081198"), _items(answer, "00081199")
    if failed:
        return _failure(uid, _number(failed[0], "00081197"))
    if stored:
        warning = _number(stored[0], "00081196")
        return Stored(uid, True, warning, "" if warning is None else "it changed the object while storing it")
    if response.status_code in (202, 409) or "00081198" in answer:
        return _failure(uid, None)  # it stored nothing and does not say why
    check(response)
    return Stored(uid, True)


def _failure(uid: str, reason: int | None) -> Stored:
    if reason is None:
        return Stored(uid, False, None, "it gives no reason")
    words = _REASONS.get(reason) or next(
        (_RANGES[key] for key in (reason & 0xFF00, reason & 0xF000) if key in _RANGES), ""
    )
    return Stored(uid, False, reason, words or f"reason {reason:04X}")


def _json(response: requests.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    if isinstance(answer, list) and len(answer) == 1:  # some servers wrap it
        answer = answer[0]
    return answer if isinstance(answer, dict) else {}


def _items(answer: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    element = answer.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [item for item in values if isinstance(item, dict)] if isinstance(values, list) else []


def _number(item: dict[str, Any], tag: str) -> int | None:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    try:
        return int(values[0]) if values else None
    except (TypeError, ValueError):
        return None
