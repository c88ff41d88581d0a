"""Why a prediction went where it went: plan, attempts, money, deliveries, and the story of them. Reads no store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from gateway.contract.attempt import Attempt
from gateway.contract.errors import Failure
from gateway.contract.host import host_of
from gateway.contract.ledger import double_bill_upper_bound
from gateway.contract.prediction import Prediction
from gateway.contract.reason import Reason
from gateway.contract.route import Choice
from gateway.dashboard.row import row_of
from gateway.dashboard.shape import AttemptShown, ChoiceShown, DeliveryShown, Detail, ReasonShown
from gateway.dashboard.shown import (
    DETAIL_CHARACTERS,
    DETAIL_FILES,
    About,
    cut,
    own_links,
    shown_file,
    shown_json,
    shown_output,
)
from gateway.dashboard.story import story_of
from gateway.store.protocol import Delivery, LedgerRow

_LOG_CHARACTERS = 20_000  # the end of it


def detail_of(
    prediction: Prediction,
    *,
    ledger: Sequence[LedgerRow],
    deliveries: Sequence[Delivery],
    files: Mapping[str, About],
    now: datetime,
    base: str,
) -> Detail:
    """`files` says what the links of ours in input and output lead to; `base` is our public URL."""
    request = prediction.request
    money = {row.attempt: row.state for row in ledger}
    plan = prediction.plan
    has_final = any(delivery.is_final for delivery in deliveries)
    visible = {key: value for key, value in request.input.items() if key not in request.secret}
    return Detail(
        row=row_of(prediction, now=now, base=base),
        version=request.version,
        policy=plan.policy if plan is not None else request.policy or "",
        deadline_at=prediction.deadline_at,
        input=shown_json(request.input, secret=request.secret).text,
        files=tuple(shown_file(link, files.get(link)) for link in own_links(visible, base=base, most=DETAIL_FILES)),
        output=shown_output(
            prediction.output, base=base, characters=DETAIL_CHARACTERS, files=DETAIL_FILES, known=files
        ),
        logs=_end_of(prediction.logs),
        story=story_of(prediction, deliveries, now=now),
        plan=tuple(_choice(choice) for choice in plan.choices) if plan is not None else (),
        attempts=tuple(_attempt(attempt, money.get(attempt.number)) for attempt in prediction.attempts),
        deliveries=tuple(_delivery(delivery) for delivery in deliveries),
        can_cancel=not prediction.is_terminal and prediction.cancel_requested_at is None,
        can_redeliver=has_final,
        double_bill_upper_bound=double_bill_upper_bound(ledger),
    )


def links_in(prediction: Prediction, *, base: str) -> list[str]:
    """The links of ours whose files `detail_of` shows."""
    visible = {key: value for key, value in prediction.request.input.items() if key not in prediction.request.secret}
    return own_links([visible, prediction.output], base=base, most=2 * DETAIL_FILES)


def _choice(choice: Choice) -> ChoiceShown:
    return ChoiceShown(
        offer=choice.offer,
        provider=choice.provider,
        kept=choice.kept,
        is_fallback=choice.is_fallback,
        score=choice.score,
        expected_nanos=choice.expected_nanos,
        expected_seconds=choice.expected_seconds,
        reasons=tuple(_reason(reason) for reason in choice.reasons),
    )


def _attempt(attempt: Attempt, ledger: str | None) -> AttemptShown:
    job = (attempt.handle or {}).get("id")
    return AttemptShown(
        number=attempt.number,
        offer=attempt.offer,
        provider=attempt.provider,
        remote=attempt.remote,
        status=attempt.status.value,
        is_fallback=attempt.is_fallback,
        begun_at=attempt.begun_at,
        accepted_at=attempt.accepted_at,
        running_at=attempt.running_at,
        ended_at=attempt.ended_at,
        deadline_at=attempt.deadline_at,
        reason=_reason(attempt.reason) if attempt.reason is not None else None,
        failure=_failure(attempt.failure) if attempt.failure is not None else None,
        expected_nanos=attempt.expected_nanos,
        nanos=attempt.cost.nanos,
        basis=attempt.cost.basis.value,
        ledger=ledger,
        job=cut(job, 200).text if job is not None else None,
        logs=_end_of(attempt.logs),
        evidence=attempt.failure.evidence if attempt.failure is not None else None,
        resolved_by=attempt.resolved_by,
        pays_twice=attempt.pays_twice,
        look_at=attempt.look_at,
    )


def _reason(reason: Reason) -> ReasonShown:
    return ReasonShown(code=reason.code, text=cut(reason.text, DETAIL_CHARACTERS).text)


def _failure(failure: Failure) -> ReasonShown:
    return ReasonShown(code=failure.code, text=cut(failure.message, DETAIL_CHARACTERS).text)


def _delivery(delivery: Delivery) -> DeliveryShown:
    return DeliveryShown(
        id=delivery.id,
        event=delivery.event,
        host=host_of(delivery.url),
        created_at=delivery.created_at,
        due_at=delivery.due_at,
        tries=delivery.tries,
        ended=delivery.ended,
        last_status=delivery.last_status,
        last_error=cut(delivery.last_error, DETAIL_CHARACTERS).text if delivery.last_error is not None else None,
        is_final=delivery.is_final,
    )


def _end_of(logs: str) -> str:
    return logs if len(logs) <= _LOG_CHARACTERS else "…" + logs[-_LOG_CHARACTERS:]
