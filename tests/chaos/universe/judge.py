"""
What must hold at every moment, looked at as each commit and each send happens. What must hold in the end: `verdict`.

The judge sees commits in the order in which the store made them, whoever hears of them, and keeps its own rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import OutcomeUnknown
from gateway.contract.fact import Begun, CancelRequested, DataRemoved, Learned, Phase, Source
from gateway.contract.prediction import Prediction
from gateway.contract.provider import Call
from gateway.store.protocol import Applied, Created, CreateResult, Delivery, Held
from tests.chaos.universe.edge import ATTEMPT_EDGES, STATUS_EDGES
from tests.chaos.universe.note import Note

INVARIANTS = {
    "I1": "no accepted prediction is lost: each is readable, and terminal by its deadline + 60 s",
    "I2": "terminal is final, and transitions only go forward",
    "I3": "each end is delivered or visibly given up; one id and one body for each event, for ever",
    "I4": "nothing is started beside what may be running, but by policy; one attempt starts one job",
    "I5": "the ledger equals the providers' books",
    "I6": "the intent precedes the bytes",
    "I7": "one fact has one effect",
    "I8": "who does not hold a prediction writes nothing but facts",
    "I9": "a job nobody needs is stopped within 120 s of our learning of it",
    "I12": "queues, tasks and attempts are bounded, and return to nothing",
    "I13": "a reader who comes back sees each stored event once, in order, `done` last",
    "201": "a key stands for one prediction; what a caller was refused is not begun",
}


FREE = (Learned, CancelRequested, DataRemoved)  # what anybody may write; all else is a step of the holder's
LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Violation(msgspec.Struct, kw_only=True, frozen=True):
    invariant: str
    prediction: str
    what: str
    at: float


class Line(msgspec.Struct, frozen=True):
    """Something that happened. `what` is turned into words only if somebody reads it."""

    at: float
    who: str
    prediction: str
    what: Any


class Told(NamedTuple):
    """That an attempt's job has ended, as we were told; of which job. `ends_it`: we knew of no end before."""

    end: Phase
    job: str | None
    ends_it: bool


class Judge:
    """`seconds` is the universe's time, `store_now` the store's; up to `limit_nanos` it may be paid twice."""

    def __init__(
        self,
        counts: Counter[str],
        *,
        seconds: Callable[[], float],
        limit_nanos: int,
        most_attempts: int,
    ) -> None:
        self.rows: dict[str, Prediction] = {}
        self.keys: dict[str, str] = {}  # idempotency key to prediction
        self.violations: list[Violation] = []
        self.chronicle: list[Line] = []
        self.store_now: Callable[[], datetime]
        self.learned_at: dict[tuple[str, int, str], float] = {}  # when this job was known as an attempt's
        self.closed_at: dict[tuple[str, int], float] = {}
        self.ended_at: dict[str, float] = {}
        self.ends_told: dict[tuple[str, int], list[Told]] = {}  # by attempt, in the order of the commits
        self.bodies: dict[str, tuple[str, int, str, bytes]] = {}
        self.claims: dict[str, int] = {}
        self._counts = counts
        self._seconds = seconds
        self._limit_nanos = limit_nanos
        self._most_attempts = most_attempts
        self._ends: dict[str, tuple[Any, ...]] = {}
        self._fences: dict[str, int] = {}
        self._holders: dict[str, str | None] = {}
        self._alive_until: dict[str, datetime] = {}
        self._told: dict[str, Callable[[Note, Any], None]] = {
            "create": self._created,
            "apply": self._applied,
            "beat": self._beat,
            "claim_due": self._claimed,
            "release": self._released,
            "claim_deliveries": self._deliveries_claimed,
        }

    # -- what is told ------------------------------------------------------------------------------------------------

    def note(self, prediction: str, who: str, what: Any) -> None:
        self.chronicle.append(Line(self._seconds(), who, prediction, what))

    def breach(self, invariant: str, prediction: str, what: str) -> None:
        self.violations.append(
            Violation(invariant=invariant, prediction=prediction, what=what, at=round(self._seconds(), 3))
        )
        self.note(prediction, "judge", f"{invariant} is broken: {what}")

    def committed(self, note: Note, result: Any) -> None:
        told = self._told.get(note.verb)
        if told is not None:
            told(note, result)

    def voided(self) -> None:
        """The only process that could have the store open is dead, and so is whoever held anything."""
        self._holders = dict.fromkeys(self._holders)
        self._alive_until.clear()

    def arrived(self, house: str, call: Call) -> None:
        """I6: a submit's first byte is there."""
        known = self.rows.get(call.prediction)
        if known is None or len(known.attempts) < call.attempt or known.attempts[call.attempt - 1].provider != house:
            self.breach("I6", call.prediction, f"attempt {call.attempt} arrived at {house} before its intent")

    def came(self, delivery: Delivery, who: str) -> None:
        """I3: a webhook's bytes are there."""
        said = (delivery.prediction, delivery.sequence, delivery.event, delivery.body)
        first = self.bodies.setdefault(delivery.id, said)
        self.note(delivery.prediction, who, ("delivers", delivery.event, delivery.id))
        if first != said:
            self.breach("I3", delivery.prediction, f"delivery {delivery.id} came with other bytes than before")
        row = self.rows.get(delivery.prediction)
        if row is None or row.deliveries <= delivery.sequence or (delivery.is_final and not row.is_terminal):
            self.breach("I3", delivery.prediction, f"{delivery.event} was delivered before it was committed")

    def holder(self, id: str) -> str | None:
        return self._holders.get(id)

    def is_held(self, held: Held) -> bool:
        id, lease = held.prediction.id, held.lease
        return (self._holders.get(id), self._fences.get(id)) == (lease.worker, lease.fence)

    def seen(self, prediction: Prediction, who: str) -> None:
        """I2 and I1 as a caller sees them: what was read."""
        end = self._ends.get(prediction.id)
        if prediction.is_terminal and end != _end(prediction):
            self.breach("I2", prediction.id, f"{who} read {_end(prediction)}, the end was {end}")

    # -- commits -----------------------------------------------------------------------------------------------------

    def _created(self, note: Note, result: CreateResult) -> None:
        prediction, key = result.prediction, note.named.get("idempotency_key")
        if key is not None and result.outcome is not Created.CONFLICT:
            first = self.keys.setdefault(key, prediction.id)
            if first != prediction.id:
                self.breach("201", prediction.id, f"key {key} stood for {first} before")
        if result.outcome is Created.CREATED:
            if prediction.id in self.rows:
                self.breach("I2", prediction.id, "it was created twice")
            self.rows[prediction.id] = prediction
            if result.lease is not None:
                self._holders[prediction.id] = result.lease.worker
                self._fences[prediction.id] = result.lease.fence
            self.note(prediction.id, note.process, ("creates", key))
        elif prediction.id not in self.rows:
            self.breach("I1", prediction.id, "it was created before, and nobody committed it")

    def _applied(self, note: Note, applied: Applied) -> None:
        id, happening = note.args
        lease = note.named.get("lease")
        prediction, before = applied.prediction, self.rows.get(id)
        if before is not None and isinstance(happening, Learned) and happening.fact.phase.is_end:
            self._note_end(before.attempts[happening.attempt - 1], happening, id)
        if not applied.changed:
            return
        self.note(id, note.process, happening)
        if before is None:
            self.breach("I1", id, "it was changed, and nobody created it")
            return
        if lease is not None and (lease.worker, lease.fence) != (self._holders.get(id), self._fences.get(id)):
            held = f"{self._holders.get(id)} under {self._fences.get(id)}"
            self.breach("I8", id, f"{lease} wrote {type(happening).__name__}, and it is held by {held}")
        if lease is None and not isinstance(happening, FREE):
            self.breach("I8", id, f"{type(happening).__name__} was written by nobody who holds it")
        if prediction.revision != before.revision + 1:
            self.breach("I2", id, f"revision {before.revision} became {prediction.revision}")
        self.rows[id] = prediction
        self._watch_status(before, prediction, happening)
        for number, attempt in enumerate(prediction.attempts):
            earlier = before.attempts[number] if number < len(before.attempts) else None
            if attempt is not earlier and attempt != earlier:
                self._watch_attempt(prediction, earlier, attempt, happening)
        if isinstance(happening, Begun) and len(prediction.attempts) > len(before.attempts):
            self._watch_start(before, prediction.attempts[-1])

    def _watch_status(self, before: Prediction, after: Prediction, happening: Any) -> None:
        if before.status is not after.status:
            if (before.status, after.status) in STATUS_EDGES:
                self._counts[f"prediction {before.status} -> {after.status}"] += 1
            else:
                self.breach("I2", after.id, f"its status went from {before.status} to {after.status}")
        end = self._ends.get(after.id)
        if after.is_terminal and end is None:
            self._ends[after.id] = _end(after)
            self.ended_at[after.id] = self._seconds()
        elif end is not None and end != _end(after) and not after.data_removed:
            self.breach("I2", after.id, f"its end was {end}, and is {_end(after)} after {happening}")

    def _watch_attempt(self, prediction: Prediction, before: Attempt | None, after: Attempt, happening: Any) -> None:
        place = (prediction.id, after.number)
        if after.handle is not None:
            self.learned_at.setdefault((*place, after.handle["id"]), self._seconds())
        if after.status.is_closed:
            self.closed_at.setdefault(place, self._seconds())
        else:
            self.closed_at.pop(place, None)  # given up, and taken up again
        if before is None:
            return
        if before.handle not in (None, after.handle) and not _is_our_answer(happening):
            self.breach("I2", prediction.id, f"attempt {after.number} was {before.handle}, and is {after.handle}")
        if before.status is after.status:
            return
        if (before.status, after.status) in ATTEMPT_EDGES:
            self._counts[f"attempt {before.status} -> {after.status}"] += 1
        else:
            self.breach("I2", prediction.id, f"attempt {after.number} went from {before.status} to {after.status}")

    def _note_end(self, attempt: Attempt, happening: Learned, id: str) -> None:
        fact, status = happening.fact, attempt.status
        is_open = not status.is_closed and status is not AttemptStatus.COLLECTING
        told = Told(fact.phase, (fact.handle or {}).get("id"), is_open or status is AttemptStatus.ABANDONED)
        self.ends_told.setdefault((id, attempt.number), []).append(told)

    def _watch_start(self, before: Prediction, begun: Attempt) -> None:
        """I4, I12: another attempt is begun."""
        if begun.number > self._most_attempts:
            self.breach("I12", before.id, f"attempt {begun.number} of {self._most_attempts} was begun")
        if before.is_terminal:
            self.breach("I4", before.id, f"attempt {begun.number} was begun after its end")
        if begun.expected_nanos is not None and begun.expected_nanos <= self._limit_nanos:
            return
        for earlier in before.attempts:
            if may_be_running(earlier):
                self.breach("I4", before.id, f"attempt {begun.number} was begun while {earlier.number} may be running")

    # -- leases ------------------------------------------------------------------------------------------------------

    def _beat(self, note: Note, asked_at: datetime | None) -> None:
        """`asked_at`, if that is what the store counts from; None: it counts from now."""
        begun_at = self.store_now() if asked_at is None else asked_at
        self._alive_until[note.args[0]] = begun_at + timedelta(seconds=note.named["lease_seconds"])

    def _claimed(self, note: Note, claimed: list[Held]) -> None:
        for held in claimed:
            id, lease = held.prediction.id, held.lease
            holder = self._holders.get(id)
            self.note(id, note.process, ("claims", lease.fence))
            if holder is not None and self._alive_until.get(holder, LONG_AGO) > self.store_now():
                self.breach("I8", id, f"{lease.worker} claimed it from {holder}, who is alive")
            if lease.fence <= self._fences.get(id, 0):
                self.breach("I8", id, f"fence {lease.fence} is not above {self._fences.get(id)}")
            self._holders[id], self._fences[id] = lease.worker, lease.fence

    def _released(self, note: Note, result: object) -> None:
        worker = note.args[0]
        ids = note.args[1] if len(note.args) > 1 else note.named.get("ids")
        for id in list(self._holders) if ids is None else ids:
            if self._holders.get(id) == worker:
                self._holders[id] = None

    def _deliveries_claimed(self, note: Note, claimed: list[Delivery]) -> None:
        for delivery in claimed:
            if delivery.fence <= self.claims.get(delivery.id, 0):
                self.breach("I8", delivery.prediction, f"delivery {delivery.id} was claimed twice by one fence")
            self.claims[delivery.id] = delivery.fence


def may_be_running(attempt: Attempt) -> bool:
    """As far as we were told when this was committed."""
    if attempt.status is AttemptStatus.ABANDONED:
        return attempt.failure is not None and attempt.failure.code == OutcomeUnknown.code
    return not attempt.status.is_closed


def _end(prediction: Prediction) -> tuple[Any, ...]:
    return (prediction.status, prediction.output, prediction.error, prediction.completed_at)


def _is_our_answer(happening: Any) -> bool:
    """What our own request is answered may name the job anew: a callback before it may have been another's."""
    return isinstance(happening, Learned) and happening.source in (Source.SUBMIT, Source.STREAM)
