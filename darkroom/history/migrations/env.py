"""How alembic changes the tables: over the connection that the database is opened with."""

from alembic import context

from darkroom.history.tables import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
