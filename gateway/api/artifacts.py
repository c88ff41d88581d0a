"""Output files by unguessable link, without a key: ranges, validators, and the headers that keep them harmless."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

from gateway.api.context import Opened
from gateway.api.exchange import Exchange, Headers, Reply
from gateway.api.header import byte_range, names_etag
from gateway.api.problems import problem
from gateway.api.refusal import missing
from gateway.api.route import Route

CHUNK_BYTES = 256 * 1024

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}", re.ASCII)
# Shown by a browser in its place; all else is offered for saving. An SVG is a document that may hold scripts.
_MEDIA = re.compile(r"(?:image/(?!svg)|audio/|video/)[a-z0-9.+-]+", re.ASCII)


async def get(exchange: Exchange) -> Reply:
    token = exchange.params["token"]
    opened = await exchange.context.files.open(token) if _TOKEN.fullmatch(token) else None
    if opened is None:
        raise missing()
    return await content_reply(exchange, opened, name=opened.name, content_type=opened.content_type, is_cacheable=True)


async def content_reply(
    exchange: Exchange, opened: Opened, *, name: str, content_type: str, is_cacheable: bool
) -> Reply:
    """200, 206, 304 or 416 with the headers that fit."""
    etag = '"' + opened.etag.strip('"') + '"'
    headers = _headers(name, content_type, etag, is_cacheable=is_cacheable)
    if names_etag(exchange.header(b"if-none-match"), etag):
        return Reply(304, content_type=content_type.encode("latin-1", "replace"), headers=headers)
    size = opened.size_bytes
    first, last, status = 0, size - 1, 200
    condition = exchange.header(b"if-range")
    try:
        asked = byte_range(exchange.header(b"range"), size) if condition in (None, etag) else None
    except ValueError:
        unsatisfied = ((b"content-range", f"bytes */{size}".encode()),)
        return problem(416, "Range not satisfiable", "The range lies outside of the file", headers=unsatisfied)
    if asked is not None:
        first, last = asked
        status = 206
        headers += ((b"content-range", f"bytes {first}-{last}/{size}".encode()),)
    return Reply(
        status,
        content_type=content_type.encode("latin-1", "replace"),
        headers=headers,
        stream=_read(opened.path, first, last),
        length=last - first + 1,
    )


async def _read(path: Path, first: int, last: int) -> AsyncIterator[bytes]:
    """Bytes `first` to `last`; the disk is read off the loop."""
    file = await asyncio.to_thread(path.open, "rb")
    try:
        file.seek(first)
        left = last - first + 1
        while left > 0:
            chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, left))
            if not chunk:
                raise OSError("a file in our keeping is shorter than it was")
            left -= len(chunk)
            yield chunk
    finally:
        file.close()


def _headers(name: str, content_type: str, etag: str, *, is_cacheable: bool) -> Headers:
    disposition = "inline" if _MEDIA.fullmatch(content_type) else "attachment"
    return (
        (b"content-disposition", f"{disposition}; filename*=UTF-8''{quote(name, safe='')}".encode()),
        (b"content-security-policy", b"default-src 'none'; sandbox"),
        (b"cross-origin-resource-policy", b"cross-origin"),
        (b"access-control-allow-origin", b"*"),
        (b"accept-ranges", b"bytes"),
        (b"etag", etag.encode("latin-1", "replace")),
        (b"cache-control", b"public,max-age=3600" if is_cacheable else b"private,no-store"),
    )


ROUTES = (Route("/artifacts/{token}/{name}", {"GET": get}),)
