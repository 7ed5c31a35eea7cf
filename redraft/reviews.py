"""Second looks at annotations: which wait, deciding them, and opening accepted work again.

Nobody reviews their own work, and only a reviewer reviews. Work that is returned keeps its annotation on record; the
reader's next hand-in is the next revision, and it comes to a reviewer again. All of this is rows; the package goes back
to the reader in the same transaction (app/web/reviews.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from redraft.digest import sha256_json
from redraft.errors import ConflictError, StateError, UsageError
from redraft.ledger import AssignmentState, Ledger, Tx, move_assignment

Why = Literal["soft", "sample", "reopened"]
# What a reviewer may say of work that goes back, in words for the reader.
RETURN_REASONS: dict[str, str] = {
    "border": "A border does not follow the structure; look at it again slice by slice.",
    "incomplete": "Part of a structure is missing.",
    "wrong_structure": "Something is labelled as another structure than it is.",
    "stray": "There are stray voxels or pieces that belong to no structure.",
    "protocol": "It does not follow the protocol; read the structure's text beside the image again.",
    "other": "See the reviewer's remark.",
}


def open_review(
    tx: Tx, annotation_id: str, number: int, why: Why, rules: Sequence[dict[str, Any]], now: datetime
) -> str:
    """Put an annotation before the reviewers; its assignment is moved by the caller. Returns the review's id.

    `rules` are the flags: {rule, message, measured} each. What waits is listed by redraft/queues.py.
    """
    earlier = tx.rows("review", annotation_id=annotation_id)
    review_id = sha256_json([annotation_id, "review", len(earlier) + 1])[:24]
    tx.insert(
        "review",
        {
            "review_id": review_id,
            "annotation_id": annotation_id,
            "round": number,
            "why": why,
            "rules": list(rules),
            "state": "open",
            "account_id": None,
            "reason_code": None,
            "remark_present": False,
            "opened_at": now,
            "decided_at": None,
        },
    )
    return review_id


def reviewer(tx: Tx | Ledger, account_id: str, not_of: Sequence[str]) -> dict[str, Any]:
    """The account, where it may take a second look at work of these readers.

    Raises StateError with code `review.role`, or `review.own_work`.
    """
    row = tx.one("account", account_id=account_id)
    if row is None or row["state"] != "active" or "reviewer" not in row["roles"]:
        raise StateError("This is a reviewer's to decide.", "Ask somebody with the role reviewer.", code="review.role")
    if row["reader_id"] is not None and row["reader_id"] in not_of:
        raise StateError("Nobody reviews their own work.", "Leave it to another reviewer.", code="review.own_work")
    return row


def decide_review(
    tx: Tx, review_id: str, account_id: str, decision: Literal["accept", "return"], *, reason_code: str | None = None,
    remark_present: bool = False, now: datetime,
) -> dict[str, Any]:  # fmt: skip
    """Accept an annotation under review, or return it to its reader.

    Returns
    -------
    dict with `assignment_id`, and `reasons`: sentences for the reader, empty when accepted.

    Raises
    ------
    ConflictError
        Somebody decided it already.
    StateError
        Not a reviewer, or their own work.
    UsageError
        Returned without one of RETURN_REASONS, or `other` without a remark.
    """
    review = tx.get("review", review_id=review_id)
    annotation = tx.get("annotation", annotation_id=review["annotation_id"])
    reviewer(tx, account_id, [annotation["reader_id"]])
    if review["state"] != "open":
        what = f"Review {review_id} was decided already ({review['state']})."
        raise ConflictError(what, "Load the list again.", code="review.decided", retry=False)
    if decision == "return" and (reason_code not in RETURN_REASONS or (reason_code == "other" and not remark_present)):
        raise UsageError(
            "Work goes back with a reason.",
            f"Give one of {', '.join(RETURN_REASONS)}; `other` needs a remark.",
            code="usage.reason",
        )
    accepted = decision == "accept"
    tx.update(
        "review",
        {"review_id": review_id},
        {
            "state": "accepted" if accepted else "returned",
            "account_id": account_id,
            "reason_code": None if accepted else reason_code,
            "remark_present": remark_present,
            "decided_at": now,
        },
    )
    to = AssignmentState.ACCEPTED if accepted else AssignmentState.RETURNED_TO_READER
    move_assignment(tx, annotation["assignment_id"], to)
    reasons = [] if accepted else [RETURN_REASONS[str(reason_code)]]
    return {"assignment_id": annotation["assignment_id"], "reasons": reasons}


def reopen(tx: Tx, annotation_id: str, account_id: str, now: datetime) -> str:
    """Open accepted work again: it counts no more until a reviewer decides. Returns the review's id.

    Models that were trained with it stay as they are; `audit trace` says that it was opened again. The assignment's
    latest revision only.

    Raises StateError: not a reviewer, their own work, or work that is not accepted.
    """
    annotation = tx.get("annotation", annotation_id=annotation_id)
    reviewer(tx, account_id, [annotation["reader_id"]])
    work = tx.get("assignment", assignment_id=annotation["assignment_id"])
    latest = max(tx.rows("annotation", assignment_id=work["assignment_id"]), key=lambda row: row["revision"])
    if work["purpose"] == "quality" or latest["annotation_id"] != annotation_id or work["state"] != "ACCEPTED":
        raise StateError(
            f"Annotation {annotation_id} is no accepted work that counts.", "Only that can be opened again.",
            code="review.not_accepted",
        )  # fmt: skip
    move_assignment(tx, work["assignment_id"], AssignmentState.IN_REVIEW)
    number = max(row["number"] for row in tx.rows("round"))
    tx.event("annotation.reopened", {"annotation_id": annotation_id, "account_id": account_id})
    return open_review(tx, annotation_id, number, "reopened", [], now)


def in_sample(seed: int, assignment_id: str, share: float) -> bool:
    """Whether chance puts an assignment's work before a reviewer; the same whenever it is asked (project's seed)."""
    return int(sha256_json([seed, assignment_id, "review"])[:13], 16) / 16**13 < share
