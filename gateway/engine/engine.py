"""The engine as other rooms see it: create, wait, cancel, callbacks, changes. A prediction's course is in `run`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

from msgspec.structs import replace

from gateway.contract.clock import Ids, hash_token
from gateway.contract.errors import CallbackForged, NotFound, StoreOverloaded
from gateway.contract.fact import CancelRequested, Happening, Learned, Notify, Source, StreamEvent
from gateway.contract.prediction import Prediction, Request
from gateway.engine.attempt import callback_secret, shaped
from gateway.engine.cost import cost_of
from gateway.engine.parts import Parts
from gateway.engine.run import Run
from gateway.engine.worker import Worker
from gateway.store.protocol import Applied, Created, CreateResult, Store


class Changes:
    """Tells a waiting reader that something was committed for one prediction."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.latest: Prediction | None = None  # as it was last committed, if anything was

    def tell(self, prediction: Prediction | None = None) -> None:
        self.latest = prediction or self.latest
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """True: something was committed since the last wait. False: `seconds` passed in silence."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Engine:
    """
    One per process.

    Every commit goes through `_commit`: it wakes whoever waits (runs, waiting callers, streams, the outbox) and
    tells the observers.
    """

    def __init__(
        self,
        store: Store,
        parts: Parts,
        *,
        ids: Ids,
        worker_id: str,
        max_in_flight: int,
        wake_outbox: Callable[[], None],
    ) -> None:
        self._store = store
        self._parts = parts
        self._ids = ids
        self._max_in_flight = max_in_flight
        self._wake_outbox = wake_outbox
        self._watchers: dict[str, set[Changes]] = {}
        self._worker = Worker(worker_id, store, self._new_run)

    @property
    def is_draining(self) -> bool:
        return self._worker.is_draining

    @property
    def open_count(self) -> int:
        return self._worker.open_count

    async def start(self) -> None:
        await self._worker.start()

    def begin_drain(self) -> None:
        """Take nothing new, and let waiting callers and streams go with what there is."""
        self._worker.is_draining = True
        for watchers in self._watchers.values():
            for changes in watchers:
                changes.tell()

    async def drain(self, *, seconds: float) -> None:
        self.begin_drain()
        await self._worker.drain(seconds=seconds)

    # -- callers ---------------------------------------------------------------------------------------------------

    async def create(
        self,
        request: Request,
        *,
        owner: str,
        cancel_after_seconds: float | None = None,
        idempotency_key: str | None = None,
        body_hash: str = "",
    ) -> CreateResult:
        """
        Accept a prediction: durable when this returns. Raises StoreUnavailable, StoreOverloaded.

        The deadline is the caller's `cancel_after_seconds` or the policy's, whichever is sooner.
        """
        if self.is_draining:
            raise StoreOverloaded("the gateway is shutting down; try again")
        if self.open_count >= self._max_in_flight:
            raise StoreOverloaded(f"{self.open_count} predictions are open, which is the limit; try again later")
        prediction = self._new_prediction(request, owner, cancel_after_seconds)
        begun = self._parts.clock.monotonic()
        try:
            result = await self._store.create(
                prediction, idempotency_key=idempotency_key, body_hash=body_hash, worker=self._worker.id
            )
        except asyncio.CancelledError:
            # Nobody waits for the answer any more, but it may be committed all the same, and held by us.
            self._worker.release_later(prediction.id)
            raise
        if result.outcome is Created.CREATED:
            self._parts.observer.prediction_created(result.prediction)
            self._parts.observer.prediction_accepted(result.prediction, self._parts.clock.monotonic() - begun)
            self._worker.take(result.prediction)
        return result

    async def wait(self, id: str, *, seconds: float) -> Prediction:
        """The prediction once it is terminal, or as it stands after `seconds`. Raises KeyError."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        with self.changes(id) as changes:
            prediction = await self._current(id)
            while True:
                prediction = changes.latest or prediction
                left = end - loop.time()
                if prediction.is_terminal or left <= 0 or self.is_draining:
                    return prediction
                await changes.wait(left)

    def open_predictions(self) -> list[Prediction]:
        """Those this process drives, as it knows them."""
        return self._worker.predictions()

    async def cancel(self, id: str, *, owner: str | None) -> Prediction | None:
        """
        Ask for a cancel. The prediction as it stands after that, None if this owner has no such prediction.

        `owner=None` is for ops: anybody's.
        """
        prediction = await self._store.get(id, owner=owner)
        if prediction is None:
            return None
        if prediction.is_terminal:
            return prediction
        return (await self._commit(id, CancelRequested())).prediction

    @contextlib.contextmanager
    def changes(self, id: str) -> Iterator[Changes]:
        """For streams: hears of every commit of one prediction while it is open."""
        changes = Changes()
        self._watchers.setdefault(id, set()).add(changes)
        try:
            yield changes
        finally:
            watchers = self._watchers[id]
            watchers.discard(changes)
            if not watchers:
                del self._watchers[id]

    # -- providers -------------------------------------------------------------------------------------------------

    async def callback(self, token: str, headers: Mapping[str, str], body: bytes) -> str:
        """
        A provider calls back. Committed when this returns "applied" or "duplicate"; "nudge" makes us poll.

        Raises NotFound for a token nobody gave out, CallbackForged, StoreUnavailable.
        """
        found = await self._store.find_attempt(hash_token(token))
        if found is None:
            self._parts.observer.callback_received("", "unknown")
            raise NotFound("no attempt has this callback")
        id, number = found
        prediction = await self._store.get(id)
        if prediction is None:
            raise NotFound("no attempt has this callback")
        provider = prediction.attempts[number - 1].provider
        link = self._parts.links.get(provider)
        if link is None:
            raise NotFound("the provider of this callback is no longer configured")
        now = self._parts.clock.now()
        try:
            callback = await link.driver.read_callback(headers, body, now=now, secret=callback_secret(token))
        except CallbackForged:
            self._parts.observer.callback_received(provider, "forged")
            raise
        if callback.fact is None or _names_another_job(prediction, number, callback.fact.handle):
            outcome = "nudge"
            run = self._worker.run(id)
            if run is not None:
                run.nudge(number)
        else:
            fact = shaped(callback.fact, self._parts.offer(prediction.attempts[number - 1].offer))
            cost = cost_of(prediction, number, fact, offer=self._parts.offer, now=now)
            learned = Learned(attempt=number, fact=fact, source=Source.CALLBACK, cost=cost)
            applied = await self._commit(id, learned)
            outcome = "applied" if applied.changed else "duplicate"
        self._parts.observer.callback_received(provider, outcome)
        self._parts.observer.callback_told(prediction, number, outcome, now, headers.get("traceparent", ""))
        return outcome

    # -- inside ----------------------------------------------------------------------------------------------------

    def _new_prediction(self, request: Request, owner: str, cancel_after_seconds: float | None) -> Prediction:
        now = self._parts.clock.now()
        policy = self._parts.planner.policy(request, owner=owner)
        seconds = policy.limits.deadline_seconds
        if cancel_after_seconds is not None:
            seconds = min(seconds, cancel_after_seconds)
        return Prediction(
            id=self._ids.prediction(),
            owner=owner,
            request=replace(request, policy=policy.name),
            created_at=now,
            deadline_at=now + timedelta(seconds=seconds),
            stream_token=self._ids.token(),
        )

    def _new_run(self, prediction: Prediction) -> Run:
        return Run(prediction, self._parts, self._commit_as_holder)

    async def _current(self, id: str) -> Prediction:
        run = self._worker.run(id)
        prediction = run.prediction if run is not None else await self._store.get(id)
        if prediction is None:
            raise KeyError(id)
        return prediction

    async def _commit_as_holder(self, id: str, happening: Happening) -> Prediction:
        # A fact is true whoever learned it; a step is only the holder's to take.
        worker = None if isinstance(happening, Learned) else self._worker.id
        return (await self._commit(id, happening, worker=worker, is_own=True)).prediction

    async def _commit(
        self, id: str, happening: Happening, *, worker: str | None = None, is_own: bool = False
    ) -> Applied:
        applied = await self._store.apply(id, happening, worker=worker)
        if not applied.changed:
            return applied
        run = self._worker.run(id)
        self._parts.observer.committed(run.prediction if run is not None else None, applied.prediction, applied.effects)
        if run is not None and not is_own:
            run.update(applied.prediction)
        for changes in self._watchers.get(id, ()):
            changes.tell(applied.prediction)
        for effect in applied.effects:
            if isinstance(effect, StreamEvent) and effect.event == "done":
                self._parts.observer.prediction_ended(applied.prediction)
            elif isinstance(effect, Notify):
                self._wake_outbox()
        return applied


def _names_another_job(prediction: Prediction, number: int, handle: dict[str, str] | None) -> bool:
    """The job a callback names must be the one we know: else it is no more than a reason to look."""
    known = prediction.attempts[number - 1].handle
    if known is None or handle is None or "id" not in known or "id" not in handle:
        return False
    return known["id"] != handle["id"]
