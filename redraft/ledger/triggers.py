"""What the database itself refuses: rewriting the audit chain, and a state that may not follow the one before."""

from __future__ import annotations

from collections.abc import Sequence

from redraft.ledger.transitions import FIRST, TABLES

# Corrections to these are new rows.
APPEND_ONLY = (
    "audit_event", "checkpoint", "decision", "metric", "exam_metric", "time_entry", "cost_entry", "time_batch",
    "agreement", "rejection", "look_batch",
)  # fmt: skip


# A failed round goes back to where it failed and nowhere else; the pairs alone do not say that.
_BACK_ONLY = (
    " OR OLD.state = 'FAILED' AND NEW.state <> 'FAILED' AND NEW.state <> 'ABORTED' "
    "AND NEW.state <> COALESCE(OLD.failed_in, '')"
    " OR OLD.state <> 'FAILED' AND NEW.state = 'FAILED' AND COALESCE(NEW.failed_in, '') <> OLD.state"
)


def names() -> list[str]:
    """Every trigger a healthy ledger has."""
    return sorted(name for name, *_ in _guards())


def statements(
    dialect: str, append_only: Sequence[str] = APPEND_ONLY, machines: Sequence[str] = tuple(TABLES)
) -> list[str]:
    """SQL that creates the triggers for `sqlite` or `postgresql`; of these tables and machines."""
    return [sql for guard in _guards(append_only, machines) for sql in _sql(dialect, *guard)]


def sqlite_text() -> dict[str, str]:
    """Trigger name to the statement that made it, as SQLite keeps it."""
    return {guard[0]: _sql("sqlite", *guard)[0] for guard in _guards()}


def _guards(
    append_only: Sequence[str] = APPEND_ONLY, machines: Sequence[str] = tuple(TABLES)
) -> list[tuple[str, str, str, str | None, str]]:
    """(trigger, table, when, condition, message) of every guard."""
    result: list[tuple[str, str, str, str | None, str]] = []
    for table in append_only:
        for op in ("UPDATE", "DELETE"):
            result.append((f"{table}_no_{op.lower()}", table, f"BEFORE {op}", None, f"{table} is append-only"))
    if not machines:
        return result
    # Two writers that both got past the lock, or an INSERT OR REPLACE, would fork or rewrite the chain here.
    links = (
        "NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM audit_event) "
        "OR NEW.seq > 1 AND NEW.prev_hash <> (SELECT hash FROM audit_event WHERE seq = NEW.seq - 1)"
    )
    result.append(
        ("audit_event_chain", "audit_event", "BEFORE INSERT", links, "audit_event does not continue the chain")
    )
    for machine in machines:
        condition = (
            "NEW.state <> OLD.state AND NOT EXISTS (SELECT 1 FROM state_transition "
            f"WHERE machine = '{machine}' AND from_state = OLD.state AND to_state = NEW.state)"
        ) + (_BACK_ONLY if machine == "round" else "")
        result.append(
            (f"{machine}_transition", machine, "BEFORE UPDATE", condition, f"{machine}: this state may not follow")
        )
        first = f"NEW.state <> '{FIRST[machine]}'"
        message = f"{machine}: must begin as {FIRST[machine]}"
        result.append((f"{machine}_first_state", machine, "BEFORE INSERT", first, message))
    return result


def _sql(dialect: str, name: str, table: str, when: str, condition: str | None, message: str) -> list[str]:
    if dialect == "sqlite":
        clause = f"WHEN {condition} " if condition else ""
        return [f"CREATE TRIGGER {name} {when} ON {table} {clause}BEGIN SELECT RAISE(ABORT, '{message}'); END"]
    test = condition or "TRUE"
    return [
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {test} THEN "
        f"RAISE EXCEPTION '{message}'; END IF; IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END $$",
        f"CREATE TRIGGER {name} {when} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()",
    ]
