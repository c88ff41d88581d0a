"""One prediction as a line of the list. Not its whole story: that is `detail`."""

from __future__ import annotations

from datetime import datetime

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.money import basis_of
from gateway.contract.prediction import Prediction
from gateway.dashboard.shape import Row
from gateway.dashboard.shown import ROW_CHARACTERS, ROW_FILES, cut, shown_output


def row_of(prediction: Prediction, *, now: datetime, base: str) -> Row:
    """`base` is our public URL without a slash at its end."""
    serving = prediction.serving
    nanos, is_cost_known = cost_of(prediction)
    return Row(
        id=prediction.id,
        model=prediction.request.model,
        status=prediction.status.value,
        owner=prediction.owner,
        source=prediction.request.source,
        created_at=prediction.created_at,
        completed_at=prediction.completed_at,
        seconds=round(max(0.0, ((prediction.completed_at or now) - prediction.created_at).total_seconds()), 3),
        provider=serving.provider if serving is not None else None,
        attempts=len(prediction.attempts),
        is_rescued=prediction.is_rescued,
        is_fallback=serving is not None and serving.is_fallback,
        nanos=nanos,
        is_cost_known=is_cost_known,
        basis=basis_of(attempt.cost for attempt in prediction.attempts if not is_free(attempt)).value,
        error_code=prediction.failure.code if prediction.failure is not None else None,
        error=cut(prediction.error, ROW_CHARACTERS).text if prediction.error is not None else None,
        output=shown_output(prediction.output, base=base, characters=ROW_CHARACTERS, files=ROW_FILES),
    )


def cost_of(prediction: Prediction) -> tuple[int | None, bool]:
    """Nano-dollars spent so far as far as they are known, and whether that is all of it."""
    known = [attempt.cost.nanos for attempt in prediction.attempts if attempt.cost.nanos is not None]
    is_known = prediction.is_terminal and not any(is_unpriced(attempt) for attempt in prediction.attempts)
    return (sum(known) if known or is_known else None), is_known


def is_unpriced(attempt: Attempt) -> bool:
    """It may have cost something, and nobody knows how much."""
    return attempt.cost.nanos is None and not is_free(attempt)


def is_free(attempt: Attempt) -> bool:
    """It was refused, or stopped before it ran."""
    if attempt.status is AttemptStatus.REJECTED:
        return True
    return attempt.status is AttemptStatus.CANCELED and attempt.running_at is None
