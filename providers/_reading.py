"""Bodies read with suspicion: bounded JSON, and a provider's own words made fit to be shown. No vendor's words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.contract.provider import HttpResponse

MAX_DEPTH = 64  # what nests deeper is refused here, before the store has to write it again inside its own layers
QUOTED_CHARACTERS = 500

# Providers quote our own request in their errors: keys and callback tokens must not reach logs and callers that way.
_SECRETS = re.compile(
    r"(?i)\bbearer\s+[^\s\"']+"
    r"|\b(?:sk|r8|hf|whsec)[-_][A-Za-z0-9_*+/=-]{12,}"
    r"|(?<=/cb/)[A-Za-z0-9_-]{8,}"
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]+")


class Malformed(ValueError):
    """A body that is not the JSON it should be."""


def read_json(body: bytes | str) -> Any:
    """Raises Malformed for anything that is not JSON, or nests deeper than MAX_DEPTH."""
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise Malformed("the body nests too deep") from None
    except (msgspec.DecodeError, ValueError):  # ValueError: an integer of thousands of digits
        raise Malformed("the body is not JSON") from None
    if _nests_deeper(value, body):
        raise Malformed("the body nests too deep")
    return value


def read_object(body: bytes | str) -> dict[str, Any]:
    """Raises Malformed for anything that is not a JSON object."""
    value = read_json(body)
    if not isinstance(value, dict):
        raise Malformed("the body is not a JSON object")
    return value


def _nests_deeper(value: Any, body: bytes | str) -> bool:
    # Counting brackets runs at memory speed and clears nearly every body, long vectors and base64 included.
    opened = body.count("[") + body.count("{") if isinstance(body, str) else body.count(b"[") + body.count(b"{")
    if opened <= MAX_DEPTH:
        return False
    layer = [value]
    for _ in range(MAX_DEPTH):
        layer = [child for item in layer for child in _children(item) if isinstance(child, (dict, list))]
        if not layer:
            return False
    return True


def _children(item: Any) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item


def quote(text: str, limit: int = QUOTED_CHARACTERS) -> str:
    """A provider's own words, made fit to be stored and shown: no secrets, no control characters, not endless."""
    text = _SECRETS.sub("***", text[: 4 * limit])
    text = _UNPRINTABLE.sub(" ", text).encode("utf-8", "replace").decode().strip()
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def words_of(response: HttpResponse) -> str:
    """What a refusal says, for people: the usual fields, FastAPI's list of errors, or plain text. Empty if nothing."""
    try:
        value = read_json(response.body)
    except Malformed:
        text = response.body[: 4 * QUOTED_CHARACTERS].decode("utf-8", "replace").strip()
        return "" if text.startswith("<") else quote(text)  # a proxy's page says nothing
    return quote(_words(value))


def _words(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, (_line(item) for item in value[:20])))
    if isinstance(value, dict):
        for key in ("detail", "error", "message", "title"):
            if value.get(key):
                return _words(value[key])
    return ""


def _line(item: Any) -> str:
    """One of FastAPI's validation errors: `{"loc": ["body", "input", "steps"], "msg": …}`."""
    if not isinstance(item, dict) or not isinstance(item.get("msg"), str):
        return _words(item)
    where = item.get("loc")
    where = where if isinstance(where, list) else []
    parts = [str(part) for part in where if isinstance(part, (str, int)) and part != "body"]
    return f"{'.'.join(parts)}: {item['msg']}" if parts else item["msg"]
