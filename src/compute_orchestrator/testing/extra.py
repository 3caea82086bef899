"""What is said where the server's packages are not installed."""

from importlib.util import find_spec


class ServerMissing(ImportError):
    """The test needs a server, and only the client is installed."""

    def __init__(self) -> None:
        super().__init__(
            "the server of a test needs the server's packages, and they are not installed here: "
            "pip install 'compute-orchestrator[server]'"
        )


def require_server() -> None:
    """Raises ServerMissing where the package was installed without its extra."""
    if any(find_spec(package) is None for package in ("fastapi", "sqlalchemy", "aiosqlite")):
        raise ServerMissing
