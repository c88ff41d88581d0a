"""Every provider twice behind one gateway: one that makes seeded trouble, and a calm one. What must hold then."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.fakes import script as scripts
from tests.e2e.fakes.provider import Faults, RecordedProvider
from tests.e2e.fakes.setting import model_section, provider_section
from tests.e2e.gateway_process import GatewayProcess

SEED = 20_260_301
EACH = 6  # predictions for each provider, half of them under each policy
WAIT_SECONDS = 45
CHANCES = {"cut_before": 0.1, "cut_after": 0.12, "refuse": 0.12, "break_down": 0.15}
POLL_CHANCES = {"babble": 0.12, "cut_poll": 0.12, "other_job": 0.15}
TERMINAL = ("succeeded", "failed", "canceled", "aborted")
# A job at either costs a cent. Who may pay twice may start at the calm one after an unknown outcome, who may not stops.
POLICIES = """
[[policies]]
name = "twice"
rank = { by = "ordered" }
limits = { attempts = 2, deadline_seconds = 12, pay_twice_up_to = "0.02" }
[[policies]]
name = "once"
rank = { by = "ordered" }
limits = { attempts = 2, deadline_seconds = 12, pay_twice_up_to = "0.005" }
"""
SCHEMA = {"Input": {"type": "object"}, "Output": {"type": "string", "format": "uri"}}


class Universe:
    """The gateway, its providers and what became of all predictions."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.words = scripts.words()
        self.wild = {word: stack.enter_context(_wild(word, n)) for n, word in enumerate(self.words)}
        self.calm = {word: stack.enter_context(RecordedProvider(word)) for word in self.words}
        self.gateway = stack.enter_context(self._gateway(folder))
        self.predictions: dict[str, dict[str, Any]] = {}

    def _gateway(self, folder: Path) -> GatewayProcess:
        (folder / "any.json").write_text(json.dumps(SCHEMA))
        (folder / "policies.toml").write_text(POLICIES.replace('"ordered"', f'"ordered", order = {self._order()}'))
        environ: dict[str, str] = {}
        config = '[local]\nenabled = false\n[policies]\nfiles = ["policies.toml"]\n'
        for word in self.words:
            config += provider_section(f"{word}_wild", self.wild[word], environ)
            config += provider_section(f"{word}_calm", self.calm[word], environ)
            config += model_section(self.calm[word], providers=(f"{word}_wild", f"{word}_calm"), price="0.01")
        return GatewayProcess(folder, config, environ=environ)

    def _order(self) -> str:
        return json.dumps([f"{word}_{kind}" for kind in ("wild", "calm") for word in self.words])

    def run(self) -> None:
        """All at once, each held until it has ended: their deadline is well before the wait is over."""
        asked = [(word, number) for number in range(EACH) for word in self.words]
        with self.gateway.client(seconds=WAIT_SECONDS + 10) as client, ThreadPoolExecutor(len(asked)) as pool:
            for shown in pool.map(lambda one: self._predict(client, *one), asked):
                self.predictions[shown["id"]] = shown
        open_ones = [shown for shown in self.predictions.values() if shown["status"] not in TERMINAL]
        assert not open_ones, f"{len(open_ones)} never ended"
        assert len(self.predictions) == len(asked)

    def _predict(self, client: httpx.Client, word: str, number: int) -> dict[str, Any]:
        body = {"input": self.calm[word].script.call.input}
        headers = {"turnout-policy": ("twice", "once")[number % 2], "prefer": f"wait={WAIT_SECONDS}"}
        answer = client.post(f"/v1/models/fakes/{word}/predictions", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def attempts(self, provider: str) -> list[dict[str, Any]]:
        return [a for p in self.predictions.values() for a in p["routing"]["attempts"] if a["provider"] == provider]


def _wild(word: str, number: int) -> RecordedProvider:
    return RecordedProvider(word, faults=Faults(seed=SEED + number, **CHANCES, **POLL_CHANCES))


@pytest.mark.timeout(120)  # a whole universe
def test_all_predictions_end_and_nobody_pays_for_a_job_that_was_not_wanted(tmp_path: Path) -> None:
    with ExitStack() as stack:
        universe = Universe(tmp_path, stack)
        universe.run()
        counts = Counter[str]()
        for fake in universe.wild.values():
            counts.update(fake.faults.counts)
        ends = Counter(prediction["status"] for prediction in universe.predictions.values())
        print(
            f"seed {SEED}: {len(universe.predictions)} predictions {dict(ends)}, faults {dict(sorted(counts.items()))}"
        )
        never = {field.name for field in fields(Faults) if isinstance(field.default, float)} - counts.keys()
        assert not never, f"these faults never struck: {never}"
        for word in universe.words:
            books_agree(universe, word)
        for prediction in universe.predictions.values():
            money_is_as_the_policy_has_it(prediction)
            outputs_are_ours(universe, prediction)
        log = universe.gateway.log
        assert "stumbled" not in log
        assert "Traceback" not in log


def books_agree(universe: Universe, word: str) -> None:
    """No attempt started two jobs, and every success has a job that was done, and done only for it."""
    for kind, fake in (("wild", universe.wild[word]), ("calm", universe.calm[word])):
        attempts = universe.attempts(f"{word}_{kind}")
        refused = sum(fake.faults.counts.get(name, 0) for name in ("cut_before", "refuse", "break_down"))
        said = (word, kind, fake.started, len(attempts), fake.faults.counts, fake.strange)
        assert fake.strange == [], said
        if fake.script.adapter.capabilities_for(fake.script.call.options).idempotent_submit:
            assert fake.started <= len(attempts), said  # the same submit is sent again until it is heard
        else:
            assert fake.started == len(attempts) - refused, said
        succeeded = [attempt for attempt in attempts if attempt["status"] == "succeeded"]
        # Somebody else's finished job, taken for ours, would be a success without a job that was done.
        assert len(succeeded) <= sum(job.is_done for job in fake.jobs), said


def money_is_as_the_policy_has_it(prediction: dict[str, Any]) -> None:
    attempts = prediction["routing"]["attempts"]
    assert 1 <= len(attempts) <= 2
    assert sum(attempt["status"] == "succeeded" for attempt in attempts) == (prediction["status"] == "succeeded")
    first = attempts[0]
    if len(attempts) == 2 and prediction["routing"]["policy"] == "once":
        assert first.get("code") != "outcome_unknown", prediction
        assert first["cost"]["amount"] == "0", json.dumps(attempts)


def outputs_are_ours(universe: Universe, prediction: dict[str, Any]) -> None:
    for url in scripts.result_urls(prediction["output"]):
        assert url.startswith(universe.gateway.url), prediction
