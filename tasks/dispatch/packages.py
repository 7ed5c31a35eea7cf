"""Work packages: a folder per assignment, made whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from redraft.digest import sha256_file, sha256_json
from redraft.errors import IntegrityError
from redraft.files import sync_directory, write_text
from tasks.dispatch.contract import Task

IMAGE, DRAFT, TASK, LABEL, RESULT = "image.nii.gz", "draft.nii.gz", "task.json", "label.nii.gz", "result.json"
REJECTION = "RETURNED.txt"


def make_package(work: Path, task: Task, image: Path, draft: Path | None) -> str:
    """Write the package of one assignment and return its SHA-256 (over task.json); an existing one is left as it is.

    A from-scratch package never holds a draft. Raises IntegrityError when image or draft are not what the records say.
    """
    if (task.mode == "assisted") != (draft is not None) or (draft is None) != (task.draft_sha256 is None):
        raise IntegrityError(f"Assignment {task.assignment_id} is {task.mode}, and its draft says otherwise.")
    digest = sha256_json(task.model_dump(mode="json"))
    target = work / task.assignment_id
    if (target / TASK).exists():
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
    write_text(partial / TASK, json.dumps(task.model_dump(mode="json"), indent=1) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    os.rename(partial, target)
    sync_directory(work)
    return digest
