"""A scene in which every text that a stranger may write was written by the worst of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from gateway.dashboard import shape
from tests.e2e.dashboard import scene

LONG = 100_000

STRINGS = (
    "<script>window.ran = 1; alert(1)</script>",
    '<img src=x onerror="window.ran = 1; alert(1)">',
    "\"><svg/onload=alert(1)><iframe srcdoc='<script>alert(1)</script>'>",
    "</title></style></textarea></pre><style>*{display:none}</style>",
    "javascript:alert(1)//",
    "{{constructor.constructor('alert(1)')()}} ${alert(1)} #{7*7} <%= 7*7 %> {% raw %}",
    "\u202egnp.exe\u202c \u2066\u2067\u2069 \u200f\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "nul\x00 bell\x07 escape\x1b[31mred\x1b[0m \x7f \x9b \u2028\u2029 carriage\rreturn",
    "👩‍👩‍👧‍👦🏳️‍🌈 Z̸̢̛͔͓̱a̵͉͇l̶̡̳g̵̢̛o̸̗͝ ｆｕｌｌ ﷽",
    "W" * LONG,
    "ab " * (LONG // 3),
    "__proto__",
    "toString",
    "' OR 1=1; -- \\ %00 %0d%0a ../../etc/passwd",
    "",
)
URLS = (
    "javascript:alert(document.domain)",
    "data:text/html,<script>alert(1)</script>",
    "https://evil.example/pixel.png",
    "//evil.example/pixel.png",
    "http://user:secret@evil.example/x",
    "/artifacts/../../ops/v1/audit",
    "vbscript:msgbox(1)",
    "blob:https://evil.example/1",
    "not a url \x00",
)
_KINDS = ("image", "video", "audio", "file", "text", "json")
# What a stranger, a caller or a provider may have written. States and kinds are our own words.
_TEXTS = {
    "error", "error_code", "example", "title", "text", "why", "last_error", "logs", "input", "host", "who", "reason",
    "outcome", "code", "job", "remote", "basis", "policy", "content_type", "version", "policy_version", "source",
}  # fmt: skip
_NAMES = {"model", "provider", "offer", "owner", "target"}


def hostile(now: datetime) -> scene.Scene:
    healthy = scene.burning(now)
    poison = _Poison()
    rows = [poison.of(row) for row in healthy.rows[:80]]
    details = {}
    for index, row in enumerate(healthy.rows[:80]):
        detail = poison.of(healthy.detail(row.id))
        shown = tuple(
            shape.Shown(kind=kind, url=url, text=STRINGS[index % len(STRINGS)], content_type=STRINGS[0])
            for kind in _KINDS
            for url in URLS
        )
        details[row.id] = msgspec.structs.replace(
            detail, row=rows[index], story=STRINGS, output=shown, files=shown, input=STRINGS[index % len(STRINGS)]
        )
        rows[index] = msgspec.structs.replace(rows[index], output=(shown[index % len(shown)],))
    return scene.Scene(poison.of(healthy.overview), rows, details, [poison.of(line) for line in healthy.audit])


class _Poison:
    """The same word always becomes the same poison, so that what belongs together stays together."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}
        self._next = 0

    def of(self, value: Any) -> Any:
        return msgspec.convert(self._poisoned(msgspec.to_builtins(value)), type(value))

    def _poisoned(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            is_owners = name == "owners"
            return {self._word(key) if is_owners else key: self._poisoned(item, key) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [
                self._poisoned(item, {"models": "model", "providers": "provider"}.get(name, name)) for item in value
            ]
        if isinstance(value, str) and name in _NAMES:
            return self._word(value)
        return self._text() if isinstance(value, str) and name in _TEXTS else value

    def _word(self, name: str) -> str:
        return self._given.setdefault(name, f"{STRINGS[len(self._given) % len(STRINGS)]}{name}")

    def _text(self) -> str:
        self._next += 1
        return STRINGS[self._next % len(STRINGS)]
