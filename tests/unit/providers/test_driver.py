"""The driver over a mock transport: what is sent, where the token goes, and what every error of httpx becomes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from gateway.contract.errors import (
    CallbackForged,
    ConfigurationError,
    Failure,
    NotSent,
    OutcomeUnknown,
    PollFailed,
    ProviderFailure,
    Refused,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Adapter, Cancellation, Driver
from providers._driver import HttpDriver
from tests.unit.providers.echo_adapter import EchoAdapter, a_call

CANARY = "r8_CANARY_1234567890abcdef"


def driver_over(handler: Any, adapter: EchoAdapter | None = None, **options: Any) -> HttpDriver:
    options.setdefault("credentials", {"token": CANARY})
    return HttpDriver("acme", adapter or EchoAdapter(), transport=httpx.MockTransport(handler), **options)


def answer(request: httpx.Request) -> httpx.Response:
    return httpx.Response(201, json={"id": "j1", "status": "queued"})


def raising(error: BaseException) -> Any:
    def handle(request: httpx.Request) -> httpx.Response:
        raise error

    return handle


# -- what every error becomes ----------------------------------------------------------------------------------------

# Written out, not computed: a class that a new httpx brings has to be put here by a person who looked.
SENT_NOTHING = {"ConnectError", "ConnectTimeout", "InvalidURL", "PoolTimeout", "ProxyError", "UnsupportedProtocol"}
MAY_HAVE_SENT = {
    "CloseError",
    "CookieConflict",
    "DecodingError",
    "HTTPError",
    "HTTPStatusError",
    "LocalProtocolError",
    "NetworkError",
    "ProtocolError",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "RequestError",
    "RequestNotRead",
    "ResponseNotRead",
    "StreamClosed",
    "StreamConsumed",
    "StreamError",
    "TimeoutException",
    "TooManyRedirects",
    "TransportError",
    "WriteError",
    "WriteTimeout",
}


def httpx_errors() -> Iterator[type[Exception]]:
    for name in dir(httpx):
        found = getattr(httpx, name)
        if isinstance(found, type) and issubclass(found, Exception):
            yield found


def make(kind: type[Exception]) -> Exception:
    request = httpx.Request("POST", "https://api.example.com/v1/jobs")
    if kind is httpx.HTTPStatusError:
        return httpx.HTTPStatusError("500", request=request, response=httpx.Response(500, request=request))
    if issubclass(kind, httpx.StreamError) and kind is not httpx.StreamError:
        return kind()
    return kind("it broke")


def test_the_tables_name_every_error_of_httpx() -> None:
    assert {kind.__name__ for kind in httpx_errors()} == SENT_NOTHING | MAY_HAVE_SENT


@pytest.mark.parametrize("kind", list(httpx_errors()), ids=lambda kind: kind.__name__)
async def test_every_error_of_httpx_says_whether_something_was_sent(kind: type[Exception]) -> None:
    driver = driver_over(raising(make(kind)))
    with pytest.raises(ProviderFailure) as caught:
        await driver.submit(a_call())
    assert type(caught.value) is (NotSent if kind.__name__ in SENT_NOTHING else OutcomeUnknown)
    assert kind.__name__ in str(caught.value)
    with pytest.raises(PollFailed):
        await driver.poll({"url": "/jobs/j1"})
    with pytest.raises(PollFailed):
        await driver.cancel({"url": "/jobs/j1"})


@pytest.mark.parametrize(
    "error", [OSError("odd"), ValueError("odd"), RuntimeError("Session is closed"), TimeoutError()]
)
async def test_an_error_nobody_thought_of_counts_as_sent(error: Exception) -> None:
    with pytest.raises(OutcomeUnknown):
        await driver_over(raising(error)).submit(a_call())


class BreakingBody(httpx.AsyncByteStream):
    def __init__(self, error: Exception) -> None:
        self.error = error
        self.is_closed = False

    async def __aiter__(self) -> Any:
        yield b'{"id": '
        raise self.error

    async def aclose(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("error", [httpx.ConnectTimeout("lost"), httpx.ReadError("lost"), OSError("lost")])
async def test_once_an_answer_has_begun_no_error_says_that_nothing_was_sent(error: Exception) -> None:
    # httpx-aiohttp calls some connections that break under an answer a ConnectTimeout.
    body = BreakingBody(error)
    with pytest.raises(OutcomeUnknown, match="broke off") as caught:
        await driver_over(lambda request: httpx.Response(201, stream=body)).submit(a_call())
    assert caught.value.status == 201
    assert body.is_closed


async def test_a_cancelled_submit_is_cancelled_and_lets_its_answer_go() -> None:
    class Endless(BreakingBody):
        async def __aiter__(self) -> Any:
            reading.set()
            await asyncio.Event().wait()
            yield b""

    reading, body = asyncio.Event(), Endless(OSError())
    task = asyncio.ensure_future(driver_over(lambda request: httpx.Response(201, stream=body)).submit(a_call()))
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert body.is_closed


# -- what is sent ----------------------------------------------------------------------------------------------------


async def test_a_submit_goes_out_as_the_adapter_said_with_our_token_and_no_coding() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answer(request)

    adapter = EchoAdapter(headers={"Idempotency-Key": "k", "Accept-Encoding": "br", "Authorization": "mine"})
    fact = await driver_over(handle, adapter).submit(a_call(input={"prompt": "höhö"}))
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", "https://api.example.com/v1/jobs")
    assert json.loads(request.content) == {"prompt": "höhö"}
    assert request.headers["authorization"] == f"Bearer {CANARY}"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == "k"
    assert fact.handle == {"id": "j1"}


@pytest.mark.parametrize("files", [(), (("image", "a.png", "image/png", b"\x89PNG"),)])
async def test_forms_and_files_are_multipart(files: tuple[tuple[str, str, str, bytes], ...]) -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answer(request)

    await driver_over(handle, EchoAdapter(form=(("n", "1"), ("n", "zwei ü")), files=files)).submit(a_call())
    (request,) = seen
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert request.headers["content-length"] == str(len(request.content))
    assert request.content.count(b'name="n"\r\n') == 2
    assert "zwei ü".encode() in request.content
    assert (b'name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n\x89PNG' in request.content) is bool(
        files
    )


@pytest.mark.parametrize(
    ("url", "authorization"),
    [("https://api.example.com/other", f"Bearer {CANARY}"), ("https://files.example.net/j1", None)],
)
async def test_only_the_own_origin_hears_the_token(url: str, authorization: str | None) -> None:
    seen: list[str | None] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return answer(request)

    await driver_over(handle).poll({"url": url})
    assert seen == [authorization]


@pytest.mark.parametrize("url", ["https://evil.test/steal", "//evil.test/steal", "http://api.example.com/v1/jobs"])
async def test_an_address_out_of_a_handle_that_is_not_the_providers_is_never_asked(url: str) -> None:
    driver = driver_over(lambda request: pytest.fail("it was asked"))
    with pytest.raises(PollFailed, match="not its own"):
        await driver.poll({"url": url})
    with pytest.raises(PollFailed, match="not its own"):
        await driver.cancel({"url": url})


@pytest.mark.parametrize(
    "request_",
    [
        {"url": "https://evil.test/"},
        {"headers": {"x": "a\r\nhost: evil.test"}},
        {"headers": {"x": "\u20ac"}},
        {"url": "/a\nb"},
        {"json": object()},
    ],
)
async def test_a_request_that_cannot_be_written_was_not_sent(request_: dict[str, Any]) -> None:
    driver = driver_over(lambda request: pytest.fail("it was sent"), EchoAdapter(**request_, content=b""))
    with pytest.raises(NotSent):
        await driver.submit(a_call())


async def test_input_that_nests_too_deep_for_json_was_not_sent() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(NotSent, match="RecursionError"):
        await driver_over(answer).submit(a_call(input={"x": deep}))


async def test_cookies_are_not_kept_and_redirects_not_followed() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(302, headers={"location": "https://evil.test/", "set-cookie": "a=b"}, json={"id": "j"})

    adapter = EchoAdapter()
    driver = driver_over(handle, adapter)
    await driver.submit(a_call())
    await driver.submit(a_call())
    assert [request.url.host for request in seen] == ["api.example.com", "api.example.com"]
    assert "cookie" not in seen[1].headers
    assert adapter.answers[0].status == 302


# -- secrets ---------------------------------------------------------------------------------------------------------


async def test_a_provider_that_quotes_our_token_does_not_get_it_into_an_error() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, text=f"Incorrect API key: {request.headers['authorization']}")

    with pytest.raises(Refused) as caught:
        await driver_over(handle).submit(a_call())
    assert CANARY not in str(caught.value)
    assert CANARY not in caught.value.failure.message
    assert caught.value.failure.message == "Incorrect API key: Bearer ***"


async def test_a_transport_that_quotes_our_token_does_not_get_it_into_an_error() -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        await driver_over(raising(httpx.ReadError(f"while sending {CANARY}"))).submit(a_call())
    assert CANARY not in str(caught.value)


async def test_a_failed_job_that_quotes_our_token_is_scrubbed() -> None:
    class Quoting(EchoAdapter):
        def _read(self, response: Any, otherwise: Any) -> Fact:
            failure = Failure(code="x", message=f"no {CANARY}", verdict=Refused.verdict, blame=Refused.blame)
            return Fact(phase=Phase.FAILED, failure=failure)

    driver = driver_over(answer, Quoting())
    for fact in (await driver.submit(a_call()), await driver.poll({"url": "/x"})):
        assert fact.failure is not None
        assert fact.failure.message == "no ***"


@pytest.mark.parametrize("token", ["CANARY\n", "CA\u2026NARY", " CANARY", "CANARY\tCANARY", "CANARY\x7f"])
def test_a_token_no_header_can_hold_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HttpDriver("acme", EchoAdapter(), credentials={"token": token})
    assert "CANARY" not in str(caught.value)
    assert str(caught.value).startswith("provider acme: ")


# -- an adapter is trusted with nothing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "kind"),
    [("submit", NotSent), ("read_submit", OutcomeUnknown), ("poll", PollFailed), ("read_poll", PollFailed)],
)
async def test_an_adapter_that_stumbles_fails_one_attempt_as_what_was_sent_demands(
    verb: str, kind: type[Exception]
) -> None:
    adapter = EchoAdapter()
    setattr(adapter, verb, lambda *args: {}["missing"])
    driver = driver_over(answer, adapter)
    with pytest.raises(kind, match="stumbled"):
        await (driver.submit(a_call()) if "submit" in verb else driver.poll({"url": "/x"}))


async def test_an_adapter_that_stumbles_over_a_callback_makes_it_a_nudge() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    driver = driver_over(answer, callback_secrets=("whsec_x",))
    assert (await driver.read_callback({}, b"id", now=now)).fact == Fact(phase=Phase.SUCCEEDED, output=("whsec_x",))

    class Stumbling(EchoAdapter):
        def read_callback(self, *args: Any, **options: Any) -> Any:
            raise self.error

        error: Exception = KeyError("x")

    stumbling = Stumbling()
    assert (await driver_over(answer, stumbling).read_callback({}, b"", now=now)).fact is None
    stumbling.error = CallbackForged("forged")
    with pytest.raises(CallbackForged):
        await driver_over(answer, stumbling).read_callback({}, b"", now=now)


async def test_what_cannot_be_asked_is_said_without_sending() -> None:
    driver = driver_over(lambda request: pytest.fail("it was asked"))
    with pytest.raises(PollFailed):
        await driver.poll({})
    assert await driver.cancel({}) is Cancellation.UNSUPPORTED


# -- streams ---------------------------------------------------------------------------------------------------------


class Words(httpx.AsyncByteStream):
    """A stream whose pieces the test hands out one by one."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    async def __aiter__(self) -> Any:
        while (piece := await self.pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def aclose(self) -> None: ...


def streaming(words: Words, **options: Any) -> HttpDriver:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=words, headers={"content-type": "text/event-stream; charset=utf-8"})

    return driver_over(handle, EchoAdapter(expects_stream=True), **options)


async def test_facts_of_a_stream_are_told_coalesced_and_the_newest_of_a_pause_is_told_in_the_pause() -> None:
    words, told, heard = Words(), [], asyncio.Event()

    async def on_fact(fact: Fact) -> None:
        told.append(fact.output)
        heard.set()

    submit = asyncio.ensure_future(streaming(words).submit(a_call(), on_fact=on_fact))
    words.pieces.put_nowait(b"data: 0\n\n")
    await heard.wait()
    heard.clear()
    for number in range(1, 500):
        words.pieces.put_nowait(f"data: {number}\n\n".encode())
    while told[-1][-1] != "499":  # the stream pauses here: nothing else comes to push it out
        await heard.wait()
        heard.clear()
    assert len(told) < 100
    assert told == sorted(told, key=len)
    words.pieces.put_nowait(b"data: last\n\nevent: done\ndata: {}\n\n")
    fact = await submit  # without waiting for the connection's end
    assert fact.phase is Phase.SUCCEEDED
    assert fact.output == [*map(str, range(500)), "last"]


async def test_a_failure_in_a_stream_is_raised_after_the_newest_fact_was_told() -> None:
    words, told = Words(), []

    async def on_fact(fact: Fact) -> None:
        told.append(fact.output)

    words.pieces.put_nowait(b"data: a\n\ndata: b\n\nevent: boom\ndata: no more\n\n")
    with pytest.raises(Refused, match="no more"):
        await streaming(words).submit(a_call(), on_fact=on_fact)
    assert told == [["a", "b"]]


async def test_an_end_in_failure_is_returned_after_the_newest_fact_was_told() -> None:
    words, told = Words(), []

    async def on_fact(fact: Fact) -> None:
        told.append(fact.output)

    words.pieces.put_nowait(b"data: a\n\ndata: b\n\nevent: failed\ndata: no more\n\n")
    fact = await streaming(words).submit(a_call(), on_fact=on_fact)
    assert fact.phase is Phase.FAILED
    assert told == [["a", "b"]]


@pytest.mark.parametrize(
    ("tail", "is_heard"),
    [
        (b'data: {"error": "oops"}', True),
        (b'data: {"error": "oops"}\n', True),
        (b'data: {"error": "oo', False),
        (b"data: half a wo", False),
        (b"data: 12", False),  # or the beginning of 123
        (b"event: done\ndata: {}", False),
    ],
)
async def test_the_event_that_a_stream_ends_in_counts_if_it_is_seen_to_be_whole(tail: bytes, is_heard: bool) -> None:
    words, told = Words(), []

    async def on_fact(fact: Fact) -> None:
        told.append(fact.output)

    words.pieces.put_nowait(b"data: a\n\n" + tail)
    words.pieces.put_nowait(None)
    with pytest.raises(OutcomeUnknown, match="before its end"):
        await streaming(words).submit(a_call(), on_fact=on_fact)
    assert told[-1] == (["a", '{"error": "oops"}'] if is_heard else ["a"])


@pytest.mark.parametrize("end", [None, httpx.ReadError("reset"), httpx.ConnectTimeout("closed")])
async def test_a_stream_that_breaks_before_its_end_is_unknown(end: Exception | None) -> None:
    words = Words()
    words.pieces.put_nowait(b"data: a\n\n")
    words.pieces.put_nowait(end)
    with pytest.raises(OutcomeUnknown):
        await streaming(words).submit(a_call())


async def test_what_a_listener_raises_ends_the_stream_and_comes_out_as_it_is() -> None:
    words = Words()
    words.pieces.put_nowait(b"data: a\n\n")

    async def on_fact(fact: Fact) -> None:
        raise TimeoutError("the store")

    with pytest.raises(TimeoutError, match="the store"):
        await streaming(words).submit(a_call(), on_fact=on_fact)


async def test_a_stream_outlives_the_time_of_a_submit_and_not_the_calls_deadline() -> None:
    words = Words()
    words.pieces.put_nowait(b"data: a\n\n")
    with pytest.raises(OutcomeUnknown, match=r"within 0\.15 s"):
        await streaming(words, submit_seconds=0.01).submit(a_call(deadline_seconds=0.15))


async def test_an_answer_that_is_no_stream_is_read_as_a_whole() -> None:
    driver = driver_over(answer, EchoAdapter(expects_stream=True))
    assert (await driver.submit(a_call())).handle == {"id": "j1"}


async def test_a_refusal_dressed_as_a_stream_is_a_refusal() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, text="data: x\n\n", headers={"content-type": "text/event-stream"})

    with pytest.raises(Refused):
        await driver_over(handle, EchoAdapter(expects_stream=True)).submit(a_call())


def test_the_driver_and_its_adapter_fulfil_the_contract() -> None:
    adapter: Adapter = EchoAdapter()
    driver: Driver = HttpDriver("acme", adapter)
    assert driver.name == "acme"
    assert isinstance(adapter, Adapter)
    assert msgspec.structs.asdict(driver.capabilities) == msgspec.structs.asdict(adapter.capabilities)
