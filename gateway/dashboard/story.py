"""What became of a prediction, in plain sentences. Reads the stored state, and guesses nothing beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import zip_longest

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import Failure, NotSent, PoolExhausted
from gateway.contract.host import host_of
from gateway.contract.money import format_dollars
from gateway.contract.prediction import Prediction, Status
from gateway.contract.route import Choice, Plan
from gateway.dashboard.row import cost_of, is_free, is_unpriced
from gateway.dashboard.shown import cut
from gateway.store.protocol import Delivery

_MOST_CHARACTERS = 200  # of somebody else's message
_MOST_NAMED = 6
_NEVER_LEFT = frozenset({NotSent.code, PoolExhausted.code})


def story_of(prediction: Prediction, deliveries: Sequence[Delivery], *, now: datetime) -> tuple[str, ...]:
    """Planned, tried, moved on because, ended, cost, told: one sentence or two for each."""
    told = [_accepted(prediction)]
    if prediction.plan is not None:
        told.append(_planned(prediction.plan))
    told += [_tried(attempt, then, now) for attempt, then in zip_longest(prediction.attempts, prediction.attempts[1:])]
    told.append(_ended(prediction, now))
    told += _cost(prediction)
    final = next((delivery for delivery in reversed(deliveries) if delivery.is_final), None)
    if final is not None:
        told.append(_delivered(final, now))
    return tuple(told)


def _accepted(prediction: Prediction) -> str:
    deadline = seconds_text((prediction.deadline_at - prediction.created_at).total_seconds())
    return (
        f"Accepted from {prediction.owner} for {prediction.request.model} at {time_text(prediction.created_at)}, "
        f"with {deadline} to its deadline."
    )


def _planned(plan: Plan) -> str:
    kept = [choice for choice in plan.choices if choice.kept]
    dropped = [choice for choice in plan.choices if not choice.kept]
    if not plan.choices:
        return f"Policy {plan.policy} found no offer for the model."
    text = f"Planned {_count(len(kept), 'offer')} by policy {plan.policy}"
    if kept:
        text += f": {_names([choice.provider for choice in kept])}"
    if dropped:
        text += f"; {len(dropped)} dropped: " + "; ".join(_dropped(choice) for choice in dropped[:_MOST_NAMED])
        if len(dropped) > _MOST_NAMED:
            text += f"; and {len(dropped) - _MOST_NAMED} more"
    return text + "."


def _dropped(choice: Choice) -> str:
    return f"{choice.provider}, {_quoted(choice.reasons[0].text)}" if choice.reasons else choice.provider


def _tried(attempt: Attempt, then: Attempt | None, now: datetime) -> str:
    text = _outcome(attempt, now)
    if then is not None:
        left = seconds_text((then.begun_at - attempt.begun_at).total_seconds())
        text += f"; moved on to {then.provider} after {left}"
    elif attempt.status is AttemptStatus.SUCCEEDED and attempt.reason is not None:
        text += f" (chosen: {_quoted(attempt.reason.text)})"
    return text + "."


def _outcome(attempt: Attempt, now: datetime) -> str:
    name, spent = attempt.provider, seconds_text(((attempt.ended_at or now) - attempt.begun_at).total_seconds())
    said = _failure(attempt.failure)
    match attempt.status:
        case AttemptStatus.SUCCEEDED:
            return f"{name} succeeded after {spent}{_phases(attempt)}"
        case AttemptStatus.COLLECTING:
            return f"{name} succeeded; its files are being copied into our keeping"
        case AttemptStatus.REJECTED if attempt.failure is not None and attempt.failure.code in _NEVER_LEFT:
            return f"{name} was not reached: {_quoted(attempt.failure.message)}"
        case AttemptStatus.REJECTED:
            return f"{name} refused: {said}"
        case AttemptStatus.FAILED:
            return f"{name} failed after {spent}: {said}"
        case AttemptStatus.CANCELED:
            billed = "before it ran" if attempt.running_at is None else "while it ran, and may bill what it had done"
            return f"{name} was stopped by us after {spent}, {billed}"
        case AttemptStatus.ABANDONED:
            return f"{name} was given up after {spent}, and may have billed: {said}"
        case AttemptStatus.UNKNOWN:
            return f"{name} was sent the job {spent} ago and has not answered: it may be running, and billed"
        case AttemptStatus.RUNNING:
            return f"{name} has been running it for {_since(attempt.running_at, now)}"
        case AttemptStatus.ACCEPTED:
            return f"{name} took it {_since(attempt.accepted_at, now)} ago, and it is queued there"
        case _:
            return f"{name} is being asked"


def _phases(attempt: Attempt) -> str:
    if attempt.running_at is None or attempt.ended_at is None:
        return ""
    queued = (attempt.running_at - attempt.begun_at).total_seconds()
    ran = (attempt.ended_at - attempt.running_at).total_seconds()
    return f", {seconds_text(queued)} of it waiting and {seconds_text(ran)} running"


def _failure(failure: Failure | None) -> str:
    if failure is None:
        return "it did not say why"
    code = failure.code.replace("_", " ")
    message = _quoted(failure.message)
    retry = failure.retry_after_seconds
    again = f" (retry in {seconds_text(retry)})" if retry is not None else ""
    status = f", HTTP {failure.status}" if failure.status is not None and str(failure.status) not in message else ""
    return f"{code}{status}{again}: {message}" if message else f"{code}{status}{again}"


def _ended(prediction: Prediction, now: datetime) -> str:
    spent = seconds_text(((prediction.completed_at or now) - prediction.created_at).total_seconds())
    serving = prediction.serving
    match prediction.status:
        case Status.SUCCEEDED:
            name = serving.provider if serving is not None else "nobody we know of"
            text = f"Succeeded after {spent} in all, served by {name}"
            text += ", the fallback" if serving is not None and serving.is_fallback else ""
            failed = sum(attempt.failure is not None for attempt in prediction.attempts)
            return f"{text}: rescued after {_count(failed, 'failed attempt')}." if prediction.is_rescued else f"{text}."
        case Status.FAILED:
            return f"Failed after {spent}: {_quoted(prediction.error or 'no reason is known')}."
        case Status.CANCELED if prediction.cancel_requested_at is not None:
            asked = (prediction.cancel_requested_at - prediction.created_at).total_seconds()
            return f"Canceled after {spent}; it was asked for after {seconds_text(asked)}."
        case Status.CANCELED:
            return f"Canceled after {spent}, at its deadline, while it ran."
        case Status.ABORTED:
            return f"Aborted after {spent}: its deadline passed before anything ran."
        case _:
            left = (prediction.deadline_at - now).total_seconds()
            asked_to = "; a cancel was asked for" if prediction.cancel_requested_at is not None else ""
            deadline = f"{seconds_text(left)} are left" if left > 0 else "its deadline has passed"
            return f"Open for {spent}; {deadline}{asked_to}."


def _cost(prediction: Prediction) -> list[str]:
    if not prediction.is_terminal:
        return []
    nanos, is_known = cost_of(prediction)
    unknown = sum(is_unpriced(attempt) for attempt in prediction.attempts)
    if not prediction.attempts or all(is_free(attempt) for attempt in prediction.attempts):
        return ["Nothing ran, and nothing was spent."]
    if nanos is None:
        return ["What it cost is unknown."]
    if is_known:
        bases = sorted({attempt.cost.basis.value for attempt in prediction.attempts if not is_free(attempt)})
        told = [f"It cost {format_dollars(nanos)} ({' and '.join(bases)})."]
    else:
        told = [f"It cost at least {format_dollars(nanos)}; what {_count(unknown, 'attempt')} cost is unknown."]
    wasted = sum(attempt.cost.nanos or 0 for attempt in prediction.attempts if attempt.number != prediction.winner)
    if wasted:
        told.append(f"{format_dollars(wasted)} of it went to attempts that did not serve.")
    return told


def _delivered(delivery: Delivery, now: datetime) -> str:
    host, tries = host_of(delivery.url) or "its receiver", _count(delivery.tries, "try", "tries")
    said = _quoted(delivery.last_error or (f"HTTP {delivery.last_status}" if delivery.last_status else "no answer"))
    match delivery.ended:
        case "delivered":
            return f"The webhook arrived at {host} after {tries}."
        case "gone":
            return f"{host} answered that it wants no webhook any more (410), after {tries}."
        case None if delivery.tries == 0:
            return f"The webhook to {host} has not been tried yet."
        case None:
            due = max(0.0, (delivery.due_at - now).total_seconds())
            return f"The webhook to {host} failed {tries}, last with: {said}; the next one is in {seconds_text(due)}."
        case ended:
            return f"The webhook to {host} was given up after {tries} ({ended}), last with: {said}."


# -- words ------------------------------------------------------------------------------------------------------------


def seconds_text(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`; what is negative counts as nothing."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds >= 0.095 or seconds == 0 else f"{seconds * 1000:.0f} ms"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7_200:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = whole // 60
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def time_text(at: datetime) -> str:
    """`12:03:10 UTC`."""
    return f"{at:%H:%M:%S} UTC"


def _since(begin: datetime | None, now: datetime) -> str:
    return seconds_text((now - begin).total_seconds()) if begin is not None else "a while"


def _quoted(text: str) -> str:
    """Somebody's words as a part of our sentence: on one line, cut, without their full stop."""
    return cut(" ".join(text.split()), _MOST_CHARACTERS).text.rstrip(" .")


def _count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    return f"{shown} and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else shown
