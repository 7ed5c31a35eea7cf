"""The desk: passwords, sign-ins, open tabs and unfinished work of one server, in a database of its own.

The ledger's chain keeps everything for ever; a password's hash, a session and an autosave must be able to go. Losing
this file costs a new sign-in and new passwords, and no annotation: autosaved masks are files (redraft/desk/saves.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Engine, Float, Integer, MetaData, String, Table, Text, create_engine, event

metadata = MetaData()

# argon2id hash of an account's password; none for accounts that a trusted proxy vouches for.
credential = Table(
    "credential",
    metadata,
    Column("login", String(128), primary_key=True),  # lower case
    Column("account_id", String(64), nullable=False, unique=True),
    Column("password_hash", Text, nullable=True),
    Column("changed_at", Text, nullable=False),
)
# A signed-in browser; the cookie's SHA-256, never the cookie.
web_session = Table(
    "web_session",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    Column("account_id", String(64), nullable=False, index=True),
    Column("csrf", Text, nullable=False),
    Column("signed_in_at", Text, nullable=False),
    Column("seen_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
    Column("identity", Text, nullable=False),  # password, or proxy
)
# Refused sign-ins, by login and by address, for the rate limit.
attempt = Table(
    "attempt",
    metadata,
    Column("attempt_id", Integer, primary_key=True, autoincrement=True),
    Column("login", String(128), nullable=False, index=True),
    Column("address", String(64), nullable=False, index=True),
    Column("at", Text, nullable=False),
)
# The tab that may save an assignment's work; another one takes over by saying so.
tab = Table(
    "tab",
    metadata,
    Column("assignment_id", String(64), primary_key=True),
    Column("sitting", String(64), nullable=False),
    Column("account_id", String(64), nullable=False),
    Column("since", Text, nullable=False),
    Column("seen_at", Text, nullable=False),
)
# Autosaves of an assignment, newest last; `number` grows by one and is what a tab must know to save the next.
autosave = Table(
    "autosave",
    metadata,
    Column("assignment_id", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("sitting", String(64), nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("voxels", Float, nullable=False),
    Column("verdict", String(16), nullable=True),  # what the reader had in mind so far
    Column("at", Text, nullable=False),
)
# Work that could not become the next autosave (another tab was ahead, the lease was over) or that another reader left
# behind: kept until the reader merges or drops it.
offer = Table(
    "offer",
    metadata,
    Column("offer_id", Integer, primary_key=True, autoincrement=True),
    Column("assignment_id", String(64), nullable=False, index=True),  # to whom it is offered
    Column("from_assignment", String(64), nullable=False),
    Column("sitting", String(64), nullable=False),
    Column("why", String(32), nullable=False),  # stale, tab, lease_expired, submitted, left
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("voxels", Float, nullable=False),
    Column("at", Text, nullable=False),
    Column("state", String(16), nullable=False),  # open, merged, dropped
)
# Who looked at which exam's pixels in which sitting: what the ledger was told of already.
viewing = Table(
    "viewing",
    metadata,
    Column("assignment_id", String(64), primary_key=True),
    Column("account_id", String(64), primary_key=True),
    Column("sitting", String(64), primary_key=True),
)


class Desk:
    """The database; `with desk.write() as connection` is one transaction that no other writer shares."""

    def __init__(self, engine: Engine):
        self.engine = engine

    @classmethod
    def open(cls, path: Path) -> Desk:
        """Open the desk of a project (`<project>/.redraft/desk.db`), making it where it is absent; mode 0600."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
        path.chmod(0o600)
        engine = create_engine(f"sqlite:///{path}")

        @event.listens_for(engine, "connect")
        def _connect(connection: sqlite3.Connection, _: Any) -> None:
            connection.isolation_level = None
            connection.execute("PRAGMA busy_timeout=10000")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA secure_delete=ON")

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            writes = connection.get_execution_options().get("desk_writes", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        desk = cls(engine)
        with desk.write() as connection:
            metadata.create_all(connection)
        return desk

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes."""
        with self.engine.connect().execution_options(desk_writes=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that reads one state."""
        with self.engine.connect() as connection, connection.begin():
            yield connection
