"""Any change made past redraft is found and named."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redraft.digest import canonical, sha256_bytes
from redraft.ledger import Ledger, verify_checkpoints, verify_ledger
from redraft.ledger.tables import metadata
from redraft.ledger.triggers import names
from redraft.security.keys import KeyRing

NOW = datetime(2026, 3, 2, tzinfo=UTC)
TRUSTED = [KeyRing.published_demo().public_key]
CELLS = [(table.name, column.name) for table in metadata.sorted_tables for column in table.c]


def raw(path: Path, *statements: str | tuple[str, tuple[Any, ...]], guards: bool = False) -> None:
    """Change a ledger's file as someone with a SQLite shell would: no foreign keys, CHECKs or triggers in the way."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        kept = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in kept if not guards else []:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            if isinstance(statement, tuple):
                connection.execute(*statement)
            else:
                connection.execute(statement)
        for _, sql in kept if not guards else []:
            connection.execute(sql)  # put back, so that only the cell tells


def broken(path: Path) -> set[tuple[str, str]]:
    ledger = Ledger.open(f"sqlite:///{path}")
    report = verify_ledger(ledger)
    ledger.engine.dispose()
    return {(item.kind, item.record) for item in report.broken}


@pytest.fixture
def copy(ledger: Ledger, path: Path) -> Iterator[Callable[[], Path]]:
    """Fresh copies of the filled ledger's file."""
    ledger.engine.dispose()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        target = Path(folder) / "copy.db"

        def make() -> Path:
            for leftover in target.parent.iterdir():
                leftover.unlink()
            shutil.copy(path, target)
            return target

        yield make


def test_an_untouched_ledger_is_whole(ledger: Ledger) -> None:
    """Nothing is broken, and every table, trigger and transition was looked at."""
    report = verify_ledger(ledger)
    assert report.broken == []
    assert set(report.checked) == {*metadata.tables, "trigger"}
    assert all(report.checked.values())


@pytest.mark.parametrize(("table", "column"), CELLS, ids=[".".join(cell) for cell in CELLS])
def test_every_column_of_every_table_is_vouched_for(copy: Any, table: str, column: str) -> None:
    """Another value in any one cell is found, and the record is named by table and key."""
    path = copy()
    with closing(sqlite3.connect(path)) as connection:
        rowid, value = connection.execute(f'SELECT rowid, "{column}" FROM "{table}" ORDER BY rowid LIMIT 1').fetchone()
    other = "altered" if value is None or isinstance(value, str) else value + 1000
    check_cell(path, table, column, rowid, other)


def check_cell(path: Path, table: str, column: str, rowid: int, other: Any) -> None:
    """Set one cell and require that its record is named."""
    primary = [c.name for c in metadata.tables[table].primary_key]
    with closing(sqlite3.connect(path)) as connection:
        key = connection.execute(f'SELECT {", ".join(primary)} FROM "{table}" WHERE rowid = ?', (rowid,)).fetchone()
    raw(path, (f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (other, rowid)))
    found = broken(path)
    if table == "state_transition":
        assert "state_transition" in {kind for kind, _ in found}
    elif table == "audit_event" and column == "seq":
        assert "audit_event" in {kind for kind, _ in found}
    else:
        assert (table, "/".join(str(part) for part in key)) in found
        # One altered cell does not drown in a list of other records, unless it took its key from other rows.
        assert len(found) <= 3


VALUES = st.one_of(
    st.none(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False), st.text(max_size=12), st.binary(max_size=6),
    st.sampled_from([0, 1, 2, "1", "true", "{}", "[]", "null", " {}", "😀", "1.0"]),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_single_cell_change_is_found_and_named(copy: Any, data: st.DataObject) -> None:
    """Whatever a cell is set to (another type, bytes, NULL, equal JSON written otherwise), its record is named."""
    path = copy()
    table, column = data.draw(st.sampled_from(CELLS))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        rowid, value = data.draw(
            st.sampled_from(connection.execute(f'SELECT rowid, "{column}" FROM "{table}"').fetchall())
        )
        options = [VALUES]
        if isinstance(value, str) and value[:1] in ("{", "["):
            options.append(st.just(json.dumps(json.loads(value), indent=1)))  # the same JSON in other bytes
        other = data.draw(st.one_of(*options))
        if not changes(connection, table, column, rowid, other):
            return
    check_cell(path, table, column, rowid, other)


def changes(connection: sqlite3.Connection, table: str, column: str, rowid: int, other: Any) -> bool:
    """Whether SQLite would store another cell: it may refuse (NOT NULL, UNIQUE) or convert to what was there."""
    cell = f'SELECT "{column}", typeof("{column}") FROM "{table}" WHERE rowid = ?'
    before = connection.execute(cell, (rowid,)).fetchone()
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("BEGIN")
    try:
        for name in names():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (other, rowid))
        moved = other if column in ("seq", "number") else rowid  # these are the rowid themselves
        return bool(connection.execute(cell, (moved,)).fetchone() != before)
    except sqlite3.IntegrityError:
        return False
    finally:
        connection.execute("ROLLBACK")


@pytest.mark.parametrize("table", [t.name for t in metadata.sorted_tables if t.name != "audit_event"])
def test_a_removed_and_an_added_row_are_named(copy: Any, table: str) -> None:
    """Rows that vanish or appear without an event are named."""
    path = copy()
    raw(path, f'DELETE FROM "{table}"')
    assert table in {kind for kind, _ in broken(path)}
    path = copy()
    primary = next(iter(metadata.tables[table].primary_key)).name
    forged = "99" if primary == "number" else "'forged'"
    # What would break a UNIQUE otherwise, which no pragma switches off.
    chosen = {primary: forged, ("exam", "series_id"): "'x'", ("draft", "model_digest"): "'x'"}
    chosen |= {("selection", "round"): "2", ("round", "state"): "'HELD'"}
    chosen |= {("time_batch", "sitting"): "'x'", ("look_batch", "sitting"): "'x'"}
    order = [c.name for c in metadata.tables[table].c]
    columns = ", ".join(chosen.get(name, chosen.get((table, name), f'"{name}"')) for name in order)
    raw(path, f'INSERT INTO "{table}" SELECT {columns} FROM "{table}" LIMIT 1')
    assert any(kind == table and forged.strip("'") in record for kind, record in broken(path))


def test_a_removed_event_is_named_once(copy: Any) -> None:
    """A gap in the chain is one finding, at the first event after it; the row it spoke of is another."""
    path = copy()
    raw(path, "DELETE FROM audit_event WHERE seq = 2")
    assert broken(path) == {("audit_event", "3"), ("subject", "se1")}


def test_an_altered_event_does_not_blame_the_rows(copy: Any) -> None:
    """An event with another actor is named, and nothing else is."""
    path = copy()
    raw(path, "UPDATE audit_event SET actor = 'x' WHERE seq = 2")
    assert broken(path) == {("audit_event", "2")}


@pytest.mark.parametrize(
    ("statements", "kind"),
    [
        (["DROP TRIGGER audit_event_no_delete"], "trigger"),
        (["DROP TRIGGER round_transition", "CREATE TRIGGER round_transition BEFORE UPDATE ON round WHEN 0 "
          "BEGIN SELECT 1; END"], "trigger"),
        (["CREATE TRIGGER sly AFTER INSERT ON cost_entry BEGIN UPDATE lease SET holder = 'x'; END"], "trigger"),
        (["DROP INDEX one_live_round"], "index"),
        (["DROP INDEX one_live_round", "CREATE INDEX one_live_round ON round (number)"], "index"),
        (["DROP TABLE checkpoint"], "table"),
        (["DROP TABLE audit_event"], "table"),
        (["DROP TABLE state_transition"], "table"),
        (["CREATE TABLE shadow (x)"], "table"),
        (["INSERT INTO state_transition VALUES ('round', 'HELD', 'PROMOTED')"], "state_transition"),
        (["UPDATE audit_event SET payload = CAST(x'ff' AS TEXT) WHERE seq = 1"], "audit_event"),
        (["UPDATE reader SET role = CAST(x'ff' AS TEXT)"], "reader"),
        (["UPDATE reader SET reader_id = CAST(x'ff' AS TEXT)"], "reader"),
    ],
)  # fmt: skip
def test_the_guards_are_checked_too(copy: Any, statements: list[str], kind: str) -> None:
    """A dropped, weakened or smuggled-in trigger, index, table or transition is a finding, not a crash."""
    path = copy()
    guards = kind in ("trigger", "index", "table", "state_transition")
    raw(path, *statements, guards=guards)
    assert kind in {found for found, _ in broken(path)}


def test_another_schema_version_is_named(ledger: Ledger) -> None:
    """A version that was written over is a finding of its own."""
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '7'")
    assert [(b.kind, b.record) for b in verify_ledger(ledger).broken] == [("schema", "7")]


def rewrite(path: Path, keep: int, change: Callable[[dict[str, Any]], None] = lambda event: None) -> None:
    """Cut the chain after `keep` events, change them, and hash everything anew: consistent in itself."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM audit_event WHERE seq > ?", (keep,))
        previous = "0" * 64
        for seq, at, actor, kind, payload in connection.execute(
            "SELECT seq, at, actor, kind, payload FROM audit_event ORDER BY seq"
        ).fetchall():
            event = {"seq": seq, "at": at, "actor": actor, "kind": kind, "payload": json.loads(payload)}
            change(event)
            event["prev_hash"] = previous
            previous = sha256_bytes(canonical(event))
            connection.execute(
                "UPDATE audit_event SET payload = ?, actor = ?, prev_hash = ?, hash = ? WHERE seq = ?",
                (canonical(event["payload"]).decode(), event["actor"], event["prev_hash"], previous, seq),
            )
        for _, sql in triggers:
            connection.execute(sql)


def test_a_rewritten_chain_is_found_by_its_checkpoint(ledger: Ledger, path: Path) -> None:
    """Whoever alters a row, its event and every later hash still meets the signature."""
    assert verify_checkpoints(ledger, TRUSTED).broken == []
    ledger.engine.dispose()

    def cheaper(event: dict[str, Any]) -> None:
        if event["kind"] == "time_entry.insert":
            event["payload"]["row"]["active_minutes"] = 1.0

    rewrite(path, 10_000, cheaper)
    raw(path, "UPDATE time_entry SET active_minutes = 1.0")
    assert verify_ledger(ledger).broken == []
    found = verify_checkpoints(ledger, TRUSTED).broken
    assert [(b.kind, "rewritten" in b.why) for b in found] == [("checkpoint", True)]


def test_truncation_is_found_by_what_a_witness_keeps(empty: Ledger, path: Path, add_exams: Any, checkpoint: Any,
                                                     new_round: Any) -> None:  # fmt: skip
    """A chain cut short together with its rows and checkpoints is whole in itself; the witness's copy shows the cut."""
    with empty.tx("test", NOW) as tx:
        tx.insert("round", new_round(1))
    keep = len(empty.rows("audit_event"))
    with empty.tx("test", NOW) as tx:
        add_exams(tx, "e1")
    witness = checkpoint(empty, KeyRing.published_demo())
    assert verify_checkpoints(empty, TRUSTED, [witness]).broken == []
    empty.engine.dispose()
    rewrite(path, keep)
    raw(path, "DELETE FROM exam", "DELETE FROM subject", "DELETE FROM checkpoint")
    assert verify_ledger(empty).broken == []
    assert verify_checkpoints(empty, TRUSTED).broken == []
    (found,) = verify_checkpoints(empty, TRUSTED, [witness]).broken
    assert found.kind == "witnessed_checkpoint"
    assert "cut short" in found.why


def test_a_removed_checkpoint_row_is_found_by_its_witness(ledger: Ledger, path: Path, checkpoint: Any) -> None:
    """Taking only a checkpoint's row and event away from the end of the chain is found as well."""
    witness = checkpoint(ledger, KeyRing.published_demo())
    count = len(ledger.rows("audit_event"))
    ledger.engine.dispose()
    rewrite(path, count - 1)
    raw(path, ("DELETE FROM checkpoint WHERE seq = ?", (witness["seq"],)))
    assert verify_ledger(ledger).broken == []
    (found,) = verify_checkpoints(ledger, TRUSTED, [witness]).broken
    assert "lacks" in found.why


def test_only_trusted_keys_sign(ledger: Ledger, tmp_path: Path) -> None:
    """A checkpoint that another key signed, or that is none at all, is broken."""
    other = KeyRing.create(tmp_path / "key.json").public_key
    for trusted in ([], [other], ["not hexadecimal"]):
        (found,) = verify_checkpoints(ledger, trusted).broken
        assert found.why == "no trusted key signed it"
    assert verify_checkpoints(ledger, [other, *TRUSTED]).broken == []
    (found,) = verify_checkpoints(ledger, TRUSTED, [{"seq": "1"}]).broken
    assert "not a checkpoint" in found.why


def test_an_erased_reader_is_not_broken_but_a_changed_name_is(ledger: Ledger, path: Path) -> None:
    """The commitment vouches for the name as long as it is there."""
    raw(path, "UPDATE reader_identity SET display_name = 'Dr. Other'")
    assert broken(path) == {("reader_identity", "r1")}
    with ledger.tx("test", NOW) as tx:
        tx.erase_identity("r1")
    assert broken(path) == set()
