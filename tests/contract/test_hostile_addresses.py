"""Every adapter over its own recordings, each address in an answer replaced: nothing is asked there, no token goes."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import httpx
import msgspec
import pytest

from gateway.contract.errors import ProviderFailure
from gateway.contract.provider import Call, HttpResponse
from gateway.testing.recording import answer, read_recording, recordings
from providers._auth import Headers, SigV4
from providers._driver import HttpDriver
from tests.contract.test_recordings import RECORDINGS, build, public_adapters

CANARY = "tok-CANARY-0123456789"
ADDRESS = re.compile(rb"https?://([^/\"\\\s?#]+)")
EVIL = (
    "https://evil.example",
    "http://169.254.169.254",
    "https://{host}@evil.example",
    "https://{host}.evil.example",
    "https://evil.example\\\\@{host}",
    "http://{host}",
    "https://{host}:8443",
)


def led_astray(response: HttpResponse, evil: str) -> HttpResponse:
    def elsewhere(found: re.Match[bytes]) -> bytes:
        return evil.replace("{host}", found[1].decode()).encode()

    headers = {name: ADDRESS.sub(elsewhere, text.encode()).decode() for name, text in response.headers.items()}
    return msgspec.structs.replace(response, headers=headers, body=ADDRESS.sub(elsewhere, response.body))


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def secrets_of(adapter: Any) -> dict[str, str]:
    way = next((way for way in adapter.auth if isinstance(way, Headers | SigV4)), None)
    return {} if way is None else {part: f"{CANARY}-{part}" for part in way.parts}


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("word", public_adapters())
async def test_no_answer_leads_us_or_our_token_to_somebody_else(word: str, evil: str) -> None:
    for path in recordings(RECORDINGS / word):
        recording = read_recording(path)
        adapter = build(path.parent, recording.options)
        base = adapter.base_url or "https://base.acme.example/x"
        asked: list[httpx.Request] = []
        answers = [led_astray(answer(step["response"]), evil) for step in recording.steps if "response" in step]

        def respond(request: httpx.Request, answers: Any = answers, asked: Any = asked) -> httpx.Response:
            asked.append(request)
            told = answers[min(len(asked), len(answers)) - 1]
            return httpx.Response(told.status, headers=dict(told.headers), content=told.body)

        driver = HttpDriver(
            word, adapter, base_url=base, credentials=secrets_of(adapter), transport=httpx.MockTransport(respond)
        )
        if answers:
            await _converse(driver, recording.call)
        own = {origin(httpx.URL(place)) for place in (base, *adapter.sites.values())}
        for request in asked:
            scheme, host, port = origin(request.url)
            is_sibling = (scheme, port) == ("https", None) and host.endswith(adapter.origins or ("//",))
            shown = f"{request.url} {dict(request.headers)}"
            place = f"{path.stem}: {request.method} {request.url}"
            assert origin(request.url) in own or is_sibling or CANARY not in shown, place
            assert "evil.example" not in host, place
            assert host != "169.254.169.254", place
        await driver.aclose()


async def _converse(driver: HttpDriver, said: dict[str, Any]) -> None:
    call = msgspec.convert(
        {
            "prediction": "p",
            "attempt": 1,
            "version": None,
            "idempotency_id": "3zy5cb0aqn4e8kxw7mt1vdrs2g",
            "callback_url": None,
            "deadline_seconds": 90.0,
        }
        | said,
        Call,
    )
    with contextlib.suppress(ProviderFailure):
        fact = await driver.submit(call)
        for ask in (driver.poll, driver.cancel, driver.poll):
            with contextlib.suppress(ProviderFailure):
                await ask(fact.handle or {})
