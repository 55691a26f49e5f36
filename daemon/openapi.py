"""What clients may ask, as an OpenAPI document, made of the routes that answer.

OpenAPI 3.1: https://spec.openapis.org/oas/v3.1.1. Knows no route of its own.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from acclimate.daemon.guard import OPEN_PATHS
from acclimate.daemon.status import program_version
from acclimate.daemon.wire import Described

_SCHEMAS = "#/components/schemas/"
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        "message": {"type": "string"},
                        "type": {"type": "string"},
                        "param": {"type": ["string", "null"]},
                        "code": {"type": "string"},
                        "hint": {"type": "string"},
                    },
                    "required": ["message", "type", "param", "code"],
                },
                {"type": "string"},
            ]
        }
    },
    "required": ["error"],
}


def document(routes: Sequence[Described]) -> dict[str, Any]:
    """The OpenAPI document of these routes."""
    models = {model for route in routes for model in (route.body, route.query) if model}
    ordered = sorted(models, key=lambda model: (model.__name__, model.__module__))
    refs, schemas = models_json_schema(
        [(model, "validation") for model in ordered], ref_template=_SCHEMAS + "{model}"
    )
    named = {model: refs[model, "validation"] for model in ordered}
    defined = {**schemas.get("$defs", {}), "Error": _ERROR}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = paths.setdefault(route.path_format, {})
        operation[route.method.lower()] = _operation(route, named, defined)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Acclimate", "version": program_version()},
        "paths": paths,
        "components": {
            "schemas": defined,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(
    route: Described,
    named: dict[type[BaseModel], dict[str, Any]],
    defined: dict[str, Any],
) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _path_schema(convertor)}
        for name, convertor in route.param_convertors.items()
    ]
    if route.query is not None:
        schema = defined[named[route.query]["$ref"].removeprefix(_SCHEMAS)]
        parameters += [
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", []),
                "schema": inner,
            }
            for name, inner in schema["properties"].items()
        ]
    refused = {"$ref": _SCHEMAS + "Error"}
    operation: dict[str, Any] = {
        "summary": route.says,
        "parameters": parameters,
        "responses": {
            str(route.status): {"description": "done", "content": {m: {} for m in route.media}},
            "default": {
                "description": "refused, or failed",
                "content": {"application/json": {"schema": refused}},
            },
        },
    }
    if route.body is not None:
        content = {"application/json": {"schema": named[route.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    if route.path in OPEN_PATHS:
        operation["security"] = []
    return operation


def _path_schema(convertor: object) -> dict[str, Any]:
    whole = type(convertor).__name__ == "IntegerConvertor"
    return {"type": "integer", "minimum": 0} if whole else {"type": "string", "minLength": 1}
