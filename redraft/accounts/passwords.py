"""Passwords: what is taken for one, and how it is kept (argon2id, RFC 9106)."""

from __future__ import annotations

import threading
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from redraft.errors import UsageError

SHORTEST, LONGEST, DIFFERENT = 12, 1024, 5
# RFC 9106 §4, second recommended option: 3 passes over 64 MiB in 4 lanes; what argon2-cffi takes when not told.
_HASHER = PasswordHasher(time_cost=3, memory_cost=65536, parallelism=4)
# A hash takes 64 MiB: many sign-ins at once wait for one another instead of filling the memory.
_AT_ONCE = threading.BoundedSemaphore(4)
# Of a random password that nobody has: checking a login that does not exist takes as long as one that does.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


def hash_password(password: str, *, login: str) -> str:
    """The argon2id hash of a password that keeps the rules. UsageError naming the rule it breaks, never quoting it."""
    text = _normal(password)
    if len(text) < SHORTEST:
        raise UsageError(
            f"A password has {SHORTEST} characters at least.", "A sentence is easy to remember and hard to guess."
        )
    if len(text) > LONGEST:
        raise UsageError(f"A password has {LONGEST} characters at most.", "Take a shorter one.")
    if len(set(text)) < DIFFERENT or (login in text.lower() and len(text) - len(login) < SHORTEST):
        raise UsageError(
            f"A password has {DIFFERENT} different characters at least, and more in it than the login.",
            "A sentence is easy to remember and hard to guess.",
        )
    with _AT_ONCE:
        return _HASHER.hash(text)


def check_password(kept: str | None, password: str) -> bool:
    """Whether this is the password; as slow where there is none to compare with."""
    if len(password) > LONGEST:
        password, kept = "", None
    with _AT_ONCE:
        try:
            return _HASHER.verify(kept or _NOBODY, _normal(password)) and kept is not None
        except (VerificationError, InvalidHashError):
            return False


def out_of_date(kept: str) -> bool:
    """Whether a hash was made with other parameters than today's."""
    return _HASHER.check_needs_rehash(kept)


def rehash(password: str) -> str:
    """The hash of a password that was just checked, with today's parameters."""
    with _AT_ONCE:
        return _HASHER.hash(_normal(password))


def _normal(password: str) -> str:
    """The same characters typed on another keyboard are the same password (NIST SP 800-63B §5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)
