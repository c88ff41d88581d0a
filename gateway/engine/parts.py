"""What every run shares: the parts that the composition root puts together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from gateway.contract.clock import Clock
from gateway.contract.observer import Observer
from gateway.contract.prediction import Prediction
from gateway.contract.route import Offer
from gateway.contract.trace import given
from gateway.engine.attempt import Timing
from gateway.engine.poll import CallbackRecord
from gateway.engine.seam import Collector, Intake, Link
from gateway.routing.breaker import Breakers
from gateway.routing.planner import Planner
from gateway.routing.signals import Board


class Parts(msgspec.Struct, kw_only=True, frozen=True):
    """`callback_base` is our public URL, without a slash at its end; `secret` makes callback tokens."""

    planner: Planner
    breakers: Breakers
    board: Board
    links: Mapping[str, Link]
    offer: Callable[[str], Offer | None]
    collector: Collector
    intake: Intake
    observer: Observer
    clock: Clock
    draw: Callable[[], float]
    secret: bytes
    callback_base: str
    timing: Timing
    callbacks: CallbackRecord = msgspec.field(default_factory=CallbackRecord)
    # The W3C context an attempt passes on: of a prediction and the attempt's number.
    traceparent: Callable[[Prediction, int], str] = given
