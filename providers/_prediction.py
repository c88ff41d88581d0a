"""The prediction object of Replicate's contract, as Replicate, Cog and we send it, read into a Fact."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.contract.errors import (
    Failure,
    JobCanceled,
    JobFailed,
    JobTimedOut,
    ModelFailed,
    OutputModerated,
    ProviderFailure,
    ResultLost,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.money import Cost, CostBasis
from gateway.contract.provider import Listed
from providers._adapter import read_id
from providers._reading import quote

ERROR_CHARACTERS = 2_000

_PHASES = {
    "starting": Phase.QUEUED,
    "processing": Phase.RUNNING,
    "succeeded": Phase.SUCCEEDED,
    "failed": Phase.FAILED,
    "canceled": Phase.CANCELED,
    "aborted": Phase.CANCELED,  # Replicate since 2025-10: its deadline passed before it started
}

# E005 is Replicate's content filter. E8765 is left to its words: it is documented as a failed health check, and some
# have met it as a filter. A filter's no is final, so only clear words count.
_MODERATED = re.compile(
    r"\bE005\b|flagged as (?:sensitive|inappropriate|unsafe)|\bNSFW\b|content policy", re.IGNORECASE
)
# The platform's own failures, not the model's: https://replicate.com/docs/reference/error-codes
_PLATFORM = re.compile(
    r"\((?:code: )?PA\)|interrupted; please retry|\bDirector:|\bE(?:001|1000|4875|6716|8367|8765|9243|9825|9828)\b"
    r"|^Worker crashed",
    re.IGNORECASE,
)
_NESTED_PREFIX = re.compile(r"^(?:Prediction failed: )+")  # coglet wraps its worker's message once or twice


def read_prediction(body: dict[str, Any]) -> Fact:
    """
    What the object says. A status it does not have, or that nobody knows yet, is "queued": it claims the least.

    `processing` with an output is not the end: files may still be on their way, and more may come.
    """
    word = body.get("status")
    phase = _PHASES.get(word, Phase.QUEUED) if isinstance(word, str) else Phase.QUEUED
    output, failure = body.get("output"), None
    if phase is Phase.FAILED:
        failure = explain(body.get("error")).failure
    elif phase is Phase.CANCELED:
        failure = _why_canceled(body, was_aborted=word == "aborted")
    elif phase is Phase.SUCCEEDED and output is None and body.get("data_removed") is True:
        phase, failure = Phase.FAILED, ResultLost("the provider has removed the result already").failure
    id, logs, metrics = read_id(body), body.get("logs"), body.get("metrics")
    return Fact(
        phase=phase,
        handle=None if id is None else {"id": id},
        output=output,
        logs=logs if isinstance(logs, str) else None,
        metrics=metrics if isinstance(metrics, dict) else {},
        # The one word that is a price: who aborts has run nothing and charges nothing.
        cost=Cost(nanos=0, basis=CostBasis.REPORTED) if word == "aborted" else None,
        failure=failure,
        started_at=read_time(body.get("started_at")),
        completed_at=read_time(body.get("completed_at")),
    )


def read_listed(body: dict[str, Any]) -> Listed | None:
    """The object as a list shows it; None if it has no usable id."""
    id, webhook = read_id(body), body.get("webhook")
    if id is None or not isinstance(webhook, str | None):
        return None
    return Listed(
        handle={"id": id},
        created_at=read_time(body.get("created_at")),
        callback_url=webhook,
        input=body.get("input"),
        marks={name: word for name in ("version", "model") if isinstance(word := body.get(name), str)},
    )


def explain(error: Any) -> ProviderFailure:
    """The failure behind a failed prediction's `error`: a content filter, the platform, or else the model."""
    if error is None or error == "":
        return ModelFailed("the model failed and did not say why")
    text = error if isinstance(error, str) else msgspec.json.encode(error).decode()
    text = quote(_NESTED_PREFIX.sub("", text), ERROR_CHARACTERS)
    if _MODERATED.search(text):
        return OutputModerated(text)
    if _PLATFORM.search(text):
        return JobFailed(text)
    return ModelFailed(text)


def _why_canceled(body: dict[str, Any], *, was_aborted: bool) -> Failure | None:
    deadline, completed = read_time(body.get("deadline")), read_time(body.get("completed_at"))
    if was_aborted:
        ended: ProviderFailure = JobTimedOut("it was aborted: its deadline passed before it started")
    elif deadline is not None and completed is not None and completed >= deadline:
        ended = JobTimedOut("it was canceled at its deadline")
    elif body.get("error"):
        ended = JobCanceled(quote(str(body["error"]), ERROR_CHARACTERS))
    else:
        return None
    # The provider has ended it: unlike a job that we merely stopped waiting for, nothing runs on.
    return msgspec.structs.replace(ended.failure, maybe_running=False)


def read_time(value: Any) -> datetime | None:
    """ISO 8601 with any number of decimals; without a zone it is UTC. None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
