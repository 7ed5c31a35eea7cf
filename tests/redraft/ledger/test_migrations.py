"""A ledger of the schema before this one is brought up to date with everything it holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect

from redraft.errors import IntegrityError, StateError
from redraft.ledger import AssignmentState, Ledger, move_assignment, verify_checkpoints, verify_ledger
from redraft.ledger.migrate import upgrade
from redraft.ledger.store import _engine
from redraft.ledger.tables import DOMAIN, metadata
from redraft.security.keys import KeyRing

NOW = datetime(2026, 3, 2, tzinfo=UTC)
KEYS = KeyRing.published_demo()


@pytest.fixture
def old(path: Path, fill_tables: Callable[..., None], checkpoint: Callable[..., Any]) -> Path:
    """The file of a ledger of schema 0001 with a row in each of its tables and a signed checkpoint."""
    ledger = Ledger(_engine(f"sqlite:///{path}"))
    upgrade(ledger.engine, "0001")
    there = set(inspect(ledger.engine).get_table_names())
    with ledger.tx("test", NOW) as tx:
        fill_tables(tx, without={table.name for table in DOMAIN} - there)
    checkpoint(ledger, KEYS)
    assert all(ledger.rows(name) for name in there & {table.name for table in DOMAIN})
    ledger.engine.dispose()
    return path


def contents(path: Path) -> dict[str, list[Any]]:
    """Every row of every table, undecoded."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(connection.execute(f'SELECT * FROM "{name}"'), key=repr) for name in tables}


def schema(path: Path) -> dict[str, str]:
    """Every table, index and trigger and the statement that made it, however it is spaced and quoted."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT type || ' ' || name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {name: "".join(sql.replace('"', "").split()) for name, sql in rows}


def test_a_ledger_of_the_first_schema_keeps_every_row(old: Path) -> None:
    """All rows are as they were, to the byte; the chain, its checkpoint and every guard verify."""
    before = contents(old)
    ledger = Ledger.migrate(f"sqlite:///{old}")
    assert verify_ledger(ledger).broken == []
    assert verify_checkpoints(ledger, [KEYS.public_key]).broken == []
    ledger.engine.dispose()
    after = contents(old)
    for name in set(before) - {"alembic_version", "state_transition"}:
        assert after[name] == before[name], name
    assert set(before["state_transition"]) < set(after["state_transition"])
    assert all(after[name] == [] for name in set(after) - set(before))
    assert set(metadata.tables) <= set(after)


def test_an_upgraded_schema_is_a_new_one(old: Path, templates: Path) -> None:
    """Tables, indexes and triggers are the ones that a new ledger gets; nothing half-made is left."""
    Ledger.migrate(f"sqlite:///{old}").engine.dispose()
    assert schema(old) == schema(templates / "empty")


def test_an_upgraded_ledger_takes_the_new_values_and_no_others(old: Path) -> None:
    """What the new schema allows is written and verifies; a value that it does not know is refused as before."""
    ledger = Ledger.migrate(f"sqlite:///{old}")
    with ledger.tx("test", NOW) as tx:
        tx.update("selection", {"selection_id": "se1"}, {"chosen_by": "rework"})
        tx.update("assignment", {"assignment_id": "a1"}, {"purpose": "quality"})
        tx.update("annotation", {"annotation_id": "n1"}, {"state": "rejected"})
        tx.insert("decision", {**tx.rows("decision")[0], "decision_id": "de2", "identity": "policy"})
        move_assignment(tx, "a1", AssignmentState.RETURNED)
        move_assignment(tx, "a1", AssignmentState.IN_REVIEW)
    with pytest.raises(StateError, match="chosen_by_known"), ledger.tx("test", NOW) as tx:
        tx.update("selection", {"selection_id": "se1"}, {"chosen_by": "guess"})
    with pytest.raises(StateError, match="append-only"), ledger.tx("test", NOW) as tx:
        tx.update("decision", {"decision_id": "de1"}, {"reason": "other"})
    assert verify_ledger(ledger).broken == []
    ledger.engine.dispose()


def test_rows_that_refer_to_a_rebuilt_table_still_do(old: Path) -> None:
    """A table that was made anew is referred to as before: its rows cannot go while others name them."""
    Ledger.migrate(f"sqlite:///{old}").engine.dispose()
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            connection.execute("DELETE FROM assignment")


def test_a_migration_that_fails_changes_nothing(old: Path) -> None:
    """A ledger with a row that refers to nothing is refused and left as it was, schema and all."""
    with closing(sqlite3.connect(old, isolation_level=None)) as connection:
        connection.execute("UPDATE annotation SET assignment_id = 'gone'")
    before = schema(old), contents(old)
    with pytest.raises(IntegrityError, match="annotation"):
        Ledger.migrate(f"sqlite:///{old}")
    assert (schema(old), contents(old)) == before


def test_a_migration_runs_once(old: Path) -> None:
    """Bringing a ledger up to date that is so changes nothing."""
    for _ in range(2):
        Ledger.migrate(f"sqlite:///{old}").engine.dispose()
        first = schema(old), contents(old)
    Ledger.migrate(f"sqlite:///{old}").engine.dispose()
    assert (schema(old), contents(old)) == first
