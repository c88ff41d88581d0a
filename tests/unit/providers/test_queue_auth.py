"""fal, RunPod, Hugging Face and Replicate through the driver: where our credentials go, and where they must not."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.contract.errors import CallbackForged, NotSent, OutcomeUnknown, PollFailed
from gateway.contract.fact import Phase
from gateway.contract.provider import Adapter
from providers._driver import HttpDriver
from providers.fal import Fal
from providers.huggingface import HuggingFace
from providers.replicate import Replicate
from providers.runpod import RunPod
from tests.unit.providers.echo_adapter import a_call

TOKEN = "tok_CANARY_0123456789"
FAL_MODEL = "fal-ai/flux/dev"
FAL_ID = "764cabcf-b745-4b3e-ae38-1200304cf45b"
FAL_JOB = f"https://queue.fal.run/fal-ai/flux/requests/{FAL_ID}"
FAL_ANSWER = {
    "request_id": FAL_ID,
    "status": "IN_QUEUE",
    "status_url": f"{FAL_JOB}/status",
    "response_url": FAL_JOB,
    "cancel_url": f"{FAL_JOB}/cancel",
}
RECORDINGS = Path(__file__).parents[2] / "contract" / "recordings"
LARGE = "data:image/png;base64," + base64.b64encode(b"\x89PNG" + bytes(300_000)).decode()


class Provider:
    """Answers in turn by path, and keeps what it was sent."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.seen: dict[str, httpx.Request] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        url = str(request.url.copy_with(query=None))
        self.seen[url] = request
        answer = self.answers.get(url)
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    def drive(self, adapter: Adapter, **options: Any) -> HttpDriver:
        options.setdefault("credentials", {"token": TOKEN})
        return HttpDriver(adapter.name, adapter, transport=httpx.MockTransport(self), **options)

    def authorizations(self) -> dict[str, str]:
        return {url: request.headers.get("authorization", "") for url, request in self.seen.items()}


SENT: list[tuple[Adapter, str, str, str, Any]] = [
    (Fal(), "fal-ai/flux/dev", "https://queue.fal.run/fal-ai/flux/dev", f"Key {TOKEN}", FAL_ANSWER),
    (Fal(options={"sync": True}), "fal-ai/flux/dev", "https://fal.run/fal-ai/flux/dev", f"Key {TOKEN}", {"images": []}),
    (
        RunPod(),
        "abc123",
        "https://api.runpod.ai/v2/abc123/run",
        f"Bearer {TOKEN}",
        {"id": "j-u1", "status": "IN_QUEUE"},
    ),
    (
        RunPod(options={"wait": True}),
        "abc123",
        "https://api.runpod.ai/v2/abc123/runsync",
        f"Bearer {TOKEN}",
        {"id": "sync-j", "status": "COMPLETED", "output": "x"},
    ),
    (
        HuggingFace(),
        "o/m:cheapest",
        "https://router.huggingface.co/v1/chat/completions",
        f"Bearer {TOKEN}",
        {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]},
    ),
    (
        HuggingFace(options={"route": "task"}),
        "o/m",
        "https://router.huggingface.co/hf-inference/models/o/m",
        f"Bearer {TOKEN}",
        [{"label": "cat"}],
    ),
    (
        Replicate(),
        "o/m",
        "https://api.replicate.com/v1/models/o/m/predictions",
        f"Bearer {TOKEN}",
        {"id": "j", "status": "starting"},
    ),
]


@pytest.mark.parametrize(
    ("adapter", "name", "url", "authorization", "answer"),
    SENT,
    ids=lambda value: str(getattr(value, "name", value))[:50],
)
async def test_each_proves_itself_in_its_own_words_at_its_own_address(
    adapter: Adapter, name: str, url: str, authorization: str, answer: Any
) -> None:
    provider = Provider({url: answer})
    await provider.drive(adapter).submit(a_call(name=name, input={"prompt": "a cat", "inputs": "a cat"}))
    assert provider.authorizations() == {url: authorization}


async def test_an_endpoint_of_ones_own_gets_the_token_at_its_root() -> None:
    base = "https://xyz.us-east-1.aws.endpoints.huggingface.cloud"
    provider = Provider({f"{base}/": {"text": "hello"}})
    adapter = HuggingFace(options={"route": "task", "dedicated": True})
    fact = await provider.drive(adapter, base_url=base).submit(a_call(name="mine", input={"inputs": "a cat"}))
    assert fact.output == {"text": "hello"}
    assert provider.authorizations() == {f"{base}/": f"Bearer {TOKEN}"}


async def test_a_fal_job_is_followed_to_its_result_and_never_rebuilt() -> None:
    image = {"images": [{"url": "https://v3.fal.media/files/x.png"}]}
    provider = Provider(
        {
            "https://queue.fal.run/fal-ai/flux/dev": FAL_ANSWER,
            f"{FAL_JOB}/status": {"status": "COMPLETED", "request_id": FAL_ID, "metrics": {"inference_time": 2}},
            FAL_JOB: httpx.Response(200, json=image, headers={"x-fal-billable-units": "1"}),
            f"{FAL_JOB}/cancel": httpx.Response(202, json={"status": "CANCELLATION_REQUESTED"}),
        }
    )
    driver = provider.drive(Fal())
    accepted = await driver.submit(a_call(name=FAL_MODEL))
    assert accepted.handle is not None
    fact = await driver.poll(accepted.handle)
    assert (fact.phase, fact.output, fact.handle) == (Phase.SUCCEEDED, image, accepted.handle)
    assert fact.metrics == {"predict_time": 2.0, "billable_units": 1.0}
    assert await driver.cancel(accepted.handle) == "requested"
    assert set(provider.authorizations().values()) == {f"Key {TOKEN}"}


@pytest.mark.parametrize("key", ["status_url", "response_url", "cancel_url"])
@pytest.mark.parametrize(
    "url",
    [
        "https://queue.fal.run.evil.example/x",
        "http://queue.fal.run/x",
        "https://queue.fal.run@evil.example/x",
        "//evil.example/x",
        "http://169.254.169.254/latest/meta-data",
    ],
)
async def test_a_fal_answer_that_names_a_foreign_address_is_no_acceptance(key: str, url: str) -> None:
    provider = Provider({"https://queue.fal.run/fal-ai/flux/dev": {**FAL_ANSWER, key: url}})
    with pytest.raises(OutcomeUnknown, match="its answer names a URL"):
        await provider.drive(Fal()).submit(a_call(name=FAL_MODEL))
    assert list(provider.seen) == ["https://queue.fal.run/fal-ai/flux/dev"]


@pytest.mark.parametrize(
    ("adapter", "handle", "url", "answer"),
    [
        (
            Fal(),
            {"id": FAL_ID, "status_url": f"{FAL_JOB}/status", "response_url": FAL_JOB},
            f"{FAL_JOB}/status",
            {"status": "COMPLETED", "request_id": "00000000-0000-4000-8000-000000000000"},
        ),
        (
            RunPod(),
            {"id": "mine-u1", "endpoint": "abc123"},
            "https://api.runpod.ai/v2/abc123/status/mine-u1",
            {"id": "theirs-u1", "status": "COMPLETED", "output": "x"},
        ),
        (
            Replicate(),
            {"id": "mine"},
            "https://api.replicate.com/v1/predictions/mine",
            {"id": "theirs", "status": "succeeded", "output": "x"},
        ),
    ],
    ids=["fal", "runpod", "replicate"],
)
async def test_the_fate_of_another_job_is_refused(
    adapter: Adapter, handle: dict[str, str], url: str, answer: dict[str, Any]
) -> None:
    provider = Provider({url: answer})
    with pytest.raises(PollFailed):
        await provider.drive(adapter).poll(handle)
    assert list(provider.seen) == [url]  # and nothing of it is fetched


async def test_a_file_goes_to_fals_storage_without_our_key() -> None:
    place, kept = "https://v3b.fal.media/files/b/abc/upload", "https://v3b.fal.media/files/b/abc/input.png"
    start = "https://rest.fal.ai/storage/upload/initiate"
    submit = "https://queue.fal.run/fal-ai/flux/dev"
    provider = Provider({start: {"upload_url": place, "file_url": kept}, place: None, submit: FAL_ANSWER})
    await provider.drive(Fal()).submit(a_call(name=FAL_MODEL, input={"image_url": LARGE, "prompt": "a cat"}))
    assert provider.authorizations() == {start: f"Key {TOKEN}", place: "", submit: f"Key {TOKEN}"}
    assert provider.seen[place].method == "PUT"
    assert provider.seen[place].headers["content-type"] == "image/png"
    assert len(provider.seen[place].content) == 300_004
    assert json.loads(provider.seen[submit].content) == {"image_url": kept, "prompt": "a cat"}


async def test_an_upload_that_is_sent_elsewhere_is_not_followed() -> None:
    start = "https://rest.fal.ai/storage/upload/initiate"
    provider = Provider({start: {"upload_url": "https://evil.example/put", "file_url": "https://v3.fal.media/x"}})
    with pytest.raises(NotSent):
        await provider.drive(Fal()).submit(a_call(name=FAL_MODEL, input={"image_url": LARGE}))
    assert list(provider.seen) == [start]


async def test_a_file_is_uploaded_to_replicate_as_a_form() -> None:
    files, submit = "https://api.replicate.com/v1/files", "https://api.replicate.com/v1/models/o/m/predictions"
    url = f"{files}/NGZiNmY2YzQtMThhZi00ZjcyLWFhZjktODg4NTY0NWNlMDEy"
    provider = Provider({files: {"urls": {"get": url}}, submit: {"id": "j", "status": "starting"}})
    await provider.drive(Replicate()).submit(a_call(name="o/m", input={"image": LARGE}))
    assert set(provider.authorizations().values()) == {f"Bearer {TOKEN}"}
    sent = provider.seen[files]
    assert sent.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="content"; filename="input.png"' in sent.content
    assert json.loads(provider.seen[submit].content)["input"] == {"image": url}


# -- callbacks -------------------------------------------------------------------------------------------------------


def genuine() -> dict[str, Any]:
    recording = json.loads((RECORDINGS / "fal" / "published-vector.json").read_text())
    step: dict[str, Any] = recording["steps"][0]
    return step


async def test_fals_callbacks_are_checked_by_its_published_keys() -> None:
    step, url = genuine(), "https://rest.fal.ai/.well-known/jwks.json"
    now = datetime.fromtimestamp(step["now"], UTC)
    provider = Provider({url: json.loads(step["secrets"][0])})
    driver = provider.drive(Fal())
    callback = await driver.read_callback(step["headers"], step["text"].encode(), now=now)
    assert callback.fact is not None
    assert callback.fact.phase is Phase.SUCCEEDED
    assert callback.fact.output == {"seed": 17454220438242315174, "prompt": "déjà vu"}
    with pytest.raises(CallbackForged):
        await driver.read_callback(step["headers"], step["text"].encode() + b" ", now=now)
    assert list(provider.seen) == [url]


async def test_without_its_keys_a_callback_of_fals_only_nudges() -> None:
    step = genuine()
    provider = Provider({"https://rest.fal.ai/.well-known/jwks.json": httpx.Response(500)})
    callback = await provider.drive(Fal()).read_callback(
        step["headers"], step["text"].encode(), now=datetime.fromtimestamp(step["now"], UTC)
    )
    assert callback.fact is None


async def test_fals_keys_are_asked_for_where_its_site_was_moved_to() -> None:
    step, base = genuine(), "http://127.0.0.1:9"
    provider = Provider({f"{base}/.well-known/jwks.json": json.loads(step["secrets"][0])})
    callback = await provider.drive(Fal(), base_url=base).read_callback(
        step["headers"], step["text"].encode(), now=datetime.fromtimestamp(step["now"], UTC)
    )
    assert callback.fact is not None
