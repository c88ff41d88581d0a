"""The Redis store in a universe: real scripts on a real server, reached by a line that is played. Product code else."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from pathlib import Path
from typing import Any

from redis import exceptions

from gateway.contract.errors import StoreUnavailable
from gateway.store import _redis_row
from gateway.store._encoding import from_micros
from gateway.store._redis_fault import word_of
from gateway.store._redis_wire import Argument, Call, HeardOn, ScriptRefused
from gateway.store.protocol import Applied, Created, CreateResult, Held, Lease
from tests.chaos.universe.judge import Judge
from tests.chaos.universe.loop import UniverseLoop
from tests.chaos.universe.note import CURRENT, Note
from tests.redis.server import RedisServer


class Server:
    """
    One connection for scripts and one for news. Both block: to the universe an exchange is one moment.

    What is published is known as soon as its script has run: an echo on the other connection comes behind it.
    """

    def __init__(self, server: RedisServer) -> None:
        self._client = server.client()
        self._connection = self._client.connection_pool.get_connection()
        self._news = self._client.pubsub()
        self._known: set[str] = set()

    def clear(self) -> None:
        self.ask("FLUSHALL")
        self._news.close()
        self._news = self._client.pubsub()
        self._news.psubscribe("*")
        self._news.get_message(timeout=1.0)

    def ask(self, *words: Argument) -> Any:
        """Raises redis's ResponseError."""
        self._connection.send_command(*words)
        return self._connection.read_response(disable_decoding=True)

    def run(self, call: Call) -> Any:
        """A script's answer; a ScriptRefused in its place."""
        script, keys, args, now = call
        if script.sha1 not in self._known:
            self.ask("SCRIPT", "LOAD", script.source)
            self._known.add(script.sha1)
        try:
            return self.ask("EVALSHA", script.sha1, len(keys), *keys, now, 0, *args)
        except exceptions.ResponseError as error:
            return ScriptRefused(*word_of(error))

    def news(self) -> list[tuple[str, bytes]]:
        """What was published until now."""
        self._news.ping("behind")
        heard: list[tuple[str, bytes]] = []
        while True:
            said: Any = self._news.get_message(timeout=5.0)
            if said is None:
                raise AssertionError("redis does not answer")
            if said["type"] == "pmessage":
                heard.append((said["channel"].decode(), said["data"]))
            elif said["type"] == "pong":
                return heard


@contextmanager
def server() -> Iterator[Server]:
    """A redis-server in memory, for as many universes as one process plays."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="turnout-redis-", dir=memory if memory.is_dir() else None))
    try:
        with RedisServer(folder, "--appendonly", "no") as started:
            yield Server(started)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Exchange:
    """What all lines of a universe share: the server, and who listens."""

    def __init__(self, server: Server, judge: Judge | None, loop: UniverseLoop) -> None:
        self.server = server
        self.judge = judge
        self.loop = loop
        self.lines: list[InlineLine] = []
        server.clear()

    def publish(self) -> None:
        for channel, message in self.server.news():
            for line in self.lines:
                line.pass_on(channel, message)


class InlineLine:
    """
    A `gateway.store._redis_wire.Line`: `way()` is how it gets there, and gives the fault that takes the answer.

    `delay()` is how long a hint takes; None: the connection that hints come by has broken.
    """

    is_cluster = False

    def __init__(
        self,
        exchange: Exchange,
        clock: Any,
        *,
        process: str = "",
        way: Callable[[], Awaitable[str | None]] | None = None,
        delay: Callable[[], float | None] = lambda: 0.0,
    ) -> None:
        self.clock = clock
        self._exchange = exchange
        self._process = process
        self._way = way
        self._delay = delay
        self._channels: dict[str, None] = {}
        self._heard: HeardOn | None = None
        self._is_closed = False
        self.context: Context | None = None  # of the process that listens

    async def run(self, call: Call) -> Any:
        [answer] = await self._ask([call])
        if isinstance(answer, ScriptRefused):
            raise answer
        return answer

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        return await self._ask(calls)

    async def _ask(self, calls: Sequence[Call]) -> list[Any]:
        fault = await self._there()
        answers: list[Any] = []
        for call in calls:
            answers.append(self._exchange.server.run(call))
            self._tell(call, answers[-1])
        if not all(call.script.is_reading for call in calls):
            self._exchange.publish()
        if fault is not None:
            raise StoreUnavailable("the answer was lost on the way")
        return answers

    async def read(self, *commands: tuple[Argument, ...]) -> list[Any]:
        fault = await self._there()
        answers = [self._exchange.server.ask(*command) for command in commands]
        if fault is not None:
            raise StoreUnavailable("the answer was lost on the way")
        return answers

    async def _there(self) -> str | None:
        if self._is_closed:
            raise StoreUnavailable("the store is closed")
        return await self._way() if self._way is not None else None

    async def aclose(self) -> None:
        self._is_closed = True
        if self in self._exchange.lines:
            self._exchange.lines.remove(self)

    # -- news --------------------------------------------------------------------------------------------------------

    async def listen(self, heard: HeardOn) -> None:
        self._heard = heard
        self._exchange.lines.append(self)
        for channel in self._channels:
            heard(channel, None)
        heard(None, None)
        try:
            await asyncio.Event().wait()
        finally:
            self._heard = None

    def subscribe(self, channel: str) -> None:
        if channel not in self._channels:
            self._channels[channel] = None
            asyncio.get_running_loop().call_later(0.001, self._hear, channel, None)

    def unsubscribe(self, channel: str) -> None:
        self._channels.pop(channel, None)

    def pass_on(self, channel: str, message: bytes) -> None:
        if channel in self._channels and self._heard is not None:
            seconds, loop = self._delay(), self._exchange.loop
            if seconds is None:
                loop.call_later(2.0, self._hear, None, None, context=self.context)
            else:
                loop.call_later(seconds, self._hear, channel, message, context=self.context)

    def _hear(self, channel: str | None, message: bytes | None) -> None:
        if self._heard is not None and (channel is None or channel in self._channels):
            self._heard(channel, message)

    # -- what the judge is told of -----------------------------------------------------------------------------------

    def _tell(self, call: Call, answer: Any) -> None:
        judge = self._exchange.judge
        if judge is None or isinstance(answer, ScriptRefused) or call.script.is_reading:
            return
        current = CURRENT.get(None)
        name = call.script.name
        if name == "create":
            kept = self._kept(call.keys[0])
            if kept is None or kept.row.prediction.id in judge.rows:
                return
            lease = Lease(worker=kept.worker, fence=kept.fence) if kept.worker else None
            result = CreateResult(outcome=Created.CREATED, prediction=kept.row.prediction, lease=lease)
            judge.committed(
                Note(self._process, "create", (), {"idempotency_key": kept.key or None}, judge.committed), result
            )
        elif name == "apply" and current is not None and current.verb == "apply":
            kept = self._kept(call.keys[0])
            if kept is None:
                return
            prediction = kept.row.prediction
            known = judge.rows.get(prediction.id)
            if known is not None and known.revision != prediction.revision:
                judge.committed(current, Applied(prediction=prediction, changed=True))
        elif name == "beat" and current is not None and current.verb == "beat":
            # A call carries the time at which it was asked, and may be long on its way: a lease counts from there.
            judge.committed(current, from_micros(call.now))
        elif name == "release":
            count = int(call.args[1])
            ids = [str(id) for id in call.args[2 : 2 + count]]
            judge.committed(Note(self._process, "release", (str(call.args[0]), ids), {}, judge.committed), None)
        elif name == "claim_due":
            self._claimed(judge, call, answer)

    def _claimed(self, judge: Judge, call: Call, answer: Any) -> None:
        held = []
        for values in answer:
            if values is not None:
                kept = _redis_row.decode(values)
                held.append(Held(prediction=kept.row.prediction, lease=Lease(worker=kept.worker, fence=kept.fence)))
        fresh = [one for one in held if not judge.is_held(one)]  # a claim that is repeated brings what it brought
        judge.committed(Note(self._process, "claim_due", (), {}, judge.committed), fresh)

    def _kept(self, key: str) -> _redis_row.Kept | None:
        """What stands there now, whatever the script's answer says."""
        values = self._exchange.server.ask("HMGET", key, *_redis_row.FIELDS)
        return _redis_row.decode(values) if values[0] is not None else None
