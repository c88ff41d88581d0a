"""
The vendors' official clients at our fakes of them: what we recorded is what they expect to hear, and what they send is
what our adapters send.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
import replicate as replicate_client

from gateway.contract.provider import Message
from tests.e2e.clients import prepared
from tests.e2e.clients.prepared import NotPrepared, Script
from tests.e2e.conftest import absent
from tests.e2e.fakes import script as scripts
from tests.e2e.fakes.fal import FalFake
from tests.e2e.fakes.provider import RecordedProvider
from tests.e2e.fakes.replicate import ReplicateFake

KEY = "key-of-the-client:secret-of-the-client"
MP3 = base64.b64encode(b"ID3\x04\x00").decode()


class Vendor:
    """One client with its fakes: `ask(at={"queue": "queued-runs-succeeds"}, refusing=…)` is what it understood."""

    def __init__(self, word: str, client: Script, stack: ExitStack) -> None:
        self.word = word
        self.fakes: dict[str, RecordedProvider] = {}
        self._client = client
        self._stack = stack

    def ask(self, at: dict[str, str], *, refusing: dict[str, tuple[str, str]] | None = None) -> dict[str, Any]:
        """`at`: recordings by name ("" is its way to a success); `refusing`: a recording and the case it refuses by."""
        for name, recording in at.items():
            self.fakes[name] = self._stack.enter_context(RecordedProvider(self.word, recording=recording))
        for name, (recording, case) in (refusing or {}).items():
            fake = self.fakes[name] = self._stack.enter_context(RecordedProvider(self.word, recording=recording))
            fake.refusing = case
        urls = {name: fake.url for name, fake in self.fakes.items()}
        return dict(self._client(self.word, at=urls, key=KEY))

    def refused(self, said: dict[str, Any], kind: str) -> None:
        """The client raised `kind`, and knows the status that was recorded."""
        recorded = scripts.refusals(self.word, self.fakes["refusing"].refusing)[0]
        names, status, text = said["error"]
        assert kind in names, said["error"]
        assert status == recorded.status or str(recorded.status) in text

    def check(self, *, differing: dict[str, set[str]] | None = None) -> None:
        """
        Nothing strange was asked; every submit showed the credentials that our adapter shows, and said what ours says.

        `differing`: by fake, the keys of the body in which client and adapter are meant to differ.
        """
        for name, fake in self.fakes.items():
            assert fake.strange == [], name
            if fake.refusing:
                assert fake.jobs == []
                continue
            assert fake.jobs, f"nothing was started at {name}"
            shows_who_it_is(fake)
            recorded = fake.script.exchanges[0].request.json
            if recorded is msgspec.UNSET or fake.jobs[0].body.startswith(b"--"):
                continue
            ours, theirs = recorded, json.loads(fake.jobs[0].body)
            ignored = (differing or {}).get(name, set())
            assert {key: ours[key] for key in ours.keys() - ignored} == {
                key: theirs.get(key) for key in ours.keys() - ignored
            }, name


def shows_who_it_is(fake: RecordedProvider) -> None:
    adapter, job = fake.script.adapter, fake.jobs[0]
    message = Message(method="POST", url=fake.url, headers={"host": fake.url.removeprefix("http://")}, body=b"")
    secrets = {"token": KEY, "access_key_id": KEY.partition(":")[0], "secret_access_key": KEY.partition(":")[2]}
    for way in adapter.auth:
        if not (way.parts.keys() - way.optional) <= secrets.keys():
            continue
        ours = way.headers(message, secrets, now=datetime.now(UTC))
        if all(_same(value, job.headers.get(name, "")) for name, value in ours.items() if name != "x-amz-date"):
            return
    raise AssertionError(f"it does not say who it is as our adapter does: {job.headers}")


def _same(ours: str, theirs: str) -> bool:
    if ours.startswith("AWS4-"):  # a signature over another moment and body: scheme, key and scope are the same
        return ours.split("/")[:1] == theirs.split("/")[:1] and ours.split("/")[2:4] == theirs.split("/")[2:4]
    return ours == theirs


@pytest.fixture(scope="session")
def client() -> Script:
    try:
        folder = prepared.vendors()
    except NotPrepared as reason:
        absent(reason)
    # -S: nothing of our own virtual environment.
    return Script([sys.executable, "-S", str(prepared.HERE / "vendors.py")], environ={"PYTHONPATH": str(folder)})


@pytest.fixture
def vendor(request: pytest.FixtureRequest, client: Script) -> Iterator[Vendor]:
    with ExitStack() as stack:
        yield Vendor(request.function.__name__.removeprefix("test_").partition("_s_")[0], client, stack)


LIMITED = ("", "rate-limited")


def test_fal_s_client_understands_our_fake(vendor: Vendor) -> None:
    said = vendor.ask({"queue": ""}, refusing={"refusing": ("", "wallet-empty")})
    (first, second) = vendor.fakes["queue"].jobs
    assert (said["id"], said["canceled"]) == (first.id, second.id)
    assert said["events"] == ["Queued", "InProgress", "Completed"]
    assert said["result"]["images"][0]["url"].startswith(vendor.fakes["queue"].url)
    assert second.cancels == 1
    vendor.refused(said, "FalClientHTTPError")
    vendor.check()


def test_fal_s_client_understands_our_hand_written_fake(client: Script) -> None:
    with FalFake(KEY) as fal, FalFake("another") as stranger:
        said = client("fal", at={"queue": fal.url, "refusing": stranger.url}, key=KEY)
        (first, second) = fal.jobs
        assert (said["id"], said["canceled"]) == (first.id, second.id)
        assert said["events"][-1] == "Completed"
        assert said["result"]["images"][0]["url"] == fal.file_url(first)
        assert (first.state, second.state, second.cancels) == ("done", "canceled", 1)
        assert said["after"] == "Completed"
        assert said["error"][1] == 401
        assert stranger.started == 0
        assert fal.strange == []


def test_replicate_s_client_understands_our_hand_written_fake() -> None:
    with ReplicateFake("a token", secret="whsec_dHdvLXRva2Vucy1hLXRocm93LWF3YXktc2VjcmV0") as fake:
        ours = replicate_client.Client(api_token="a token", base_url=fake.url)
        prediction = ours.models.predictions.create(model=("acme", "upscale"), input={"prompt": "a heron"})
        assert prediction.status == "starting"
        seen = []
        while prediction.status not in ("succeeded", "failed", "canceled"):
            prediction.reload()
            seen.append(prediction.status)
        assert seen == ["processing", "succeeded"]
        assert prediction.output == [fake.file_url(fake.jobs[0])]
        other = ours.models.predictions.create(model="acme/upscale", input={})
        other.cancel()
        other.reload()
        assert other.status == "canceled"
        stranger = replicate_client.Client(api_token="another", base_url=fake.url)
        with pytest.raises(replicate_client.exceptions.ReplicateError, match="Unauthenticated"):
            stranger.models.predictions.create(model="acme/upscale", input={})
        assert (fake.started, fake.billed, fake.strange) == (2, 1, [])
        for client in (ours, stranger):
            client._client.close()


def test_huggingface_s_client_understands_our_fake(vendor: Vendor) -> None:
    said = vendor.ask(
        {"speech": "speech-heard", "chat": "chat-streams"}, refusing={"refusing": ("speech-heard", "rate-limited")}
    )
    assert {"text": said["heard"]} == vendor.fakes["speech"].script.output
    assert said["text"] == "Hello"
    vendor.refused(said, "HfHubHTTPError")
    vendor.check(differing={"chat": {"model", "messages", "stream_options"}})


def test_openai_s_client_understands_our_fake(vendor: Vendor) -> None:
    said = vendor.ask(
        {
            "picture": "picture",
            "speech": "speech",
            "embedding": "embedding",
            "transcript": "transcript",
            "video": "video",
            "chat": "chat-streams",
        },
        refusing={
            "refusing": ("picture", "rate-limited"),
            "broke": ("picture", "wallet-empty"),
            "moderating": ("picture", "moderated"),
        },
    )
    assert base64.b64decode(said["picture"]).startswith(b"\x89PNG")
    assert said["speech"] == MP3
    assert said["vector"] == [0.0023064255, -0.009327292, -0.0028842222]
    assert said["transcript"] == "Imagine the wildest idea."
    assert said["film"]["states"] == ["queued", "in_progress", "completed"]
    assert said["film"]["id"] == said["film"]["last"] == vendor.fakes["video"].jobs[0].id
    assert said["bytes"] > 0
    assert said["text"] == "Hi"
    vendor.refused(said, "RateLimitError")
    assert "BadRequestError" in said["refused"][0]
    assert said["quota"][1] in (400, 429)
    vendor.check(differing={"chat": {"model", "stream_options"}})


def test_azure_s_client_understands_our_fake(vendor: Vendor) -> None:
    said = vendor.ask(
        {"picture": "picture-classic", "chat": "chat-classic-streams"},
        refusing={"refusing": ("picture-classic", "rate-limited"), "moderating": ("picture-classic", "moderated")},
    )
    assert base64.b64decode(said["picture"]).startswith(b"\x89PNG")
    assert said["text"] == "Hi"
    vendor.refused(said, "RateLimitError")
    kinds, status, text = said["filtered"]
    assert ("BadRequestError" in kinds, status) == (True, 400)
    assert "'code': 'content_filter'" in text
    for name in ("picture", "chat"):
        fake = vendor.fakes[name]
        assert unquote(fake.jobs[0].path) == "/openai" + unquote(fake.script.exchanges[0].request.url), name
    vendor.check(differing={"chat": {"stream_options"}})


def test_deepinfra_s_client_understands_our_fake(vendor: Vendor) -> None:
    said = vendor.ask(
        {"chat": "dialect-chat-estimates-its-cost", "stream": "dialect-streams", "picture": "dialect-picture"},
        refusing={
            "refusing": ("dialect-chat-estimates-its-cost", "rate-limited"),
            "broke": ("dialect-picture", "wallet-empty"),
        },
    )
    assert (said["text"], said["cost"]) == ("Hi.", 2.68e-05)
    assert (said["streamed"], said["tokens"]) == ("Hi", 1)
    assert base64.b64decode(said["picture"]).startswith(b"\xff\xd8")
    vendor.refused(said, "RateLimitError")
    assert ("PermissionDeniedError" in said["broke"][0], said["broke"][1]) == (True, 403)
    for name in ("chat", "stream", "picture"):
        fake = vendor.fakes[name]
        assert fake.jobs[0].path == "/v1" + fake.script.exchanges[0].request.url, name
    vendor.check()


def test_together_s_client_understands_our_fake(vendor: Vendor) -> None:
    said = vendor.ask(
        {"picture": "picture-by-url", "embedding": "embedding", "video": "video"},
        refusing={"refusing": ("picture-by-url", "rate-limited")},
    )
    assert said["picture"].startswith(vendor.fakes["picture"].url)
    assert said["vector"] == [0.5, 1]
    assert said["film"]["states"][-1] == "completed"
    assert said["film"]["url"].startswith(vendor.fakes["video"].url)
    vendor.refused(said, "APIStatusError")
    vendor.check(differing={"video": {"prompt", "model", "seconds"}})


def test_elevenlabs_s_client_understands_our_fake(vendor: Vendor) -> None:
    said = vendor.ask({"speech": "speech", "dubbing": "dubbing"}, refusing={"refusing": ("speech", "wallet-empty")})
    assert said["speech"] == said["dubbed"] == MP3
    assert said["dubbing"]["states"] == ["dubbing", "dubbed"]
    assert said["dubbing"]["id"] == said["dubbing"]["last"] == vendor.fakes["dubbing"].jobs[0].id
    vendor.refused(said, "ApiError")
    vendor.check()


def test_runway_s_client_understands_our_fake(vendor: Vendor) -> None:
    said = vendor.ask(
        {"film": "waits-is-throttled-runs-succeeds"},
        refusing={"refusing": ("waits-is-throttled-runs-succeeds", "rate-limited")},
    )
    first, second = vendor.fakes["film"].jobs
    assert said["states"] == ["PENDING", "THROTTLED", "RUNNING", "SUCCEEDED"]
    assert (said["id"], said["canceled"], second.cancels) == (first.id, second.id, 1)
    assert [url.startswith(vendor.fakes["film"].url) for url in said["output"]] == [True, True]
    assert (
        first.headers["x-runway-version"]
        == vendor.fakes["film"].script.exchanges[0].request.headers["x-runway-version"]
    )
    vendor.refused(said, "RateLimitError")
    vendor.check()


def test_luma_s_client_understands_our_fake(vendor: Vendor) -> None:
    said = vendor.ask(
        {"film": "film-dreams-then-succeeds"}, refusing={"refusing": ("film-dreams-then-succeeds", "rate-limited")}
    )
    assert said["states"] == ["queued", "dreaming", "completed"]
    assert said["id"] == vendor.fakes["film"].jobs[0].id
    assert said["video"].startswith(vendor.fakes["film"].url)
    vendor.refused(said, "RateLimitError")
    vendor.check(differing={"film": {"keyframes"}})


def test_google_s_client_understands_our_fake(vendor: Vendor) -> None:
    said = vendor.ask(
        {"text": "text-whole", "picture": "picture-inline", "film": "veo"},
        refusing={"refusing": ("text-whole", "rate-limited")},
    )
    assert (said["text"], said["tokens"]) == ("Hello", 1)
    assert base64.b64decode(said["picture"]).startswith(b"\x89PNG")
    assert said["operation"] == vendor.fakes["film"].jobs[0].id
    assert said["done"][-1] is True
    assert said["film"].startswith(vendor.fakes["film"].url)
    assert said["error"][1] == 429
    vendor.check(
        differing={
            "text": {"contents"},
            "picture": {"contents", "generationConfig"},
            "film": {"instances", "parameters"},
        }
    )


def test_runpod_s_client_understands_our_fake(vendor: Vendor) -> None:
    said = vendor.ask(
        {"queue": "queued-runs-succeeds"}, refusing={"refusing": ("queued-runs-succeeds", "wallet-empty")}
    )
    first, second = vendor.fakes["queue"].jobs
    assert said["states"] == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    assert (said["id"], said["canceled"], second.cancels) == (first.id, second.id, 1)
    assert said["output"] == vendor.fakes["queue"].script.output
    assert said["cancel"]["status"] == "CANCELLED"
    vendor.refused(said, "HTTPError")
    vendor.check(differing={"queue": {"policy", "webhook"}})


def test_bedrock_s_client_understands_our_fake(vendor: Vendor) -> None:
    said = vendor.ask({"talk": "converse", "film": ""}, refusing={"refusing": ("converse", "rate-limited")})
    assert said["text"] == "There are **3** r's."
    assert said["tokens"] == 57
    assert said["states"][-1] == "Completed"
    assert said["place"].startswith("s3://clips/")
    vendor.refused(said, "ClientError")
    assert vendor.fakes["film"].jobs[0].key == "a" * 26
    vendor.check(differing={"film": {"modelInput", "outputDataConfig", "clientRequestToken"}})


def test_kserve_s_client_understands_our_fake(vendor: Vendor) -> None:
    said = vendor.ask({"json": "infer", "binary": "binary"}, refusing={"refusing": ("infer", "bad-input")})
    expected = [[1.0, 1.1], [2.0, 2.1], [3.0, 3.1]]
    assert [[pytest.approx(x) for x in row] for row in expected] == said["json"]
    assert said["binary"] == [[1.0, 1.5], [2.0, 2.5], [3.0, 3.5]]
    vendor.refused(said, "InferenceServerException")
    vendor.check(differing={"json": {"id", "inputs", "parameters", "outputs"}})


def test_cloudflare_s_client_understands_our_fake(vendor: Vendor) -> None:
    said = vendor.ask({"speech": "speech-and-text"}, refusing={"refusing": ("speech-and-text", "rate-limited")})
    assert said["speech"]["audio"] == "SUQzBAAA"
    vendor.refused(said, "APIStatusError")
    vendor.check()


def test_fireworks_s_client_understands_our_fake(vendor: Vendor) -> None:
    said = vendor.ask({"chat": "chat"}, refusing={"refusing": ("chat", "rate-limited")})
    assert (said["text"], said["tokens"]) == ("Hi.", 2)
    vendor.refused(said, "RateLimitError")
    vendor.check()


def test_every_vendor_whose_client_is_prepared_has_its_test() -> None:
    """So that a client that is added is also driven."""
    words = {name.removeprefix("test_").partition("_s_client")[0] for name in globals() if "_s_client_" in name}
    assert words <= set(scripts.words())
    by_openai_s = {"azure", "deepinfra"}  # which is their own word for what to call them with
    assert len(words - {"replicate"} - by_openai_s) == len(prepared.VENDORS)
