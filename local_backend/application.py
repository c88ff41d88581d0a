"""The server's HTTP face: bare ASGI, routes to verbs, refusals to problem bodies. Knows no model."""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from gateway.contract.errors import NotFound, RequestRefused, TooLarge, Unauthenticated
from local_backend import dialect
from local_backend.package import Package
from local_backend.server import ModelServer

MAX_BODY_BYTES = 136_000_000  # a file of 100 MB as a data URI, and some words

_log = logging.getLogger("local_backend.application")
_encode = msgspec.json.Encoder().encode

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_ROUTES = [
    ("GET", re.compile(r"/health"), "health"),
    ("GET", re.compile(r"/v1/models"), "models"),
    ("GET", re.compile(r"/v1/models/([^/]+/[^/]+)"), "model"),
    ("GET", re.compile(r"/v1/models/([^/]+/[^/]+)/versions"), "versions"),
    ("GET", re.compile(r"/v1/models/([^/]+/[^/]+)/versions/([^/]+)"), "version"),
    ("POST", re.compile(r"/v1/predictions"), "create"),
    ("POST", re.compile(r"/v1/models/([^/]+/[^/]+)/predictions"), "create_by_model"),
    ("GET", re.compile(r"/v1/predictions/([^/]+)"), "get"),
    ("POST", re.compile(r"/v1/predictions/([^/]+)/cancel"), "cancel"),
]


class Reply(msgspec.Struct, kw_only=True, frozen=True):
    body: Any
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Asked(msgspec.Struct, kw_only=True, frozen=True):
    """A request, whole. Header names are lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


class MethodMissing(RequestRefused):
    """The path is there, the method is not."""

    status = 405
    title = "Method not allowed"


class MediaTypeWrong(RequestRefused):
    """Only JSON: a page in a browser must not be able to post here without asking first."""

    status = 415
    title = "Unsupported media type"


class Application:
    """The ASGI application. `address` begins the URLs in answers; `token`, if any, is asked of every request."""

    def __init__(self, server: ModelServer, *, address: str, device: str, token: str | None = None) -> None:
        self._server = server
        self._address = address
        self._device = device
        self._token = token

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            reply = await self._answer(scope, receive)
        except RequestRefused as refused:
            reply = _problem(refused)
        except Exception:
            _log.exception("a request failed")
            reply = Reply(body={"detail": "Internal server error", "status": 500}, status=500)
        content = _encode(reply.body) + b"\n"
        kind = b"application/problem+json" if reply.status >= 400 else b"application/json"
        headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode()), *reply.headers]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive) -> Reply:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path, method = scope["path"], scope["method"]
        self._check_token(headers)
        found = [(verb, name, match) for verb, pattern, name in _ROUTES if (match := pattern.fullmatch(path))]
        if not found:
            raise NotFound("The requested resource could not be found.")
        verb, name, match = next((one for one in found if one[0] == method), found[0])
        if verb != method:
            raise MethodMissing(f"{method} is not to be had here.")
        body = await _read(receive, headers) if method == "POST" else b""
        asked = Asked(path=path, headers=headers, body=body)
        reply: Reply = await getattr(self, f"_{name}")(asked, *match.groups())
        return reply

    def _check_token(self, headers: dict[str, str]) -> None:
        if self._token is None:
            return
        given = headers.get("authorization", "").partition(" ")[2].strip()
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise Unauthenticated("You did not pass a valid authentication token")

    # -- routes ------------------------------------------------------------------------------------------------------

    async def _health(self, asked: Asked) -> Reply:
        health = {"device": self._device, **self._server.health()}
        return Reply(body=health, status=503 if self._server.is_stuck else 200)

    async def _models(self, asked: Asked) -> Reply:
        return Reply(body=dialect.show_page([dialect.show_model(package) for package in self._server.models()]))

    async def _model(self, asked: Asked, slug: str) -> Reply:
        return Reply(body=dialect.show_model(self._server.model(slug)))

    async def _versions(self, asked: Asked, slug: str) -> Reply:
        return Reply(body=dialect.show_page([dialect.show_version(one) for one in self._server.versions(slug)]))

    async def _version(self, asked: Asked, slug: str, id: str) -> Reply:
        for package in self._server.versions(slug):
            if package.version == id:
                return Reply(body=dialect.show_version(package))
        raise NotFound("The requested resource could not be found.")

    async def _create(self, asked: Asked) -> Reply:
        body = dialect.read_create(asked.body)
        if body.version is None:
            raise dialect.version_missing()
        return await self._run(asked, self._server.resolve(body.version), body)

    async def _create_by_model(self, asked: Asked, slug: str) -> Reply:
        return await self._run(asked, self._server.model(slug), dialect.read_create(asked.body))

    async def _run(self, asked: Asked, package: Package, body: dialect.CreateBody) -> Reply:
        wait_seconds = dialect.read_wait(asked.headers.get("prefer"))
        digest = hashlib.sha256(asked.path.encode() + b"\x00" + asked.body).hexdigest()
        job = await self._server.create(
            package,
            body,
            key=asked.headers.get("idempotency-key"),
            body_hash=digest,
            deadline_seconds=dialect.read_cancel_after(asked.headers.get("cancel-after")),
        )
        applied: tuple[tuple[bytes, bytes], ...] = ()
        if wait_seconds is not None:
            await self._server.wait(job, wait_seconds)
            applied = ((b"preference-applied", asked.headers["prefer"].strip().encode("latin-1")),)
        shown = dialect.show_job(job, self._address, as_created=wait_seconds is None or not job.is_over)
        return Reply(body=shown, status=201, headers=applied)

    async def _get(self, asked: Asked, id: str) -> Reply:
        return Reply(body=dialect.show_job(self._server.get(id), self._address))

    async def _cancel(self, asked: Asked, id: str) -> Reply:
        return Reply(body=dialect.show_job(self._server.cancel(id), self._address))


def _problem(refused: RequestRefused) -> Reply:
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(refused, dialect.Busy):
        headers = ((b"retry-after", str(math.ceil(refused.retry_after_seconds)).encode()),)
    return Reply(body=dialect.show_problem(refused), status=refused.status, headers=headers)


async def _read(receive: Receive, headers: dict[str, str]) -> bytes:
    """The body, if it is JSON and not too long: the length is believed only to refuse early."""
    announced = headers.get("content-length", "")
    if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
        raise TooLarge(f"The body is over {MAX_BODY_BYTES} bytes.")
    parts = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestRefused("The client went away.")
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise TooLarge(f"The body is over {MAX_BODY_BYTES} bytes.")
        parts.append(part)
        if not message.get("more_body", False):
            break
    if size and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise MediaTypeWrong("Send the body as application/json.")
    return b"".join(parts)
