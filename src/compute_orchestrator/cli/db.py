"""`orc db`: the schema by hand, and a copy of the whole store. An SQLite file is migrated by
`orc serve` itself.
"""

from typing import Annotated

import typer

from compute_orchestrator.cli.db_copy import copy
from compute_orchestrator.cli.exits import stop
from compute_orchestrator.cli.plain import first_line, require_server
from compute_orchestrator.cli.serve import read_settings

db_app = typer.Typer(help="The schema of the store, and copies of it.", no_args_is_help=True)
db_app.command("copy")(copy)

DatabaseUrl = Annotated[
    str | None, typer.Option(help="The store.  [ORC_DATABASE_URL, else orc.db in this folder]")
]


@db_app.command("upgrade")
def upgrade(*, database_url: DatabaseUrl = None) -> None:
    """Bring the schema to the newest revision, from an empty store too."""
    require_server("db upgrade")
    from sqlalchemy.exc import SQLAlchemyError

    from compute_orchestrator.db import migrate
    from compute_orchestrator.domain.errors import StartupError

    url = read_settings(database_url=database_url).database_url
    try:
        with migrate.owning(url):
            before = migrate.current_revision(url)
            migrate.upgrade(url)
            after = migrate.current_revision(url)
    except StartupError as error:
        stop(error.detail)
    except (SQLAlchemyError, OSError) as error:
        stop(f"the store could not be upgraded: {first_line(error)}")
    if before == after:
        typer.echo(f"The schema is at {after}, the newest.")
    else:
        typer.echo(f"The schema went from {before or 'empty'} to {after}, the newest.")


@db_app.command("current")
def current(*, database_url: DatabaseUrl = None) -> None:
    """Say which revision the schema is at, and which one this version needs. Writes nothing."""
    require_server("db current")
    from sqlalchemy.exc import SQLAlchemyError

    from compute_orchestrator.db import migrate
    from compute_orchestrator.domain.errors import StartupError

    url = read_settings(database_url=database_url).database_url
    try:
        now, head = migrate.current_revision(url), migrate.head_revision()
    except StartupError as error:
        stop(error.detail)
    except (SQLAlchemyError, OSError) as error:
        stop(f"the store could not be read: {first_line(error)}")
    if now is None:
        typer.echo(f"The store is empty; this version needs {head}.")
    else:
        typer.echo(f"The schema is at {now}; this version needs {head}.")
