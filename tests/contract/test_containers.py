"""The image and the compose file, read and not built: their parts fit the tree and each other."""

import http.server
import os
import re
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from inspect import signature
from typing import Any, cast

import pytest
import typer.main
from sqlalchemy import make_url

from compute_orchestrator.cli.app import app
from compute_orchestrator.client.serving import RELEASE_SECONDS
from compute_orchestrator.client.worker import Worker
from compute_orchestrator.settings import Settings
from tests.contract.containers import (
    COMPOSE,
    IMAGE,
    SERVICES,
    command_of,
    environment_of,
    image_command,
    image_environment,
    image_healthcheck,
    instructions,
    last_stage,
)
from tests.contract.tree import BIN, ROOT

OURS = [name for name, service in SERVICES.items() if service["image"] == IMAGE]
LASTING = [name for name in SERVICES if name != "migrate"]
PROXY = (ROOT / "examples" / "haproxy.cfg").read_text()


def settings_of(environment: dict[str, str]) -> dict[str, str]:
    return {
        name.removeprefix("ORC_").lower(): value
        for name, value in environment.items()
        if name.startswith("ORC_")
    }


def seconds(duration: str) -> float:
    assert duration.endswith("s")
    return float(duration.removesuffix("s"))


# The image.


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


def test_the_image_runs_the_server_as_nobody_special() -> None:
    stage = last_stage()
    assert int(stage["USER"]) > 0  # a number: by a name Kubernetes can't tell that it is not root
    assert f"--uid {stage['USER']} " in stage["RUN"]
    assert stage["STOPSIGNAL"] == "SIGTERM"
    assert image_command() == ["orc", "serve"]


def test_the_image_alone_is_not_open() -> None:
    assert not Settings.model_validate(settings_of(image_environment())).insecure_open


def test_the_store_of_the_image_alone_is_on_a_volume() -> None:
    database = make_url(image_environment()["ORC_DATABASE_URL"]).database
    assert database
    assert database.startswith(f"{last_stage()['VOLUME']}/")


# The compose file.


@pytest.mark.parametrize("name", OURS)
def test_a_command_of_a_container_is_one_of_orc(name: str) -> None:
    program, *words = command_of(name)
    assert program == "orc"
    command: Any = typer.main.get_group(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands")
    command.make_context(command.name or "", words)  # refuses what it does not know


@pytest.mark.parametrize("name", OURS)
def test_settings_that_the_containers_name_exist(name: str) -> None:
    named = settings_of(environment_of(name))
    assert set(named) - set(Settings.model_fields) == set()
    Settings.model_validate(named)


def test_a_server_takes_the_proxys_calls_by_the_name_that_workers_say() -> None:
    settings = Settings.model_validate(settings_of(environment_of("server")))
    assert settings.insecure_open
    assert settings.allowed_hosts == ("orc",)
    assert make_url(environment_of("worker")["JOB_SERVER"]).host == "orc"
    assert "hdr Host localhost" in PROXY


def test_servers_and_the_migration_have_the_database_that_is_made() -> None:
    made = environment_of("database")
    for name in ("server", "migrate"):
        given = environment_of(name)
        url = make_url(given["ORC_DATABASE_URL"])
        assert url.get_backend_name() == "postgresql"
        assert url.host == "database"
        # The image makes a database of the role's name.
        assert url.username == url.database == made["POSTGRES_USER"]
        assert url.password is None
        assert given["PGPASSWORD"] == made["POSTGRES_PASSWORD"]


def test_the_password_is_the_users_and_says_what_its_default_is_good_for() -> None:
    assert SERVICES["database"]["environment"]["POSTGRES_PASSWORD"].startswith(
        "${POSTGRES_PASSWORD:-"
    )
    assert environment_of("database")["POSTGRES_PASSWORD"] == "only-for-this-machine"  # noqa: S105


def test_the_database_is_kept_on_a_volume_of_its_own() -> None:
    """Where the image of version 18 declares it: mounted deeper, the data would not be kept."""
    assert SERVICES["database"]["image"] == "postgres:18"
    (mount,) = SERVICES["database"]["volumes"]
    volume, folder = mount.split(":")
    assert folder == "/var/lib/postgresql"
    assert volume in COMPOSE["volumes"]


def test_the_schema_is_migrated_once_before_any_server_starts() -> None:
    assert SERVICES["migrate"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert SERVICES["migrate"]["restart"] == "no"
    assert SERVICES["server"]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"}
    }


def test_two_servers_and_any_number_of_workers_may_run() -> None:
    assert SERVICES["server"]["deploy"]["replicas"] == 2
    for name in ("server", "worker"):
        assert {"container_name", "ports"} & set(SERVICES[name]) == set()


def test_one_address_is_published_on_this_machine_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    ((host, outside, inside),) = (port.split(":") for port in published.pop("orc"))
    assert published == {}
    assert (host, outside) == ("127.0.0.1", image_environment()["ORC_PORT"])
    assert f"bind :{inside}\n" in PROXY
    assert f" server:{last_stage()['EXPOSE']} " in PROXY


def test_workers_reach_the_proxy_alone() -> None:
    assert COMPOSE["networks"]["inside"]["internal"]
    joined = {name: set(service["networks"]) for name, service in SERVICES.items()}
    assert joined.pop("orc") == {"inside", "jobs"}
    assert joined.pop("worker") == {"jobs"}
    assert set(map(frozenset, joined.values())) == {frozenset({"inside"})}


def test_the_workers_module_is_mounted() -> None:
    service = SERVICES["worker"]
    (mount,) = service["volumes"]
    folder, inside, mode = mount.split(":")
    assert (inside, mode) == (service["working_dir"], "ro")
    *_, target = command_of("worker")
    module, _, _ = target.partition(":")
    assert (ROOT / folder / f"{module}.py").is_file()
    assert (ROOT / folder / service["healthcheck"]["test"][-1]).is_file()


def test_files_that_are_mounted_exist() -> None:
    (config,) = COMPOSE["configs"].values()
    assert (ROOT / config["file"]).is_file()
    assert "content" not in config  # refused with read_only, by every version of the plugin


def default_of(function: Any, name: str) -> float:
    return cast("float", signature(function).parameters[name].default)


LONGEST_STOP = {
    "server": Settings.model_fields["shutdown_seconds"].default + 10,
    "worker": default_of(Worker.__init__, "shutdown_seconds") + RELEASE_SECONDS,
    "orc": seconds(re.findall(r"hard-stop-after (\S+)", PROXY)[0]),
    "database": 30,
}


@pytest.mark.parametrize("name", LASTING)
def test_a_container_gets_the_time_that_its_end_takes(name: str) -> None:
    assert seconds(SERVICES[name]["stop_grace_period"]) > LONGEST_STOP[name]


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_limited(name: str) -> None:
    service = SERVICES[name]
    assert {"mem_limit", "cpus", "pids_limit", "logging"} <= set(service)
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]  # noqa: S108 - in the container
    if service["image"] == IMAGE:  # or each would get a volume of its own that nobody removes
        assert last_stage()["VOLUME"] in service["tmpfs"]


@pytest.mark.parametrize("name", LASTING)
def test_a_container_is_watched(name: str) -> None:
    watched = SERVICES[name]["healthcheck"]
    assert {"interval", "timeout", "start_period", "retries"} <= set(watched)
    assert ("test" in watched) == (name != "server")  # the image's, or there would be two


@pytest.mark.parametrize("name", LASTING)
def test_a_container_comes_back_by_itself(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"


# The healthcheck of the image.


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
    ran = subprocess.run(image_healthcheck(), env=environment, capture_output=True, check=False)
    return ran.returncode == 0


def test_the_gate_takes_the_steps_of_the_containers_in_a_clean_environment() -> None:
    """tests/contract/test_deployment.py reads the same two files."""
    gate = (ROOT / ".ci" / "run").read_text()
    assert '\nuv pip install --quiet --python "$work/venv" --require-hashes' in gate
    assert '\nORC_TEST_BIN="$work/venv/bin" uv run pytest -m slow ' in gate
