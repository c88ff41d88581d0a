"""The line to a cluster of three masters: keys find their node, slots move, a master dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.contract.errors import ConfigurationError, StoreUnavailable
from gateway.store._redis_line import RedisLine
from gateway.store._redis_wire import Call
from tests.redis.cluster import RedisCluster
from tests.redis.line import ADD, GET, eventually, line_to, open_line, put, script
from tests.redis.server import RedisServer

SHARDS = 64


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
async def line(cluster: RedisCluster) -> AsyncIterator[RedisLine]:
    async with open_line(cluster.url) as opened:
        yield opened


async def test_each_shard_finds_its_node_and_answers_come_in_order(line: RedisLine) -> None:
    calls = [put(f"{{s{n % SHARDS}}}p{n}", str(n)) for n in range(640)]
    assert await line.run_all(calls) == [str(n).encode() for n in range(640)]
    read = await line.read(*(("GET", f"{{s{n % SHARDS}}}p{n}") for n in range(640)))
    assert read == [str(n).encode() for n in range(640)]
    assert len([node for node in line.nodes if node.connections]) == 3
    assert line.is_cluster


async def test_one_node_is_enough_to_find_the_others(cluster: RedisCluster) -> None:
    async with open_line(f"redis+cluster://127.0.0.1:{cluster.servers[2].port}") as line:
        await line.run_all([put(f"{{s{n}}}", "x") for n in range(SHARDS)])


async def test_a_slot_that_moves_is_followed_and_nothing_is_done_twice(line: RedisLine, cluster: RedisCluster) -> None:
    """ASK while its keys go over, MOVED after: to and fro while others write there."""
    key = "{s7}moving"
    done: list[int] = []

    async def write() -> None:
        while True:
            done.append(await line.run(Call(ADD, [key], ["x"])))

    writing = asyncio.create_task(write())
    for _ in range(4):
        before = len(done)
        while len(done) < before + 50:
            assert not writing.done()
            await asyncio.sleep(0)
        to = await asyncio.to_thread(lambda: cluster.other(cluster.owner(key)))
        await asyncio.to_thread(cluster.begin_move, key, to=to)
        assert await line.run(put("{s7}new", "x")) == b"x", "it is not there: ASK leads to the other node"
        await asyncio.to_thread(cluster.finish_move, key, to=to)
    writing.cancel()
    await asyncio.wait({writing})
    kept = await line.run(Call(script("return redis.call('LLEN', KEYS[1])", is_reading=True), [key]))
    assert done == list(range(1, len(done) + 1))
    assert len(done) <= kept <= len(done) + 1


async def test_a_script_of_which_half_the_keys_have_gone_waits_for_the_rest(
    line: RedisLine, cluster: RedisCluster
) -> None:
    both = script("redis.call('SET', KEYS[1], ARGV[3]) redis.call('SET', KEYS[2], ARGV[3]) return ARGV[3]")
    await line.run(Call(both, ["{s9}a", "{s9}b"], ["before"]))
    source, to = cluster.owner("{s9}a"), cluster.other(cluster.owner("{s9}a"))
    cluster.begin_move("{s9}a", to=to)
    with source.client() as client:
        client.execute_command("MIGRATE", "127.0.0.1", to.port, "{s9}a", 0, 5000)
    waiting = asyncio.create_task(line.run(Call(both, ["{s9}a", "{s9}b"], ["after"])))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await asyncio.to_thread(cluster.finish_move, "{s9}a", to=to)
    assert await waiting == b"after"
    assert await line.read(("GET", "{s9}a"), ("GET", "{s9}b")) == [b"after", b"after"]


async def test_news_of_any_node_is_heard(line: RedisLine, cluster: RedisCluster) -> None:
    heard: list[tuple[str | None, bytes | None]] = []
    line.subscribe("news")
    listening = asyncio.create_task(line.listen(lambda channel, message: heard.append((channel, message))))
    publish = script("return redis.call('PUBLISH', 'news', ARGV[3])")
    await eventually(lambda: (None, None) in heard)
    await line.run_all([Call(publish, [f"{{s{n}}}"], [str(n)]) for n in range(SHARDS)])
    await eventually(lambda: len(heard) > SHARDS)
    listening.cancel()
    await asyncio.wait({listening})
    assert {message for _, message in heard[1:]} == {str(n).encode() for n in range(SHARDS)}


async def test_a_lone_server_is_no_cluster(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "lone") as server, pytest.raises(ConfigurationError, match="tells no slots"):
        await line_to(f"redis+cluster://127.0.0.1:{server.port}").open()


@pytest.mark.timeout(40)  # a cluster takes its time to notice that a master is gone
async def test_a_master_that_dies_takes_only_its_own_shards_and_comes_back(tmp_path: Path) -> None:
    with RedisCluster(tmp_path, "--cluster-require-full-coverage", "no") as cluster:
        async with open_line(cluster.url) as line:
            await line.run_all([put(f"{{s{n}}}", "kept") for n in range(SHARDS)])
            victim = cluster.servers[1]
            others = [n for n in range(SHARDS) if cluster.owner(f"{{s{n}}}") is not victim]
            lost = [n for n in range(SHARDS) if n not in others]
            assert others
            assert lost
            victim.kill()
            assert await line.run_all([put(f"{{s{n}}}", "kept") for n in others]) == [b"kept"] * len(others)
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await line.run(put(f"{{s{lost[0]}}}", "x"))
            with pytest.raises(StoreUnavailable):
                await line.read(*(("GET", f"{{s{n}}}") for n in range(SHARDS)))
            assert time.monotonic() - begun < 2 * 1.25
            await asyncio.to_thread(victim.start)
            for _ in range(400):
                try:
                    read = await line.read(*(("GET", f"{{s{n}}}") for n in range(SHARDS)))
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
            assert read == [b"kept"] * SHARDS
            assert await line.run(Call(GET, [f"{{s{lost[0]}}}"])) == b"kept"


async def test_every_node_is_looked_at_before_it_is_used(tmp_path: Path) -> None:
    with RedisCluster(tmp_path) as cluster:
        with cluster.servers[1].client() as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(ConfigurationError, match=rf":{cluster.servers[1].port}: maxmemory-policy is allkeys-lru"):
            await line_to(cluster.url).open()


@pytest.mark.timeout(60)  # as above, and a replica that is filled first
async def test_a_replica_that_takes_over_is_found(tmp_path: Path) -> None:
    options = ("--repl-diskless-sync-delay", "0", "--cluster-require-full-coverage", "no")
    with RedisCluster(tmp_path, *options, replicas=1) as cluster:
        async with open_line(cluster.url) as line:
            await line.run_all([put(f"{{s{n}}}", "kept") for n in range(SHARDS)])
            await asyncio.to_thread(cluster.await_replica)
            cluster.servers[0].kill()
            read: list[bytes | None] = []
            for _ in range(1_000):
                try:
                    read = await line.read(*(("GET", f"{{s{n}}}") for n in range(SHARDS)))
                    await line.run_all([put(f"{{s{n}}}", "again") for n in range(SHARDS)])
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.02)
            assert read == [b"kept"] * SHARDS
            assert len([node for node in line.nodes if node.connections]) == 3
