"""Bugs, to be planted for the length of a universe. Each names the invariant that has to find it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime
from typing import Any
from unittest import mock

import msgspec
from msgspec.structs import replace

from gateway.api import stream
from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.fact import Begun, Fact, Happening, Learned, LedgerEntry, Notify
from gateway.contract.money import Cost, Price
from gateway.contract.prediction import Prediction, Status
from gateway.delivery.outbox import Outbox
from gateway.engine import cost
from gateway.engine import run as engine_run
from gateway.engine.agenda import Agenda
from gateway.engine.attempt import call_of
from gateway.engine.hand import Hand
from gateway.engine.lifecycle import reduce
from gateway.engine.withdrawal import Withdrawal
from gateway.engine.worker import Worker
from gateway.store._prediction import Predictions
from gateway.store.protocol import Created, CreateResult, Reduce, Reduction
from gateway.store.sqlite import SqliteStore
from tests.chaos.universe import weather

Patch = Callable[[], contextlib.AbstractContextManager[Any]]


class Bug(msgspec.Struct, frozen=True):
    name: str
    invariant: str
    patch: Patch = contextlib.nullcontext
    reduce: Reduce = reduce


# -- in the lifecycle ------------------------------------------------------------------------------------------------


def _without_deliveries(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
    return _without(Notify, reduce(prediction, happening, now))


def _without_money(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
    return _without(LedgerEntry, reduce(prediction, happening, now))


def _without(kind: type, reduction: Reduction) -> Reduction:
    return replace(reduction, effects=tuple(effect for effect in reduction.effects if not isinstance(effect, kind)))


def _poll_overwrites(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
    """What was learned last is true, even after the end."""
    if isinstance(happening, Learned) and prediction.is_terminal and happening.fact.phase.is_end:
        status = Status.SUCCEEDED if happening.fact.phase == "succeeded" else Status.FAILED
        changed = replace(prediction, status=status, output=happening.fact.output, completed_at=now)
        return Reduction(prediction=changed, is_open=False)
    return reduce(prediction, happening, now)


def _counts_twice(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
    """Each telling of a job's end adds to what it took."""
    reduction = reduce(prediction, happening, now)
    if isinstance(happening, Learned) and happening.fact.phase.is_end and reduction.prediction is prediction:
        told = prediction.attempts[happening.attempt - 1]
        attempts = list(prediction.attempts)
        attempts[told.number - 1] = replace(
            told, metrics=told.metrics | {"tellings": told.metrics.get("tellings", 0) + 1}
        )
        return replace(reduction, prediction=replace(prediction, attempts=tuple(attempts)))
    return reduction


# -- in the engine ---------------------------------------------------------------------------------------------------


def _send_before_intent() -> Any:
    commit = Hand.commit

    async def eager(self: Hand, happening: Happening) -> None:
        if isinstance(happening, Begun):
            parts, attempt = self.parts, happening.attempt
            offer, link = parts.offer(attempt.offer), parts.links[attempt.provider]
            assert offer is not None
            call = call_of(
                self.prediction,
                attempt,
                offer,
                link,
                self.prediction.request.input,
                callback_base=parts.callback_base,
                secret=parts.secret,
                now=self.now(),
            )
            with contextlib.suppress(Exception):
                await link.driver.submit(call)
        await commit(self, happening)

    return mock.patch.object(Hand, "commit", eager)


def _retry_on_timeout() -> Any:
    def soon(self: Agenda, attempt: Attempt, now: datetime) -> datetime | None:
        is_unknown = attempt.status is AttemptStatus.UNKNOWN
        return now if is_unknown and attempt.number not in self._resends else None

    return mock.patch.object(Agenda, "resend_at", soon)


def _forget_the_losers() -> Any:
    async def idle(self: Withdrawal, attempt: Attempt, failure: Any = None) -> bool:
        return True

    return mock.patch.object(Withdrawal, "_cancel", idle)


def _pay_twice() -> Any:
    choose = engine_run.choose
    return mock.patch.object(
        engine_run, "choose", lambda prediction, plan, *, pays_twice: choose(prediction, plan, pays_twice=False)
    )


def _drop_a_claim() -> Any:
    """One in five of what is claimed is forgotten."""
    take, seen = Worker.take, iter(range(10_000_000))

    def careless(self: Worker, held: Any) -> Any:
        return None if next(seen) % 5 == 4 and held.lease.fence > 1 else take(self, held)

    return mock.patch.object(Worker, "take", careless)


def _skip_events() -> Any:
    def events_of(context: Any, id: str, *, after: int) -> Any:
        return _events_of(context, id, after=after - 1 if after > 0 else after)

    _events_of = stream.events_of
    return mock.patch("tests.chaos.universe.caller.events_of", events_of)


def _keep_in_hand() -> Any:
    def forgetful(self: Outbox, task: asyncio.Task[None], *rest: Any) -> None:
        return None

    return mock.patch.object(Outbox, "_ended", forgetful)


def _settle_at_the_price() -> Any:
    """Whatever the provider says that it cost."""
    settle = cost.settle

    def deaf(price: Price, fact: Fact, **measured: Any) -> Cost:
        return settle(price, replace(fact, cost=None), **measured)

    return mock.patch.object(cost, "settle", deaf)


# -- in the store ----------------------------------------------------------------------------------------------------


def _ignore_the_fence() -> Any:
    apply = Predictions.apply

    def open_to_all(self: Predictions, db: Any, now: datetime, id: str, happening: Any, *, lease: Any) -> Any:
        return apply(self, db, now, id, happening, lease=None)

    # Who is awake knows by its own clock that its lease is over, and asks for nothing: the bug needs a sleeper.
    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(Predictions, "apply", open_to_all))
    stack.enter_context(mock.patch.object(weather, "WEATHER", ("F22 freeze",)))
    return stack


def _accept_before_the_commit() -> Any:
    """A 201 as soon as it is queued."""
    create = SqliteStore.create

    async def hasty(self: SqliteStore, prediction: Prediction, **named: Any) -> CreateResult:
        write = asyncio.ensure_future(create(self, prediction, **named))
        write.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(0)
        return CreateResult(outcome=Created.CREATED, prediction=prediction)

    return mock.patch.object(SqliteStore, "create", hasty)


def _forget_the_key() -> Any:
    return mock.patch.object(Predictions, "_first", return_value=None)


def _new_body() -> Any:
    """The body is made anew for each try."""
    from tests.chaos.universe.receiver import Post

    send = Post.send

    async def afresh(self: Post, delivery: Any, *, traceparent: str = "") -> Any:
        body = delivery.body[:-1] + b', "try": %d}' % delivery.tries
        return await send(self, replace(delivery, body=body), traceparent=traceparent)

    return mock.patch.object(Post, "send", afresh)


BUGS = (
    Bug("accept before the commit", "I1", _accept_before_the_commit),
    Bug("drop a claim", "I1", _drop_a_claim),
    Bug("poll overwrites terminal", "I2", reduce=_poll_overwrites),
    Bug("drop the outbox row", "I3", reduce=_without_deliveries),
    Bug("make the body anew for each try", "I3", _new_body),
    Bug("retry on timeout", "I4", _retry_on_timeout),
    Bug("pay twice at any price", "I4", _pay_twice),
    Bug("drop the ledger row", "I5", reduce=_without_money),
    Bug("settle at the price, not at what is told", "I5", _settle_at_the_price),
    Bug("send before intent", "I6", _send_before_intent),
    Bug("count a fact twice", "I7", reduce=_counts_twice),
    Bug("ignore the fence", "I8", _ignore_the_fence),
    Bug("forget the losers", "I9", _forget_the_losers),
    Bug("keep deliveries in hand", "I12", _keep_in_hand),
    Bug("read an event again", "I13", _skip_events),
    Bug("forget the idempotency key", "201", _forget_the_key),
)
