"""What the driver does not take from an answer: foreign addresses and jobs, endless questions. And what it adds."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from gateway.contract import data_uri
from gateway.contract.errors import (
    CallbackForged,
    CredentialRefused,
    InputRefused,
    InputUnfit,
    NotSent,
    OutcomeUnknown,
    PollFailed,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import (
    Ask,
    Callback,
    Cancellation,
    Capabilities,
    File,
    HttpRequest,
    HttpResponse,
)
from gateway.testing import ManualClock
from providers._adapter import Options, phase_of
from providers._driver import HttpDriver
from providers._headroom import read_headroom
from tests.unit.providers.echo_adapter import EchoAdapter, a_call

TOKEN = "tok_CANARY_0123456789"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def driver_over(handler: Any, adapter: EchoAdapter | None = None, **options: Any) -> HttpDriver:
    options.setdefault("credentials", {"token": TOKEN})
    return HttpDriver("acme", adapter or EchoAdapter(), transport=httpx.MockTransport(handler), **options)


def says(body: Any, status: int = 200) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: httpx.Response(status, json=body)


class Handing(EchoAdapter):
    """Hands on the handle that an answer holds, as adapters do whose provider names its addresses."""

    def read_submit(self, call: Any, response: HttpResponse) -> Fact:
        return Fact(phase=Phase.QUEUED, handle=json.loads(response.body))

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact | Ask:
        return Fact(phase=Phase.RUNNING, handle=json.loads(response.body))

    def read_callback(self, headers: Any, body: bytes, *, secrets: tuple[str, ...], now: datetime) -> Callback:
        return Callback(fact=Fact(phase=Phase.RUNNING, handle=json.loads(body)))


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "has_token"),
    [
        ("/jobs/1", True),
        ("https://api.example.com/v1/jobs/1", True),
        ("https://sync.example.com/v2/jobs/1", True),
        ("https://eu.example.org/jobs/1", True),
        ("https://files.example.net/a.png", False),
        ("https://x.cdn.test/a.png", False),
    ],
)
async def test_credentials_go_to_the_providers_own_origins_only(url: str, has_token: bool) -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"id": "1"})

    await driver_over(handle).poll({"url": url})
    assert ("authorization" in seen[0].headers) is has_token


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/jobs/1",
        "https://example.org.evil.example/x",
        "https://evilexample.org/x",
        "http://api.example.com/v1/jobs/1",
        "http://eu.example.org/jobs/1",
        "https://eu.example.org:8443/jobs/1",
        "https://api.example.com:444/v1/jobs/1",
        "https://api.example.com@evil.example/",
        "//evil.example/x",
        "file:///etc/passwd",
    ],
)
async def test_a_handle_that_leads_elsewhere_is_refused_from_whichever_side_it_comes(url: str) -> None:
    told = {"id": "1", "status_url": url}
    driver = driver_over(says(told), Handing())
    with pytest.raises(OutcomeUnknown, match="names a URL"):
        await driver.submit(a_call())
    with pytest.raises(PollFailed, match="names a URL"):
        await driver.poll({"id": "1", "url": "/jobs/1"})
    with pytest.raises(CallbackForged, match="names a URL"):
        await driver.read_callback({}, json.dumps(told).encode(), now=NOW)
    with pytest.raises(PollFailed, match="asked for"):
        await driver.poll({"url": url})


async def test_an_address_of_our_own_takes_the_belief_in_the_vendors_further_ones() -> None:
    driver = driver_over(says({"id": "1"}), base_url="https://proxy.internal/v1")
    for url in ("https://eu.example.org/jobs/1", "https://api.example.com/v1/jobs/1", "https://sync.example.com/v2/x"):
        with pytest.raises(PollFailed):
            await driver.poll({"url": url})
    await driver.poll({"url": "https://proxy.internal/v1/jobs/1"})
    assert driver.trusted_hosts == ("proxy.internal", "files.example.net", ".cdn.test")


async def test_a_site_is_where_the_configuration_puts_it() -> None:
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, json={"id": "1"})

    adapter = EchoAdapter(site="sync")
    await driver_over(handle, adapter).submit(a_call())
    await driver_over(handle, adapter, base_url="http://127.0.0.1:1").submit(a_call())
    await driver_over(handle, adapter, base_url="http://a:1", sites={"sync": "http://b:2/x"}).submit(a_call())
    assert seen == ["https://sync.example.com/v2/jobs", "http://127.0.0.1:1/jobs", "http://b:2/x/jobs"]
    with pytest.raises(NotSent, match="a site 'moon'"):
        await driver_over(handle, EchoAdapter(site="moon")).submit(a_call())


# -- jobs -------------------------------------------------------------------------------------------------------------


async def test_an_answer_about_another_job_tells_nothing_of_ours() -> None:
    driver = driver_over(says({"id": "theirs"}), Handing())
    with pytest.raises(PollFailed, match="another job"):
        await driver.poll({"id": "ours", "url": "/jobs/ours"})
    assert (await driver.poll({"id": "theirs", "url": "/jobs/theirs"})).handle == {"id": "theirs"}


# -- questions beside -------------------------------------------------------------------------------------------------


class Asking(EchoAdapter):
    """A poll that needs `steps` requests more, and a cancel that looks first."""

    steps = 1

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact | Ask:
        step = int(handle.get("step", "0"))
        if step < self.steps:
            request = HttpRequest(method="GET", url=f"/jobs/1/{step + 1}")
            return Ask(request=request, handle={**handle, "step": str(step + 1)})
        return Fact(phase=Phase.SUCCEEDED, output=response.body.decode())

    def read_cancel(self, handle: dict[str, str], response: HttpResponse) -> Cancellation | Ask:
        if handle.get("step") == "stop":
            return Cancellation.STOPPED
        if b"done" in response.body:
            return Cancellation.TOO_LATE
        return Ask(request=HttpRequest(method="DELETE", url="/jobs/1"), handle={**handle, "step": "stop"})


async def test_what_the_adapter_asks_beside_is_asked_with_our_credentials() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, text=request.url.path)

    fact = await driver_over(handle, Asking()).poll({"url": "/jobs/1"})
    assert fact.output == "/v1/jobs/1/1"
    assert all(request.headers["authorization"] == f"Bearer {TOKEN}" for request in seen)


async def test_an_adapter_that_goes_on_asking_is_stopped() -> None:
    count = 0

    def handle(request: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        return httpx.Response(200)

    adapter = Asking()
    adapter.steps = 1_000
    with pytest.raises(PollFailed, match="more than"):
        await driver_over(handle, adapter).poll({"url": "/jobs/1"})
    assert count < 10


@pytest.mark.parametrize(("state", "methods"), [("running", ["POST", "DELETE"]), ("done", ["POST"])])
async def test_a_cancel_may_look_first(state: str, methods: list[str]) -> None:
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.method)
        return httpx.Response(200, text=state)

    answer = await driver_over(handle, Asking()).cancel({"url": "/jobs/1"})
    assert answer is (Cancellation.STOPPED if state == "running" else Cancellation.TOO_LATE)
    assert seen == methods


# -- uploads ----------------------------------------------------------------------------------------------------------


class Uploading(EchoAdapter):
    def describe(self, options: Options) -> Capabilities:
        return Capabilities(
            modes=frozenset({"queue"}),
            input_forms=frozenset({"data", "upload"}),
            max_inline_bytes=100,
            max_upload_bytes=1_000,
            result_hosts=("files.example.net",),
        )

    def upload(self, file: File) -> HttpRequest | None:
        return HttpRequest(method="POST", url="/uploads", json={"name": file.name, "type": file.content_type})

    def read_upload(self, file: File, handle: dict[str, str], response: HttpResponse) -> str | Ask:
        if handle:
            return handle["word"]
        told = json.loads(response.body)
        request = HttpRequest(method="PUT", url=told["put"], content=file.content)
        return Ask(request=request, handle={"word": told["word"]})


def uploads(seen: list[httpx.Request]) -> Callable[[httpx.Request], httpx.Response]:
    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        told = {"id": "1", "put": "https://files.example.net/slot", "word": "acme://file"}
        return httpx.Response(200, json=told)

    return handle


async def test_files_too_long_to_stay_are_uploaded_once_and_never_with_our_token_elsewhere() -> None:
    seen: list[httpx.Request] = []
    small, large = data_uri.build(b"s" * 20, "image/png"), data_uri.build(b"l" * 500, "image/png")
    call = a_call(input={"a": small, "b": [large, {"c": large}], "n": 3})
    await driver_over(uploads(seen), Uploading()).submit(call)
    assert [(r.method, str(r.url)) for r in seen] == [
        ("POST", "https://api.example.com/v1/uploads"),
        ("PUT", "https://files.example.net/slot"),
        ("POST", "https://api.example.com/v1/jobs"),
    ]
    assert json.loads(seen[0].content) == {"name": "input.png", "type": "image/png"}
    assert seen[1].content == b"l" * 500
    assert "authorization" not in seen[1].headers
    assert json.loads(seen[2].content) == {"a": small, "b": ["acme://file", {"c": "acme://file"}], "n": 3}
    assert call.input["b"][0] == large


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        (data_uri.build(b"x" * 2_000, "image/png"), InputUnfit),
        ("data:image/png;base64," + "!" * 400, InputRefused),
    ],
)
async def test_a_file_that_cannot_be_uploaded_starts_nothing(file: str, kind: type[Exception]) -> None:
    seen: list[httpx.Request] = []
    with pytest.raises(kind):
        await driver_over(uploads(seen), Uploading()).submit(a_call(input={"a": file}))
    assert seen == []


@pytest.mark.parametrize("status", [500, 302])
async def test_an_upload_that_fails_means_that_nothing_was_started(status: int) -> None:
    class Strict(Uploading):
        def read_upload(self, file: File, handle: dict[str, str], response: HttpResponse) -> str | Ask:
            raise PollFailed("no", status=response.status)

    large = data_uri.build(b"l" * 500, "image/png")
    with pytest.raises(NotSent, match="could not be uploaded") as caught:
        await driver_over(says({}, status), Strict()).submit(a_call(input={"a": large}))
    assert caught.value.status == status


# -- published keys ---------------------------------------------------------------------------------------------------


class Published(EchoAdapter):
    def callback_keys(self) -> HttpRequest | None:
        return HttpRequest(method="GET", url="/keys")

    def read_callback(self, headers: Any, body: bytes, *, secrets: tuple[str, ...], now: datetime) -> Callback:
        if body.decode() not in secrets[-1]:
            raise CallbackForged("no key fits")
        return Callback(fact=Fact(phase=Phase.SUCCEEDED, output="told"))


class KeyServer:
    def __init__(self) -> None:
        self.keys = "old"
        self.asked = 0
        self.status = 200

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        return httpx.Response(self.status, text=self.keys)


async def heard(driver: HttpDriver, key: str) -> Fact | None:
    return (await driver.read_callback({}, key.encode(), now=NOW)).fact


async def test_published_keys_are_fetched_once_and_again_when_they_were_changed() -> None:
    server, clock = KeyServer(), ManualClock()
    driver = driver_over(server, Published(), clock=clock)
    assert await heard(driver, "old")
    assert await heard(driver, "old")
    assert server.asked == 1
    server.keys = "new"
    clock.advance(3_600)
    assert await heard(driver, "new")
    assert server.asked == 2


async def test_strangers_cannot_make_us_fetch_keys_over_and_over() -> None:
    server, clock = KeyServer(), ManualClock()
    driver = driver_over(server, Published(), clock=clock)
    for _ in range(50):
        with pytest.raises(CallbackForged):
            await heard(driver, "forged")
    assert server.asked == 1


async def test_without_the_keys_a_callback_is_a_nudge() -> None:
    server, clock = KeyServer(), ManualClock()
    server.status = 500
    driver = driver_over(server, Published(), clock=clock)
    assert await heard(driver, "old") is None
    server.status = 200
    clock.advance(120)
    assert await heard(driver, "old")


async def test_keys_are_not_believed_for_ever() -> None:
    server, clock = KeyServer(), ManualClock()
    driver = driver_over(server, Published(), clock=clock)
    assert await heard(driver, "old")
    server.keys = "new"
    clock.advance(2 * 86_400)
    with pytest.raises(CallbackForged):
        await heard(driver, "old")


# -- secrets of one attempt, trace, headroom --------------------------------------------------------------------------


async def test_an_attempts_own_secret_counts_only_where_the_provider_was_told_it() -> None:
    class Telling(EchoAdapter):
        def describe(self, options: Options) -> Capabilities:
            return msgspec.structs.replace(super().describe(options), takes_callback_secret=True)

    for adapter, expected in ((EchoAdapter(), ("whsec",)), (Telling(), ("own", "whsec"))):
        driver = driver_over(says({}), adapter, callback_secrets=("whsec",))
        callback = await driver.read_callback({}, b"", now=NOW, secret="own")
        assert callback.fact is not None
        assert callback.fact.output == expected


@pytest.mark.parametrize("takes", [True, False])
async def test_trace_context_goes_where_it_is_of_use(takes: bool) -> None:
    class Tracing(EchoAdapter):
        def describe(self, options: Options) -> Capabilities:
            return msgspec.structs.replace(super().describe(options), takes_traceparent=takes)

    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"id": "1"})

    context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await driver_over(handle, Tracing()).submit(a_call(traceparent=context))
    assert seen[0].headers.get("traceparent") == (context if takes else None)


async def test_results_are_fetched_with_credentials_only_where_they_are_ours_and_needed() -> None:
    class Guarded(EchoAdapter):
        def describe(self, options: Options) -> Capabilities:
            return msgspec.structs.replace(super().describe(options), result_needs_credentials=True)

    driver = driver_over(says({}), Guarded())
    assert await driver.credentials_for("https://api.example.com/v1/files/1") == {"authorization": f"Bearer {TOKEN}"}
    for url in ("https://files.example.net/1", "https://evil.example/1", "http://api.example.com/v1/x", "nonsense"):
        assert await driver.credentials_for(url) == {}
    assert await driver_over(says({})).credentials_for("https://api.example.com/v1/files/1") == {}


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        ({"x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "25"}, 0.25),
        (
            {
                "x-ratelimit-limit-requests": "100",
                "x-ratelimit-remaining-requests": "25",
                "x-ratelimit-limit-tokens": "1000",
                "x-ratelimit-remaining-tokens": "10",
            },
            0.01,
        ),
        ({"current-concurrent-requests": "2", "maximum-concurrent-requests": "8"}, 0.75),
        ({"ratelimit-remaining": "7"}, None),
        ({"x-ratelimit-limit": "0", "x-ratelimit-remaining": "0"}, None),
        ({"x-ratelimit-limit": "9" * 400, "x-ratelimit-remaining": "1"}, None),
        ({"x-ratelimit-limit": "ten", "x-ratelimit-remaining": "1"}, None),
        ({}, None),
    ],
)
def test_headroom_is_the_share_of_the_tightest_limit(headers: dict[str, str], left: float | None) -> None:
    assert read_headroom(HttpResponse(status=200, headers=headers, body=b"")) == left


async def test_a_refused_credential_is_known_as_such_before_anything_was_sent() -> None:
    class Refusing(EchoAdapter):
        pass

    adapter = Refusing()
    way = adapter.auth[0]

    class Way:
        parts, optional = way.parts, way.optional

        def headers(self, *args: Any, **options: Any) -> dict[str, str]:
            raise CredentialRefused("the key is no key")

        def exchange(self, *args: Any, **options: Any) -> None:
            return None

        def read_exchange(self, response: HttpResponse) -> Any:
            raise AssertionError

    adapter.auth = (Way(),)
    driver = driver_over(lambda request: pytest.fail("it was sent"), adapter)
    with pytest.raises(CredentialRefused):
        await driver.submit(a_call())
    with pytest.raises(PollFailed):
        await driver.poll({"url": "/jobs/1"})


# -- what logs hear --------------------------------------------------------------------------------------------------

CANARY = "my own prompt, which is nobody's business"


class Stumbling(EchoAdapter):
    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact | Ask:
        return Fact(phase=json.loads(response.body)[CANARY])

    def poll(self, handle: dict[str, str]) -> HttpRequest:
        return HttpRequest(method="GET", url="/jobs/1")


async def test_a_stumble_is_logged_with_its_place_and_without_what_it_stumbled_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver = driver_over(says({"prompt": CANARY}), Stumbling())
    with pytest.raises(PollFailed):
        await driver.poll({"id": "1"})
    assert "its adapter stumbled" in caplog.text
    assert "KeyError" in caplog.text
    assert "read_poll" in caplog.text
    assert CANARY not in caplog.text
    await driver.aclose()


@pytest.mark.parametrize("word", [f"{CANARY}\nforged: line", {"prompt": CANARY}, [CANARY] * 1_000, "x" * 10_000])
def test_a_state_that_nobody_knows_is_logged_only_if_it_is_a_plain_word(
    word: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert phase_of(word, {}) is Phase.RUNNING
    assert CANARY not in caplog.text
    assert len(caplog.text) < 500


def test_a_state_that_nobody_knows_is_logged_once_and_not_at_every_poll(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(100):
        phase_of("HIBERNATING", {"DONE": Phase.SUCCEEDED})
    assert caplog.text.count("HIBERNATING") == 1
