"""Files are whole or untouched: after errors, full disks and kills the old content stands."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redraft import files
from redraft.errors import StorageError
from redraft.files import atomic_path, sweep_partials, write_bytes, write_text

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; skips where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@given(st.binary(max_size=300), st.binary(max_size=300))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_come_back(tmp_path: Path, old: bytes, new: bytes) -> None:
    """What is written is what stands there, whatever stood there before, and nothing else is left in the folder."""
    for data in (old, new):
        write_bytes(tmp_path / "a.bin", data)
        assert content(tmp_path) == {"a.bin": data}


def test_text_is_utf8_without_translation(tmp_path: Path) -> None:
    """Line ends and scripts are kept as they are."""
    text = "a\r\nb\nŽižková 大槻\n"
    write_text(tmp_path / "a.txt", text)
    assert (tmp_path / "a.txt").read_bytes() == text.encode("utf-8")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    """An exception of any kind passes through; the old content stands and no partial file is left."""
    target = tmp_path / "a.bin"
    write_bytes(target, b"old")
    with pytest.raises(error), atomic_path(target) as partial:
        partial.write_bytes(b"half of the n")
        assert target.read_bytes() == b"old"
        raise error
    assert content(tmp_path) == {"a.bin": b"old"}


def test_a_full_disk_leaves_the_old_file(small_disk: Path) -> None:
    """On a disk that is really full the old file stands, nothing is left over, and a smaller file still fits."""
    target = small_disk / "a.bin"
    write_bytes(target, b"old" * 1000)
    with pytest.raises(StorageError) as caught:
        write_bytes(target, os.urandom(600_000))
    assert caught.value.code == "storage.full" and caught.value.retry
    assert content(small_disk) == {"a.bin": b"old" * 1000}
    write_bytes(target, b"new" * 1000)
    assert target.read_bytes() == b"new" * 1000


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_when_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Network file systems say so only at the flush: the old file stands, the error is the same."""
    target = tmp_path / "a.bin"
    write_bytes(target, b"old")

    def full(handle: int) -> None:
        raise OSError(number, "full")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError) as caught:
        write_bytes(target, b"new")
    assert caught.value.code == "storage.full"
    assert content(tmp_path) == {"a.bin": b"old"}


def test_bytes_are_flushed_before_the_name_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content, then rename, then the directory: a power cut never shows a name without its bytes."""
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flush(handle: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "content")
        fsync(handle)

    monkeypatch.setattr(files.os, "fsync", flush)
    monkeypatch.setattr(files.os, "replace", lambda a, b: (steps.append("rename"), replace(a, b)))
    write_bytes(tmp_path / "a.bin", b"x")
    assert steps == ["content", "rename", "directory"]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    """After `kill -9` in the middle of a write the old file stands; the sweep removes only what is left over."""
    write_bytes(tmp_path / "deep" / "a.bin", b"old")
    code = (
        "import os, signal, sys\nfrom redraft.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as partial:\n"
        "    partial.write_bytes(b'half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "deep" / "a.bin")], cwd=REPOSITORY, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "deep" / "a.bin").read_bytes() == b"old"
    assert len(content(tmp_path / "deep")) == 2
    assert sweep_partials(tmp_path) == 1
    assert content(tmp_path / "deep") == {"a.bin": b"old"}
    assert sweep_partials(tmp_path) == 0


def test_a_partial_file_has_the_target_s_suffixes_and_folder(tmp_path: Path) -> None:
    """Libraries choose a format by the suffix, and only a rename within one file system is atomic."""
    with atomic_path(tmp_path / "x" / "image.nii.gz") as partial:
        assert partial.name.endswith(".nii.gz") and partial.parent == tmp_path / "x"
        partial.write_bytes(b"")
    assert content(tmp_path / "x") == {"image.nii.gz": b""}


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o444])
def test_the_mode_is_the_one_asked_for(tmp_path: Path, mode: int) -> None:
    """Whatever the umask and whatever the old file had."""
    before = os.umask(0o077)
    try:
        for _ in range(2):
            write_bytes(tmp_path / "a.bin", b"x", mode=mode)
            assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == mode
    finally:
        os.umask(before)


def test_a_secret_is_never_readable_by_others_while_it_is_written(tmp_path: Path) -> None:
    """The partial file is the owner's alone from its first byte."""
    with atomic_path(tmp_path / "key", mode=0o600) as partial:
        assert stat.S_IMODE(partial.stat().st_mode) == 0o600


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    """A file where a folder should be, or a folder where the file should be, ends in an error and no leftovers."""
    write_bytes(tmp_path / "file", b"x")
    with pytest.raises(StorageError):
        write_bytes(tmp_path / "file" / "a.bin", b"y")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(StorageError):
        write_bytes(tmp_path / "folder", b"y")
    assert content(tmp_path) == {"file": b"x"}
