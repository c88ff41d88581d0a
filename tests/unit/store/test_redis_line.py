"""The line to a real server: answers, their owners, freezes, restarts, and writes that were given up."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.contract.errors import ConfigurationError, StoreOverloaded, StoreUnavailable
from gateway.store._redis_line import RedisLine
from gateway.store._redis_wire import Call, ScriptRefused
from tests.redis.line import ADD, GET, REFUSE, UNGUARDED, line_to, open_line, put, script
from tests.redis.server import RedisServer, free_port

BOUND = 1.0
MARGIN = 0.25


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


@pytest.fixture
async def line(server: RedisServer) -> AsyncIterator[RedisLine]:
    async with open_line(server.url, timeout_seconds=BOUND) as opened:
        yield opened


async def fate(asked: Any) -> tuple[str, float]:
    """How it ended, and after how long."""
    begun = time.monotonic()
    try:
        await asked
    except StoreUnavailable:
        ended = "unavailable"
    except StoreOverloaded:
        ended = "overloaded"
    else:
        ended = "answered"
    return ended, time.monotonic() - begun


async def until_it_works(line: RedisLine, *, seconds: float = 5.0) -> None:
    limit = time.monotonic() + seconds
    while True:
        try:
            await line.run(put("{s0}again", "yes"))
            return
        except (StoreUnavailable, StoreOverloaded):
            assert time.monotonic() < limit, "it does not come back"
            await asyncio.sleep(0.02)


async def test_scripts_answer_in_their_order_and_refuse_in_their_own_words(line: RedisLine) -> None:
    assert await line.run(put("{s0}a", "one")) == b"one"
    answers = await line.run_all([put("{s0}a", "two"), Call(REFUSE, ["{s0}a"]), Call(GET, ["{s0}a"])])
    assert answers[0] == b"two"
    assert isinstance(answers[1], ScriptRefused)
    assert answers[1].word == "LEASE"
    assert answers[2] == b"two"
    assert await line.read(("GET", "{s0}a"), ("HGETALL", "{s0}nothing")) == [b"two", []]
    with pytest.raises(ScriptRefused, match="LEASE somebody else has it"):
        await line.run(Call(REFUSE, ["{s0}a"]))
    assert line.load.count == line.load.bytes == 0


async def test_what_a_script_is_given_arrives_as_it_was(line: RedisLine) -> None:
    echo = script("return {KEYS[1], ARGV[1], ARGV[3], ARGV[4], ARGV[5]}")
    raw = bytes(range(256)) + b"\r\n$3\r\n"
    assert await line.run(Call(echo, ["{s0}ä"], [raw, "ü", -7], 1_700_000_000_000_000)) == [
        "{s0}ä".encode(),
        b"1700000000000000",
        raw,
        "ü".encode(),
        b"-7",
    ]


async def test_a_server_that_forgot_its_scripts_is_told_them_again(line: RedisLine, server: RedisServer) -> None:
    await line.run(put("{s0}a", "one"))
    with server.client() as client:
        client.script_flush()
        assert await line.run(put("{s0}a", "two")) == b"two"
        client.script_flush()
        calls = [Call(ADD, ["{s0}list"], [str(number)]) for number in range(50)]
        assert await line.run_all(calls) == list(range(1, 51))


async def test_callers_who_leave_take_nobody_elses_answer_with_them(line: RedisLine) -> None:
    """A thousand questions, each with an answer of its own; a third of the askers leave in the middle."""
    draw = random.Random(4)
    wrong: list[tuple[str, Any]] = []

    async def ask(number: int) -> None:
        value = f"{number}:" + "x" * draw.randrange(20_000)
        for _ in range(5):
            answer = await line.run(put(f"{{s0}}{number}", value))
            if answer != value.encode():
                wrong.append((value[:20], answer[:20]))

    askers = [asyncio.create_task(ask(number)) for number in range(200)]
    for leaver in draw.sample(askers, 70):
        for _ in range(draw.randrange(4)):
            await asyncio.sleep(0)
        leaver.cancel()
    await asyncio.wait(askers)
    gone = sum(asker.cancelled() for asker in askers)
    assert [asker.exception() for asker in askers if not asker.cancelled() and asker.exception()] == []
    assert wrong == []
    assert gone > 30
    assert await line.run(put("{s0}a", "after")) == b"after"
    assert line.load.count == line.load.bytes == 0
    assert line.nodes[0].connections == 1, "nobody's leaving costs a connection"


async def test_a_write_whose_caller_left_is_done(line: RedisLine, server: RedisServer) -> None:
    writing = asyncio.create_task(line.run(put("{s0}left", "yes")))
    await asyncio.sleep(0)
    writing.cancel()
    await line.run(put("{s0}a", "behind it"))
    with server.client() as client:
        assert client.get("{s0}left") == b"yes"


async def test_a_frozen_server_holds_nobody_longer_than_the_bound(line: RedisLine, server: RedisServer) -> None:
    await line.run(put("{s0}a", "before"))
    server.freeze()
    try:
        fates = []
        for _ in range(3):  # three times over, so that connections could pile up
            fates += await asyncio.gather(*(fate(line.run(put(f"{{s0}}{n}", "late"))) for n in range(100)))
            assert line.nodes[0].connections <= 3
        asked = await fate(line.read(("GET", "{s0}a")))
    finally:
        server.thaw()
    assert {ended for ended, _ in [*fates, asked]} == {"unavailable"}
    assert max(took for _, took in [*fates, asked]) < BOUND + MARGIN
    await until_it_works(line)
    assert line.nodes[0].connections <= 2
    assert line.load.count == line.load.bytes == 0


async def test_what_was_given_up_is_not_done_after_the_thaw(line: RedisLine, server: RedisServer) -> None:
    """The bytes lie at the frozen server. One write without the guard shows that they are read when it thaws."""
    await line.run_all([put("{s0}a", "before"), put("{s0}b", "before", by=UNGUARDED)])
    server.freeze()
    try:
        given_up = await asyncio.gather(
            *(fate(line.run(put(f"{{s0}}late{n}", "late"))) for n in range(20)),
            fate(line.run(put("{s0}a", "late"))),
            fate(line.run(put("{s0}control", "late", by=UNGUARDED))),
        )
    finally:
        server.thaw()
    assert {ended for ended, _ in given_up} == {"unavailable"}
    with server.client() as client:
        limit = time.monotonic() + 5
        while client.get("{s0}control") is None:
            assert time.monotonic() < limit, "nothing was read after the thaw: this test shows nothing"
            await asyncio.sleep(0.01)
        assert client.get("{s0}a") == b"before"
        assert client.keys("{s0}late*") == []


async def test_more_than_may_wait_are_refused_at_once(server: RedisServer) -> None:
    async with open_line(server.url, max_queue=10, timeout_seconds=BOUND) as line:
        server.freeze()
        try:
            waiting = [asyncio.create_task(fate(line.run(put("{s0}a", str(n))))) for n in range(10)]
            await asyncio.sleep(0)
            ended, took = await fate(line.run(put("{s0}a", "one more")))
            assert (ended, took < 0.1) == ("overloaded", True)
            with pytest.raises(StoreOverloaded):
                await line.read(("GET", "{s0}a"))
            assert {ended for ended, _ in await asyncio.gather(*waiting)} == {"unavailable"}
        finally:
            server.thaw()
        await until_it_works(line)


async def test_callers_who_left_a_frozen_server_are_counted_until_it_answers(server: RedisServer) -> None:
    async with open_line(server.url, max_queue=10, timeout_seconds=BOUND) as line:
        server.freeze()
        try:
            leaving = [asyncio.create_task(line.run(put("{s0}a", str(n)))) for n in range(10)]
            await asyncio.sleep(0.01)
            for task in leaving:
                task.cancel()
            await asyncio.wait(leaving)
            with pytest.raises(StoreOverloaded):
                await line.run(put("{s0}a", "one more"))
        finally:
            server.thaw()
        await until_it_works(line)
        assert line.load.count == 0


async def test_a_killed_server_is_found_again_when_it_is_back(line: RedisLine, server: RedisServer) -> None:
    await line.run(put("{s0}a", "kept"))
    server.kill()
    ended, took = await fate(line.run(put("{s0}a", "lost")))
    assert (ended, took < BOUND) == ("unavailable", True)
    with pytest.raises(StoreUnavailable, match="cannot be reached: Connection refused"):
        await line.run(put("{s0}a", "lost"))
    server.start()
    await until_it_works(line)
    assert await line.read(("GET", "{s0}a")) == [b"kept"]


async def test_writes_during_kills_stand_if_they_were_answered(tmp_path: Path) -> None:
    """
    Whatever was answered is there after every restart, and nothing is there twice.

    Only with a fsync before every answer: with `everysec` a server answers before it has written while a fsync is under
    way, and one run in ten of this test loses a few.
    """
    answered: list[str] = []
    server = RedisServer(tmp_path / "redis", "--appendfsync", "always")
    with server:
        async with open_line(server.url, durability="aof-always", timeout_seconds=BOUND) as line:

            async def write(worker: int) -> None:
                for number in range(100_000):
                    name = f"{worker}.{number}"
                    try:
                        await line.run(Call(ADD, ["{s0}list"], [name]))
                        answered.append(name)
                    except StoreUnavailable:
                        await asyncio.sleep(0.01)

            writers = [asyncio.create_task(write(worker)) for worker in range(8)]
            for _ in range(4):
                before = len(answered)
                while len(answered) < before + 200:
                    assert not any(writer.done() for writer in writers)
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            for writer in writers:
                writer.cancel()
            await asyncio.wait(writers)
            await until_it_works(line)
            (kept,) = await line.read(("LRANGE", "{s0}list", 0, -1))
            assert len(kept) == len(set(kept))
            assert set(answered) <= {name.decode() for name in kept}


async def test_nothing_is_asked_of_a_line_that_was_closed(server: RedisServer) -> None:
    line = line_to(server.url)
    await line.open()
    writing = asyncio.create_task(line.run(put("{s0}a", "last")))
    await asyncio.sleep(0)
    await line.aclose()
    assert await writing == b"last"
    with pytest.raises(StoreUnavailable, match="closed"):
        await line.run(put("{s0}a", "later"))
    with pytest.raises(StoreUnavailable, match="closed"):
        await line.read(("GET", "{s0}a"))


async def test_a_server_that_is_not_there_is_waited_for_and_then_refused(server: RedisServer, tmp_path: Path) -> None:
    line = line_to(f"redis://127.0.0.1:{free_port()}/0")
    begun = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"cannot be reached: Connection refused; start it, or name another"):
        await line.open(start_seconds=0.3)
    assert 0.3 <= time.monotonic() - begun < 2
    late = RedisServer(tmp_path / "late")
    line = line_to(late.url)
    opening = asyncio.create_task(line.open())
    await asyncio.sleep(0.1)
    await asyncio.to_thread(late.start)
    try:
        await opening
        assert await line.run(put("{s0}a", "one")) == b"one"
        await line.aclose()
    finally:
        late.kill()


async def test_its_clock_is_the_servers(line: RedisLine, server: RedisServer) -> None:
    with server.client() as client:
        seconds, micros = client.time()
    assert abs(line.clock.now().timestamp() - (seconds + micros / 1e6)) < 0.05


async def test_a_password_is_asked_for_and_given(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "locked") as server:
        with server.client() as client:
            client.config_set("requirepass", "s3cret canary")
        for password, said in (
            ("", r"wants a password; set \[store\] password"),
            ("wrong", r"does not accept user and password; correct \[store\] username and password"),
        ):
            with pytest.raises(ConfigurationError, match=said) as refused:
                await line_to(server.url, password=password).open(start_seconds=5)
            assert "canary" not in str(refused.value)
            assert "wrong" not in str(refused.value)
        async with open_line(server.url, password="s3cret canary") as line:
            assert await line.run(put("{s0}a", "one")) == b"one"
        assert "canary" not in repr(vars(line))
