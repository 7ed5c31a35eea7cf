from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redraft.dataset import dvc, git, publish
from redraft.dataset.manifest import MANIFEST
from redraft.dataset.publish import DatasetVersion, publish_dataset, publish_records
from redraft.digest import sha256_file
from redraft.errors import ConflictError, IntegrityError, VersioningError
from redraft.files import write_bytes, write_text


def sh(root: Path, *args: str) -> str:
    return subprocess.run(["git", *args], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def held() -> None:
    """A lease that is held."""


def lost() -> None:
    """A lease that another writer took over."""
    raise ConflictError("taken over")


def objects(remote: Path) -> set[str]:
    return {path.relative_to(remote).as_posix() for path in remote.rglob("*") if path.is_file()}


TAGS = {"round-0001": 'Round 1\n\n{"checkpoint": "ab"}'}


def whole_round(root: Path, remotes: Path) -> DatasetVersion:
    """What a round publishes: its dataset, then its lock and tag."""
    version = publish_dataset(root, 1, check_lease=held, dvc_remote="../remotes/dvc")
    write_text(root / "rounds" / "0001" / "round.yaml", f"dataset: {version.dvc_md5}\n")
    publish_records(root, ["rounds/0001/round.yaml"], "Round 1: lock", TAGS, str(remotes / "git"))
    return version


def state(root: Path, remotes: Path) -> dict[str, object]:
    """Everything that must agree after any interruption: tree, messages, tags and remotes, without times."""
    return {
        "tree": sh(root, "rev-parse", "HEAD^{tree}"),
        "log": sh(root, "log", "--format=%s").splitlines(),
        "tags": sh(root, "for-each-ref", "--format=%(refname) %(contents:subject)", "refs/tags"),
        "status": sh(root, "status", "--porcelain"),
        "tag is head": git.tagged_commit(root, "round-0001") == git.head(root),
        "pushed": sh(remotes / "git", "rev-parse", "main") == git.head(root),
        "pushed tags": sh(remotes / "git", "for-each-ref", "--format=%(refname)", "refs/tags"),
        "objects": objects(remotes / "dvc"),
        "manifest": sha256_file(root / "data" / MANIFEST),
    }


def bare(folder: Path) -> Path:
    """A folder with an empty git remote and room for a DVC one."""
    folder.mkdir()
    sh(folder, "init", "-q", "--bare", "-b", "main", "git")
    return folder


@pytest.fixture
def remotes(tmp_path: Path) -> Path:
    return bare(tmp_path / "remotes")


@pytest.fixture(scope="module")
def sent(empty_project: Path, exam_maker: Callable[[Path, int], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a project whose data lies on the remote while its pointer is not committed yet."""
    folder = tmp_path_factory.mktemp("sent")
    shutil.copytree(empty_project, folder / "project")
    for number in range(3):
        exam_maker(folder / "project", number)
    bare(folder / "remotes")
    with pytest.raises(ConflictError):
        publish_dataset(folder / "project", 1, check_lease=lost, dvc_remote="../remotes/dvc")
    return folder


def resumed(sent: Path, folder: Path) -> tuple[Path, Path]:
    """A copy of it to go on with: project and remotes."""
    shutil.copytree(sent, folder / "copy")
    return folder / "copy" / "project", folder / "copy" / "remotes"


@pytest.fixture(scope="module")
def undisturbed(sent: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The state after a whole round."""
    root, remotes = resumed(sent, tmp_path_factory.mktemp("undisturbed"))
    whole_round(root, remotes)
    return state(root, remotes)


def test_a_round_is_published_whole(undisturbed: dict[str, object]) -> None:
    """After a round the pointer, the lock and the tag are committed and pushed, and every object is on the remote."""
    assert undisturbed["log"] == ["Round 1: lock", undisturbed["log"][1], "Project"]  # type: ignore[index]
    assert str(undisturbed["tags"]) == "refs/tags/round-0001 Round 1"
    assert undisturbed["pushed tags"] == "refs/tags/round-0001"
    assert (undisturbed["status"], undisturbed["pushed"], undisturbed["tag is head"]) == ("", True, True)
    assert len(undisturbed["objects"]) == 12  # type: ignore[arg-type]  # 3 label .json are one object


def test_tracked_files_are_read_only_and_stored_once(root: Path) -> None:
    """DVC's cache and data/ share their bytes, no file of data/ was replaced, and none can be written by mistake."""
    image = root / "data" / "exams" / "00" / "00e0e0e0e0" / "image.nii.gz"
    before = image.stat()
    publish_dataset(root, 1, check_lease=held, dvc_remote=None)
    after = image.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (after.st_nlink, after.st_mode & 0o222) == (2, 0)


def test_unchanged_data_calls_no_dvc(root: Path, remotes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishing again what is published returns the same version without starting DVC."""
    first = publish_dataset(root, 1, check_lease=held, dvc_remote="../remotes/dvc")
    monkeypatch.setattr(dvc, "run", lambda *args, **kwargs: pytest.fail("DVC was called"))
    assert publish_dataset(root, 1, check_lease=held, dvc_remote="../remotes/dvc") == first
    assert publish_dataset(root, 2, check_lease=held, dvc_remote="../remotes/dvc") == first


def test_checking_out_a_tag_gives_back_that_dataset(root: Path, exam_maker: Callable[[Path, int], str]) -> None:
    """An earlier tag and `dvc checkout` bring back the earlier files, and the latest brings the later ones."""
    publish_dataset(root, 1, check_lease=held, dvc_remote=None)
    publish_records(root, [], "", {"round-0001": "one"}, None)
    before = sha256_file(root / "data" / MANIFEST)
    exam_maker(root, 9)
    second = publish_dataset(root, 2, check_lease=held, dvc_remote=None)
    assert second.files == 16
    sh(root, "checkout", "-q", "round-0001")
    dvc.checkout(root)
    assert sha256_file(root / "data" / MANIFEST) == before
    assert not (root / "data" / "exams" / "09").exists()
    sh(root, "checkout", "-q", "main")
    dvc.checkout(root)
    assert publish_dataset(root, 2, check_lease=held, dvc_remote=None) == second


def test_a_lost_lease_commits_nothing(root: Path) -> None:
    """When another writer took over, the pointer is not committed."""
    with pytest.raises(ConflictError):
        publish_dataset(root, 1, check_lease=lost, dvc_remote=None)
    assert sh(root, "log", "--format=%s") == "Project"


def test_an_unreachable_dvc_remote_publishes_no_pointer_and_the_next_call_completes(root: Path, tmp_path: Path) -> None:
    """No commit without the data on the remote; the error says what to do; afterwards the same call goes through."""
    blocked = tmp_path / "blocked"
    write_text(blocked, "a file where the remote should be")
    with pytest.raises(VersioningError) as caught:
        publish_dataset(root, 1, check_lease=held, dvc_remote=str(blocked))
    assert caught.value.code == "versioning.remote"
    assert "Nothing was published" in caught.value.do
    assert "exit code" not in caught.value.what
    assert sh(root, "log", "--format=%s") == "Project"
    blocked.unlink()
    publish_dataset(root, 1, check_lease=held, dvc_remote=str(blocked))
    assert len(objects(blocked)) == 12


@pytest.mark.parametrize("folder", [True, False], ids=["folder", "asked through DVC"])
def test_a_file_that_the_remote_lost_is_missed_and_sent_again(
    sent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    """DVC takes a snapshot for complete once its listing is there; we ask for each file."""
    root, remotes = resumed(sent, tmp_path)
    if not folder:
        monkeypatch.setattr(dvc, "remote_url", lambda root: "s3://elsewhere")
    before = objects(remotes / "dvc")
    assert dvc.missing_on_remote(root) == []
    victim = sorted(name for name in before if not name.endswith(".dir"))[3]
    (remotes / "dvc" / victim).unlink()
    assert dvc.missing_on_remote(root) == ["".join(victim.split("/")[-2:])]
    dvc.push(root)
    assert objects(remotes / "dvc") == before
    assert not (root / "remote-check.dvc").exists()
    assert not list((root / ".dvc" / "tmp").glob("check-*"))


def test_hashes_that_look_like_numbers_are_asked_for_as_text(
    root: Path, remotes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An MD5 such as 4010…745e5661… is a float to YAML; such a file is published and verified like any other."""
    write_bytes(root / "data" / "labels" / "00" / "00e0e0e0e0" / "n.nii.gz", b"46793")
    publish_dataset(root, 1, check_lease=held, dvc_remote=f"file://{remotes / 'dvc'}")
    assert "files/md5/40/1013266745e5661589292315434968" in objects(remotes / "dvc")
    monkeypatch.setattr(dvc, "remote_url", lambda root: "s3://elsewhere")
    assert dvc.missing_on_remote(root) == []


def test_a_refusing_git_remote_leaves_a_complete_local_round_and_the_next_call_pushes_it(
    sent: Path, tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    """A refused push changes nothing local, and repeating the round ends like an undisturbed one."""
    root, remotes = resumed(sent, tmp_path)
    hook = remotes / "git" / "hooks" / "pre-receive"
    write_text(hook, "#!/bin/sh\necho 'closed for the night' >&2\nexit 1\n", mode=0o755)
    with pytest.raises(VersioningError, match="closed for the night"):
        whole_round(root, remotes)
    assert sh(remotes / "git", "for-each-ref") == ""
    hook.unlink()
    whole_round(root, remotes)
    assert state(root, remotes) == undisturbed


class Killed(BaseException):
    """Stands for kill -9: nothing of ours handles it."""


IN_DVC = [("dvc add", "after"), ("dvc push", "after")]
IN_GIT = [
    ("git add", "before"), ("git add", "after"), ("git commit", "after"), ("git log", "after"),
    ("git tag", "before"), ("git tag", "after"), ("git push", "after"),
]  # fmt: skip
STOPS = [*IN_DVC, *IN_GIT]


@pytest.mark.parametrize(("point", "when"), STOPS, ids=[f"{when} {point}" for point, when in STOPS])
def test_killed_between_any_two_operations_a_second_call_converges(
    sent: Path, tmp_path: Path, undisturbed: dict[str, object], exam_maker: Callable[[Path, int], str],
    empty_project: Path, monkeypatch: pytest.MonkeyPatch, point: str, when: str,
) -> None:  # fmt: skip
    """Whatever was done before the kill, running again ends in the same commits, tags and remotes."""
    if (point, when) in IN_GIT:
        root, remotes = resumed(sent, tmp_path)
    else:
        root, remotes = tmp_path / "project", bare(tmp_path / "remotes")
        shutil.copytree(empty_project, root)
        for number in range(3):
            exam_maker(root, number)
    real = dvc.run

    def run(command: list[str], *args: Any, **kwargs: Any) -> Any:
        words = [word for word in command if word in ("dvc", "git", "add", "push", "status", "commit", "tag", "log")]
        here = " ".join(words[:2]) == point
        if here and when == "before":
            raise Killed
        done = real(command, *args, **kwargs)
        if here:
            raise Killed
        return done

    with monkeypatch.context() as patch:
        patch.setattr(dvc, "run", run)
        patch.setattr(git, "run", run)
        with pytest.raises(Killed):
            whole_round(root, remotes)
    if sh(root, "log", "--format=%H", "--", "data.dvc"):  # a pointer is never published before its data
        assert objects(remotes / "dvc") == undisturbed["objects"]
    whole_round(root, remotes)
    assert state(root, remotes) == undisturbed


WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[3])
    from redraft.dataset.publish import publish_dataset, publish_records
    from redraft.files import write_text
    root, remotes = Path(sys.argv[1]), Path(sys.argv[2])
    print("ready", flush=True)
    version = publish_dataset(root, 1, check_lease=lambda: None, dvc_remote="../remotes/dvc")
    write_text(root / "rounds" / "0001" / "round.yaml", f"dataset: {version.dvc_md5}\\n")
    tags = {"round-0001": 'Round 1\\n\\n{"checkpoint": "ab"}'}
    publish_records(root, ["rounds/0001/round.yaml"], "Round 1: lock", tags, str(remotes / "git"))
    """
)


@pytest.mark.parametrize("seconds", [0.6, 2.0])
def test_kill_9_of_the_real_process_and_its_children_converges(
    root: Path, remotes: Path, undisturbed: dict[str, object], seconds: float
) -> None:
    """The process and the git or DVC it runs die at once; a second call ends like an undisturbed round."""
    import psutil

    repository = str(Path(publish.__file__).parents[2])
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), str(remotes), repository], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    time.sleep(seconds)
    for process in [psutil.Process(writer.pid), *psutil.Process(writer.pid).children(recursive=True)]:
        os.kill(process.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    whole_round(root, remotes)
    assert state(root, remotes) == undisturbed


def test_a_dvc_that_outlived_its_killed_parent_is_waited_for(root: Path) -> None:
    """kill -9 of the parent leaves a DVC at work; the second call waits for its lock instead of failing."""
    program = "from dvc.repo import Repo\nwith Repo().lock:\n print('locked', flush=True)\n input()"
    orphan = subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert orphan.stdout is not None and orphan.stdout.readline() == "locked\n"
    release = threading.Timer(4.5, orphan.communicate, ["\n"])  # DVC itself gives up after 3 s
    release.start()
    try:
        publish_dataset(root, 1, check_lease=held, dvc_remote=None)
    finally:
        release.join()
    assert orphan.wait(20) == 0
    assert sh(root, "log", "--format=%s", "--", "data.dvc").count("Round 1") == 1


def test_what_a_killed_dvc_leaves_behind_is_no_obstacle(root: Path) -> None:
    """A half-written lock file and the pointer of an interrupted check are cleared away."""
    (root / ".dvc" / "tmp").mkdir(exist_ok=True)
    write_text(root / ".dvc" / "tmp" / "rwlock", "")
    write_text(root / "remote-check.dvc", "outs:")
    publish_dataset(root, 1, check_lease=held, dvc_remote=None)
    assert not (root / "remote-check.dvc").exists()


def test_dvc_init_never_empties_a_cache(root: Path) -> None:
    """Calling init on a repository, even one whose configuration was edited, touches nothing."""
    publish_dataset(root, 1, check_lease=held, dvc_remote=None)
    before = objects(root / ".dvc" / "cache")
    write_text(root / ".dvc" / "config", "[cache]\n    type = copy\n")
    dvc.init(root)
    assert (root / ".dvc" / "config").read_text() == "[cache]\n    type = copy\n"
    assert objects(root / ".dvc" / "cache") == before


def test_a_damaged_label_stops_the_round(root: Path) -> None:
    """Data that changed under a published name is refused before DVC sees it."""
    publish_dataset(root, 1, check_lease=held, dvc_remote=None)
    write_bytes(root / "data" / "labels" / "00" / "00e0e0e0e0" / "a0.nii.gz", b"altered")
    with pytest.raises(IntegrityError, match="was changed after round 1"):
        publish_dataset(root, 2, check_lease=held, dvc_remote=None)
    assert len(sh(root, "log", "--format=%s").splitlines()) == 2


def test_a_broken_pointer_is_a_typed_error(root: Path) -> None:
    """data.dvc that is missing, empty or names no directory is said to be so."""
    for content in (None, "", "outs: []", "outs:\n- md5: abc\n", json.dumps({"outs": [{}]})):
        if content is not None:
            write_text(root / "data.dvc", content)
        with pytest.raises(VersioningError):
            dvc.pointer(root)
