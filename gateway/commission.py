"""What a worker process is told by the one that started it. Neither of them: `workers` starts, `app` works."""

from __future__ import annotations

import os

import msgspec

from gateway.contract.errors import ConfigurationError

READY = b"ready\n"
_MOST_BYTES = 65_536


class Commission(msgspec.Struct, kw_only=True, frozen=True):
    """
    One line of JSON on a worker's standard input, which stays open for as long as whoever wrote it lives.

    `listener` is an inherited descriptor. The worker answers with READY on its standard output, once.
    """

    number: int  # from 0
    count: int
    host: str
    address: str  # http://host:port
    listener: int
    folder: str  # private, for sockets
    key_hash: str = ""  # of the key that was made for this start
    local: str = ""  # where the local backend listens; empty: there is none


def read_commission(descriptor: int) -> Commission:
    """Raises ConfigurationError for what nobody of ours wrote."""
    line = b""
    while not line.endswith(b"\n") and len(line) < _MOST_BYTES:
        more = os.read(descriptor, _MOST_BYTES)
        if not more:
            break
        line += more
    try:
        return msgspec.json.decode(line, type=Commission)
    except msgspec.DecodeError:
        raise ConfigurationError("a worker is started by `turnout serve --workers N`, not by hand") from None


def write_commission(commission: Commission) -> bytes:
    return msgspec.json.encode(commission) + b"\n"
