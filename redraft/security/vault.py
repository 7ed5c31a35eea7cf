"""The vault: link table and quarantined originals, encrypted, outside the project.

One file per record, named by its pseudonym and a keyed check of its content: equal records meet in one file, none is
ever overwritten. AES-256-GCM with a random nonce per block; the file's name and the block's place are bound in as
associated data, so that no record can be moved to another pseudonym, cut short or put together from others.

    record = "RDV2" + block, block, …        block = last (1) + length (4) + nonce (12) + ciphertext and tag
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from redraft.digest import canonical, sha256_file
from redraft.errors import SecurityError, StorageError
from redraft.files import atomic_path, sweep_partials
from redraft.security.keys import KeyRing

_MAGIC = b"RDV2"
_CHUNK = 1024 * 1024
_HEAD = 1 + 4 + 12
_KEY_CHECK = "key-check"
_RESTORE = "Use the project's key file, or restore the vault's backup."


@dataclass(frozen=True)
class Original:
    """A quarantined original: its pseudonym, its record's name, and (decrypted) where it came from."""

    pseudonym: str
    record: str
    source: str
    bytes: int
    sha256: str


class Vault:
    """What leads from pseudonyms back to people; opened with the project's keys.

    Raises SecurityError when the vault was made with other keys, and StorageError when it cannot be written.
    """

    def __init__(self, root: Path, keys: KeyRing):
        self.root = root
        self._cipher = AESGCM(keys.derive("vault"))
        self._names = keys.derive("vault_names")
        try:
            for folder in (root, root / "links", root / "originals"):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if stat.S_IMODE(folder.stat().st_mode) != 0o700:
                    folder.chmod(0o700)
        except OSError as error:
            what = f"The vault {root} cannot be opened: {error.strerror}."
            raise StorageError(what, "Check that the folder exists and belongs to you.") from error
        self._check_key()

    # -- the link table -----------------------------------------------------------------------------------------------
    def put_link(self, kind: str, pseudonym: str, identity: dict[str, Any]) -> None:
        """Keep who a pseudonym is. The same record again changes nothing; another one is kept beside the first."""
        plain = canonical(_text({"kind": kind, "pseudonym": pseudonym, "identity": identity}))
        name = f"{_safe(kind)}-{_safe(pseudonym)}-{self._name(plain)}"
        self._write(self.root / "links" / name, name, [plain])

    def links(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """Every link record, decrypted, in the order of kind and pseudonym."""
        for path in _records(self.root / "links"):
            if kind is None or path.name.startswith(f"{kind}-"):
                yield json.loads(b"".join(self._read(path)))

    # -- quarantined originals ----------------------------------------------------------------------------------------
    def put_original(self, pseudonym: str, path: Path) -> None:
        """Keep an encrypted copy of a file that was set aside, block by block, so that memory stays flat.

        The same file from the same place again changes nothing. Raises StorageError when it changes while it is read.
        """
        try:
            sha256, size = sha256_file(path), path.stat().st_size
            head = canonical(_text({"source": str(path), "bytes": size, "sha256": sha256}))
            record = self._name(head)
            target = self.root / "originals" / _safe(pseudonym) / record
            if target.exists():
                return
            target.parent.mkdir(mode=0o700, exist_ok=True)
            with open(path, "rb") as stream:
                self._write(target, f"{pseudonym}/{record}", _head_and_blocks(head, stream, sha256))
        except OSError as error:
            what = f"A file could not be put into the vault ({pseudonym}): {error.strerror}."
            # `from None`: the cause quotes the clear path, and tracebacks reach logs.
            raise StorageError(what, "Check the disk and take the folder in again; what is in stays.") from None

    def originals(self, pseudonym: str | None = None) -> Iterator[Original]:
        """What is in quarantine, of one pseudonym or of all."""
        top = self.root / "originals"
        folders = sorted(top.iterdir()) if pseudonym is None else [top / _safe(pseudonym)]
        for folder in folders:
            for path in _records(folder):
                head = json.loads(next(self._read(path, f"{folder.name}/{path.name}")))
                yield Original(folder.name, path.name, head["source"], head["bytes"], head["sha256"])

    def read_original(self, original: Original, target: Path) -> None:
        """Write a quarantined original, decrypted, to `target` (mode 0600). SecurityError when it was altered."""
        name = f"{original.pseudonym}/{original.record}"
        blocks = self._read(self.root / "originals" / name, name)
        next(blocks)
        with atomic_path(target, mode=0o600) as partial, open(partial, "wb") as stream:
            for block in blocks:
                stream.write(block)

    def purge(self, older_than: datetime) -> int:
        """Remove quarantined originals put in before a moment; returns how many went. Links stay."""
        count = 0
        for folder in sorted((self.root / "originals").iterdir()):
            for path in _records(folder):
                if datetime.fromtimestamp(path.stat().st_mtime, UTC) < older_than:
                    path.unlink()
                    count += 1
            if not any(folder.iterdir()):
                folder.rmdir()
        return count

    def sweep(self) -> int:
        """Remove what killed processes left half-written; only under the project's lease."""
        return sweep_partials(self.root)

    # -- records ------------------------------------------------------------------------------------------------------
    def _check_key(self) -> None:
        """Open a record that every vault has: wrong keys are found before anything is written with them."""
        path = self.root / _KEY_CHECK
        known = path if path.exists() else next(iter(_records(self.root / "links")), None)
        if known is not None:
            for _ in self._read(known):
                pass
        if known != path:
            self._write(path, _KEY_CHECK, [b"redraft vault"])

    def _name(self, plain: bytes) -> str:
        return hmac.new(self._names, plain, hashlib.sha256).hexdigest()[:32]

    def _write(self, path: Path, name: str, blocks: Iterable[bytes]) -> None:
        if path.exists():
            return
        with atomic_path(path, mode=0o600) as partial, open(partial, "wb") as stream:
            stream.write(_MAGIC)
            waiting: bytes | None = None
            index = 0
            for block in blocks:
                if waiting is not None:
                    stream.write(self._seal(name, index, False, waiting))
                    index += 1
                waiting = block
            stream.write(self._seal(name, index, True, waiting or b""))

    def _read(self, path: Path, name: str | None = None) -> Iterator[bytes]:
        """The blocks of a record, each verified before it is given out, the end too."""
        name = name or path.name
        try:
            with open(path, "rb") as stream:
                if stream.read(len(_MAGIC)) != _MAGIC:
                    raise InvalidTag
                index, last = 0, False
                while not last:
                    head = stream.read(_HEAD)
                    if len(head) != _HEAD or head[0] > 1:
                        raise InvalidTag
                    last, length = bool(head[0]), int.from_bytes(head[1:5], "big")
                    if length > _CHUNK * 64:
                        raise InvalidTag
                    aad = _aad(name, index, last)
                    yield self._cipher.decrypt(head[5:], stream.read(length), aad)
                    index += 1
                if stream.read(1):
                    raise InvalidTag
        except InvalidTag as error:
            what = f"The vault record {name} cannot be opened: another key, or it was altered."
            raise SecurityError(what, _RESTORE) from error
        except OSError as error:
            raise SecurityError(f"The vault record {name} cannot be read: {error.strerror}.", _RESTORE) from error

    def _seal(self, name: str, index: int, last: bool, plain: bytes) -> bytes:
        nonce = secrets.token_bytes(12)
        sealed = self._cipher.encrypt(nonce, plain, _aad(name, index, last))
        return bytes([last]) + len(sealed).to_bytes(4, "big") + nonce + sealed


def _aad(name: str, index: int, last: bool) -> bytes:
    return f"{name}\x00{index}\x00{int(last)}".encode()


def _text(value: Any) -> Any:
    """The value with whatever bytes of a file name are no UTF-8 written as escapes: JSON could not hold them."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {key: _text(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_text(item) for item in value]
    return value


def _head_and_blocks(head: bytes, stream: BinaryIO, sha256: str) -> Iterator[bytes]:
    yield head
    seen = hashlib.sha256()
    while block := stream.read(_CHUNK):
        seen.update(block)
        yield block
    if seen.hexdigest() != sha256:
        raise StorageError("A file changed while it was put into the vault.", "Take it in again when it is complete.")


def _records(folder: Path) -> list[Path]:
    """Finished records of a folder, in name order."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _safe(name: str) -> str:
    """A pseudonym as part of a file name; anything else could leave the vault, or carry a clear name into it."""
    if not re.fullmatch(r"[a-z0-9_.]{1,64}", name) or name.startswith("."):
        raise SecurityError("A vault record must be named by a pseudonym.", "Report this with the command you ran.")
    return name
