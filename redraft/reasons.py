"""Why a reader rejects a draft or sends an exam back, and what follows: one list for pages, backends and the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Reason:
    """One reason.

    Attributes
    ----------
    no_label : bool
        The exam goes back without a segmentation; otherwise the reader draws it anew.
    consequence : str or None
        Of work without a segmentation: `redo` (the exam is worked again, without this draft) or `exclude` (the exam
        leaves the project's pool and test sets). None where a label comes.
    assisted_only : bool
        It speaks of a draft, and exams worked from scratch have none.
    """

    code: str
    words: str
    no_label: bool
    consequence: Literal["redo", "exclude"] | None
    assisted_only: bool = False


REASONS: tuple[Reason, ...] = (
    Reason("draft_unusable", "The draft is of no use; I drew it anew.", False, None, True),
    Reason("draft_unusable_redo", "The draft is of no use; give the exam out again without it.", True, "redo", True),
    Reason("poor_image", "The image is too poor to segment (motion, metal, noise).", True, "exclude"),
    Reason("wrong_anatomy", "The exam does not show what is to be segmented.", True, "exclude"),
    Reason("not_readable", "The exam cannot be read (slices missing, wrong order, wrong patient position).", True,
           "exclude"),
)  # fmt: skip
BY_CODE = {reason.code: reason for reason in REASONS}


def reasons_for(mode: str) -> tuple[Reason, ...]:
    """The reasons that a reader may give in this mode, in the order in which they are offered."""
    return tuple(reason for reason in REASONS if mode == "assisted" or not reason.assisted_only)
