"""What a 201 stands for, by store and setting, in words and for the code. Enforces nothing itself."""

from __future__ import annotations

import re

import msgspec

ALWAYS = "aof-always"
EVERYSEC = "everysec"
MOST_REPLICAS = 16
_WAIT = re.compile(r"wait:([1-9][0-9]?)")


class Durability(msgspec.Struct, frozen=True):
    """A setting of Redis'. `replicas` that must have a write in memory before it counts; 0: none is asked."""

    name: str
    replicas: int = 0

    @property
    def fsyncs(self) -> frozenset[str]:
        """The values of `appendfsync` that are enough for it."""
        return frozenset({"always"} if self.name == ALWAYS else {"always", "everysec"})

    @property
    def accepted(self) -> str:
        """What a 201 says of the prediction."""
        if self.name == ALWAYS:
            return "it is in the server's log on disk, fsynced"
        if self.replicas:
            others = "another server" if self.replicas == 1 else f"{self.replicas} other servers"
            return f"it is in the memory of the server and of {others}, and within two seconds on the server's disk"
        return "it is in the server's memory, and within two seconds on its disk"

    @property
    def loses(self) -> str:
        """What can be lost all the same."""
        failover = "a failover may lose what its new primary had not received"
        if self.name == ALWAYS:
            return f"nothing by a crash or a power cut of the server; {failover}"
        if self.replicas:
            kept = "nothing by the loss of one server, if those that confirmed are the ones that take over"
            return f"{kept}; up to the last two seconds by a power cut of all of them"
        # While a fsync is under way redis-server answers before it has written to its file (up to 2 s), so that even
        # the end of its process can lose what it has answered.
        return f"up to the last two seconds by a crash or a power cut of the server; {failover}"


SQLITE_ACCEPTED = "it is in the store's file on disk, fsynced"
SQLITE_LOSES = "nothing by a crash or a power cut, all of it with the disk"


def read_durability(text: str) -> Durability:
    """`aof-always`, `everysec` or `wait:N`. Raises ValueError."""
    if text in (ALWAYS, EVERYSEC):
        return Durability(text)
    found = _WAIT.fullmatch(text)
    if found is None or int(found[1]) > MOST_REPLICAS:
        raise ValueError("no durability of Redis")
    return Durability(text, int(found[1]))
