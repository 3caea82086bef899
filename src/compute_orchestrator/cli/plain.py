"""How a command ends when it can't go on: one sentence on stderr and an exit code."""

from importlib.util import find_spec
from typing import Final, NoReturn

import typer

FAILED: Final = 1
MISUSED: Final = 2

SERVER_PACKAGES: Final = (
    "aiosqlite",
    "alembic",
    "fastapi",
    "pydantic_settings",
    "sqlalchemy",
    "uvicorn",
)


def stop(sentence: str, *, code: int = FAILED) -> NoReturn:
    """Say why, and end the command."""
    typer.echo(f"orc: {sentence}", err=True)
    raise typer.Exit(code)


def require_server(command: str) -> None:
    """End with a plain sentence where only the client is installed."""
    missing = [package for package in SERVER_PACKAGES if find_spec(package) is None]
    if missing:
        stop(
            f"`orc {command}` needs the server, which is not installed here"
            f" ({', '.join(missing)} missing): pip install 'compute-orchestrator[server]'",
            code=MISUSED,
        )


def first_line(error: Exception) -> str:
    """What went wrong, without the statement and the links that SQLAlchemy adds below."""
    return str(error).partition("\n")[0] or "no answer came in time"  # a timeout has no words
