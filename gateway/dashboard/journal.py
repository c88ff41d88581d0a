"""Hears what happens and keeps the last hour of it in bounded memory. What is made of it is `view`'s business."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.clock import Clock
from gateway.contract.errors import Blame, NoLongerNeeded
from gateway.contract.fact import Effect, LedgerEntry
from gateway.contract.observer import DeliveryTry, Observer
from gateway.contract.phase import attempt_spans, is_late, shares_of
from gateway.contract.prediction import Prediction, Status
from gateway.contract.route import BreakerState
from gateway.dashboard.minute import MOST_MODELS, MOST_OFFERS, Minute, Minutes, TroubleCount, TroubleKey
from gateway.dashboard.row import is_free, is_unpriced
from gateway.dashboard.shown import cut
from gateway.dashboard.timeline import Timeline
from gateway.store.protocol import AuditRow

SAMPLES_OF_A_MODEL = 200
SAMPLES_OF_AN_OFFER = 200
_EXAMPLE_CHARACTERS = 300
_MOST_CHANGES = 12

Watch = Callable[[Prediction], None]


class Sample(NamedTuple):
    """How long one prediction took, in seconds, and its parts, which add up to that; None where there was none."""

    at: float  # unix seconds
    total: float
    lost: float
    queue: float | None
    cold_start: float | None
    run: float | None
    collect: float | None
    overhead: float | None


class Journal(Observer):
    """
    Refilled from the store at the start (`refill`), and fed by announcements from then on.

    Everything in it has a bound, and keys are names from the configuration or words of ours, never ids. `watch` is
    told of every prediction that changed, for as long as it is set.
    """

    def __init__(self, clock: Clock, *, version: str) -> None:
        self.minutes = Minutes()
        self.timeline = Timeline()
        self.watch: Watch | None = None
        self.started_at = clock.now()
        self._clock = clock
        self._version = version
        self._models: dict[str, deque[Sample]] = {}
        self._offers: dict[str, deque[tuple[float, float]]] = {}
        self._accepts: dict[str, deque[tuple[float, float]]] = {}
        self._deliveries: dict[str, deque[tuple[float, float]]] = {}
        self._is_forcing = False

    # -- what is announced -----------------------------------------------------------------------------------------

    def prediction_created(self, prediction: Prediction) -> None:
        self._take_created(prediction)
        if self.watch is not None:
            self.watch(prediction)

    def prediction_accepted(self, prediction: Prediction, seconds: float) -> None:
        _keep(self._accepts, prediction.request.model, MOST_MODELS, (prediction.created_at.timestamp(), seconds))

    def prediction_ended(self, prediction: Prediction) -> None:
        self._take_ended(prediction)
        if self.watch is not None:
            self.watch(prediction)

    def committed(self, before: Prediction | None, after: Prediction, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            if isinstance(effect, LedgerEntry) and effect.given_up_at is not None:
                self._take_back(after.attempts[effect.attempt - 1], effect.given_up_at)
                self._take_attempt(after, after.attempts[effect.attempt - 1])
        if self.watch is not None and (before is None or before.status is not after.status):
            self.watch(after)

    def attempt_begun(self, prediction: Prediction, attempt: Attempt) -> None:
        if attempt.number > 1:
            self._take_failover(prediction, attempt)
        if self.watch is not None:
            self.watch(prediction)

    def attempt_ended(self, prediction: Prediction, attempt: Attempt) -> None:
        self._take_attempt(prediction, attempt)
        if self.watch is not None:
            self.watch(prediction)

    def breaker_changed(self, offer: str, before: str, after: str, why: str) -> None:
        if self._is_forcing:
            return  # told by `acted`, with who did it
        model, _, provider = offer.rpartition("@")
        named = {"text": cut(why, _EXAMPLE_CHARACTERS).text, "model": model, "offer": offer}
        provider = provider.partition("#")[0]
        if after == BreakerState.OPEN:
            self.timeline.add(
                "ejected", self._clock.now(), f"{provider} is out for {model}", provider=provider, **named
            )
        elif after == BreakerState.CLOSED:
            self.timeline.add(
                "recovered", self._clock.now(), f"{provider} is back for {model}", provider=provider, **named
            )

    def delivery_made(self, prediction: Prediction, tried: DeliveryTry) -> None:
        if tried.outcome != "delivered" or prediction.completed_at is None or tried.event != "completed":
            return
        seconds = (tried.begun_at - prediction.completed_at).total_seconds() + tried.seconds
        _keep(self._deliveries, prediction.request.model, MOST_MODELS, (tried.begun_at.timestamp(), max(0.0, seconds)))

    def local_backend_changed(self, state: str) -> None:
        self.timeline.add("local", self._clock.now(), f"The local backend is {state}", provider="local")

    def policies_read(self, version: str, *, refused: bool) -> None:
        if refused:
            text = "the log says why; the last good ones stay"
            self.timeline.add(
                "refused", self._clock.now(), f"Policies were refused, version {version} stays", text=text
            )
        else:
            self.timeline.add("reloaded", self._clock.now(), f"Policies were swapped, version {version} holds")

    def catalog_changed(self, changes: Sequence[str]) -> None:
        """Models, offers or prices are not what they were when this store was last opened."""
        more = f", and {len(changes) - _MOST_CHANGES} more" if len(changes) > _MOST_CHANGES else ""
        text = ", ".join(changes[:_MOST_CHANGES]) + more
        self.timeline.add("reloaded", self.started_at, "Models or prices changed with this start", text=text)

    # -- what people do --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def forcing(self) -> Iterator[None]:
        """What changes within is somebody's doing, and told as such or not at all."""
        self._is_forcing = True
        try:
            yield
        finally:
            self._is_forcing = False

    def acted(self, row: AuditRow) -> None:
        """Somebody did something by hand."""
        model, _, provider = row.target.rpartition("@")
        is_breaker = row.action.startswith("breaker.")
        titles = {
            "breaker.open": f"{provider} was put out by hand for {model}",
            "breaker.close": f"{provider} is held in by hand for {model}",
            "breaker.release": f"{provider} was released for {model}",
            "prediction.cancel": "A prediction was canceled by hand",
            "prediction.redeliver": "A webhook was sent again by hand",
        }
        kinds = {"prediction.cancel": "canceled", "prediction.redeliver": "redelivered"}
        self.timeline.add(
            kinds.get(row.action, "forced"),
            row.at,
            titles.get(row.action, row.action),
            text=row.reason,
            model=model if is_breaker else None,
            provider=provider.partition("#")[0] if is_breaker else None,
            offer=row.target if is_breaker else None,
            prediction=None if is_breaker else row.target,
            who=row.who,
        )

    # -- the start -------------------------------------------------------------------------------------------------

    def refill(self, predictions: Iterable[Prediction], acts: Sequence[AuditRow] = ()) -> None:
        """What happened before this process was: `predictions` in any order, and what people did."""
        # What goes into the timeline is told in the order in which it happened.
        told: list[tuple[datetime, Callable[[], None]]] = []
        for prediction in sorted(predictions, key=lambda one: one.created_at):
            self._take_created(prediction)
            for attempt in prediction.attempts:
                if attempt.status.is_closed:
                    self._take_attempt(prediction, attempt)
                if attempt.number > 1:
                    told.append((attempt.begun_at, partial(self._take_failover, prediction, attempt)))
            if prediction.completed_at is not None:
                told.append((prediction.completed_at, partial(self._take_ended, prediction)))
        told += [(row.at, partial(self.acted, row)) for row in acts if row.outcome == "done"]
        for _, tell in sorted(told, key=lambda one: one[0]):
            tell()
        self.timeline.add("started", self.started_at, f"Turnout {self._version} started")

    # -- what is asked ---------------------------------------------------------------------------------------------

    def troubles(self, now: datetime, minutes: int) -> dict[TroubleKey, TroubleCount]:
        merged: dict[TroubleKey, TroubleCount] = {}
        for minute in self.minutes.since(now, minutes):
            for key, count in minute.troubles.items():
                whole = merged.get(key)
                if whole is None:
                    whole = merged[key] = TroubleCount(count.first_at)
                whole.merge(count)
        return merged

    def samples(self, model: str, now: datetime) -> list[Sample]:
        """Of predictions that succeeded within the hour, the newest."""
        since = now.timestamp() - 3600
        return [sample for sample in self._models.get(model, ()) if sample.at >= since]

    def seconds_of(self, offer: str, now: datetime) -> list[float]:
        """How long the newest attempts took that served within the hour."""
        since = now.timestamp() - 3600
        return [seconds for at, seconds in self._offers.get(offer, ()) if at >= since]

    def accept_seconds(self, model: str, now: datetime) -> list[float]:
        since = now.timestamp() - 3600
        return [seconds for at, seconds in self._accepts.get(model, ()) if at >= since]

    def delivery_seconds(self, model: str, now: datetime) -> list[float]:
        since = now.timestamp() - 3600
        return [seconds for at, seconds in self._deliveries.get(model, ()) if at >= since]

    @property
    def models(self) -> list[str]:
        return list(self._models)

    # -- counting --------------------------------------------------------------------------------------------------

    def _take_created(self, prediction: Prediction) -> None:
        minute = self.minutes.at(prediction.created_at)
        if minute is not None:
            minute.created += 1

    def _take_ended(self, prediction: Prediction) -> None:
        at = prediction.completed_at or self._clock.now()
        minute = self.minutes.at(at)
        if minute is None:
            return
        model = minute.model(prediction.request.model)
        model.ended += 1
        model.deadline_misses += is_late(prediction)
        match prediction.status:
            case Status.SUCCEEDED:
                minute.succeeded += 1
                self._take_success(prediction, minute, at)
            case Status.CANCELED:
                minute.canceled += 1
            case _:
                minute.failed += 1
                code = prediction.failure.code if prediction.failure is not None else prediction.status.value
                key = (prediction.request.model, None, code)
                message = cut(prediction.error or code, _EXAMPLE_CHARACTERS).text
                minute.trouble(key, at).add(prediction.owner, at, message, prediction.id)

    def _take_success(self, prediction: Prediction, minute: Minute, at: datetime) -> None:
        serving = prediction.serving
        _keep(self._models, prediction.request.model, MOST_MODELS, _sample(prediction, at))
        if serving is None:
            return
        count = minute.offer(serving.offer)
        count.served += 1
        if serving.cost.nanos is not None:
            count.served_priced += 1
            count.served_nanos += serving.cost.nanos
        if prediction.is_rescued:
            minute.rescued += 1
            self.timeline.add(
                "rescued",
                at,
                f"{serving.provider} rescued a prediction",
                model=prediction.request.model,
                provider=serving.provider,
                offer=serving.offer,
                prediction=prediction.id,
            )

    def _take_failover(self, prediction: Prediction, attempt: Attempt) -> None:
        failed = prediction.attempts[attempt.number - 2]
        code = failed.failure.code if failed.failure is not None else failed.status.value
        self.timeline.add(
            "failover",
            attempt.begun_at,
            f"{failed.provider} → {attempt.provider}: {code.replace('_', ' ')}",
            text=cut(failed.failure.message, _EXAMPLE_CHARACTERS).text if failed.failure is not None else "",
            model=prediction.request.model,
            provider=failed.provider,
            offer=failed.offer,
            prediction=prediction.id,
        )

    def _take_attempt(self, prediction: Prediction, attempt: Attempt) -> None:
        at = attempt.ended_at or self._clock.now()
        minute = self.minutes.at(at)
        if minute is None:
            return
        _count_money(minute, attempt, is_serving=prediction.winner == attempt.number)
        count = minute.offer(attempt.offer)
        count.attempts += 1
        failure = attempt.failure
        if attempt.status is AttemptStatus.SUCCEEDED:
            count.good += 1
            count.told += 1
            if attempt.ended_at is not None:
                seconds = max(0.0, (attempt.ended_at - attempt.begun_at).total_seconds())
                _keep(self._offers, attempt.offer, MOST_OFFERS, (at.timestamp(), seconds))
        elif failure is not None and failure.code != NoLongerNeeded.code:
            count.told += failure.blame not in (Blame.CALLER, Blame.LOCAL)
            key = (prediction.request.model, attempt.provider, failure.code)
            message = cut(failure.message, _EXAMPLE_CHARACTERS).text
            minute.trouble(key, at).add(prediction.owner, at, message, prediction.id)

    def _take_back(self, attempt: Attempt, given_up_at: datetime) -> None:
        """What was counted of an attempt when it was given up: its provider has told the end after all."""
        minute = self.minutes.at(given_up_at)
        if minute is None or minute.maybe == 0:
            return
        minute.maybe -= 1
        minute.maybe_nanos -= attempt.expected_nanos or 0
        minute.offer(attempt.offer).attempts -= 1


def _count_money(minute: Minute, attempt: Attempt, *, is_serving: bool) -> None:
    nanos = attempt.cost.nanos
    if nanos is not None:
        minute.nanos += nanos
        minute.wasted += 0 if is_serving else nanos
    if is_free(attempt):
        return
    if nanos is None and attempt.status in (AttemptStatus.ABANDONED, AttemptStatus.CANCELED):
        minute.maybe += 1
        minute.maybe_nanos += attempt.expected_nanos or 0
        return
    minute.ran += 1
    minute.unknown += is_unpriced(attempt)


def _sample(prediction: Prediction, at: datetime) -> Sample:
    serving, shares = prediction.serving, shares_of(prediction)
    spans = attempt_spans(serving) if serving is not None else None
    total = max(0.0, (at - prediction.created_at).total_seconds())
    if spans is None or shares is None:
        return Sample(at.timestamp(), total, 0.0, None, None, None, None, None)
    cold_start = spans.cold_start or None
    return Sample(
        at.timestamp(), total, shares.lost, spans.queue, cold_start, spans.run, shares.collect, shares.overhead
    )


def _keep(kept: dict, name: str, most: int, sample: tuple) -> None:  # type: ignore[type-arg]
    samples = kept.get(name)
    if samples is None:
        if len(kept) >= most:
            return
        samples = kept[name] = deque(maxlen=SAMPLES_OF_A_MODEL)
    samples.append(sample)
