"""One multipart upload, read as it arrives: its file goes straight into our keeping. Keeps no row of it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, TypeAlias

import msgspec
from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from gateway.api.context import Kept
from gateway.api.exchange import Exchange, shown_size
from gateway.api.refusal import Malformed, MediaTypeWrong, invalid
from gateway.contract.errors import TooLarge

MOST_FIELD_BYTES = 64_000
MOST_PARTS = 128
MOST_NAME_BYTES = 255
UNTYPED = "application/octet-stream"

_METADATA_KEY = re.compile(r"metadata\[([^\[\]]{1,200})\]")
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}", re.ASCII)

Event: TypeAlias = Any  # of each part: its MultipartSegment, then bytes …, then None


class Upload(msgspec.Struct, kw_only=True, frozen=True):
    kept: Kept
    name: str
    content_type: str
    metadata: dict[str, Any]


async def read_upload(exchange: Exchange) -> Upload:
    """
    The three forms of the official clients: `metadata` as a text field (Python 1.x), as a file part (npm), or as
    fields `metadata[key]` with `filename` and `type` beside them (Python 2.x).

    Raises Malformed, MediaTypeWrong, InputInvalid, TooLarge.
    """
    kept: list[Kept] = []
    try:
        name, content_type, fields = await _read_parts(exchange, kept)
        return Upload(
            kept=kept[0],
            name=_name(fields.get("filename") or name),
            content_type=_content_type(fields.get("type") or content_type),
            metadata=_metadata(fields),
        )
    except BaseException as error:
        for one in kept:  # nobody will ever ask for it
            await exchange.context.files.remove(one.token)
        if isinstance(error, ParserLimitReached):
            raise TooLarge(f"The upload is over a limit: {error}") from None
        if isinstance(error, MultipartError):
            problem = error.args[0] if error.args else error  # what follows it quotes the body
            raise Malformed(f"The body is not valid multipart/form-data: {problem}") from None
        raise


async def _read_parts(exchange: Exchange, kept: list[Kept]) -> tuple[str, str, dict[str, str]]:
    """The file's own name and type, and the other fields; the file itself is added to `kept`."""
    name, content_type = "", ""
    fields: dict[str, str] = {}
    async with aclosing(_events(exchange, _parser(exchange))) as events:
        async for part in events:
            if part.name != "content":
                fields[part.name or ""] = await _text(events)
            elif kept:
                raise invalid("unique", "content", "content must be given once")
            else:
                name, content_type = part.filename or "", part.content_type or ""
                kept.append(await _keep(exchange, events, name=name, content_type=content_type))
    if not kept:
        raise invalid("required", "", "content is required")
    return name, content_type, fields


def _parser(exchange: Exchange) -> PushMultipartParser:
    kind, options = parse_options_header(exchange.header(b"content-type") or "")
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not boundary or len(boundary) > 200:
        raise MediaTypeWrong('The body must be sent as "multipart/form-data" with a boundary')
    try:
        return PushMultipartParser(boundary, max_segment_count=MOST_PARTS)
    except MultipartError as error:
        raise MediaTypeWrong(f"The boundary is not valid: {error}") from None


async def _events(exchange: Exchange, parser: PushMultipartParser) -> AsyncGenerator[Event, None]:
    exchange.refuse_declared_over(exchange.context.max_file_bytes + MOST_FIELD_BYTES * MOST_PARTS)
    with parser:
        async for chunk in exchange.chunks():
            for event in parser.parse(chunk):
                yield event


async def _keep(exchange: Exchange, events: AsyncIterator[Event], *, name: str, content_type: str) -> Kept:
    limit = exchange.context.max_file_bytes
    too_large = f"Files must be less than {shown_size(limit)} in size"

    async def content() -> AsyncIterator[bytes]:
        size = 0
        async for event in events:
            if event is None:
                return
            size += len(event)
            if size > limit:
                raise TooLarge(too_large)
            yield bytes(event)
        raise Malformed("The body is not valid multipart/form-data: it ends within the file")

    return await exchange.context.files.keep(
        content(), owner=exchange.owner, name=_name(name), content_type=_content_type(content_type)
    )


async def _text(events: AsyncIterator[Event]) -> str:
    whole = bytearray()
    async for event in events:
        if event is None:
            break
        whole += event
        if len(whole) > MOST_FIELD_BYTES:
            raise TooLarge(f"Fields must be less than {shown_size(MOST_FIELD_BYTES)} in size")
    return whole.decode()


def _name(name: str) -> str:
    """The last part of a path, without control characters. Raises InputInvalid over 255 bytes."""
    plain = "".join(character for character in re.split(r"[/\\]", name)[-1] if character.isprintable()).strip(". ")
    if len(plain.encode()) > MOST_NAME_BYTES:
        raise invalid("string_lte", "filename", f"String length must be less than or equal to {MOST_NAME_BYTES}")
    return plain or "file"


def _content_type(text: str) -> str:
    kind = text.partition(";")[0].strip().lower()
    return kind if _CONTENT_TYPE.fullmatch(kind) else UNTYPED


def _metadata(fields: dict[str, str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if text := fields.get("metadata", "").strip():
        try:
            found = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            raise invalid("invalid_type", "metadata", "Invalid type. Expected: object, given: string") from None
        if not isinstance(found, dict):
            raise invalid("invalid_type", "metadata", "Must be a JSON object")
        metadata.update(found)
    for name, value in fields.items():
        if match := _METADATA_KEY.fullmatch(name):
            metadata[match.group(1)] = value
    return metadata
