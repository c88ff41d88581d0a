"""Two tokens in the environment: the catalogue's models are served by fal and Replicate, each there for the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.fakes.fal import FalFake
from tests.e2e.fakes.replicate import ReplicateFake
from tests.e2e.fakes.studio import Job, Mood, Studio
from tests.e2e.gateway_process import GatewayProcess

TOKENS = {"FAL_KEY": "key-id:key-secret", "REPLICATE_API_TOKEN": "r8_token_of_the_story"}
SECRET = "whsec_dHdvLXRva2Vucy1hLXRocm93LWF3YXktc2VjcmV0"

# Their own addresses are all that a user of the real ones would not write.
CONFIG = """
[local]
enabled = false

[catalogue]
files = ["ours.toml"]

[policies]
files = ["order.toml"]
default = "cheapest"

[providers.fal]
base_url = "{fal}"
catalogue = true
token = "env:FAL_KEY"

[providers.replicate]
base_url = "{replicate}/v1"
catalogue = true
token = "env:REPLICATE_API_TOKEN"
webhook_secret = "env:REPLICATE_WEBHOOK_SECRET"
"""
POLICIES = """
[[policies]]
name = "fal_first"
rank = { by = "ordered", order = ["fal", "replicate"] }
limits = { attempt_seconds = 10 }

[[policies]]
name = "replicate_first"
rank = { by = "ordered", order = ["replicate", "fal"] }
limits = { attempt_seconds = 2, pay_twice_up_to = "0.05" }
"""
# A catalogue of the user's own, with prices that differ enough to be worth choosing by.
OURS = """
[[models]]
name = "studio/poster"
task = "text-to-image"
output = "files"
input.prompt = { type = "string", required = true }
[[models.offers]]
adapter = "replicate"
name = "studio/poster"
price = { per_image = "0.0400" }
[[models.offers]]
adapter = "fal"
name = "studio/poster/large"
price = { per_image = "0.0100" }
output = { path = "images[*].url" }
"""
SCHNELL = "black-forest-labs/flux-schnell"


class Story:
    """The gateway with the two behind it."""

    def __init__(self, gateway: GatewayProcess, fal: FalFake, replicate: ReplicateFake) -> None:
        self.gateway = gateway
        self.fal = fal
        self.replicate = replicate

    def predict(self, model: str = SCHNELL, *, policy: str = "", **input: Any) -> dict[str, Any]:
        headers = {"prefer": "wait=15"} | ({"turnout-policy": policy} if policy else {})
        with self.gateway.client(seconds=20) as client:
            body = {"input": {"prompt": "a heron"} | input}
            answer = client.post(f"/v1/models/{model}/predictions", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def started(self) -> tuple[int, int]:
        return self.fal.started, self.replicate.started

    def is_ours(self, prediction: dict[str, Any], pictures: int) -> bool:
        """Its pictures lie with us, and are there for who has no key."""
        urls = prediction["output"] if isinstance(prediction["output"], list) else [prediction["output"]]
        assert len(urls) == pictures, urls
        for url in urls:
            assert url.startswith(self.gateway.url), url
            file = httpx.get(url, trust_env=False)
            assert (file.status_code, file.headers["content-type"]) == (200, "image/png")
            assert file.content.startswith(b"\x89PNG")
        return True


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("two-tokens")
    (folder / "order.toml").write_text(POLICIES)
    (folder / "ours.toml").write_text(OURS)
    with (
        FalFake(TOKENS["FAL_KEY"]) as fal,
        ReplicateFake(TOKENS["REPLICATE_API_TOKEN"], secret=SECRET) as replicate,
    ):
        config = CONFIG.format(fal=fal.url, replicate=replicate.url)
        environ = TOKENS | {"REPLICATE_WEBHOOK_SECRET": SECRET}
        with GatewayProcess(folder, config, environ=environ) as gateway:
            yield Story(gateway, fal, replicate)


@pytest.fixture
def story(whole: Story) -> Iterator[Story]:
    """Both are well, and call back, until the test says otherwise."""
    for fake in (whole.fal, whole.replicate):
        fake.mood, fake.calls_back, fake.polls_needed = Mood.WELL, True, 2
    yield whole
    for fake in (whole.fal, whole.replicate):
        assert fake.strange == []
        assert fake.strangers == 0, "a request came without the token"
        assert fake.shown_at_files == [], "a credential went to where files lie in the open"
    assert "stumbled" not in whole.gateway.log
    assert "Traceback" not in whole.gateway.log
    for token in (*TOKENS.values(), SECRET):
        assert token not in whole.gateway.log


def newest(fake: Studio) -> Job:
    return fake.jobs[-1]


def tried(prediction: dict[str, Any]) -> list[tuple[str, str]]:
    return [(attempt["provider"], attempt["status"]) for attempt in prediction["routing"]["attempts"]]


def test_fal_serves_in_its_own_words_and_ends_by_its_signed_callback(story: Story) -> None:
    before = story.started()
    prediction = story.predict(policy="fal_first", aspect_ratio="16:9", num_outputs=2)
    assert prediction["status"] == "succeeded", (prediction, story.gateway.log[-2000:])
    assert story.is_ours(prediction, pictures=2)
    assert story.started() == (before[0] + 1, before[1])
    job = newest(story.fal)
    assert job.model == "fal-ai/flux/schnell"
    assert job.input["image_size"] == {"width": 1344, "height": 768}
    assert (job.input["num_images"], "num_outputs" in job.input) == (2, False)
    # Only a callback that was believed ends a job which polls see waiting.
    assert job.has_called_back.wait(5)
    assert story.fal.key_reads >= 1
    assert prediction["routing"]["provider"] == "fal"
    assert float(prediction["routing"]["cost"]["amount"]) > 0


def test_replicate_serves_in_its_own_words_and_ends_by_its_signed_callback(story: Story) -> None:
    before = story.started()
    prediction = story.predict(policy="replicate_first", num_outputs=3)
    assert prediction["status"] == "succeeded", (prediction, story.gateway.log[-2000:])
    assert story.is_ours(prediction, pictures=3)
    assert story.started() == (before[0], before[1] + 1)
    job = newest(story.replicate)
    assert (job.model, job.input["num_outputs"]) == (SCHNELL, 3)
    assert job.has_called_back.wait(5)
    assert prediction["routing"]["provider"] == "replicate"
    assert float(prediction["routing"]["cost"]["amount"]) == pytest.approx(0.009)


@pytest.mark.parametrize(
    ("model", "calls_back", "dollars"),
    [("black-forest-labs/flux-dev", True, 0.025), ("black-forest-labs/flux-1.1-pro", False, 0.04)],
)
def test_fal_out_of_credit_is_passed_over_and_replicate_serves(
    story: Story, model: str, calls_back: bool, dollars: float
) -> None:
    story.fal.mood = Mood.BROKE
    story.replicate.calls_back, story.replicate.polls_needed = calls_back, 1  # without a callback, the poll will tell
    before = story.started()
    prediction = story.predict(model, policy="fal_first")
    assert prediction["status"] == "succeeded", (prediction, story.gateway.log[-2000:])
    assert story.is_ours(prediction, pictures=1)
    assert story.started() == (before[0], before[1] + 1), "exactly one job for one success"
    assert prediction["routing"]["provider"] == "replicate"
    assert float(prediction["routing"]["cost"]["amount"]) == pytest.approx(dollars)
    assert tried(prediction) == [("fal", "rejected"), ("replicate", "succeeded")]
    refused, served = prediction["routing"]["attempts"]
    assert refused["code"] == "wallet_empty"
    assert "Exhausted balance" in refused["message"]
    assert refused["cost"]["amount"] == "0"
    assert served["reason"] == "place 2, no other"
    assert [reason["text"] for reason in prediction["routing"]["reasons"]] == [
        "place 1, next place 2",
        "place 2",
    ]
    # Whose account is empty is not asked again: the next prediction goes past it at once.
    story.replicate.calls_back = True
    again = story.predict(model, policy="fal_first")
    assert tried(again) == [("replicate", "succeeded")]
    assert any(reason["provider"] == "fal" and not reason["kept"] for reason in again["routing"]["reasons"])


def test_replicate_that_never_gets_done_is_stopped_and_fal_serves(story: Story) -> None:
    story.replicate.mood = Mood.HANGS
    before = story.started()
    prediction = story.predict("qwen/qwen-image", policy="replicate_first")
    assert prediction["status"] == "succeeded", (prediction, story.gateway.log[-2000:])
    assert story.is_ours(prediction, pictures=1)
    assert tried(prediction) == [("replicate", "canceled"), ("fal", "succeeded")]
    # What was started there was stopped there before anything was started here.
    assert story.started() == (before[0] + 1, before[1] + 1)
    assert (newest(story.replicate).state, newest(story.replicate).cancels) == ("canceled", 1)
    assert story.replicate.billed == sum(job.state == "done" for job in story.replicate.jobs)
    assert prediction["routing"]["provider"] == "fal"


def test_replicate_that_breaks_is_left_and_fal_serves(story: Story) -> None:
    story.replicate.mood = Mood.DOWN
    before = story.started()
    prediction = story.predict("google/imagen-4-fast", policy="replicate_first")
    assert prediction["status"] == "succeeded", (prediction, story.gateway.log[-2000:])
    assert story.is_ours(prediction, pictures=1)
    assert story.started() == (before[0] + 1, before[1]), "exactly one job for one success"
    # A 500 may hide a job that still calls back: it was waited for, for as long as the policy gives one attempt.
    assert tried(prediction) == [("replicate", "abandoned"), ("fal", "succeeded")]
    assert prediction["routing"]["attempts"][0]["code"] == "outcome_unknown"
    # It may yet be billed: the price says what is known, and not more.
    assert prediction["routing"]["cost"] == {"amount": None, "basis": "unknown", "currency": "USD", "at_least": "0.02"}


def test_both_well_the_cheaper_one_serves_every_time(story: Story) -> None:
    before = story.started()
    for _ in range(3):
        prediction = story.predict("studio/poster", policy="cheapest")
        assert prediction["status"] == "succeeded", prediction
        assert prediction["routing"]["provider"] == "fal"
        assert prediction["routing"]["policy"] == "cheapest"
        assert float(prediction["routing"]["cost"]["amount"]) == pytest.approx(0.01)
        assert prediction["routing"]["attempts"][0]["reason"] == "$0.01 expected, next $0.04 expected"
    assert story.started() == (before[0] + 3, before[1])
