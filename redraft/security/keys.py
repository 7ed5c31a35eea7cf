"""One key file, one purpose per derived key (HKDF-SHA256), and the Ed25519 signatures made with it."""

from __future__ import annotations

import base64
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from redraft.config.base import SecretRef
from redraft.digest import sha256_bytes
from redraft.errors import SecurityError
from redraft.files import sync_directory

PURPOSES = ("pseudonym", "uid", "vault", "vault_names", "signing", "fingerprint", "work-token")
_PUBLISHED = b"redraft published demo key: secret to nobody, safe for no patient"


class KeyRing:
    """The project's keys. Only `KeyRing.load` and `published_demo` make one."""

    def __init__(self, master: bytes, version: int, *, published: bool = False):
        self._master = master
        self.version = version
        self.published = published

    def __repr__(self) -> str:
        return f"KeyRing({self.fingerprint}, version {self.version}{', published' if self.published else ''})"

    def __reduce__(self) -> str:
        raise TypeError("keys are not pickled: they would lie wherever the pickle lies")

    @classmethod
    def create(cls, path: Path) -> KeyRing:
        """Write a new key file with mode 0600. Raises SecurityError when one is there already."""
        path = path.expanduser()
        content = {"redraft_key": 1, "version": 1, "key": base64.b64encode(secrets.token_bytes(32)).decode()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Written beside and linked into place: a crash leaves no half a key, and a link never replaces a file.
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-")  # mkstemp gives mode 0600
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    json.dump(content, stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.link(name, path)
            finally:
                os.unlink(name)
            sync_directory(path.parent)
        except FileExistsError as error:
            what = f"There is a file at {path} already; it is never overwritten."
            raise SecurityError(what, "Choose another path, or use the existing key.") from error
        except OSError as error:
            raise SecurityError(
                f"No key can be written at {path}: {error.strerror}.", "Choose another path."
            ) from error
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> KeyRing:
        """Read a key file. Raises SecurityError when it is missing, readable by others, or not a key file."""
        path = path.expanduser()
        try:
            mode = path.stat().st_mode & 0o777
            if mode & 0o077:
                raise SecurityError(f"{path} can be read by others (mode {mode:04o}).", f"Run: chmod 600 {path}")
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["redraft_key"] != 1:
                raise ValueError
            master = base64.b64decode(content["key"], validate=True)
            version = content["version"]
            if len(master) != 32 or type(version) is not int or version < 1:
                raise ValueError
        except FileNotFoundError as error:
            what = f"The key file {path} is not there."
            raise SecurityError(what, "Restore it from its backup: no other key makes the same pseudonyms.") from error
        except OSError as error:
            raise SecurityError(f"{path} cannot be read: {error.strerror}.", "Check its owner and mode.") from error
        except (ValueError, KeyError, TypeError):  # bytes that are no text are a ValueError too
            # `from None`: the cause could quote the file, and with it the key.
            raise SecurityError(f"{path} is not a redraft key file.", "Restore it from its backup.") from None
        return cls(master, version)

    @classmethod
    def published_demo(cls) -> KeyRing:
        """The published key of demos and tests: reproduces results, protects nobody."""
        return cls(bytes.fromhex(sha256_bytes(_PUBLISHED)), 1, published=True)

    def derive(self, purpose: str) -> bytes:
        """The 32-byte key of one purpose."""
        if purpose not in PURPOSES:
            raise ValueError(f"unknown key purpose {purpose}")
        info = f"redraft/{self.version}/{purpose}".encode()
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self._master)

    @cached_property
    def fingerprint(self) -> str:
        """Names the key without telling it."""
        return sha256_bytes(self.derive("fingerprint"))[:16]

    @cached_property
    def _signing(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.derive("signing"))

    @property
    def public_key(self) -> str:
        """Ed25519 public key, hexadecimal; give it to whoever verifies."""
        return self._signing.public_key().public_bytes_raw().hex()

    def sign(self, payload: bytes) -> str:
        """Ed25519 signature, hexadecimal."""
        return self._signing.sign(payload).hex()


def verify_signature(public_key: str, payload: bytes, signature: str) -> bool:
    """Whether `public_key` (hexadecimal) signed these bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(bytes.fromhex(signature), payload)
    except (InvalidSignature, ValueError):
        return False
    return True


def resolve_keys(reference: SecretRef, env: Mapping[str, str], *, project_dir: Path) -> KeyRing:
    """Open the keys that project.yaml refers to; an environment variable holds the key file's path.

    Raises SecurityError when the reference leads nowhere or into the project directory.
    """
    if reference.env is not None:
        value = env.get(reference.env)
        if not value:
            raise SecurityError(
                f"The environment variable {reference.env} is not set; it must hold the key file's path.",
                "Set it, or make a key with `redraft key init PATH`.",
            )
        path = Path(value).expanduser()
    else:
        assert reference.file is not None
        path = (project_dir / reference.file.expanduser()).resolve()
    if path.resolve().is_relative_to(project_dir.resolve()):
        raise SecurityError(f"The key file {path} lies inside the project.", "Move it out: the project gets published.")
    return KeyRing.load(path)


def check_fingerprint(project_row: Mapping[str, Any], keys: KeyRing) -> None:
    """Raise SecurityError unless these keys are the ones the project was made with."""
    if (project_row["key_fingerprint"], project_row["key_version"]) != (keys.fingerprint, keys.version):
        raise SecurityError(
            f"The keys at hand ({keys.fingerprint}) are not this project's ({project_row['key_fingerprint']}).",
            "With other keys every patient would get a second pseudonym. Point project.yaml at the right key file.",
        )
