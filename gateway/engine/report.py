"""What providers tell of an attempt, reduced: how it goes on, and how it ends. Pure; not what the engine decides."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import Failure, JobCanceled, JobTimedOut, ModelFailed
from gateway.contract.fact import Effect, Fact, Learned, Phase, Source, SubmitFailed
from gateway.contract.money import NOTHING_SPENT, UNKNOWN_COST
from gateway.contract.prediction import Prediction
from gateway.engine.end import Change, attempt_of, finish, must_collect, show, show_logs, with_attempt
from gateway.engine.event import is_longer
from gateway.engine.orphan import found, is_wanted, revived
from gateway.engine.removal import bare
from gateway.engine.settlement import entry_of, is_released, settlement
from gateway.engine.supplement import supplement

_PHASE_STATUS = {
    Phase.QUEUED: AttemptStatus.ACCEPTED,
    Phase.RUNNING: AttemptStatus.RUNNING,
    Phase.SUCCEEDED: AttemptStatus.SUCCEEDED,
    Phase.FAILED: AttemptStatus.FAILED,
    Phase.CANCELED: AttemptStatus.CANCELED,
}
_OUR_REQUEST = (Source.SUBMIT, Source.STREAM)


def submit_failed(prediction: Prediction, happening: SubmitFailed, now: datetime) -> Change:
    attempt = attempt_of(prediction, happening.attempt)
    # A callback that came before the submit's answer has told more than this failure can.
    if attempt is None or attempt.status is not AttemptStatus.INTENT:
        return prediction, ()
    if happening.failure.maybe_running:
        unknown = replace(attempt, status=AttemptStatus.UNKNOWN, unknown_at=now, failure=happening.failure)
        return with_attempt(prediction, unknown), (entry_of(unknown, "maybe", unknown.expected_nanos, "expected"),)
    rejected = replace(
        attempt, status=AttemptStatus.REJECTED, failure=happening.failure, ended_at=now, cost=NOTHING_SPENT
    )
    return with_attempt(prediction, rejected), (entry_of(rejected, "released", 0, "refused"),)


def learned(prediction: Prediction, happening: Learned, now: datetime) -> Change:
    attempt = attempt_of(prediction, happening.attempt)
    if attempt is None:
        return prediction, ()
    if prediction.data_removed:
        happening = replace(happening, fact=bare(happening.fact))
    fact = happening.fact
    if attempt.status is AttemptStatus.ABANDONED:
        # We gave it up without knowing its end; the provider may still tell it, once.
        if fact.phase.is_end:
            return _ended_by_provider(prediction, attempt, happening, now)
        if not is_wanted(prediction, attempt, now):
            return found(prediction, attempt, happening, now)
        attempt = revived(attempt)
    if attempt.status.is_closed or attempt.status is AttemptStatus.COLLECTING:
        if _corrects_name(attempt, happening) and not fact.phase.is_end:
            # Its end was said of somebody else's job, and is final. Ours may be running, and is to be stopped.
            return with_attempt(prediction, replace(attempt, handle=fact.handle, look_at=now, looks=0)), ()
        if attempt.look_at is not None and fact.phase.is_end:
            return with_attempt(prediction, replace(attempt, look_at=None)), ()  # ours has ended as well
        return supplement(prediction, attempt, happening)
    if fact.phase.is_end:
        return _ended_by_provider(prediction, attempt, happening, now)
    return _progressed(prediction, attempt, happening, now)


def names_another_job(attempt: Attempt, handle: dict[str, str] | None) -> bool:
    """It is told of by a name that is not the one we know it by."""
    known = attempt.handle
    if known is None or handle is None or "id" not in known or "id" not in handle:
        return False
    return known["id"] != handle["id"]


def _corrects_name(attempt: Attempt, happening: Learned) -> bool:
    """What our own request is answered goes before a callback's word, which may have been somebody else's."""
    return happening.source in _OUR_REQUEST and names_another_job(attempt, happening.fact.handle)


def _handle(attempt: Attempt, happening: Learned) -> dict[str, str] | None:
    told = happening.fact.handle
    return told if _corrects_name(attempt, happening) else attempt.handle or told


def _progressed(prediction: Prediction, attempt: Attempt, happening: Learned, now: datetime) -> Change:
    fact = happening.fact
    status = max(_PHASE_STATUS[fact.phase], attempt.status, key=lambda status: status.rank)
    running_at = attempt.running_at or (now if status is AttemptStatus.RUNNING else None)
    moved = replace(
        attempt,
        status=status,
        handle=_handle(attempt, happening),
        accepted_at=attempt.accepted_at or now,
        running_at=running_at,
        run_deadline_at=attempt.run_deadline_at or _run_deadline(attempt, running_at),
        output=fact.output if is_longer(fact.output, attempt.output) else attempt.output,
        logs=fact.logs if fact.logs is not None and len(fact.logs) > len(attempt.logs) else attempt.logs,
        metrics=attempt.metrics | fact.metrics if fact.metrics else attempt.metrics,
        failure=None if attempt.status is AttemptStatus.UNKNOWN else attempt.failure,
        resolved_by=_resolved_by(attempt, happening),
    )
    if moved == attempt:
        return prediction, ()
    changed = with_attempt(prediction, moved)
    effects: tuple[Effect, ...] = ()
    if attempt.status in (AttemptStatus.INTENT, AttemptStatus.UNKNOWN):
        effects += (entry_of(moved, "reserved", moved.expected_nanos, "expected"),)
    if prediction.is_terminal:
        return changed, effects
    changed, shown = show(changed, moved, now)
    return changed, effects + shown


def _resolved_by(attempt: Attempt, happening: Learned) -> str | None:
    """Who spoke first of a job nobody had known anything of."""
    is_doubtful = attempt.unknown_at is not None and attempt.accepted_at is None
    return happening.source if is_doubtful and attempt.resolved_by is None else attempt.resolved_by


def _run_deadline(attempt: Attempt, running_at: datetime | None) -> datetime | None:
    if running_at is None or attempt.run_seconds is None:
        return None
    return running_at + timedelta(seconds=attempt.run_seconds)


def _ended_by_provider(prediction: Prediction, attempt: Attempt, happening: Learned, now: datetime) -> Change:
    fact = happening.fact
    ended = replace(
        attempt,
        status=_end_status(attempt, fact),
        handle=_handle(attempt, happening),
        accepted_at=attempt.accepted_at or now,
        running_at=attempt.running_at or fact.started_at,
        ended_at=now,
        output=None if fact.phase is not Phase.SUCCEEDED else fact.output,
        logs=fact.logs if fact.logs is not None and len(fact.logs) >= len(attempt.logs) else attempt.logs,
        metrics=attempt.metrics | fact.metrics,
        failure=_end_failure(attempt, fact),
        resolved_by=_resolved_by(attempt, happening),
        look_at=None,
        cost=happening.cost or fact.cost or UNKNOWN_COST,
    )
    if is_released(ended):
        ended = replace(ended, cost=NOTHING_SPENT)  # of a price nobody knows, too
    given_up_at = attempt.ended_at if attempt.status is AttemptStatus.ABANDONED else None
    effects: tuple[Effect, ...] = (replace(settlement(ended), given_up_at=given_up_at),)
    wins = ended.status is AttemptStatus.SUCCEEDED and not prediction.is_terminal and prediction.winner is None
    if not wins:
        kept = replace(ended, output=None)  # a loser's output is nobody's
        changed = with_attempt(prediction, kept)
        if not prediction.is_terminal:
            changed, logs = show_logs(changed)
            effects += logs
        return changed, effects
    if must_collect(prediction, ended.output):
        collecting = replace(ended, status=AttemptStatus.COLLECTING)
        return replace(with_attempt(prediction, collecting), winner=attempt.number), effects
    changed, finished = finish(prediction, ended, ended.output, now)
    return changed, effects + finished


def _end_status(attempt: Attempt, fact: Fact) -> AttemptStatus:
    if fact.phase is Phase.CANCELED and attempt.cancel_requested_at is None:
        return AttemptStatus.FAILED  # canceled by somebody else's hand: for us it failed
    return _PHASE_STATUS[fact.phase]


def _end_failure(attempt: Attempt, fact: Fact) -> Failure | None:
    if fact.phase is Phase.SUCCEEDED:
        return None
    if fact.failure is not None:
        return fact.failure
    if fact.phase is Phase.CANCELED:
        if attempt.cancel_requested_at is None:
            return JobCanceled().failure
        # We had it stopped: because its time was over, or because nobody wanted it any more.
        timed_out = attempt.failure is not None and attempt.failure.code == JobTimedOut.code
        return attempt.failure if timed_out else None
    return ModelFailed().failure
