"""`orc serve`: one server process. The flags win over the `ORC_...` settings."""

from typing import TYPE_CHECKING, Annotated

import typer

from compute_orchestrator.cli.exits import MISUSED, stop
from compute_orchestrator.cli.plain import require_server

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from compute_orchestrator.settings import Settings


def serve(
    *,
    host: Annotated[
        str | None, typer.Option(help="Where to listen.  [ORC_HOST, else 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="0 takes a free one.  [ORC_PORT, else 8000]"),
    ] = None,
    database_url: Annotated[
        str | None, typer.Option(help="The store.  [ORC_DATABASE_URL, else orc.db in this folder]")
    ] = None,
) -> None:
    """Start the server. An SQLite file is made, or brought up to date, on the way."""
    require_server("serve")
    from compute_orchestrator.cli.serving import CannotStart, run
    from compute_orchestrator.domain.errors import StartupError

    settings = read_settings(host=host, port=port, database_url=database_url)
    try:
        run(settings)
    except StartupError as error:
        stop(error.detail)
    except CannotStart as error:
        stop(str(error))


def read_settings(**flags: str | int | None) -> "Settings":
    """The settings from the environment, and over them the flags that were given."""
    from pydantic import ValidationError

    from compute_orchestrator.settings import Settings

    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        stop("; ".join(map(in_words, error.errors(include_url=False))), code=MISUSED)


def in_words(error: "ErrorDetails") -> str:
    name = "_".join(str(part) for part in error["loc"]).upper()
    return f"the setting ORC_{name} is not valid: {error['msg']}" if name else error["msg"]
