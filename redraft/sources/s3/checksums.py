"""What an S3 endpoint says of an object's bytes, and whether a file holds them."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CHUNK = 1024 * 1024
_MD5 = re.compile(r"^[0-9a-f]{32}$")
_MULTIPART = re.compile(r"^([0-9a-f]{32})-(\d+)$")


@dataclass(frozen=True)
class Expected:
    """What the bytes must be.

    Attributes
    ----------
    size : int
        Bytes.
    digests : mapping
        Name (md5, sha256, sha1, crc32) to digest.
    parts : tuple of (int, bytes), optional
        Size of the parts of a multipart upload and the MD5 over their MD5s.
    """

    size: int
    digests: Mapping[str, bytes] = field(default_factory=dict)
    parts: tuple[int, bytes] | None = None

    @classmethod
    def of(
        cls, answer: Mapping[str, Any], size: int, etag: str | None, bucket: str, part: tuple[int, int] | None = None
    ) -> Expected:
        """From the headers of a whole object.

        Parameters
        ----------
        part : tuple of int, optional
            Size of the object's first part and number of its parts.
        """
        digests: dict[str, bytes] = {}
        if answer.get("ChecksumType") != "COMPOSITE":  # that is one over the parts' checksums
            for name in ("sha256", "sha1", "crc32"):
                text = answer.get(f"Checksum{name.upper()}") or ""
                if text and "-" not in text:
                    digests[name] = base64.b64decode(text)
        parts = None
        # An ETag is no MD5 under customer or KMS keys, nor in directory buckets (whose names end so).
        encrypted = (
            str(answer.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in answer
        )
        if etag and not encrypted and not bucket.endswith("--x-s3"):
            if _MD5.match(etag):
                digests["md5"] = bytes.fromhex(etag)
            elif (
                (found := _MULTIPART.match(etag))
                and part is not None
                and part[0] > 0
                # Comparable only where all parts but the last are of one size.
                and int(found[2]) == part[1] == -(-size // part[0])
            ):
                parts = (part[0], bytes.fromhex(found[1]))
        return cls(size, digests, parts)


def mismatch(path: Path, expected: Expected) -> str | None:
    """What of a file is not as expected (size, sha256, sha1, crc32, md5, md5 of parts); None when it is as expected."""
    if path.stat().st_size != expected.size:
        return "size"
    hashes = {name: _NEW[name]() for name in expected.digests}
    part_size = expected.parts[0] if expected.parts else _CHUNK
    sums = b""
    with path.open("rb") as stream:
        while left := min(part_size, expected.size - stream.tell()):
            part = _md5()
            while left:
                data = stream.read(min(_CHUNK, left))
                if not data:
                    return "size"
                left -= len(data)
                for one in hashes.values():
                    one.update(data)
                if expected.parts:
                    part.update(data)
            sums += part.digest() if expected.parts else b""
    for name, one in hashes.items():
        if one.digest() != expected.digests[name]:
            return name
    if expected.parts and _md5(sums).digest() != expected.parts[1]:
        return "md5 of parts"
    return None


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def _md5(data: bytes = b"") -> Any:
    return hashlib.md5(data, usedforsecurity=False)


_NEW: dict[str, Callable[[], Any]] = {
    "md5": _md5,
    "sha256": hashlib.sha256,
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "crc32": _Crc32,
}
