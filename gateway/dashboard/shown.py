"""Inputs and outputs cut to what a page can bear: our own files by link, texts, JSON. Never base64, opens nothing."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import msgspec

from gateway.contract.body import REDACTED
from gateway.contract.data_uri import is_data_uri
from gateway.dashboard.shape import Shown

ROW_CHARACTERS = 300
ROW_FILES = 4
DETAIL_CHARACTERS = 2_000
DETAIL_FILES = 50
_MOST_ITEMS = 50  # of a list or an object
_MOST_DEPTH = 12
_MOST_LOOKED_AT = 2_000  # values that are walked through for links
_MOST_JSON_CHARACTERS = 20_000
_LONG_BASE64 = 256
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{256,}={0,2}\Z", re.ASCII)
_SVG = "image/svg+xml"  # a document that may hold scripts: it is offered as a file


class About(NamedTuple):
    """What is known of a file in our keeping."""

    content_type: str
    size_bytes: int


class Cut(NamedTuple):
    text: str
    is_cut: bool


def shown_output(
    output: Any, *, base: str, characters: int, files: int, known: Mapping[str, About] | None = None
) -> tuple[Shown, ...]:
    """
    `output` ready to be shown: files first, then what else there is.

    `base` is our public URL without a slash at its end; `known` says of links of ours what they lead to, else their
    names have to do.
    """
    if output is None:
        return ()
    links = own_links(output, base=base, most=files)
    shown = [shown_file(link, (known or {}).get(link)) for link in links]
    rest = _rest(output, base=base, characters=characters)
    return (*shown, rest) if rest is not None else tuple(shown)


def own_links(value: Any, *, base: str, most: int) -> list[str]:
    """Links to files in our keeping, in the order they stand; each once."""
    found: dict[str, None] = {}
    left = _MOST_LOOKED_AT
    pending = [value]
    while pending and left > 0 and len(found) < most:
        left -= 1
        one = pending.pop()
        if isinstance(one, str):
            if is_own(one, base):
                found[one] = None
        elif isinstance(one, dict):
            pending += list(one.values())[:_MOST_LOOKED_AT][::-1]
        elif isinstance(one, list):
            pending += one[:_MOST_LOOKED_AT][::-1]
    return list(found)


def is_own(text: str, base: str) -> bool:
    return text.startswith((f"{base}/artifacts/", f"{base}/v1/files/")) and len(text) <= 2_048


def shown_file(url: str, about: About | None = None) -> Shown:
    if about is None:
        content_type = mimetypes.guess_type(url.partition("?")[0])[0]
        return Shown(kind=_kind(content_type), url=url, content_type=content_type)
    return Shown(kind=_kind(about.content_type), url=url, content_type=about.content_type, size_bytes=about.size_bytes)


def _kind(content_type: str | None) -> str:
    family = (content_type or "").partition("/")[0]
    return family if family in ("image", "video", "audio") and content_type != _SVG else "file"


def _rest(output: Any, *, base: str, characters: int) -> Shown | None:
    """What is not a file: a text, or JSON; None if there were only files."""
    if isinstance(output, str):
        return None if is_own(output, base) else _text("text", cut(output, characters))
    if isinstance(output, list) and output and all(isinstance(item, str) for item in output[:_MOST_LOOKED_AT]):
        if is_own(output[0], base):
            return None
        if not is_data_uri(output[0][:256] + ",") and len(output[0]) <= _LONG_BASE64:
            return _text("text", _joined(output, characters))
    return _text("json", shown_json(output, characters=characters, text_characters=ROW_CHARACTERS))


def _text(kind: str, text: Cut) -> Shown:
    return Shown(kind=kind, text=text.text, is_cut=text.is_cut)


def _joined(parts: list[Any], characters: int) -> Cut:
    """Models of language say their text in parts."""
    text = ""
    for part in parts:
        text += part[: characters + 1] if isinstance(part, str) else ""
        if len(text) > characters:
            return Cut(text[:characters] + "…", True)
    return Cut(text, False)


def cut(text: str, characters: int) -> Cut:
    """`text` with no more than so many characters; bytes in the clothes of text are only named."""
    if len(text) > _LONG_BASE64 or text.startswith("data:"):
        named = _bytes_in(text)
        if named is not None:
            return Cut(named, True)
    return Cut(text, False) if len(text) <= characters else Cut(text[:characters] + "…", True)


def _bytes_in(text: str) -> str | None:
    if is_data_uri(text):
        header, _, content = text.partition(",")
        is_encoded = header.endswith(";base64")
        size = len(content) * 3 // 4 if is_encoded else len(content)
        return f"[{header[5:].partition(';')[0].lower()}, {shown_size(size)}]"
    # The beginning tells: no prose has so many such characters without a blank.
    if _BASE64.match(text[: 4 * _LONG_BASE64]) is not None:
        return f"[base64, {shown_size(len(text) * 3 // 4)}]"
    return None


def shown_json(
    value: Any,
    *,
    characters: int = _MOST_JSON_CHARACTERS,
    text_characters: int = DETAIL_CHARACTERS,
    secret: Collection[str] = (),
) -> Cut:
    """Indented JSON with long texts, lists and depths cut. `secret` names keys at the top that are not shown."""
    if secret and isinstance(value, dict):
        value = {key: REDACTED if key in secret else item for key, item in value.items()}
    pruning = _Pruning(text_characters)
    pruned = pruning.prune(value, 0)
    text = msgspec.json.format(msgspec.json.encode(pruned), indent=2).decode()
    if len(text) > characters:
        return Cut(text[:characters] + "…", True)
    return Cut(text, pruning.is_cut)


class _Pruning:
    def __init__(self, text_characters: int) -> None:
        self._text_characters = text_characters
        self.is_cut = False

    def prune(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            text, is_cut = cut(value, self._text_characters)
            self.is_cut |= is_cut
            return text
        if not isinstance(value, (dict, list)):
            return value
        if depth >= _MOST_DEPTH:
            self.is_cut = True
            return "…"
        more = len(value) - _MOST_ITEMS
        self.is_cut |= more > 0
        if isinstance(value, list):
            items = [self.prune(item, depth + 1) for item in value[:_MOST_ITEMS]]
            return [*items, f"… {more} more"] if more > 0 else items
        pairs = list(value.items())[:_MOST_ITEMS]
        fields = {cut(str(key), 200).text: self.prune(item, depth + 1) for key, item in pairs}
        return fields | {"…": f"{more} more"} if more > 0 else fields


def shown_size(size_bytes: int) -> str:
    """`1.2 MB`."""
    for unit, scale in (("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{size_bytes} B"
