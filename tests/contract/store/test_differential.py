"""
Equal steps on SQLite and on Redis, where two processes take turns: equal answers, and at the end equal rows. In every
third run answers of Redis get lost, and whoever hears none asks once more: the rows are equal all the same.

TURNOUT_EXAMPLES says how many runs of fifty steps there are.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from gateway.contract.budget import Hold, Reservation, counter_of, window_of
from gateway.contract.clock import SeededIds
from gateway.contract.errors import ModelFailed, OutcomeUnknown, StoreUnavailable, TurnoutError
from gateway.contract.fact import (
    AttemptEnded,
    CancelRequested,
    CancelSent,
    Collected,
    DataRemoved,
    DeadlinePassed,
    Fact,
    Happening,
    Learned,
    Notify,
    Phase,
    Source,
    StreamEvent,
    SubmitFailed,
)
from gateway.engine import lifecycle
from gateway.store.protocol import AuditRow, Delivery, FileRow, Lease, Record, Search, Store, Whole
from gateway.store.redis import RedisStore
from gateway.store.sqlite import SqliteStore
from gateway.testing import ManualClock
from tests.contract.store import toy
from tests.contract.store.lines import WilfulLine
from tests.redis.cluster import RedisCluster
from tests.redis.line import line_to
from tests.redis.server import RedisServer

EXAMPLES = int(os.environ.get("TURNOUT_EXAMPLES", "40"))
STEPS = 50
LOSS = 0.15
NOT_LOST = frozenset({"put_audit"})  # a row of the trail that is put twice is two rows
WORKERS = ("w1", "w2", "w3")
HOOKS = (None, "https://one.example/x", "https://two.example:8443/y")
LANES = [(owner, host) for owner in ("alice", "bob") for host in ("one.example", "two.example")]
_numbers = itertools.count()

_some = st.integers(0, 2**16)
_outputs = st.sampled_from([None, "a", "ab", ["a ", "b"], ["a ", "b", "c"], {"n": 10**30}])
_kinds = st.sampled_from(
    ["begun", "begun", "cancel", "sent", "ended", "failed", "collected", "deadline", "given_up", "removed", "nothing"]
    + [phase.value for phase in Phase]
)
_leases = st.sampled_from([None, None, "newest", "oldest"])
_budgets = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["hour", "day"]), st.booleans()), max_size=3)


class Stores(RuleBasedStateMachine):
    """Numbers that are drawn pick one of what there is, so that a step means something whatever came before it."""

    url = ""
    shards: int | None = None
    steps = 0
    losses = 0

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="turnout-differential-"))
        self.clock = ManualClock(toy.START)
        self.ids = SeededIds(7)
        self.predictions: list[Any] = []
        self.leases: list[tuple[str, Lease]] = []
        self.claimed: list[Delivery] = []
        self.files: list[FileRow] = []
        self.prefix = f"differential{next(_numbers)}"
        self.redis: list[RedisStore] = []

    @initialize(is_real=st.booleans(), seed=st.none() | st.none() | _some)
    def open(self, is_real: bool, seed: int | None) -> None:
        self.chance = None if seed is None else random.Random(seed)
        is_real = is_real or seed is not None  # the toy's happenings are not all the same when they happen twice
        options = {
            "reduce": lifecycle.reduce if is_real else toy.reduce,
            "snapshot": toy.snapshot,
            "clock": self.clock,
            "max_queue": 1_000,
        }
        self.options: dict[str, Any] = options
        self.sqlite = self.runner.run(SqliteStore.open(self.folder / "store.db", **options))
        self.redis = [self.runner.run(self._open_redis()) for _ in range(2)]

    async def _open_redis(self) -> RedisStore:
        line = line_to(self.url, timeout_seconds=10.0)
        await line.open()
        wilful = WilfulLine(line)
        store = await RedisStore.open(wilful, prefix=self.prefix, shards=self.shards, **self.options)
        wilful.whim = self._whim
        return store

    def _whim(self, script: str) -> str:
        if self.chance is None or script in NOT_LOST or self.chance.random() > LOSS:
            return ""
        Stores.losses += 1
        return self.chance.choice(["lost", "unsent"])

    def teardown(self) -> None:
        try:
            if self.redis:
                self.chance = None
                self._compare_rows()
        finally:
            for store in (*self.redis, *([self.sqlite] if self.redis else [])):
                self.runner.run(store.aclose())
            self.runner.close()
            shutil.rmtree(self.folder)

    # -- how they are compared -----------------------------------------------------------------------------------

    def both(
        self, which: int, verb: Callable[[Store], Awaitable[Any]], *, of: Callable[[Any], Any] = lambda answer: answer
    ) -> Any:
        """The answer of both, which is the same; None if both refused, for the same reason."""
        Stores.steps += 1
        store, losses = self.redis[which % len(self.redis)], Stores.losses
        plain, plain_error = self.runner.run(_outcome(verb(self.sqlite)))
        answer, error = self.runner.run(_outcome(verb(store)))
        while isinstance(error, StoreUnavailable):
            answer, error = self.runner.run(_outcome(verb(store)))
        if Stores.losses != losses:
            return plain  # the answer of a repeat says that it is one
        assert (type(error), error and str(error)) == (type(plain_error), plain_error and str(plain_error))
        assert (None if error else of(answer)) == (None if error else of(plain))
        return answer

    def _compare_rows(self) -> None:
        plain = self.runner.run(_all(self.sqlite, self.clock.now()))
        for store in self.redis:
            assert self.runner.run(_all(store, self.clock.now())) == plain
        for prediction in self.predictions:
            self.both(0, lambda store, p=prediction: store.get(p.id))  # type: ignore[misc]
            self.both(1, lambda store, p=prediction: store.find_stream(p.stream_token))  # type: ignore[misc]
            for attempt in range(1, 12):
                token = toy.begun(f"{prediction.id}{attempt}").attempt.token_hash
                self.both(1, lambda store, t=token: store.find_attempt(t))  # type: ignore[misc]

    # -- predictions -----------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.predictions) < 6)
    @rule(
        which=_some,
        owner=st.sampled_from(["alice", "bob"]),
        hook=st.sampled_from(HOOKS),
        key=st.sampled_from([None, None, "k1", "k2"]),
        body=st.sampled_from(["h1", "h2"]),
        worker=st.sampled_from([None, *WORKERS]),
        has_effects=st.booleans(),
    )
    def create(
        self,
        which: int,
        owner: str,
        hook: str | None,
        key: str | None,
        body: str,
        worker: str | None,
        has_effects: bool,
    ) -> None:
        prediction = toy.prediction(
            id=self.ids.prediction(),
            stream_token=self.ids.token(),
            owner=owner,
            webhook=hook,
            created_at=self.clock.now(),
            deadline_at=self.clock.now() + timedelta(minutes=5),
        )
        effects = (StreamEvent(event="logs", data="x"), Notify(event="start")) if has_effects else ()
        made = self.both(
            which,
            lambda store: store.create(prediction, idempotency_key=key, body_hash=body, worker=worker, effects=effects),
        )
        if made is not None and made.prediction.id == prediction.id:
            self.predictions.append(prediction)
            self._remember(prediction.id, made.lease)

    @precondition(lambda self: self.predictions)
    @rule(which=_some, pick=_some, is_other=st.booleans())
    def create_again(self, which: int, pick: int, is_other: bool) -> None:
        before = self._pick(pick)
        now = self.runner.run(self.sqlite.get(before.id))
        if now is not None and now.data_removed:
            return  # what was asked is not known any more: whether it is the same is nobody's to say
        prediction = msgspec.structs.replace(before, owner="eve") if is_other else before
        self.both(which, lambda store: store.create(prediction))

    @precondition(lambda self: self.predictions)
    @rule(
        pick=_some,
        steps=st.lists(
            st.tuples(_some, _kinds, _leases, st.integers(1, 3), _outputs, st.booleans()), min_size=1, max_size=8
        ),
    )
    def apply(self, pick: int, steps: list[tuple[int, str, str | None, int, Any, bool]]) -> None:
        id = self._pick(pick).id
        for which, kind, held, attempt, output, is_unknown in steps:
            if kind == "sent" and self.chance is not None:
                continue  # it is counted how often it happens
            if kind == "begun" and self.options["reduce"] is toy.reduce:  # which counts no attempts by itself
                known = self.runner.run(self.sqlite.get(id))
                attempt = len(known.attempts) + 1 if known is not None else 1
            happening = _happening(id, kind, attempt, output, is_unknown)
            leases = [lease for held_id, lease in self.leases if held_id == id]
            lease = None
            if held is not None:
                lease = (leases[-1] if held == "newest" else leases[0]) if leases else toy.lease("w1", 9)
            self.both(which, lambda store, that=happening, by=lease: store.apply(id, that, lease=by))  # type: ignore[misc]

    # -- leases ----------------------------------------------------------------------------------------------------

    @rule(which=_some, worker=st.sampled_from(WORKERS), seconds=st.sampled_from([5, 30]))
    def beat(self, which: int, worker: str, seconds: int) -> None:
        self.both(which, lambda store: store.beat(worker, lease_seconds=seconds))

    @rule(which=_some, worker=st.sampled_from(WORKERS))
    def claim(self, which: int, worker: str) -> None:
        held = self.both(
            which,
            lambda store: store.claim_due(worker, limit=1_000),
            of=lambda held: sorted(held, key=lambda one: one.prediction.id),
        )
        for one in held:
            self._remember(one.prediction.id, one.lease)

    @rule(which=_some, worker=st.sampled_from(WORKERS), picks=st.none() | st.lists(_some, max_size=3))
    def release(self, which: int, worker: str, picks: list[int] | None) -> None:
        ids = None if picks is None else [self._pick(pick).id for pick in picks if self.predictions]
        self.both(which, lambda store: store.release(worker, ids))

    @rule(seconds=st.sampled_from([0.1, 0.4, 0.6, 7, 40, 301, 86_400]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # -- the outbox ------------------------------------------------------------------------------------------------

    @rule(which=_some, excluded=st.sets(st.sampled_from(LANES)))
    def claim_deliveries(self, which: int, excluded: set[tuple[str, str]]) -> None:
        self.claimed += self.both(
            which,
            lambda store: store.claim_deliveries("s", limit=1_000, lease_seconds=20, exclude_lanes=frozenset(excluded)),
            of=lambda found: sorted(found, key=lambda one: one.id),
        )

    @precondition(lambda self: self.claimed)
    @rule(which=_some, pick=_some, ended=st.sampled_from([None, None, "delivered", "exhausted"]), later=st.booleans())
    def finish(self, which: int, pick: int, ended: str | None, later: bool) -> None:
        delivery = self.claimed[pick % len(self.claimed)]  # its fence may be stale by now
        due_at = self.clock.now() + timedelta(seconds=9) if later else None
        self.both(
            which,
            lambda store: store.finish_delivery(
                delivery, ended=ended, due_at=due_at, status=None if later else 503, error="é" if later else None
            ),
        )

    @precondition(lambda self: self.claimed)
    @rule(which=_some, picks=st.lists(_some, max_size=3))
    def release_deliveries(self, which: int, picks: list[int]) -> None:
        given = [self.claimed[pick % len(self.claimed)] for pick in picks]  # their fences may be stale by now
        self.both(which, lambda store: store.release_deliveries(given))

    @precondition(lambda self: self.predictions)
    @rule(which=_some, pick=_some)
    def redeliver(self, which: int, pick: int) -> None:
        self.both(which, lambda store: store.redeliver(self._pick(pick).id))

    # -- budgets ---------------------------------------------------------------------------------------------------

    @rule(which=_some, id=st.integers(1, 6), nanos=st.integers(0, 60), fence=st.integers(1, 3), budgets=_budgets)
    def reserve(self, which: int, id: int, nanos: int, fence: int, budgets: list[tuple[str, str, bool]]) -> None:
        holds = {}
        for name, per, is_soft in budgets:
            window, ends_at = window_of(per, self.clock.now())
            counter = counter_of(name, by="policy", of="", per=per, window=window)
            holds[counter] = Hold(counter=counter, limit_nanos=100, ends_at=ends_at, is_soft=is_soft)
        asked = Reservation(id=f"p/{id}", nanos=nanos, holds=tuple(holds.values()), fence=fence)
        self.both(which, lambda store: store.reserve(asked))

    @rule(
        which=_some,
        id=st.integers(1, 6),
        nanos=st.none() | st.integers(0, 80),
        revision=st.integers(0, 5),
        is_as_listed=st.booleans(),
    )
    def settle(self, which: int, id: int, nanos: int | None, revision: int, is_as_listed: bool) -> None:
        later = self.clock.now() + timedelta(seconds=1)
        rows, _ = self.both(which, lambda store: store.reservations(before=later))
        at = rows[0].at if rows and is_as_listed else None
        self.both(which, lambda store: store.settle(f"p/{id}", nanos, revision=revision, reserved_at=at))

    @rule(which=_some, limit=st.integers(1, 3), forgets=st.booleans())
    def budgets(self, which: int, limit: int, forgets: bool) -> None:
        now = self.clock.now()
        if forgets:
            self.both(which, lambda store: store.forget_spending(before=now))
        self.both(which, lambda store: store.spending(ends_after=now, limit=limit))
        self.both(which, lambda store: store.reservations(before=now, limit=limit), of=lambda page: page[0])

    # -- files, settings, trail --------------------------------------------------------------------------------------

    @rule(which=_some, owner=st.sampled_from(["alice", "bob"]), pick=st.none() | _some, seconds=st.integers(1, 100))
    def put_file(self, which: int, owner: str, pick: int | None, seconds: int) -> None:
        known = None if pick is None or not self.files else self.files[pick % len(self.files)]
        row = FileRow(
            id=self.ids.prediction() if known is None else known.id,
            owner=owner,
            artifact="ab/cd",
            name="é",
            content_type="image/png",
            size_bytes=7,
            sha256="0" * 64,
            md5="0" * 32,
            metadata={"n": 10**30},
            created_at=self.clock.now(),
            expires_at=self.clock.now() + timedelta(seconds=seconds),
        )
        self.both(which, lambda store: store.put_file(row))
        self.files.append(row)

    @precondition(lambda self: self.files)
    @rule(which=_some, pick=_some, owner=st.sampled_from(["alice", "bob"]), expires=st.booleans())
    def drop_files(self, which: int, pick: int, owner: str, expires: bool) -> None:
        if expires:
            self.both(which, lambda store: store.expire_files(limit=1_000))
        else:
            self.both(which, lambda store: store.delete_file(self.files[pick % len(self.files)].id, owner=owner))

    @rule(which=_some, name=st.sampled_from(["a", "b"]), value=st.sampled_from(["1", "é"]), swaps=st.booleans())
    def setting(self, which: int, name: str, value: str, swaps: bool) -> None:
        self.both(which, lambda store: store.swap_setting(name, value) if swaps else store.setting(name, value))

    @rule(which=_some, id=st.integers(0, 3), action=st.sampled_from(["x", "y"]), about=st.sampled_from(["t", "u"]))
    def audit(self, which: int, id: int, action: str, about: str) -> None:
        rows = self.both(which, lambda store: store.audit(limit=1_000))
        known = next((row for row in rows if row.id == id), None)
        row = AuditRow(at=self.clock.now(), who="ops", action=action, target=about, reason="", outcome=f"{id}")
        if known is not None:
            row = msgspec.structs.replace(known, outcome="changed")
        self.both(which, lambda store: store.put_audit(row))
        self.both(which, lambda store: store.last_audit(frozenset({"x"}), outcomes=frozenset({"0", "changed"})))

    # -- reading -----------------------------------------------------------------------------------------------------

    @rule(which=_some, limit=st.integers(1, 4), owner=st.sampled_from(["alice", "bob"]), pages=st.integers(1, 3))
    def lists(self, which: int, limit: int, owner: str, pages: int) -> None:
        position = None
        for _ in range(pages):
            page = self.both(
                which, lambda store, at=position: store.list_predictions(owner=owner, position=at, limit=limit)
            )  # type: ignore[misc]
            position = page.next
            if page.previous is not None:
                self.both(
                    which,
                    lambda store, at=page.previous: store.list_predictions(owner=owner, position=at, limit=limit),  # type: ignore[misc]
                )
        self.both(which, lambda store: store.list_files(owner=owner, limit=limit))

    @rule(
        which=_some,
        statuses=st.frozensets(st.sampled_from(["starting", "processing", "succeeded", "failed", "aborted"])),
        owner=st.sampled_from([None, "alice"]),
        provider=st.sampled_from([None, "north"]),
        prefix=st.sampled_from([None, None, "", "0", "a", "b7"]),
        limit=st.integers(1, 5),
    )
    def search(
        self,
        which: int,
        statuses: frozenset[str],
        owner: str | None,
        provider: str | None,
        prefix: str | None,
        limit: int,
    ) -> None:
        wanted = Search(statuses=statuses, owner=owner, provider=provider, prefix=prefix)
        position = None
        while True:
            page = self.both(
                which, lambda store, at=position: store.search_predictions(wanted, position=at, limit=limit)
            )  # type: ignore[misc]
            position = page.next
            if position is None:
                break

    @precondition(lambda self: self.predictions)
    @rule(which=_some, pick=_some, after=st.integers(-1, 4), limit=st.integers(1, 4))
    def reads(self, which: int, pick: int, after: int, limit: int) -> None:
        id = self._pick(pick).id
        self.both(which, lambda store: store.get(id, owner="alice"))
        self.both(which, lambda store: store.events(id, after=after, limit=limit))
        self.both(which, lambda store: store.maybes(limit=limit))
        self.both(which, lambda store: store.next_delivery_at())
        self.both(which, lambda store: store.aged(before=self.clock.now(), limit=1_000), of=sorted)
        self.both(
            which,
            lambda store: store.backlog(),
            of=lambda found: sorted(repr(msgspec.structs.replace(one, last_error=None)) for one in found),
        )

    @rule(which=_some)
    def restart(self, which: int) -> None:
        """One of the two processes that share the Redis."""
        index = which % len(self.redis)
        self.runner.run(self.redis[index].aclose())
        self.redis[index] = self.runner.run(self._open_redis())

    def _pick(self, number: int) -> Any:
        return self.predictions[number % len(self.predictions)]

    def _remember(self, id: str, lease: Lease | None) -> None:
        if lease is not None:
            self.leases.append((id, lease))


def _happening(id: str, kind: str, attempt: int, output: Any, is_unknown: bool) -> Happening:
    failure = (OutcomeUnknown("who knows") if is_unknown else ModelFailed("it is broken")).failure
    match kind:
        case "begun":
            return toy.begun(f"{id}{attempt}", number=attempt)
        case "cancel":
            return CancelRequested()
        case "sent":
            return CancelSent(attempt=attempt, confirmed=is_unknown)
        case "ended":
            return AttemptEnded(attempt=attempt, failure=failure)
        case "failed":
            return SubmitFailed(attempt=attempt, failure=failure)
        case "collected":
            return Collected(attempt=attempt, output=output)
        case "deadline":
            return DeadlinePassed()
        case "given_up":
            return toy.given_up()
        case "removed":
            return DataRemoved()
        case "nothing":
            return toy.NOTHING
    told = failure if kind == Phase.FAILED.value else None
    return Learned(attempt=attempt, fact=Fact(phase=Phase(kind), output=output, failure=told), source=Source.POLL)


async def _outcome(verb: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    try:
        return await verb, None
    except (TurnoutError, ValueError, KeyError) as error:
        return None, error


async def _all(store: Store, now: datetime) -> list[Record]:
    """Every row of every table, in an order that is nobody's. A key whose day is over is as good as swept."""
    records = [_swept(record, now) async for record in store.dump()]
    return sorted(records, key=lambda record: (type(record).__name__, _name(record)))


def _swept(record: Record, now: datetime) -> Record:
    if not isinstance(record, Whole):
        return record
    living = tuple(key for key in record.idempotency if key.expires_at > now)
    return msgspec.structs.replace(record, idempotency=living)


def _name(record: Record) -> str:
    return record.prediction.id if isinstance(record, Whole) else repr(record)


def _run(examples: int) -> None:
    Stores.steps = Stores.losses = 0
    run_state_machine_as_test(
        Stores,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize="TURNOUT_EXAMPLES" not in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(60 + 3 * EXAMPLES)  # as many runs as are asked for, each a second at the worst
def test_equal_steps_have_equal_answers_and_leave_equal_rows(redis_server: RedisServer) -> None:
    Stores.url, Stores.shards = redis_server.url, None
    _run(EXAMPLES)
    assert Stores.steps > 20 * EXAMPLES
    assert Stores.losses > EXAMPLES // 4  # how many are drawn hangs on what else is imported


@pytest.mark.timeout(60 + 3 * EXAMPLES)  # as many runs as are asked for, each a second at the worst
def test_they_are_equal_on_a_cluster_too(redis_cluster: RedisCluster) -> None:
    Stores.url, Stores.shards = redis_cluster.url, None
    _run(max(1, EXAMPLES // 4))
