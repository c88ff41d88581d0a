"""A caller's input against a manifest: defaults, types, bounds, in Replicate's words. Opens no file in it."""

from __future__ import annotations

from typing import Any

from gateway.contract.errors import InputInvalid, InvalidField
from local_backend.manifest import Field, Manifest


def invalid(key: str, description: str, type: str = "format") -> InputInvalid:
    """One wrong field of the input."""
    return InputInvalid((InvalidField(type=type, field=f"input.{key}", description=description),))


def check_input(manifest: Manifest, given: dict[str, Any]) -> dict[str, Any]:
    """The input with defaults, without unknown keys (Replicate drops them). Raises InputInvalid with every finding."""
    findings: list[InvalidField] = []
    checked: dict[str, Any] = {}
    for key, field in manifest.input.items():
        value = given.get(key, field.default)
        if value is None:
            if field.is_required and key not in given:
                findings.append(InvalidField(type="required", field="input", description=f"{key} is required"))
            elif key in given and not field.optional:
                findings.append(_wrong_type(key, field, value))
            continue
        finding = _check(key, field, value)
        if finding is not None:
            findings.append(finding)
        checked[key] = value
    if findings:
        raise InputInvalid(tuple(findings))
    return checked


_EXPECTED = {"file:image": "string", "texts": "string", "tensor": "array"}


def _check(key: str, field: Field, value: Any) -> InvalidField | None:
    if not _is_type(field.type, value):
        return _wrong_type(key, field, value)
    name = f"input.{key}"
    # 1 == True == 1.0 in Python, not in JSON.
    if field.enum and not any(type(value) is type(one) and value == one for one in field.enum):
        allowed = ", ".join(f'"{one}"' if isinstance(one, str) else str(one) for one in field.enum)
        return InvalidField(type="enum", field=name, description=f"{key} must be one of the following: {allowed}")
    if field.minimum is not None and value < field.minimum:
        return InvalidField(
            type="number_gte", field=name, description=f"Must be greater than or equal to {field.minimum:g}"
        )
    if field.maximum is not None and value > field.maximum:
        return InvalidField(
            type="number_lte", field=name, description=f"Must be less than or equal to {field.maximum:g}"
        )
    return None


def _is_type(kind: str, value: Any) -> bool:
    match kind:
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "tensor":
            return isinstance(value, list | dict | int | float | bool)
        case "texts":
            return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))
        case _:
            return isinstance(value, str)


_GIVEN = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"), (dict, "object"))


def _wrong_type(key: str, field: Field, value: Any) -> InvalidField:
    given = next((name for kind, name in _GIVEN if isinstance(value, kind)), "null")
    expected = _EXPECTED.get(field.type, field.type)
    return InvalidField(
        type="invalid_type", field=f"input.{key}", description=f"Invalid type. Expected: {expected}, given: {given}"
    )
