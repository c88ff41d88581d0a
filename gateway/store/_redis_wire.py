"""
What the Redis store asks of its connections, and what it runs there. Not how they are kept: that is `_redis_line`.

A script sees ARGV[1], the store's time in microseconds (0: the server's), and ARGV[2], after which it refuses itself
(microseconds of the server; 0: never). What a call brings begins at ARGV[3].
"""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from gateway.contract.clock import Clock

Argument = bytes | str | int

# The first word of a script's error reply. The line raises StoreUnavailable for LATE: it was run after its time, and
# wrote nothing. Whoever calls sees every other one as ScriptRefused.
LATE = "LATE"


class ScriptRefused(Exception):
    """A script said no, before it wrote anything. `word` is the first of its error reply, in capitals."""

    def __init__(self, word: str, text: str) -> None:
        self.word = word
        super().__init__(f"{word} {text}")


class Script(msgspec.Struct, frozen=True):
    name: str
    source: str
    sha1: str
    is_reading: bool = False  # it writes nothing: it may be repeated at will, is never late, and waits for no replica


def load(name: str, *parts: str, is_reading: bool = False) -> Script:
    """`lua/{name}.lua` behind the prologue and the named parts, as one source."""
    folder = importlib.resources.files("gateway.store").joinpath("lua")
    source = "\n".join(folder.joinpath(f"{part}.lua").read_text("utf-8").strip() for part in ("prologue", *parts, name))
    sha1 = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name=name, source=source, sha1=sha1, is_reading=is_reading)


class Call(NamedTuple):
    """One run of a script. Its keys are all of one slot."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument] = ()  # from ARGV[3] on
    now: int = 0  # ARGV[1]


# (channel, message). (channel, None): it is subscribed to from now on. (None, None): news may have been missed, on
# every channel, and none is missed from now on.
HeardOn = Callable[[str | None, bytes | None], None]


class Line(Protocol):
    """
    Bounded in time and number: each verb answers, or raises StoreUnavailable or StoreOverloaded.

    Answers are those of RESP2: bytes, numbers, None, and lists of them (of HGETALL, too).
    """

    clock: Clock  # the server's time, as this process knows it
    is_cluster: bool

    async def run(self, call: Call) -> Any:
        """
        One atomic script. Raises ScriptRefused for an error reply of its own.

        A caller that is cancelled does not cancel what is sent.
        """
        ...

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        """
        Pipelined in this order where they go to one node, each atomic by itself.

        In place of an answer stands the ScriptRefused of a script that said no. Whatever else went wrong with one of
        them is raised: of the others some may have been run.
        """
        ...

    async def read(self, *commands: tuple[Argument, ...]) -> list[Any]:
        """
        Pipelined commands that write nothing. The second word of each is its key; they may lie on many nodes.

        Answers are as the wire has them, those of scripts too: bytes, integers, None, and lists of these.
        """
        ...

    async def listen(self, heard: HeardOn) -> None:
        """Until it is cancelled, hear what is published on the channels that are subscribed to. Only one at a time."""
        ...

    def subscribe(self, channel: str) -> None:
        """Also before and between two `listen`: it holds for every connection to come."""
        ...

    def unsubscribe(self, channel: str) -> None: ...

    async def aclose(self) -> None:
        """Let what is queued end; whatever is asked later is StoreUnavailable."""
        ...
