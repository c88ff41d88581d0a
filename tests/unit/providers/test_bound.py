"""A provider that says too much does not fill our store: logs, metrics, handles and words are bounded."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from gateway.contract.errors import ModelFailed, OutcomeUnknown, PollFailed
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Call, HttpRequest, HttpResponse
from providers._bound import MAX_LOG_CHARACTERS, bounded
from providers._driver import HttpDriver
from providers.cog import Cog
from providers.replicate import Replicate
from tests.unit.providers.echo_adapter import EchoAdapter, a_call
from tests.unit.providers.test_driver_trust import driver_over, says

JOB = "q9e7w5r3t1y8v6p4a2s0d9f7gh"
MOST_BYTES = 2_000_000  # of all that is kept of one answer beside its output


def size(fact: Fact) -> int:
    return len(msgspec.json.encode(msgspec.structs.replace(fact, output=None)))


FLOODS: list[dict[str, Any]] = [
    {"logs": "x" * 30_000_000},
    {"metrics": {f"m{number}": number for number in range(200_000)}},
    {"metrics": {"predict_time": 1.5, "picture": "x" * 10_000_000}},
    {"metrics": {"x" * 10_000_000: 1, "predict_time": 1.5}},
    {"status": "failed", "error": "x" * 10_000_000},
]


@pytest.mark.parametrize("flood", FLOODS)
async def test_what_is_kept_of_a_poll_is_bounded(flood: dict[str, Any]) -> None:
    body = {"id": JOB, "status": "processing", "output": "kept"} | flood
    driver = HttpDriver("acme", Replicate(), transport=httpx.MockTransport(says(body)))
    fact = await driver.poll({"id": JOB})
    assert size(fact) < MOST_BYTES
    assert fact.phase is Phase.FAILED or fact.output == "kept"
    assert fact.metrics.get("predict_time") == flood.get("metrics", {}).get("predict_time")
    await driver.aclose()


async def test_what_a_stream_tells_on_its_way_is_bounded_too() -> None:
    line = 'event: log\ndata: {"source": "stdout", "data": "%s"}\n\n' % ("x" * 900_000)
    end = f'event: completed\ndata: {{"id": "{JOB}", "status": "succeeded", "output": "o"}}\n\n'
    heard: list[Fact] = []

    async def on_fact(fact: Fact) -> None:
        heard.append(fact)

    def answer(request: httpx.Request) -> httpx.Response:
        chunks = [line.encode() * 3, end.encode()]
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=_Chunks(chunks))

    driver = HttpDriver("acme", Cog(options={"stream": True}), transport=httpx.MockTransport(answer))
    fact = await driver.submit(a_call(stream=True), on_fact=on_fact)
    assert fact.output == "o"
    assert heard
    assert all(size(fact) < MOST_BYTES for fact in heard)
    await driver.aclose()


class _Chunks(httpx.AsyncByteStream):
    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> Any:
        for chunk in self._chunks:
            yield chunk


class Handing(EchoAdapter):
    handle: dict[str, str]

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        return Fact(phase=Phase.QUEUED, handle=self.handle)

    def poll(self, handle: dict[str, str]) -> HttpRequest:
        return HttpRequest(method="GET", url="/jobs/1")

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact:
        return Fact(phase=Phase.RUNNING, handle=self.handle)


@pytest.mark.parametrize("handle", [{"id": "j", "url": "x" * 20_000}, {f"k{number}": "v" for number in range(9_000)}])
async def test_a_handle_that_no_row_should_hold_is_refused(handle: dict[str, str]) -> None:
    adapter = Handing()
    adapter.handle = handle
    driver = driver_over(says({}), adapter)
    with pytest.raises(OutcomeUnknown, match="too long"):
        await driver.submit(a_call())
    with pytest.raises(PollFailed, match="too long"):
        await driver.poll({"id": "j"})
    await driver.aclose()


def test_what_was_shown_of_a_log_stays_its_beginning() -> None:
    grown = [bounded(Fact(phase=Phase.RUNNING, logs="y" * length)) for length in (999_999, 1_000_001, 5_000_000)]
    logs = [fact.logs or "" for fact in grown]
    assert logs[1].startswith(logs[0])
    assert logs[2] == logs[1]
    assert len(logs[2]) < MAX_LOG_CHARACTERS + 100


def test_what_fits_is_not_even_copied() -> None:
    failure = ModelFailed("no").failure
    fact = Fact(phase=Phase.FAILED, logs="l", metrics={"predict_time": 1.0, "tags": ["a"]}, failure=failure)
    assert bounded(fact) is fact
