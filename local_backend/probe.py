"""One GET of `/health`, by hand: the watcher needs neither a pool nor a client. Judges nothing but the status."""

from __future__ import annotations

import asyncio
import contextlib

from local_backend.address import Address


async def probe(address: Address, seconds: float) -> bool:
    """Whether the server at `address` says that it is well, within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            return await _ask(address)
    except (OSError, TimeoutError, ValueError):
        return False


async def _ask(address: Address) -> bool:
    if address.path:
        reader, writer = await asyncio.open_unix_connection(address.path)
    else:
        reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        status = (await reader.readline()).split()
        return len(status) > 1 and status[1] == b"200"
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
