"""Plain sentences about the server: that it is not installed, and what its libraries say."""

from importlib.util import find_spec
from typing import Final

from compute_orchestrator.cli.exits import MISUSED, stop

SERVER_PACKAGES: Final = (
    "aiosqlite",
    "alembic",
    "fastapi",
    "pydantic_settings",
    "sqlalchemy",
    "uvicorn",
)


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
