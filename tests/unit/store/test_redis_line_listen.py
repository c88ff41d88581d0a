"""The connection that hears news: told when some may have been missed, found dead when it is silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gateway.store._redis_line import RedisLine
from tests.redis.actor import acting
from tests.redis.line import eventually, open_line
from tests.redis.server import RedisServer

Said = tuple[str | None, bytes | None]


class Ear:
    """What was heard, and a way to wait for more."""

    def __init__(self) -> None:
        self.heard: list[Said] = []
        self._news = asyncio.Event()

    def __call__(self, channel: str | None, message: bytes | None) -> None:
        self.heard.append((channel, message))
        self._news.set()

    async def until(self, is_enough: Callable[[list[Said]], bool], *, seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not is_enough(self.heard):
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def listening(line: RedisLine, *channels: str) -> AsyncIterator[Ear]:
    ear = Ear()
    for channel in channels:
        line.subscribe(channel)
    task = asyncio.create_task(line.listen(ear))
    try:
        await ear.until(lambda heard: (None, None) in heard)
        yield ear
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled(), task.exception()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


async def test_what_is_published_is_heard_in_order(server: RedisServer) -> None:
    async with open_line(server.url) as line, listening(line, "a", "b") as ear:
        with server.client() as client:
            for number in range(100):
                client.publish("a" if number % 2 else "b", str(number))
            client.publish("c", "not for us")
        await ear.until(lambda heard: len(heard) >= 101)
        assert [message for _, message in ear.heard[1:]] == [str(n).encode() for n in range(100)]
        assert ear.heard[2] == ("a", b"1")


async def test_a_channel_that_joins_is_told_when_it_holds(server: RedisServer) -> None:
    async with open_line(server.url) as line, listening(line) as ear:
        assert ear.heard == [(None, None)]
        line.subscribe("late")
        await ear.until(lambda heard: ("late", None) in heard)
        with server.client() as client:
            assert client.publish("late", "x") == 1
            await ear.until(lambda heard: ("late", b"x") in heard)
            line.unsubscribe("late")
            line.subscribe("other")
            await ear.until(lambda heard: ("other", None) in heard)
            assert client.publish("late", "y") == 0


async def test_whoever_was_cut_off_is_told_that_news_may_be_missing(server: RedisServer) -> None:
    async with open_line(server.url) as line, listening(line, "a") as ear:
        with server.client() as client:
            for count in range(2, 5):
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                await ear.until(lambda heard, count=count: heard.count((None, None)) == count)  # type: ignore[misc]
                assert client.publish("a", "x") == 1, "it is subscribed to when that is said"
                await ear.until(lambda heard, count=count: heard.count(("a", b"x")) == count - 1)  # type: ignore[misc]


async def test_channels_that_changed_while_nobody_heard_hold_for_the_next_connection(server: RedisServer) -> None:
    async with open_line(server.url) as line, listening(line, "a", "gone") as ear:
        server.kill()
        line.unsubscribe("gone")
        line.subscribe("new")
        await asyncio.to_thread(server.start)
        await ear.until(lambda heard: heard.count((None, None)) == 2)
        with server.client() as client:
            assert [client.publish(channel, "x") for channel in ("a", "new", "gone")] == [1, 1, 0]


async def test_a_connection_that_is_silent_is_found_dead(server: RedisServer) -> None:
    """Frozen, the server looks as a peer does whose cable was pulled: the kernel takes all, and nobody answers."""
    async with open_line(server.url) as line:
        line._listener.ping_seconds, line._listener.silence_seconds = 0.2, 0.5
        async with listening(line, "a") as ear:
            first = line._listener._wire
            server.freeze()
            try:
                await eventually(lambda: line._listener._wire is not first, seconds=2)
            finally:
                server.thaw()
            await ear.until(lambda heard: heard.count((None, None)) == 2)


async def test_silence_that_answers_when_asked_is_left_in_peace(server: RedisServer) -> None:
    async with open_line(server.url) as line:
        line._listener.ping_seconds, line._listener.silence_seconds = 0.05, 1.0
        async with listening(line, "a") as ear:
            await asyncio.sleep(0.4)
            assert ear.heard == [(None, None)]


async def test_it_is_found_dead_within_thirty_seconds_as_it_is_set() -> None:
    from gateway.store import _redis_line_listen as listen

    assert listen.PING_SECONDS < listen.SILENCE_SECONDS <= 30


async def test_very_many_channels_are_subscribed_to_and_told_once(server: RedisServer) -> None:
    async with open_line(server.url) as line, listening(line, *(f"channel:{n}" for n in range(5_000))) as ear:
        assert ear.heard == [(None, None)]
        with server.client() as client:
            assert client.publish("channel:4999", "x") == 1
        await ear.until(lambda heard: ("channel:4999", b"x") in heard)


async def test_two_do_not_listen_at_once(server: RedisServer) -> None:
    async with open_line(server.url) as line, listening(line):
        with pytest.raises(RuntimeError, match="somebody listens already"):
            await line.listen(lambda channel, message: None)


async def test_a_server_that_forbids_it_is_complained_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async with acting() as actor:
        actor.reply = lambda words: b"-NOPERM no channels for you\r\n" if words[0] == b"SUBSCRIBE" else None
        async with open_line(actor.url) as line:
            line.subscribe("a")
            task = asyncio.create_task(line.listen(lambda channel, message: None))
            await eventually(lambda: [words[0] for words in actor.heard].count(b"SUBSCRIBE") >= 3)
            task.cancel()
            await asyncio.wait({task})
    assert caplog.text.count("does not allow this user") == 1
