"""The vault: nothing clear on disk, nothing lost, nothing altered unseen."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redraft.errors import SecurityError, StorageError
from redraft.security import vault as module
from redraft.security.keys import KeyRing
from redraft.security.vault import Vault

KEYS = KeyRing.published_demo()
NAME = "Doe^Jane Invented"


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "vault", KEYS)


def files(vault: Vault) -> list[Path]:
    return sorted(path for path in vault.root.rglob("*") if path.is_file())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file with a patient's name in its path and its bytes, longer than a block."""
    path = tmp_path / "in" / f"{NAME}.dcm"
    path.parent.mkdir()
    path.write_bytes(NAME.encode() + os.urandom(module._CHUNK * 2) + NAME.encode())
    return path


def test_links_come_back(vault: Vault) -> None:
    """What was put in is there, by kind, after opening again."""
    vault.put_link("subject", "ab12", {"patient_id": NAME})
    vault.put_link("series", "cd34", {"folder": "/x/\udcff", "n": 3})
    again = Vault(vault.root, KEYS)
    assert list(again.links("subject")) == [{"kind": "subject", "pseudonym": "ab12", "identity": {"patient_id": NAME}}]
    assert [link["identity"] for link in again.links()] == [{"folder": "/x/\\udcff", "n": 3}, {"patient_id": NAME}]


def test_putting_the_same_again_changes_nothing(vault: Vault, source: Path) -> None:
    """Equal records leave the files as they are, to the byte and the time; another identity is kept beside."""
    vault.put_link("subject", "ab12", {"patient_id": "1"})
    vault.put_original("ab12", source)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files(vault)}
    vault.put_link("subject", "ab12", {"patient_id": "1"})
    vault.put_original("ab12", source)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files(vault)} == before
    vault.put_link("subject", "ab12", {"patient_id": "2"})
    assert [link["identity"]["patient_id"] for link in vault.links()].count("1") == 1
    assert len(list(vault.links())) == 2


def test_nothing_clear_on_disk(vault: Vault, source: Path) -> None:
    """Neither a name nor a path shows in names or bytes; folders are 0700, files 0600."""
    vault.put_link("subject", "ab12", {"patient_id": NAME})
    vault.put_original("ab12", source)
    for path in vault.root.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
        assert "Doe" not in path.name
        assert path.is_dir() or b"Doe^Jane" not in path.read_bytes()
    assert stat.S_IMODE(vault.root.stat().st_mode) == 0o700


def test_open_permissions_are_closed_again(vault: Vault) -> None:
    """A vault that a copy left readable is private again once it is opened."""
    vault.root.chmod(0o755)
    Vault(vault.root, KEYS)
    assert stat.S_IMODE(vault.root.stat().st_mode) == 0o700


def test_another_key_is_refused_before_anything_is_written(vault: Vault, tmp_path: Path) -> None:
    """The wrong key raises when the vault is opened, even an empty one."""
    other = KeyRing.create(tmp_path / "key.json")
    before = files(vault)
    with pytest.raises(SecurityError, match="another key"):
        Vault(vault.root, other)
    vault.put_link("subject", "ab12", {})
    (vault.root / "key-check").unlink()
    with pytest.raises(SecurityError, match="another key"):
        Vault(vault.root, other)
    Vault(vault.root, KEYS)
    assert [p for p in files(vault) if p.parent == vault.root] == before


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
def test_originals_come_back_to_the_byte(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Of any length around the block size, with where they came from."""
    monkeypatch.setattr(module, "_CHUNK", 100)
    path = tmp_path / "original.dcm"
    path.write_bytes(os.urandom(size))
    vault.put_original("ab12", path)
    (original,) = vault.originals()
    assert (original.pseudonym, original.source, original.bytes) == ("ab12", str(path), size)
    vault.read_original(original, tmp_path / "back.dcm")
    assert (tmp_path / "back.dcm").read_bytes() == path.read_bytes()
    assert stat.S_IMODE((tmp_path / "back.dcm").stat().st_mode) == 0o600


def test_a_path_that_was_used_again_keeps_both_files(vault: Vault, source: Path) -> None:
    """Two contents under one path are two originals."""
    vault.put_original("ab12", source)
    source.write_bytes(b"other")
    vault.put_original("ab12", source)
    assert sorted(original.bytes > 5 for original in vault.originals("ab12")) == [False, True]
    assert list(vault.originals("cd34")) == []


def test_moving_records_is_seen(vault: Vault, source: Path) -> None:
    """A link or an original that was moved to another pseudonym does not open."""
    vault.put_link("subject", "ab12", {"patient_id": "1"})
    (link,) = (path for path in files(vault) if path.parent.name == "links")
    link.rename(link.with_name(link.name.replace("ab12", "ff00")))
    with pytest.raises(SecurityError, match="altered"):
        list(vault.links())
    vault.put_original("ab12", source)
    (vault.root / "originals" / "ab12").rename(vault.root / "originals" / "ff00")
    with pytest.raises(SecurityError, match="altered"):
        list(vault.originals())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_a_record_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    """Flip, cut or lengthen a sealed file anywhere (block borders too): it does not open, and nothing is written."""
    monkeypatch.setattr(module, "_CHUNK", 16)
    vault = Vault(tmp_path / "v", KEYS)
    path = tmp_path / "o"
    path.write_bytes(bytes(range(50)))
    vault.put_original("ab12", path)
    (original,) = vault.originals()
    sealed_path = vault.root / "originals" / "ab12" / original.record
    sealed = sealed_path.read_bytes()
    at = data.draw(st.integers(0, len(sealed) - 1))
    change = data.draw(st.sampled_from(["flip", "cut", "grow"]))
    if change == "flip":
        altered = sealed[:at] + bytes([sealed[at] ^ data.draw(st.integers(1, 255))]) + sealed[at + 1 :]
    else:
        altered = sealed[:at] if change == "cut" else sealed + b"x"
    sealed_path.write_bytes(altered)
    try:
        with pytest.raises(SecurityError, match="altered"):
            vault.read_original(original, tmp_path / "back")
        assert not (tmp_path / "back").exists()
    finally:
        sealed_path.write_bytes(sealed)


def test_blocks_cannot_be_reordered(vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks of one record that change places are seen."""
    monkeypatch.setattr(module, "_CHUNK", 16)
    path = tmp_path / "o"
    path.write_bytes(os.urandom(64))
    vault.put_original("ab12", path)
    (original,) = vault.originals()
    sealed_path = vault.root / "originals" / "ab12" / original.record
    sealed = sealed_path.read_bytes()
    block = 17 + 16 + 16
    tail = len(sealed) - 4 * block
    one, two = sealed[tail : tail + block], sealed[tail + block : tail + 2 * block]
    sealed_path.write_bytes(sealed[:tail] + two + one + sealed[tail + 2 * block :])
    with pytest.raises(SecurityError, match="altered"):
        vault.read_original(original, tmp_path / "back")


def test_a_file_that_fails_half_way_leaves_nothing(vault: Vault, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the file changes while it is read, no record appears and no clear path shows in the error."""
    before = files(vault)
    monkeypatch.setattr(module, "sha256_file", lambda path: "0" * 64)
    with pytest.raises(StorageError, match="changed") as raised:
        vault.put_original("ab12", source)
    assert NAME not in str(raised.value)
    assert files(vault) == before


def test_an_unreadable_file_does_not_tell_its_path(vault: Vault, tmp_path: Path) -> None:
    """The error names the pseudonym; its traceback carries no clear path either."""
    with pytest.raises(StorageError, match="ab12") as raised:
        vault.put_original("ab12", tmp_path / NAME)
    assert NAME not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", NAME, "A", "a" * 65])
def test_only_pseudonyms_name_records(vault: Vault, source: Path, name: str) -> None:
    """A name that could leave the vault, or tell a patient, is refused."""
    for put in (lambda: vault.put_link("subject", name, {}), lambda: vault.put_original(name, source)):
        with pytest.raises(SecurityError, match="named by a pseudonym") as raised:
            put()
        assert not name or NAME not in str(raised.value)


def test_purge_keeps_what_is_young_and_every_link(vault: Vault, source: Path) -> None:
    """Only originals put in before the moment go, with their empty folders."""
    vault.put_link("subject", "ab12", {"patient_id": "1"})
    vault.put_original("ab12", source)
    vault.put_original("cd34", source)
    now = datetime.now(UTC)
    for path in (vault.root / "originals" / "ab12").iterdir():
        os.utime(path, ((now - timedelta(days=40)).timestamp(),) * 2)
    assert vault.purge(now - timedelta(days=30)) == 1
    assert [original.pseudonym for original in vault.originals()] == ["cd34"]
    assert not (vault.root / "originals" / "ab12").exists()
    assert len(list(vault.links())) == 1
    assert vault.purge(now - timedelta(days=30)) == 0


def test_what_a_killed_process_left_is_ignored_and_swept(vault: Vault) -> None:
    """Half-written files are no records."""
    (vault.root / "links" / ".partial-x").write_bytes(b"half")
    assert list(vault.links()) == []
    assert vault.sweep() == 1
    assert not list((vault.root / "links").iterdir())


def test_a_place_that_cannot_hold_a_vault(tmp_path: Path) -> None:
    """A file where the folder should be is a clear error."""
    (tmp_path / "vault").write_text("x")
    with pytest.raises(StorageError, match="cannot be opened"):
        Vault(tmp_path / "vault", KEYS)
