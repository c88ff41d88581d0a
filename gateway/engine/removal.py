"""What stays of a prediction once its data is removed, and what it still learns then. Pure; erases no file."""

from __future__ import annotations

from msgspec.structs import replace

from gateway.contract.attempt import Attempt
from gateway.contract.fact import Fact
from gateway.contract.prediction import Prediction


def without_data(prediction: Prediction) -> Prediction:
    """
    Input, output, logs, and where the provider keeps them are gone. Status, error, times, plan and money stay.

    The webhook's address goes too: addresses carry secrets.
    """
    request = replace(prediction.request, input={}, webhook=None, fingerprint="")
    attempts = tuple(_without_data(attempt) for attempt in prediction.attempts)
    return replace(prediction, request=request, output=None, logs="", attempts=attempts, data_removed=True)


def bare(fact: Fact) -> Fact:
    """What may still be learned of an attempt whose data was removed: how it ended, and what it cost."""
    return replace(fact, handle=_names(fact.handle), output=None, logs=None)


def _without_data(attempt: Attempt) -> Attempt:
    return replace(attempt, output=None, logs="", handle=_names(attempt.handle))


def _names(handle: dict[str, str] | None) -> dict[str, str] | None:
    """The handle without its addresses: some lead to the result."""
    if handle is None:
        return None
    return {name: value for name, value in handle.items() if "://" not in value}
