"""Bringing a ledger's schema up to date (Alembic, run from code; the scripts ship with the package)."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine

from redraft.errors import IntegrityError, StateError


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Run every migration that this ledger has not had, all in one transaction. StateError for a newer schema."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    sqlite = engine.dialect.name == "sqlite"
    with engine.connect().execution_options(redraft_writes=True) as connection:
        if sqlite:  # tables are made anew where a column's values change; what refers to them must not mind
            _foreign_keys(connection, False)
        try:
            with connection.begin():
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
                dangling = connection.exec_driver_sql("PRAGMA foreign_key_check").first() if sqlite else None
                if dangling is not None:
                    raise IntegrityError(
                        f"Rows of {dangling[0]} refer to rows that are not there.", "Restore a backup."
                    )
        except CommandError as error:
            what = "The ledger's schema is newer than this redraft, or not redraft's at all."
            raise StateError(what, "Install the redraft version that made it.") from error
        finally:
            if sqlite:
                _foreign_keys(connection, True)


def _foreign_keys(connection: Connection, on: bool) -> None:
    """SQLite ignores this inside a transaction, so it goes past SQLAlchemy, which would begin one."""
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute(f"PRAGMA foreign_keys={'ON' if on else 'OFF'}")
