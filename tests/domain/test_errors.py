"""The tree of errors is the one that is drawn, and codes are stable and unique."""

import inspect
import re
from collections.abc import Iterator

from compute_orchestrator.domain import errors
from compute_orchestrator.domain.errors import OrchestratorError

_LINE = re.compile(r"^((?:│   |    )*)[├└]── (\w+)(?: +([a-z]+(?:-[a-z]+)*))?", re.MULTILINE)


def family(parent: type[OrchestratorError]) -> Iterator[type[OrchestratorError]]:
    for child in parent.__subclasses__():
        yield child
        yield from family(child)


def drawn() -> dict[str, tuple[int, str | None]]:
    """Each name with its depth in the picture, and its code."""
    picture = inspect.getdoc(errors) or ""
    return {
        name: (len(indent) // 4 + 1, code or None) for indent, name, code in _LINE.findall(picture)
    }


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    real = {
        error.__name__: (
            len(error.__mro__) - len(OrchestratorError.__mro__),
            vars(error).get("code"),
        )
        for error in family(OrchestratorError)
    }
    assert drawn() == real


def test_no_two_errors_share_a_code() -> None:
    codes = [vars(error)["code"] for error in family(OrchestratorError) if "code" in vars(error)]
    assert len(codes) == len(set(codes))
