"""
A model's JSON schema, compiled once, and the check of a value against it, in the wording of Replicate's 422.

Types and texts are those of gojsonschema's default locale, after references are inlined. Knows the keywords that Cog
writes into a schema; others are not enforced. Formats nothing: `problems` writes the body.
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from gateway.api.keyword import Check, add, enum_check, number_check, string_check, type_name
from gateway.contract.errors import InvalidField

_REF = "#/components/schemas/"
_NULL = {"type": "null"}


class InputSchema:
    """The Input of one version: what it takes, what it leaves out, what must not be shown."""

    def __init__(self, document: dict[str, Any]) -> None:
        components = document.get("components", {}).get("schemas", {})
        compiler = _Compiler(components)
        schema = compiler.inlined(components.get("Input", {}))
        properties = {name: compiler.inlined(field) for name, field in schema.get("properties", {}).items()}
        self.takes_anything = not properties or bool(schema.get("additionalProperties", False))
        self.names = frozenset(properties)
        self.secret = tuple(name for name, field in properties.items() if _is_secret(field))
        self.files = tuple(name for name, field in properties.items() if _is_file(field)) if properties else None
        self._defaults = {name: field["default"] for name, field in properties.items() if "default" in field}
        self._check = compiler.compile({**schema, "additionalProperties": True}) if properties else _accept

    def fit(self, input: dict[str, Any]) -> tuple[dict[str, Any], tuple[InvalidField, ...]]:
        """Unknown keys dropped, defaults filled in; and what is wrong with it, fields beginning with `input`."""
        names = self.names
        known = input if self.takes_anything else {key: value for key, value in input.items() if key in names}
        errors: list[InvalidField] = []
        self._check(known, "", errors)
        if errors:
            return known, tuple(_under_input(error) for error in errors)
        fitted = dict(known)
        for name, default in self._defaults.items():
            if name not in fitted and default is not None:
                fitted[name] = copy.deepcopy(default) if isinstance(default, (list, dict)) else default
        return fitted, ()


def speaks_of_files(document: dict[str, Any]) -> bool:
    """Does the Output of this version hold files anywhere (`format: uri`)?"""
    components = document.get("components", {}).get("schemas", {})
    seen: set[str] = set()

    def search(schema: Any) -> bool:
        if isinstance(schema, list):
            return any(search(item) for item in schema)
        if not isinstance(schema, dict):
            return False
        if schema.get("format") == "uri":
            return True
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            seen.add(reference)
            if search(components.get(reference.removeprefix(_REF))):
                return True
        return any(search(part) for key, part in schema.items() if key not in ("default", "enum", "example"))

    return search(components.get("Output"))


def compile_schema(schema: dict[str, Any]) -> Check:
    """A schema that stands alone, without references."""
    return _Compiler({}).compile(schema)


def _accept(value: Any, path: str, errors: list[InvalidField]) -> None:
    pass


def _is_file(field: dict[str, Any]) -> bool:
    """A file, or a list of files."""
    items = field.get("items")
    return field.get("format") == "uri" or (isinstance(items, dict) and _is_file(items))


def _is_secret(field: dict[str, Any]) -> bool:
    return bool(field.get("x-cog-secret")) or field.get("format") == "password"


def _under_input(error: InvalidField) -> InvalidField:
    field = f"input.{error.field}" if error.field else "input"
    return InvalidField(type=error.type, field=field, description=error.description)


class _Compiler:
    """Turns schemas into checks. A schema that refers to itself is compiled once and refers to its own check."""

    def __init__(self, components: dict[str, Any]) -> None:
        self._components = components
        self._compiled: dict[str, Check] = {}
        self._open: set[str] = set()  # references being compiled

    def inlined(self, schema: Any, depth: int = 0) -> dict[str, Any]:
        """References, and `allOf` of one, put in place: what stands beside them wins."""
        if not isinstance(schema, dict) or depth > 16:
            return {}
        reference = schema.get("$ref")
        if isinstance(reference, str):
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            return self.inlined(self._components.get(reference.removeprefix(_REF)), depth + 1) | rest
        if isinstance(schema.get("allOf"), list) and len(schema["allOf"]) == 1:
            rest = {key: value for key, value in schema.items() if key != "allOf"}
            return self.inlined(schema["allOf"][0], depth + 1) | rest
        if (other := _or_null(schema)) is not None:
            rest = {key: value for key, value in schema.items() if key != "anyOf"}
            return self.inlined(other, depth + 1) | rest | {"nullable": True}
        return schema

    def compile(self, schema: Any) -> Check:
        reference = _reference(schema)
        if reference is None:
            return self._compile(self.inlined(schema))
        if reference in self._open:
            # Within itself: its check is looked up when it is used.
            return lambda value, path, errors: self._compiled[reference](value, path, errors)
        self._open.add(reference)
        check = self._compile(self.inlined(schema))
        self._open.discard(reference)
        self._compiled.setdefault(reference, check)
        return check

    def _compile(self, schema: dict[str, Any]) -> Check:
        types = _types(schema)
        nullable = bool(schema.get("nullable")) or "null" in types
        expected = f"[{','.join(types)}]" if len(types) > 1 else "".join(types)
        checks = tuple(
            check
            for check in (
                self._combined(schema),
                enum_check(schema),
                number_check(schema),
                string_check(schema),
                self._array(schema),
                self._object(schema),
            )
            if check is not None
        )
        allowed = frozenset(types) | ({"integer"} if "number" in types else set())

        def check(value: Any, path: str, errors: list[InvalidField]) -> None:
            if value is None and nullable:
                return
            if allowed and (given := type_name(value)) not in allowed:
                add(errors, "invalid_type", path, f"Invalid type. Expected: {expected}, given: {given}")
                return
            for part in checks:
                part(value, path, errors)

        return check

    def _combined(self, schema: dict[str, Any]) -> Check | None:
        parts = {
            word: tuple(self.compile(option) for option in schema[word])
            for word in ("anyOf", "oneOf", "allOf")
            if isinstance(schema.get(word), list) and schema[word]
        }
        if not parts:
            return None

        def check(value: Any, path: str, errors: list[InvalidField]) -> None:
            for word, options in parts.items():
                found: list[list[InvalidField]] = []
                for option in options:
                    own: list[InvalidField] = []
                    option(value, path, own)
                    found.append(own)
                valid = sum(not own for own in found)
                if word == "anyOf" and not valid:
                    add(errors, "number_any_of", path, "Must validate at least one schema (anyOf)")
                    errors.extend(_nearest(found))
                elif word == "oneOf" and valid != 1:
                    add(errors, "number_one_of", path, "Must validate one and only one schema (oneOf)")
                    if not valid:
                        errors.extend(_nearest(found))
                elif word == "allOf" and valid != len(options):
                    for own in found:
                        errors.extend(own)
                    add(errors, "number_all_of", path, "Must validate all the schemas (allOf)")

        return check

    def _array(self, schema: dict[str, Any]) -> Check | None:
        least, most, unique = schema.get("minItems"), schema.get("maxItems"), schema.get("uniqueItems")
        item = self.compile(schema["items"]) if isinstance(schema.get("items"), dict) else None
        if least is None and most is None and not unique and item is None:
            return None

        def check(value: Any, path: str, errors: list[InvalidField]) -> None:
            if not isinstance(value, list):
                return
            if least is not None and len(value) < least:
                add(errors, "array_min_items", path, f"Array must have at least {least} items")
            if most is not None and len(value) > most:
                add(errors, "array_max_items", path, f"Array must have at most {most} items")
            if unique and len({msgspec.json.encode(one, order="sorted") for one in value}) != len(value):
                add(errors, "unique", path, "array items must be unique")
            if item is not None:
                for index, one in enumerate(value):
                    item(one, f"{path}.{index}" if path else str(index), errors)

        return check

    def _object(self, schema: dict[str, Any]) -> Check | None:
        properties = {name: self.compile(field) for name, field in _mapping(schema, "properties").items()}
        required = tuple(schema["required"]) if isinstance(schema.get("required"), list) else ()
        extra = schema.get("additionalProperties", True)
        extra_check = self.compile(extra) if isinstance(extra, dict) else None
        if not properties and not required and extra is True:
            return None

        def check(value: Any, path: str, errors: list[InvalidField]) -> None:
            if not isinstance(value, dict):
                return
            for name in required:
                if name not in value:
                    add(errors, "required", path, f"{name} is required")
            if extra is False:
                for name in value:
                    if name not in properties:
                        text = f"Additional property {name} is not allowed"
                        add(errors, "additional_property_not_allowed", path, text)
            for name, one in value.items():
                part = properties.get(name, extra_check)
                if part is not None:
                    part(one, f"{path}.{name}" if path else name, errors)

        return check


def _or_null(schema: dict[str, Any]) -> Any:
    """The other of `anyOf: [{…}, {type: null}]`, which is how later Cogs write an optional field."""
    options = schema.get("anyOf")
    if not isinstance(options, list) or len(options) != 2 or _NULL not in options:
        return None
    return next((option for option in options if option != _NULL), None)


def _reference(schema: Any) -> str | None:
    """What a schema refers to, through the forms that are inlined."""
    for _ in range(16):
        if not isinstance(schema, dict):
            return None
        if isinstance(schema.get("$ref"), str):
            return str(schema["$ref"])
        only = schema["allOf"][0] if isinstance(schema.get("allOf"), list) and len(schema["allOf"]) == 1 else None
        schema = only if only is not None else _or_null(schema)
    return None


def _nearest(found: list[list[InvalidField]]) -> list[InvalidField]:
    """What is wrong by the option that has the least against it."""
    return min(found, key=len)


def _mapping(schema: dict[str, Any], word: str) -> dict[str, Any]:
    found = schema.get(word)
    return found if isinstance(found, dict) else {}


def _types(schema: dict[str, Any]) -> tuple[str, ...]:
    types = schema.get("type")
    if isinstance(types, str):
        return (types,)
    return tuple(types) if isinstance(types, list) else ()
