"""Key files, derived keys, signatures."""

from __future__ import annotations

import base64
import json
import pickle
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.hmac import HMAC

from redraft.config.base import SecretRef
from redraft.errors import SecurityError
from redraft.security.keys import PURPOSES, KeyRing, check_fingerprint, resolve_keys, verify_signature


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "project.key.json"


def test_a_key_file_is_private_and_loads_again(path: Path) -> None:
    """The file has mode 0600, nothing lies beside it, and loading gives the same keys."""
    made, loaded = KeyRing.create(path), KeyRing.load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert (made.fingerprint, made.public_key) == (loaded.fingerprint, loaded.public_key)
    assert not loaded.published


def test_an_existing_file_is_never_overwritten(path: Path) -> None:
    """A second `create` refuses and leaves the key as it is."""
    KeyRing.create(path)
    before = path.read_bytes()
    with pytest.raises(SecurityError, match="never overwritten"):
        KeyRing.create(path)
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


def test_two_keys_differ(tmp_path: Path) -> None:
    """Every new key is random, and so is everything made from it."""
    a, b = KeyRing.create(tmp_path / "a"), KeyRing.create(tmp_path / "b")
    assert a.fingerprint != b.fingerprint
    assert all(a.derive(purpose) != b.derive(purpose) for purpose in PURPOSES)


def test_purposes_are_separated_by_hkdf() -> None:
    """Each purpose has its own key, and it is RFC 5869's HKDF-SHA256 worked out by hand."""
    keys = KeyRing.published_demo()
    assert len({keys.derive(purpose) for purpose in PURPOSES}) == len(PURPOSES)

    def mac(key: bytes, data: bytes) -> bytes:
        h = HMAC(key, SHA256())
        h.update(data)
        return h.finalize()

    digest = Hash(SHA256())
    digest.update(b"redraft published demo key: secret to nobody, safe for no patient")
    extracted = mac(b"\x00" * 32, digest.finalize())
    assert keys.derive("vault") == mac(extracted, b"redraft/1/vault\x01")
    with pytest.raises(ValueError, match="unknown"):
        keys.derive("everything")


def test_the_published_key_is_fixed_and_says_so() -> None:
    """Results of demos reproduce: this fingerprint may never change."""
    keys = KeyRing.published_demo()
    assert keys.published
    assert (keys.fingerprint, keys.version) == (KeyRing.published_demo().fingerprint, 1)
    assert keys.fingerprint == "97a59e6be01d33dc"


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o666])
def test_a_key_that_others_can_read_is_refused(path: Path, mode: int) -> None:
    """Open permissions are an error that says how to mend them."""
    KeyRing.create(path)
    path.chmod(mode)
    with pytest.raises(SecurityError, match="chmod 600"):
        KeyRing.load(path)


SEED = base64.b64encode(b"k" * 32).decode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"7",
        json.dumps({"redraft_key": 1, "version": 1}).encode(),
        json.dumps({"redraft_key": 2, "version": 1, "key": SEED}).encode(),
        json.dumps({"redraft_key": 1, "version": "1", "key": SEED}).encode(),
        json.dumps({"redraft_key": 1, "version": 0, "key": SEED}).encode(),
        json.dumps({"redraft_key": 1, "version": 1, "key": SEED[:-8]}).encode(),
        json.dumps({"redraft_key": 1, "version": 1, "key": SEED + "!"}).encode(),
        json.dumps({"redraft_key": 1, "version": 1, "key": None}).encode(),
    ],
)
def test_what_is_no_key_file_is_refused_without_quoting_it(tmp_path: Path, content: bytes) -> None:
    """A damaged key file is one clear error, whose cause does not carry the content along."""
    path = tmp_path / "key.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SecurityError, match="not a redraft key file") as raised:
        KeyRing.load(path)
    assert raised.value.__suppress_context__


def test_an_absent_key_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    """Absent: restore it; not a file: says so."""
    with pytest.raises(SecurityError, match="not there"):
        KeyRing.load(tmp_path / "absent.json")
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    with pytest.raises(SecurityError, match="cannot be read"):
        KeyRing.load(folder)
    with pytest.raises(SecurityError, match="already"):
        KeyRing.create(folder)


def test_a_key_shows_itself_to_nobody(path: Path) -> None:
    """Neither `repr` nor a pickle holds the secret."""
    keys = KeyRing.create(path)
    secret = base64.b64decode(json.loads(path.read_text())["key"])
    assert secret.hex() not in repr(keys)
    assert keys.fingerprint in repr(keys)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(keys)


def test_signatures(path: Path) -> None:
    """A signature verifies with its key and bytes, and with nothing else, however malformed."""
    keys = KeyRing.published_demo()
    other = KeyRing.create(path)
    signature = keys.sign(b"head")
    assert verify_signature(keys.public_key, b"head", signature)
    assert not verify_signature(keys.public_key, b"other", signature)
    assert not verify_signature(other.public_key, b"head", signature)
    assert not verify_signature(keys.public_key, b"head", signature[:-2] + "00")
    for key, sig in (("", signature), ("zz", signature), (keys.public_key, "zz"), (keys.public_key, "")):
        assert not verify_signature(key, b"head", sig)


def test_the_vault_key_is_an_aes_key() -> None:
    """32 bytes, so AES-256."""
    AESGCM(KeyRing.published_demo().derive("vault"))
    assert len(KeyRing.published_demo().derive("vault")) == 32


def test_resolving_a_reference(tmp_path: Path) -> None:
    """A file or an environment variable that holds a path leads to the key; relative paths start at the project."""
    project = tmp_path / "project"
    project.mkdir()
    made = KeyRing.create(tmp_path / "key.json")
    for reference in (SecretRef(file=Path("../key.json")), SecretRef(file=tmp_path / "key.json"), SecretRef(env="K")):
        keys = resolve_keys(reference, {"K": str(tmp_path / "key.json")}, project_dir=project)
        assert keys.fingerprint == made.fingerprint
    for env in ({}, {"K": ""}):
        with pytest.raises(SecurityError, match="not set"):
            resolve_keys(SecretRef(env="K"), env, project_dir=project)
    with pytest.raises(SecurityError, match="not there"):
        resolve_keys(SecretRef(env="K"), {"K": str(tmp_path / "absent")}, project_dir=project)


def test_a_key_inside_the_project_is_refused(tmp_path: Path) -> None:
    """The project gets published; a link that leads into it is no way around."""
    project = tmp_path / "project"
    KeyRing.create(project / "key.json")
    (tmp_path / "link.json").symlink_to(project / "key.json")
    for reference in (SecretRef(file=Path("key.json")), SecretRef(file=tmp_path / "link.json"), SecretRef(env="K")):
        with pytest.raises(SecurityError, match="inside the project"):
            resolve_keys(reference, {"K": str(tmp_path / "link.json")}, project_dir=project)


def test_other_keys_than_the_projects_are_refused(path: Path) -> None:
    """Fingerprint and version must be those in the ledger."""
    keys = KeyRing.published_demo()
    row: dict[str, Any] = {"key_fingerprint": keys.fingerprint, "key_version": 1}
    check_fingerprint(row, keys)
    with pytest.raises(SecurityError, match="second pseudonym"):
        check_fingerprint(row, KeyRing.create(path))
    with pytest.raises(SecurityError, match="second pseudonym"):
        check_fingerprint({**row, "key_version": 2}, keys)
