"""
Reads the text of a policy file into Policies, and says everything that is wrong in it. Opens only the presets.

What is wrong although every value fits its type stands in `mistake`.
"""

from __future__ import annotations

import functools
import importlib.resources
import math
import re
import types
import typing
from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.contract.errors import ConfigurationError
from gateway.contract.toml import Lines, Path, read_toml
from gateway.contract.wording import nearest, printable
from policies.document import Part, Policy
from policies.mistake import Problem, mistakes


def read(text: str, *, place: str) -> tuple[Policy, ...]:
    """
    The policies in `text`: one at the top level, or several as [[policies]]. `place` is the file's name, for messages.

    Raises ConfigurationError with one line per problem: `place:line: what is wrong; what to do`.
    """
    document = read_toml(text, place=place)
    problems: list[Problem] = []
    policies = _read_document(document, problems)
    if problems:
        lines = Lines(text)
        said = sorted((lines.of(problem.path), _say(problem)) for problem in problems)
        raise ConfigurationError("\n".join(f"{place}:{line}: {words}" for line, words in dict.fromkeys(said)))
    return policies


@functools.cache
def presets() -> tuple[Policy, ...]:
    """The policies that are always there."""
    folder = importlib.resources.files("policies") / "presets"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return tuple(policy for file in files for policy in read(file.read_text("utf-8"), place=file.name))


def _read_document(document: dict[str, Any], problems: list[Problem]) -> tuple[Policy, ...]:
    if "policies" not in document:
        if not document:
            problems.append(Problem((), "there is no policy in it", 'write at least name = "…"'))
            return ()
        policy = _read_policy(document, (), problems)
        return (policy,) if policy is not None else ()
    tables = document["policies"]
    problems += (
        Problem((key,), f'unknown key "{printable(key)}" beside [[policies]]', "put it into one of them")
        for key in document
        if key != "policies"
    )
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        problems.append(Problem(("policies",), "this is no list of policies", "write each as [[policies]]"))
        return ()
    found: dict[str, Policy] = {}
    for index, table in enumerate(tables):
        policy = _read_policy(table, ("policies", index), problems)
        if policy is None:
            continue
        if policy.name in found:
            problem = f'policy "{policy.name}" is there already, further up'
            problems.append(Problem(("policies", index, "name"), problem, "give one of them another name"))
        found[policy.name] = policy
    return tuple(found.values())


def _read_policy(table: dict[str, Any], path: Path, problems: list[Problem]) -> Policy | None:
    before = len(problems)
    _check_keys(table, Policy, path, problems)
    if not table.get("name"):
        problems.append(Problem((*path, "name"), "the policy has no name", 'add name = "…"'))
    if len(problems) > before:
        return None
    try:
        policy = msgspec.convert(table, Policy)
    except msgspec.ValidationError as error:
        problems.append(_misfit(str(error), path))
        return None
    problems += (Problem((*path, *inside), problem, remedy) for inside, problem, remedy in mistakes(policy))
    return policy if len(problems) == before else None


def _check_keys(table: dict[str, Any], kind: type[Part], path: Path, problems: list[Problem]) -> None:
    hints = keys_of(kind)
    for key, value in table.items():
        if key in hints:
            _check_value(value, hints[key], (*path, key), problems)
        else:
            remedy = _remedy(key, hints, path)
            problems.append(Problem((*path, key), f'unknown key "{printable(key)}"', remedy))


def _check_value(value: Any, hint: Any, path: Path, problems: list[Problem]) -> None:
    """What the types would not say, or not well: unknown keys at any depth, and numbers that are none."""
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(Problem(path, f"{value} is no number to reckon with", "write a finite one"))
    elif isinstance(value, dict) and isinstance(hint, type) and issubclass(hint, Part):
        _check_keys(value, hint, path, problems)
    elif isinstance(value, dict) and typing.get_origin(hint) is dict:
        for key, inner in value.items():
            _check_value(inner, typing.get_args(hint)[1], (*path, key), problems)
    elif isinstance(value, list) and typing.get_origin(hint) is tuple:
        for index, inner in enumerate(value):
            _check_value(inner, typing.get_args(hint)[0], (*path, index), problems)


@functools.cache
def keys_of(kind: type[Part]) -> dict[str, Any]:
    """The keys that may stand in a table, as they are written, with their bare types."""
    hints = typing.get_type_hints(kind)
    return {field.encode_name: _bare(hints[field.name]) for field in msgspec.structs.fields(kind)}


def _bare(hint: Any) -> Any:
    """What may be written, where the alternative is to write nothing."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    (written,) = (one for one in typing.get_args(hint) if one not in (msgspec.UnsetType, type(None)))
    return written


def _remedy(key: str, hints: dict[str, Any], path: Path) -> str:
    """The nearest word that may stand here, else the table in which the word is at home."""
    near = nearest(key, hints)
    if near is not None:
        return f'did you mean "{near}"?'
    for home, words in _WORDS.items():
        if key in words:
            return f"it belongs in [{home}]"
    return f"known {'in [' + str(path[-1]) + ']' if path and isinstance(path[-1], str) else 'here'}: {', '.join(hints)}"


# Where each word is at home.
_WORDS = {
    name: tuple(keys_of(kind))
    for name, kind in keys_of(Policy).items()
    if isinstance(kind, type) and issubclass(kind, Part)
}


_EXPECTED = re.compile(r"Expected `([^`]+)`(?: (>=|<=|>|<) ([-\d.]+))?(?:, got `([^`]+)`)?")
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": 'text in quotes ("…")',
    "array": "a list ([…])",
    "object": "a table",
    "bool": "true or false",
    "time": "a time without quotes",
    "date": "a date",
    "datetime": "a date",
}


def _misfit(message: str, path: Path) -> Problem:
    """msgspec's message in the words of somebody who writes TOML."""
    words, _, where = message.partition(" - at `$")
    inside = [int(index) if index else name for index, name in re.findall(r"\[(\d+)\]|\.([\w-]+)", where)]
    at: Path = (*path, *inside)
    enumerated = re.fullmatch(r"Invalid enum value '(.*)'", words)
    if enumerated is not None:
        choices = _choices(inside)
        near = nearest(enumerated[1], choices)
        remedy = f'did you mean "{near}"?' if near else f"write one of {', '.join(choices)}"
        return Problem(at, f'"{printable(enumerated[1])}" is not known', remedy)
    missing = re.fullmatch(r"Object missing required field `(.*)`", words)
    if missing is not None:
        return Problem(at, f"there is no {missing[1]}", f"add {missing[1]} = …")
    found = _EXPECTED.search(words)
    if found is None:
        return Problem(at, words[:1].lower() + words[1:], "correct the value")
    expected, sign, bound, got = found.groups()
    problem = f"this is {_TYPES.get(got, got)}" if got else "the number is out of its range"
    return Problem(at, problem, f"write {_TYPES.get(expected, expected)}" + (f" {sign} {bound}" if sign else ""))


def _choices(inside: Iterable[str | int]) -> tuple[str, ...]:
    """The words that may stand at a place of a Policy."""
    kind: Any = Policy
    for part in inside:
        kind = typing.get_args(kind)[0] if isinstance(part, int) else keys_of(kind)[part]
    return typing.get_args(kind)


def _say(problem: Problem) -> str:
    where = ""
    for part in problem.path:
        where += f"[{part}]" if isinstance(part, int) else ("." if where else "") + printable(part)
    return f"{where + ': ' if where else ''}{problem.problem}; {problem.remedy}"
