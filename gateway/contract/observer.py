"""Who wants to know: rooms announce what happened to Observers, and import no telemetry."""

from __future__ import annotations

import logging
from datetime import datetime

import msgspec

from gateway.contract.attempt import Attempt
from gateway.contract.fact import Effect
from gateway.contract.prediction import Prediction

_log = logging.getLogger("turnout")


class DeliveryTry(msgspec.Struct, kw_only=True, frozen=True):
    """One try to bring a webhook to its receiver. Of the receiver only what it answered: its URL is the caller's."""

    delivery: str
    event: str
    number: int  # of the try, from 1
    outcome: str  # delivered, retry, gone, exhausted
    status: int | None
    begun_at: datetime
    seconds: float


class Observer:
    """The null observer. Override what you want to hear; never raise, never wait, never keep the input or output."""

    def prediction_created(self, prediction: Prediction) -> None: ...

    def prediction_accepted(self, prediction: Prediction, seconds: float) -> None:
        """It is durable, `seconds` after the engine was asked."""

    def committed(self, before: Prediction | None, after: Prediction, effects: tuple[Effect, ...]) -> None:
        """
        A change is durable, with its money and its events in `effects`.

        `before` is what this process last knew of it; None if it was not driving it.
        """

    def prediction_ended(self, prediction: Prediction) -> None: ...

    def attempt_begun(self, prediction: Prediction, attempt: Attempt) -> None: ...

    def attempt_ended(self, prediction: Prediction, attempt: Attempt) -> None: ...

    def failed_over(self, prediction: Prediction, failed: Attempt) -> None:
        """The prediction moves on after `failed`."""

    def breaker_changed(self, offer: str, before: str, after: str, why: str) -> None: ...

    def callback_received(self, provider: str, outcome: str) -> None:
        """`outcome`: applied, nudge, duplicate, forged, unknown."""

    def callback_told(self, prediction: Prediction, attempt: int, outcome: str, begun_at: datetime, trace: str) -> None:
        """A callback for this attempt was taken in. `trace` is the traceparent it came with, "" if there was none."""

    def poll_made(self, provider: str, outcome: str) -> None:
        """`outcome`: news, same, failed."""

    def delivery_tried(self, event: str, outcome: str, seconds: float) -> None:
        """`outcome`: delivered, retry, gone, exhausted."""

    def delivery_ended(self, event: str, outcome: str, seconds: float) -> None:
        """It is over, `seconds` after the event. `outcome`: delivered, gone, exhausted."""

    def delivery_made(self, prediction: Prediction, tried: DeliveryTry) -> None:
        """A try, for those who want to know whose: told only if the outbox was asked to look it up."""

    def request_served(self, route: str, method: str, status: int, seconds: float) -> None: ...

    def artifact_kept(self, direction: str, size_bytes: int) -> None:
        """`direction`: input, output."""

    def local_backend_changed(self, state: str) -> None: ...

    def policies_read(self, version: str, *, refused: bool) -> None:
        """The policy files have changed, and were swapped or refused; `version` is the set that holds now."""


class Observers(Observer):
    """Passes every announcement on, in order."""

    def __init__(self, *observers: Observer) -> None:
        for name in [name for name in vars(Observer) if not name.startswith("_")]:
            listeners = [
                getattr(observer, name)
                for observer in observers
                if getattr(type(observer), name) is not getattr(Observer, name)
            ]
            setattr(self, name, _fan_out(listeners))


def _fan_out(listeners: list[object]) -> object:
    def announce(*args: object, **named: object) -> None:
        for listen in listeners:
            try:
                listen(*args, **named)  # type: ignore[operator]
            except Exception:
                # What was announced has happened and is committed: it goes on, whoever stumbles over the news.
                _log.exception("an observer failed")

    return announce
