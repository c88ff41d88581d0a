"""Servers that refuse, break off, lie or say nothing: what a caller hears, and that the next one is served."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.contract.errors import ConfigurationError, StoreUnavailable
from gateway.store._redis_line import RedisLine
from gateway.store._redis_wire import Call, ScriptRefused
from tests.redis.actor import Actor, acting
from tests.redis.line import GET, eventually, line_to, open_line, put
from tests.redis.server import RedisServer

BOUND = 0.5
MARGIN = 0.25


@pytest.fixture
async def actor() -> AsyncIterator[Actor]:
    async with acting() as playing:
        yield playing


@pytest.fixture
async def line(actor: Actor) -> AsyncIterator[RedisLine]:
    async with open_line(actor.url, timeout_seconds=BOUND) as opened:
        yield opened


def to_scripts(said: bytes) -> Callable[[list[bytes]], bytes | None]:
    return lambda words: said if words[0] == b"EVALSHA" else None


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "still reading its data"),
        (b"-READONLY You can't write against a read only replica.\r\n", "is a replica"),
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "out of memory"),
        (b"-MISCONF Redis is configured to save RDB snapshots, but\r\n", "cannot write to its disk"),
        (b"-NOREPLICAS Not enough good replicas to write.\r\n", "fewer replicas than it needs"),
        (b"-CLUSTERDOWN The cluster is down\r\n", "cluster that is down"),
        (b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n", "moving these keys"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", "lost its primary"),
        (b"-NOAUTH Authentication required.\r\n", "wants a password"),
        (b"-WRONGPASS invalid username-password pair\r\n", "does not accept user and password"),
        (b"-NOPERM this user has no permissions to run 'evalsha'\r\n", "; allow it every command"),
        (b"-BUSY Redis is busy running a script.\r\n", "busy with a script"),
        (b"-WRONGTYPE Operation against a key holding the wrong kind\r\n", "; choose another [store] prefix"),
        (b"-ERR unknown command 'EVALSHA'\r\n", "refused: unknown command"),
        (b"-ERR max number of clients reached\r\n", "refused: max number of clients"),
        (b"-CROSSSLOT Keys in request don't hash to the same slot\r\n", "several slots"),
        # Before version 7 it stands in the middle.
        (
            b"-ERR Error running script (call to f_6b): @user_script:9: @user_script: 9: -OOM command not allowed\r\n",
            "out of memory",
        ),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak Redis' protocol"),
        (b":many\r\n", "does not speak Redis' protocol"),
        (b"*2\r\n+half\r\n?\r\n", "does not speak Redis' protocol"),
        (b"$5\r\nhe", "did not answer in time"),
        (Actor.SILENCE, "did not answer in time"),
        (b"", "closed the connection"),
    ],
)
async def test_each_trouble_is_said_in_words_and_the_next_one_is_served(
    actor: Actor, line: RedisLine, said: bytes, heard: str
) -> None:
    actor.reply = to_scripts(said)
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable) as trouble:
        await line.run(put("{s0}a", "x"))
    assert heard in str(trouble.value)
    assert "redis at 127.0.0.1:" in str(trouble.value) or "what is at 127.0.0.1:" in str(trouble.value)
    assert time.monotonic() - begun < BOUND + MARGIN
    actor.reply = lambda words: None
    for _ in range(100):
        try:
            await line.run(put("{s0}a", "x"))
            break
        except StoreUnavailable:
            await asyncio.sleep(0.02)
    else:
        raise AssertionError("nobody is served any more")
    assert line.load.count == line.load.bytes == 0


async def test_a_connection_that_is_reset_is_told_as_such(actor: Actor, line: RedisLine) -> None:
    def reset(words: list[bytes]) -> bytes | None:
        if words[0] == b"EVALSHA":
            actor.cut()
        return None

    actor.reply = reset
    with pytest.raises(StoreUnavailable, match=r"may have been done"):
        await line.run(put("{s0}a", "x"))


async def test_an_answer_nobody_asked_for_ends_the_connection(actor: Actor, line: RedisLine) -> None:
    actor.reply = to_scripts(b"+yours\r\n+whose?\r\n")
    assert await line.run(put("{s0}a", "x")) == b"yours"
    actor.reply = to_scripts(b"+mine\r\n")
    answers = []
    for _ in range(20):
        try:
            answers.append(await line.run(put("{s0}a", "x")))
        except StoreUnavailable:
            await asyncio.sleep(0.02)
    assert set(answers) == {b"mine"}, "never somebody else's"
    assert actor.connections == 2


async def test_the_answer_to_a_question_that_was_too_slow_is_nobodys(actor: Actor, line: RedisLine) -> None:
    """The late answer comes on the old connection while others ask; they have a new one."""
    first = actor.connections
    actor.reply = to_scripts(Actor.SILENCE)
    with pytest.raises(StoreUnavailable, match="in time"):
        await line.run(put("{s0}a", "slow"))
    actor.reply = lambda words: b"$4\r\nmine\r\n" if words[0] == b"EVALSHA" else None
    assert await line.run(put("{s0}a", "x")) == b"mine"
    assert actor.connections == first + 1


async def test_a_connection_that_is_left_is_closed_when_the_last_one_has_his_answer(
    actor: Actor, line: RedisLine
) -> None:
    """The first of two hears that this is no primary: the connection is left, and the other one is heard out."""
    said = iter([b"-READONLY You can't write against a read only replica.\r\n"])
    actor.reply = lambda words: next(said, Actor.SILENCE) if words[0] == b"EVALSHA" else None
    first, second = (asyncio.create_task(line.run(put("{s0}a", str(n)))) for n in range(2))
    await asyncio.wait({first})
    assert isinstance(first.exception(), StoreUnavailable)
    actor.say(b"+done\r\n")
    assert await second == b"done"
    actor.reply = to_scripts(b"+done\r\n")
    assert await line.run(put("{s0}a", "x")) == b"done"
    await eventually(lambda: line.nodes[0].connections == 1, seconds=2)


async def test_a_time_that_was_measured_long_ago_is_measured_again_before_a_write_fails(
    actor: Actor, line: RedisLine
) -> None:
    def late(words: list[bytes]) -> bytes | None:
        if words[0] != b"EVALSHA":
            return None
        is_late = int(words[5]) < time.time() * 1e6
        return b"-LATE it would be done after its time\r\n" if is_late else b"+done\r\n"

    actor.reply = late
    node = line.nodes[0]
    node.time._readings[0] = node.time._readings[0]._replace(at=-20_000.0)
    while len(node.time._readings) > 1:
        node.time._readings.pop()
    assert await line.run(put("{s0}a", "x")) == b"done"


async def test_what_only_reads_is_asked_again_over_a_new_connection(actor: Actor, line: RedisLine) -> None:
    cuts = iter([True])

    def once(words: list[bytes]) -> bytes | None:
        if words[0] in (b"EVALSHA", b"GET"):
            return b"" if next(cuts, False) else b"+there\r\n"
        return None

    actor.reply = once
    assert await line.run(Call(GET, ["{s0}a"])) == b"there"
    cuts = iter([True])
    assert await line.read(("GET", "{s0}a")) == [b"there"]
    cuts = iter([True])
    with pytest.raises(StoreUnavailable, match="may have been done"):
        await line.run(put("{s0}a", "x"))


async def test_a_server_that_forgets_every_script_is_not_asked_for_ever(actor: Actor, line: RedisLine) -> None:
    actor.reply = to_scripts(b"-NOSCRIPT No matching script. Please use EVAL.\r\n")
    with pytest.raises(StoreUnavailable, match="circles"):
        await line.run(put("{s0}a", "x"))


async def test_a_server_whose_clock_was_set_is_asked_again_by_its_new_time(actor: Actor, line: RedisLine) -> None:
    def late(words: list[bytes]) -> bytes | None:
        if words[0] != b"EVALSHA":
            return None
        is_late = int(words[5]) < (time.time() + actor.ahead_seconds) * 1e6
        return b"-LATE it would be done after its time\r\n" if is_late else b"+done\r\n"

    actor.reply = late
    assert await line.run(put("{s0}a", "x")) == b"done"
    actor.ahead_seconds = 3600.0
    assert await line.run(put("{s0}a", "x")) == b"done"
    actor.ahead_seconds = 0.0
    assert await line.run(put("{s0}a", "x")) == b"done"


async def test_a_write_that_was_too_late_is_unavailable_and_no_refusal(actor: Actor, line: RedisLine) -> None:
    actor.reply = to_scripts(b"-LATE it would be done after its time\r\n")
    with pytest.raises(StoreUnavailable, match="did nothing"):
        await line.run(put("{s0}a", "x"))


async def test_the_moment_after_which_a_write_is_void_is_that_of_its_bound(actor: Actor, line: RedisLine) -> None:
    actor.reply = to_scripts(b"+done\r\n")
    await line.run(put("{s0}a", "x"))
    now = time.time()
    (sent,) = [words for words in actor.heard if words[0] == b"EVALSHA"]
    assert int(sent[4]) == 0
    assert now < int(sent[5]) / 1e6 <= now + BOUND
    await line.run(Call(GET, ["{s0}a"]))
    assert [words[5] for words in actor.heard if words[0] == b"EVALSHA"][1] == b"0", "what reads is never late"


async def test_a_word_that_is_no_servers_is_a_scripts_refusal(actor: Actor, line: RedisLine) -> None:
    actor.reply = to_scripts(b"-CONFLICT with another body\r\n")
    with pytest.raises(ScriptRefused, match="CONFLICT with another body"):
        await line.run(put("{s0}a", "x"))


# -- whether it keeps what it takes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "durability", "said"),
    [
        (
            {"appendonly": "no"},
            "everysec",
            "appendonly is no: a restart loses what it has accepted; set appendonly yes",
        ),
        ({"maxmemory-policy": "allkeys-lru"}, "everysec", "maxmemory-policy is allkeys-lru"),
        ({"maxmemory-policy": "volatile-ttl"}, "everysec", "set maxmemory-policy noeviction there"),
        ({"appendfsync": "no"}, "everysec", "appendfsync is no, too little"),
        ({"appendfsync": "everysec"}, "aof-always", "set appendfsync always there"),
        ({"appendfsync": "no"}, "wait:1", "set appendfsync everysec there"),
        ({"no-appendfsync-on-rewrite": "yes"}, "everysec", "while the log is rewritten"),
    ],
)
async def test_a_server_that_would_lose_things_is_refused_or_complained_of(
    actor: Actor, settings: dict[str, str], durability: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    actor.settings |= settings
    with pytest.raises(ConfigurationError, match=r'checks = "warn" in \[store\]') as refused:
        await line_to(actor.url, durability=durability).open()
    assert said in str(refused.value)
    with caplog.at_level(logging.WARNING, "turnout.store"):
        caplog.clear()
        async with open_line(actor.url, durability=durability, refuses=False):
            pass
    assert [said in record.getMessage() for record in caplog.records].count(True) == 1


@pytest.mark.parametrize("durability", ["everysec", "aof-always", "wait:2"])
async def test_a_server_that_is_right_is_not_complained_of(
    actor: Actor, durability: str, caplog: pytest.LogCaptureFixture
) -> None:
    actor.settings["appendfsync"] = "always"
    actor.role = "role:master\r\nconnected_slaves:2\r\n"
    async with open_line(actor.url, durability=durability):
        assert caplog.records == []


async def test_a_server_that_may_not_tell_its_settings_is_doubted_and_used(
    actor: Actor, caplog: pytest.LogCaptureFixture
) -> None:
    actor.settings = dict.fromkeys(actor.settings)
    async with open_line(actor.url) as line:
        actor.reply = to_scripts(b"+done\r\n")
        assert await line.run(put("{s0}a", "x")) == b"done"
    assert "it does not say its appendonly, appendfsync" in caplog.text


async def test_too_few_replicas_are_said_at_once(actor: Actor, caplog: pytest.LogCaptureFixture) -> None:
    async with open_line(actor.url, durability="wait:2"):
        assert "0 replicas are connected" in caplog.text


@pytest.mark.parametrize("refuses", [True, False])
async def test_a_replica_is_refused_whatever_is_set(actor: Actor, refuses: bool) -> None:
    actor.role = "role:slave\r\nmaster_host:10.0.0.7\r\nmaster_port:6380\r\n"
    with pytest.raises(ConfigurationError, match=r"name its primary, 10\.0\.0\.7:6380"):
        await line_to(actor.url, refuses=refuses).open()


@pytest.mark.parametrize(
    ("server", "is_fine", "name"),
    [
        ("redis_version:6.0.16\r\n", False, "Redis 6.0.16"),
        ("redis_version:6.2.0\r\n", True, "Redis 6.2.0"),
        ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n", True, "Valkey 8.1.1"),
    ],
)
async def test_its_version_is_looked_at(actor: Actor, server: str, is_fine: bool, name: str) -> None:
    actor.server = server
    if is_fine:
        async with open_line(actor.url) as line:
            standing = line.nodes[0].standing
            assert standing is not None
            assert standing.server == name
    else:
        with pytest.raises(ConfigurationError, match=f"it is {name}, too old"):
            await line_to(actor.url).open()


async def test_what_is_no_redis_is_refused_at_once(actor: Actor) -> None:
    for said in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+hello\r\n"):
        actor.reply = lambda words, said=said: said
        with pytest.raises(ConfigurationError):
            await line_to(actor.url, timeout_seconds=BOUND).open(start_seconds=0.3)


async def test_after_a_reconnect_a_server_that_changed_serves_nobody_until_it_is_mended(actor: Actor) -> None:
    actor.reply = to_scripts(b"+done\r\n")
    async with open_line(actor.url, timeout_seconds=BOUND) as line:
        assert await line.run(put("{s0}a", "x")) == b"done"
        actor.settings["maxmemory-policy"] = "allkeys-lru"
        actor.cut()
        for _ in range(5):
            with pytest.raises(StoreUnavailable):
                await line.run(put("{s0}a", "x"))
            await asyncio.sleep(0.03)
        with pytest.raises(StoreUnavailable, match="maxmemory-policy is allkeys-lru"):
            await line.run(put("{s0}a", "x"))
        actor.settings["maxmemory-policy"] = "noeviction"
        for _ in range(100):
            try:
                assert await line.run(put("{s0}a", "x")) == b"done"
                break
            except StoreUnavailable:
                await asyncio.sleep(0.02)
        else:
            raise AssertionError("it is not used again")


async def test_a_server_that_is_changed_while_it_serves_is_found_out(
    actor: Actor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.store._redis_line.MEASURE_SECONDS", 0.02)
    monkeypatch.setattr("gateway.store._redis_line.EXAMINE_SECONDS", 0.05)
    actor.reply = to_scripts(b"+done\r\n")
    async with open_line(actor.url, timeout_seconds=BOUND) as line:
        for policy, is_served in (("volatile-lru", False), ("noeviction", True)):
            actor.settings["maxmemory-policy"] = policy
            for _ in range(200):
                try:
                    await line.run(put("{s0}a", "x"))
                    was_served = True
                except StoreUnavailable:
                    was_served = False
                if was_served is is_served:
                    break
                await asyncio.sleep(0.02)
            assert was_served is is_served
        await eventually(lambda: "keeps what it takes again" in caplog.text)
    assert caplog.text.count("maxmemory-policy is volatile-lru") == 1


async def test_a_server_that_reads_its_log_is_waited_for(actor: Actor, caplog: pytest.LogCaptureFixture) -> None:
    left = iter(range(3))
    loading = b"-LOADING Redis is loading the dataset in memory\r\n"
    actor.reply = lambda words: loading if words[0] == b"TIME" and next(left, None) is not None else None
    async with open_line(actor.url, timeout_seconds=BOUND):
        pass
    assert caplog.text.count("still reading its data from its disk; waiting for it") == 1


# -- replicas that confirm -----------------------------------------------------------------------------------------


async def test_a_write_counts_when_its_replica_confirmed_it(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "primary") as primary:
        replica = RedisServer(
            tmp_path / "replica", "--replicaof", f"127.0.0.1 {primary.port}", "--repl-diskless-sync-delay", "0"
        )
        with replica, primary.client() as eyes:
            for _ in range(500):
                if eyes.info("replication").get("slave0", {}).get("state") == "online":
                    break
                await asyncio.sleep(0.02)
            async with open_line(primary.url, durability="wait:1", timeout_seconds=2.0) as line:
                answers = await asyncio.gather(*(line.run(put(f"{{s0}}{n}", str(n))) for n in range(200)))
                assert answers == [str(n).encode() for n in range(200)]
                with replica.client() as copy:
                    assert copy.get("{s0}199") == b"199"
                replica.freeze()
                try:
                    writing = [asyncio.create_task(line.run(put("{s0}b", "x"))) for _ in range(3)]
                    begun = time.monotonic()
                    assert await line.read(("GET", "{s0}199")) == [b"199"], "nobody who reads waits for replicas"
                    assert time.monotonic() - begun < 0.2
                    for task in writing:
                        with pytest.raises(
                            StoreUnavailable, match=r"only 0 of 1 replicas confirmed it in time; it may"
                        ):
                            await task
                finally:
                    replica.thaw()
                for _ in range(100):
                    try:
                        await line.run(put("{s0}c", "back"))
                        break
                    except StoreUnavailable:
                        await asyncio.sleep(0.02)
                assert await line.read(("GET", "{s0}c")) == [b"back"]
                assert line.load.count == 0


async def test_a_refusal_waits_for_no_replica(actor: Actor) -> None:
    def reply(words: list[bytes]) -> bytes | None:
        return {b"EVALSHA": b"-LEASE lost\r\n", b"WAIT": b":0\r\n"}.get(words[0])

    actor.reply = reply
    async with open_line(actor.url, durability="wait:1", timeout_seconds=BOUND) as line:
        with pytest.raises(ScriptRefused, match="LEASE"):
            await line.run(put("{s0}a", "x"))


async def test_what_waits_behind_a_wait_goes_out_in_one_piece_with_one_more(actor: Actor) -> None:
    def reply(words: list[bytes]) -> bytes | None:
        return {b"EVALSHA": b"+done\r\n", b"WAIT": b":1\r\n"}.get(words[0])

    actor.reply = reply
    async with open_line(actor.url, durability="wait:1", timeout_seconds=BOUND) as line:
        await asyncio.gather(*(line.run(put("{s0}a", "x")) for _ in range(50)))
        assert [words[0] for words in actor.heard].count(b"WAIT") == 1
