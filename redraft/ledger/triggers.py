"""What the database itself refuses: rewriting the audit chain, and a state that may not follow the one before."""

from __future__ import annotations

from redraft.ledger.transitions import TABLES

# name -> (table, SQLite statement); PostgreSQL's versions are made from the same parts below.
APPEND_ONLY = ("audit_event", "checkpoint", "decision", "metric", "exam_metric", "time_entry", "cost_entry")


def names() -> list[str]:
    """Every trigger a healthy ledger has."""
    guards = [f"{table}_no_{op}" for table in APPEND_ONLY for op in ("update", "delete")]
    return sorted(guards + [f"{machine}_transition" for machine in TABLES])


def statements(dialect: str) -> list[str]:
    """SQL that creates the triggers for `sqlite` or `postgresql`."""
    result: list[str] = []
    for table in APPEND_ONLY:
        for op in ("UPDATE", "DELETE"):
            name = f"{table}_no_{op.lower()}"
            message = f"{table} is append-only"
            result += _guard(dialect, name, table, f"BEFORE {op}", None, message)
    for machine in TABLES:
        condition = (
            "NEW.state <> OLD.state AND NOT EXISTS (SELECT 1 FROM state_transition "
            f"WHERE machine = '{machine}' AND from_state = OLD.state AND to_state = NEW.state)"
        )
        message = f"{machine}: this state may not follow"
        result += _guard(dialect, f"{machine}_transition", machine, "BEFORE UPDATE", condition, message)
    return result


def _guard(dialect: str, name: str, table: str, when: str, condition: str | None, message: str) -> list[str]:
    if dialect == "sqlite":
        clause = f"WHEN {condition} " if condition else ""
        return [f"CREATE TRIGGER {name} {when} ON {table} {clause}BEGIN SELECT RAISE(ABORT, '{message}'); END"]
    test = condition or "TRUE"
    return [
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {test} THEN "
        f"RAISE EXCEPTION '{message}'; END IF; IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END $$",
        f"CREATE TRIGGER {name} {when} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()",
    ]
