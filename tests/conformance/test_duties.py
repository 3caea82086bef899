"""The duties are the same in the page, in the checks and in the examples."""

import re
from typing import Final

import pytest

from compute_orchestrator.conformance.checks import CHECKS
from compute_orchestrator.conformance.duties import DUTIES, SYNC
from compute_orchestrator.conformance.stage import ECHO, FAIL, SLEEP
from tests.conformance.workers import ALL
from tests.docs.pages import DOCS, prose, tables

WORKERS: Final = DOCS / "workers.md"


def test_they_are_numbered_along_a_workers_life() -> None:
    assert [duty.number for duty in DUTIES] == list(range(1, len(DUTIES) + 1))


def test_the_page_has_each_of_them_under_its_title() -> None:
    found = re.findall(r"^### (W\d+)\. (.+)$", prose(WORKERS), re.MULTILINE)
    assert found == [(duty.name, duty.title) for duty in DUTIES]


def test_each_has_a_check() -> None:
    assert {check.duty for check in CHECKS} == set(DUTIES)


def test_the_page_says_which_jobs_the_worker_must_know() -> None:
    names = {row[0] for row in tables(WORKERS, "Check your worker")}
    assert {ECHO, SLEEP, FAIL} <= names


@pytest.mark.parametrize("name", ALL)
def test_an_example_says_where_it_does_them(name: str) -> None:
    named = set(re.findall(r"\bW\d+\b", ALL[name].path.read_text()))
    assert named >= {duty.name for duty in DUTIES if duty is not SYNC}


@pytest.mark.parametrize("name", ALL)
def test_an_example_knows_the_jobs_of_the_checks(name: str) -> None:
    text = ALL[name].path.read_text()
    assert all(job in text for job in (ECHO, SLEEP, FAIL))
