"""The engine as other rooms see it: create, wait, cancel, callbacks, changes. A prediction's course is in `run`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta

from msgspec.structs import replace

from gateway.contract.clock import Ids, hash_token
from gateway.contract.errors import (
    CallbackForged,
    NotFound,
    ProviderFailure,
    StoreError,
    StoreOverloaded,
    StoreUnavailable,
)
from gateway.contract.fact import CancelRequested, Happening, Learned, Notify, Source, StreamEvent
from gateway.contract.prediction import Prediction, Request
from gateway.engine.attempt import callback_secret, shaped
from gateway.engine.cost import cost_of
from gateway.engine.doubt import Doubts
from gateway.engine.news import News
from gateway.engine.parts import Parts
from gateway.engine.purse import Purse, settle
from gateway.engine.report import names_another_job
from gateway.engine.run import Run
from gateway.engine.search import Search
from gateway.engine.sweep import SWEEP_SECONDS, Sweep
from gateway.engine.watch import Changes, Watchers
from gateway.engine.worker import Leasing, Worker
from gateway.routing.unit import facts_of
from gateway.store.protocol import Applied, Created, CreateResult, Held, Lease, Store

log = logging.getLogger("turnout.engine")


LOOK_SECONDS = 15.0  # a hint may be lost: who waits for what is driven elsewhere looks for himself, so often
MOST_GLANCES = 64  # polls at once for callbacks that say nothing, of what is driven elsewhere


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
        leasing: Leasing | None = None,
    ) -> None:
        self._store = store
        self._parts = parts
        self._ids = ids
        self._max_in_flight = max_in_flight
        self._wake_outbox = wake_outbox
        self._leasing = leasing or Leasing()
        self._search = Search(parts, store)
        self._sweep = Sweep(store, parts.clock)
        self._watchers = Watchers(store, is_driven=lambda id: self._worker.run(id) is not None)
        self._worker = Worker(
            worker_id, store, self._new_run, clock=parts.clock, leasing=self._leasing, let_go=self._watchers.let_go
        )
        self._news = News(
            store.get,
            self._heard,
            everything=lambda: (*self._worker.ids(), *self._watchers.ids()),
            unreadable=self._heard_unreadable,
        )
        self._doubts = Doubts(
            parts.clock,
            look=store.get,
            cancel=lambda id: self._commit(id, CancelRequested()),
            release=lambda id: store.release(worker_id, [id]),
        )
        self._glances: dict[tuple[str, int], asyncio.Task[None]] = {}

    @property
    def is_draining(self) -> bool:
        return self._worker.is_draining

    @property
    def open_count(self) -> int:
        return self._worker.open_count

    async def start(self) -> None:
        await self._worker.start()
        self._worker.keep(self._store.follow(self._worker.id, self._news.heard), name="turnout-follow")
        self._worker.keep(self._news.run(), name="turnout-news")
        settling = self._worker.every(self._leasing.claim, self._doubts.settle)
        self._worker.keep(settling, name="turnout-doubts")
        self._worker.keep(self._worker.every(SWEEP_SECONDS, self._sweep_budgets), name="turnout-budgets")

    def begin_drain(self) -> None:
        """Take nothing new, and let waiting callers and streams go with what there is."""
        self._worker.begin_drain()
        self._watchers.wake()

    async def drain(self, *, seconds: float) -> None:
        self.begin_drain()
        for glance in self._glances.values():
            glance.cancel()
        await self._search.aclose()
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
            self._doubts.add(prediction.id, is_wanted=True)
            raise
        except StoreUnavailable:
            self._doubts.add(prediction.id, is_wanted=idempotency_key is not None)
            raise
        if result.outcome is Created.CREATED:
            self._parts.observer.prediction_created(result.prediction)
            self._parts.observer.prediction_accepted(result.prediction, self._parts.clock.monotonic() - begun)
            if result.lease is not None:
                self._worker.take(Held(prediction=result.prediction, lease=result.lease))
        return result

    async def wait(self, id: str, *, seconds: float) -> Prediction:
        """The prediction once it is terminal, or as it stands after `seconds`. Raises KeyError."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        with self._watchers.changes(id) as changes:
            prediction = await self._current(id)
            while True:
                prediction = _newer(changes.latest, prediction)
                left = end - loop.time()
                if prediction.is_terminal or left <= 0 or self.is_draining:
                    return prediction
                is_news = await changes.wait(min(left, LOOK_SECONDS))
                if not is_news and self._worker.run(id) is None:
                    prediction = _newer(await self._current(id), prediction)

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

    def changes(self, id: str) -> AbstractContextManager[Changes]:
        """For streams: hears of every commit of one prediction while it is open."""
        return self._watchers.changes(id)

    # -- providers -------------------------------------------------------------------------------------------------

    async def callback(self, token: str, headers: Mapping[str, str], body: bytes) -> str:
        """
        A provider calls back. Committed when this returns "applied" or "duplicate"; "nudge" makes us poll.

        Raises NotFound for a token nobody gave out, CallbackForged, StoreUnavailable, StoreOverloaded.
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
            # Our own trouble, perhaps of this replica alone: some senders never come back after a 4xx.
            raise StoreOverloaded("the provider of this callback is not configured here; send it again")
        now = self._parts.clock.now()
        try:
            callback = await link.driver.read_callback(
                headers, body, now=self._parts.clock.wall(), secret=callback_secret(token)
            )
        except CallbackForged:
            self._parts.observer.callback_received(provider, "forged")
            raise
        # One that names another job than the one we know is no more than a reason to look.
        if callback.fact is None or names_another_job(prediction.attempts[number - 1], callback.fact.handle):
            outcome = "nudge"
            run = self._worker.run(id)
            if run is not None:
                run.nudge(number)
            else:
                self._glance(prediction, number)
        else:
            fact = shaped(callback.fact, self._parts.offer(prediction.attempts[number - 1].offer))
            cost = cost_of(prediction, number, fact, offer=self._parts.offer, now=now)
            learned = Learned(attempt=number, fact=fact, source=Source.CALLBACK, cost=cost)
            applied = await self._commit(id, learned, known=prediction)
            outcome = "applied" if applied.changed else "duplicate"
        if callback.fact is None or callback.fact.phase.is_end:
            self._parts.callbacks.came(provider, self._parts.clock.monotonic())
        self._parts.observer.callback_received(provider, outcome)
        self._parts.observer.callback_told(prediction, number, outcome, now, headers.get("traceparent", ""))
        return outcome

    # -- inside ----------------------------------------------------------------------------------------------------

    def _new_prediction(self, request: Request, owner: str, cancel_after_seconds: float | None) -> Prediction:
        now = self._parts.clock.now()
        request = replace(request, facts=facts_of(request))
        policy = self._parts.planner.policy(request, owner=owner, now=now)
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

    def _new_run(self, held: Held) -> Run:
        proven = -1  # the last term in which the store said that it is ours

        async def commit(id: str, happening: Happening) -> Prediction:
            nonlocal proven
            # A fact is true whoever learned it; a step is only the holder's to take.
            lease = None if isinstance(happening, Learned) else held.lease
            # What the store said before this process slept says nothing of what is true after.
            term = self._worker.term
            prediction = (await self._commit(id, happening, lease=lease, by=run)).prediction
            if lease is not None:
                proven = term
            return prediction

        run = Run(
            held.prediction,
            self._parts,
            commit,
            purse=Purse(self._store, fence=held.lease.fence),
            may_send=lambda: self._worker.holds_since(proven),
            find=self._search.find,
        )
        return run

    def _heard(self, prediction: Prediction) -> None:
        """Somebody else has changed it."""
        run = self._worker.run(prediction.id)
        if run is not None and prediction.revision > run.prediction.revision:
            run.update(prediction)
        self._watchers.tell(prediction)

    def _heard_unreadable(self, id: str) -> None:
        """A newer version goes on with it; whoever reads its events here reads on."""
        run = self._worker.run(id)
        if run is not None:
            run.drain()
        self._watchers.wake(id)

    def _glance(self, prediction: Prediction, number: int) -> None:
        """Poll an attempt for whoever drives it: a fact needs no lease. At most; their own poll is the guarantee."""
        key = (prediction.id, number)
        if key in self._glances or len(self._glances) >= MOST_GLANCES or self.is_draining:
            return
        self._glances[key] = asyncio.create_task(self._look_at(prediction, number))
        self._glances[key].add_done_callback(lambda _: self._glances.pop(key, None))

    async def _look_at(self, prediction: Prediction, number: int) -> None:
        attempt = prediction.attempts[number - 1]
        link = self._parts.links.get(attempt.provider)
        offer = self._parts.offer(attempt.offer)
        if link is None or attempt.handle is None or attempt.status.is_closed:
            return
        if not link.capabilities_for(offer).pollable:
            return
        try:
            fact = shaped(await link.driver.poll(attempt.handle), offer)
            cost = cost_of(prediction, number, fact, offer=self._parts.offer, now=self._parts.clock.now())
            learned = Learned(attempt=number, fact=fact, source=Source.POLL, cost=cost)
            applied = await self._commit(prediction.id, learned, known=prediction)
        except ProviderFailure:
            self._parts.observer.poll_made(attempt.provider, "failed")
        except StoreError as error:
            log.warning("a fact about prediction %s was not stored; its holder polls too: %s", prediction.id, error)
        else:
            self._parts.observer.poll_made(attempt.provider, "news" if applied.changed else "same")

    async def _current(self, id: str) -> Prediction:
        run = self._worker.run(id)
        prediction = run.prediction if run is not None else await self._store.get(id)
        if prediction is None:
            raise KeyError(id)
        return prediction

    async def _commit(
        self,
        id: str,
        happening: Happening,
        *,
        lease: Lease | None = None,
        by: Run | None = None,
        known: Prediction | None = None,
    ) -> Applied:
        """`known` is how it was before, for what is not driven here."""
        applied = await self._store.apply(id, happening, lease=lease)
        if not applied.changed:
            return applied
        run = self._worker.run(id)
        before = run.prediction if run is not None else known
        self._parts.observer.committed(before, applied.prediction, applied.effects)
        if run is not None and run is not by:
            run.update(applied.prediction)
        self._watchers.tell(applied.prediction)
        for effect in applied.effects:
            if isinstance(effect, StreamEvent) and effect.event == "done":
                self._parts.observer.prediction_ended(applied.prediction)
            elif isinstance(effect, Notify):
                self._wake_outbox()
        await settle(self._store, applied)
        return applied

    async def _sweep_budgets(self) -> None:
        # A budget that is taken away leaves its last reservations as they are: nobody asks for them.
        if self._parts.planner.budgets():
            await self._sweep.step()


def _newer(one: Prediction | None, other: Prediction) -> Prediction:
    return one if one is not None and one.revision >= other.revision else other
