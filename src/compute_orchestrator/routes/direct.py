"""The busy routes' short way: they solve their own few parameters.

FastAPI's dependency solver is made for every shape of request, and costs more than everything else
that a create or a claim does before the store. A `DirectRoute` takes one JSON body, ids in the
path, headers, and dependencies on the request alone; OpenAPI shows it like any other.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

from compute_orchestrator.domain.errors import ValidationFailed
from compute_orchestrator.routes.problems import validation_failed
from compute_orchestrator.routes.requests import CheckedRequest, ProtocolRoute, read_request

Fault = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value of the path or of a header: its name in the signature, and how it is checked."""

    name: str
    alias: str
    required: bool
    validate: Callable[..., tuple[Any, Any]]


class DirectRoute(ProtocolRoute):
    """A route whose handler is called without FastAPI's solver."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        dependant = self.dependant
        endpoint: Callable[..., Awaitable[Response]] | None = dependant.call
        if endpoint is None or len(dependant.body_params) != 1 or dependant.query_params:
            raise TypeError(f"{self.path} does not fit a DirectRoute")
        body = dependant.body_params[0]
        model: type[BaseModel] = body.field_info.annotation  # pyright: ignore[reportAssignmentType]
        path = _parameters(dependant.path_params)
        headers = _parameters(dependant.header_params)
        dependencies: list[tuple[str, Callable[[Request], Awaitable[Any]]]] = [
            (one.name or "", one.call) for one in dependant.dependencies if one.call is not None
        ]
        request_name = dependant.request_param_name

        async def answer(request: CheckedRequest) -> Response:
            arguments: dict[str, Any] = {}
            _take(arguments, "path", path, request.scope["path_params"])
            if headers:
                _take(arguments, "header", headers, request.headers)
            arguments[body.name] = _checked_body(model, request)
            for name, dependency in dependencies:
                arguments[name] = await dependency(request)
            if request_name is not None:
                arguments[request_name] = request
            return await endpoint(**arguments)

        return self.checked(answer)

    def checked(
        self, answer: Callable[[CheckedRequest], Awaitable[Response]]
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The same checks as on every other route, then the answer."""

        async def handle(request: Request) -> Response:
            self.check_target(request)
            return await answer(await read_request(request, takes_body=True))

        return handle


def _parameters(fields: Any) -> list[Parameter]:
    return [
        Parameter(field.name, field.alias, field.field_info.is_required(), field.validate)
        for field in fields
    ]


def _take(
    arguments: dict[str, Any], place: str, parameters: list[Parameter], values: Mapping[str, str]
) -> None:
    for parameter in parameters:
        value = values.get(parameter.alias)
        if value is None and not parameter.required:
            arguments[parameter.name] = None
            continue
        checked, faults = parameter.validate(value, {}, loc=(place, parameter.alias))
        if faults:
            raise validation_failed(faults)
        arguments[parameter.name] = checked


def _checked_body(model: type[BaseModel], request: CheckedRequest) -> BaseModel:
    if not request.checked_body:
        raise ValidationFailed(
            "The request needs a JSON body.", [("body", "is required: a JSON object")]
        )
    try:
        return model.model_validate(request.checked_json)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise validation_failed(
            [{**fault, "loc": ("body", *fault["loc"])} for fault in found]
        ) from None
