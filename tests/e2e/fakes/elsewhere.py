"""Somebody else's server: it answers whatever it is asked, and remembers what it was shown."""

from __future__ import annotations

from dataclasses import dataclass

from tests.e2e.fakes.provider import PIXEL
from tests.e2e.server import Answering, LoopbackServer


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def shown(self) -> str:
        """All that it was told."""
        return "\n".join([self.path, *(f"{name}: {value}" for name, value in self.headers.items()), repr(self.body)])


class Elsewhere(LoopbackServer):
    """`with Elsewhere() as elsewhere:` requests lie in `asked`."""

    def __init__(self) -> None:
        super().__init__(_Curious)
        self.asked: list[Asked] = []


class _Curious(Answering):
    def _any(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        elsewhere: Elsewhere = self.server.owner  # type: ignore[attr-defined]
        elsewhere.asked.append(Asked(self.command, self.path, headers, self.body()))
        self.send_response(200)
        self.send_header("content-type", "image/png")
        self.send_header("content-length", str(len(PIXEL)))
        self.end_headers()
        self.wfile.write(PIXEL)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _any  # noqa: N815 - the standard library's names
