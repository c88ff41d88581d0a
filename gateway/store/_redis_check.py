"""Whether a server keeps what it takes: its version, role, log and eviction, held against the durability that is set.

It asks and judges; what is done about a fault is for its caller to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from redis import exceptions

from gateway.contract.wording import printable
from gateway.store._redis_fault import word_of
from gateway.store._redis_wire import Argument
from gateway.store.durability import ALWAYS, Durability

OLDEST = (6, 2)
_ASKED = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory-policy")
QUESTIONS: tuple[tuple[Argument, ...], ...] = (
    ("INFO", "server"),
    ("INFO", "replication"),
    *(("CONFIG", "GET", name) for name in _ASKED),
)
_NUMBER = re.compile(r"\d+")


class Complaint(msgspec.Struct, frozen=True):
    """`is_certain` False: it may be well, and cannot be seen from here. `may_pass`: a start does not fail for it."""

    problem: str
    remedy: str
    is_certain: bool = True
    may_pass: bool = False

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


class Standing(msgspec.Struct, kw_only=True, frozen=True):
    """What a server said of itself."""

    server: str  # "Redis 7.0.15", "Valkey 8.0.1"
    version: tuple[int, ...]
    is_primary: bool
    primary: str = ""  # of a replica
    replicas: int = 0  # connected
    settings: dict[str, str | None]  # None: it would not say


def read_standing(answers: Sequence[Any]) -> Standing:
    """From the answers to QUESTIONS. Raises ValueError for what no Redis says."""
    server, replication = _info(answers[0]), _info(answers[1])
    settings: dict[str, str | None] = {}
    for name, answer in zip(_ASKED, answers[2:], strict=True):
        settings[name] = None
        if isinstance(answer, list) and len(answer) == 2:
            settings[name] = bytes(answer[1]).decode("utf-8", "replace")
    is_valkey = server.get("server_name") == "valkey"
    shown = server.get("valkey_version", "") if is_valkey else server.get("redis_version", "")
    # Valkey says for the sake of clients to be the Redis it is compatible with: that is what is compared.
    version = tuple(int(number) for number in _NUMBER.findall(server.get("redis_version", ""))[:3])
    if not version:
        raise ValueError("it tells no version")
    role = replication.get("role", "master")
    return Standing(
        server=f"{'Valkey' if is_valkey else 'Redis'} {shown}",
        version=version,
        is_primary=role == "master",
        primary=f"{replication.get('master_host', '?')}:{replication.get('master_port', '?')}",
        replicas=int(replication.get("connected_slaves", "0") or 0),
        settings=settings,
    )


def judge(standing: Standing, durability: Durability) -> list[Complaint]:
    """What stands in the way of the promise."""
    found = []
    if standing.version < OLDEST:
        found.append(Complaint(f"it is {standing.server}, too old", "run Redis 6.2 or newer, or Valkey"))
    if not standing.is_primary:
        remedy = f"name its primary, {printable(standing.primary)}, in [store] url"
        found.append(Complaint("it is a replica and cannot be written", remedy))
    found += _judge_settings(standing.settings, durability)
    if standing.replicas < durability.replicas:
        problem = f'{standing.replicas} replicas are connected, and durability = "{durability.name}" needs more'
        found.append(Complaint(problem, "start them: until then every write is refused", may_pass=True))
    return found


def _judge_settings(settings: Mapping[str, str | None], durability: Durability) -> list[Complaint]:
    unknown = [name for name in _ASKED if settings.get(name) is None]
    found = []
    if unknown:
        problem = f"it does not say its {', '.join(unknown)}"
        remedy = (
            "ask whoever runs it whether it logs every write (AOF) and evicts nothing, or allow this user CONFIG|GET"
        )
        found.append(Complaint(problem, remedy, is_certain=False))
    if settings.get("appendonly") == "no":
        problem = "appendonly is no: a restart loses what it has accepted"
        found.append(Complaint(problem, "set appendonly yes there"))
    fsync = settings.get("appendfsync")
    if fsync is not None and fsync not in durability.fsyncs:
        wanted = "always" if durability.name == ALWAYS else "everysec"
        problem = f'appendfsync is {printable(fsync)}, too little for durability = "{durability.name}"'
        found.append(Complaint(problem, f"set appendfsync {wanted} there"))
    if settings.get("no-appendfsync-on-rewrite") == "yes":
        problem = "no-appendfsync-on-rewrite is yes: while the log is rewritten nothing is brought to the disk"
        found.append(Complaint(problem, "set no-appendfsync-on-rewrite no there"))
    policy = settings.get("maxmemory-policy")
    if policy is not None and policy != "noeviction":
        problem = f"maxmemory-policy is {printable(policy)}: when memory is short it deletes accepted predictions"
        found.append(Complaint(problem, "set maxmemory-policy noeviction there"))
    return found


def _info(answer: Any) -> dict[str, str]:
    if isinstance(answer, exceptions.RedisError):
        word, text = word_of(answer)
        raise ValueError(f"{word} {printable(text)}".strip())  # noqa: TRY004 - what it said, not what we passed
    if not isinstance(answer, bytes):
        raise ValueError("it answers INFO with something else")  # noqa: TRY004 - as above
    lines = answer.decode("utf-8", "replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}
