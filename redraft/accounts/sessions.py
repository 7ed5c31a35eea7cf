"""Sessions of signed-in browsers: a random cookie, of which only the SHA-256 is kept; both ends of its life."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import DBAPIError

from redraft.desk.store import Desk, web_session
from redraft.ledger.values import plain

# `seen_at` is written this seldom: a write per request would be a disk flush per request.
SEEN_SECONDS = 30.0


@dataclass(frozen=True)
class Session:
    """A session that holds. `identity` is `password` or `proxy`."""

    account_id: str
    csrf: str
    identity: str


def begin(desk: Desk, account_id: str, identity: str, *, now: datetime, hours: float) -> tuple[str, Session]:
    """Begin a session; returns its cookie (256 random bits) and what is known by it."""
    token, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    with desk.write() as connection:
        connection.execute(delete(web_session).where(web_session.c.expires_at <= plain(now)))
        connection.execute(
            insert(web_session).values(
                token_sha256=_sha256(token),
                account_id=account_id,
                csrf=csrf,
                signed_in_at=plain(now),
                seen_at=plain(now),
                expires_at=plain(now + timedelta(hours=hours)),
                identity=identity,
            )
        )
    return token, Session(account_id, csrf, identity)


def find(desk: Desk, token: str, *, now: datetime, idle_minutes: float) -> Session | None:
    """The session of a cookie, or None where it ended, expired, or was idle too long."""
    key = _sha256(token)
    with desk.read() as connection:
        row = connection.execute(select(web_session).where(web_session.c.token_sha256 == key)).first()
    if row is None:
        return None
    seen = datetime.fromisoformat(row.seen_at)
    if now >= datetime.fromisoformat(row.expires_at) or now - seen >= timedelta(minutes=idle_minutes):
        end(desk, token)
        return None
    if (now - seen).total_seconds() >= min(SEEN_SECONDS, idle_minutes * 15):
        # A full disk or a busy desk must not sign people out: they may still read, and be told what is wrong.
        with suppress(DBAPIError), desk.write() as connection:
            connection.execute(update(web_session).where(web_session.c.token_sha256 == key).values(seen_at=plain(now)))
    return Session(row.account_id, row.csrf, row.identity)


def end(desk: Desk, token: str) -> None:
    """End the session of a cookie; nothing where there is none."""
    with desk.write() as connection:
        connection.execute(delete(web_session).where(web_session.c.token_sha256 == _sha256(token)))


def end_all(connection: Connection, account_id: str) -> None:
    """End every session of an account, in the caller's transaction."""
    connection.execute(delete(web_session).where(web_session.c.account_id == account_id))


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
