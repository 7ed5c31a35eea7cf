"""Handing in: the package gets its label and, last, its signed result.json; from then on it is finished work.

Doing it again after a crash, or sending it twice, comes to the same package. What the reader says is checked against
what was drawn: whether a draft was accepted or corrected is decided by its voxels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from redraft.digest import sha256_file
from redraft.errors import ConflictError, IntegrityError, UsageError
from redraft.files import write_text
from redraft.reasons import BY_CODE, reasons_for
from redraft.security.keys import KeyRing
from redraft.signing import same_token, sign_result, token, verify_result
from redraft.volumes import Volume, read_volume, write_volume
from tasks.dispatch.contract import Minutes, Result, Task
from tasks.dispatch.packages import DRAFT, IMAGE, LABEL, RESULT
from tasks.dispatch.review.files import read_known

Verdict = Literal["accept", "correct", "reject", "scratch"]
MAX_REMARK = 4000


@dataclass(frozen=True)
class Said:
    """What the reader says of the work."""

    verdict: Verdict
    reason_code: str | None = None
    remark: str | None = None
    no_label: bool = False


def hand_in(
    package: Path, task: Task, said: Said, labels: NDArray[np.uint8] | None, *, keys: KeyRing, attempt: int,
    minutes: Callable[[], Mapping[str, Mapping[str, float]]],
) -> Result:  # fmt: skip
    """Write label.nii.gz and result.json into the package; returns the result as it lies there.

    Parameters
    ----------
    labels : uint8, shape (I, J, K), or None
        What was drawn; None where nothing was saved (a draft that is accepted as it is) or no label is wanted.
    minutes
        Called once, when everything else is known to be right: `{structure or "exam": {active, idle, away}}`.

    Raises
    ------
    UsageError
        `work.verdict`, `work.reason`, `work.remark`, `work.nothing_drawn`: what was said does not fit.
    ConflictError
        `work.submitted`: it was handed in before, with something else.
    IntegrityError
        The package's draft or image is not what was handed out.
    """
    check_words(task, said)
    draft = None
    if task.mode == "assisted":
        draft = read_known(package / DRAFT, task.draft_sha256 or "", "draft").array.astype(np.uint8)
    if said.no_label:
        labels = None
    elif labels is None:
        labels = draft
        if labels is None or said.verdict == "reject":
            raise UsageError(
                "Nothing was drawn yet.", "Draw first, or give a reason for which no drawing is needed.",
                code="work.nothing_drawn",
            )  # fmt: skip
    verdict, changed = _decide(task, said, labels, draft)
    before = handed_in(package, task, keys, attempt)
    if before is not None:
        if not _same(before, said, verdict, labels, package):
            raise ConflictError(
                "This exam was handed in already, with something else.", "A reviewer can send it back to you.",
                code="work.submitted", retry=False,
            )  # fmt: skip
        return before
    (package / RESULT).unlink(missing_ok=True)  # one of an earlier attempt
    label = package / LABEL
    if labels is None:
        label.unlink(missing_ok=True)
    else:
        write_volume(label, Volume(np.asfortranarray(labels), _affine(package, labels.shape)))
    result = Result(
        assignment_id=task.assignment_id, reader_id=task.reader_id, verdict=verdict,
        reason_code=said.reason_code if verdict == "reject" else None, remark=said.remark or None,
        no_label=said.no_label, token=token(keys, task.assignment_id, task.reader_id, attempt),
        minutes={name: Minutes(**values) for name, values in minutes().items()}, origin="measured",
        voxels_changed=changed,
    )  # fmt: skip
    sha256 = None if labels is None else sha256_file(label)
    signature = sign_result(keys, result.model_dump(mode="json"), sha256)
    result = result.model_copy(update={"signature": signature})
    write_text(package / RESULT, json.dumps(result.model_dump(mode="json"), indent=1) + "\n")
    return result


def handed_in(package: Path, task: Task, keys: KeyRing, attempt: int) -> Result | None:
    """The result that lies in the package, where it is this attempt's and ours; None otherwise."""
    try:
        result = Result.model_validate(json.loads((package / RESULT).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    if not same_token(result.token, token(keys, task.assignment_id, task.reader_id, attempt)):
        return None
    label = package / LABEL
    if not result.no_label and not label.is_file():
        return None
    sha256 = None if result.no_label else sha256_file(label)
    return result if verify_result(keys, result.model_dump(mode="json"), sha256) else None


def check_words(task: Task, said: Said) -> None:
    """Verdict, reason and remark fit the task and one another. Raises UsageError."""
    if said.remark and len(said.remark) > MAX_REMARK:
        raise UsageError(f"The remark is longer than {MAX_REMARK} characters.", "Shorten it.", code="work.remark")
    if said.remark and any("\ud800" <= letter <= "\udfff" for letter in said.remark):
        what = "The remark holds half a character, which cannot be stored."
        raise UsageError(what, "Type it again.", code="work.remark")
    if said.verdict == "reject":
        reason = BY_CODE.get(said.reason_code or "")
        if reason is None or reason not in reasons_for(task.mode):
            raise UsageError("The reason is missing or none of the listed ones.", "Choose one.", code="work.reason")
        if reason.no_label != said.no_label:
            needs = "no drawing goes with it" if reason.no_label else "a drawing is needed"
            raise UsageError(f"With this reason {needs}.", "Choose the reason again.", code="work.reason")
        if task.mode == "from_scratch" and not said.no_label:
            raise UsageError("There is no draft to reject.", "Save what you drew instead.", code="work.verdict")
    elif said.no_label:
        raise UsageError("Without a drawing an exam can only be sent back.", "Choose a reason.", code="work.verdict")


def _decide(
    task: Task, said: Said, labels: NDArray[np.uint8] | None, draft: NDArray[np.uint8] | None
) -> tuple[Verdict, int | None]:
    """The verdict that stands, and how many voxels differ from the draft."""
    if labels is None:
        return "reject", None
    if draft is None:
        return "scratch", None
    if draft.shape != labels.shape:
        raise IntegrityError("The draft of this work package is on another grid than its image.")
    changed = int(np.count_nonzero(draft != labels))
    if said.verdict == "reject":
        return "reject", changed
    return ("correct" if changed else "accept"), changed


def _same(before: Result, said: Said, verdict: Verdict, labels: NDArray[np.uint8] | None, package: Path) -> bool:
    reason = said.reason_code if verdict == "reject" else None
    told = (before.verdict, before.reason_code, before.remark, before.no_label)
    if told != (verdict, reason, said.remark or None, said.no_label):
        return False
    return labels is None or bool(np.array_equal(read_volume(package / LABEL).array, labels))


def _affine(package: Path, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The image's affine, to the last digit."""
    image: Any = nib.load(package / IMAGE)
    if tuple(image.shape[:3]) != shape:
        raise IntegrityError("What was drawn is on another grid than the image of this work package.")
    return np.asarray(image.affine, dtype=np.float64)
