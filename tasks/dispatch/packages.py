"""Work packages: a folder per assignment, made whole or not at all; the same for every backend."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from redraft.config.schema import Structure, StructureKind
from redraft.digest import sha256_file, sha256_json
from redraft.errors import IntegrityError, ReadError
from redraft.files import sync_directory, write_text
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.nrrd_file import write_nrrd
from redraft.segmentation.origin import Origin
from redraft.volumes import read_volume
from tasks.dispatch.colour_tables import tables
from tasks.dispatch.contract import Task
from tasks.dispatch.instructions import DRAFT_NRRD, README, TEMPLATE, readme, template
from tasks.dispatch.seg_package import write_draft, write_series

IMAGE, DRAFT, TASK, LABEL, RESULT = "image.nii.gz", "draft.nii.gz", "task.json", "label.nii.gz", "result.json"
REJECTION = "RETURNED.txt"


@dataclass(frozen=True)
class Tools:
    """What a package holds for readers' tools beside image, draft and task.

    Parameters
    ----------
    structures : sequence of Structure
        In the order of project.yaml, with their codes; names and values of task.json alone when empty.
    exam : ExamGeometry, optional
        The exam's record; its image's own grid when omitted. Needed with `dicom`.
    dicom : bool
        Add the image as DICOM series and the draft as DICOM SEG (dispatch.package: seg).
    origin : Origin, optional
        Where the draft came from; needed with `dicom` and a draft.
    work_code : str, optional
        Of work that is done in a PACS.
    notes : sequence of str
        What readers are told of the project's drafts.
    """

    structures: Sequence[Structure] = ()
    exam: ExamGeometry | None = None
    dicom: bool = False
    origin: Origin | None = None
    work_code: str | None = None
    notes: Sequence[str] = ()


def make_package(work: Path, task: Task, image: Path, draft: Path | None, tools: Tools | None = None) -> str:
    """Write the package of one assignment and return its SHA-256 (over task.json).

    One that is there keeps what its reader did; only what says whose it is (token, attempt) is written anew where it
    changed. A from-scratch package never holds a draft in any form.

    Raises
    ------
    IntegrityError
        Image or draft are not what the records say.
    UsageError
        DICOM is wanted, and a structure has no code.
    """
    if (task.mode == "assisted") != (draft is not None) or (draft is None) != (task.draft_sha256 is None):
        raise IntegrityError(f"Assignment {task.assignment_id} is {task.mode}, and its draft says otherwise.")
    tools = tools or Tools()
    structures = tools.structures or [
        Structure(name=s.name, value=s.value, kind=StructureKind(s.kind), protocol=s.protocol) for s in task.structures
    ]
    content = task.model_dump(mode="json")
    digest = sha256_json(content)
    target = work / task.assignment_id
    if (target / TASK).exists():
        if _is_other(target / TASK, content):
            # task.json last: without the rest of it a crash leaves the old one, and the next dispatch mends it.
            write_text(target / TEMPLATE, template(task))
            write_text(target / TASK, _text(content))
        return digest
    for path, wanted in ((image, task.image_sha256), (draft, task.draft_sha256)):
        if path is not None and sha256_file(path) != wanted:
            raise IntegrityError(
                f"Exam {task.exam_id}: {path.name} is not what its record says.", "Run `redraft audit verify`."
            )
    partial = work / f".partial-{task.assignment_id}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shutil.copyfile(image, partial / IMAGE)  # a copy: no reader's tool can reach the data set through it
    if draft is not None:
        shutil.copyfile(draft, partial / DRAFT)
    without_dicom = _for_tools(partial, task, structures, tools)
    has_dicom = tools.dicom and without_dicom is None
    text = readme(task, structures, dicom=has_dicom, no_dicom=without_dicom, work_code=tools.work_code,
                  notes=tools.notes)  # fmt: skip
    write_text(partial / README, text)
    write_text(partial / TEMPLATE, template(task))
    write_text(partial / TASK, _text(content))
    shutil.rmtree(target, ignore_errors=True)
    os.rename(partial, target)
    sync_directory(work)
    return digest


def _for_tools(folder: Path, task: Task, structures: Sequence[Structure], tools: Tools) -> str | None:
    """Colour tables, the draft for 3D Slicer, DICOM; why there is no DICOM where it was wanted and is not possible."""
    drafted = task.mode == "assisted"
    for name, text in tables(structures, DRAFT if drafted else None).items():
        write_text(folder / name, text)
    if not (drafted or tools.dicom):
        return None
    image = read_volume(folder / IMAGE)
    exam = tools.exam or ExamGeometry.of_image(task.exam_id, image)
    labels = np.rint(read_volume(folder / DRAFT).array).astype(np.uint8) if drafted else None
    if labels is not None:
        write_nrrd(folder / DRAFT_NRRD, labels, exam, structures)
    if not tools.dicom:
        return None
    try:
        write_series(folder, image, exam)
    except ReadError as error:  # of this exam: the others get theirs
        return str(error)
    if labels is not None:
        if tools.origin is None:
            raise ValueError("a draft as DICOM needs its origin")
        write_draft(folder, labels, exam, structures, tools.origin)
    return None


def _is_other(path: Path, content: dict[str, object]) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) != content)
    except (OSError, ValueError, RecursionError):
        return True


def _text(content: dict[str, object]) -> str:
    return json.dumps(content, indent=1) + "\n"
