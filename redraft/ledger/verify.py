"""Replaying the chain: does every event hash, and is every row what its last event says?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Boolean, Connection, Float, Table, inspect, select, type_coerce
from sqlalchemy.types import NullType

from redraft.digest import canonical, sha256_bytes
from redraft.ledger.store import GENESIS, HEAD, Ledger, after_image
from redraft.ledger.tables import DOMAIN, metadata
from redraft.ledger.transitions import TABLES
from redraft.ledger.triggers import sqlite_text
from redraft.ledger.values import Json


@dataclass(frozen=True)
class Broken:
    """One record that is not what it should be."""

    kind: str
    record: str
    path: str | None
    why: str


@dataclass
class VerifyReport:
    """How many records of each kind were checked, and which are broken."""

    checked: dict[str, int] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)


def verify_ledger(ledger: Ledger) -> VerifyReport:
    """Walk the audit chain from its first event, replay every row's after-image, and compare every domain table.

    Cells are compared as the database holds them, not as they decode: a flag of 2, a `1` for a `true` inside JSON or
    another order of keys is a change too. A chain rewritten from one point on, with all its hashes, is consistent in
    itself; only a checkpoint tells (`verify_checkpoints`).
    """
    report = VerifyReport()
    with ledger.engine.connect() as connection, _any_bytes(connection):
        present = set(inspect(connection).get_table_names())
        for name in sorted(set(metadata.tables) - present):
            report.broken.append(Broken("table", name, None, "missing"))
        for name in sorted(present - set(metadata.tables) - {"alembic_version"}):
            report.broken.append(Broken("table", name, None, "not one of redraft's"))
        expected = _walk(connection, report) if "audit_event" in present else {}
        for table in DOMAIN:
            if table.name in present:
                _compare(connection, table, expected.get(table.name, {}), report)
        _structure(connection, present, report)
    return report


def _walk(connection: Connection, report: VerifyReport) -> dict[str, dict[str, Any]]:
    """Check every link; returns table → key → last after-image.

    After a broken link the walk goes on from what is stored, so that one altered event is reported as one, and the
    rows that later events speak of can still be held against them.
    """
    expected: dict[str, dict[str, Any]] = {}
    previous, last, count = GENESIS, 0, 0
    for event in _raw(connection, metadata.tables["audit_event"]):
        count += 1
        seq, payload_text = event["seq"], event["payload"]
        if seq != last + 1:
            why = f"the events between {last} and {seq} are missing"
            report.broken.append(Broken("audit_event", str(seq), None, why))
        elif event["prev_hash"] != previous:
            report.broken.append(Broken("audit_event", str(seq), None, "does not follow the event before it"))
        try:
            payload = json.loads(payload_text)
            body = {**{name: event[name] for name in ("seq", "at", "actor", "kind", "prev_hash")}, "payload": payload}
            ok = sha256_bytes(canonical(body)) == event["hash"] and canonical(payload).decode() == payload_text
        except (ValueError, TypeError, RecursionError):  # not JSON, or not even text
            payload, ok = None, False
        if not ok:
            report.broken.append(Broken("audit_event", str(seq), None, "content does not fit its hash"))
        previous, last = event["hash"], seq
        if isinstance(payload, dict):
            _replay(payload, expected)
    report.checked["audit_event"] = count
    return expected


def _replay(payload: dict[str, Any], expected: dict[str, dict[str, Any]]) -> None:
    if payload.get("table") not in metadata.tables or not isinstance(payload.get("key"), dict):
        return
    rows = expected.setdefault(payload["table"], {})
    key = canonical(list(payload["key"].values())).decode()
    if payload.get("op") == "delete":
        rows.pop(key, None)
    else:
        rows[key] = payload.get("row")


def _compare(connection: Connection, table: Table, expected: dict[str, Any], report: VerifyReport) -> None:
    primary = sorted(column.name for column in table.primary_key)
    found: dict[str, dict[str, Any]] = {}
    for row in _raw(connection, table):
        found[_key([row[name] for name in primary])] = row
    report.checked[table.name] = len(found)
    for key in sorted(set(found) | set(expected)):
        record = "/".join(str(value) for value in json.loads(key))
        if key not in expected:
            report.broken.append(Broken(table.name, record, None, "row was added outside of redraft"))
        elif key not in found:
            report.broken.append(Broken(table.name, record, None, "row is missing"))
        else:
            changed = _differences(connection, table, found[key], expected[key])
            if changed:
                why = f"{', '.join(changed)} altered outside of redraft"
                report.broken.append(Broken(table.name, record, None, why))


def _key(values: list[Any]) -> str:
    """Key of a row as found; a value that no key can have (bytes) still gets one of its own."""
    return canonical([value if isinstance(value, (str, int)) else repr(value) for value in values]).decode()


def _differences(connection: Connection, table: Table, found: dict[str, Any], image: Any) -> list[str]:
    """Names of the columns whose cell is not what the after-image says."""
    if not isinstance(image, dict):
        return ["every column"]
    if table.name == "reader_identity":  # the chain holds a commitment instead of the name
        try:
            same = after_image(table.name, found) == image
        except (ValueError, TypeError):
            same = False
        return [] if same else ["display_name or salt"]
    if set(found) != set(image):
        return sorted(set(found) ^ set(image))
    changed = []
    for name, cell in found.items():
        stored = _as_stored(table.c[name].type, image[name], connection.dialect.name)
        if type(stored) is not type(cell) or stored != cell:
            changed.append(name)
    return sorted(changed)


def _as_stored(kind: Any, value: Any, dialect: str) -> Any:
    """A value of an after-image as the database holds it."""
    if value is None:
        return None
    if isinstance(kind, Json):
        return canonical(value).decode()
    if isinstance(kind, Boolean) and dialect == "sqlite":
        return int(value)
    if isinstance(kind, Float):
        return float(value)
    return value


def _raw(connection: Connection, table: Table) -> Iterator[dict[str, Any]]:
    """Rows with their cells undecoded, in key order."""
    columns = [type_coerce(column, NullType()).label(column.name) for column in table.c]
    for row in connection.execute(select(*columns).order_by(*table.primary_key.columns)):
        yield dict(row._mapping)


@contextmanager
def _any_bytes(connection: Connection) -> Iterator[None]:
    """Let SQLite hand out text that is not UTF-8 (as escapes): the cell is named instead of stopping the walk."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
    try:
        yield
    finally:
        driver.text_factory = str


def _structure(connection: Connection, present: set[str], report: VerifyReport) -> None:
    """The guards themselves: transition table, triggers, the one-live-round index and the schema's version."""
    pairs = {(machine, str(a), str(b)) for machine, states in TABLES.items() for a, b in states}
    rows: set[tuple[Any, ...]] = set()
    if "state_transition" in present:
        rows = {tuple(row.values()) for row in _raw(connection, metadata.tables["state_transition"])}
    report.checked["state_transition"] = len(rows)
    for row in sorted(pairs ^ rows, key=str):
        why = "allowed in the database only" if row in rows else "missing in the database"
        report.broken.append(Broken("state_transition", f"{row[0]}: {row[1]} → {row[2]}", None, why))
    triggers = _triggers(connection)
    report.checked["trigger"] = len(triggers)
    wanted = sqlite_text()
    for name in sorted(set(wanted) | set(triggers)):
        if name not in triggers:
            report.broken.append(Broken("trigger", name, None, "missing"))
        elif name not in wanted:
            report.broken.append(Broken("trigger", name, None, "not one of redraft's"))
        elif triggers[name] is not None and triggers[name] != wanted[name]:
            report.broken.append(Broken("trigger", name, None, "altered outside of redraft"))
    if connection.dialect.name == "sqlite":
        query = "SELECT sql FROM sqlite_master WHERE type = 'index' AND name = 'one_live_round'"
    else:
        query = "SELECT indexdef FROM pg_indexes WHERE indexname = 'one_live_round'"
    index = connection.exec_driver_sql(query).scalar()
    if index is None or "UNIQUE" not in index:
        report.broken.append(Broken("index", "one_live_round", None, "missing"))
    version = "none"
    if "alembic_version" in inspect(connection).get_table_names():
        version = str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())
    if version != HEAD:
        report.broken.append(Broken("schema", version, None, f"this redraft works with {HEAD}"))


def _triggers(connection: Connection) -> dict[str, str | None]:
    """Name → text of the triggers that fire (no text on PostgreSQL, where the body lies in a function)."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    else:
        query = "SELECT tgname, NULL FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'"
    return {row[0]: row[1] for row in connection.exec_driver_sql(query)}


def sign_checkpoint_payload(seq: int, head: str) -> bytes:
    """The bytes a checkpoint's signature covers."""
    return canonical({"seq": seq, "hash": head})


def verify_checkpoints(
    ledger: Ledger, trusted: Sequence[str], witnessed: Sequence[Mapping[str, Any]] = ()
) -> VerifyReport:
    """Every signed checkpoint must fit the chain and a trusted key; a chain cut short misses its checkpoint's event.

    Parameters
    ----------
    trusted : sequence of str
        Ed25519 public keys (hexadecimal), configured outside of the project.
    witnessed : sequence of mapping
        Checkpoints kept off this database (git tags, a write-once bucket), each with `seq`, `hash` and `signature`.
        Whoever cuts or rewrites the chain cuts its checkpoint rows too: only these show it.
    """
    report = VerifyReport()
    rows = ledger.rows("checkpoint")
    report.checked["checkpoint_signature"] = len(rows)
    hashes = {(row["seq"], row["hash"]) for row in rows}
    for row in rows:
        report.broken += _checkpoint(ledger, "checkpoint", row["checkpoint_id"], row, trusted)
    if witnessed:
        report.checked["witnessed_checkpoint"] = len(witnessed)
    for witness in witnessed:
        record = f"event {witness.get('seq')}"
        broken = _checkpoint(ledger, "witnessed_checkpoint", record, witness, trusted)
        if not broken and (witness["seq"], witness["hash"]) not in hashes:
            broken = [Broken("witnessed_checkpoint", record, None, "the ledger lacks this checkpoint's row")]
        report.broken += broken
    return report


def _checkpoint(
    ledger: Ledger, kind: str, record: str, checkpoint: Mapping[str, Any], trusted: Sequence[str]
) -> list[Broken]:
    from redraft.security.keys import verify_signature

    seq, head, signature = checkpoint.get("seq"), checkpoint.get("hash"), checkpoint.get("signature")
    if not (isinstance(seq, int) and isinstance(head, str) and isinstance(signature, str)):
        return [Broken(kind, record, None, "not a checkpoint: seq, hash or signature is missing")]
    if not any(verify_signature(key, sign_checkpoint_payload(seq, head), signature) for key in trusted):
        return [Broken(kind, record, None, "no trusted key signed it")]
    event = ledger.one("audit_event", seq=seq)
    if event is None:
        return [Broken(kind, record, None, f"the chain ends before event {seq}: it was cut short")]
    if event["hash"] != head:
        return [Broken(kind, record, None, f"event {seq} is not the one that was signed: the chain was rewritten")]
    return []
