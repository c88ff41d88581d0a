"""
Replicate's JSON of a prediction, as every answer, list and delivery shows it. Not how a prediction is stored.

One encoder for all of them, so that a webhook's body is what GET would say at that moment.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.ledger import Exposure, double_bill_upper_bound, may_be_billed, rows_of
from gateway.contract.money import NANOS, CostBasis
from gateway.contract.prediction import Prediction, Status

REDACTED = "[REDACTED]"


class Urls(msgspec.Struct, frozen=True):
    """Absolute, and never null: Python's client types them as a map of strings."""

    cancel: str
    get: str
    stream: str
    web: str


class CostBody(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Dollars as decimal text. `amount` is null when a part is unknown; what is known stands in `at_least`."""

    amount: str | None
    basis: str
    currency: str
    at_least: str | msgspec.UnsetType = msgspec.UNSET


class AttemptBody(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    number: int
    provider: str
    offer: str
    status: str
    started_at: str
    cost: CostBody
    ended_at: str | msgspec.UnsetType = msgspec.UNSET
    seconds: float | msgspec.UnsetType = msgspec.UNSET
    code: str | msgspec.UnsetType = msgspec.UNSET  # of the failure, e.g. "rate_limited"
    message: str | msgspec.UnsetType = msgspec.UNSET
    fallback: bool = False
    degraded: bool = False  # on an offer declared as less than the model promises
    reason: str | msgspec.UnsetType = msgspec.UNSET  # why this candidate, at that moment
    maybe_billed: bool = False  # nobody knows what became of it, or what it cost until it was stopped
    pays_twice: bool = False  # begun, as the policy allows, while another may have been running
    resolved_by: str | msgspec.UnsetType = msgspec.UNSET  # whose word ended the doubt about its submit


class ReasonBody(msgspec.Struct, kw_only=True, frozen=True):
    offer: str
    provider: str
    kept: bool
    code: str
    text: str


class RoutingBody(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What is ours, under the one key that Replicate does not have."""

    attempts: tuple[AttemptBody, ...]
    reasons: tuple[ReasonBody, ...]
    provider: str | msgspec.UnsetType = msgspec.UNSET  # who serves it, or served it last
    version: str | msgspec.UnsetType = msgspec.UNSET  # the version that served
    policy: str | msgspec.UnsetType = msgspec.UNSET
    fallback: bool = False
    degraded: bool = False  # who serves it is declared as less than the model promises
    cost: CostBody | msgspec.UnsetType = msgspec.UNSET  # of all attempts, once the prediction has ended
    # The most that may have been billed beside the one bill it was to have; only where something may have been.
    double_bill_upper_bound: CostBody | msgspec.UnsetType = msgspec.UNSET


class PredictionBody(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """The fields in the order Replicate's own answers have them. Those without a default are always there."""

    id: str
    model: str
    version: str
    input: dict[str, Any]
    logs: str
    output: Any
    data_removed: bool
    error: str | None
    source: str
    status: str
    created_at: str
    urls: Urls
    started_at: str | msgspec.UnsetType = msgspec.UNSET
    completed_at: str | msgspec.UnsetType = msgspec.UNSET
    deadline: str | msgspec.UnsetType = msgspec.UNSET  # only for callers that sent Cancel-After
    metrics: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    webhook: str | msgspec.UnsetType = msgspec.UNSET
    webhook_events_filter: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    routing: RoutingBody | msgspec.UnsetType = msgspec.UNSET


encode = msgspec.json.Encoder().encode


def prediction_body(
    prediction: Prediction, *, public_url: str, as_created: bool = False, has_page: bool = False
) -> PredictionBody:
    """
    What is shown of a prediction. `public_url` has no slash at its end. With `has_page` the dashboard shows it too.

    With `as_created` it is shown as it began, however far it has come: clients take a first reply whose status is
    not `starting` as final, and count an output in a `starting` one as already delivered.
    """
    request = prediction.request
    body: dict[str, Any] = {}
    if prediction.attempts or prediction.plan is not None:
        body["routing"] = msgspec.UNSET if as_created else routing_body(prediction)
    if request.wants_deadline:
        body["deadline"] = timestamp(prediction.deadline_at)
    if request.webhook is not None:
        body["webhook"] = request.webhook
        body["webhook_events_filter"] = request.webhook_events
    if not as_created:
        if prediction.started_at is not None:
            body["started_at"] = timestamp(prediction.started_at)
        if prediction.completed_at is not None:
            body["completed_at"] = timestamp(prediction.completed_at)
        if prediction.metrics:
            body["metrics"] = prediction.metrics
    return PredictionBody(
        id=prediction.id,
        model=request.model,
        version=request.version,
        input=_shown_input(request.input, request.secret) if request.secret else request.input,
        logs="" if as_created else prediction.logs,
        output=None if as_created else prediction.output,
        data_removed=prediction.data_removed,
        error=None if as_created else prediction.error,
        source=request.source,
        status=Status.STARTING if as_created else shown_status(prediction),
        created_at=timestamp(prediction.created_at),
        urls=_urls(prediction, public_url, has_page),
        **body,
    )


def prediction_bytes(
    prediction: Prediction, *, public_url: str, as_created: bool = False, has_page: bool = False
) -> bytes:
    """The same as JSON: what a delivery snapshots."""
    return encode(prediction_body(prediction, public_url=public_url, as_created=as_created, has_page=has_page))


def shown_status(prediction: Prediction) -> Status:
    """`aborted` only for callers that asked for a deadline: the official clients poll for ever, or break, on it."""
    if prediction.status is Status.ABORTED and not prediction.request.wants_deadline:
        return Status.CANCELED
    return prediction.status


def routing_body(prediction: Prediction) -> RoutingBody:
    """Who served a prediction, what was tried, what it cost, and why each candidate was kept or dropped."""
    body: dict[str, Any] = {}
    serving = prediction.serving
    if serving is not None:
        body.update(provider=serving.provider, version=serving.version, fallback=serving.is_fallback)
        body["degraded"] = serving.quality != "full"
    if prediction.plan is not None:
        body["policy"] = prediction.plan.policy
    if prediction.is_terminal:
        body["cost"] = _total_cost(prediction.attempts)
    twice = double_bill_upper_bound(rows_of(prediction.attempts))
    if twice.rows:
        body["double_bill_upper_bound"] = _bound(twice)
    return RoutingBody(
        attempts=tuple(_attempt_body(attempt) for attempt in prediction.attempts),
        reasons=_reasons(prediction),
        **body,
    )


def timestamp(at: datetime) -> str:
    """`2025-06-02T15:53:20.761Z`. `at` is UTC."""
    return at.isoformat(timespec="milliseconds")[:23] + "Z"


def _shown_input(input: dict[str, Any], secret: tuple[str, ...]) -> dict[str, Any]:
    return {key: REDACTED if key in secret else value for key, value in input.items()}


def _urls(prediction: Prediction, public_url: str, has_page: bool) -> Urls:
    get = f"{public_url}/v1/predictions/{prediction.id}"
    # npm's client turns a stream's events into files if, and only if, its path begins with /v1/files/.
    stream = "/v1/files/stream-" if prediction.request.file_output else "/stream/"
    return Urls(
        cancel=f"{get}/cancel",
        get=get,
        stream=f"{public_url}{stream}{prediction.stream_token}",
        web=f"{public_url}/dashboard#/predictions/{prediction.id}" if has_page else get,
    )


def _attempt_body(attempt: Attempt) -> AttemptBody:
    body: dict[str, Any] = {}
    if attempt.ended_at is not None:
        body["ended_at"] = timestamp(attempt.ended_at)
        body["seconds"] = round((attempt.ended_at - attempt.begun_at).total_seconds(), 3)
    if attempt.reason is not None:
        body["reason"] = attempt.reason.text
    if attempt.failure is not None:
        body["code"] = attempt.failure.code
        body["message"] = attempt.failure.message
    if attempt.resolved_by is not None:
        body["resolved_by"] = attempt.resolved_by
    return AttemptBody(
        number=attempt.number,
        provider=attempt.provider,
        offer=attempt.offer,
        status=attempt.status,
        started_at=timestamp(attempt.begun_at),
        cost=_cost(attempt.cost.nanos, attempt.cost.basis),
        fallback=attempt.is_fallback,
        degraded=attempt.quality != "full",
        maybe_billed=may_be_billed(attempt),
        pays_twice=attempt.pays_twice,
        **body,
    )


def _reasons(prediction: Prediction) -> tuple[ReasonBody, ...]:
    if prediction.plan is None:
        return ()
    return tuple(
        ReasonBody(offer=choice.offer, provider=choice.provider, kept=choice.kept, code=reason.code, text=reason.text)
        for choice in prediction.plan.choices
        for reason in choice.reasons
    )


def _total_cost(attempts: tuple[Attempt, ...]) -> CostBody:
    """Unknown parts make the sum unknown; an attempt that was rejected ran nothing and costs nothing."""
    known = 0
    basis = CostBasis.REPORTED if any(attempt.cost.nanos is not None for attempt in attempts) else CostBasis.COMPUTED
    is_known = True
    for attempt in attempts:
        if attempt.cost.nanos is not None:
            known += attempt.cost.nanos
            if attempt.cost.basis is not CostBasis.REPORTED:
                basis = CostBasis.COMPUTED
        elif attempt.status is not AttemptStatus.REJECTED:
            is_known = False
    if is_known:
        return _cost(known, basis)
    if not known:
        return _cost(None, CostBasis.UNKNOWN)
    return CostBody(amount=None, basis=CostBasis.UNKNOWN, currency="USD", at_least=_dollars(known))


def _cost(nanos: int | None, basis: CostBasis) -> CostBody:
    return CostBody(amount=None if nanos is None else _dollars(nanos), basis=basis, currency="USD")


def _bound(twice: Exposure) -> CostBody:
    """A price nobody knows makes the bound unknown; what is known of it stands in `at_least`."""
    if not twice.unpriced:
        return _cost(twice.nanos, CostBasis.COMPUTED)
    at_least = _dollars(twice.nanos) if twice.nanos else msgspec.UNSET
    return CostBody(amount=None, basis=CostBasis.UNKNOWN, currency="USD", at_least=at_least)


def _dollars(nanos: int) -> str:
    whole, fraction = divmod(nanos, NANOS)
    return f"{whole}.{fraction:09d}".rstrip("0").rstrip(".") if fraction else str(whole)
