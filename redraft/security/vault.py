"""The vault: link table and quarantined originals, encrypted, outside the project.

One file per record, named by the pseudonym. AES-256-GCM with a random nonce; the file's name is bound in as associated
data, so that a record cannot be moved to another pseudonym.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from redraft.digest import canonical, sha256_bytes
from redraft.errors import SecurityError
from redraft.files import write_bytes
from redraft.security.keys import KeyRing

_MAGIC = b"RDV1"
_CHUNK = 16 * 1024 * 1024


class Vault:
    """What leads from pseudonyms back to people; opened with the project's keys."""

    def __init__(self, root: Path, keys: KeyRing):
        self.root = root
        self._cipher = AESGCM(keys.derive("vault"))
        self._names = keys.derive("vault_names")
        for folder in (root, root / "links", root / "originals"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.chmod(folder, 0o700)

    def put_link(self, kind: str, pseudonym: str, identity: dict[str, Any]) -> None:
        """Keep who a pseudonym is. The same record again changes nothing; another one is kept beside the first."""
        plain = canonical({"kind": kind, "pseudonym": pseudonym, "identity": identity})
        # The name carries a keyed check of the content: equal records meet in one file, none is ever overwritten.
        name = f"{kind}-{pseudonym}-{sha256_bytes(self._names + plain)[:16]}"
        path = self.root / "links" / name
        if not path.exists():
            write_bytes(path, self._seal(name, plain), mode=0o600)

    def links(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """Every link record, decrypted."""
        for path in sorted((self.root / "links").iterdir()):
            if path.name.startswith(".") or (kind is not None and not path.name.startswith(f"{kind}-")):
                continue
            yield json.loads(self._open(path.name, path.read_bytes()))

    def put_original(self, pseudonym: str, path: Path) -> None:
        """Keep an encrypted copy of a file that was set aside, in chunks, so that memory stays flat."""
        folder = self.root / "originals" / pseudonym
        with open(path, "rb") as stream:
            index = 0
            while chunk := stream.read(_CHUNK):
                name = f"{sha256_bytes(self._names + str(path).encode())[:16]}-{index:05d}"
                target = folder / name
                if not target.exists():
                    folder.mkdir(mode=0o700, exist_ok=True)
                    write_bytes(target, self._seal(name, chunk), mode=0o600)
                index += 1

    def purge(self, older_than: datetime) -> int:
        """Remove quarantined originals put in before a moment; returns how many files went."""
        count = 0
        for path in sorted((self.root / "originals").rglob("*")):
            if path.is_file() and path.stat().st_mtime < older_than.timestamp():
                path.unlink()
                count += 1
        return count

    def _seal(self, name: str, plain: bytes) -> bytes:
        nonce = secrets.token_bytes(12)
        return _MAGIC + nonce + self._cipher.encrypt(nonce, plain, name.encode())

    def _open(self, name: str, sealed: bytes) -> bytes:
        try:
            if sealed[:4] != _MAGIC:
                raise InvalidTag
            return self._cipher.decrypt(sealed[4:16], sealed[16:], name.encode())
        except InvalidTag as error:
            what = f"The vault record {name} cannot be opened: another key, or it was altered."
            raise SecurityError(what, "Use the project's key file, or restore the vault's backup.") from error
