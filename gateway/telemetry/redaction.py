"""Takes secrets out of text by their value and by their shape. Where text comes from is not its business."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "***"
SHORTEST = 4  # characters; anything shorter would take words apart and is no secret

# Links of ours that need no key: who has the token has the right.
_LINKS = re.compile(r"/(cb|stream|artifacts)/[A-Za-z0-9_\-%~.]{8,}")
_STREAMS = re.compile(r"/v1/files/stream-[A-Za-z0-9_\-%~.]{8,}")
_SHAPES = re.compile(
    r"(?P<name>[?&](?:signature|sig|token|key|api_key|access_token|X-Amz-Signature|X-Amz-Credential)=)[^&\s\"'<>\\]+"
    r"|(?P<scheme>\b(?:Bearer|Token|Key|Basic) +)[A-Za-z0-9._~+/=\-]{12,}"
    r"|\br8_[A-Za-z0-9]{20,}"
    r"|\bwhsec_[A-Za-z0-9+/=_\-]{16,}"
    r"|\bto_[a-z0-9\-]{1,64}_[0-9a-z]{40,}(?:_[0-9a-f]{8})?"
    r"|\bsk-[A-Za-z0-9_\-]{20,}"
    r"|\bhf_[A-Za-z0-9]{20,}"
    r"|(?P<url>\bhttps?://)[^\s/@:\"']+:[^\s/@\"']+@",
    re.IGNORECASE,
)


# Without any of these in it, in lower case, no pattern above can match: plain lines are let pass for next to nothing.
_SIGNS = (
    *("/cb/", "/stream", "/artifacts/", "://", "r8_", "whsec_", "to_", "sk-", "hf_"),
    *("signature=", "sig=", "token=", "key=", "credential=", "bearer ", "token ", "key ", "basic "),
)


class Redaction:
    """The secrets known so far. `add` may be called at any time, `text` from any thread."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Never show these again, nor what they become in a URL, in JSON or in an Authorization header."""
        forms = set(self._forms)
        for secret in secrets:
            if len(secret) >= SHORTEST:
                forms |= _forms(secret)
        self._forms = frozenset(forms)
        # The longest first: a secret may begin with another one.
        ordered = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def is_clean(self, text: str) -> bool:
        """Whether `text` surely has nothing to take out. False says only that it must be looked at."""
        lower = text.lower()
        return not any(sign in lower for sign in _SIGNS) and not any(form in text for form in self._forms)

    def text(self, text: str) -> str:
        if self.is_clean(text):
            return text
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        if "/" in text:
            text = _STREAMS.sub("/v1/files/stream-" + MASK, _LINKS.sub(r"/\1/" + MASK, text))
        return _SHAPES.sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    kept = found["name"] or found["scheme"] or found["url"] or ""
    return kept + MASK + ("@" if found["url"] else "")


def _forms(secret: str) -> set[str]:
    forms = {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        base64.b64encode(secret.encode()).decode(),
        base64.b64encode(f"{secret}:".encode()).decode(),  # as the user of a Basic header
    }
    return forms | {json.dumps(form)[1:-1] for form in forms}  # each of them once more inside JSON
