"""What must hold in the end, once the faults have stopped and time has passed. Reads the store and the books."""

from __future__ import annotations

import math
from collections import Counter
from datetime import timedelta
from typing import Any

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import ResultLost
from gateway.contract.fact import Phase
from gateway.contract.prediction import Prediction
from gateway.contract.provider import Cancel
from gateway.engine.lifecycle import is_open
from gateway.store.protocol import LedgerRow
from gateway.testing import START
from tests.chaos.universe.caller import Callers
from tests.chaos.universe.judge import Judge, Told
from tests.chaos.universe.provider import House, Job
from tests.chaos.universe.receiver import Receivers
from tests.chaos.universe.replica import SCHEDULE_SECONDS, Replica

LATE_SECONDS = 60.0
ORPHAN_SECONDS = 120.0
# What lives in a gateway with nothing to do: its loops. Anything that grows with what it has done is a leak.
MOST_TASKS_AT_REST = 30


class Verdict:
    """`peace_at`: when the faults stopped; before that a deadline may pass with nobody there to see it."""

    def __init__(
        self, judge: Judge, store: Any, houses: list[House], receivers: Receivers, callers: Callers, *, peace_at: float
    ) -> None:
        self._judge = judge
        self._store = store
        self._receivers = receivers
        self._callers = callers
        self._peace_at = peace_at
        self._loop = receivers.loop
        self._jobs: dict[str, list[Job]] = {}
        self._houses = {house.name: house for house in houses}
        for house in houses:
            for job in house.jobs.values():
                self._jobs.setdefault(job.prediction, []).append(job)

    async def look(self) -> None:
        for id in self._callers.accepted:
            if await self._store.get(id) is None:
                self._judge.breach("I1", id, "it was accepted, and the store has none")
        for id, row in self._judge.rows.items():
            kept = await self._store.get(id)
            if kept != row:
                self._judge.breach(
                    "I1", id, f"the store has revision {kept and kept.revision}, {row.revision} was committed"
                )
            self._ended(row)
            self._started(row)
            await self._ledger(row)
            await self._delivered(row)
        for reading in self._callers.readings:
            row = self._judge.rows[reading.prediction]
            if not reading.is_over or len(reading.seen) != row.events:
                self._judge.breach("I13", row.id, f"a reader has seen {reading.seen} of {row.events} events")

    def rest(self, replicas: list[Replica]) -> None:
        """I12: nothing is left in anybody's hands."""
        for replica in replicas:
            left = in_hand(replica)
            if left:
                assert replica.process is not None
                names = Counter(task.get_coro().__qualname__ for task in replica.process.tasks())
                self._judge.breach("I12", "", f"{replica.process.name} is at rest and has {left}: {dict(names)}")

    # -- I1 ----------------------------------------------------------------------------------------------------------

    def _ended(self, row: Prediction) -> None:
        if not row.is_terminal or is_open(row):
            self._judge.breach("I1", row.id, f"in the end it is {row.status}: {[a.status for a in row.attempts]}")
            return
        ended = self._judge.ended_at[row.id]
        due = max((row.deadline_at - START) / timedelta(seconds=1), self._peace_at) + LATE_SECONDS
        if ended > due:
            self._judge.breach("I1", row.id, f"it ended at {ended:.1f}, and was due at {due:.1f}")

    # -- I4, I9 ------------------------------------------------------------------------------------------------------

    def _started(self, row: Prediction) -> None:
        seen: dict[int, Job] = {}
        for job in self._jobs.get(row.id, ()):
            first = seen.setdefault(job.attempt, job)
            if first is not job:
                self._judge.breach("I4", row.id, f"attempt {job.attempt} started both {first.id} and {job.id}")
            attempt = row.attempts[job.attempt - 1]
            known = self._judge.learned_at.get((row.id, job.attempt, job.id))
            if known is None or attempt.status is AttemptStatus.SUCCEEDED:
                continue
            house = self._houses[job.house]
            if house.capabilities.cancel is Cancel.NONE:
                continue
            unneeded = min(self._judge.ended_at[row.id], self._judge.closed_at.get((row.id, job.attempt), math.inf))
            by = max(known, unneeded, self._peace_at) + ORPHAN_SECONDS
            over = job.canceled_at if job.canceled_at is not None else job.ends_at
            if over > by and not any(at <= by for at in job.cancels):
                self._judge.breach(
                    "I9", row.id, f"{job.id} is an orphan: {attempt.status}, nobody stopped it by {by:.1f}"
                )

    # -- I5 ----------------------------------------------------------------------------------------------------------

    async def _ledger(self, row: Prediction) -> None:
        rows = {entry.attempt: entry for entry in await self._store.ledger(row.id)}
        if rows.keys() != {attempt.number for attempt in row.attempts}:
            self._judge.breach("I5", row.id, f"{len(row.attempts)} attempts, and in the ledger {sorted(rows)}")
        now = self._loop.time()
        jobs = {job.attempt: job for job in self._jobs.get(row.id, ())}
        for number, entry in rows.items():
            job = jobs.get(number)
            if entry.state == "reserved":
                self._judge.breach("I5", row.id, f"money is still reserved for attempt {number}")
            told = self._judge.ends_told.get((row.id, number), [])
            if any(one.job not in (None, job.id if job is not None else None) for one in told):
                continue  # a callback for another attempt came before we knew which job is ours: it may show either's
            if job is not None and job.is_billed(now) and entry.state == "released":
                self._judge.breach("I5", row.id, f"{job.id} was billed, and the ledger says {entry.state}")
            if job is None and entry.state == "settled" and entry.nanos:
                self._judge.breach("I5", row.id, f"attempt {number} was settled, and no job was started")
            self._amount(row.attempts[number - 1], entry, told)

    def _amount(self, attempt: Attempt, entry: LedgerRow, told: list[Told]) -> None:
        """What the row shows: of an end that was told, the house's own figure; of a doubt, what was expected."""
        house = self._houses[attempt.provider]
        due: int | None = 0
        if entry.state == "maybe":
            due = house.price_nanos
        elif entry.state == "settled":
            due = _cost_nanos(house, attempt, told)
        if entry.nanos != due:
            what = f"attempt {attempt.number}, {attempt.status}, is {entry.state} at {entry.nanos}, and {house.name}"
            self._judge.breach("I5", entry.prediction, f"{what} takes {due} for it, by {told}")

    # -- I3 ----------------------------------------------------------------------------------------------------------

    async def _delivered(self, row: Prediction) -> None:
        if row.request.webhook is None:
            return
        deliveries = await self._store.deliveries(row.id)
        finals = [delivery for delivery in deliveries if delivery.is_final]
        if len(finals) != 1:
            self._judge.breach("I3", row.id, f"its end has {len(finals)} deliveries")
            return
        for delivery in deliveries:
            answers = self._receivers.answered.get(delivery.id, [])
            if delivery.ended is None:
                self._judge.breach("I3", row.id, f"{delivery.event} {delivery.id} is still on its way")
            elif delivery.ended == "delivered" and not any(200 <= status < 300 for status in answers):
                self._judge.breach("I3", row.id, f"{delivery.id} is said to be delivered, answered were {answers}")
            elif delivery.ended == "gone" and 410 not in answers:
                self._judge.breach("I3", row.id, f"{delivery.id} is said to be gone, answered were {answers}")
        final = finals[0]
        if final.ended == "exhausted" and final.tries < len(SCHEDULE_SECONDS):
            self._judge.breach("I3", row.id, f"{final.id} was given up after {final.tries} tries")
        if final.ended not in ("delivered", "gone", "exhausted", None):
            self._judge.breach("I3", row.id, f"the end's delivery is {final.ended}")


_END = {
    Phase.SUCCEEDED: AttemptStatus.SUCCEEDED,
    Phase.FAILED: AttemptStatus.FAILED,
    Phase.CANCELED: AttemptStatus.CANCELED,
}


def _cost_nanos(house: House, attempt: Attempt, told: list[Told]) -> int | None:
    """
    What a settled attempt costs, by the first word of its end; None: nobody told what it did.

    That word may have come after we had found an end by ourselves (the job or its result was lost), and counts if it
    tells of the same. Of a job that was first said to be canceled, and then to have failed, the second word is better.
    """
    is_lost = attempt.failure is not None and attempt.failure.code == ResultLost.code
    ends = [
        one.end
        for one in told
        if one.ends_it or _END[one.end] is attempt.status or (is_lost and one.end is Phase.SUCCEEDED)
    ]
    first = min(ends, key=lambda end: end is Phase.CANCELED, default=None)
    return None if first is None else house.cost_nanos(first)


def in_hand(replica: Replica) -> dict[str, int]:
    """What a replica that serves has not let go of: empty if it is at rest."""
    engine, outbox, process = replica.engine, replica.outbox, replica.process
    assert engine is not None
    assert outbox is not None
    assert process is not None
    held = {
        "predictions": engine.open_count,
        "deliveries": outbox.in_hand()[0],
        "watchers": len(engine._watchers.ids()),
        "tasks": max(0, len(process.tasks()) - MOST_TASKS_AT_REST),
    }
    return {name: count for name, count in held.items() if count}
