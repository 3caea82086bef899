"""The image and the compose file, read and not built: their parts fit the tree and each other."""

import http.server
import os
import re
import shlex
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import typer.main
import yaml
from sqlalchemy import make_url

from compute_orchestrator.cli.app import app
from compute_orchestrator.settings import Settings
from tests.contract.tree import BIN, ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICE: dict[str, Any] = COMPOSE["services"]["orc"]


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


def settings_of(environment: dict[str, str]) -> dict[str, str]:
    return {
        name.removeprefix("ORC_").lower(): value
        for name, value in environment.items()
        if name.startswith("ORC_")
    }


def healthcheck() -> str:
    return last_stage()["HEALTHCHECK"].split(" CMD ", 1)[1].strip()


def test_the_image_copies_things_that_exist_and_reach_the_builder() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert copied
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert copied == allowed


def test_the_image_installs_locked_dependencies_alone() -> None:
    installs = [
        command
        for word, rest in instructions()
        for command in rest.split(" && ")
        if word == "RUN" and re.search(r"\bpip .*\binstall\b", command)
    ]
    assert ["--require-hashes" in each for each in installs] == [True, False]
    assert "--no-deps" in installs[1]


def test_the_image_runs_the_command_as_nobody_special() -> None:
    stage = last_stage()
    assert stage["USER"] not in {"root", "0"}
    assert stage["STOPSIGNAL"] == "SIGTERM"
    program, command = yaml.safe_load(stage["CMD"])
    assert program == "orc"
    assert command in typer.main.get_group(app).commands


def test_settings_that_the_containers_name_exist() -> None:
    composed = settings_of(image_environment() | SERVICE["environment"])
    assert set(composed) - set(Settings.model_fields) == set()
    settings = Settings.model_validate(composed)
    assert settings.insecure_open
    assert "orc" in settings.allowed_hosts


def test_the_image_alone_is_not_open() -> None:
    assert not Settings.model_validate(settings_of(image_environment())).insecure_open


def test_ports_agree_and_are_published_on_this_machine_alone() -> None:
    port = last_stage()["EXPOSE"]
    assert image_environment()["ORC_PORT"] == port
    (published,) = SERVICE["ports"]
    host, _, inside = published.split(":")
    assert (host, inside) == ("127.0.0.1", port)


def test_the_store_is_on_the_volume() -> None:
    stage = last_stage()
    database = make_url(image_environment()["ORC_DATABASE_URL"]).database
    assert database
    assert database.startswith(f"{stage['VOLUME']}/")
    (mount,) = SERVICE["volumes"]
    volume, folder = mount.split(":")
    assert folder == stage["VOLUME"]
    assert volume in COMPOSE["volumes"]


def test_the_container_gets_the_time_that_a_shutdown_takes() -> None:
    grace = float(SERVICE["stop_grace_period"].removesuffix("s"))
    assert grace > Settings.model_fields["shutdown_seconds"].default


def test_the_container_is_limited_and_watched() -> None:
    assert {"mem_limit", "cpus", "pids_limit", "healthcheck"} <= set(SERVICE)
    assert SERVICE["cap_drop"] == ["ALL"]
    assert "test" not in SERVICE["healthcheck"]  # the image's, or there would be two


@contextmanager
def answering(status: int) -> Generator[int]:
    """A server that answers /readyz with this status, on a free port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (404, False)])
def test_the_healthcheck_tells_a_ready_server(*, status: int, healthy: bool) -> None:
    with answering(status) as port:
        assert probe(port) is healthy


def test_the_healthcheck_tells_a_missing_server() -> None:
    with answering(200) as port:
        pass
    assert not probe(port)


def probe(port: int) -> bool:
    environment = os.environ | {"ORC_PORT": str(port), "PATH": f"{BIN}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["sh", "-c", healthcheck()], env=environment, capture_output=True, check=False
    )
    return ran.returncode == 0


def test_the_gate_asks_with_the_same_healthcheck() -> None:
    assert healthcheck() in (ROOT / ".ci" / "run").read_text()
