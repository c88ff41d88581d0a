"""The page's shell under /dashboard, without a key: it holds no data. The data is `operations`."""

from __future__ import annotations

from gateway.api.exchange import Exchange, Headers, Reply
from gateway.api.header import names_etag
from gateway.api.refusal import missing
from gateway.api.route import Route


async def get(exchange: Exchange) -> Reply:
    """200 or 304. Kept by browsers, and asked for again each time: a new version is seen at once."""
    shell = exchange.context.shell
    file = shell.file(exchange.params.get("file", "")) if shell is not None else None
    if shell is None or file is None:
        raise missing()
    etag = f'"{file.etag}"'
    headers: Headers = (
        (b"content-security-policy", shell.policy.encode("latin-1", "replace")),
        (b"referrer-policy", b"no-referrer"),
        (b"x-frame-options", b"DENY"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
        (b"cache-control", b"no-cache"),
        (b"etag", etag.encode()),
    )
    content_type = file.content_type.encode("latin-1", "replace")
    if names_etag(exchange.header(b"if-none-match"), etag):
        return Reply(304, content_type=content_type, headers=headers)
    return Reply(200, file.content, content_type=content_type, headers=headers)


ROUTES = (
    Route("/dashboard", {"GET": get}),
    Route("/dashboard/{file}", {"GET": get}),
)
