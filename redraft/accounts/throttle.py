"""Refused sign-ins, counted by login and by address: after so many, further ones wait."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, func, insert, select

from redraft.desk.store import Desk, attempt
from redraft.ledger.values import plain

WINDOW = timedelta(minutes=15)


class Turn(NamedTuple):
    """Whether a sign-in may be tried; if not, seconds to wait, and whether this refusal is the first of its kind."""

    allowed: bool
    wait_seconds: int = 0
    first: bool = False
    attempt_id: int | None = None


# Many readers sit behind one address, a hospital's or a proxy's: it may mistype as much as so many of them.
SHARED = 5


def take(desk: Desk, login_tag: str, address: str, *, limit: int, now: datetime) -> Turn:
    """Count an attempt before its password is looked at, so that attempts side by side are counted too.

    `login_tag` stands for what was typed as login (it may be a password in the wrong field, so it is not kept).
    """
    since = plain(now - WINDOW)
    with desk.write() as connection:
        connection.execute(delete(attempt).where(attempt.c.at <= since))
        counts, oldest = [], []
        for column, value, share in ((attempt.c.login, login_tag, 1), (attempt.c.address, address, SHARED)):
            query = select(func.count(), func.min(attempt.c.at)).where(column == value)
            count, first_at = connection.execute(query).one()
            counts.append(count / share)  # in units of the limit
            if count >= limit * share:
                oldest.append(datetime.fromisoformat(first_at))
        row = {"login": login_tag, "address": address, "at": plain(now)}
        if max(counts) < limit:
            done = connection.execute(insert(attempt).values(row))
            return Turn(True, attempt_id=done.inserted_primary_key[0])  # type: ignore[index]
        first = max(counts) == limit
        if first:  # one more row, so that the record says once that attempts are refused unseen, not each time
            connection.execute(insert(attempt).values(row))
    wait = max((at + WINDOW - now).total_seconds() for at in oldest)
    return Turn(False, max(1, int(wait) + 1), first)


def forgive(desk: Desk, login_tag: str, attempt_id: int | None) -> None:
    """After the right password: what was mistyped before counts no longer. An address's other attempts stay."""
    with desk.write() as connection:
        connection.execute(delete(attempt).where((attempt.c.login == login_tag) | (attempt.c.attempt_id == attempt_id)))
