from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.dataset import manifest as module
from redraft.dataset.manifest import MANIFEST, read_manifest, role_of, roles_digest, verify_manifest, write_manifest
from redraft.errors import IntegrityError
from redraft.files import write_bytes, write_text


@pytest.fixture
def data(tmp_path: Path, exam_maker: Callable[[Path, int], str]) -> Path:
    for number in range(3):
        exam_maker(tmp_path, number)
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / ".redraft" / "manifest-cache.json"


def test_every_file_is_listed_once_with_its_hash_size_role_and_round(data: Path, cache: Path) -> None:
    """A manifest line says what hashlib and stat say, sorted by path, as canonical JSON."""
    assert write_manifest(data, cache, 7) == 12
    lines = read_manifest(data)
    assert [line["path"] for line in lines] == sorted(line["path"] for line in lines)
    for line in lines:
        content = (data / line["path"]).read_bytes()
        assert line["sha256"] == hashlib.sha256(content).hexdigest()
        assert (line["size"], line["round"]) == (len(content), 7)
    assert {line["role"] for line in lines} == {"image", "exam", "label", "label_meta"}
    first = (data / MANIFEST).read_bytes().splitlines()[0]
    assert first == json.dumps(json.loads(first), sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("exams/ab/ab12/image.nii.gz", "image"),
        ("exams/ab/ab12/exam.json", "exam"),
        ("drafts/ab/ab12/9f.nii.gz", "draft"),
        ("labels/ab/ab12/x.nii.gz", "label"),
        ("labels/ab/ab12/x.json", "label_meta"),
        ("exams/ab/cd12/image.nii.gz", None),
        ("exams/ab/ab12/scan.dcm", None),
        ("notes.txt", None),
        ("labels/ab/ab12/deep/x.json", None),
    ],
)
def test_a_role_is_a_place(path: str, role: str | None) -> None:
    """Only the places of the layout have a role; everything else is foreign."""
    assert role_of(path) == role


def test_unchanged_files_are_not_read_again(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first manifest only new files are hashed, and the bytes of the manifest do not depend on the cache."""
    write_manifest(data, cache, 1)
    hashed: list[Path] = []
    real = module.sha256_file
    monkeypatch.setattr(module, "sha256_file", lambda path: hashed.append(path) or real(path))
    write_bytes(data / "labels" / "00" / "00e0e0e0e0" / "a1.nii.gz", b"second revision")
    write_manifest(data, cache, 2)
    assert [path.name for path in hashed] == ["a1.nii.gz"]
    content = (data / MANIFEST).read_bytes()
    cache.unlink()
    write_manifest(data, cache, 2)
    assert (data / MANIFEST).read_bytes() == content


def test_a_file_keeps_the_round_that_brought_it(data: Path, cache: Path) -> None:
    """The round of a line is that of its first publication."""
    write_manifest(data, cache, 1)
    write_bytes(data / "drafts" / "00" / "00e0e0e0e0" / "m.nii.gz", b"draft")
    write_manifest(data, cache, 2)
    rounds = {line["path"]: line["round"] for line in read_manifest(data)}
    assert rounds.pop("drafts/00/00e0e0e0e0/m.nii.gz") == 2
    assert set(rounds.values()) == {1}


def test_a_broken_cache_costs_time_only(data: Path, cache: Path) -> None:
    """A cache that is cut off or of another form is ignored."""
    write_manifest(data, cache, 1)
    content = (data / MANIFEST).read_bytes()
    for broken in ("{", "[]", '{"exams/00/00e0e0e0e0/image.nii.gz": [1]}'):
        cache.write_text(broken)
        write_manifest(data, cache, 1)
        assert (data / MANIFEST).read_bytes() == content


def test_a_changed_image_or_label_is_never_published(data: Path, cache: Path) -> None:
    """Publishing over an altered label would make the alteration official; it is refused and named."""
    write_manifest(data, cache, 1)
    label = data / "labels" / "01" / "01e0e0e0e0" / "a0.nii.gz"
    write_bytes(label, b"altered")
    with pytest.raises(IntegrityError, match=r"labels/01/01e0e0e0e0/a0\.nii\.gz was changed after round 1"):
        write_manifest(data, cache, 2)


def test_a_lost_file_is_never_dropped_silently_but_an_erased_one_may_go(data: Path, cache: Path) -> None:
    """A file that was published and is gone stops the publication, unless the law took it."""
    write_manifest(data, cache, 1)
    name = "labels/01/01e0e0e0e0/a0.nii.gz"
    (data / name).unlink()
    with pytest.raises(IntegrityError, match="was published and is missing"):
        write_manifest(data, cache, 2)
    assert write_manifest(data, cache, 2, erased={name}) == 11


def test_a_foreign_file_is_refused(data: Path, cache: Path) -> None:
    """Whatever lies in data/ would be pushed to the remote, so a stray file stops the publication."""
    write_text(data / "exams" / "export.csv", "x")
    with pytest.raises(IntegrityError, match=r"data/exams/export\.csv is no file of a dataset"):
        write_manifest(data, cache, 1)


def test_verification_names_every_altered_missing_and_unknown_file(data: Path, cache: Path) -> None:
    """Each kind of damage is found by a full hash, even when size and time are as before."""
    write_manifest(data, cache, 1)
    assert verify_manifest(data) == (12, [])
    image = data / "exams" / "00" / "00e0e0e0e0" / "image.nii.gz"
    before = image.stat()
    content = bytearray(image.read_bytes())
    content[100] ^= 1
    image.write_bytes(content)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    (data / "exams" / "01" / "01e0e0e0e0" / "exam.json").unlink()
    write_bytes(data / "labels" / "02" / "02e0e0e0e0" / "new.nii.gz", b"x")
    write_bytes(data / "labels" / "02" / "02e0e0e0e0" / "stray.nii.gz", b"x")
    checked, problems = verify_manifest(data, known={"labels/02/02e0e0e0e0/new.nii.gz"})
    assert checked == 12
    assert [(p.path, p.why) for p in problems] == [
        ("exams/00/00e0e0e0e0/image.nii.gz", "content differs from its manifest line"),
        ("exams/01/01e0e0e0e0/exam.json", "listed but missing"),
        ("labels/02/02e0e0e0e0/stray.nii.gz", "in no record"),
    ]


def test_tombstones_are_erased_not_broken(data: Path, cache: Path) -> None:
    """A file with a tombstone may be missing, and must be."""
    write_manifest(data, cache, 1)
    name = "labels/01/01e0e0e0e0/a0.nii.gz"
    _, problems = verify_manifest(data, erased={name})
    assert [problem.why for problem in problems] == ["erased by law but still there"]
    (data / name).unlink()
    assert verify_manifest(data, erased={name}) == (12, [])


GOOD = {"path": "exams/aa/aa/exam.json", "role": "exam", "round": 1, "sha256": "0" * 64, "size": 1}


@pytest.mark.parametrize(
    "line",
    [
        b"{", b"7", b"[]", b"\xff\xfe", b"null",
        json.dumps({**GOOD, "more": 1}).encode(),
        json.dumps({**GOOD, "size": "1"}).encode(),
        json.dumps({**GOOD, "path": "../../etc/passwd"}).encode(),
        json.dumps({**GOOD, "path": "/etc/passwd"}).encode(),
        json.dumps(GOOD).encode() + b"\n" + json.dumps(GOOD).encode(),
    ],
)  # fmt: skip
def test_a_broken_manifest_is_named_by_line(tmp_path: Path, line: bytes) -> None:
    """Whatever stands in the manifest, reading it ends in lines or in one typed error."""
    write_bytes(tmp_path / MANIFEST, line + b"\n")
    with pytest.raises(IntegrityError, match=r"Line [12] of"):
        read_manifest(tmp_path)
    checked, problems = verify_manifest(tmp_path)
    assert (checked, [p.path for p in problems]) == (0, [MANIFEST])


def test_a_missing_manifest_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    """Without a manifest nothing is verified, and that is said."""
    assert [problem.path for problem in verify_manifest(tmp_path)[1]] == [MANIFEST]


ENTRY = st.fixed_dictionaries({key: st.text(max_size=4) for key in ("exam", "image", "annotation", "split")})


@given(st.lists(ENTRY, max_size=6), st.randoms())
def test_the_identity_of_what_a_step_reads_ignores_order(entries: list[dict[str, str]], rng) -> None:  # type: ignore[no-untyped-def]
    """The same entries in any order are the same dataset; one more entry is another."""
    shuffled = list(entries)
    rng.shuffle(shuffled)
    assert roles_digest(entries) == roles_digest(shuffled)
    extra = {"exam": "zzzzz", "image": "", "annotation": "", "split": ""}
    assert roles_digest([*entries, extra]) != roles_digest(entries)
