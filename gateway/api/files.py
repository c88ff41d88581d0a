"""Files that callers upload: their rows in the store, their bytes in our keeping. Fetches nothing from elsewhere."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from gateway.api.artifacts import content_reply
from gateway.api.auth import authenticate
from gateway.api.context import Context
from gateway.api.exchange import Exchange, Reply
from gateway.api.page import cursor_position, page_links
from gateway.api.route import Route
from gateway.api.stream import stream_of
from gateway.api.upload import UNTYPED, read_upload
from gateway.contract.body import encode, timestamp
from gateway.contract.errors import NotFound
from gateway.store.protocol import FileRow

PAGE_SIZE = 100
STREAM_PREFIX = "stream-"  # npm's client reads a stream as files if its path begins with /v1/files/


class Checksums(msgspec.Struct, frozen=True):
    sha256: str
    md5: str


class FileBody(msgspec.Struct, kw_only=True, frozen=True):
    """`name` and `etag` are required by Python's 1.x client, though the official description has neither."""

    id: str
    name: str
    content_type: str
    size: int
    etag: str
    checksums: Checksums
    metadata: dict[str, object]
    created_at: str
    expires_at: str
    urls: dict[str, str]


async def upload(exchange: Exchange) -> Reply:
    context = exchange.context
    given = await read_upload(exchange)
    now = context.now()
    row = FileRow(
        id=context.ids.prediction(),
        owner=exchange.owner,
        artifact=given.kept.token,
        name=given.name,
        content_type=given.content_type,
        size_bytes=given.kept.size_bytes,
        sha256=given.kept.sha256,
        md5=given.kept.md5,
        metadata=given.metadata,
        created_at=now,
        expires_at=now + timedelta(seconds=context.file_seconds),
    )
    await context.store.put_file(row)
    return Reply(201, encode(_file_body(context, row)))


async def list_(exchange: Exchange) -> Reply:
    position = cursor_position(exchange.query())
    try:
        rows, next, previous = await exchange.context.store.list_files(
            owner=exchange.owner, position=position, limit=PAGE_SIZE
        )
    except ValueError:
        raise NotFound("Invalid cursor") from None
    results = [_file_body(exchange.context, row) for row in rows if row.expires_at > exchange.context.now()]
    return Reply(200, encode({**page_links(exchange, next, previous), "results": results}))


async def get(exchange: Exchange) -> Reply:
    """A file's own description; or, under the prefix of streams, a stream, which needs no key."""
    id = exchange.params["id"]
    if id.startswith(STREAM_PREFIX):
        return await stream_of(exchange, id.removeprefix(STREAM_PREFIX))
    authenticate(exchange, "files")
    return Reply(200, encode(_file_body(exchange.context, await _row(exchange, owner=exchange.owner))))


async def delete(exchange: Exchange) -> Reply:
    authenticate(exchange, "files")
    row = await exchange.context.store.delete_file(exchange.params["id"], owner=exchange.owner)
    if row is None:
        raise NotFound("File not found")
    await exchange.context.files.remove(row.artifact)
    return Reply(204)


async def download(exchange: Exchange) -> Reply:
    """By a signed link, without a key: the signature covers owner, id and expiry."""
    context, query = exchange.context, exchange.query()
    id, owner, expiry = exchange.params["id"], query.get("owner", ""), query.get("expiry", "")
    signature = query.get("signature", "").replace(" ", "+")  # a "+" that was not escaped
    if not (owner and signature and expiry.isascii() and expiry.isdigit() and len(expiry) < 13):
        raise NotFound("File not found")
    # The signature first: an expired link tells nothing to who did not have it.
    if not context.files.verify_download(id, owner, int(expiry), signature) or int(expiry) <= context.now().timestamp():
        raise NotFound("File not found")
    row = await _row(exchange, owner=owner)
    opened = await context.files.open(row.artifact)
    if opened is None:
        raise NotFound("File not found")
    return await content_reply(exchange, opened, name=row.name, content_type=UNTYPED, is_cacheable=False)


async def _row(exchange: Exchange, *, owner: str) -> FileRow:
    row = await exchange.context.store.get_file(exchange.params["id"], owner=owner)
    if row is None or row.expires_at <= exchange.context.now():
        raise NotFound("File not found")
    return row


def _file_body(context: Context, row: FileRow) -> FileBody:
    return FileBody(
        id=row.id,
        name=row.name,
        content_type=row.content_type,
        size=row.size_bytes,
        etag=row.md5,
        checksums=Checksums(row.sha256, row.md5),
        metadata=row.metadata,
        created_at=timestamp(row.created_at),
        expires_at=timestamp(row.expires_at),
        urls={"get": f"{context.base}/v1/files/{row.id}"},
    )


ROUTES = (
    Route("/v1/files", {"GET": list_, "POST": upload}, needs="files"),
    Route("/v1/files/{id}", {"GET": get, "DELETE": delete}),
    Route("/v1/files/{id}/download", {"GET": download}),
)
