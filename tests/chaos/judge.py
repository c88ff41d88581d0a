"""
The verdict over one run: what callers saw, what receivers heard, what the store kept and what providers booked.

The providers' books are the judge of what was started and billed; nothing a gateway says of itself is believed alone.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.clock import hash_token
from gateway.contract.errors import OutcomeUnknown
from gateway.contract.prediction import Prediction
from tests.chaos.evidence import Kept
from tests.chaos.listener import Told

MOST_SHOWN = 5
# Faults of a submit after which nobody can know whether a job runs.
UNKNOWABLE = frozenset({"cut", "garbage", "truncate"})
IN_FLIGHT = timedelta(seconds=15)  # a submit takes no longer: the providers' `submit_seconds`
SLACK = timedelta(seconds=1)


@dataclass(frozen=True)
class Asked:
    """One prediction as its caller knows it."""

    number: int
    id: str  # empty: the caller never heard of a 201
    is_refused: bool = False  # all it heard was 503, and it did not send a key
    hook: str = ""  # the path of its webhook; empty: none
    shown: Mapping[str, Any] = field(default_factory=dict)  # its end, as the API showed it; empty: never asked


@dataclass
class Verdict:
    violations: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    figures: dict[str, float | str] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        return not any(self.violations.values())

    def break_(self, rule: str, what: str) -> None:
        self.violations[rule].append(what)

    def __str__(self) -> str:
        lines = [f"  {name:28} {value}" for name, value in self.figures.items()]
        for rule, cases in self.violations.items():
            if cases:
                more = f", and {len(cases) - MOST_SHOWN} more" if len(cases) > MOST_SHOWN else ""
                lines.append(f"  BROKEN {rule}: {len(cases)}")
                lines += [f"    {case}" for case in cases[:MOST_SHOWN]]
                lines += [f"    {more}"] if more else []
        lines.append("  verdict                      " + ("holds" if self.is_good else "DOES NOT HOLD"))
        return "\n".join(lines)


class Judge:
    """`kills`: when a process was ended (UTC), for what may be blamed on that. `books`: rows by provider."""

    def __init__(
        self,
        asked: Sequence[Asked],
        kept: Mapping[str, Kept],
        told: Mapping[str, Told],
        books: Mapping[str, Iterable[Mapping[str, Any]]],
        *,
        kills: Sequence[datetime] = (),
    ) -> None:
        self._asked = asked
        self._kept = kept
        self._told = told
        self._jobs = [dict(row) | {"provider": name} for name, rows in books.items() for row in rows]
        self._kills = kills
        self._attempts = {
            attempt.token_hash: (one, attempt) for one in kept.values() for attempt in one.prediction.attempts
        }
        self.verdict = Verdict()

    def judge(self) -> Verdict:
        figures = self.verdict.figures
        figures["accepted"] = sum(1 for one in self._asked if one.id)
        statuses = Counter(str(one.prediction.status) for one in self._kept.values())
        figures["ends"] = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
        figures["jobs started"] = len(self._jobs)
        self._lost()
        self._finality()
        self._events()
        self._deliveries()
        self._money(self._jobs_by_prediction())
        self._unheard()
        return self.verdict

    # -- I1, I2 ----------------------------------------------------------------------------------------------------

    def _lost(self) -> None:
        ids = [one.id for one in self._asked if one.id]
        for id in ids:
            kept = self._kept.get(id)
            if kept is None:
                self.verdict.break_("no accepted prediction is lost", f"{id} was accepted and is not in the store")
            elif not kept.prediction.is_terminal:
                self.verdict.break_("no accepted prediction is lost", f"{id} is {kept.prediction.status} for ever")
        for id, count in Counter(ids).items():
            if count > 1:
                self.verdict.break_("one key, one prediction", f"{count} callers were given {id}")
        self.verdict.figures["lost"] = len(self.verdict.violations.get("no accepted prediction is lost", ()))

    def _finality(self) -> None:
        """The end a webhook told, the end a caller read and the end that is kept are one."""
        rule = "an end is final"
        for one in self._asked:
            kept = self._kept.get(one.id)
            if kept is None:
                continue
            told = self._told.get(one.hook)
            for source, shown in (("read", one.shown), ("told", told.first if told is not None else {})):
                if shown and _end_of(shown) != _kept_end(kept.prediction):
                    said = f"was {source} as {_end_of(shown)} and is {_kept_end(kept.prediction)}"
                    self.verdict.break_(rule, f"{one.id} {said}")
        self.verdict.figures["terminal changes"] = len(self.verdict.violations.get(rule, ()))

    def _events(self) -> None:
        for id, kept in self._kept.items():
            numbers = [event.sequence for event in kept.events]
            names = [event.event for event in kept.events]
            if numbers != list(range(len(numbers))) and not kept.prediction.data_removed:
                self.verdict.break_("events have no gaps", f"{id}: {numbers}")
            if kept.prediction.is_terminal and (names.count("done") != 1 or names[-1] != "done"):
                self.verdict.break_("one end is announced once, last", f"{id}: {names}")

    # -- I3 --------------------------------------------------------------------------------------------------------

    def _deliveries(self) -> None:
        rule = "every end is delivered, under one id"
        repeated = most = 0
        for one in self._asked:
            kept = self._kept.get(one.id)
            if kept is None or not one.hook or not kept.prediction.is_terminal:
                continue
            told = self._told.get(one.hook)
            finals = [delivery for delivery in kept.deliveries if delivery.is_final]
            if len(finals) != 1:
                self.verdict.break_(rule, f"{one.id} has {len(finals)} deliveries of its end")
            elif told is None:
                if finals[0].ended != "exhausted":
                    self.verdict.break_(rule, f"{one.id}: nothing arrived, and it says {finals[0].ended}")
            elif len(told.ids) != 1 or len(told.digests) != 1:
                self.verdict.break_(rule, f"{one.id}: {len(told.ids)} ids, {len(told.digests)} bodies")
            elif told.ids != {finals[0].id}:
                self.verdict.break_(rule, f"{one.id}: {told.ids} arrived, {finals[0].id} is kept")
            else:
                most = max(most, len(told.ids))
                repeated += told.count - 1
        self.verdict.figures["ids per terminal event"] = most
        self.verdict.figures["deliveries made again"] = repeated

    # -- I4, I5, I6 ------------------------------------------------------------------------------------------------

    def _jobs_by_prediction(self) -> dict[str, list[tuple[Attempt, dict[str, Any]]]]:
        found: dict[str, list[tuple[Attempt, dict[str, Any]]]] = defaultdict(list)
        seen: Counter[str] = Counter()
        for job in self._jobs:
            token = hash_token(str(job["webhook"]).rpartition("/cb/")[2])
            known = self._attempts.get(token)
            if known is None:
                self.verdict.break_("an intent precedes every job", f"{job['provider']} ran {job['id']} for nobody")
                continue
            seen[token] += 1
            found[known[0].prediction.id].append((known[1], job))
        for token, count in seen.items():
            if count > 1:
                kept, attempt = self._attempts[token]
                where = f"{kept.prediction.id} attempt {attempt.number}"
                self.verdict.break_("nothing is started twice that need not be", f"{where} was submitted {count} times")
        self.verdict.figures["jobs without intent"] = len(
            self.verdict.violations.get("an intent precedes every job", ())
        )
        return found

    def _money(self, jobs: Mapping[str, Sequence[tuple[Attempt, dict[str, Any]]]]) -> None:
        doubles = {"fault": 0, "kill": 0, "silence": 0}
        orphans = maybes = 0
        for id, kept in self._kept.items():
            rows = {row.attempt: row for row in kept.ledger}
            maybes += any(row.state == "maybe" for row in kept.ledger)
            for row in kept.ledger:
                if row.state == "reserved" and kept.prediction.is_terminal:
                    self.verdict.break_("the ledger is what the books say", f"{id}: attempt {row.attempt} is reserved")
            ran = sorted(jobs.get(id, ()), key=lambda pair: (pair[0].number, pair[1]["created_at"]))
            numbers = {attempt.number for attempt, _ in ran}
            for row in kept.ledger:
                if row.state == "settled" and row.nanos and row.attempt not in numbers:
                    self.verdict.break_(
                        "the ledger is what the books say", f"{id}: {row.attempt} settled without a job"
                    )
            for attempt, job in ran:
                self._check_bill(id, job, rows.get(attempt.number))
                if job["status"] in ("starting", "processing") and kept.prediction.is_terminal:
                    orphans += 1
            for (earlier, job), (_, later) in itertools.pairwise(ran):
                cause = self._cause_of_double(earlier, job, later)
                if cause == "avoidable":
                    known = f"{earlier.status}, unknown since {earlier.unknown_at}"
                    where = f"{id} attempt {earlier.number} ({known}), made {job['created_at']}, was {job['status']}"
                    self.verdict.break_(
                        "nothing is started twice that need not be", f"{where} when another was started"
                    )
                elif cause is not None:
                    doubles[cause] += 1
                    row = rows.get(earlier.number)
                    is_settled = job["status"] in ("failed", "canceled")  # found, stopped, and not paid for after all
                    if row is None or not (row.state in ("maybe", "settled") or is_settled):
                        self.verdict.break_("what may be paid twice is listed", f"{id} attempt {earlier.number}: {row}")
        figures = self.verdict.figures
        figures["avoidable double starts"] = len(
            self.verdict.violations.get("nothing is started twice that need not be", ())
        )
        figures["unavoidable, by a fault"] = doubles["fault"]
        figures["unavoidable, by a kill"] = doubles["kill"]
        figures["unavoidable, by silence"] = doubles["silence"]
        figures["listed as maybe"] = maybes
        figures["jobs nobody stopped"] = orphans

    def _check_bill(self, id: str, job: Mapping[str, Any], row: Any) -> None:
        billed, where = job["billed_nanos"], f"{id}, {job['id']} at {job['provider']}"
        if row is None:
            self.verdict.break_("the ledger is what the books say", f"{where}: started, and in no row")
        elif job["status"] != "succeeded":
            return  # a price is for a result; that the simulator bills what broke off as well is its own affair
        elif billed and row.state not in ("settled", "maybe"):
            self.verdict.break_("the ledger is what the books say", f"{where}: billed {billed}, the row is {row.state}")
        elif row.state == "settled" and row.nanos is not None and row.nanos != billed:
            self.verdict.break_("the ledger is what the books say", f"{where}: billed {billed}, settled {row.nanos}")

    def _cause_of_double(self, attempt: Attempt, job: Mapping[str, Any], later: Mapping[str, Any]) -> str | None:
        """Why a second job was started while the first might be running; None: the first had ended badly by then."""
        over = job["completed_at"]
        if job["status"] in ("failed", "canceled") and over <= later["created_at"]:
            return None
        is_unknown = attempt.unknown_at is not None or (
            attempt.failure is not None and attempt.failure.code == OutcomeUnknown.code
        )
        if not is_unknown:
            # A job that has ended badly by the books may be told to have lost its result: known, and paid.
            is_known = attempt.status in (AttemptStatus.FAILED, AttemptStatus.CANCELED)
            return None if is_known and job["status"] != "processing" else "avoidable"
        if job["submit"] in UNKNOWABLE:
            return "fault"
        # Begun before the kill, and its answer never read; how late the provider took it up is its own affair.
        until = attempt.unknown_at or attempt.begun_at + IN_FLIGHT
        if any(attempt.begun_at - SLACK <= kill <= until for kill in self._kills):
            return "kill"
        # The provider took it up when nobody listened any more, or so late that the submit's time was over.
        is_late = datetime.fromisoformat(job["created_at"]) >= until or until - attempt.begun_at >= IN_FLIGHT - SLACK
        return "silence" if is_late else "avoidable"

    # -- a false 201, a false 503 ------------------------------------------------------------------------------------

    def _unheard(self) -> None:
        heard = {one.id for one in self._asked if one.id}
        refused = {one.number for one in self._asked if one.is_refused}
        ran = {self._attempts[token][0].prediction.id for token in self._tokens() if token in self._attempts}
        unheard = 0
        for id, kept in self._kept.items():
            if id in heard:
                continue
            unheard += 1
            if kept.prediction.request.input.get("n") in refused and id in ran:
                self.verdict.break_("what was refused does not run", f"{id} was answered 503 and ran")
        self.verdict.figures["creates refused for good"] = len(refused)
        self.verdict.figures["made, and nobody heard"] = unheard

    def _tokens(self) -> Iterable[str]:
        return (hash_token(str(job["webhook"]).rpartition("/cb/")[2]) for job in self._jobs)


def _end_of(shown: Mapping[str, Any]) -> tuple[str, str, str | None]:
    return str(shown["status"]), _flat(shown["output"]), shown["error"]


def _kept_end(prediction: Prediction) -> tuple[str, str, str | None]:
    return str(prediction.status), _flat(prediction.output), prediction.error


def _flat(output: Any) -> str:
    # A link is signed anew each time it is shown: what it leads to is its path.
    return str(output).partition("?")[0]
