"""Widening what a column may hold. SQLite cannot change a CHECK in place: the table is made anew with its rows."""

from __future__ import annotations

from sqlalchemy import Connection, text


def allow(connection: Connection, table: str, column: str, before: list[str], after: list[str]) -> None:
    """Replace the constraint `<column>_known` of a table; raises RuntimeError where it is not as `before` says."""
    old, new = (f"{column} IN ({', '.join(repr(value) for value in values)})" for values in (before, after))
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT {column}_known")
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD CONSTRAINT {column}_known CHECK ({new})")
        return
    master = "SELECT sql FROM sqlite_master WHERE tbl_name = :table AND sql IS NOT NULL"
    (definition,) = connection.scalars(text(f"{master} AND type = 'table'"), {"table": table})
    beside = list(connection.scalars(text(f"{master} AND type <> 'table'"), {"table": table}))
    head, _, body = definition.partition("(")
    if definition.count(old) != 1 or table not in head:
        raise RuntimeError(f"table {table} is not as its last migration left it")
    # Other tables refer to this one by name, and foreign keys are off while migrations run (redraft.ledger.migrate).
    connection.exec_driver_sql(f"CREATE TABLE {table}_rebuilt ({body.replace(old, new)}")
    connection.exec_driver_sql(f"INSERT INTO {table}_rebuilt SELECT * FROM {table}")
    connection.exec_driver_sql(f"DROP TABLE {table}")
    connection.exec_driver_sql(f"ALTER TABLE {table}_rebuilt RENAME TO {table}")
    for statement in beside:
        connection.exec_driver_sql(statement)
