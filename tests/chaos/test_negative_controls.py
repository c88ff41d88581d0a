"""
Eight bugs that every release must be shown to catch: each planted, and the named check seen to fail of it.

Five are planted in simulated universes (`universe/planted.py`); the others here, each into the code that the named
test runs over. Without the bug it passes, in its own file. README.md lists all eight; what it names is looked up.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from gateway.contract.errors import Blame
from gateway.contract.prediction import Prediction
from gateway.delivery import webhook
from gateway.routing import breaker as breakers
from gateway.store.protocol import Store
from gateway.store.redis import RedisStore
from gateway.store.sqlite import SqliteStore
from gateway.testing import ManualClock
from tests.chaos.universe.planted import BUGS
from tests.contract.store import test_lease, test_prediction, toy
from tests.redis.line import line_to
from tests.redis.server import RedisServer
from tests.unit.api import test_deliveries
from tests.unit.delivery import test_webhook
from tests.unit.routing import test_breaker_defects
from tests.unit.routing.fakes import Heard

PLANTED = (
    "drop the outbox row",
    "send before intent",
    "follow redirects",
    "ignore the fence",
    "reset on excluded",
    "poll overwrites terminal",
    "unscoped get",
    "retry on timeout",
)
STORES = {"sqlite": SqliteStore, "redis": RedisStore}


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    options: dict[str, Any] = {"reduce": toy.reduce, "snapshot": toy.snapshot, "clock": ManualClock(toy.START)}
    opened: Store
    if request.param == "sqlite":
        opened = await SqliteStore.open(tmp_path / "store.db", **options)
        yield opened
        await opened.aclose()
        return
    with RedisServer(tmp_path / "redis") as server:
        line = line_to(server.url)
        await line.open()
        opened = await RedisStore.open(line, **options)
        yield opened
        await opened.aclose()


async def test_a_webhook_that_follows_redirects_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    made = webhook.guarded_client

    def led_on(*args: Any, **named: Any) -> Any:
        client = made(*args, **named)
        client.follow_redirects = True
        return client

    monkeypatch.setattr(webhook, "guarded_client", led_on)
    with pytest.raises(AssertionError):
        await test_webhook.test_redirect_is_a_failure_and_is_not_followed()


async def test_a_write_that_ignores_the_fence_is_caught_on_each_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = type(store).apply

    async def open_to_all(self: Any, id: str, happening: Any, *, lease: Any = None) -> Any:
        return await apply(self, id, happening, lease=None)

    monkeypatch.setattr(type(store), "apply", open_to_all)
    with pytest.raises(pytest.fail.Exception, match=r"DID NOT RAISE.*LeaseLost"):
        await test_lease.test_the_same_worker_under_an_older_lease_writes_nothing(store)


@pytest.mark.parametrize("blame", [Blame.CALLER, Blame.THROTTLE, Blame.LOCAL])
def test_a_breaker_that_takes_what_is_excluded_for_a_success_is_caught(
    blame: Blame, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    one = breakers.Breakers(clock=clock, draw=lambda: 0.5, observer=Heard()).of("offer")
    monkeypatch.setattr(breakers._Ticket, "neutral", breakers._Ticket.success)
    with pytest.raises(AssertionError):
        test_breaker_defects.test_ours_takes_it_for_nothing(clock, one, blame)


async def test_a_get_that_asks_for_no_owner_is_caught_on_each_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(store), "get", _unscoped(type(store)))
    with pytest.raises(AssertionError):
        await test_prediction.test_a_foreign_prediction_is_as_good_as_none(store)


async def test_a_get_that_asks_for_no_owner_is_caught_by_who_asks_over_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteStore, "get", _unscoped(SqliteStore))
    desk = await test_deliveries.open_desk(tmp_path)
    with pytest.raises(AssertionError):
        await test_deliveries.test_its_caller_sees_every_try_and_nobody_else_does(desk)
    await desk.store.aclose()


def _unscoped(kind: Any) -> Any:
    get = kind.get

    async def anybodys(self: Any, id: str, *, owner: str | None = None) -> Prediction | None:
        found: Prediction | None = await get(self, id)
        return found

    return anybodys


def test_the_page_names_a_test_for_each_of_the_eight() -> None:
    page = Path(__file__).with_name("README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (.+?) \| (`.+) \|$", page, re.MULTILINE))
    assert set(PLANTED) <= set(rows)
    known = {bug.name for bug in BUGS}
    for bug in PLANTED:
        named = re.findall(r"`([\w/.]+\.py)::(\w+)(?:\[([^]]+)])?`", rows[bug])
        assert named, bug
        for file, test, parameter in named:
            module = import_module(file.removesuffix(".py").replace("/", "."))
            assert callable(getattr(module, test, None)), f"{file} has no {test}"
            if test == "test_a_planted_bug_is_found_by_its_invariant":
                assert parameter in known, parameter
