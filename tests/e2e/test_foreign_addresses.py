"""Answers that name somebody else's server: whatever adapter reads them, it never sees a credential of ours."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fakes import script as scripts
from tests.e2e.fakes.elsewhere import Elsewhere
from tests.e2e.fakes.provider import RecordedProvider
from tests.e2e.fakes.setting import credentials, model_section, provider_section
from tests.e2e.gateway_process import GatewayProcess

WORDS = scripts.words()
SCHEMA = {"Input": {"type": "object"}, "Output": {"type": "string", "format": "uri"}}
POLICY = """
[[policies]]
name = "briefly"
limits = { deadline_seconds = 6, attempts = 1 }
"""
TERMINAL = ("succeeded", "failed", "canceled", "aborted")


class Street:
    """All providers behind one gateway, and somebody else next door."""

    def __init__(self, folder: Path, stack: ExitStack, *, may_fetch: bool) -> None:
        self.elsewhere = stack.enter_context(Elsewhere())
        self.fakes = {word: stack.enter_context(RecordedProvider(word)) for word in WORDS}
        self.environ: dict[str, str] = {}
        config = "[local]\nenabled = false\n[policies]\nfiles = ['briefly.toml']\n"
        if may_fetch:
            config += f"[artifacts]\nallow = ['{self.elsewhere.place}']\n"
        for word, fake in self.fakes.items():
            config += provider_section(word, fake, self.environ) + model_section(fake, providers=(word,))
        (folder / "any.json").write_text(json.dumps(SCHEMA))
        (folder / "briefly.toml").write_text(POLICY)
        self.gateway = stack.enter_context(GatewayProcess(folder, config, environ=self.environ))

    def run(self) -> dict[str, dict[str, Any]]:
        """One prediction for each provider, by its word, when all have ended."""
        ended: dict[str, dict[str, Any]] = {}
        with self.gateway.client() as client:
            asked = {}
            for word, fake in self.fakes.items():
                body = {"input": fake.script.call.input}
                answer = client.post(
                    f"/v1/models/fakes/{word}/predictions", json=body, headers={"turnout-policy": "briefly"}
                )
                assert answer.status_code == 201, answer.text
                asked[word] = answer.json()["id"]
            until = time.monotonic() + 15
            while ended.keys() != asked.keys():
                assert time.monotonic() < until, asked.keys() - ended.keys()
                for word in asked.keys() - ended.keys():
                    shown = client.get(f"/v1/predictions/{asked[word]}").json()
                    if shown["status"] in TERMINAL:
                        ended[word] = shown
                time.sleep(0.05)
        return ended

    def nothing_leaked(self) -> None:
        for asked in self.elsewhere.asked:
            assert not any(secret in asked.shown for secret in self.environ.values()), asked
            assert not {"authorization", "cookie", "x-key", "x-goog-api-key"} & asked.headers.keys(), asked
            assert "AWS4" not in asked.shown
        assert "stumbled" not in self.gateway.log
        assert "Traceback" not in self.gateway.log

    def all_were_asked(self) -> None:
        """Each provider was shown its credentials: what would have leaked was there."""
        for word, fake in self.fakes.items():
            way = credentials(fake)
            shown = [job.headers for job in fake.jobs] + fake.turned_away
            assert shown, word
            if way is not None:
                assert any(secret in str(shown) for secret in self.environ.values()), word


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.timeout(60)
@pytest.mark.parametrize("may_fetch", [False, True])
def test_urls_on_a_foreign_host_see_no_credential(tmp_path: Path, stack: ExitStack, may_fetch: bool) -> None:
    street = Street(tmp_path, stack, may_fetch=may_fetch)
    for word, fake in street.fakes.items():
        fake.foreign = f"{street.elsewhere.url}/{word}"
    ended = street.run()
    street.nothing_leaked()
    street.all_were_asked()
    asked = {one.path.split("/")[1] for one in street.elsewhere.asked}
    if not may_fetch:
        assert street.elsewhere.asked == []
        return
    # A host that ops allow may be asked for results, as anybody may: by a plain GET, by who got a result from there.
    assert {one.method for one in street.elsewhere.asked} == {"GET"}
    assert asked == {word for word in asked if ended[word]["status"] == "succeeded"}
    assert asked, "nobody named a result there: this test would show nothing"


@pytest.mark.timeout(60)
def test_a_result_that_was_moved_is_fetched_without_credentials(tmp_path: Path, stack: ExitStack) -> None:
    street = Street(tmp_path, stack, may_fetch=True)
    for word, fake in street.fakes.items():
        fake.moved = f"{street.elsewhere.url}/{word}"
    ended = street.run()
    street.nothing_leaked()
    asked = {one.path.split("/")[1] for one in street.elsewhere.asked}
    behind_credentials = {word for word, fake in street.fakes.items() if fake.keeps_files}
    assert asked == behind_credentials
    assert asked, "no provider keeps its results behind credentials: this test would show nothing"
    assert {ended[word]["status"] for word in asked} == {"succeeded"}


@pytest.mark.timeout(60)
def test_a_provider_that_sends_us_away_is_not_followed(tmp_path: Path, stack: ExitStack) -> None:
    street = Street(tmp_path, stack, may_fetch=True)
    for word, fake in street.fakes.items():
        fake.sends_away_to = f"{street.elsewhere.url}/{word}"
    ended = street.run()
    street.nothing_leaked()
    street.all_were_asked()
    assert street.elsewhere.asked == []
    assert {prediction["status"] for prediction in ended.values()} == {"failed"}
