"""A Redis Cluster of three masters on loopback, and slots that move between them by hand."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType

import redis
from redis.crc import key_slot

from tests.redis.server import RedisServer, free_port
from tests.waiting import until

SLOTS = 16_384
JOIN_SECONDS = 10.0


class RedisCluster:
    """
    `with RedisCluster(folder) as cluster:` every slot is served inside, at `cluster.url`.

    Each of the `replicas` follows the master of its number.
    """

    def __init__(self, folder: Path, *options: str, masters: int = 3, replicas: int = 0) -> None:
        self.servers = []  # masters first
        self._masters = masters
        for index in range(masters + replicas):
            bus = str(free_port())  # by itself it is the port and 10,000, which may be taken, or beyond the last
            own = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", bus, *options)
            self.servers.append(RedisServer(folder / str(index), *own))
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def __enter__(self) -> RedisCluster:
        with contextlib.ExitStack() as undo:
            for server in self.servers:
                undo.enter_context(server)
            self._join()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._undo.close()

    def owner(self, key: str) -> RedisServer:
        """As the first node sees it."""
        slot = key_slot(key.encode())
        with self.servers[0].client() as client:
            for begin, end, (_, port, *_), *_ in client.execute_command("CLUSTER SLOTS"):
                if begin <= slot <= end:
                    return next(server for server in self.servers if server.port == port)
        raise AssertionError(f"nobody owns slot {slot}")

    def other(self, than: RedisServer) -> RedisServer:
        return next(server for server in self.servers if server is not than)

    def begin_move(self, key: str, *, to: RedisServer) -> None:
        """From now on the owner of this key's slot answers ASK for keys that it does not have."""
        slot, source = key_slot(key.encode()), self.owner(key)
        with source.client() as here, to.client() as there:
            there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self._id(source))
            here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self._id(to))

    def finish_move(self, key: str, *, to: RedisServer) -> None:
        """Its keys go there, and the old owner answers MOVED."""
        slot, source = key_slot(key.encode()), self.owner(key)
        with source.client() as here, to.client() as there:
            while keys := here.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                here.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
            for client in (there, here):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", self._id(to))

    def await_replica(self) -> None:
        """Until the first master's replica has what it has."""
        with self.servers[0].client() as client:
            until(
                lambda: client.info("replication").get("slave0", {}).get("state") == "online",
                seconds=JOIN_SECONDS,
                or_else="the replica does not come",
            )
            client.wait(1, 5_000)

    def _join(self) -> None:
        share = -(-SLOTS // self._masters)
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(server.client()) for server in self.servers]
            for index, client in enumerate(clients):
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
                if index < self._masters:
                    end = min(SLOTS, (index + 1) * share) - 1
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", index * share, end)
            for server, bus in self._places()[1:]:
                clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, bus)
            until(
                lambda: all(_is_whole(client, len(clients)) for client in clients),
                seconds=JOIN_SECONDS,
                or_else="the cluster did not come together",
            )
            for index, client in enumerate(clients[self._masters :]):
                client.execute_command("CLUSTER", "REPLICATE", self._id(self.servers[index]))

    def _places(self) -> list[tuple[RedisServer, int]]:
        found = []
        for server in self.servers:
            with server.client() as client:
                found.append((server, int(client.config_get("cluster-port")["cluster-port"])))
        return found

    def _id(self, server: RedisServer) -> str:
        with server.client() as client:
            found = client.execute_command("CLUSTER", "MYID")
        return found.decode() if isinstance(found, bytes) else str(found)


def _is_whole(client: redis.Redis, count: int) -> bool:
    told = client.execute_command("CLUSTER INFO")
    return bool(told["cluster_state"] == "ok" and told["cluster_known_nodes"] == str(count))
