"""One server: its connections, one being made at a time, its time, and whether it may be trusted. Routes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.contract.errors import StoreUnavailable
from gateway.store._redis_check import QUESTIONS, Complaint, Standing, judge, read_standing
from gateway.store._redis_clock import ServerTime
from gateway.store._redis_fault import HOPELESS, Unreachable, describe, describe_loss, word_of
from gateway.store._redis_line_link import ConfirmedLink, Link, Load, Monotonic, SecureWire, Wire
from gateway.store.address import spell
from gateway.store.durability import Durability

_PAUSE_SECONDS = 0.1  # after an attempt to connect that failed: the next caller makes the next one
PLAIN, CONFIRMED = 0, 1  # the lanes: writes that replicas must confirm have a connection of their own


class Outfit(msgspec.Struct, kw_only=True, frozen=True):
    """How every server is spoken to."""

    username: str
    password: str = ""
    database: int
    is_encrypted: bool
    durability: Durability
    refuses: bool  # a server that would lose what it took
    timeout_seconds: float
    monotonic: Monotonic

    def __repr__(self) -> str:
        return f"Outfit(durability={self.durability.name})"  # never the password

    def wire(self, host: str, port: int) -> Wire:
        kind = SecureWire if self.is_encrypted else Wire
        return kind(
            host=host,
            port=port,
            db=self.database,
            username=self.username or None,
            password=self.password or None,
            client_name="turnout",
            protocol=2,
            # The bound is ours, over everything that belongs to an exchange, and so is what is tried again.
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )


class Node:
    def __init__(self, host: str, port: int, outfit: Outfit, load: Load) -> None:
        self.host = host
        self.port = port
        self.place = spell(host, port)
        self.time = ServerTime(outfit.monotonic)
        self.standing: Standing | None = None
        self.complaints: tuple[Complaint, ...] = ()
        self._outfit = outfit
        self._load = load
        self._links: list[Link | None] = [None, None]
        self._open: set[Link] = set()
        self._attempts: list[asyncio.Task[Link] | None] = [None, None]
        self._pause_until = 0.0
        self._trouble = Unreachable(f"redis at {self.place} has not been reached yet")

    @property
    def connections(self) -> int:
        """Open, or being opened."""
        return len(self._open) + sum(attempt is not None for attempt in self._attempts)

    @property
    def awaited(self) -> list[asyncio.Future[list[Any]]]:
        """What somebody still waits for."""
        return [waiter for link in self._open for waiter in link.awaited]

    def link(self, lane: int) -> Link | None:
        """A connection that is ready now."""
        link = self._links[lane]
        return link if link is not None and link.is_usable else None

    async def reach(self, lane: int, until: float) -> Link:
        """A connection, made if there is none. Raises Unreachable at `until` (monotonic) at the latest."""
        while True:
            link = self.link(lane)
            if link is not None:
                return link
            now = self._outfit.monotonic()
            attempt = self._attempts[lane]
            if attempt is None:
                if now < self._pause_until:
                    raise Unreachable(str(self._trouble), is_hopeless=self._trouble.is_hopeless)
                attempt = asyncio.create_task(self._connect(lane), name="turnout-redis-connect")
                attempt.add_done_callback(_retrieve)
                self._attempts[lane] = attempt
            if now >= until:
                raise Unreachable(f"redis at {self.place} does not answer")
            # It goes on though whoever began it leaves: others wait for it too.
            await asyncio.wait({attempt}, timeout=until - now)
            if attempt.done() and not attempt.cancelled() and attempt.exception() is not None:
                raise Unreachable(str(self._trouble), is_hopeless=self._trouble.is_hopeless)

    async def measure(self, link: Link, seconds: float) -> None:
        """Ask for its time once more. Raises StoreUnavailable."""
        sent = self._outfit.monotonic()
        (answer,) = await link.ask(("TIME",), seconds=seconds)
        received = self._outfit.monotonic()
        if isinstance(answer, exceptions.RedisError):
            word, text = word_of(answer)
            raise Unreachable(describe(self.place, word, text), is_hopeless=word in HOPELESS)
        self.time.note(sent, received, int(answer[0]) + int(answer[1]) / 1e6)

    async def examine(self, link: Link, seconds: float) -> None:
        """Look again whether it keeps what it takes. Raises Unreachable if it does not, and that is to be refused."""
        answers = await link.ask(*QUESTIONS, seconds=seconds)
        try:
            self.standing = read_standing(answers)
        except ValueError as error:
            raise Unreachable(f"redis at {self.place} says nothing of itself: {error}", is_hopeless=True) from None
        self.complaints = tuple(judge(self.standing, self._outfit.durability))
        # A replica is of no use to anybody, whatever is set.
        certain = [complaint for complaint in self.complaints if complaint.is_certain and not complaint.may_pass]
        if certain and (self._outfit.refuses or not self.standing.is_primary):
            either = ', or checks = "warn" in [store]' if self.standing.is_primary else ""
            lines = [f"redis at {self.place}: {complaint}{either}" for complaint in certain]
            raise Unreachable("\n".join(lines), is_hopeless=True)

    def close(self, why: str) -> None:
        for attempt in self._attempts:
            if attempt is not None:
                attempt.cancel()
        for link in list(self._open):
            link.close(why)

    async def _connect(self, lane: int) -> Link:
        wire = self._outfit.wire(self.host, self.port)
        link: Link | None = None
        try:
            async with asyncio.timeout(self._outfit.timeout_seconds):
                await wire.open()
                link = self._make(wire, lane)
                await self.measure(link, self._outfit.timeout_seconds)
                await self.examine(link, self._outfit.timeout_seconds)
        except BaseException as error:
            link.close("it was not trusted") if link is not None else wire.drop()
            if not isinstance(error, Exception):
                raise
            self._trouble = self._unreachable(error)
            self._pause_until = self._outfit.monotonic() + _PAUSE_SECONDS
            raise self._trouble from None
        else:
            self._links[lane] = link
            return link
        finally:
            self._attempts[lane] = None

    def _make(self, wire: Wire, lane: int) -> Link:
        named: dict[str, Any] = {
            "place": self.place,
            "load": self._load,
            "ended": self._open.discard,
            "monotonic": self._outfit.monotonic,
        }
        if lane == CONFIRMED:
            link: Link = ConfirmedLink(wire, replicas=self._outfit.durability.replicas, **named)
        else:
            link = Link(wire, **named)
        self._open.add(link)
        return link

    def _unreachable(self, error: Exception) -> Unreachable:
        if isinstance(error, Unreachable):
            return error
        if isinstance(error, StoreUnavailable):
            return Unreachable(str(error))
        is_hopeless = isinstance(error, exceptions.RedisError) and word_of(error)[0] in HOPELESS
        return Unreachable(describe_loss(self.place, error), is_hopeless=is_hopeless)


def _retrieve(attempt: asyncio.Task[Link]) -> None:
    """Everybody who waited may have left: what it failed of is in `_trouble`."""
    if not attempt.cancelled():
        attempt.exception()
