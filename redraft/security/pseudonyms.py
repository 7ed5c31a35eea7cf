"""Pseudonyms by keyed HMAC-SHA256: the same input and key give the same one; without the key nothing leads back."""

from __future__ import annotations

import hashlib
import hmac

from redraft.security.keys import KeyRing

# Crockford's base 32.
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Pseudonyms:
    """Pseudonyms of one project. Kinds are domain-separated: a subject and a series of one name differ."""

    def __init__(self, keys: KeyRing):
        self._key = keys.derive("pseudonym")
        self._uid_key = keys.derive("uid")

    def _tag(self, kind: str, value: str) -> str:
        # surrogatepass: a path may hold bytes that are no UTF-8, and they must tell two paths apart.
        data = f"{kind}\x00{value}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, data, hashlib.sha256).hexdigest()[:20]

    def subject_id(self, patient_id: str) -> str:
        """Pseudonym of a patient."""
        return self._tag("subject", patient_id)

    def series_id(self, series_uid: str) -> str:
        """Pseudonym of a series as offered."""
        return self._tag("series", series_uid)

    def exam_id(self, series_uid: str) -> str:
        """Pseudonym of the exam made from a series."""
        return self._tag("exam", series_uid)

    def place_tag(self, path: str) -> bytes:
        """16 bytes that stand for a path (or a part of one) in the index of sources; quick, for there are millions."""
        return hmac.digest(self._key, b"place\x00" + path.encode("utf-8", "surrogatepass"), "sha256")[:16]

    def device_id(self, original: str) -> str:
        """Pseudonym of a device: a serial number, a station's name."""
        return self._tag("device", original)

    def login_tag(self, typed: str) -> str:
        """What stands for a login that was refused: it may be a password, typed into the wrong field."""
        return self._tag("login", typed.strip().lower())

    def person_id(self, name: str) -> str:
        """Pseudonym of a person's name as DICOM writes it (PS3.5 §6.2.1): case, spaces and empty parts do not count.

        The first of an ideographic and a phonetic writing counts (`=`); `SMITH^JOHN` and `Smith^ John^^` are one.
        """
        parts = [" ".join(part.split()).casefold() for part in name.partition("=")[0].split("^")]
        while parts and not parts[-1]:
            parts.pop()
        return self._tag("person", "^".join(parts))

    def days_back(self, patient_id: str, most: int) -> int:
        """Days (1 to `most`) by which every date of a patient moves back."""
        return 1 + int(self._tag("days", patient_id), 16) % most

    def source_tag(self, path: str) -> str:
        """Pseudonym of a file that belongs to no series."""
        return self._tag("source", path)

    def work_code(self, assignment_id: str) -> str:
        """A short code for an assignment where others can read it (a PACS), like `K7QF-2MXA`.

        Without the key nobody matches it to the assignment's id in the project; easily mistaken letters are left out.
        """
        number = int(self._tag("work", assignment_id), 16)
        digits = [_LETTERS[number >> 5 * place & 31] for place in range(8)]
        return f"{''.join(digits[:4])}-{''.join(digits[4:])}"

    def uid(self, original: str) -> str:
        """A DICOM UID under `2.25.` (128 bits, PS3.5 B.2) for an original UID; the same for every reference to it."""
        digest = hmac.new(self._uid_key, original.encode(), hashlib.sha256).digest()
        return f"2.25.{int.from_bytes(digest[:16], 'big')}"
