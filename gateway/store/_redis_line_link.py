"""One connection to one server, shared by everybody: what is asked in one turn of the loop goes out in one piece, and
answers are taken in order. Knows no scripts and no slots.

An answer nobody waits for any more is read and dropped, so that a caller who leaves breaks nothing. A connection that
was too slow once is asked nothing more, and closed as soon as nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from redis import exceptions
from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import InvalidResponse

from gateway.contract.errors import StoreOverloaded, StoreUnavailable
from gateway.store._redis_fault import describe_loss
from gateway.store._redis_wire import Argument

_LOOK_SECONDS = 0.05  # how late an exchange may be found to be late

Monotonic = Callable[[], float]


class Lost(StoreUnavailable):
    """The connection broke before the answer came: what was asked may have been done."""


class Wire(Connection):
    """A connection of redis-py, which makes it, secures it and reads it; written without waiting."""

    async def open(self) -> None:
        await self.connect()  # type: ignore[no-untyped-call]

    def write(self, pieces: Iterable[bytes]) -> None:
        if self._writer is not None:
            self._writer.writelines(pieces)

    async def take(self) -> Any:
        """The next answer; error replies are returned, too."""
        try:
            return await self._parser.read_response(disable_decoding=True)  # type: ignore[attr-defined]
        except exceptions.ConnectionError as error:
            if error.status_code is None:
                raise
            return error  # LOADING and its like: the parser raises them, though the connection is whole

    def drop(self) -> None:
        """At once: what has not left this process is not sent any more."""
        writer, self._reader, self._writer = self._writer, None, None
        self._parser.on_disconnect()  # type: ignore[no-untyped-call]
        if writer is not None:
            writer.transport.abort()


class SecureWire(SSLConnection, Wire):
    """The same through TLS."""


class Load:
    """How much is under way on all connections together, and how much may be."""

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.count = 0
        self.bytes = 0

    def admit(self, count: int) -> None:
        if self.count + count > self._most or self.bytes > self._most_bytes:
            raise StoreOverloaded("too much waits for redis")

    def take(self, size: int) -> None:
        self.count += 1
        self.bytes += size

    def give(self, size: int) -> None:
        self.count -= 1
        self.bytes -= size


class Exchange:
    """
    Commands that go together, and who waits for their answers until when (monotonic).

    `is_own`: a question of ours, which is neither counted nor confirmed by anybody.
    """

    __slots__ = ("answers", "expected", "is_own", "packed", "until", "waiter")

    def __init__(
        self, packed: bytes, expected: int, until: float, waiter: asyncio.Future[list[Any]], *, is_own: bool = False
    ) -> None:
        self.packed = packed
        self.expected = expected
        self.until = until
        self.waiter = waiter
        self.is_own = is_own
        self.answers: list[Any] = []


class Link:
    """Made of a Wire that is connected. `ended` is called once, when it is closed for whatever reason."""

    def __init__(
        self,
        wire: Wire,
        *,
        place: str,
        load: Load,
        ended: Callable[[Link], None],
        monotonic: Monotonic,
    ) -> None:
        self.place = place
        self.known: set[str] = set()  # SHA-1 of scripts that were loaded over it
        self._wire = wire
        self._load = load
        self._ended = ended
        self._monotonic = monotonic
        self._loop = asyncio.get_running_loop()
        self._asked: deque[Exchange] = deque()  # sent, and not wholly answered
        self._out: list[bytes] = []
        self._look: asyncio.TimerHandle | None = None
        self._is_retired = False
        self._is_over = False
        self._reading = self._loop.create_task(self._read(), name="turnout-redis-link")

    @property
    def is_usable(self) -> bool:
        return not self._is_retired

    def exchange(self, packed: bytes, expected: int, until: float, *, is_own: bool = False) -> Exchange:
        """Ask; what is awaited is the Exchange's `waiter`. Only of one that is usable."""
        exchange = Exchange(packed, expected, until, self._loop.create_future(), is_own=is_own)
        if not is_own:
            self._load.take(len(packed))
        self._enqueue(exchange)
        if self._look is None:
            self._look = self._loop.call_later(_LOOK_SECONDS, self._look_for_late)
        return exchange

    async def ask(self, *commands: tuple[Argument, ...], seconds: float) -> list[Any]:
        """For our own questions: they are counted nowhere. Error replies stand among the answers."""
        packed = b"".join([pack(*command) for command in commands])
        return await self.exchange(packed, len(commands), self._monotonic() + seconds, is_own=True).waiter

    @property
    def awaited(self) -> list[asyncio.Future[list[Any]]]:
        """What somebody still waits for; ourselves we do not count."""
        return [one.waiter for one in self._waiting() if not one.is_own and not one.waiter.done()]

    def retire(self) -> None:
        """Ask nothing more over it; close it as soon as nobody waits."""
        self._is_retired = True
        if not self.awaited:
            self.close(f"redis at {self.place} did not answer in time")

    def close(self, why: str) -> None:
        if self._is_over:
            return
        self._is_over = self._is_retired = True
        self._wire.drop()
        self._reading.cancel()
        if self._look is not None:
            self._look.cancel()
        for exchange in self._waiting():
            self._give(exchange)
            if not exchange.waiter.done():
                exchange.waiter.set_exception(Lost(f"{why}; what was asked may have been done"))
        self._asked.clear()
        self._ended(self)

    # -- sending -----------------------------------------------------------------------------------------------

    def _enqueue(self, exchange: Exchange) -> None:
        self._asked.append(exchange)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(exchange.packed)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and not self._is_over:
            self._wire.write(out)

    def _waiting(self) -> Iterable[Exchange]:
        """Whatever has no answer yet."""
        return list(self._asked)

    # -- answers -----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                answer = await self._wire.take()
                if not self._asked:
                    raise InvalidResponse("it answered without being asked")  # noqa: TRY301 - as the parser does
                exchange = self._asked[0]
                exchange.answers.append(answer)
                if len(exchange.answers) == exchange.expected:
                    self._asked.popleft()
                    self._complete(exchange)
        except Exception as error:
            self.close(describe_loss(self.place, error))

    def _complete(self, exchange: Exchange) -> None:
        self._give(exchange)
        if not exchange.waiter.done():
            exchange.waiter.set_result(exchange.answers)

    def _give(self, exchange: Exchange) -> None:
        if not exchange.is_own:
            self._load.give(len(exchange.packed))

    def _look_for_late(self) -> None:
        """One look at all of them now and then costs less than a timer for each."""
        self._look = None
        waiting, now = self._waiting(), self._monotonic()
        is_late = False
        for exchange in waiting:
            if exchange.until <= now:
                is_late = True
                if not exchange.waiter.done():
                    text = f"redis at {self.place} did not answer in time; what was asked may have been done"
                    exchange.waiter.set_exception(StoreUnavailable(text))
        if is_late or self._is_retired:
            self.retire()
        if waiting and not self._is_over:
            self._look = self._loop.call_later(_LOOK_SECONDS, self._look_for_late)


class ConfirmedLink(Link):
    """
    Every write is confirmed by `replicas` before it counts: WAIT goes behind each batch, over this same connection.

    The server answers nothing else here while it waits, so that one batch is under way at a time, and what comes
    meanwhile is the next one.
    """

    def __init__(self, *given: Any, replicas: int, **named: Any) -> None:
        super().__init__(*given, **named)
        self._replicas = replicas
        self._queue: deque[Exchange] = deque()  # not sent
        self._written: list[Exchange] = []  # answered, not confirmed
        self._wait: Exchange | None = None

    def _enqueue(self, exchange: Exchange) -> None:
        if exchange.is_own:
            self._asked.append(exchange)
            self._wire.write([exchange.packed])
            return
        if not self._queue and self._wait is None:
            self._loop.call_soon(self._flush)
        self._queue.append(exchange)

    def _flush(self) -> None:
        if self._is_over or self._wait is not None:
            return
        now = self._monotonic()
        batch = [exchange for exchange in self._queue if exchange.until > now]
        for late in (exchange for exchange in self._queue if exchange.until <= now):
            self._give(late)
            if not late.waiter.done():
                late.waiter.set_exception(StoreUnavailable(f"redis at {self.place} is too slow; it was not sent"))
        self._queue.clear()
        if not batch:
            return
        # It gives up before we do, and so says how many there were; it may be a tenth of a second late.
        until = max(exchange.until for exchange in batch)
        patience = max(0.01, 0.9 * (until - now) - 0.15)
        packed = pack("WAIT", self._replicas, int(patience * 1000))
        self._wait = Exchange(packed, 1, until, self._loop.create_future(), is_own=True)
        self._wait.waiter.cancel()  # nobody awaits it: `_complete` sees its answer
        self._asked.extend((*batch, self._wait))
        self._wire.write([exchange.packed for exchange in batch] + [packed])

    def _complete(self, exchange: Exchange) -> None:
        if exchange is not self._wait:
            super()._complete(exchange) if exchange.is_own else self._written.append(exchange)
            return
        written, self._written, self._wait = self._written, [], None
        confirmed = exchange.answers[0]
        for one in written:
            if isinstance(one.answers[-1], exceptions.RedisError) or (
                isinstance(confirmed, int) and confirmed >= self._replicas
            ):
                super()._complete(one)
                continue
            self._give(one)
            if not one.waiter.done():
                one.waiter.set_exception(StoreUnavailable(self._unconfirmed(confirmed)))
        if self._queue:
            self._loop.call_soon(self._flush)

    def _unconfirmed(self, confirmed: Any) -> str:
        said = confirmed if isinstance(confirmed, int) else 0
        return (
            f"redis at {self.place} has written it, but only {said} of {self._replicas} replicas confirmed it in time;"
            " it may stand"
        )

    def _waiting(self) -> Iterable[Exchange]:
        return [*self._written, *self._asked, *self._queue]


def pack(*arguments: Argument) -> bytes:
    """A command as it is sent."""
    pieces = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        if isinstance(argument, bytes):
            raw = argument
        else:
            raw = (argument if isinstance(argument, str) else str(argument)).encode()
        pieces += (b"$%d\r\n" % len(raw), raw, b"\r\n")
    return b"".join(pieces)
