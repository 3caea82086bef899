"""What docs/workers-python.md lists is what there is: arguments, the Context, metrics."""

import inspect
import re

from compute_orchestrator.client import Context, JobOptions, Worker
from compute_orchestrator.client.metrics import Metrics
from tests.client.test_tasks import context
from tests.docs.pages import DOCS, prose, tables

PAGE = DOCS / "workers-python.md"


def names(heading: str) -> set[str]:
    """The names in the first column of a section's table; a row may have several."""
    rows = [re.sub(r"\(.*?\)", "", row[0]) for row in tables(PAGE, heading)]
    return {name for row in rows for name in row.split(", ")}


def test_every_argument_of_a_worker_is_documented_with_its_default() -> None:
    parameters = inspect.signature(Worker).parameters
    assert names("A first worker") == set(parameters)
    listed = {name: row[1] for row in tables(PAGE, "A first worker") for name in row[0].split(", ")}
    for name in ("concurrency", "shutdown_seconds", "timeout_seconds"):
        assert f": {parameters[name].default:g}" in listed[name]


def test_every_option_of_a_task_is_documented() -> None:
    options = set(inspect.signature(Worker.task).parameters) - {"self", "name", "process"}
    assert options == set(JobOptions.__annotations__) - {"run_at", "run_in_seconds"}
    text = prose(PAGE)
    assert {name for name in options if f"`{name}`" not in text} == set()


def test_all_that_a_task_can_see_is_documented() -> None:
    seen = {name for name in {*dir(Context), *vars(context())} if not name.startswith("_")}
    assert names("What a task can see") == seen - {"write", "was_left"}  # for the worker


def test_every_metric_of_a_worker_is_documented() -> None:
    made = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in Metrics(()).registry.collect()
    }
    assert names("Metrics") == made
