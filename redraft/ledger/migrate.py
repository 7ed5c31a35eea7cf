"""Bringing a ledger's schema up to date (Alembic, run from code; the scripts ship with the package)."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine

from redraft.errors import StateError


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Run every migration that this ledger has not had, all in one transaction. StateError for a newer schema."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.connect().execution_options(redraft_writes=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, revision)
        except CommandError as error:
            what = "The ledger's schema is newer than this redraft, or not redraft's at all."
            raise StateError(what, "Install the redraft version that made it.") from error
