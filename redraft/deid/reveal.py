"""From a pseudonym back to a person: only with the project's keys, and on record before anything is shown."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from redraft.deid.check import CONFIGURED
from redraft.deid.matcher import Matcher
from redraft.errors import StateError, UsageError
from redraft.project import Project

EVENT = "identity.reveal"


def reveal(project: Project, pseudonym: str, *, by: str, reason: str, now: datetime) -> list[dict[str, Any]]:
    """What the vault knows of an exam's, series' or subject's pseudonym; the ledger keeps who asked and why.

    Returns
    -------
    list of dict
        `kind`, `pseudonym` and `identity` of each link record.

    Raises
    ------
    UsageError
        When who or why is missing, or quotes the very identity that is asked for.
    SecurityError
        When the keys at hand are not the project's.
    StateError
        When the vault knows nothing of it. Nothing is recorded then, for nothing was shown.
    """
    if not by.strip() or not reason.strip():
        raise UsageError("Re-identification needs who asks and why.", "Give --by and --reason.")
    names = _names_of(project, pseudonym.strip())
    links = [link for link in project.vault.links() if link["pseudonym"] in names]
    if not links:
        raise StateError(
            "The vault knows nothing of this pseudonym.", "Give an exam's, a series' or a subject's, as in the ledger."
        )
    values = {
        str(value) for link in links for name, value in link["identity"].items()
        if name != CONFIGURED and len(str(value)) >= 4
    }  # fmt: skip
    quotes = Matcher(enumerate(sorted(values)))
    if any(True for text in (by, reason) for _ in quotes.search(text.encode())):
        raise UsageError(
            "Who or why quotes the patient's identity, and both are kept.", "Use pseudonyms in the reason."
        )
    with project.ledger.tx(f"reveal:{by.strip()}", now) as tx:
        tx.event(
            EVENT, {"pseudonym": pseudonym.strip(), "by": by.strip(), "reason": reason.strip(), "identity": "asserted"}
        )
    return links


def _names_of(project: Project, pseudonym: str) -> set[str]:
    """The pseudonym and, for an exam, its series and subject: the vault holds links of these."""
    exam = project.ledger.one("exam", exam_id=pseudonym)
    return {pseudonym} if exam is None else {pseudonym, str(exam["series_id"]), str(exam["subject_id"])}
