"""Proof that finished work is what redraft handed out and measured: the package's token and the result's signature.

The token says that an answer is to one package, of one reader, in one attempt. The signature says that the backend,
not the reader, wrote the minutes, and which label they belong to.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from redraft.digest import canonical
from redraft.security.keys import KeyRing, verify_signature

_RESULT = b"redraft result 1\n"  # what is signed here is nothing else that the same key signs


def token(keys: KeyRing, assignment_id: str, reader_id: str, attempt: int) -> str:
    """The token of one package, hexadecimal; another reader's or an earlier attempt's is another one."""
    return hmac.new(keys.derive("work-token"), canonical([assignment_id, reader_id, attempt]), sha256).hexdigest()


def same_token(one: str, other: str) -> bool:
    """Whether two tokens are equal; takes equally long wherever they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def sign_result(keys: KeyRing, payload: Mapping[str, Any], label_sha256: str | None) -> str:
    """Ed25519 signature, hexadecimal, of a result (the JSON of result.json) and of the label it came with.

    Parameters
    ----------
    payload
        All fields of the result; `signature` is left out of what is signed.
    label_sha256 : str or None
        Of the label file as it was handed in; None for work sent back without one.
    """
    return keys.sign(_signed(payload, label_sha256))


def verify_result(keys: KeyRing, payload: Mapping[str, Any], label_sha256: str | None) -> bool:
    """Whether `payload["signature"]` is this project's, over this result and this label."""
    signature = payload.get("signature")
    return isinstance(signature, str) and verify_signature(keys.public_key, _signed(payload, label_sha256), signature)


def _signed(payload: Mapping[str, Any], label_sha256: str | None) -> bytes:
    fields = {name: value for name, value in payload.items() if name != "signature"}
    return _RESULT + canonical({"result": fields, "label_sha256": label_sha256})
