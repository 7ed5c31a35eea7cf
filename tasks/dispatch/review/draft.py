"""The draft as it goes to the browser: a mask like any other. Exams that are worked from scratch have none to give."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from redraft.desk.mask import pack
from redraft.errors import UsageError
from redraft.files import write_bytes
from tasks.dispatch.contract import Task
from tasks.dispatch.packages import DRAFT
from tasks.dispatch.review.files import read_known


def draft_mask(package: Path, task: Task, cache: Path) -> Path:
    """The draft as a gzip mask, made once and kept in the cache folder.

    Raises
    ------
    UsageError
        `work.no_draft`: the exam is worked from scratch, whatever lies in the package.
    IntegrityError
        The draft is not the one that was handed out.
    """
    if task.mode != "assisted" or task.draft_sha256 is None:
        raise UsageError("This exam is drawn from scratch: there is no draft.", "Draw.", code="work.no_draft")
    target = cache / f"{task.draft_sha256}.mask.gz"
    if target.is_file():
        return target
    labels = read_known(package / DRAFT, task.draft_sha256, "draft").array
    write_bytes(target, pack(labels.astype(np.uint8)).packed, mode=0o600)
    return target
