"""A function that runs jobs: what it is called with, checked before; what it returns, as JSON."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NotRequired, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, to_json
from typing_extensions import TypedDict

from compute_orchestrator.client.context import Context
from compute_orchestrator.client.models import Json
from compute_orchestrator.client.names import check_name
from compute_orchestrator.client.outcomes import PayloadMismatch, Plain, as_json, checked

if TYPE_CHECKING:
    from compute_orchestrator.client.processes import Processes

Function = Callable[..., Any]

# What pydantic says of the payload's own fields, in the words of a call.
OWN_WORDS = {"missing": "is missing", "extra_forbidden": "the task takes no such argument"}


@dataclass(frozen=True)
class Task:
    name: str
    function: Function
    is_async: bool
    signature: inspect.Signature
    """Of what a payload brings: without the argument that takes the Context."""
    context_argument: str | None
    payload: TypeAdapter[dict[str, object]]
    result: Plain | None
    """Makes a result JSON by its type; None where it is made so by what it is itself."""
    processes: "Processes | None" = None
    """Where it runs, if neither on the loop nor in a thread."""

    @classmethod
    def of(cls, name: str, function: Function, *, processes: "Processes | None" = None) -> "Task":
        """Raises TypeError for a function that can't be called with a payload's fields."""
        check_name(name, "a task")
        body = _body(function)
        if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
            raise TypeError(f"task {name!r}: a generator has no one result; return a list")
        is_async = inspect.iscoroutinefunction(body)
        if processes is not None:
            _check_for_process(name, function, is_async=is_async)
        signature = inspect.signature(function)
        hints = _hints(name, body)
        context = _context_argument(signature, hints)
        given = [p for p in signature.parameters.values() if p.name != context]
        return cls(
            name,
            function,
            is_async,
            signature.replace(parameters=given),
            context,
            _payload(name, given, hints),
            _result(hints),
            processes,
        )

    @property
    def body(self) -> Function:
        """The function that is called in the end, below partials and objects."""
        return _body(self.function)

    @property
    def can_be_stopped(self) -> bool:
        """A thread can't be; it has to look at `Context.cancel_requested`."""
        return self.is_async or self.processes is not None

    def bind(self, payload: Json, context: Context) -> dict[str, object]:
        """The arguments of one call. Raises PayloadMismatch, which names every bad field."""
        if payload is None:
            payload = {}
        if not isinstance(payload, dict):
            raise PayloadMismatch("the payload is no object, so it names no arguments")
        try:
            # From JSON, not from Python's types: strict models take dates and sets from it too.
            bound = self.payload.validate_json(to_json(payload))
        except ValidationError as error:
            raise PayloadMismatch(_faults(error)) from error
        if self.context_argument is not None:
            bound[self.context_argument] = context
        return bound

    def payload_of(self, *args: object, **kwargs: object) -> dict[str, Json]:
        """The payload that brings these arguments. ValueError where one is not of its type."""
        given = self.signature.bind(*args, **kwargs).arguments
        for parameter in self.signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(parameter.name, {})
        try:
            bound = self.payload.validate_python(given, by_name=True)
        except ValidationError as error:
            raise ValueError(f"task {self.name!r}: {_faults(error)}") from error
        return self.payload.dump_python(bound, mode="json", by_alias=True)

    def plain(self, result: object) -> Json:
        """The result as JSON, by the type that the function says it returns."""
        return as_json(result) if self.result is None else checked(result, self.result)


def _body(function: Function) -> Function:
    """What runs: a partial's function, the `__call__` of an object."""
    while isinstance(function, partial):
        function = cast("partial[Any]", function).func
    return function if inspect.isroutine(function) else type(function).__call__


def _hints(name: str, body: Function) -> dict[str, Any]:
    try:
        return get_type_hints(body, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"task {name!r}: {error}; its types must be importable where the module runs,"
            " not only while types are checked"
        ) from error


def _check_for_process(name: str, function: Function, *, is_async: bool) -> None:
    if is_async:
        raise TypeError(f"task {name!r}: an async function runs on the loop, not in a process")
    if not inspect.isfunction(function) or "<" in function.__qualname__:
        raise TypeError(
            f"task {name!r}: a process finds its function by name; it must stand in a module"
        )


def _context_argument(signature: inspect.Signature, hints: Mapping[str, Any]) -> str | None:
    """The first that is annotated `Context`, else an unannotated `job`."""
    names = list(signature.parameters)
    annotated = [name for name in names if hints.get(name) is Context]
    unannotated = [name for name in names if name == "job" and name not in hints]
    return next(iter(annotated + unannotated), None)


def _payload(
    task: str, given: list[inspect.Parameter], hints: Mapping[str, Any]
) -> TypeAdapter[dict[str, object]]:
    """All arguments as one type: a job costs one validation, not one for each argument."""
    fields: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for parameter in given:
        hint = hints.get(parameter.name, Any)
        if parameter.kind is parameter.VAR_KEYWORD:
            others = {"extra_items": hint}
        else:
            fields[parameter.name] = hint if _is_required(task, parameter) else NotRequired[hint]
    make = cast("Callable[..., type[dict[str, object]]]", TypedDict)
    arguments = make("arguments", fields, **others)
    return TypeAdapter(arguments if others else with_config(ConfigDict(extra="forbid"))(arguments))


def _is_required(task: str, parameter: inspect.Parameter) -> bool:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise TypeError(f"task {task!r}: a payload's field can't be given to {parameter}")
    if isinstance(parameter.default, FieldInfo):
        raise TypeError(f"task {task!r}: write {parameter.name} as Annotated[..., Field(...)]")
    return parameter.default is parameter.empty


def _result(hints: Mapping[str, Any]) -> Plain | None:
    hint = hints.get("return", Any)
    if hint in (Any, object):
        return None
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
    except PydanticUserError:  # no type that pydantic knows how to write
        return None
    # A type that does not fit is only warned of, unless one asks for an error.
    return partial(adapter.serializer.to_python, mode="json", warnings="error")


def _faults(error: ValidationError) -> str:
    return "; ".join(map(_fault, error.errors(include_url=False)))


def _fault(found: ErrorDetails) -> str:
    where = found["loc"]
    what = OWN_WORDS.get(found["type"]) if len(where) == 1 else None
    return f"{'.'.join(map(str, where))}: {what or found['msg']}"
