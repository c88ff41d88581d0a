"""Reads a TOML document into Structs and says everything that does not fit at once. Knows no meaning of keys."""

from __future__ import annotations

import re
import typing
from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.contract.toml import Path
from gateway.contract.wording import nearest, printable

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": 'text in quotes ("…")',
    "bool": "true or false",
    "array": "a list ([…])",
    "object": "a table",
    "null": "nothing",
    "datetime": "a date",
    "date": "a date",
    "time": "a time",
}
_EXPECTED = re.compile(r"Expected `([^`]+)`(?: (>=|<=|>|<) ([-\d.]+))?(?:, got `([^`]+)`)?(?: - at `\$(.*)`)?")


class Problem(msgspec.Struct, kw_only=True, frozen=True):
    """One thing that is wrong: where, what, and what to do."""

    path: Path
    problem: str
    remedy: str


class Reading:
    """One reading of a document. What does not fit is left at its default and noted in `problems`."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def read(self, value: Any, kind: Any, path: Path = ()) -> Any:
        """`value` as `kind` (a Struct, or what its fields are made of); UNSET if it is nothing of the sort."""
        bare = kind.__origin__ if typing.get_origin(kind) is typing.Annotated else kind
        origin, arguments = typing.get_origin(bare), typing.get_args(bare)
        if is_struct(bare):
            return self._read_struct(value, bare, path)
        if origin is dict and is_struct(arguments[1]) and isinstance(value, dict):
            return {name: self.read(item, arguments[1], (*path, name)) for name, item in value.items()}
        if origin is tuple and is_struct(arguments[0]) and isinstance(value, list):
            return tuple(self.read(item, arguments[0], (*path, index)) for index, item in enumerate(value))
        return self._read_leaf(value, kind, path)

    def is_bad(self, path: Path) -> bool:
        """Whether `path` or something around it has been complained about already."""
        return any(problem.path == path[: len(problem.path)] for problem in self.problems)

    def _read_struct(self, value: Any, kind: type[msgspec.Struct], path: Path) -> msgspec.Struct:
        if not isinstance(value, dict):
            remedy = f"write [{dotted(path)}] and its keys below" if path else "write keys and tables"
            self._note(path, f"this is {_word_of(value)}, not a table", remedy)
            value = {}
        hints = typing.get_type_hints(kind, include_extras=True)
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        filled: dict[str, Any] = {}
        for name, item in value.items():
            if name not in fields:
                self._note_unknown(name, kind, path)
                continue
            read = self.read(item, hints[fields[name].name], (*path, name))
            if read is not msgspec.UNSET:
                filled[fields[name].name] = read
        for name, field in fields.items():
            if field.required and field.name not in filled:
                if name not in value and not self.is_bad(path):
                    self._note((*path, name), "it is missing", f'add {name} = "…"')
                filled[field.name] = ""
        return kind(**filled)

    def _read_leaf(self, value: Any, kind: Any, path: Path) -> Any:
        try:
            return msgspec.convert(value, kind, strict=True)
        except msgspec.ValidationError as error:
            found = _EXPECTED.search(str(error))
            if found is None:
                self._note(path, str(error)[:1].lower() + str(error)[1:], "correct the value")
                return msgspec.UNSET
            expected, sign, bound, got, inside = found.groups()
            wanted = " or ".join(_WORDS.get(word.strip(), word.strip()) for word in expected.split("|"))
            self._note(
                (*path, *_steps(inside or "")),
                f"this is {_WORDS.get(got, got)}" if got else "the number is out of its range",
                f"write {wanted}" + (f" {sign} {bound}" if sign else ""),
            )
            return msgspec.UNSET

    def _note_unknown(self, name: str, kind: type[msgspec.Struct], path: Path) -> None:
        known = [field.encode_name for field in msgspec.structs.fields(kind)]
        hints = typing.get_type_hints(kind)
        homes = [section for section in known if is_struct(hints[section]) and name in hints[section].__struct_fields__]
        otherwise = f"it belongs in [{dotted((*path, homes[0]))}]" if homes else ""
        self._note((*path, name), f'unknown key "{printable(name)}"', did_you_mean(name, known, otherwise=otherwise))

    def _note(self, path: Path, problem: str, remedy: str) -> None:
        self.problems.append(Problem(path=path, problem=problem, remedy=remedy))


def is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def dotted(path: Path) -> str:
    """`("models", 0, "name")` → `models[0].name`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[\w-]+", part) else f'"{printable(part)}"')
    return text


def did_you_mean(word: str, known: Sequence[str], *, otherwise: str = "") -> str:
    """A remedy: the nearest word, else `otherwise`, else the list of what is known."""
    near = nearest(word, known)
    if near is not None:
        return f'did you mean "{near}"?'
    return otherwise or ("known here: " + ", ".join(known) if known else "remove it")


def _steps(inside: str) -> list[str | int]:
    """`[0].x[...]` of msgspec → `[0, "x"]`; `[...]` stands for a key that it does not name."""
    return [int(index) if index else name for index, name in re.findall(r"\[(\d+)\]|\.([\w-]+)", inside)]


def _word_of(value: Any) -> str:
    names: dict[type, str] = {bool: "bool", int: "int", float: "float", str: "str", list: "array", dict: "object"}
    return _WORDS[names.get(type(value), "datetime")]
