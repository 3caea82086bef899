"""How a command ends: THE map from what went wrong to the exit code and the sentence for it."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from compute_orchestrator.client import ClientError

OK: Final = 0
FAILED: Final = 1
MISUSED: Final = 2
NOT_FOUND: Final = 3
CONFLICT: Final = 4
UNAVAILABLE: Final = 5
TIMED_OUT: Final = 6
INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141

MEANINGS: Final[Mapping[int, str]] = {
    OK: "done; jobs that were waited for have all succeeded",
    FAILED: "a job ended badly, the server refused, or the command failed",
    MISUSED: "called with what can't work, whether orc or the server says so",
    NOT_FOUND: "there is no such job",
    CONFLICT: "the job's status, or a used idempotency key, forbids it",
    UNAVAILABLE: "the server is not there, or not now: the same call may do later",
    TIMED_OUT: "the time to wait was over first",
    INTERRUPTED: "Ctrl-C",
    PIPE_CLOSED: "nobody reads the output any more",
}

EPILOG: Final = "\n".join(
    ("Exit codes:", *(f"{code:>4}  {meaning}" for code, meaning in MEANINGS.items()))
)


CLIENT_ERRORS: Final = "compute_orchestrator.client.errors"


@dataclass(frozen=True, slots=True)
class Ending:
    code: int
    sentence: str


def stop(sentence: str, *, code: int = FAILED) -> NoReturn:
    """Say why, and end the command."""
    complain(sentence)
    raise typer.Exit(code)


def complain(sentence: str) -> None:
    """A message for people: never on standard output."""
    typer.echo(f"orc: {sentence}", err=True)


def ending_of(error: "ClientError") -> Ending:
    """What a call's error means for the one who called the command."""
    from compute_orchestrator.client import errors

    match error:
        case errors.ResultTimeout():
            return Ending(TIMED_OUT, str(error))
        case errors.NoResult():
            return Ending(FAILED, str(error))
        case errors.ConnectFailed():
            return Ending(UNAVAILABLE, f"the server can't be reached: {error}")
        case errors.ValidationFailed() if error.errors:
            return Ending(MISUSED, "; ".join(map(fault_in_words, error.errors)))
        case errors.Problem():
            return Ending(_code_of(error), error.detail)
        case _:
            return Ending(UNAVAILABLE, f"the server gave no usable answer: {error}")


def fault_in_words(fault: Mapping[str, str]) -> str:
    where = fault.get("where", "").removeprefix("body.").removeprefix("query.")
    return f"{where}: {fault.get('what', '')}" if where else fault.get("what", "")


def _code_of(error: "ClientError") -> int:
    from compute_orchestrator.client import errors
    from compute_orchestrator.client.retries import is_passing

    if is_passing(error):
        return UNAVAILABLE
    match error:
        case errors.NotFound(code=None):  # another program has the port
            return UNAVAILABLE
        case errors.NotFound():
            return NOT_FOUND
        case errors.Conflict() | errors.IdempotencyMismatch():
            return CONFLICT
        case errors.BadInput():
            return MISUSED
        case _:
            return FAILED


class Commands(TyperGroup):
    """All commands. What is expected to go wrong ends here, and never in a traceback.

    The context is of another class in each second version of typer, so its type is left open.
    """

    def invoke(self, ctx: Any) -> object:
        try:
            try:
                return super().invoke(ctx)
            except Exception as error:
                end_if_expected(error)
                raise
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            drop_output()
            raise typer.Exit(PIPE_CLOSED) from None


def end_if_expected(error: Exception) -> None:
    if CLIENT_ERRORS not in sys.modules:  # none of its errors can have been raised
        return
    from compute_orchestrator.client.errors import ClientError

    if isinstance(error, ClientError):
        ending = ending_of(error)
        complain(ending.sentence)
        raise typer.Exit(ending.code) from None


def drop_output() -> None:
    """What is still in the buffer goes nowhere: the interpreter would complain about it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
