"""
The keywords of a JSON schema that stand alone: `enum`, those of numbers, those of strings. Each is a check, or None.

Types and texts are those of gojsonschema's default locale. What schemas are made of is for `validation`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gateway.contract.data_uri import is_sound
from gateway.contract.errors import InvalidField

# (value, dotted path or "" at the root, errors found so far)
Check = Callable[[Any, str, list[InvalidField]], None]
MOST_ERRORS = 100

_NEVER_IN_URLS = re.compile(r"[\x00-\x20\\\x7f]")


def type_name(value: Any) -> str:
    """What JSON Schema calls the type of a decoded value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def add(errors: list[InvalidField], type: str, path: str, description: str) -> None:
    if len(errors) < MOST_ERRORS:
        errors.append(InvalidField(type=type, field=path, description=description))


def enum_check(schema: dict[str, Any]) -> Check | None:
    if not isinstance(schema.get("enum"), list):
        return None
    # Through JSON, so that 1 and true, or "1" and 1, are two.
    values = frozenset(_canonical(value) for value in schema["enum"])
    listed = ", ".join(msgspec.json.encode(value).decode() for value in schema["enum"])

    def check(value: Any, path: str, errors: list[InvalidField]) -> None:
        if _canonical(value) not in values:
            add(errors, "enum", path, f"{path or '(root)'} must be one of the following: {listed}")

    return check


def _canonical(value: Any) -> bytes:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return msgspec.json.encode(value, order="sorted")


def number_check(schema: dict[str, Any]) -> Check | None:
    least, most, step = schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    # JSON Schema draft 4, and so OpenAPI 3.0, has booleans here, later drafts numbers.
    if isinstance(above, bool):
        above, least = (least, None) if above else (None, least)
    if isinstance(below, bool):
        below, most = (most, None) if below else (None, most)
    if (least, most, step, above, below) == (None,) * 5:
        return None

    def check(value: Any, path: str, errors: list[InvalidField]) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return
        if step and not _is_multiple(value, step):
            add(errors, "multiple_of", path, f"Must be a multiple of {_shown(step)}")
        if most is not None and value > most:
            add(errors, "number_lte", path, f"Must be less than or equal to {_shown(most)}")
        if below is not None and value >= below:
            add(errors, "number_lt", path, f"Must be less than {_shown(below)}")
        if least is not None and value < least:
            add(errors, "number_gte", path, f"Must be greater than or equal to {_shown(least)}")
        if above is not None and value <= above:
            add(errors, "number_gt", path, f"Must be greater than {_shown(above)}")

    return check


def _is_multiple(value: float, step: float) -> bool:
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0
    try:
        quotient = value / step
        return abs(quotient - round(quotient)) < 1e-9
    except OverflowError:
        return False


def _shown(limit: Any) -> str:
    return str(int(limit)) if isinstance(limit, float) and limit.is_integer() else str(limit)


def string_check(schema: dict[str, Any]) -> Check | None:
    least, most, pattern = schema.get("minLength"), schema.get("maxLength"), schema.get("pattern")
    is_uri = schema.get("format") == "uri"
    compiled = None
    if isinstance(pattern, str):
        try:
            compiled = re.compile(pattern)
        except re.error:
            compiled = None  # a pattern of another dialect: the provider will judge
    if least is None and most is None and compiled is None and not is_uri:
        return None

    def check(value: Any, path: str, errors: list[InvalidField]) -> None:
        if not isinstance(value, str):
            return
        if least is not None and len(value) < least:
            add(errors, "string_gte", path, f"String length must be greater than or equal to {least}")
        if most is not None and len(value) > most:
            add(errors, "string_lte", path, f"String length must be less than or equal to {most}")
        if compiled is not None and compiled.search(value) is None:
            add(errors, "pattern", path, f"Does not match pattern '{pattern}'")
        if is_uri and not is_file_uri(value):
            add(errors, "format", path, "Does not match format 'uri'")

    return check


def is_file_uri(text: str) -> bool:
    """
    An http or https URL with a host, or a data URI whose content can be decoded: what a file can be had from.

    Stricter than the format's name says: a URI of another kind would only fail later, at the provider.
    """
    if text.startswith("data:"):
        return is_sound(text)
    if _NEVER_IN_URLS.search(text) is not None:
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
