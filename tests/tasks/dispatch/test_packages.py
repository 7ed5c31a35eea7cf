"""Work packages: what is in them, what never is, and that they are made whole or not at all."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pytest
from pydantic import ValidationError

from redraft.digest import sha256_file, sha256_json
from redraft.errors import IntegrityError
from redraft.volumes import Volume, read_volume, write_volume
from tasks.dispatch.contract import Result, Task, TaskStructure
from tasks.dispatch.packages import make_package

AFFINE = np.diag([-1.5, 2.0, 3.0, 1.0])
KEYS = {
    "schema_version",
    "assignment_id",
    "exam_id",
    "round",
    "purpose",
    "mode",
    "reader_id",
    "structures",
    "image_sha256",
    "draft_sha256",
    "token",
    "instructions",
}
ALWAYS = {
    "image.nii.gz",
    "task.json",
    "README.txt",
    "result.template.json",
    "labels.ctbl",
    "labels.label.txt",
    "labels.mitklabel.json",
}
DRAFTS = {"draft.nii.gz", "draft.seg.nrrd", "draft.mitklabel.json"}  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """An image and a draft of it."""
    image, draft = tmp_path / "store" / "image.nii.gz", tmp_path / "store" / "d.nii.gz"
    write_volume(image, Volume(np.arange(480, dtype=np.int16).reshape(8, 10, 6), AFFINE))
    write_volume(draft, Volume((np.arange(480).reshape(8, 10, 6) > 400).astype(np.uint8), AFFINE))
    return image, draft


def task(files: tuple[Path, Path], mode: Literal["assisted", "from_scratch"]) -> Task:
    return Task(
        assignment_id="a1", exam_id="e1", round=1, purpose="training", mode=mode, reader_id="reader-1",
        structures=(TaskStructure(name="kidney", value=1, kind="organ"),), image_sha256=sha256_file(files[0]),
        draft_sha256=sha256_file(files[1]) if mode == "assisted" else None,
    )  # fmt: skip


def test_an_assisted_package_holds_image_draft_and_task(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Image and draft byte for byte what the records say, what tools need, and the digest of what task.json says."""
    work = task(files, "assisted")
    digest = make_package(tmp_path / "work", work, *files)
    folder = tmp_path / "work" / "a1"
    assert {p.name for p in folder.iterdir()} == ALWAYS | DRAFTS
    assert sha256_file(folder / "image.nii.gz") == work.image_sha256
    assert sha256_file(folder / "draft.nii.gz") == work.draft_sha256
    content = json.loads((folder / "task.json").read_text())
    assert set(content) == KEYS and Task.model_validate(content) == work
    assert digest == sha256_json(content)


def test_a_package_from_scratch_holds_no_draft(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Neither a draft nor its hash; and asking for one with a draft, or for an assisted one without, is refused."""
    make_package(tmp_path / "work", task(files, "from_scratch"), files[0], None)
    folder = tmp_path / "work" / "a1"
    assert {p.name for p in folder.iterdir()} == ALWAYS
    assert not any(np.count_nonzero(read_volume(p).array != read_volume(files[0]).array) for p in folder.glob("*.nii*"))
    assert sha256_file(files[1]) not in (folder / "task.json").read_text()
    with pytest.raises(IntegrityError):
        make_package(tmp_path / "other", task(files, "from_scratch"), *files)
    with pytest.raises(IntegrityError):
        named = task(files, "from_scratch").model_copy(update={"draft_sha256": sha256_file(files[1])})
        make_package(tmp_path / "other", named, *files)
    with pytest.raises(IntegrityError):
        make_package(tmp_path / "other", task(files, "assisted"), files[0], None)
    assert not (tmp_path / "other").exists()


def test_nothing_of_the_reader_can_reach_the_data_set(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Packages hold copies: writing into them leaves the stored image as it was, hard links and links included."""
    before = sha256_file(files[0])
    make_package(tmp_path / "work", task(files, "assisted"), *files)
    for name in ("image.nii.gz", "draft.nii.gz"):
        path = tmp_path / "work" / "a1" / name
        assert not path.is_symlink() and path.stat().st_nlink == 1
        path.write_bytes(b"scribble")
    assert sha256_file(files[0]) == before


def test_headers_carry_no_text(files: tuple[Path, Path], tmp_path: Path) -> None:
    """The NIfTI header's free-text fields and extensions are empty, and the gzip header has no name and no time."""
    make_package(tmp_path / "work", task(files, "assisted"), *files)
    for name in ("image.nii.gz", "draft.nii.gz"):
        path = tmp_path / "work" / "a1" / name
        header = nib.load(path).header  # type: ignore[attr-defined]
        assert not any(bytes(header[field].tobytes()).strip(b"\0") for field in ("descrip", "aux_file", "intent_name"))
        assert not bytes(header["db_name"].tobytes()).strip(b"\0") and len(header.extensions) == 0
        raw = path.read_bytes()
        assert raw[3] & 0b1000 == 0 and raw[4:8] == bytes(4)


def test_a_package_that_is_there_is_left_alone(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Dispatching again after a crash keeps the reader's work and returns the same digest."""
    first = make_package(tmp_path / "work", task(files, "assisted"), *files)
    label = tmp_path / "work" / "a1" / "label.nii.gz"
    label.write_bytes(b"half a day of work")
    assert make_package(tmp_path / "work", task(files, "assisted"), *files) == first
    assert label.read_bytes() == b"half a day of work"


def test_handed_out_again_the_package_knows_its_new_token(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Another attempt changes task.json and the template; what the reader has drawn so far stays."""
    work = task(files, "assisted").model_copy(update={"token": "first"})
    first = make_package(tmp_path / "work", work, *files)
    folder = tmp_path / "work" / "a1"
    (folder / "label.nii.gz").write_bytes(b"half a day of work")
    again = work.model_copy(update={"token": "second"})
    assert make_package(tmp_path / "work", again, *files) == sha256_json(again.model_dump(mode="json")) != first
    assert Task.model_validate(json.loads((folder / "task.json").read_text())) == again
    assert json.loads((folder / "result.template.json").read_text())["token"] == "second"
    assert (folder / "label.nii.gz").read_bytes() == b"half a day of work"


@pytest.mark.parametrize("mode", ["assisted", "from_scratch"])
def test_the_template_is_a_result_once_the_reader_has_answered(
    files: tuple[Path, Path], tmp_path: Path, mode: Literal["assisted", "from_scratch"]
) -> None:
    """Token and names stand in it; what only the reader knows is missing, and without it nothing is taken in."""
    work = task(files, mode).model_copy(update={"token": "t0ken"})
    make_package(tmp_path / "work", work, files[0], files[1] if mode == "assisted" else None)
    content = json.loads((tmp_path / "work" / "a1" / "result.template.json").read_text())
    with pytest.raises(ValidationError):
        Result.model_validate(content)
    verdict = "correct" if mode == "assisted" else "scratch"
    answered = content | {"verdict": verdict, "minutes": {"kidney": {"active": 4.5}}}
    result = Result.model_validate(answered)
    assert (result.assignment_id, result.reader_id, result.token) == ("a1", "reader-1", "t0ken")
    assert set(content["minutes"]) == {"kidney", "exam"} and result.origin == "typed"


def test_the_readme_names_files_that_are_there(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Every file that the text tells to open lies in the package; the drafts only where there is one."""
    for mode, draft in (("assisted", files[1]), ("from_scratch", None)):
        make_package(tmp_path / mode, task(files, mode), files[0], draft)  # type: ignore[arg-type]
        folder = tmp_path / mode / "a1"
        text = (folder / "README.txt").read_text()
        named = set(re.findall(r"[a-z]+\.(?:nii\.gz|seg\.nrrd|ctbl|label\.txt|mitklabel\.json|template\.json)", text))
        made = {"label.nii.gz", "label.seg.nrrd"}
        assert named - made == {n for n in named - made if (folder / n).is_file()}
        assert ("draft.nii.gz" in text) == (draft is not None) and "kidney" in text


def test_what_a_crash_left_is_replaced(files: tuple[Path, Path], tmp_path: Path) -> None:
    """A partial folder of an interrupted dispatch neither counts nor stays."""
    partial = tmp_path / "work" / ".partial-a1"
    partial.mkdir(parents=True)
    (partial / "draft.nii.gz").write_bytes(b"of another time")
    make_package(tmp_path / "work", task(files, "from_scratch"), files[0], None)
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["a1"]
    assert not (tmp_path / "work" / "a1" / "draft.nii.gz").exists()


@pytest.mark.parametrize("which", [0, 1])
def test_altered_bytes_are_never_handed_out(files: tuple[Path, Path], tmp_path: Path, which: int) -> None:
    """An image or a draft that is not what its record says stops the package, and nothing is left behind."""
    work = task(files, "assisted")
    content = bytearray(files[which].read_bytes())
    content[-1] ^= 1
    files[which].write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match="e1"):
        make_package(tmp_path / "work", work, *files)
    assert not (tmp_path / "work" / "a1").exists()
