"""Grants: one exchange for many, renewed before they end, never shown; and what becomes of a request without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import httpx
import pytest

from gateway.contract.errors import ConfigurationError, CredentialRefused, NotSent, PollFailed, ProviderFailure
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Call, Capabilities, HttpRequest, HttpResponse, Message
from gateway.testing import ManualClock
from providers import HttpAdapter, Options, ended, failure_of
from providers._auth import EntraApplication, bearer
from providers._credential import RENEW_AGAIN_SECONDS, RENEW_SECONDS, Credentials
from providers._driver import HttpDriver
from tests.unit.providers.echo_adapter import a_call

SECRETS = {"tenant_id": "t", "client_id": "c", "client_secret": "s3cr3t"}
A_MESSAGE = Message(method="GET", url="https://x.example", headers={}, body=b"")
ENTRA = EntraApplication(scope="s")


class Desk:
    """Where grants are given out: counts, waits until it is let go, and fails when it is told to."""

    def __init__(self, lifetime_seconds: float = 3600.0) -> None:
        self.asked = 0
        self.most_at_once = self.at_once = 0
        self.lifetime_seconds = lifetime_seconds
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.asked += 1
        number = self.asked
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.open.wait()
        finally:
            self.at_once -= 1
        if self.error is not None:
            raise self.error
        body = f'{{"access_token": "grant-{number}", "expires_in": {self.lifetime_seconds}}}'
        return HttpResponse(status=200, headers={}, body=body.encode())


def credentials_at(desk: Desk, clock: ManualClock) -> Credentials:
    return Credentials("p", (ENTRA,), SECRETS, clock=clock, send=desk.send)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_hundred_who_need_a_grant_wait_for_one_exchange() -> None:
    desk = Desk()
    desk.open.clear()
    credentials = credentials_at(desk, ManualClock())
    tasks = [asyncio.create_task(credentials.headers(A_MESSAGE)) for _ in range(100)]
    await settle()
    desk.open.set()
    assert await asyncio.gather(*tasks) == [{"authorization": "Bearer grant-1"}] * 100
    assert desk.asked == 1


async def test_a_hundred_who_wait_for_an_exchange_that_fails_share_its_failure() -> None:
    desk = Desk()
    desk.open.clear()
    desk.error = PollFailed("no answer within 10 s", status=503)
    credentials = credentials_at(desk, ManualClock())
    tasks = [asyncio.create_task(credentials.headers(A_MESSAGE)) for _ in range(100)]
    await settle()
    desk.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {(type(result), str(result)) for result in results} == {(PollFailed, "no answer within 10 s")}
    assert desk.asked == 1
    desk.error = None
    assert await credentials.headers(A_MESSAGE) == {"authorization": "Bearer grant-2"}


async def test_who_asks_for_all_and_is_cancelled_leaves_it_to_the_next() -> None:
    desk = Desk()
    desk.open.clear()
    credentials = credentials_at(desk, ManualClock())
    first, second = (asyncio.create_task(credentials.headers(A_MESSAGE)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    desk.open.set()
    assert await second == {"authorization": "Bearer grant-2"}
    assert desk.most_at_once == 1


async def test_a_grant_is_used_until_shortly_before_its_end() -> None:
    desk, clock = Desk(lifetime_seconds=3600.0), ManualClock()
    credentials = credentials_at(desk, clock)
    await credentials.headers(A_MESSAGE)
    clock.advance(3600 - RENEW_SECONDS)
    assert await credentials.headers(A_MESSAGE) == {"authorization": "Bearer grant-1"}
    clock.advance(0.1)
    assert await credentials.headers(A_MESSAGE) == {"authorization": "Bearer grant-2"}
    assert desk.asked == 2


async def test_a_grant_of_a_minute_is_not_asked_for_at_every_request() -> None:
    desk, clock = Desk(lifetime_seconds=60.0), ManualClock()
    credentials = credentials_at(desk, clock)
    for _ in range(29):
        await credentials.headers(A_MESSAGE)
        clock.advance(1)
    assert desk.asked == 1


async def test_a_grant_s_life_is_counted_from_before_it_was_asked_for() -> None:
    desk, clock = Desk(lifetime_seconds=1000.0), ManualClock()
    desk.open.clear()
    credentials = credentials_at(desk, clock)
    task = asyncio.create_task(credentials.headers(A_MESSAGE))
    await settle()
    clock.advance(900)
    desk.open.set()
    await task
    await credentials.headers(A_MESSAGE)
    assert desk.asked == 2


async def test_a_renewal_that_fails_leaves_the_old_grant_while_it_holds() -> None:
    desk, clock = Desk(lifetime_seconds=3600.0), ManualClock()
    credentials = credentials_at(desk, clock)
    await credentials.headers(A_MESSAGE)
    clock.advance(3600 - RENEW_SECONDS + 1)
    desk.error = PollFailed("down")
    for _ in range(5):
        assert await credentials.headers(A_MESSAGE) == {"authorization": "Bearer grant-1"}
    assert desk.asked == 2  # not at every request
    clock.advance(RENEW_AGAIN_SECONDS)
    await credentials.headers(A_MESSAGE)
    assert desk.asked == 3
    clock.advance(RENEW_SECONDS)
    with pytest.raises(PollFailed, match="down"):
        await credentials.headers(A_MESSAGE)


async def test_nobody_waits_for_a_renewal_while_the_old_grant_holds() -> None:
    desk, clock = Desk(), ManualClock()
    credentials = credentials_at(desk, clock)
    await credentials.headers(A_MESSAGE)
    clock.advance(3600 - RENEW_SECONDS + 1)
    desk.open.clear()
    renewal = asyncio.create_task(credentials.headers(A_MESSAGE))
    await settle()
    assert await credentials.headers(A_MESSAGE) == {"authorization": "Bearer grant-1"}
    desk.open.set()
    assert await renewal == {"authorization": "Bearer grant-2"}


async def test_an_assertion_is_signed_only_when_a_grant_is_needed() -> None:
    signed = 0

    class Counting(EntraApplication):
        def exchange(self, secrets: Mapping[str, str], *, now: datetime) -> HttpRequest | None:
            nonlocal signed
            signed += 1
            return super().exchange(secrets, now=now)

    credentials = Credentials("p", (Counting(scope="s"),), SECRETS, clock=ManualClock(), send=Desk().send)
    for _ in range(10):
        await credentials.headers(A_MESSAGE)
    assert signed == 1


async def test_grants_old_and_new_are_scrubbed_from_what_is_shown() -> None:
    credentials = credentials_at(Desk(), ManualClock())
    await credentials.headers(A_MESSAGE)
    credentials.forget_grant()
    await credentials.headers(A_MESSAGE)
    assert credentials.is_in("x grant-1 y")
    assert credentials.scrub("grant-1 grant-2 s3cr3t t") == "*** *** *** t"


@pytest.mark.parametrize("token", ["two\nlines", "“quoted”", " padded "])
def test_a_token_that_no_header_may_hold_is_found_at_load_time_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Credentials("p", (bearer(),), {"token": token}, clock=ManualClock(), send=Desk().send)
    assert token not in str(caught.value)


# -- through the driver ----------------------------------------------------------------------------------------------


class NoOptions(Options, kw_only=True, frozen=True):
    pass


class Granted(HttpAdapter[NoOptions]):
    """The smallest adapter that needs a grant."""

    adapter = "granted"
    base_url = "https://api.example.com/v1"
    auth = (ENTRA,)
    options_type = NoOptions

    def describe(self, options: NoOptions) -> Capabilities:
        return Capabilities(modes=frozenset({"sync"}), result_needs_credentials=True)

    def submit(self, call: Call) -> HttpRequest:
        return HttpRequest(method="POST", url="/run", json=call.input)

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        if response.status == 401:
            raise failure_of(CredentialRefused, response)
        if response.status == 200:
            return ended(ProviderFailure, response.body.decode())
        return Fact(phase=Phase.RUNNING, handle={"id": "j"})

    def poll(self, handle: dict[str, str]) -> HttpRequest:
        return HttpRequest(method="GET", url="/run/j")


def driver_over(handle: Callable[[httpx.Request], httpx.Response], clock: ManualClock | None = None) -> HttpDriver:
    return HttpDriver(
        "p", Granted(), credentials=SECRETS, transport=httpx.MockTransport(handle), clock=clock or ManualClock()
    )


def grant(number: int) -> httpx.Response:
    return httpx.Response(200, json={"access_token": f"grant-{number}", "expires_in": 3600})


async def test_the_grant_goes_to_the_provider_and_the_secret_only_to_where_grants_are_given() -> None:
    seen: list[tuple[str, str | None, bool]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.host, request.headers.get("authorization"), b"s3cr3t" in request.content))
        return grant(1) if request.url.host == "login.microsoftonline.com" else httpx.Response(202)

    driver = driver_over(handle)
    await driver.submit(a_call())
    assert seen == [("login.microsoftonline.com", None, True), ("api.example.com", "Bearer grant-1", False)]
    assert await driver.credentials_for("https://api.example.com/v1/file") == {"authorization": "Bearer grant-1"}
    assert await driver.credentials_for("https://api.example.com.evil.test/v1/file") == {}


@pytest.mark.parametrize(
    ("answer", "on_submit"),
    [
        (httpx.Response(401, json={"error": "invalid_client"}), CredentialRefused),
        (httpx.Response(503, text="s3cr3t"), NotSent),
        (httpx.Response(200, text="<html>"), NotSent),
        (httpx.ConnectError("refused"), NotSent),
        (httpx.ReadTimeout("slow"), NotSent),
    ],
)
async def test_without_a_grant_nothing_is_sent_and_it_is_said_so(answer: Any, on_submit: type[Exception]) -> None:
    reached: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        reached.append(request.url.host)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, content=answer.content)

    driver = driver_over(handle)
    with pytest.raises(ProviderFailure) as caught:
        await driver.submit(a_call())
    assert type(caught.value) is on_submit
    assert "s3cr3t" not in str(caught.value)
    assert not caught.value.maybe_running
    with pytest.raises(PollFailed):
        await driver.poll({"id": "j"})
    assert set(reached) == {"login.microsoftonline.com"}


async def test_a_grant_that_is_not_taken_any_more_is_asked_for_anew() -> None:
    given = 0

    def handle(request: httpx.Request) -> httpx.Response:
        nonlocal given
        if request.url.host == "login.microsoftonline.com":
            given += 1
            return grant(given)
        is_revoked = request.headers["authorization"] == "Bearer grant-1"
        return httpx.Response(401, text="revoked") if is_revoked else httpx.Response(202)

    driver = driver_over(handle)
    with pytest.raises(CredentialRefused):
        await driver.submit(a_call())
    assert (await driver.submit(a_call())).phase is Phase.RUNNING
    assert given == 2


async def test_a_grant_that_an_answer_quotes_is_not_shown() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.host == "login.microsoftonline.com":
            return grant(1)
        return httpx.Response(200, text=f"failed with {request.headers['authorization'].removeprefix('Bearer ')}")

    fact = await driver_over(handle).submit(a_call())
    assert fact.failure is not None
    assert fact.failure.message == "failed with ***"
