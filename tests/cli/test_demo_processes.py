"""The demo's own processes: what dies is told, what is left is ended."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from compute_orchestrator.cli import demo_processes
from compute_orchestrator.cli.demo_processes import Child, Children, DemoFailed
from compute_orchestrator.cli.signals import Interrupts

pytestmark = pytest.mark.process

WAITS = "import signal; print('ready', flush=True); signal.pause()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITS}"
DIES = "import sys; sys.exit('what happened')"
SAYS = "print('the answer is 42')"
NOTES = (
    "import signal; signal.signal(signal.SIGTERM, lambda *_: None); print('ready', flush=True);"
    " signal.pause(); open('{path}', 'a').write(f'{{os.getpid()}} ')"
)
SHOWS = "import os; print([name for name in os.environ if name.startswith('ORC_')])"


def start(children: Children, program: str) -> Child:
    """A line of Python, started and ready."""
    child = children.start("child", [sys.executable, "-c", program], {"ORC_GIVEN": "1"})
    while child.is_alive and "ready" not in child.last_words():
        pass
    return child


def test_one_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        child = start(children, DIES)
        with pytest.raises(DemoFailed, match=r"child ended by itself; it said:\nwhat happened"):
            child.check_alive()


async def test_what_it_says_is_heard_also_when_it_ends_with_that(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        child = start(children, SAYS)
        assert (await child.until_it_says(r"^the answer is (\d+)$"))[1] == "42"


async def test_one_that_ends_before_it_is_ready_is_told_with_its_last_words(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        child = start(children, DIES)
        with pytest.raises(DemoFailed, match="what happened"):
            await child.until_it_says("ready")


async def test_one_that_never_gets_ready_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_processes, "START_SECONDS", 0.1)
    with Children(tmp_path) as children:
        child = start(children, WAITS)
        with pytest.raises(DemoFailed, match="child did not start"):
            await child.until_it_says("nothing")


def test_the_last_that_was_started_is_ended_first(tmp_path: Path) -> None:
    ended = f"import os; {NOTES.format(path=tmp_path / 'ended')}"
    with Children(tmp_path) as children:
        pids = [start(children, ended).pid for _ in range(3)]
    assert [int(pid) for pid in (tmp_path / "ended").read_text().split()] == pids[::-1]


def test_it_sees_no_setting_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORC_DATABASE_URL", "sqlite+aiosqlite:////precious.db")
    with Children(tmp_path) as children:
        child = start(children, SHOWS)
        child.process.wait()
        assert child.last_words() == "['ORC_GIVEN']"


def test_all_are_ended_also_frozen_and_deaf_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_processes, "STOP_SECONDS", 0.5)
    with Children(tmp_path) as children:
        plain, frozen, deaf = (start(children, program) for program in (WAITS, WAITS, DEAF))
        frozen.signal(signal.SIGSTOP)
    assert [child.process.returncode for child in (plain, frozen, deaf)] == [
        -signal.SIGTERM,
        -signal.SIGTERM,
        -signal.SIGKILL,
    ]


def test_one_that_was_let_go_stays(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        child = start(children, WAITS)
        children.let_go(child)
    assert child.is_alive
    child.process.kill()
    child.process.wait()


async def signalled(number: signal.Signals) -> None:
    """Only the signal ends it."""
    os.kill(os.getpid(), number)
    await asyncio.Event().wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_and_later_ones_leave_the_cleanup_alone(
    number: signal.Signals,
) -> None:
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            interrupts.run(signalled(number))
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_signal_outside_the_loop_ends_the_run_too() -> None:
    with Interrupts(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)


def test_once_the_cleanup_has_begun_signals_do_nothing() -> None:
    with Interrupts() as interrupts:
        interrupts.ignore()
        os.kill(os.getpid(), signal.SIGINT)
