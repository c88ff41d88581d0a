"""The `openapi_schema` of a version, as Replicate's clients read it, from what ops wrote. Validates no input."""

from __future__ import annotations

from typing import Any

from gateway.contract.errors import refuse

# For a model of which nothing is said: any object in, anything out.
ANY_INPUT: dict[str, Any] = {"type": "object", "title": "Input", "additionalProperties": True}
ANY_OUTPUT: dict[str, Any] = {"title": "Output"}

_STATUSES = ["starting", "processing", "succeeded", "canceled", "failed"]


def openapi_document(schema: dict[str, Any] | None, *, place: str) -> dict[str, Any]:
    """
    An OpenAPI document with `components.schemas.Input` and `.Output`.

    `schema` is one already, or {"Input": …, "Output": …} with whatever components they refer to, or None.
    Raises ConfigurationError, at `place`.
    """
    if schema is not None and "components" in schema:
        components = schema["components"]
        schemas = components.get("schemas") if isinstance(components, dict) else None
        if not isinstance(schemas, dict) or not isinstance(schemas.get("Input"), dict):
            raise refuse("the schema has no components.schemas.Input", place=place, remedy="describe the input there")
        filled = {**schemas, "Input": _input(schemas["Input"]), "Output": schemas.get("Output", ANY_OUTPUT)}
        return {**schema, "components": {**components, "schemas": filled}}
    parts = schema or {}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise refuse(f'"{name}" of the schema is no object', place=place, remedy="write a JSON schema there")
    schemas = {**parts, "Input": _input(parts.get("Input", ANY_INPUT)), "Output": parts.get("Output", ANY_OUTPUT)}
    return _wrap(schemas)


def _input(schema: dict[str, Any]) -> dict[str, Any]:
    """With `x-order` on every field: clients show and pass fields by it."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return schema
    ordered = {
        name: {"x-order": place, **field} if isinstance(field, dict) else field
        for place, (name, field) in enumerate(properties.items())
    }
    return {"type": "object", "title": "Input", **schema, "properties": ordered}


def _wrap(schemas: dict[str, Any]) -> dict[str, Any]:
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": {
            "/predictions": {
                "post": {
                    "summary": "Predict",
                    "operationId": "predict_predictions_post",
                    "requestBody": {"content": _json("PredictionRequest")},
                    "responses": {
                        "200": {"description": "Successful Response", "content": _json("PredictionResponse")}
                    },
                }
            }
        },
        "components": {
            "schemas": {
                "Status": {"type": "string", "title": "Status", "enum": _STATUSES, "description": "An enumeration."},
                "PredictionRequest": {
                    "type": "object",
                    "title": "PredictionRequest",
                    "properties": {"input": _reference("Input"), "webhook": {"type": "string", "format": "uri"}},
                },
                "PredictionResponse": {
                    "type": "object",
                    "title": "PredictionResponse",
                    "properties": {
                        "id": {"type": "string"},
                        "input": _reference("Input"),
                        "output": _reference("Output"),
                        "status": _reference("Status"),
                        "error": {"type": "string"},
                        "logs": {"type": "string"},
                    },
                },
                **schemas,
            }
        },
    }


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(name)}}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
