"""
The Redis store's way to its servers: every question ends in time, is counted, and finds the node that has its key.

A write that was given up is done no more: it carries the server's time after which it refuses itself. What the scripts
mean is the store's affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from redis import exceptions

from gateway.contract.clock import Clock
from gateway.contract.errors import ConfigurationError, StoreUnavailable
from gateway.store import _redis_fault as fault
from gateway.store._redis_clock import ServerClock
from gateway.store._redis_line_link import Exchange, Link, Load, Lost, pack
from gateway.store._redis_line_listen import Listener
from gateway.store._redis_line_node import CONFIRMED, PLAIN, Node, Outfit
from gateway.store._redis_line_slot import Slots, read_redirection, slot_of
from gateway.store._redis_wire import LATE, Argument, Call, HeardOn, ScriptRefused
from gateway.store.address import RedisAddress
from gateway.store.durability import Durability

log = logging.getLogger("turnout.store")

START_SECONDS = 10.0  # a server that reads its log, or is started beside us, is waited for
MEASURE_SECONDS = 1.0  # between two looks at the servers' time, and at who is there
EXAMINE_SECONDS = 30.0  # between two looks at their settings, and at the cluster's slots
MOST_BYTES = 256_000_000  # on their way
_MOST_TURNS = 16  # of one question: redirections, repetitions
_TRY_AGAIN_SECONDS = 0.025
_WORTH_SECONDS = 0.001  # so much more time, and a write that was too late is tried again

# Commands are asked as calls are: both have a key, and are packed for a server that is known.
_Asked = Call | tuple[Argument, ...]


class RedisLine:
    """
    `await line.open()`, and `await line.aclose()` at the end. See `_redis_wire.Line` for what it does.

    `machine` is this machine's clock; `clock` the servers', begun once it is open.
    """

    def __init__(
        self,
        address: RedisAddress,
        *,
        durability: Durability,
        username: str = "",
        password: str = "",
        refuses: bool = True,
        max_queue: int = 1_000,
        timeout_seconds: float = 2.0,
        is_quiet: bool = False,
        machine: Clock,
        draw: Callable[[], float],
    ) -> None:
        self._server_clock = ServerClock(machine)
        self.clock: Clock = self._server_clock
        self.is_cluster = address.is_cluster
        self.timeout_seconds = timeout_seconds
        self.load = Load(most=max_queue, most_bytes=MOST_BYTES)
        self._address = address
        self._draw = draw
        self._monotonic = machine.monotonic
        self._outfit = Outfit(
            username=username,
            password=password,
            database=address.database,
            is_encrypted=address.is_encrypted,
            durability=durability,
            refuses=refuses,
            timeout_seconds=timeout_seconds,
            monotonic=machine.monotonic,
        )
        self._writing_lane = CONFIRMED if durability.replicas else PLAIN
        self._slots = Slots(self._make_node, lambda node: node.close("it has left the cluster"))
        self._listener = Listener(self._outfit, self._listened, draw=draw)
        self._keeping: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._is_quiet = is_quiet  # whoever asks shows the complaints himself
        self._said: dict[str, tuple[str, ...]] = {}
        self._is_closed = False

    # -- opening and closing ----------------------------------------------------------------------------------

    async def open(self, *, start_seconds: float = START_SECONDS) -> None:
        """Reach every node, learn the time, and see that they keep what they take. Raises ConfigurationError."""
        until = self._monotonic() + start_seconds
        has_waited = False
        try:
            while True:
                try:
                    await self._reach_all()
                    break
                except StoreUnavailable as error:
                    is_hopeless = isinstance(error, fault.Unreachable) and error.is_hopeless
                    if is_hopeless:
                        raise ConfigurationError(str(error)) from None
                    if self._monotonic() >= until:
                        raise ConfigurationError(f"{error}; start it, or name another in [store] url") from None
                    if not has_waited:
                        log.warning("%s; waiting for it", error)
                    has_waited = True
                    await asyncio.sleep(0.2)
        except BaseException:
            self._close_nodes()
            raise
        self._complain()
        self._keeping = asyncio.create_task(self._keep(), name="turnout-redis-keep")

    async def aclose(self) -> None:
        self._is_closed = True
        awaited = [waiter for node in self._slots for waiter in node.awaited]
        if awaited:
            await asyncio.wait(awaited, timeout=self.timeout_seconds)
        for task in (self._keeping, self._refreshing):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        self._close_nodes()
        await asyncio.sleep(0)  # what was cancelled ends

    @property
    def nodes(self) -> list[Node]:
        return list(self._slots)

    # -- asking ------------------------------------------------------------------------------------------------

    async def run(self, call: Call) -> Any:
        self.load.admit(1)
        until = self._monotonic() + self.timeout_seconds
        answer = await self._finish(call, self._begin(call, until), until)
        if isinstance(answer, ScriptRefused):
            raise answer
        return answer

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        return await self._ask_all(calls)

    async def read(self, *commands: tuple[Argument, ...]) -> list[Any]:
        return await self._ask_all(commands)

    async def listen(self, heard: HeardOn) -> None:
        await self._listener.listen(heard)

    def subscribe(self, channel: str) -> None:
        self._listener.subscribe(channel)

    def unsubscribe(self, channel: str) -> None:
        self._listener.unsubscribe(channel)

    async def _ask_all(self, asked: Sequence[_Asked]) -> list[Any]:
        self.load.admit(len(asked))
        until = self._monotonic() + self.timeout_seconds
        begun = [self._begin(one, until) for one in asked]
        answers: list[Any] = []
        trouble: StoreUnavailable | None = None
        try:
            for one, exchange in zip(asked, begun, strict=True):
                try:
                    answers.append(await self._finish(one, exchange, until))
                except StoreUnavailable as error:  # the others are heard out: they were sent
                    trouble = trouble or error
        finally:
            for exchange in begun:
                if exchange is not None and not exchange[1].waiter.cancel() and not exchange[1].waiter.cancelled():
                    exchange[1].waiter.exception()  # seen, where we were cancelled before we came to it
        if trouble is not None:
            raise trouble
        return answers

    def _begin(self, asked: _Asked, until: float) -> tuple[Link, Exchange] | None:
        """Ask at once if the way is clear; None: it has to be found first."""
        if self._is_closed:
            raise StoreUnavailable("the store is closed")
        node = self._slots.owner(_slot(asked))
        link = node.link(self._lane(asked)) if node is not None else None
        return (link, self._send(asked, node, link, until)) if node is not None and link is not None else None

    async def _finish(self, asked: _Asked, begun: tuple[Link, Exchange] | None, until: float) -> Any:
        """The answer, by however many turns within the time."""
        node, is_asking = self._slots.owner(_slot(asked)), False
        turns = 0
        while True:
            if begun is None:
                node, begun = await self._begin_slowly(asked, node if is_asking else None, until, is_asking=is_asking)
            link, exchange = begun
            begun = None
            try:
                answer = (await exchange.waiter)[-1]
            except Lost:
                turns += 1
                if turns <= 2 and _is_reading(asked) and not self._is_closed:
                    continue  # it changes nothing, and a new connection may be had in time
                raise
            if not isinstance(answer, exceptions.RedisError):
                return answer
            word, text = fault.word_of(answer)
            turns += word != fault.TRYAGAIN  # which ends with its time
            if turns > _MOST_TURNS:
                raise StoreUnavailable(f"redis at {link.place} sends us in circles")
            is_asking = False
            if word in (fault.MOVED, fault.ASK):
                slot, host, port = read_redirection(text, link.place)
                is_asking = word == fault.ASK
                if is_asking:
                    node = self._slots.node(host, port)
                else:
                    self._slots.move(slot, host, port)
                    self._refresh()
            elif not await self._mend(asked, node, link, word, text, until):
                if fault.is_servers_own(word) or not word or not isinstance(asked, Call):
                    raise StoreUnavailable(fault.describe(link.place, word, text))
                return ScriptRefused(word, text)

    async def _mend(self, asked: _Asked, node: Node | None, link: Link, word: str, text: str, until: float) -> bool:
        """After an error reply: True if it is worth asking again. Nothing was done in any of these."""
        left = until - self._monotonic()
        if word == fault.NOSCRIPT and isinstance(asked, Call):
            link.known.discard(asked.script.sha1)
            return True
        if word == fault.TRYAGAIN and left > 2 * _TRY_AGAIN_SECONDS:
            await asyncio.sleep(_TRY_AGAIN_SECONDS)
            return True
        if word == LATE:
            if node is None or left <= 0:
                raise StoreUnavailable(f"redis at {link.place} was too late, and did nothing")
            # Its clock was set, or we had not asked for long: if it was not slow, it has more time than we believed.
            before = node.time.surely_before(until)
            await node.measure(await node.reach(PLAIN, until), left)
            if node.time.surely_before(until) - before < _WORTH_SECONDS:
                raise StoreUnavailable(f"redis at {link.place} was too late, and did nothing")
            return True
        if word in fault.FATAL:
            link.retire()
        if word == "CLUSTERDOWN":
            self._refresh()
        return False

    async def _begin_slowly(
        self, asked: _Asked, node: Node | None, until: float, *, is_asking: bool
    ) -> tuple[Node, tuple[Link, Exchange]]:
        """Reach the node that has the key, and ask. Raises StoreUnavailable when the time is over."""
        self.load.take(0)
        try:
            try:
                found = node or self._owner(asked)
                link = await found.reach(self._lane(asked), until)
            except fault.Unreachable:
                # Nothing was sent. It may be another's by now.
                if not self.is_cluster or is_asking or self._monotonic() >= until:
                    raise
                await self._refreshed(until)
                found = self._owner(asked)
                link = await found.reach(self._lane(asked), until)
        finally:
            self.load.give(0)
        if self._is_closed:
            raise StoreUnavailable("the store is closed")
        return found, (link, self._send(asked, found, link, until, is_asking=is_asking))

    def _send(self, asked: _Asked, node: Node, link: Link, until: float, *, is_asking: bool = False) -> Exchange:
        pieces = [_ASKING] if is_asking else []
        if not isinstance(asked, Call):
            pieces.append(pack(*asked))
        else:
            script, keys, arguments, now = asked
            not_after = 0 if script.is_reading else int(node.time.surely_before(until) * 1e6)
            if script.sha1 not in link.known:
                pieces.insert(0, pack("SCRIPT", "LOAD", script.source))
                link.known.add(script.sha1)
            pieces.append(pack("EVALSHA", script.sha1, len(keys), *keys, now, not_after, *arguments))
        return link.exchange(b"".join(pieces) if len(pieces) > 1 else pieces[0], len(pieces), until)

    def _lane(self, asked: _Asked) -> int:
        return PLAIN if _is_reading(asked) else self._writing_lane

    def _owner(self, asked: _Asked) -> Node:
        node = self._slots.owner(_slot(asked))
        if node is None:
            raise fault.Unreachable("the redis cluster has no primary for some of its slots")
        return node

    # -- who is there ----------------------------------------------------------------------------------------------

    def _make_node(self, host: str, port: int) -> Node:
        return Node(host, port, self._outfit, self.load)

    def _listened(self) -> list[tuple[str, int]]:
        """Where news can be heard, in an order of chance: every node of a cluster passes on what any is told."""
        places = [(node.host, node.port) for node in self._slots.owners] or list(self._address.nodes)
        begin = int(self._draw() * len(places))
        return places[begin:] + places[:begin]

    async def _reach_all(self) -> None:
        until = self._monotonic() + self.timeout_seconds
        if not self.is_cluster:
            node = self._slots.node(*self._address.nodes[0])
            await node.reach(PLAIN, until)
            self._slots.own_all(node)
        else:
            await self._learn_slots(until)
            if not self._slots.is_whole:
                raise fault.Unreachable("the redis cluster has no primary for some of its slots")
            await _all(node.reach(PLAIN, until) for node in self._slots.owners)
        self._follow()

    def _follow(self) -> None:
        """The clock follows the owner of the first shard: every gateway the same one."""
        node = self._slots.owner(slot_of(b"{s0}"))
        if node is not None and node.time.is_known:
            self._server_clock.follow(node.time)

    async def _learn_slots(self, until: float) -> None:
        """From the first node that answers. Raises Unreachable when none does."""
        trouble: StoreUnavailable | None = None
        first = [self._slots.node(host, port) for host, port in self._address.nodes]
        for node in dict.fromkeys([*self._slots, *first]):
            try:
                link = await node.reach(PLAIN, until)
                (answer,) = await link.ask(("CLUSTER", "SLOTS"), seconds=until - self._monotonic())
                self._slots.learn(answer, node)
            except StoreUnavailable as error:
                trouble = error
            except ValueError as error:
                trouble = fault.Unreachable(f"redis at {node.place} tells no slots: {error}", is_hopeless=True)
            else:
                return
        raise trouble or fault.Unreachable("no node of the redis cluster is known")

    def _refresh(self) -> None:
        """Ask the cluster anew, once at a time, behind everybody's back."""
        if self.is_cluster and not self._is_closed and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = asyncio.create_task(self._learn_quietly(), name="turnout-redis-slots")

    async def _refreshed(self, until: float) -> None:
        self._refresh()
        if self._refreshing is not None:
            await asyncio.wait({self._refreshing}, timeout=max(0.0, until - self._monotonic()))

    async def _learn_quietly(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._learn_slots(self._monotonic() + self.timeout_seconds)
            self._follow()

    async def _keep(self) -> None:
        """Go on measuring the servers' time, and be connected again before somebody asks."""
        examined_at = self._monotonic()
        while True:
            await asyncio.sleep(MEASURE_SECONDS)
            is_time = self._monotonic() - examined_at >= EXAMINE_SECONDS
            if is_time:
                examined_at = self._monotonic()
                self._refresh()
            owners = self._slots.owners
            await asyncio.gather(*(self._look_after(node, is_thorough=is_time) for node in owners))
            self._follow()
            self._complain()

    async def _look_after(self, node: Node, *, is_thorough: bool) -> None:
        """What is wrong shows to whoever asks the store; a server that may not be trusted any more is left."""
        link: Link | None = None
        try:
            link = await node.reach(PLAIN, self._monotonic() + self.timeout_seconds)
            await node.measure(link, self.timeout_seconds)
            if is_thorough:
                await node.examine(link, self.timeout_seconds)
        except fault.Unreachable as error:
            if link is not None:
                node.close(str(error))
        except StoreUnavailable:
            pass

    def _complain(self) -> None:
        """What is new about a server: not the same at every connection again."""
        for node in [] if self._is_quiet else self._slots.owners:
            said = tuple(f"redis at {node.place}: {complaint}" for complaint in node.complaints)
            if said == self._said.get(node.place, ()):
                continue
            for line in said or (f"redis at {node.place} keeps what it takes again",):
                log.warning("%s", line)
            self._said[node.place] = said

    def _close_nodes(self) -> None:
        for node in self._slots:
            node.close("the store is closed")


_ASKING = pack("ASKING")


def _slot(asked: _Asked) -> int:
    key = asked.keys[0] if isinstance(asked, Call) else asked[1]
    return slot_of(key if isinstance(key, bytes) else str(key).encode())


def _is_reading(asked: _Asked) -> bool:
    return asked.script.is_reading if isinstance(asked, Call) else True


async def _all(waiting: Any) -> None:
    """All of them to the end, then the first trouble."""
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
