"""Secrets by reference, `env:NAME` or `file:PATH`: never written out, never shown. Knows not what they open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

REMEDY = 'write "env:NAME" or "file:PATH" and keep the secret there'


class Secret:
    """A secret that cannot be printed by accident. `reveal` is the only way to its value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not pickled")


class SecretMissing(Exception):
    """A reference leads to no secret. `problem` and `remedy` never quote a value."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


def resolve(reference: str, *, environ: Mapping[str, str], folder: Path) -> Secret:
    """
    The secret behind `env:NAME` or `file:PATH` (relative to `folder`, one line).

    Raises SecretMissing. A literal is refused without being quoted: it may be a real secret.
    """
    kind, colon, name = reference.partition(":")
    if not colon or kind not in ("env", "file") or not name:
        raise SecretMissing("a secret is not written out here", REMEDY)
    if kind == "env":
        return _checked(
            environ.get(name, ""),
            f"environment variable {name}",
            f"set {name} before starting, or change the reference",
        )
    path = folder / Path(name).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
        raise SecretMissing(
            f"the file {path} cannot be read ({reason})", "create it, or change the reference"
        ) from None
    return _checked(text.strip("\r\n"), f"the file {path}", "put the secret alone on its first line")


def _checked(value: str, place: str, remedy: str) -> Secret:
    if not value.strip():
        raise SecretMissing(f"{place} is not set" if place.startswith("env") else f"{place} is empty", remedy)
    # A control character would let a secret end a header, or hide in one.
    if not value.isprintable() or value != value.strip():
        raise SecretMissing(f"{place} holds spaces around it, or line breaks or control characters", remedy)
    return Secret(value)
