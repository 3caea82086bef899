"""The OpenAPI document: what FastAPI makes of the routes, with problems told as they are sent."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from compute_orchestrator.routes.problems import MEDIA_TYPE
from compute_orchestrator.schemas.values import Input, Output


def describe(app: FastAPI) -> None:
    """Have the app describe itself. Problems are sent as problem+json alone."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        for operations in document["paths"].values():
            for operation in operations.values():
                for answer in operation["responses"].values():
                    content: dict[str, Any] = answer.get("content", {})
                    if MEDIA_TYPE in content:
                        content.pop("application/json", None)
        _show_examples_whole(document["components"]["schemas"])
        return document

    app.openapi = openapi


def _show_examples_whole(schemas: dict[str, Any]) -> None:
    """FastAPI leaves every null out of the document, those of examples too."""
    for model in (*_below(Input), *_below(Output)):
        extra = model.model_config.get("json_schema_extra")
        if model.__name__ in schemas and isinstance(extra, dict) and "examples" in extra:
            schemas[model.__name__]["examples"] = extra["examples"]


def _below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for derived in model.__subclasses__():
        yield derived
        yield from _below(derived)
