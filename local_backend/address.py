"""Where the server listens: `unix:/path` or `tcp://host:port`, read and bound. Serves nothing."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
from pathlib import Path

import msgspec

from gateway.contract.errors import ConfigurationError

# Of sun_path, its ending zero left out: 107 on Linux, 103 on macOS.
MAX_SOCKET_PATH = 103
_TCP = re.compile(r"tcp://(\[[0-9a-fA-F:]+\]|[^\[\]/:\s]+):(\d{1,5})")


class Address(msgspec.Struct, kw_only=True, frozen=True):
    """Either `path`, or `host` and `port`."""

    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def url(self) -> str:
        """As a base address for clients: `unix:/path` or `http://host:port`."""
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def listen(self) -> str:
        return self.url.replace("http://", "tcp://", 1)

    @property
    def is_private(self) -> bool:
        """Reachable from this machine only."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def read_address(text: str) -> Address:
    """Raises ConfigurationError."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise ConfigurationError(
                f"listen = {text!r}: is no absolute path of at most {MAX_SOCKET_PATH} bytes; choose a shorter one"
            )
        return Address(path=path)
    found = _TCP.fullmatch(text)
    if found is None or int(found[2]) > 65_535:
        raise ConfigurationError(f'listen = {text!r}: is no address; write "unix:/path" or "tcp://127.0.0.1:0"')
    return Address(host=found[1].strip("[]"), port=int(found[2]))


def bind(address: Address) -> tuple[socket.socket, Address]:
    """A bound socket, not yet listening, and the address it really has. Raises ConfigurationError."""
    if address.path:
        return _bind_unix(address), address
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address.host, address.port))
    except OSError as error:
        bound.close()
        raise ConfigurationError(f"{address.listen}: cannot be bound ({error.strerror}); choose another port") from None
    return bound, Address(host=address.host, port=bound.getsockname()[1])


def _bind_unix(address: Address) -> socket.socket:
    path = Path(address.path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # A socket file outlives its process: one that nobody answers on is ours to replace, anything else is not.
    if path.is_socket() and not _answers(address.path):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    before = os.umask(0o177)
    try:
        bound.bind(address.path)
    except OSError as error:
        bound.close()
        raise ConfigurationError(f"unix:{path}: cannot be bound ({error.strerror}); choose another path") from None
    finally:
        os.umask(before)
    return bound


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
