"""What the demo shows on a terminal and elsewhere."""

import io

from rich.console import Console

from compute_orchestrator.cli.demo_report import Report
from compute_orchestrator.cli.demo_view import View

REPORT = Report(
    jobs=1234,
    unparsed=9,
    lines=56_789,
    functions=1,
    classes=2,
    imports=3,
    recovered=4,
    retries=5,
    jobs_per_second=99.6,
    top_modules=[("os", 12), ("sys", 11), ("json", 10)],
)


def shown(view: View) -> str:
    assert isinstance(view.console.file, io.StringIO)
    return view.console.file.getvalue()


def view(*, terminal: bool) -> View:
    return View(Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False))


def test_without_a_terminal_progress_is_a_line_a_quarter() -> None:
    plain = view(terminal=False)
    with plain:
        for done in range(101):
            plain.count(total=100, claimed=done, recovered=1, done=done)
    assert shown(plain).split("\n") == [
        "25 of 100: claimed 25, recovered 1, done 25",
        "50 of 100: claimed 50, recovered 1, done 50",
        "75 of 100: claimed 75, recovered 1, done 75",
        "100 of 100: claimed 100, recovered 1, done 100",
        "",
    ]


def test_on_a_terminal_there_is_a_bar() -> None:
    live = view(terminal=True)
    with live:
        live.count(total=100, claimed=60, recovered=2, done=50)
    assert "50/100" in shown(live)
    assert "claimed 60, recovered 2, done 50" in shown(live)


def test_brackets_in_a_path_are_no_markup_and_long_lines_stay_whole() -> None:
    plain = view(terminal=False)
    line = f"[bold]{'x' * 200}.py"
    plain.say(line)
    assert shown(plain) == f"{line}\n"


def test_the_report_shows_numbers_and_modules() -> None:
    plain = view(terminal=False)
    plain.report(REPORT)
    text = shown(plain)
    for words in ("1,234", "56,789", "100", "files that do not parse", "json", "12"):
        assert words in text
