"""One GET of `/health`, by hand: the watcher needs neither a pool nor a client. Judges nothing but the status."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from local_backend.address import Address


async def probe(address: Address, seconds: float) -> dict[str, Any] | None:
    """What the server at `address` says of its health, within `seconds`; None if it is not well, or says nothing."""
    try:
        async with asyncio.timeout(seconds):
            return await _ask(address)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None


async def _ask(address: Address) -> dict[str, Any] | None:
    if address.path:
        reader, writer = await asyncio.open_unix_connection(address.path)
    else:
        reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        status = (await reader.readline()).split()
        if len(status) < 2 or status[1] != b"200":
            return None
        await reader.readuntil(b"\r\n\r\n")
        said = json.loads(await reader.read())
        return said if isinstance(said, dict) else None
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
