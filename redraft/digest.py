"""Content identities: canonical JSON (RFC 8785) and SHA-256, the one way redraft names bytes and records."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import rfc8785


def canonical(value: Any) -> bytes:
    """Canonical JSON bytes of a JSON-like value (RFC 8785: sorted keys, shortest floats, UTF-8)."""
    return rfc8785.dumps(value)


def sha256_bytes(data: bytes) -> str:
    """Lower-case hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value."""
    return sha256_bytes(canonical(value))


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file, read in blocks so that memory stays flat."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
