"""OpenAI's dialect at its six adapters, through the driver: where keys go, and what only a driver can refuse."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from gateway.contract.errors import ConfigurationError, InputRefused, OutcomeUnknown, PollFailed
from gateway.contract.fact import Phase
from gateway.contract.provider import Adapter, Cancellation
from providers._driver import HttpDriver
from providers.azure import Azure
from providers.deepinfra import DeepInfra
from providers.fireworks import Fireworks
from providers.openai import OpenAI
from providers.openai_compatible import OpenAICompatible
from providers.together import Together
from tests.unit.providers.echo_adapter import a_call

TOKEN = "tok_CANARY_0123456789"
PNG = "data:image/png;base64,iVBORw0KGgo="
FILM = b"\x00\x00\x00\x18ftypmp42"
TEXT = {"choices": [{"index": 0, "message": {"content": "Hi."}, "finish_reason": "stop"}]}
AZURE = "https://example.openai.azure.com/openai"


class Wire:
    """A provider's end of the line: answers in the order given, and keeps what it was sent."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        answer = self.answers.pop(0)
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    def drive(self, adapter: Adapter, **options: Any) -> HttpDriver:
        options.setdefault("credentials", {"token": TOKEN})
        return HttpDriver(adapter.name, adapter, transport=httpx.MockTransport(self), **options)


SENT: list[tuple[Adapter, dict[str, Any], str, dict[str, str]]] = [
    (
        OpenAICompatible(),
        {},
        "http://127.0.0.1:8000/v1/chat/completions",
        {"authorization": f"Bearer {TOKEN}"},
    ),
    (OpenAI(), {}, "https://api.openai.com/v1/chat/completions", {"authorization": f"Bearer {TOKEN}"}),
    (Together(), {}, "https://api.together.ai/v1/chat/completions", {"authorization": f"Bearer {TOKEN}"}),
    (
        Fireworks(),
        {},
        "https://api.fireworks.ai/inference/v1/chat/completions",
        {"authorization": f"Bearer {TOKEN}"},
    ),
    (
        DeepInfra(),
        {"route": "chat"},
        "https://api.deepinfra.com/v1/openai/chat/completions",
        {"authorization": f"Bearer {TOKEN}"},
    ),
    (
        Azure(options={"resource": "example"}),
        {},
        f"{AZURE}/v1/chat/completions?api-version=v1",
        {"api-key": TOKEN},
    ),
]


@pytest.mark.parametrize(("adapter", "options", "url", "headers"), SENT, ids=lambda value: getattr(value, "name", ""))
async def test_a_call_goes_where_it_belongs_with_the_header_it_takes(
    adapter: Adapter, options: dict[str, Any], url: str, headers: dict[str, str]
) -> None:
    wire = Wire(TEXT)
    driver = wire.drive(adapter)
    fact = await driver.submit(a_call(options=options))
    assert fact.output == ["Hi."]
    assert str(wire.seen[0].url) == url
    credentials = {name: value for name, value in wire.seen[0].headers.items() if TOKEN in value}
    assert credentials == headers
    await driver.aclose()


async def test_openai_is_told_for_whom_if_that_is_known() -> None:
    wire = Wire(TEXT, TEXT)
    driver = wire.drive(OpenAI(), credentials={"token": TOKEN, "organization": "org-1", "project": "proj-1"})
    await driver.submit(a_call())
    assert wire.seen[0].headers["openai-organization"] == "org-1"
    assert wire.seen[0].headers["openai-project"] == "proj-1"
    other = wire.drive(OpenAI())
    await other.submit(a_call())
    assert not {"openai-organization", "openai-project"} & set(wire.seen[1].headers)
    await driver.aclose()
    await other.aclose()


async def test_azure_takes_an_application_of_entra_and_shows_its_grant_alone() -> None:
    wire = Wire({"access_token": "granted", "expires_in": 3600}, TEXT, TEXT)
    secrets = {"tenant_id": "tenant", "client_id": "client-7", "client_secret": "s3cret_CANARY"}
    driver = wire.drive(Azure(options={"resource": "example"}), credentials=secrets)
    await driver.submit(a_call())
    await driver.submit(a_call())
    exchange, *calls = wire.seen
    assert str(exchange.url) == "https://login.microsoftonline.com/tenant/oauth2/v2.0/token"
    assert b"cognitiveservices.azure.com" in exchange.content
    assert [call.headers["authorization"] for call in calls] == ["Bearer granted"] * 2
    assert not any(secret in str(call.headers) for call in calls for secret in secrets.values())
    await driver.aclose()


def test_azure_without_a_resource_or_an_address_is_refused_when_it_is_made() -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        Wire().drive(Azure())


async def test_azure_at_an_address_of_its_own_keeps_to_it() -> None:
    wire = Wire(TEXT)
    driver = wire.drive(Azure(), base_url="https://models.example/openai")
    await driver.submit(a_call(options={"scheme": "classic"}))
    assert str(wire.seen[0].url) == (
        "https://models.example/openai/deployments/acme%2Fecho/chat/completions?api-version=2024-10-21"
    )
    await driver.aclose()


async def test_together_polls_videos_at_its_second_version_with_our_key() -> None:
    job = {"id": "v1", "status": "in_progress"}
    wire = Wire(job, {**job, "status": "completed", "outputs": {"video_url": "https://films.example/v.mp4"}})
    driver = wire.drive(Together())
    begun = await driver.submit(a_call(options={"route": "videos"}))
    assert begun.handle is not None
    ended = await driver.poll(begun.handle)
    assert ended.output == "https://films.example/v.mp4"
    assert [str(request.url) for request in wire.seen] == [
        "https://api.together.ai/v2/videos",
        "https://api.together.ai/v2/videos/v1",
    ]
    assert {request.headers["authorization"] for request in wire.seen} == {f"Bearer {TOKEN}"}
    # A result's own address is fetched by the collector, and without our key.
    assert await driver.credentials_for("https://films.example/v.mp4") == {}
    await driver.aclose()


async def test_a_queue_of_containers_keeps_its_model_through_poll_and_cancel() -> None:
    wire = Wire({"requestId": "r1"}, {"request_id": "r1", "status": "pending"}, {"status": "canceled"})
    driver = wire.drive(Together())
    begun = await driver.submit(a_call(name="acme:7/box", options={"route": "queue"}))
    assert begun.handle is not None
    assert (await driver.poll(begun.handle)).phase is Phase.QUEUED
    assert wire.seen[1].url.params["model"] == "acme:7/box"
    assert await driver.cancel(begun.handle) is Cancellation.STOPPED
    assert b'"model":"acme:7/box"' in wire.seen[2].content
    await driver.aclose()


FILMS: list[tuple[Adapter, dict[str, Any], Any, str]] = [
    (OpenAI(), {"route": "videos"}, {}, "https://api.openai.com/v1/videos/job1/content"),
    (
        Azure(options={"resource": "example"}),
        {"route": "video_jobs"},
        {"generations": [{"id": "gen1"}]},
        f"{AZURE}/v1/video/generations/gen1/content/video?api-version=preview",
    ),
    (
        Azure(options={"resource": "example"}),
        {"route": "videos"},
        {},
        f"{AZURE}/v1/videos/job1/content?api-version=preview",
    ),
]


@pytest.mark.parametrize(("adapter", "options", "done", "url"), FILMS, ids=["openai", "azure-jobs", "azure-videos"])
async def test_a_film_is_fetched_with_our_key_and_comes_inline(
    adapter: Adapter, options: dict[str, Any], done: Any, url: str
) -> None:
    film = httpx.Response(200, content=FILM, headers={"content-type": "video/mp4"})
    wire = Wire({"id": "job1", "status": "queued"}, {"id": "job1", "status": "completed", **done}, film)
    driver = wire.drive(adapter)
    begun = await driver.submit(a_call(options=options))
    assert begun.handle is not None
    ended = await driver.poll(begun.handle)
    assert ended.output == "data:video/mp4;base64," + base64.b64encode(FILM).decode()
    assert ended.handle == begun.handle
    assert str(wire.seen[2].url) == url
    assert TOKEN in str(wire.seen[2].headers.raw)
    await driver.aclose()


OTHERS: list[tuple[Adapter, dict[str, Any], Any, Any]] = [
    (OpenAI(), {"route": "videos"}, {"id": "job1"}, {"id": "job2", "status": "completed"}),
    (
        Together(),
        {"route": "videos"},
        {"id": "job1"},
        {"id": "job2", "status": "completed", "outputs": {"video_url": "https://films.example/v.mp4"}},
    ),
    (
        Together(),
        {"route": "queue"},
        {"requestId": "job1"},
        {"request_id": "job2", "status": "done", "outputs": {"a": 1}},
    ),
    (
        Fireworks(),
        {"route": "kontext"},
        {"request_id": "job1"},
        {"id": "job2", "status": "Ready", "result": {"sample": "https://pictures.example/p.png"}},
    ),
    (
        Azure(options={"resource": "example"}),
        {"route": "video_jobs"},
        {"id": "job1"},
        {"id": "job2", "status": "succeeded", "generations": [{"id": "gen2"}]},
    ),
]


@pytest.mark.parametrize(("adapter", "options", "begun", "answer"), OTHERS)
async def test_somebody_elses_job_is_no_answer(
    adapter: Adapter, options: dict[str, Any], begun: Any, answer: Any
) -> None:
    wire = Wire(begun, answer)
    driver = wire.drive(adapter)
    fact = await driver.submit(a_call(options=options))
    assert fact.handle is not None
    with pytest.raises(PollFailed, match="another job"):
        await driver.poll(fact.handle)
    assert len(wire.seen) == 2  # and nothing of that job was fetched
    await driver.aclose()


async def test_files_leave_as_a_form_whose_parts_can_be_read() -> None:
    wire = Wire({"data": [{"b64_json": "iVBORw0KGgo="}]})
    driver = wire.drive(OpenAI())
    input = {"prompt": "data: not a file", "image": [PNG, PNG], "n": 2, "moderation": "low"}
    await driver.submit(a_call(input=input, options={"route": "edits"}))
    sent = wire.seen[0]
    assert sent.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert sent.content.count(b'name="image[]"; filename="image.png"') == 2
    assert b'name="prompt"' in sent.content
    assert b"data: not a file" in sent.content
    await driver.aclose()


MULTIPART = [
    (OpenAI(), ("edits", "variations", "transcription", "translation", "videos")),
    (OpenAICompatible(), ("edits", "variations", "transcription", "translation")),
    (Together(), ("transcription", "translation")),
    (DeepInfra(), ("edits", "transcription", "translation")),
    (Azure(options={"resource": "x"}), ("edits", "transcription", "translation", "videos")),
    (Fireworks(), ("kontext",)),
]


@pytest.mark.parametrize(("adapter", "routes"), MULTIPART, ids=lambda value: getattr(value, "name", ""))
def test_an_offer_that_goes_as_a_form_takes_files_and_no_addresses(adapter: Adapter, routes: tuple[str, ...]) -> None:
    assert {"url", "data"} == set(adapter.capabilities.input_forms)
    for route in routes:
        assert adapter.capabilities_for({"route": route}).input_forms == {"data"}
    assert adapter.capabilities_for({"route": 7}) == adapter.capabilities  # for the submit to refuse
    assert adapter.capabilities_for({"input_forms": ["url"]}).input_forms == {"url"}


@pytest.mark.parametrize("value", ["https://pictures.example/cat.png", "", 7, {"a": 1}, ["x"], "data:nonsense"])
@pytest.mark.parametrize(("route", "name"), [("edits", "image"), ("transcription", "file")])
def test_what_is_no_file_never_leaves_as_one(route: str, name: str, value: Any) -> None:
    with pytest.raises(InputRefused):
        OpenAICompatible().submit(a_call(input={"prompt": "x", name: value}, options={"route": route}))


async def test_an_answer_that_would_lead_us_elsewhere_starts_nothing() -> None:
    wire = Wire({"id": "https://evil.example/videos/1", "status": "queued"})
    driver = wire.drive(OpenAI())
    with pytest.raises(OutcomeUnknown):
        await driver.submit(a_call(options={"route": "videos"}))
    await driver.aclose()
