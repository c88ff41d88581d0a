"""One reading of a provider's list for all who look for theirs: whose a job may be, and how far it is believed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway.contract.errors import PollFailed, ProviderFailure
from gateway.contract.provider import Call, Found, HttpRequest, HttpResponse, Listed, Listing, Sighting, Unanswered
from gateway.testing import START, ManualClock
from providers import _roll
from providers._driver import HttpDriver
from providers.replicate import Replicate
from tests.unit.providers.echo_adapter import EchoAdapter, a_call

PAGE = 10
CALLBACK = "https://gateway.example/cb"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def call_of(number: int, *, has_address: bool = True, prompt: str = "") -> Call:
    url = f"{CALLBACK}/{number}" if has_address else None
    return a_call(name="acme/echo", input={"prompt": prompt or f"prompt {number}"}, callback_url=url)


def unanswered(call: Call, since: float, *, until: float = 1_000_000) -> Unanswered:
    return Unanswered(call=call, since=at(since), until=at(until))


class Account:
    """A provider's list; the job of `call` made at second `n` has the id `job-n`."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []  # the oldest first
        self.pages = 0  # how many were asked for
        self.on_page: Callable[[int], httpx.Response | None] = lambda page: None

    def make(self, call: Call, second: int) -> None:
        created = at(second).isoformat().replace("+00:00", "Z")
        job = {"id": f"job-{second}", "model": call.name, "input": call.input, "created_at": created}
        self.jobs.append(job | ({"webhook": call.callback_url} if call.callback_url else {}))

    def driver(self, clock: ManualClock | None = None) -> HttpDriver:
        return HttpDriver("acme", Replicate(), transport=httpx.MockTransport(self._answer), clock=clock)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.pages += 1
        spoiled = self.on_page(self.pages)
        if spoiled is not None:
            return spoiled
        page = int(request.url.params.get("cursor", "0"))
        newest = self.jobs[::-1]
        more = len(newest) > (page + 1) * PAGE
        url = f"https://api.replicate.com/v1/predictions?cursor={page + 1}" if more else None
        return httpx.Response(200, json={"next": url, "results": newest[page * PAGE : (page + 1) * PAGE]})


def ids(sighting: Sighting) -> list[str]:
    assert not isinstance(sighting, ProviderFailure), sighting
    return [job.handle["id"] for job in sighting]


async def test_the_list_is_read_once_for_all() -> None:
    account = Account()
    calls = [call_of(number, has_address=number % 2 == 0) for number in range(40)]
    for number, call in enumerate(calls):
        account.make(call, number)
    told = await account.driver().find([unanswered(call, 0) for call in calls])
    assert [ids(one) for one in told] == [[f"job-{number}"] for number in range(40)]
    assert [one[0].is_certain for one in told if not isinstance(one, ProviderFailure)] == [True, False] * 20
    assert account.pages == 4
    assert await account.driver().find([]) == []
    assert account.pages == 4


async def test_it_is_read_back_to_the_oldest_and_no_further() -> None:
    account, call = Account(), call_of(35)
    for number in range(40):
        account.make(call_of(number), number)
    assert [ids(one) for one in await account.driver().find([unanswered(call, 34), unanswered(call_of(12), 11)])] == [
        ["job-35"],
        ["job-12"],
    ]
    assert account.pages == 3, "the third page ends with the tenth second"


async def test_each_is_told_of_its_own_time_only_and_of_two_at_most() -> None:
    account, call = Account(), call_of(0, has_address=False)
    for second in (10, 20, 30, 40, 50):
        account.make(call, second)
    times = [(15, 25), (20, 20), (21, 29), (15, 35), (0, 100)]
    told = await account.driver().find([unanswered(call, since, until=until) for since, until in times])
    assert [ids(one) for one in told] == [["job-20"], ["job-20"], [], ["job-20", "job-30"], ["job-10", "job-20"]]


async def test_what_carries_an_address_may_be_late_but_not_early() -> None:
    account, call = Account(), call_of(0)
    account.make(call, 20)
    told = await account.driver().find([unanswered(call, 10, until=12), unanswered(call, 21)])
    assert [ids(one) for one in told] == [["job-20"], []]


async def test_who_has_an_address_and_who_has_none_are_never_taken_for_each_other() -> None:
    account = Account()
    account.make(call_of(1, prompt="a heron"), 1)
    told = await account.driver().find(
        [
            unanswered(call_of(1, has_address=False, prompt="a heron"), 0),
            unanswered(call_of(2, prompt="a heron"), 0),
            unanswered(call_of(1, prompt="a heron"), 0),
        ]
    )
    assert [ids(one) for one in told] == [[], [], ["job-1"]]


async def test_equal_inputs_are_equal_however_they_are_written() -> None:
    account = Account()
    plain = call_of(0, has_address=False)
    deep: Any = {"a": {"b": {"c": {"d": {"e": {"f": {"g": [1]}}}}}}}
    other: Any = {"a": {"b": {"c": {"d": {"e": {"f": {"g": [2]}}}}}}}
    account.make(a_call(name="acme/echo", input={"n": 1.0, "flags": [1, {"x": True}], "text": "ä"}), 1)
    account.make(a_call(name="acme/echo", input=deep), 2)
    account.make(a_call(name="acme/other", input={"n": 1}), 3)
    inputs = [{"text": "ä", "flags": [1, {"x": True}], "n": 1}, deep, other, {"n": 1}, {"n": 2}]
    calls = [a_call(name="acme/echo", input=input) for input in inputs]
    told = await account.driver().find([unanswered(call, 0) for call in (*calls, plain)])
    assert [ids(one) for one in told] == [["job-1"], ["job-2"], [], [], [], []]


async def test_a_job_on_two_pages_is_one_job() -> None:
    """New ones push the others down while the pages are read."""
    account = Account()
    lone = call_of(0, has_address=False)
    account.make(lone, 0)
    for number in range(1, 10):
        account.make(call_of(number), number)

    def push(page: int) -> None:
        if page == 2:
            account.make(call_of(99), 99)

    account.make(call_of(50), 50)  # so that there is a second page
    account.jobs[0], account.jobs[1] = account.jobs[1], account.jobs[0]
    account.on_page = push
    [told] = await account.driver().find([unanswered(lone, 0)])
    assert (ids(told), account.pages) == (["job-0"], 2)


class TestHowFarItIsBelieved:
    """Forty jobs on four pages, of which two are read; the second page ends with second 20."""

    def account(self) -> Account:
        account = Account()
        for number in range(40):
            account.make(call_of(number, has_address=number % 2 == 0), number)
        return account

    def submits(self) -> list[Unanswered]:
        return [
            unanswered(call_of(31, has_address=False), 30),  # it was passed
            unanswered(call_of(77, has_address=False), 21),  # passed, and there is none
            unanswered(call_of(24), 3),  # not passed, but its address was seen
            unanswered(call_of(25, has_address=False), 3),  # not passed: there may be another that fits
            unanswered(call_of(4), 3),  # not seen
        ]

    def check(self, told: list[Sighting], words: str) -> None:
        assert [ids(one) for one in told[:3]] == [["job-31"], [], ["job-24"]]
        for failure in told[3:]:
            assert isinstance(failure, PollFailed)
            assert words in str(failure)

    async def test_more_pages_than_are_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_roll, "MAX_PAGES", 2)
        account = self.account()
        self.check(await account.driver().find(self.submits()), "longer than 2 pages")
        assert account.pages == 2

    async def test_as_many_pages_as_are_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_roll, "MAX_PAGES", 4)
        told = await self.account().driver().find(self.submits())
        assert [ids(one) for one in told] == [["job-31"], [], ["job-24"], ["job-25"], ["job-4"]]

    async def test_longer_than_it_may_take(self) -> None:
        account, clock = self.account(), ManualClock()

        def pass_time(page: int) -> None:
            clock.advance(_roll.LIST_SECONDS / 2 + 0.1)

        account.on_page = pass_time
        self.check(await account.driver(clock).find(self.submits()), "takes longer to read")
        assert account.pages == 2

    async def test_a_page_that_cannot_be_had(self) -> None:
        account = self.account()
        account.on_page = lambda page: httpx.Response(503) if page == 3 else None
        self.check(await account.driver().find(self.submits()), "503")

    async def test_the_first_page_cannot_be_had(self) -> None:
        account = self.account()
        account.on_page = lambda page: httpx.Response(200, text="<html>")
        told = await account.driver().find(self.submits())
        assert [type(one) for one in told] == [PollFailed] * 5


async def test_one_that_cannot_be_looked_for_is_no_others_failure() -> None:
    account, call = Account(), call_of(1)
    account.make(call, 1)
    odd = a_call(name="no owner", input={}, callback_url=f"{CALLBACK}/2")
    failure, told = await account.driver().find([unanswered(odd, 0), unanswered(call, 0)])
    assert isinstance(failure, ProviderFailure)
    assert ids(told) == ["job-1"]


class Astray(EchoAdapter):
    """Lists one job that would have us ask somebody else."""

    def listing(self, since: datetime) -> HttpRequest | None:
        return HttpRequest(method="GET", url="/jobs")

    def read_listing(self, response: HttpResponse) -> Listing:
        return Listing(
            jobs=(
                Listed(handle={"id": "a", "url": "https://elsewhere.example/a"}, callback_url=f"{CALLBACK}/1"),
                Listed(handle={"id": "b"}, callback_url=f"{CALLBACK}/2"),
            )
        )


async def test_a_job_that_leads_elsewhere_is_not_told() -> None:
    driver = HttpDriver("acme", Astray(), transport=httpx.MockTransport(lambda request: httpx.Response(200)))
    failure, told = await driver.find([unanswered(call_of(number), 0) for number in (1, 2)])
    assert isinstance(failure, PollFailed)
    assert told == (Found(handle={"id": "b"}, created_at=None, is_certain=True),)


class Counted(dict[str, Any]):
    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__eq__(other)

    __hash__ = None


async def test_not_everybody_is_compared_with_everything() -> None:
    account = Account()
    calls = [a_call(name="acme/echo", input=Counted(n=number % 250, text="long")) for number in range(500)]
    for number in range(500):
        account.make(a_call(name="acme/echo", input={"n": number, "text": "long"}), number)
    Counted.compared = 0
    told = await account.driver().find([unanswered(call, 0) for call in calls])
    assert [ids(one) for one in told] == [[f"job-{number % 250}"] for number in range(500)]
    assert Counted.compared <= 3 * 500
