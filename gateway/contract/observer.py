"""Who wants to know: rooms announce what happened to Observers, and import no telemetry."""

from __future__ import annotations

import logging

from gateway.contract.attempt import Attempt
from gateway.contract.prediction import Prediction

_log = logging.getLogger("turnout")


class Observer:
    """The null observer. Override what you want to hear; never raise, never wait, never keep the input or output."""

    def prediction_created(self, prediction: Prediction) -> None: ...

    def prediction_ended(self, prediction: Prediction) -> None: ...

    def attempt_begun(self, prediction: Prediction, attempt: Attempt) -> None: ...

    def attempt_ended(self, prediction: Prediction, attempt: Attempt) -> None: ...

    def failed_over(self, prediction: Prediction, failed: Attempt) -> None:
        """The prediction moves on after `failed`."""

    def breaker_changed(self, offer: str, before: str, after: str, why: str) -> None: ...

    def callback_received(self, provider: str, outcome: str) -> None:
        """`outcome`: applied, nudge, duplicate, forged, unknown."""

    def poll_made(self, provider: str, outcome: str) -> None:
        """`outcome`: news, same, failed."""

    def delivery_tried(self, event: str, outcome: str, seconds: float) -> None:
        """`outcome`: delivered, retry, gone, exhausted."""

    def request_served(self, route: str, method: str, status: int, seconds: float) -> None: ...

    def artifact_kept(self, direction: str, size_bytes: int) -> None:
        """`direction`: input, output."""

    def local_backend_changed(self, state: str) -> None: ...


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
    def announce(*args: object) -> None:
        for listen in listeners:
            try:
                listen(*args)  # type: ignore[operator]
            except Exception:
                # What was announced has happened and is committed: it goes on, whoever stumbles over the news.
                _log.exception("an observer failed")

    return announce
