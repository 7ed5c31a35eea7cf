"""Replaying the chain: does every event hash, and is every row what its last event says?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import inspect

from redraft.digest import canonical, sha256_bytes
from redraft.ledger.store import GENESIS, Ledger, after_image
from redraft.ledger.tables import DOMAIN, metadata
from redraft.ledger.transitions import TABLES
from redraft.ledger.triggers import names


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
    """Walk the audit chain from its first event, replay every row's after-image, and compare every domain table."""
    report = VerifyReport()
    expected = _walk(ledger, report)
    for table in DOMAIN:
        _compare(ledger, table.name, expected.get(table.name, {}), report)
    _structure(ledger, report)
    return report


def _walk(ledger: Ledger, report: VerifyReport) -> dict[str, dict[str, Any]]:
    expected: dict[str, dict[str, Any]] = {}
    previous, count = GENESIS, 0
    with ledger.engine.connect() as connection:
        result = connection.exec_driver_sql(
            "SELECT seq, at, actor, kind, payload, prev_hash, hash FROM audit_event ORDER BY seq"
        )
        for seq, at, actor, kind, payload_text, prev_hash, stored in result:
            count += 1
            try:
                payload = json.loads(payload_text)
                body = {
                    "seq": seq, "at": at, "actor": actor, "kind": kind, "payload": payload, "prev_hash": prev_hash,
                }  # fmt: skip
                ok = sha256_bytes(canonical(body)) == stored
            except (ValueError, TypeError):
                payload, ok = {}, False
            if seq != count or prev_hash != previous or not ok:
                why = "event is missing before it" if seq != count else "hash does not fit its content or predecessor"
                report.broken.append(Broken("audit_event", str(seq), None, why))
                report.checked["audit_event"] = count
                return expected  # what follows hangs on a broken link and proves nothing
            previous = stored
            if "table" in payload:
                key = canonical(payload["key"]).decode()
                rows = expected.setdefault(payload["table"], {})
                if payload["op"] == "delete":
                    rows.pop(key, None)
                else:
                    rows[key] = payload["row"]
    report.checked["audit_event"] = count
    return expected


def _compare(ledger: Ledger, table: str, expected: dict[str, Any], report: VerifyReport) -> None:
    columns = [column.name for column in metadata.tables[table].primary_key]
    found: dict[str, Any] = {}
    try:
        rows = ledger.rows(table)
    except (ValueError, TypeError, LookupError) as error:
        report.broken.append(Broken(table, "(whole table)", None, f"cannot be read ({type(error).__name__})"))
        return
    for row in rows:
        found[canonical({name: row[name] for name in columns}).decode()] = after_image(table, row)
    report.checked[table] = len(found)
    for key in sorted(set(found) | set(expected)):
        record = "/".join(str(value) for value in json.loads(key).values())
        if key not in expected:
            report.broken.append(Broken(table, record, None, "row was added outside of redraft"))
        elif key not in found:
            report.broken.append(Broken(table, record, None, "row is missing"))
        elif found[key] != expected[key]:
            changed = sorted(name for name in expected[key] if found[key].get(name) != expected[key][name])
            report.broken.append(Broken(table, record, None, f"{', '.join(changed)} altered outside of redraft"))


def _structure(ledger: Ledger, report: VerifyReport) -> None:
    """The guards themselves: transition table and triggers."""
    pairs = {(machine, str(a), str(b)) for machine, states in TABLES.items() for a, b in states}
    rows = {(r["machine"], r["from_state"], r["to_state"]) for r in ledger.rows("state_transition")}
    report.checked["state_transition"] = len(rows)
    for machine, source, target in sorted(pairs ^ rows):
        why = "allowed in the database only" if (machine, source, target) in rows else "missing in the database"
        report.broken.append(Broken("state_transition", f"{machine}: {source} → {target}", None, why))
    with ledger.engine.connect() as connection:
        if ledger.engine.dialect.name == "sqlite":
            query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        else:
            query = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
        triggers = {row[0] for row in connection.exec_driver_sql(query)}
        report.checked["trigger"] = len(triggers)
        for name in sorted(set(names()) - triggers):
            report.broken.append(Broken("trigger", name, None, "missing"))
        unknown = set(inspect(connection).get_table_names()) - set(metadata.tables) - {"alembic_version"}
        for name in sorted(unknown):
            report.broken.append(Broken("table", name, None, "not one of redraft's"))


def sign_checkpoint_payload(seq: int, head: str) -> bytes:
    """The bytes a checkpoint's signature covers."""
    return canonical({"seq": seq, "hash": head})


def verify_checkpoints(ledger: Ledger, trusted: Sequence[str]) -> VerifyReport:
    """Every signed checkpoint must fit the chain and a trusted key; a chain cut short misses its checkpoint's event."""
    from redraft.security.keys import verify_signature

    report = VerifyReport()
    rows = ledger.rows("checkpoint")
    report.checked["checkpoint_signature"] = len(rows)
    for row in rows:
        event = ledger.one("audit_event", seq=row["seq"])
        payload = sign_checkpoint_payload(row["seq"], row["hash"])
        if event is None or event["hash"] != row["hash"]:
            report.broken.append(Broken("checkpoint", row["checkpoint_id"], None, "its event is gone or altered"))
        elif not any(verify_signature(key, payload, row["signature"]) for key in trusted):
            report.broken.append(Broken("checkpoint", row["checkpoint_id"], None, "no trusted key signed it"))
    return report
