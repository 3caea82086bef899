"""The Dockerfile and the compose file as these tests read them: no engine is needed for that."""

import json
import re
import shlex
from typing import Any, Final

import yaml

from tests.contract.tree import ROOT

COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
IMAGE: Final = "compute-orchestrator"

_VARIABLE = re.compile(r"\$\{\w+:-([^}]*)\}")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, comments dropped and lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def last_stage() -> dict[str, str]:
    """The instructions of the image that is shipped, the last of each kind."""
    every = instructions()
    start = max(index for index, (word, _) in enumerate(every) if word == "FROM")
    return dict(every[start:])


def image_environment() -> dict[str, str]:
    return dict(part.split("=", 1) for part in shlex.split(last_stage()["ENV"]))


def image_command() -> list[str]:
    return json.loads(last_stage()["CMD"])


def image_healthcheck() -> list[str]:
    return json.loads(last_stage()["HEALTHCHECK"].split(" CMD ", 1)[1])


def environment_of(service: str) -> dict[str, str]:
    """What the processes of a service see, where the user's own environment says nothing."""
    own = {
        name: _VARIABLE.sub(r"\1", value)
        for name, value in SERVICES[service].get("environment", {}).items()
    }
    inherited = image_environment() if SERVICES[service]["image"] == IMAGE else {}
    return {name: value for name, value in (inherited | own).items() if name != "PATH"}


def command_of(service: str) -> list[str]:
    return SERVICES[service].get("command", image_command())


def healthcheck_of(service: str) -> list[str]:
    """Its command; the image's, where the service has none of its own."""
    test: list[str] = SERVICES[service]["healthcheck"].get("test", ["CMD", *image_healthcheck()])
    assert test[0] == "CMD"
    return test[1:]
