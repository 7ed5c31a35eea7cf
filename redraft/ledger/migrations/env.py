"""Alembic's entry: runs on the connection that redraft.ledger.migrate hands over."""

from alembic import context

from redraft.ledger.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
