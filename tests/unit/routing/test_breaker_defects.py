"""
The eleven defects of aiobreaker 1.2.0: each shown in the raw library, and shown not to be in our breaker.

A new release that mends one fails here, and tells what may be deleted from `gateway.routing.breaker`.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib.metadata
import os
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiobreaker
import pytest
from aiobreaker import CircuitBreaker, CircuitBreakerError, CircuitBreakerListener, CircuitBreakerState
from aiobreaker.storage.memory import CircuitMemoryStorage
from aiobreaker.storage.redis import CircuitRedisStorage

import gateway.routing.breaker as ours
from gateway.contract.errors import Blame
from gateway.contract.route import BreakerState
from gateway.routing.breaker import OPEN_SECONDS, Breakers
from gateway.routing.standing import Breaker
from gateway.testing import ManualClock
from tests.unit.routing.fakes import Heard


class Broken(Exception):
    pass


def raising(error: BaseException = Broken("the provider's own words")) -> None:  # noqa: B008 - always the same
    raise error


def fine() -> str:
    return "done"


def tell(raw: CircuitBreaker, *outcomes: Any) -> None:
    for outcome in outcomes:
        with contextlib.suppress(Broken, ValueError, CircuitBreakerError):
            raw.call(outcome)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def breaker(clock: ManualClock, heard: Heard) -> Breaker:
    return Breakers(clock=clock, draw=lambda: 0.5, observer=heard).of("offer")


@pytest.fixture
def time_zone() -> Iterator[Any]:
    before = os.environ.get("TZ")

    def be_in(zone: str) -> None:
        os.environ["TZ"] = zone
        time.tzset()

    yield be_in
    os.environ.pop("TZ", None)
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        ticket = breaker.admit()
        assert ticket is not None
        ticket.failure(Blame.PROVIDER)


def opened(clock: ManualClock, breaker: Breaker) -> None:
    fail(breaker, 5)
    assert breaker.view()[0] is BreakerState.OPEN


# The raw breaker stamps `datetime.utcnow()`, which warns from Python 3.12 on: see the eleventh.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


def test_the_pinned_version_is_the_one_these_defects_are_known_of() -> None:
    assert importlib.metadata.version("aiobreaker") == "1.2.0"


# 1. The call that trips it was made, and raises as if it had not been.


def test_raw_the_tripping_call_hides_the_real_error() -> None:
    with pytest.raises(CircuitBreakerError) as caught:
        CircuitBreaker(fail_max=1).call(raising)
    assert isinstance(caught.value.__cause__, Broken)


def test_ours_leaves_every_caller_his_own_error_the_tripping_one_too(breaker: Breaker) -> None:
    def attempt() -> None:
        ticket = breaker.admit()
        assert ticket is not None
        try:
            raising()
        except Broken:
            ticket.failure(Blame.PROVIDER)
            raise

    for _ in range(5):
        with pytest.raises(Broken):
            attempt()
    assert breaker.view()[0] is BreakerState.OPEN


# 2. Half open lets everybody through.


async def test_raw_half_open_executes_a_hundred_trials_at_once() -> None:
    raw = CircuitBreaker(fail_max=1, timeout_duration=timedelta(seconds=60))
    raw.half_open()
    executed = 0

    async def trial() -> None:
        nonlocal executed
        executed += 1
        await asyncio.sleep(0)

    await asyncio.gather(*(raw.call_async(trial) for _ in range(100)))
    assert executed == 100


async def test_ours_lets_one_of_a_hundred_through_and_a_cancelled_one_frees_its_place(
    clock: ManualClock, breaker: Breaker
) -> None:
    opened(clock, breaker)
    clock.advance(OPEN_SECONDS)
    executed = refused = 0
    gate = asyncio.Event()

    async def attempt() -> None:
        nonlocal executed, refused
        ticket = breaker.admit()
        if ticket is None:
            refused += 1
            return
        executed += 1
        try:
            await gate.wait()
            ticket.success()
        finally:
            ticket.neutral()

    tasks = [asyncio.create_task(attempt()) for _ in range(100)]
    await asyncio.sleep(0)
    assert (executed, refused) == (1, 99)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert breaker.view() == (BreakerState.PROBING, 0.0)
    assert breaker.admit() is not None


# 3. Only failures in a row count.


def test_raw_two_thirds_of_a_thousand_calls_fail_and_it_stays_closed() -> None:
    raw = CircuitBreaker(fail_max=5)
    for number in range(1_000):
        tell(raw, fine if number % 3 == 2 else raising)
    assert raw.current_state is CircuitBreakerState.CLOSED


def test_ours_opens_at_the_tenth(breaker: Breaker) -> None:
    calls = 0
    while breaker.view()[0] is BreakerState.CLOSED:
        ticket = breaker.admit()
        assert ticket is not None
        if calls % 3 == 2:
            ticket.success()
        else:
            ticket.failure(Blame.PROVIDER)
        calls += 1
    assert calls == 10


# 4. What is excluded counts as a success.


def test_raw_an_excluded_error_resets_the_count_and_closes_a_half_open_one() -> None:
    raw = CircuitBreaker(fail_max=3, exclude=[ValueError])

    def refuse() -> None:
        raise ValueError

    tell(raw, raising, raising, refuse, raising, raising, refuse)
    assert raw.fail_counter == 0
    raw.half_open()
    tell(raw, refuse)
    assert raw.current_state is CircuitBreakerState.CLOSED


@pytest.mark.parametrize("blame", [Blame.CALLER, Blame.THROTTLE, Blame.LOCAL])
def test_ours_takes_it_for_nothing(clock: ManualClock, breaker: Breaker, blame: Blame) -> None:
    for _ in range(4):
        fail(breaker, 1)
        ticket = breaker.admit()
        assert ticket is not None
        ticket.failure(blame)
    fail(breaker, 1)
    assert breaker.view()[0] is BreakerState.OPEN
    clock.advance(OPEN_SECONDS)
    probe = breaker.admit()
    assert probe is not None
    probe.failure(blame)
    assert breaker.view()[0] is BreakerState.PROBING


# 5. Late failures lengthen the open time and announce the opening again.


async def test_raw_late_failures_stamp_the_opening_anew_and_notify_again() -> None:
    changes: list[CircuitBreakerState] = []

    class Listener(CircuitBreakerListener):  # type: ignore[misc]
        def state_change(self, breaker: Any, old: Any, new: Any) -> None:
            changes.append(new.state)

    storage = CircuitMemoryStorage(CircuitBreakerState.CLOSED)
    raw = CircuitBreaker(fail_max=1, state_storage=storage, listeners=[Listener()])
    gate = asyncio.Event()

    async def late() -> None:
        await gate.wait()
        raise Broken

    task = asyncio.create_task(raw.call_async(late))
    await asyncio.sleep(0)
    tell(raw, raising)
    first = storage.opened_at = storage.opened_at - timedelta(seconds=30)  # as if half a minute had passed
    gate.set()
    await asyncio.gather(task, return_exceptions=True)
    assert storage.opened_at > first + timedelta(seconds=29)
    assert changes == [CircuitBreakerState.OPEN, CircuitBreakerState.OPEN]


def test_ours_keeps_its_time_and_says_it_once(clock: ManualClock, breaker: Breaker, heard: Heard) -> None:
    late = [breaker.admit() for _ in range(10)]
    opened(clock, breaker)
    clock.advance(5)
    for ticket in late:
        assert ticket is not None
        ticket.failure(Blame.PROVIDER)
    assert breaker.view() == (BreakerState.OPEN, OPEN_SECONDS - 5)
    assert heard.moves == [("closed", "open")]


# 6. It mixes UTC with local time, and lives by the wall clock.


def test_raw_its_reopen_time_is_hours_off_outside_utc(time_zone: Any) -> None:
    time_zone("America/Los_Angeles")
    raw = CircuitBreaker(fail_max=1, timeout_duration=timedelta(seconds=15))
    tell(raw, raising)
    assert raw.opens_at - datetime.now() > timedelta(hours=6)  # noqa: DTZ005 - as the library reckons
    time_zone("Asia/Tokyo")
    assert raw.opens_at is None
    with pytest.raises(CircuitBreakerError) as refused:
        raw.call(fine)
    with pytest.raises(TypeError):
        _ = refused.value.time_remaining


def test_raw_one_that_never_opened_cannot_be_asked_when_it_will() -> None:
    with pytest.raises(TypeError):
        _ = CircuitBreaker().opens_at


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Asia/Tokyo", "UTC"])
def test_ours_knows_no_zone_and_no_wall_clock(clock: ManualClock, breaker: Breaker, time_zone: Any, zone: str) -> None:
    time_zone(zone)
    assert breaker.view() == (BreakerState.CLOSED, None)
    opened(clock, breaker)
    for step in (3_600, -7_200):
        clock.step(step)
        assert breaker.view() == (BreakerState.OPEN, OPEN_SECONDS)
        assert breaker.admit() is None
    clock.advance(OPEN_SECONDS)
    assert breaker.admit() is not None


# 7. Outer timeouts count as nothing, a coroutine function in a sync call as success, async generators not at all.


async def test_raw_a_timeout_from_outside_counts_as_nothing() -> None:
    raw = CircuitBreaker(fail_max=1)

    async def hang() -> None:
        await asyncio.Event().wait()

    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await raw.call_async(hang)
    assert (raw.fail_counter, raw.current_state) == (0, CircuitBreakerState.CLOSED)


async def test_raw_a_coroutine_function_succeeds_before_it_ran_and_async_generators_are_not_guarded() -> None:
    raw = CircuitBreaker(fail_max=2)
    tell(raw, raising)

    async def broken() -> None:
        raise Broken

    coroutine = raw.call(broken)
    assert raw.fail_counter == 0
    with pytest.raises(Broken):
        await coroutine

    async def stream() -> AsyncIterator[int]:
        yield 1
        raise Broken

    with pytest.raises(Broken):
        async for _ in raw.call(stream):
            pass
    assert raw.fail_counter == 0


def test_ours_hears_outcomes_by_name_whatever_was_awaited(breaker: Breaker) -> None:
    # A timeout is what the engine calls it: the provider's (JobTimedOut) counts, our own cancelling does not.
    fail(breaker, 4)
    ticket = breaker.admit()
    assert ticket is not None
    ticket.neutral()
    assert breaker.view()[0] is BreakerState.CLOSED
    fail(breaker, 1)
    assert breaker.view()[0] is BreakerState.OPEN


# 8. Excluding one class with a metaclass excludes everything.


def test_raw_an_excluded_class_with_a_metaclass_excludes_every_exception() -> None:
    class Meta(type):
        pass

    class Excluded(Exception, metaclass=Meta):
        pass

    raw = CircuitBreaker(fail_max=1, exclude=[Excluded])
    for _ in range(5):
        tell(raw, raising)
    assert raw.current_state is CircuitBreakerState.CLOSED


def test_ours_excludes_by_blame_and_hands_no_class_to_the_library(breaker: Breaker) -> None:
    assert breaker._core.excluded_exceptions == ()  # type: ignore[attr-defined]


# 9. The Redis storage blocks, breaks on decoded answers, and dies after an eviction.


class _Redis:
    """As much of a synchronous client as the storage uses."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.asked = 0

    def get(self, key: str) -> Any:
        self.asked += 1
        return self._answer

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def test_raw_the_redis_storage_asks_at_every_look_and_dies_of_what_it_is_answered() -> None:
    client = _Redis(b"CLOSED")
    storage = CircuitRedisStorage(CircuitBreakerState.CLOSED, client)
    before = client.asked
    assert [storage.state for _ in range(3)] == [CircuitBreakerState.CLOSED] * 3
    assert client.asked == before + 3  # a blocking round trip each, in the event loop
    with pytest.raises(AttributeError):  # decode_responses=True
        _ = CircuitRedisStorage(CircuitBreakerState.CLOSED, _Redis("CLOSED")).state
    with pytest.raises(TypeError):  # evicted or flushed
        _ = CircuitRedisStorage(CircuitBreakerState.CLOSED, _Redis(None)).state


def test_ours_asks_nobody() -> None:
    assert all("redis" not in name for node in _nodes() for name in _imported(node))


# 10. Listeners hear of a change before it is stored.


def test_raw_a_listener_still_reads_the_old_state() -> None:
    seen: list[CircuitBreakerState] = []

    class Listener(CircuitBreakerListener):  # type: ignore[misc]
        def state_change(self, breaker: CircuitBreaker, old: Any, new: Any) -> None:
            seen.append(breaker.current_state)

    raw = CircuitBreaker(fail_max=1, listeners=[Listener()])
    raw.half_open()
    raw.close()
    assert seen == [CircuitBreakerState.CLOSED, CircuitBreakerState.HALF_OPEN]  # each is the state it comes from


def test_ours_announces_what_is_already_true(clock: ManualClock) -> None:
    seen: list[tuple[str, str]] = []

    class Looking(Heard):
        def breaker_changed(self, offer: str, before: str, after: str, why: str) -> None:
            seen.append((after, breaker.view()[0].value))

    breaker = Breakers(clock=clock, draw=lambda: 0.5, observer=Looking()).of("offer")
    opened(clock, breaker)
    clock.advance(OPEN_SECONDS)
    probe = breaker.admit()
    assert probe is not None
    probe.success()
    breaker.force_open(who="ann", why="test")
    breaker.release(who="ann", why="test")
    assert seen == [(state, state) for state in ("open", "probing", "closed", "open", "closed")]


# 11. Where warnings are errors it cannot open, because it warns in the middle of it.


class _Warning(datetime):
    """`utcnow` as it is from Python 3.12 on."""

    @classmethod
    def utcnow(cls) -> datetime:
        warnings.warn("utcnow is deprecated", DeprecationWarning, stacklevel=2)
        return datetime(2026, 1, 1)  # noqa: DTZ001 - as the library has it


@pytest.fixture
def _deprecated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiobreaker.circuitbreaker, "datetime", _Warning)
    monkeypatch.setattr(aiobreaker.state, "datetime", _Warning)


@pytest.mark.usefixtures("_deprecated")
def test_raw_with_warnings_as_errors_it_never_opens() -> None:
    raw = CircuitBreaker(fail_max=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning):
            raw.call(raising)
    assert raw.current_state is CircuitBreakerState.CLOSED


@pytest.mark.usefixtures("_deprecated")
def test_ours_goes_through_its_whole_life_with_warnings_as_errors(clock: ManualClock, breaker: Breaker) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(clock, breaker)
        clock.advance(OPEN_SECONDS)
        fail(breaker, 1)
        assert breaker.view()[0] is BreakerState.OPEN
        clock.advance(2 * OPEN_SECONDS)
        probe = breaker.admit()
        assert probe is not None
        probe.success()
    assert breaker.view()[0] is BreakerState.CLOSED


# -- how it is used --------------------------------------------------------------------------------------------------


def _nodes(path: Path = Path(ours.__file__)) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text("utf-8"))))


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_nobody_else_knows_the_library() -> None:
    root = Path(ours.__file__).parents[2]
    users = {
        path.relative_to(root).as_posix()
        for room in ("gateway", "providers", "policies", "local_backend")
        for path in (root / room).rglob("*.py")
        if any(name.partition(".")[0] == "aiobreaker" for node in _nodes(path) for name in _imported(node))
    }
    assert users == {"gateway/routing/breaker.py"}


def test_nothing_private_of_the_library_is_touched() -> None:
    """Every underscored name that the module reads or writes is its own."""
    private = {
        "_state_storage",
        "_state",
        "_fail_max",
        "_timeout_duration",
        "_excluded_exceptions",
        "_listeners",
        "_name",
    }
    core = next(node for node in _nodes() if isinstance(node, ast.ClassDef) and node.name == "_Core")
    touched = {node.attr for node in ast.walk(core) if isinstance(node, ast.Attribute)}
    assert touched & private == set()
    assert SimpleNamespace(**vars(CircuitBreaker(name="x"))).__dict__.keys() == private  # all there are
