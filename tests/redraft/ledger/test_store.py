"""One way to write: row and audit event together, several processes, crashes, erasure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, inspect, text

from redraft.digest import sha256_json
from redraft.errors import ConflictError, IntegrityError, StateError
from redraft.ledger import Ledger, RoundState, move_round, verify_ledger
from redraft.ledger.store import GENESIS, HEAD
from redraft.ledger.tables import metadata

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)


def subject(name: str, **changes: Any) -> dict[str, Any]:
    return {"subject_id": name, "split": "pool", "stratum": "", "drawn_at": None, **changes}


def test_every_write_leaves_one_event_with_the_whole_row(empty: Ledger) -> None:
    """Insert and update each append an event whose payload is the row after it."""
    with empty.tx("me", NOW) as tx:
        tx.insert("subject", subject("s1"))
        tx.update("subject", {"subject_id": "s1"}, {"split": "test", "drawn_at": NOW})
    events = empty.rows("audit_event")
    assert [(e["seq"], e["kind"], e["actor"]) for e in events] == [
        (1, "subject.insert", "me"),
        (2, "subject.update", "me"),
    ]
    assert events[1]["payload"] == {
        "table": "subject",
        "op": "update",
        "key": {"subject_id": "s1"},
        "row": subject("s1", split="test", drawn_at="2026-03-02T08:30:00.000000Z"),
    }


def test_nobody_else_reads_the_ledger_nor_its_log(tmp_path: Path) -> None:
    """Names stand in the database and, until it is emptied, in its log: both are their owner's alone from the start."""
    before = os.umask(0o022)
    try:
        ledger = Ledger.create(f"sqlite:///{tmp_path}/ledger.db")
        with ledger.tx("me", NOW) as tx:
            tx.insert("subject", subject("s1"))
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"ledger.db": 0o600, "ledger.db-wal": 0o600, "ledger.db-shm": 0o600}


def test_hash_chain_is_what_the_design_says(ledger: Ledger) -> None:
    """Every hash is SHA-256 over the canonical JSON of the event and its predecessor's hash."""
    previous = GENESIS
    for event in ledger.rows("audit_event"):
        body = {name: event[name] for name in ("seq", "at", "actor", "kind", "payload", "prev_hash")}
        assert event["prev_hash"] == previous
        assert event["hash"] == sha256_json(body)
        previous = event["hash"]


def test_a_failed_transaction_leaves_nothing(empty: Ledger) -> None:
    """An exception in the body takes row and event back together."""
    with pytest.raises(RuntimeError), empty.tx("me", NOW) as tx:
        tx.insert("subject", subject("s1"))
        raise RuntimeError
    assert empty.rows("subject") == empty.rows("audit_event") == []


def test_values_come_back_as_they_went_in(ledger: Ledger) -> None:
    """JSON, flags, money and times survive the database with their types."""
    cost = ledger.one("cost_entry")
    assert cost is not None
    assert (cost["amount"], cost["rate"], cost["simulated"]) == ("19.00", {"per_hour": "120.00"}, True)
    assert ledger.rows("step_run", host=None)[0]["outputs"] == {"n": 1}
    assert ledger.rows("step_run", host={"a": 1}) == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"score": float("nan")}, ValueError),
        ({"score": float("inf")}, ValueError),
        ({"score": "0.5"}, TypeError),
        ({"rank": 1.0}, TypeError),
        ({"rank": True}, TypeError),
        ({"strategy": 3}, TypeError),
        ({"explanation": {"at": object()}}, TypeError),
        ({"explanation": {"n": 2**60}}, ValueError),
        ({"colour": "red"}, KeyError),
        ({"selection_id": "other"}, KeyError),
    ],
)
def test_values_of_another_type_are_refused(ledger: Ledger, changes: dict[str, Any], error: type[Exception]) -> None:
    """What the database would silently convert never gets into the chain."""
    before = len(ledger.rows("audit_event"))
    with pytest.raises(error), ledger.tx("me", NOW) as tx:
        tx.update("selection", {"selection_id": "se1"}, changes)
    assert len(ledger.rows("audit_event")) == before


def test_naive_times_are_refused(empty: Ledger) -> None:
    """A time without a zone could mean anything."""
    with pytest.raises(ValueError, match="aware"), empty.tx("me", NOW) as tx:
        tx.insert("subject", subject("s1", drawn_at=datetime(2026, 1, 1)))


def test_an_incomplete_row_is_refused(empty: Ledger) -> None:
    """Every column must be named."""
    with pytest.raises(KeyError, match="stratum"), empty.tx("me", NOW) as tx:
        tx.insert("subject", {"subject_id": "s1", "split": "pool", "drawn_at": None})


def test_database_refusals_are_state_errors(ledger: Ledger) -> None:
    """A foreign key, a CHECK and an append-only table answer as StateError and change nothing."""
    with pytest.raises(StateError, match="FOREIGN KEY"), ledger.tx("me", NOW) as tx:
        tx.insert("exam", {**(ledger.one("exam", exam_id="e1") or {}), "exam_id": "e9", "series_id": "x",
                           "subject_id": "nobody"})  # fmt: skip
    with pytest.raises(StateError, match="verdict_known"), ledger.tx("me", NOW) as tx:
        tx.update("receipt", {"receipt_id": "rc1"}, {"verdict": "maybe"})
    with pytest.raises(StateError, match="append-only"), ledger.tx("me", NOW) as tx:
        tx.update("time_entry", {"time_entry_id": "t1"}, {"active_minutes": 1.0})
    assert verify_ledger(ledger).broken == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET actor = 'x'",
        "DELETE FROM audit_event WHERE seq = 1",
        "INSERT OR REPLACE INTO audit_event SELECT seq, at, 'x', kind, payload, prev_hash, hash FROM audit_event",
        "INSERT INTO audit_event SELECT seq + 1000, at, actor, kind, payload, prev_hash, hash FROM audit_event",
    ],
)
def test_the_database_itself_guards_the_chain(ledger: Ledger, statement: str) -> None:
    """Triggers refuse to change, remove, replace or fork events, whoever asks."""
    before = ledger.rows("audit_event")
    with pytest.raises(Exception, match="audit_event"), ledger.engine.begin() as connection:
        connection.execute(text(statement))
    assert ledger.rows("audit_event") == before


def test_only_one_round_lives(empty: Ledger, new_round: Any, finish: Any) -> None:
    """A second live round breaks an index; after the first has ended there may be another."""
    with empty.tx("me", NOW) as tx:
        tx.insert("round", new_round(1))
    with pytest.raises(ConflictError, match="Another round is open"), empty.tx("me", NOW) as tx:
        tx.insert("round", new_round(2))
    finish(empty, 1)
    with empty.tx("me", NOW) as tx:
        tx.insert("round", new_round(2))
        move_round(tx, 2, RoundState.ABORTED)
        tx.insert("round", new_round(3))


def test_reader_identity_leaves_no_trace_after_erasure(ledger: Ledger, path: Path) -> None:
    """The name is in no payload, and after erasure in no byte of the database or its log; the chain still holds."""
    assert "Invented" not in str(ledger.rows("audit_event"))
    with ledger.tx("me", NOW) as tx:
        tx.erase_identity("r1")
    files = [file for file in path.parent.iterdir() if file.name.startswith(path.name)]
    assert not any(b"Invented" in file.read_bytes() for file in files)
    assert ledger.rows("reader_identity") == []
    assert verify_ledger(ledger).broken == []


def test_opening_what_is_no_ledger(tmp_path: Path, empty: Ledger, path: Path) -> None:
    """An absent file, another schema version and foreign bytes are told apart, each with what to do."""
    with pytest.raises(StateError, match="no ledger"):
        Ledger.open(f"sqlite:///{tmp_path / 'absent.db'}")
    assert not (tmp_path / "absent.db").exists()
    (tmp_path / "foreign.db").write_bytes(b"GIF89a" * 1000)
    with pytest.raises(IntegrityError, match="damaged"):
        Ledger.open(f"sqlite:///{tmp_path / 'foreign.db'}")
    (tmp_path / "blank.db").touch()
    with pytest.raises(StateError, match="version none"):
        Ledger.open(f"sqlite:///{tmp_path / 'blank.db'}")
    with empty.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StateError, match="version 9999"):
        Ledger.open(f"sqlite:///{path}")
    with pytest.raises(StateError, match="newer"):
        Ledger.migrate(f"sqlite:///{path}")


@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_migrations_make_the_schema_that_the_code_works_with(empty: Ledger) -> None:
    """The migrations' result and the table definitions do not drift apart, and HEAD names the newest migration."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        differences = compare_metadata(context, metadata)  # `one_live_round` lives in the migration only
        found = {t: {c["name"] for c in inspect(connection).get_check_constraints(t)} for t in metadata.tables}
        assert context.get_current_revision() == HEAD
    assert differences == []
    for name, table in metadata.tables.items():
        wanted = {c.name for c in table.constraints if isinstance(c, CheckConstraint)}
        assert found[name] == wanted, name


def test_creating_again_changes_nothing(ledger: Ledger, path: Path) -> None:
    """`create` and `migrate` on a ledger of this version leave every row as it is."""
    before = ledger.rows("audit_event")
    for again in (Ledger.create, Ledger.migrate):
        assert again(f"sqlite:///{path}").rows("audit_event") == before


WRITER = """
import sys
from datetime import UTC, datetime
from redraft.ledger import Ledger
url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
ledger = Ledger.open(url)
print("ready", flush=True)
for i in range(count):
    with ledger.tx(name, datetime(2026, 1, 1, tzinfo=UTC)) as tx:
        tx.insert_many("subject", [
            {"subject_id": f"{name}-{i}-{k}", "split": "pool", "stratum": "", "drawn_at": None} for k in range(3)
        ])
        if count > 1000:
            print(i, flush=True)
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, f"sqlite:///{path}", name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})


def test_processes_append_to_one_chain(empty: Ledger, path: Path) -> None:
    """Three processes writing at once lose nothing and leave one unforked chain."""
    running = [writer(path, name, 40) for name in ("a", "b", "c")]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    report = verify_ledger(empty)
    assert report.broken == []
    assert (report.checked["subject"], report.checked["audit_event"]) == (360, 360)


def test_kill_in_mid_transaction_leaves_a_valid_chain(empty: Ledger, path: Path) -> None:
    """kill -9 of a writer at three moments loses no more than its open transaction, and the next writer goes on."""
    for attempt in range(3):
        process = writer(path, f"k{attempt}", 100_000)
        assert process.stdout is not None
        for _ in range(5 + attempt * 7):
            process.stdout.readline()
        time.sleep(0.003 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        report = verify_ledger(Ledger.open(f"sqlite:///{path}"))
        assert report.broken == []
        assert report.checked["subject"] % 3 == 0
        assert report.checked["subject"] == report.checked["audit_event"]
    with empty.tx("after", NOW) as tx:
        tx.insert("subject", subject("after"))
    assert verify_ledger(empty).broken == []


def test_a_busy_ledger_says_so(empty: Ledger, path: Path) -> None:
    """A writer that waits in vain gets a ConflictError that says trying again can help."""
    other = Ledger.open(f"sqlite:///{path}")
    with other.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    with empty.tx("first", NOW), pytest.raises(ConflictError) as raised, other.tx("second", NOW):
        pass
    assert raised.value.retry


def test_the_ledger_imports_no_heavy_library() -> None:
    """The command line opens the ledger often: alembic, numpy and pandas stay out of its imports."""
    heavy = ("alembic", "numpy", "pandas", "cryptography")
    code = f"import sys, redraft.ledger; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
