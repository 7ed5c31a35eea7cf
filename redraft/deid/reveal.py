"""From a pseudonym back to a person: only with the project's keys, and on record before anything is shown."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from redraft.accounts import Identity
from redraft.deid.check import CONFIGURED
from redraft.deid.matcher import Matcher
from redraft.errors import SignInError, StateError, UsageError
from redraft.project import Project

EVENT = "identity.reveal"
# Those who run the project, and those who look into it afterwards.
ROLES = ("ops", "auditor")


def reveal(project: Project, pseudonym: str, *, by: Identity, reason: str, now: datetime) -> list[dict[str, Any]]:
    """What the vault knows of an exam's, series' or subject's pseudonym; the ledger keeps who asked and why.

    Returns
    -------
    list of dict
        `kind`, `pseudonym` and `identity` of each link record.

    Raises
    ------
    SignInError
        When the account has neither role.
    UsageError
        When the reason is missing, or quotes the very identity that is asked for.
    SecurityError
        When the keys at hand are not the project's.
    StateError
        When the vault knows nothing of it. Nothing is recorded then, for nothing was shown.
    """
    if not by.may(*ROLES):
        raise SignInError(f"Re-identification needs the role {' or '.join(ROLES)}.", "Ask them.", code="sign_in.role")
    if not reason.strip():
        raise UsageError("Re-identification needs a reason.", "Give --reason.")
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
    if any(True for _ in quotes.search(reason.encode())):
        raise UsageError("The reason quotes the patient's identity, and it is kept.", "Use pseudonyms in the reason.")
    record = {
        "pseudonym": pseudonym.strip(), "by": by.account_id, "reason": reason.strip(), "identity": "authenticated",
    }  # fmt: skip
    with project.ledger.tx(f"reveal:{by.account_id}", now) as tx:
        tx.event(EVENT, record)
    return links


def _names_of(project: Project, pseudonym: str) -> set[str]:
    """The pseudonym and, for an exam, its series and subject: the vault holds links of these."""
    exam = project.ledger.one("exam", exam_id=pseudonym)
    return {pseudonym} if exam is None else {pseudonym, str(exam["series_id"]), str(exam["subject_id"])}
