"""Who holds which prediction, read from the store's own rows while a gateway works on them. Changes none."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import redis

from gateway.store._encoding import to_micros
from gateway.store._redis_key import Keys

_AT_ONCE = 1_000  # so many are asked for together: Redis answers nobody else meanwhile


class Rows(Protocol):
    def living(self) -> set[str]:
        """Workers whose lease is not over, by the store's own time."""
        ...

    def waiting(self, workers: set[str]) -> int:
        """How many are open and held by none of these workers. A look at the store's indexes, which costs it little."""
        ...

    def settled(self, ids: Iterable[str], workers: set[str]) -> set[str]:
        """Those of them that one of these workers holds, or that have ended. A look at each row."""
        ...


class SqliteRows:
    """A reader beside the gateway, as `sqlite3` on the command line would be: the log lets both work."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def living(self) -> set[str]:
        now = to_micros(datetime.now(UTC))
        return {name for (name,) in self._read("SELECT name FROM worker WHERE lease_until > ?", (now,))}

    def waiting(self, workers: set[str]) -> int:
        free = self._read("SELECT count(*) FROM prediction WHERE is_open = 1 AND worker IS NULL", ())
        held = self._read(
            "SELECT worker, count(*) FROM prediction WHERE is_open = 1 AND worker IS NOT NULL GROUP BY worker", ()
        )
        return int(free[0][0] + sum(count for worker, count in held if worker not in workers))

    def settled(self, ids: Iterable[str], workers: set[str]) -> set[str]:
        rows = self._read("SELECT id, is_open, worker FROM prediction", ())
        return {id for id, is_open, worker in rows if not is_open or worker in workers}.intersection(ids)

    def _read(self, sql: str, values: tuple[int, ...]) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=5)) as db:
            return db.execute(sql, values).fetchall()


class RedisRows:
    """A second client of the gateway's server, whose keys begin as the configuration's default says."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._shard = Keys("turnout", 1).first

    def living(self) -> set[str]:
        with self._server() as server:
            seconds, micros = server.time()
            return set(server.zrangebyscore(self._shard.workers, f"({seconds * 1_000_000 + micros}", "+inf"))

    def waiting(self, workers: set[str]) -> int:
        shard = self._shard
        with self._server() as server:
            free, held = int(server.zcard(shard.due)), int(server.zcard(shard.held))
            ours = (server.zlexcount(shard.held, f"[{name}\0", f"({name}\1") for name in workers)
            return free + held - sum(map(int, ours))

    def settled(self, ids: Iterable[str], workers: set[str]) -> set[str]:
        found: set[str] = set()
        asked = list(ids)
        with self._server() as server:
            for start in range(0, len(asked), _AT_ONCE):
                some = asked[start : start + _AT_ONCE]
                pipe = server.pipeline(transaction=False)
                for id in some:
                    pipe.hmget(self._shard.prediction(id), "open", "worker")
                for id, (is_open, worker) in zip(some, pipe.execute(), strict=True):
                    if is_open == "0" or worker in workers:
                        found.add(id)
        return found

    def _server(self) -> redis.Redis:
        return redis.Redis.from_url(self._url, socket_timeout=10, decode_responses=True)
