"""A function that runs jobs: what it is called with, checked before it is called."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, to_json

from compute_orchestrator.client.context import Context
from compute_orchestrator.client.models import Json
from compute_orchestrator.client.names import check_name
from compute_orchestrator.client.outcomes import PayloadMismatch

Function = Callable[..., Any]


@dataclass(frozen=True)
class Argument:
    """One that comes from the payload."""

    adapter: TypeAdapter[Any]
    required: bool


@dataclass(frozen=True)
class Task:
    name: str
    function: Function
    is_async: bool
    context_argument: str | None
    arguments: Mapping[str, Argument]
    others: TypeAdapter[Any] | None  # of `**others`, where the function takes them

    @classmethod
    def of(cls, name: str, function: Function) -> "Task":
        """Raises TypeError for a function that can't be called with a payload's fields."""
        check_name(name, "a task")
        body = _body(function)
        if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
            raise TypeError(f"task {name!r}: a generator has no one result; return a list")
        parameters = list(inspect.signature(function).parameters.values())
        hints = _hints(name, body)
        context = _context_argument(parameters, hints)
        arguments: dict[str, Argument] = {}
        others = None
        for parameter in parameters:
            if parameter.name == context:
                continue
            adapter: TypeAdapter[Any] = TypeAdapter(hints.get(parameter.name, Any))
            if parameter.kind is parameter.VAR_KEYWORD:
                others = adapter
            else:
                arguments[parameter.name] = Argument(adapter, _is_required(name, parameter))
        return cls(name, function, inspect.iscoroutinefunction(body), context, arguments, others)

    def bind(self, payload: Json, context: Context) -> dict[str, object]:
        """The arguments of one call. Raises PayloadMismatch, which names every bad field."""
        if payload is None:
            payload = {}
        if not isinstance(payload, dict):
            raise PayloadMismatch("the payload is no object, so it names no arguments")
        given = cast("dict[str, Json]", payload)
        bound: dict[str, object] = {}
        faults = [
            f"{name}: is missing"
            for name, argument in self.arguments.items()
            if argument.required and name not in given
        ]
        for name, value in given.items():
            adapter = self.arguments[name].adapter if name in self.arguments else self.others
            if adapter is None or name == self.context_argument:
                faults.append(f"{name}: the task takes no such argument")
                continue
            try:
                # From JSON, not from Python's types: strict models take dates and sets from it too.
                bound[name] = adapter.validate_json(to_json(value))
            except ValidationError as error:
                faults += [_fault(name, found) for found in error.errors(include_url=False)]
        if faults:
            raise PayloadMismatch("; ".join(faults))
        if self.context_argument is not None:
            bound[self.context_argument] = context
        return bound


def _body(function: Function) -> Function:
    """What runs: a partial's function, the `__call__` of an object."""
    while isinstance(function, functools.partial):
        function = cast("functools.partial[Any]", function).func
    return function if inspect.isroutine(function) else type(function).__call__


def _hints(name: str, body: Function) -> dict[str, Any]:
    try:
        return get_type_hints(body, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"task {name!r}: {error}; its types must be importable where the module runs,"
            " not only while types are checked"
        ) from error


def _context_argument(parameters: list[inspect.Parameter], hints: Mapping[str, Any]) -> str | None:
    """The first that is annotated `Context`, else an unannotated `job`."""
    annotated = [p.name for p in parameters if hints.get(p.name) is Context]
    unannotated = [p.name for p in parameters if p.name == "job" and p.name not in hints]
    return next(iter(annotated + unannotated), None)


def _is_required(task: str, parameter: inspect.Parameter) -> bool:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise TypeError(f"task {task!r}: a payload's field can't be given to {parameter}")
    if isinstance(parameter.default, FieldInfo):
        raise TypeError(f"task {task!r}: write {parameter.name} as Annotated[..., Field(...)]")
    return parameter.default is parameter.empty


def _fault(name: str, found: ErrorDetails) -> str:
    where = ".".join([name, *map(str, found["loc"])])
    return f"{where}: {found['msg']}"
