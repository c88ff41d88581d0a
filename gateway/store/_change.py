"""What a change of a prediction means for the rows beside it, in any store. Pure: it knows no tables and no keys."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from datetime import timedelta

import msgspec

from gateway.contract.fact import Effect, LedgerEntry, Notify, StreamEvent
from gateway.contract.prediction import Prediction, WebhookEvent

IDEMPOTENCY_LIFETIME = timedelta(hours=24)
# Replicate sends output and logs at most this often, each.
SPACING_MICROS = 500_000
SPACED = frozenset({WebhookEvent.OUTPUT.value, WebhookEvent.LOGS.value})


class Sorted(msgspec.Struct, frozen=True):
    """The effects of one change by where they are written."""

    events: tuple[StreamEvent, ...] = ()
    ledger: tuple[LedgerEntry, ...] = ()
    told: tuple[str, ...] = ()  # which deliveries are due, in order


def sort_effects(prediction: Prediction, effects: Sequence[Effect]) -> Sorted:
    if not effects:
        return _NOTHING
    told = [effect.event for effect in effects if isinstance(effect, Notify)]
    return Sorted(
        tuple(effect for effect in effects if isinstance(effect, StreamEvent)),
        tuple(effect for effect in effects if isinstance(effect, LedgerEntry)),
        told_of(told) if prediction.request.webhook is not None else (),
    )


_NOTHING = Sorted()


def told_of(events: Iterable[str]) -> tuple[str, ...]:
    """Each once; the end says it all: what it would supersede in the same change is not written."""
    told = tuple(dict.fromkeys(events))
    return (WebhookEvent.COMPLETED.value,) if WebhookEvent.COMPLETED in told else told


def delivery_id(prediction: str, event: str, sequence: int) -> str:
    """The same event has the same id for ever."""
    digest = hashlib.sha256(f"{prediction}|{event}|{sequence}".encode()).digest()
    return "msg_" + base64.b32encode(digest).decode().lower()[:26]
