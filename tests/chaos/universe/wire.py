"""
The store as one gateway reaches it: each verb takes time, may be refused, or may be done without an answer (F21).

Beside it, for replicas on a store that has nothing to say by itself: the hints and notes they leave one another.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

from gateway.contract.errors import StoreUnavailable
from gateway.store.protocol import Held
from tests.chaos.universe.fate import Fate
from tests.chaos.universe.judge import Judge
from tests.chaos.universe.loop import Process, UniverseLoop
from tests.chaos.universe.network import Network
from tests.chaos.universe.note import CURRENT, NOTE, Note

# What changes predictions and deliveries, told as it is committed: of these the first by a line, if it is the real one.
TOLD_BELOW = frozenset({"create", "apply", "beat", "claim_due", "release"})
TOLD = TOLD_BELOW | {"claim_deliveries", "finish_delivery", "release_deliveries"}
OUT_SECONDS = 2.0  # a store that does not answer is given up after so long

Heard = Callable[[str | None], None]


class Board:
    """What replicas leave for one another beside the rows: hints of changes, which may get lost, and notes."""

    def __init__(self, loop: UniverseLoop, fate: Fate) -> None:
        self.wires: list[Wire] = []
        self.notes: dict[tuple[str, str], tuple[bytes, float]] = {}
        self._loop = loop
        self._fate = fate

    def changed(self, id: str, by: Wire) -> None:
        for wire in self.wires:
            if wire is by or wire.heard is None or wire.process.is_dead or not wire.minds(id):
                continue
            if self._fate.chance(0.02):
                # The line broke: whoever comes back looks at everything.
                self._loop.call_later(2.0, wire.hear, None, context=wire.process.context)
            else:
                self._loop.call_later(self._fate.between(0.0005, 0.01), wire.hear, id, context=wire.process.context)


class Wire:
    """
    One gateway's way to the store.

    What arrived is done even if the process dies or is frozen on the way: its answer is what is lost then.
    """

    def __init__(
        self,
        process: Process,
        store: Any,
        *,
        judge: Judge,
        fate: Fate,
        network: Network,
        out_until: Callable[[], float],
        board: Board | None,
        latency: tuple[float, float],
        is_played: bool = True,
    ) -> None:
        self.process = process
        self.store = store
        self.heard: Heard | None = None
        self.watched: Counter[str] = Counter()
        self.worker = ""
        self._judge = judge
        self._fate = fate
        self._network = network
        self._out_until = out_until
        self._board = board
        self._latency = latency
        self._is_played = is_played  # False: what is under the store takes the time, and loses the answers
        # A store that can lose an answer hands out again what nobody heard of: the worker cannot know of it.
        self._unheard: list[Held] = []
        self._loop = asyncio.get_running_loop()
        if board is not None:
            board.wires.append(self)

    def __getattr__(self, verb: str) -> Any:
        method = getattr(self.store, verb)
        bound = functools.partial(self._call, verb, method)
        setattr(self, verb, bound)
        return bound

    async def _call(self, verb: str, method: Any, *args: Any, **named: Any) -> Any:
        fault = await self.there() if self._is_played else None
        note: Note | None = None
        if verb in TOLD:
            note = Note(self.process.name, verb, args, named, self._committed)
            CURRENT.set(note)
            NOTE.put(note)
        try:
            result = await method(*args, **named)
        finally:
            NOTE.take()
        if note is not None and (self._is_played or verb not in TOLD_BELOW):
            note.commit(result)
        if verb == "claim_due" and self._unheard:
            result = [*(held for held in self._unheard if self._judge.is_held(held)), *result]
            self._unheard = []
        if fault is not None:
            if verb == "claim_due":
                self._unheard = result
            raise StoreUnavailable("the answer was lost on the way")
        if self._is_played and self._latency[1] and self._fate.chance(0.25):
            await asyncio.sleep(self._fate.between(*self._latency))
        return result

    async def there(self) -> str | None:
        """On the way to the store. What comes back is the fault that takes the answer, if one does."""
        fault = self._fate.draw("store")
        wait = self._out_until() - self._loop.time()
        if self._latency[1]:
            there = self._network.seconds(self.process.name, "store", *self._latency)
            if there > OUT_SECONDS:
                await asyncio.sleep(OUT_SECONDS)
                raise StoreUnavailable("nobody answered")
            await asyncio.sleep(there)
        if wait > 0 or fault == "F21 store out":
            await asyncio.sleep(self._fate.pick(0.0, 0.01, OUT_SECONDS))
            raise StoreUnavailable("nobody answered")
        if fault == "F21 store slow":
            await asyncio.sleep(self._fate.between(0.05, OUT_SECONDS))
            return None
        return fault

    def _committed(self, note: Note, result: Any) -> None:
        self._judge.committed(note, result)
        if self._board is not None and note.verb == "apply" and result.changed:
            self._board.changed(note.args[0], self)

    async def leave(self) -> None:
        """Its process ends in peace: a store of its own is closed."""
        if self._board is not None:
            self._board.wires.remove(self)
        else:
            await self.store.aclose()

    # -- what is said between replicas, where the store does not carry it ----------------------------------------------

    def minds(self, id: str) -> bool:
        return id in self.watched or self._judge.holder(id) == self.worker

    def hear(self, id: str | None) -> None:
        if self.heard is not None:
            self.heard(id)

    async def follow(self, worker: str, heard: Heard) -> None:
        if self._board is None:
            await self.store.follow(worker, heard)
            return
        self.worker, self.heard = worker, heard
        try:
            await asyncio.Event().wait()
        finally:
            self.heard = None

    def watch(self, id: str) -> None:
        if self._board is None:
            self.store.watch(id)
            return
        self.watched[id] += 1
        self._loop.call_soon(self.hear, id)

    def unwatch(self, id: str) -> None:
        if self._board is None:
            self.store.unwatch(id)
            return
        self.watched[id] -= 1
        if not self.watched[id]:
            del self.watched[id]

    async def exchange(self, topic: str, worker: str, body: bytes, *, lifetime_seconds: float) -> list[bytes]:
        if self._board is None:
            answer: list[bytes] = await self._call(
                "exchange", self.store.exchange, topic, worker, body, lifetime_seconds=lifetime_seconds
            )
            return answer
        await self.there()
        now, notes = self._loop.time(), self._board.notes
        notes[topic, worker] = (body, now + lifetime_seconds)
        return [
            said for (about, who), (said, until) in notes.items() if about == topic and who != worker and until > now
        ]
