"""The ledger: one way to write, which writes the row and its audit event in one transaction."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError

from redraft.digest import canonical, sha256_bytes, sha256_json
from redraft.errors import ConflictError, IntegrityError, StateError, StorageError
from redraft.ledger.tables import checked, metadata
from redraft.ledger.values import plain

GENESIS = "0" * 64
HEAD = "0002"


class Tx:
    """One write transaction: what is written comes true together with its audit events, or not at all."""

    def __init__(self, connection: Connection, actor: str, at: datetime):
        self._connection = connection
        self._actor = actor
        self._at = plain(at)
        table = metadata.tables["audit_event"]
        last = connection.execute(select(table.c.seq, table.c.hash).order_by(table.c.seq.desc()).limit(1)).first()
        self._seq: int = last.seq if last else 0
        self._hash: str = last.hash if last else GENESIS
        self.erased = False

    def insert(self, table: str, row: dict[str, Any]) -> None:
        """Insert a row; every column must be given."""
        self.insert_many(table, [row])

    def insert_many(self, table: str, rows: Iterable[dict[str, Any]]) -> None:
        """Insert rows in one statement."""
        target = metadata.tables[table]
        names = {column.name for column in target.c}
        images = []
        for row in rows:
            if set(row) != names:
                raise KeyError(f"{table}: columns {sorted(set(row) ^ names)} are missing or unknown")
            images.append(checked(table, plain(row)))
        if not images:
            return
        self._connection.execute(target.insert(), images)
        self._append_all([(f"{table}.insert", self._payload(table, "insert", image)) for image in images])

    def update(self, table: str, key: dict[str, Any], changes: dict[str, Any]) -> None:
        """Change one row, named by its primary key."""
        target = metadata.tables[table]
        primary = {column.name for column in target.primary_key}
        if set(key) != primary or primary & set(changes):
            raise KeyError(f"{table}: a change names the row by {sorted(primary)} and leaves that alone")
        before = self.get(table, **key)
        if set(changes) - set(before):
            raise KeyError(f"{table}: unknown columns {sorted(set(changes) - set(before))}")
        new = checked(table, plain(changes))
        after = {**before, **new}
        condition = [target.c[name] == plain(value) for name, value in key.items()]
        self._connection.execute(target.update().where(*condition).values(new))
        self._append_all([(f"{table}.update", self._payload(table, "update", after))])

    def erase_identity(self, reader_id: str) -> None:
        """Forget a reader's name. The chain keeps its salted commitment, which proves nothing without the salt."""
        target = metadata.tables["reader_identity"]
        self.get("reader_identity", reader_id=reader_id)
        self._connection.execute(target.delete().where(target.c.reader_id == reader_id))
        payload = {"table": "reader_identity", "op": "delete", "key": {"reader_id": reader_id}, "row": None}
        self._append_all([("reader_identity.delete", payload)])
        self.erased = True

    def add_identity(self, reader_id: str, display_name: str) -> None:
        """Keep a reader's name, apart from everything else."""
        row = {"reader_id": reader_id, "display_name": display_name, "salt": secrets.token_hex(16)}
        self.insert("reader_identity", row)

    def event(self, kind: str, payload: dict[str, Any]) -> None:
        """Append an event that is not a row's change."""
        self._append_all([(kind, plain(payload))])

    def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        """Rows of a table in primary-key order."""
        return _rows(self._connection, table, where)

    def one(self, table: str, **where: Any) -> dict[str, Any] | None:
        """The only row that matches, or None."""
        rows = self.rows(table, **where)
        if len(rows) > 1:
            raise KeyError(f"{table}: {len(rows)} rows match {sorted(where)}")
        return rows[0] if rows else None

    def get(self, table: str, **where: Any) -> dict[str, Any]:
        """The only row that matches. Raises StateError where there is none."""
        row = self.one(table, **where)
        if row is None:
            raise StateError(f"The ledger has no {table} {' '.join(str(v) for v in where.values())}.")
        return row

    def _payload(self, table: str, op: str, image: dict[str, Any]) -> dict[str, Any]:
        key = {column.name: image[column.name] for column in metadata.tables[table].primary_key}
        return {"table": table, "op": op, "key": key, "row": after_image(table, image)}

    def _append_all(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        rows = []
        for kind, payload in events:
            self._seq += 1
            body = {
                "seq": self._seq,
                "at": self._at,
                "actor": self._actor,
                "kind": kind,
                "payload": payload,
                "prev_hash": self._hash,
            }
            self._hash = sha256_bytes(canonical(body))
            rows.append({**body, "hash": self._hash})
        self._connection.execute(metadata.tables["audit_event"].insert(), rows)


def after_image(table: str, row: dict[str, Any]) -> dict[str, Any]:
    """What the chain keeps of a row: all of it, but of a reader's name only a salted commitment."""
    if table == "reader_identity":
        return {"reader_id": row["reader_id"], "commitment": sha256_json([row["salt"], row["display_name"]])}
    return row


class Ledger:
    """The database of record."""

    def __init__(self, engine: Engine):
        self.engine = engine

    @classmethod
    def create(cls, url: str) -> Ledger:
        """Create the schema in an empty database (or bring an older one up to date)."""
        if url.startswith("sqlite:///"):
            path = Path(url.removeprefix("sqlite:///"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600, exist_ok=True)  # before SQLite opens it: its log takes the file's mode
        from redraft.ledger.migrate import upgrade

        ledger = cls(_engine(url))
        with _database_errors():
            upgrade(ledger.engine)
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).chmod(0o600)  # readers' times and decisions are not everybody's
        return ledger

    @classmethod
    def migrate(cls, url: str) -> Ledger:
        """Bring an existing ledger's schema up to this version. StateError where it is absent or newer."""
        _require(url)
        return cls.create(url)

    @classmethod
    def open(cls, url: str) -> Ledger:
        """Open an existing ledger. Raises StateError where it is absent, or its schema is not this version's."""
        _require(url)
        ledger = cls(_engine(url))
        with _database_errors(), ledger.engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                found = "none"
            else:
                found = str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())
        if found != HEAD:
            raise StateError(
                f"The ledger's schema is version {found}, this redraft works with {HEAD}.",
                "Back the ledger up and run `redraft init` on the project to bring it up to date, or use that version.",
            )
        return ledger

    @contextmanager
    def tx(self, actor: str, at: datetime | None = None) -> Iterator[Tx]:
        """A write transaction. Writers queue on the chain's head; raises ConflictError after 30 s of waiting."""
        with _database_errors():
            with self.engine.connect().execution_options(redraft_writes=True) as connection, connection.begin():
                if self.engine.dialect.name == "postgresql":
                    connection.exec_driver_sql("SET LOCAL lock_timeout = '30s'")
                    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7268472)")
                tx = Tx(connection, actor, at or datetime.now(UTC))
                yield tx
            if tx.erased:
                self._scrub()

    def _scrub(self) -> None:
        """Take erased names out of SQLite's write-ahead log too (`secure_delete` has zeroed them in the file)."""
        if self.engine.dialect.name != "sqlite":
            return
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
        if busy:
            raise ConflictError(
                "The identity is erased, but another process still reads the log file that held it.",
                "The log is emptied when the last process closes the ledger: `redraft down`, then any command.",
                retry=False,
            )

    def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        """Rows of a table in primary-key order."""
        with self.engine.connect() as connection:
            return _rows(connection, table, where)

    def one(self, table: str, **where: Any) -> dict[str, Any] | None:
        """The only row that matches, or None."""
        rows = self.rows(table, **where)
        if len(rows) > 1:
            raise KeyError(f"{table}: {len(rows)} rows match {sorted(where)}")
        return rows[0] if rows else None


def _rows(connection: Connection, table: str, where: dict[str, Any]) -> list[dict[str, Any]]:
    target = metadata.tables[table]
    query = select(target).where(*(target.c[name] == plain(value) for name, value in where.items()))
    query = query.order_by(*target.primary_key.columns)
    return [dict(row._mapping) for row in connection.execute(query)]


def _require(url: str) -> None:
    """Raise StateError where an embedded ledger's file is absent: opening would make an empty one."""
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).exists():
        raise StateError(
            f"There is no ledger at {path}.",
            "Run `redraft init` in the project directory (it repairs a half-made project), or restore the backup.",
        )


@contextmanager
def _database_errors() -> Iterator[None]:
    """Database errors as redraft's own, told apart by what can be done about them."""
    try:
        yield
    except DatabaseIntegrityError as error:
        text = str(error.orig)
        if "one_live_round" in text:
            raise ConflictError("Another round is open already.", "See `redraft status`.", retry=False) from error
        raise StateError(f"The ledger refused a row ({text}).", "Report this with the command you ran.") from error
    except DBAPIError as error:
        text = str(error.orig)
        if any(sign in text for sign in ("locked", "busy", "lock timeout")):
            raise ConflictError("The ledger is busy.", "Try again in a moment.") from error
        if any(sign in text for sign in ("full", "disk I/O", "readonly", "unable to open")):
            raise StorageError(
                f"The ledger cannot be written or read ({text}).",
                "Free space, check the folder's permissions, and run the command again.",
                code="storage.full" if "full" in text else None,
            ) from error
        if "not a database" in text or "malformed" in text:
            raise IntegrityError(f"The ledger's file is damaged ({text}).", "Restore its last backup.") from error
        if getattr(error.orig, "sqlstate", None) == "P0001":  # raised by one of our triggers
            raise StateError(f"The ledger refused a row ({text}).", "Report this with the command you ran.") from error
        raise


def _engine(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _connect(connection: sqlite3.Connection, _: Any) -> None:
            connection.isolation_level = None  # transactions are begun below, IMMEDIATE for writers
            connection.execute("PRAGMA busy_timeout=30000")  # first: the switch to WAL itself may have to wait
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA secure_delete=ON")  # an erased name leaves no bytes behind

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            writes = connection.get_execution_options().get("redraft_writes", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
