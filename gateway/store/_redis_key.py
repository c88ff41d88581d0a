"""
The names of the Redis store's keys, and which shard they are of. Reads and writes none of them.

Whatever is changed together carries one tag, `{s12}`, which a cluster keeps together: a prediction with all that hangs
on it and the sets it is found by. Pointers to it, and idempotency keys, are of the shard of their own name.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from gateway.contract.errors import ConfigurationError, refuse

CLUSTER_SHARDS = 64
MOST_SHARDS = 1024
_LAST = 10**16 - 1  # microseconds: 2286


class Shard:
    """The keys of one shard that many predictions share."""

    def __init__(self, prefix: str, index: int) -> None:
        self.index = index
        self.tag = tag = f"{prefix}:{{s{index}}}:"
        self.due = f"{tag}due"  # open and held by nobody, by when they are due
        self.held = f"{tag}held"  # holder, zero, id
        self.workers = f"{tag}workers"  # by the end of their leases
        self.searched = f"{tag}searched"  # id → what it is searched by
        self.listed = f"{tag}listed"  # when it was made, id: everybody's
        self.ids = f"{tag}ids"
        self.maybes = f"{tag}maybes"  # as in `listed`
        self.aging = f"{tag}aging"  # when it ended, id, version
        self.number = f"{tag}number"  # how many were made
        self.outbox = f"{tag}outbox"  # see lua/outbox.lua
        self.hosts = f"{tag}hosts"
        self.files = f"{tag}files"  # when it expires, id
        self.settings = f"{tag}settings"
        self.own = f"{tag}store"  # what the store keeps of itself
        self.audit = f"{tag}audit"
        self.audit_number = f"{tag}audit:number"

    def prediction(self, id: str) -> str:
        return f"{self.tag}p:{id}"

    def events(self, id: str) -> str:
        return f"{self.tag}e:{id}"

    def ledger(self, id: str) -> str:
        return f"{self.tag}l:{id}"

    def deliveries(self, id: str) -> str:
        return f"{self.tag}d:{id}"

    def waiting(self, id: str) -> str:
        """Sequences of its deliveries that have not ended."""
        return f"{self.tag}w:{id}"

    def changed(self, id: str) -> list[str]:
        """What a change of it may touch, in the order of lua/change.lua."""
        tag = self.tag
        return [
            f"{tag}p:{id}",
            self.due,
            self.held,
            self.searched,
            self.maybes,
            self.aging,
            f"{tag}e:{id}",
            f"{tag}l:{id}",
            f"{tag}d:{id}",
            f"{tag}w:{id}",
            self.outbox,
            self.hosts,
        ]

    def delivered(self, id: str) -> list[str]:
        """What the end of a delivery may touch, in the order of lua/finish_delivery.lua."""
        return [self.prediction(id), self.deliveries(id), self.waiting(id), self.outbox, self.hosts, self.aging]

    def owned(self, owner: str) -> str:
        return f"{self.tag}o:{owner}"

    def file(self, id: str) -> str:
        return f"{self.tag}f:{id}"

    def owned_files(self, owner: str) -> str:
        return f"{self.tag}of:{owner}"

    def pointer(self, kind: str, token: str) -> str:
        return f"{self.tag}{kind}:{token}"

    def topic(self, topic: str) -> str:
        return f"{self.tag}x:{topic}"


class BudgetKeys:
    """What budgets are counted by: one slot of its own, since one reservation is of several budgets."""

    def __init__(self, prefix: str) -> None:
        tag = f"{prefix}:{{budgets}}:"
        self.spending = f"{tag}spending"  # counter → what it has come to
        self.windows = f"{tag}windows"  # counters by the end of their window
        self.reservations = f"{tag}reservations"
        self.open = f"{tag}open"  # when it was reserved, id
        self.settled = f"{tag}settled"  # when it was settled, id
        self.own = f"{tag}store"
        self.all = [self.spending, self.windows, self.reservations, self.open, self.settled]  # see lua/budget.lua


class Keys:
    def __init__(self, prefix: str, shards: int) -> None:
        check_prefix(prefix)
        self.prefix = prefix
        self.shards = tuple(Shard(prefix, index) for index in range(shards))
        self.first = self.shards[0]  # what there is little of lies there
        self.budgets = BudgetKeys(prefix)
        self.checked = [*(shard.own for shard in self.shards), self.budgets.own]
        self.changes = f"{prefix}:changed:"  # channel: and the prediction's id
        self.holders = f"{prefix}:holder:"  # channel: and the worker's name

    def shard(self, name: str) -> Shard:
        shards = self.shards
        return shards[0] if len(shards) == 1 else shards[zlib.crc32(name.encode()) % len(shards)]

    def by_shard(self, ids: Iterable[str]) -> dict[Shard, list[str]]:
        found: dict[Shard, list[str]] = {}
        for id in dict.fromkeys(ids):
            found.setdefault(self.shard(id), []).append(id)
        return found


def check_prefix(prefix: str) -> None:
    if not prefix or not prefix.isascii() or not prefix.isprintable() or set(prefix) & set("{}* "):
        raise _refused(prefix)


def _refused(prefix: str) -> ConfigurationError:
    return refuse(
        f"{prefix!r} cannot begin the names of keys",
        place="[store] prefix",
        remedy="choose letters, digits, colons and dashes, for example turnout",
    )


def digits(micros: int) -> str:
    """Sixteen of them: what is sorted by its bytes is sorted by time. What lies out of reach lies at its end."""
    return f"{min(max(micros, 0), _LAST):016d}"


def worker_name(worker: str) -> str:
    """As it stands in `held`. Raises ValueError."""
    if not worker or not worker.isprintable():
        raise ValueError(f"{worker!r} is no name of a worker")
    return worker


def host_name(host: str) -> str:
    """As it stands in the outbox, which keeps the lowest characters for itself."""
    return "".join(character if character > " " else "?" for character in host[:255])
