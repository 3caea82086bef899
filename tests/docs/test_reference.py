"""What the reference pages list is what there is: settings, calls, codes, fields, commands."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from typing import Any, Literal, cast, get_args, get_origin

import annotated_types
import pytest
import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.core import TyperCommand, TyperGroup, TyperOption

from compute_orchestrator.cli.app import app as orc
from compute_orchestrator.cli.exits import MEANINGS
from compute_orchestrator.domain import errors, values
from compute_orchestrator.domain.lifecycle import Action, Status
from compute_orchestrator.main import create_app
from compute_orchestrator.routes.problems import ROUTER_CODES, STATUS
from compute_orchestrator.schemas.claims import ClaimInput, ClaimOutput
from compute_orchestrator.schemas.heartbeats import HeartbeatInput, HeartbeatOutput
from compute_orchestrator.schemas.jobs import (
    EventOutput,
    EventsQuery,
    JobInput,
    JobOutput,
    ListQuery,
    RetryInput,
)
from compute_orchestrator.schemas.reports import ReportInput
from compute_orchestrator.settings import Settings
from tests.docs.pages import (
    DOCS,
    PAGES,
    PROTOCOL,
    blocks,
    code_parts,
    code_words,
    prose,
    short,
    tables,
)

SETTINGS = DOCS / "settings.md"
CLI = DOCS / "cli.md"
CLIENTS = {"ORC_URL", "ORC_WORKER_ID", "ORC_QUEUES"}
"""Where the command and workers find the server; the server itself does not read it."""
SETTING = re.compile(r"\bORC_[A-Z_]+\b")

OPENAPI: dict[str, Any] = create_app().openapi()
ORC = typer.main.get_group(orc)
Command = TyperGroup | TyperCommand


def settings_in_the_page() -> Iterator[list[str]]:
    for heading in re.findall(r"^## (.+)$", SETTINGS.read_text(), re.MULTILINE):
        yield from tables(SETTINGS, heading)


def allowed(field: FieldInfo) -> str:
    """A setting's bounds in words."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(get_args(field.annotation))
    if field.annotation is bool:
        return "0 or 1"
    low = high = None
    for bound in field.metadata:
        match bound:
            case annotated_types.Ge(ge=value):
                low = f"at least {value}"
            case annotated_types.Gt(gt=value):
                low = f"more than {value}"
            case annotated_types.Le(le=value):
                high = f"at most {value}"
            case _:
                pass
    if low and high and low.startswith("at least "):
        return f"{low.removeprefix('at least ')} to {high.removeprefix('at most ')}"
    return ", ".join(filter(None, (low, high)))


def test_every_setting_is_documented_with_its_default_and_its_bounds() -> None:
    listed = {name: row for name, *row in settings_in_the_page()}
    assert set(listed) == {f"ORC_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        default, bounds, unit, why = listed[f"ORC_{name.upper()}"]
        written = "" if default == "empty" else default
        assert getattr(Settings.model_validate({name: written}), name) == field.default, name
        assert bounds == allowed(field), name
        for suffix in ("seconds", "bytes"):
            assert (unit == suffix) == name.endswith(f"_{suffix}"), name
        assert why, name


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_settings_that_a_page_names_exist(page: Any) -> None:
    named = set(SETTING.findall(page.read_text()))
    assert named - {f"ORC_{name.upper()}" for name in Settings.model_fields} - CLIENTS == set()


def test_every_call_is_documented() -> None:
    calls = {
        f"{method.upper()} {path}" for path, item in OPENAPI["paths"].items() for method in item
    }
    assert {row[0] for row in tables(PROTOCOL, "All calls")} == calls


def codes() -> dict[str, int]:
    """Every code that can reach a client, and its HTTP status."""
    return {
        **{kind.code: status for kind, status in STATUS.items()},
        **{code: status for status, (code, _) in ROUTER_CODES.items()},
        errors.OrchestratorError.code: 500,
    }


def test_every_error_code_is_documented_with_its_status() -> None:
    listed = {code: int(status) for code, status, _ in tables(PROTOCOL, "Problems")}
    assert listed == codes()


def test_every_error_of_the_domain_has_a_status() -> None:
    def below(kind: type[errors.OrchestratorError]) -> Iterator[type[errors.OrchestratorError]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    reaching = {kind for kind in below(errors.OrchestratorError) if "code" in kind.__dict__}
    assert reaching == set(STATUS)


def listed_fields(heading: str) -> set[str]:
    """The names in the first column of a table; a row may have several."""
    return {name for row in tables(PROTOCOL, heading) for name in row[0].split(", ")}


def fields(*models: type[BaseModel]) -> set[str]:
    return {name for model in models for name in model.model_fields}


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("The job", JobOutput),
        ("Create", JobInput),
        ("List", ListQuery),
        ("Events", EventOutput),
    ],
)
def test_every_field_of_a_table_exists_and_none_is_missing(
    heading: str, model: type[BaseModel]
) -> None:
    assert listed_fields(heading) == fields(model)


@pytest.mark.parametrize(
    ("heading", "models"),
    [
        ("Create", [RetryInput]),
        ("Claim", [ClaimInput]),
        ("Heartbeat", [HeartbeatInput, HeartbeatOutput]),
        ("Report", [ReportInput]),
        ("Events", [EventsQuery]),
    ],
)
def test_a_section_names_every_field(heading: str, models: list[type[BaseModel]]) -> None:
    text = prose(PROTOCOL)
    section = re.search(rf"^## {heading}\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert section
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", section[1]))))
    assert fields(*models) - named == set()


def test_the_claims_answer_is_a_job_and_its_token() -> None:
    assert fields(ClaimOutput) - fields(JobOutput) == {"lease_token"}
    assert "`lease_token`" in PROTOCOL.read_text()


def test_defaults_of_a_create_are_documented() -> None:
    listed = {row[0]: row[1] for row in tables(PROTOCOL, "Create")}
    job = JobInput.model_validate({"name": "x"}).to_domain(1)
    assert listed["queue"] == f'"{job.queue}"'
    assert listed["priority"] == str(job.priority)
    assert listed["max_retries"] == str(job.max_retries)
    assert (job.lease_seconds, job.timeout_seconds, job.payload, job.run_at) == (None,) * 4
    assert {listed[name] for name in ("lease_seconds", "timeout_seconds", "payload")} == {"null"}


def test_every_status_action_and_actor_is_documented() -> None:
    words = code_words(PROTOCOL)
    actors = {values.PRODUCER, values.OPERATOR, values.REAPER, values.SERVER}
    assert {status.value for status in Status} - words == set()
    assert {action.value for action in Action} - words == set()
    assert actors - words == set()


def subcommands(group: TyperGroup) -> dict[str, Command]:
    return cast("dict[str, Command]", group.commands)


def commands(group: TyperGroup, above: str = "orc") -> Iterator[tuple[str, Command]]:
    """Every command that does something, with the words that call it."""
    for name, command in subcommands(group).items():
        if not isinstance(command, TyperGroup) or command.invoke_without_command:
            yield f"{above} {name}", command
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{above} {name}")


def options(command: Command) -> set[str]:
    return {
        name
        for parameter in command.params
        if isinstance(parameter, TyperOption) and not parameter.hidden
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


def test_every_command_and_flag_is_documented() -> None:
    listed = {row[0]: set(filter(None, row[1].split())) for row in tables(CLI, "All commands")}
    assert listed == {words: options(command) for words, command in commands(ORC)}
    assert options(ORC) <= code_parts(CLI)


def test_every_exit_code_is_documented() -> None:
    listed = {int(code): meaning for code, meaning in tables(CLI, "Exit codes")}
    assert listed == MEANINGS


def shown_commands() -> Iterator[tuple[str, list[str]]]:
    """The calls of `orc` that the pages show, without the program."""
    for page in PAGES:
        for block in blocks(page):
            if block.language in ("console", "bash"):
                for line in block.text.splitlines():
                    found = re.match(r"(?:uv run )?orc (.*)", line)
                    if found:
                        yield short(page), up_to_the_shell(found[1])


def up_to_the_shell(line: str) -> list[str]:
    """The words of a command; pipes and redirections are the shell's."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    mine = list(takewhile(lambda word: not set(word) <= set("|&;<>()"), words))
    is_redirected = mine and mine[-1].isdecimal() and f"{mine[-1]}>" in line
    return mine[:-1] if is_redirected else mine


def test_commands_that_the_pages_show_exist() -> None:
    shown = list(shown_commands())
    assert shown
    for page, words in shown:
        command: Command = ORC
        while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
            assert words[0] in command.commands, (page, words)
            command = subcommands(command)[words.pop(0)]
        if isinstance(command, TyperGroup):
            flags = {word for word in words if word.startswith("-")}
            assert flags <= options(command), (page, words)
        else:
            command.make_context(command.name or "", words)  # refuses unknown flags
