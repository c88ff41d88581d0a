"""TOML texts as people write them: their tables, and on which line a key stands. Knows no key."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from gateway.contract.errors import ConfigurationError, refuse

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# Multi-line forms first: an empty string followed by a quote is not one.
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")' r"|'''.*?'{3,5}(?!')" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'", re.DOTALL
)
_SCALAR = re.compile(r"[^,\]}\n#]+")


def read_toml(text: str, *, place: str) -> dict[str, Any]:
    """The tables in `text`. Raises ConfigurationError: one line that begins with `place`, and the line's number."""
    try:
        return tomllib.loads(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(str(error), place, last_line=text.rstrip().count("\n") + 1) from None
    except RecursionError:
        raise refuse("nested too deep", place=place, remedy="write fewer brackets") from None


def _not_toml(message: str, place: str, *, last_line: int) -> ConfigurationError:
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if found is None or found[2] is None:
        problem = f"not TOML: {found[1] if found else message} (it ends here)"
        return refuse(problem, place=f"{place}:{last_line}", remedy="complete it")
    problem = f"not TOML: {found[1]} (column {found[3]})"
    return refuse(problem, place=f"{place}:{found[2]}", remedy="correct this line")


class Lines:
    """The lines of a valid TOML text by path: `("models", 0, "name")` is the name in the first `[[models]]`.

    For messages only: tomllib has read the text, and keeps no lines.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted = 0
        self._line = 1
        self._lines: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}  # of the arrays of tables
        self._read_document()

    def of(self, path: Path) -> int:
        """The line of `path`, else of the nearest thing around it, else 1."""
        for end in range(len(path), 0, -1):
            line = self._lines.get(path[:end])
            if line is not None:
                return line
        return 1

    def has(self, path: Path) -> bool:
        """Whether `path`, or anything around it, is written there."""
        return path[:1] in self._lines

    def _read_document(self) -> None:
        table: Path = ()
        while self._skip_blank():
            if self._take("[["):
                table = self._open_item(self._read_key())
                self._take("]]")
            elif self._take("["):
                table = self._locate((), self._read_key())
                self._record(table)
                self._take("]")
            else:
                self._read_pair(table)

    def _read_pair(self, table: Path) -> None:
        path = self._locate(table, self._read_key())
        self._record(path)
        self._skip_blank()
        self._take("=")
        self._skip_blank()
        self._read_value(path)

    def _read_value(self, path: Path) -> None:
        if self._take("["):
            index = 0
            while self._skip_blank() and not self._take("]"):
                self._record((*path, index))
                self._read_value((*path, index))
                index += 1
                self._skip_blank()
                self._take(",")
        elif self._take("{"):
            while self._skip_blank() and not self._take("}"):
                self._read_pair(path)
                self._skip_blank()
                self._take(",")
        else:
            if not (self._match(_STRING) or self._match(_SCALAR)):
                self._at += 1  # never stand still, whatever the text

    def _read_key(self) -> tuple[str, ...]:
        parts: list[str] = []
        while self._skip_blank():
            word = self._match(_STRING)
            parts.append(word[1:-1] if word else self._match(_BARE_KEY))
            self._skip_blank()
            if not self._take("."):
                break
        return tuple(parts)

    def _locate(self, table: Path, key: tuple[str, ...]) -> Path:
        """The path of `key` under `table`; the name of an array of tables means its newest item."""
        path = table
        for part in key:
            path = (*path, part)
            self._lines.setdefault(path, self._line_here())
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        return path

    def _open_item(self, key: tuple[str, ...]) -> Path:
        if not key:
            return ()
        array = (*self._locate((), key[:-1]), key[-1])
        index = self._counts.get(array, 0)
        self._counts[array] = index + 1
        self._lines.setdefault(array, self._line_here())
        self._record((*array, index))
        return (*array, index)

    def _record(self, path: Path) -> None:
        self._lines[path] = self._line_here()

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _skip_blank(self) -> bool:
        self._match(_BLANK)
        return self._at < len(self._text)

    def _take(self, word: str) -> bool:
        if self._text.startswith(word, self._at):
            self._at += len(word)
            return True
        return False

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found.group()
