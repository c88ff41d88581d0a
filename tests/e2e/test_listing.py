"""A submit whose answer got lost is found again in the upstream's own list: the simulator's, and another Turnout's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from gateway.contract.errors import OutcomeUnknown, PollFailed, ProviderFailure
from gateway.contract.fact import Phase
from gateway.contract.provider import Call, Found, Unanswered
from gateway.simulator import Behaviour, Simulator
from providers import _roll
from providers._driver import HttpDriver
from providers.replicate import Replicate
from tests.unit.api.fakes import ALICE, PUBLIC, VERSION, World
from tests.unit.providers.echo_adapter import a_call

CUT = Behaviour(queue=0.001, median=0.01, sigma=0.0, cut=1.0)
NOWHERE = "http://127.0.0.1:9/cb"


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator({"one": CUT}) as opened:
        yield opened


def long_ago() -> datetime:
    return datetime.now(UTC) - timedelta(minutes=1)


def asked(number: int, *, callback: bool = True, prompt: str = "a heron") -> Call:
    url = f"{NOWHERE}/attempt-{number}" if callback else None
    return a_call(name="acme/echo", input={"prompt": prompt}, callback_url=url)


def unanswered(call: Call, *, since: datetime | None = None) -> Unanswered:
    return Unanswered(call=call, since=since or long_ago(), until=datetime.now(UTC) + timedelta(minutes=1))


async def find(driver: HttpDriver, call: Call, *, since: datetime | None = None) -> tuple[Found, ...]:
    [sighting] = await driver.find([unanswered(call, since=since)])
    if isinstance(sighting, ProviderFailure):
        raise sighting
    return sighting


async def lose(driver: HttpDriver, *calls: Call) -> None:
    for call in calls:
        with pytest.raises(OutcomeUnknown):
            await driver.submit(call)


async def test_a_lost_answer_is_found_by_the_address_it_calls_back(simulator: Simulator) -> None:
    driver = HttpDriver("sim", Replicate(), base_url=simulator.url("one"))
    calls = [asked(number) for number in range(3)]
    await lose(driver, *calls)
    for call, row in zip(calls, simulator.books("one"), strict=True):
        [found] = await find(driver, call)
        assert found.is_certain
        assert found.handle == {"id": row["id"]}
        assert (await driver.poll(found.handle)).phase in (Phase.QUEUED, Phase.RUNNING, Phase.SUCCEEDED)
    assert await find(driver, asked(7)) == ()
    await driver.aclose()


async def test_without_an_address_the_input_tells_as_far_as_it_can(simulator: Simulator) -> None:
    driver = HttpDriver("sim", Replicate(), base_url=simulator.url("one"))
    crane, heron = asked(0, callback=False, prompt="a crane"), asked(1, callback=False)
    await lose(driver, crane, heron, heron, asked(2))
    [found] = await find(driver, crane)
    assert not found.is_certain
    assert len(await find(driver, heron)) == 2
    assert await find(driver, crane, since=datetime.now(UTC) + timedelta(seconds=5)) == ()
    await driver.aclose()


async def test_a_long_list_is_followed_to_its_end_or_not_believed(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = HttpDriver("sim", Replicate(), base_url=simulator.url("one"))
    await lose(driver, asked(0), asked(1, callback=False), *(asked(2, prompt="a crane") for _ in range(210)))
    [certain] = await find(driver, asked(0))  # on the third page
    assert certain.is_certain
    [fitting] = await find(driver, asked(1, callback=False))
    assert not fitting.is_certain
    monkeypatch.setattr(_roll, "MAX_PAGES", 2)
    with pytest.raises(PollFailed, match="longer than 2 pages"):
        await find(driver, asked(1, callback=False))
    await driver.aclose()


async def test_another_turnout_lists_what_it_was_given(tmp_path: Path) -> None:
    """It shows the address as it was given: that is what we are known by there."""
    world = World(tmp_path)
    transport = httpx.ASGITransport(app=world.app)
    driver = HttpDriver(
        "upstream",
        Replicate(options={"idempotent": True}),
        base_url=f"{PUBLIC}/v1",
        credentials={"token": ALICE.text},
        transport=transport,
    )
    call = a_call(name="acme/echo", version=VERSION, input={"prompt": "hi"}, callback_url="https://example.com/cb/one")
    fact = await driver.submit(call)
    [found] = await find(driver, call, since=world.clock.now() - timedelta(minutes=1))
    assert (found.handle, found.is_certain) == (fact.handle, True)
    other = a_call(name="acme/echo", version=VERSION, input={"prompt": "hi"}, callback_url="https://example.com/cb/two")
    assert await find(driver, other, since=world.clock.now() - timedelta(minutes=1)) == ()
