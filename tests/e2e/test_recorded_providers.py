"""Every adapter over real sockets: a whole gateway process, and behind it a fake of each provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.e2e.fakes import script as scripts
from tests.e2e.fakes.provider import RecordedProvider
from tests.e2e.fakes.setting import credentials, model_section, provider_section
from tests.e2e.gateway_process import GatewayProcess

WORDS = scripts.words()
SCHEMA = {"Input": {"type": "object"}, "Output": {"type": "string", "format": "uri"}}


class House:
    """One gateway with all providers behind it."""

    def __init__(self, gateway: GatewayProcess, fakes: dict[str, RecordedProvider]) -> None:
        self.gateway = gateway
        self.fakes = fakes

    def predict(self, word: str, *, seconds: float = 12.0) -> dict[str, Any]:
        fake = self.fakes[word]
        with self.gateway.client() as client:
            body = {"input": fake.script.call.input}
            headers = {"prefer": f"wait={int(seconds)}"}
            answer = client.post(f"/v1/models/fakes/{word}/predictions", json=body, headers=headers)
            assert answer.status_code in (200, 201), answer.text
            return dict(answer.json())

    def file(self, url: str) -> httpx.Response:
        return httpx.get(url, trust_env=False)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    (folder / "any.json").write_text(json.dumps(SCHEMA))
    environ: dict[str, str] = {}
    with ExitStack() as stack:
        fakes = {word: stack.enter_context(RecordedProvider(word)) for word in WORDS}
        config = "".join(
            provider_section(word, fake, environ) + model_section(fake, providers=(word,))
            for word, fake in fakes.items()
        )
        gateway = GatewayProcess(folder, "[local]\nenabled = false\n" + config, environ=environ)
        yield House(stack.enter_context(gateway), fakes)


@pytest.mark.parametrize("word", WORDS)
def test_a_prediction_goes_all_the_way_and_is_started_once(house: House, word: str) -> None:
    fake = house.fakes[word]
    before = fake.started
    prediction = house.predict(word)
    assert prediction["status"] == "succeeded", (prediction["error"], fake.strange, house.gateway.log[-2000:])
    assert fake.started == before + 1
    assert fake.strange == []
    for url in scripts.result_urls(prediction["output"]):
        # Whatever form it came in: it lies with us now, with a type and a size.
        assert url.startswith(house.gateway.url), url
        file = house.file(url)
        assert file.status_code == 200
        assert file.content
        assert "/" in file.headers["content-type"]


@pytest.mark.parametrize("word", WORDS)
def test_the_provider_was_shown_who_we_are(house: House, word: str) -> None:
    fake = house.fakes[word]
    way = credentials(fake)
    if way is None:
        return
    if not fake.jobs:
        house.predict(word)
    shown = " ".join(fake.jobs[-1].headers.values())
    secret_parts = {part for part in way.parts.keys() - way.optional if "secret_access" not in part}
    assert any(f"secret-of-{word}-{part}" in shown for part in secret_parts), fake.jobs[-1].headers
