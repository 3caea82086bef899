"""The OpenAPI document: what FastAPI makes of the routes, with problems told as they are sent."""

from typing import Any

from fastapi import FastAPI

from compute_orchestrator.routes.problems import MEDIA_TYPE


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
        return document

    app.openapi = openapi
