"""Media providers through the driver: where our credentials go, what is followed, and what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest

from gateway.contract.errors import NotSent, OutcomeUnknown, PollFailed
from gateway.contract.fact import Phase
from gateway.contract.provider import Adapter, Cancellation
from providers._driver import HttpDriver
from providers.bfl import Bfl
from providers.elevenlabs import ElevenLabs
from providers.luma import Luma
from providers.runware import Runware, task_uuid
from providers.runway import Runway
from providers.stability import Stability
from tests.unit.providers.echo_adapter import a_call

TOKEN = "tok_CANARY_0123456789"
SECRETS = ("authorization", "x-key", "xi-api-key", "x-runway-version")
Answer = httpx.Response | Callable[[httpx.Request], httpx.Response]


class Provider:
    """Answers by method and URL, and keeps what it was sent."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        answer = self.answers.get(f"{request.method} {request.url}", httpx.Response(404, json={}))
        return answer if isinstance(answer, httpx.Response) else answer(request)

    def drive(self, adapter: Adapter, **options: Any) -> HttpDriver:
        options.setdefault("credentials", {"token": TOKEN})
        return HttpDriver(adapter.name, adapter, transport=httpx.MockTransport(self), **options)

    @property
    def proofs(self) -> dict[str, dict[str, str]]:
        """By URL, those headers that say who we are or which version we speak."""
        return {
            str(request.url): {name: request.headers[name] for name in SECRETS if name in request.headers}
            for request in self.seen
        }


def gives(**body: Any) -> httpx.Response:
    return httpx.Response(200, json=body)


BEARER = {"authorization": f"Bearer {TOKEN}"}
SPEECH = httpx.Response(200, content=b"ID3", headers={"content-type": "audio/mpeg"})
SENT: list[tuple[Adapter, dict[str, Any], str, dict[str, str], httpx.Response]] = [
    (
        Stability(),
        {"name": "stable-image/generate/core"},
        "https://api.stability.ai/v2beta/stable-image/generate/core",
        BEARER,
        gives(image="iVBORw0KGgo=", finish_reason="SUCCESS"),
    ),
    (Bfl(), {"name": "flux-2-pro"}, "https://api.bfl.ai/v1/flux-2-pro", {"x-key": TOKEN}, gives(id="j")),
    (
        Bfl(),
        {"name": "flux-2-pro", "options": {"region": "eu"}},
        "https://api.eu.bfl.ai/v1/flux-2-pro",
        {"x-key": TOKEN},
        gives(id="j"),
    ),
    (
        Luma(),
        {"name": "ray-2"},
        "https://api.lumalabs.ai/dream-machine/v1/generations/video",
        BEARER,
        gives(id="j", state="queued"),
    ),
    (
        Luma(options={"api": "agents"}),
        {"name": "uni-1"},
        "https://agents.lumalabs.ai/v1/generations",
        BEARER,
        gives(id="j", state="queued"),
    ),
    (
        Runway(),
        {"name": "veo3"},
        "https://api.dev.runwayml.com/v1/text_to_video",
        {**BEARER, "x-runway-version": "2024-11-06"},
        gives(id="j"),
    ),
    (
        ElevenLabs(options={"voice": "v1"}),
        {"name": "eleven_v3"},
        "https://api.elevenlabs.io/v1/text-to-speech/v1",
        {"xi-api-key": TOKEN},
        SPEECH,
    ),
    (
        Runware(),
        {"name": "runware:101@1"},
        "https://api.runware.ai/v1",
        BEARER,
        gives(data=[{"taskUUID": task_uuid("i" * 26), "imageURL": "https://im.runware.ai/x.webp"}]),
    ),
]


@pytest.mark.parametrize(
    ("adapter", "call", "url", "proof", "answer"), SENT, ids=lambda value: str(getattr(value, "name", value))[:60]
)
async def test_each_proves_itself_in_its_own_words_at_its_own_address(
    adapter: Adapter, call: dict[str, Any], url: str, proof: dict[str, str], answer: httpx.Response
) -> None:
    provider = Provider({f"POST {url}": answer})
    await provider.drive(adapter).submit(a_call(**call))
    assert provider.proofs == {url: proof}


# -- bfl: an address out of an answer --------------------------------------------------------------------------------

SUBMIT = "POST https://api.bfl.ai/v1/flux-2-pro"
SIBLING = "https://api.us1.bfl.ai/v1/get_result?id=j"


async def test_a_bfl_task_is_polled_at_the_sibling_that_its_submit_names_and_keeps_its_price() -> None:
    sample = "https://delivery-us1.bfl.ai/x.png"
    provider = Provider(
        {
            SUBMIT: gives(id="j", polling_url=SIBLING, cost=4.5),
            f"GET {SIBLING}": gives(id="j", status="Ready", result={"sample": sample}),
        }
    )
    driver = provider.drive(Bfl())
    accepted = await driver.submit(a_call(name="flux-2-pro"))
    assert accepted.handle is not None
    fact = await driver.poll(accepted.handle)
    assert fact.output == sample
    assert fact.cost is not None
    assert fact.cost.nanos == 45_000_000
    assert provider.proofs[SIBLING] == {"x-key": TOKEN}
    assert await driver.credentials_for(sample) == {}, "its files are fetched without the key"


@pytest.mark.parametrize(
    "url",
    [
        "https://api.us1.bfl.ai.evil.example/x",
        "https://evilbfl.ai/x",
        "http://api.us1.bfl.ai/x",
        "https://api.us1.bfl.ai:8443/x",
        "https://user@api.us1.bfl.ai/x",
        "https://api.bfl.ai@evil.example/x",
        "http://169.254.169.254/latest/meta-data",
    ],
)
async def test_a_bfl_answer_that_names_a_foreign_address_is_no_acceptance(url: str) -> None:
    provider = Provider({SUBMIT: gives(id="j", polling_url=url)})
    with pytest.raises(OutcomeUnknown, match=r"not its own|user name"):
        await provider.drive(Bfl()).submit(a_call(name="flux-2-pro"))
    assert len(provider.seen) == 1


async def test_behind_another_base_bfls_siblings_are_strangers() -> None:
    provider = Provider({"POST https://proxy.example/bfl/flux-2-pro": gives(id="j", polling_url=SIBLING)})
    with pytest.raises(OutcomeUnknown, match="not its own"):
        await provider.drive(Bfl(), base_url="https://proxy.example/bfl").submit(a_call(name="flux-2-pro"))


# -- runway: cancel and upload ---------------------------------------------------------------------------------------

TASK = "https://api.dev.runwayml.com/v1/tasks/j"


@pytest.mark.parametrize(
    ("status", "outcome", "methods"),
    [
        ("RUNNING", Cancellation.STOPPED, ["GET", "DELETE"]),
        ("THROTTLED", Cancellation.STOPPED, ["GET", "DELETE"]),
        ("SUCCEEDED", Cancellation.TOO_LATE, ["GET"]),
        ("FAILED", Cancellation.TOO_LATE, ["GET"]),
    ],
)
async def test_a_runway_task_is_looked_at_before_it_is_deleted(
    status: str, outcome: Cancellation, methods: list[str]
) -> None:
    provider = Provider({f"GET {TASK}": gives(id="j", status=status), f"DELETE {TASK}": httpx.Response(204)})
    assert await provider.drive(Runway()).cancel({"id": "j"}) == outcome
    assert [request.method for request in provider.seen] == methods
    assert provider.proofs == {TASK: {**BEARER, "x-runway-version": "2024-11-06"}}


@pytest.mark.parametrize("look", [gives(id="other", status="RUNNING"), gives(id="j", status="ARCHIVED"), gives()])
async def test_what_cannot_be_told_to_run_is_never_deleted(look: httpx.Response) -> None:
    provider = Provider({f"GET {TASK}": look})
    with pytest.raises(PollFailed):
        await provider.drive(Runway()).cancel({"id": "j"})
    assert [request.method for request in provider.seen] == ["GET"]


BUCKET = "https://uploads.s3.amazonaws.com/"
LARGE = "data:image/png;base64," + base64.b64encode(bytes(4_000_000)).decode()


def place(url: str) -> httpx.Response:
    return gives(uploadUrl=url, fields={"key": "ephemeral/x", "policy": "p"}, runwayUri="runway://x")


async def test_a_large_file_goes_to_runways_bucket_without_our_key_and_stands_in_the_input_as_its_word() -> None:
    stored = httpx.Response(204)
    provider = Provider(
        {
            "POST https://api.dev.runwayml.com/v1/uploads": place(BUCKET),
            f"POST {BUCKET}": stored,
            "POST https://api.dev.runwayml.com/v1/image_to_video": gives(id="j"),
        }
    )
    call = a_call(name="gen4_turbo", input={"promptImage": LARGE, "ratio": "1280:720"})
    assert (await provider.drive(Runway()).submit(call)).handle == {"id": "j"}
    asked, brought, submitted = provider.seen
    assert json.loads(asked.content) == {"filename": "input.png", "type": "ephemeral"}
    assert provider.proofs[BUCKET] == {}
    assert brought.headers["content-type"].startswith("multipart/form-data")
    assert brought.content.index(b'name="key"') < brought.content.index(b'name="file"'), "S3 reads no field after it"
    assert json.loads(submitted.content)["promptImage"] == "runway://x"


@pytest.mark.parametrize(
    "url", ["https://evil.example/", "http://169.254.169.254/", "http://uploads.s3.amazonaws.com/"]
)
async def test_a_file_is_not_brought_to_an_address_that_is_not_runways(url: str) -> None:
    provider = Provider({"POST https://api.dev.runwayml.com/v1/uploads": place(url)})
    with pytest.raises(NotSent):
        await provider.drive(Runway()).submit(a_call(name="gen4_turbo", input={"promptImage": LARGE}))
    assert len(provider.seen) == 1


# -- elevenlabs: a file behind the key -------------------------------------------------------------------------------

DUB = "https://api.elevenlabs.io/v1/dubbing/d1"
HANDLE = {"id": "d1", "language": "es"}


async def test_a_dubbed_file_is_fetched_with_our_key() -> None:
    provider = Provider({f"GET {DUB}": gives(dubbing_id="d1", status="dubbed"), f"GET {DUB}/audio/es": SPEECH})
    fact = await provider.drive(ElevenLabs()).poll(HANDLE)
    assert (fact.phase, fact.output, fact.handle) == (Phase.SUCCEEDED, "data:audio/mpeg;base64,SUQz", HANDLE)
    assert provider.proofs == {DUB: {"xi-api-key": TOKEN}, f"{DUB}/audio/es": {"xi-api-key": TOKEN}}


async def test_the_sound_of_somebody_elses_dubbing_is_not_fetched() -> None:
    provider = Provider({f"GET {DUB}": gives(dubbing_id="d2", status="dubbed")})
    with pytest.raises(PollFailed, match="another job"):
        await provider.drive(ElevenLabs()).poll(HANDLE)
    assert len(provider.seen) == 1


# -- runware: an id of ours ------------------------------------------------------------------------------------------


def test_a_task_has_one_uuid_of_version_4_however_often_it_is_sent() -> None:
    assert task_uuid("a" * 26) == task_uuid("a" * 26) != task_uuid("b" * 26)
    assert UUID(task_uuid("a" * 26)).version == 4


async def test_a_repeated_submit_starts_nothing_and_finds_what_the_first_one_made() -> None:
    """The server takes each id once, as Runware does: the answer to the first sending is lost."""
    taken: dict[str, dict[str, Any]] = {}

    def serve(request: httpx.Request) -> httpx.Response:
        (task,) = json.loads(request.content)
        id = task["taskUUID"]
        if task["taskType"] == "getResponse":
            return gives(data=[{"taskUUID": id, "status": "success", "videoURL": "https://vm.runware.ai/x.mp4"}])
        if id in taken:
            return httpx.Response(400, json={"errors": [{"code": "conflictTaskUUID", "taskUUID": id}]})
        taken[id] = task
        raise httpx.ReadError("the line was cut")

    driver = Provider({"POST https://api.runware.ai/v1": serve}).drive(Runware(options={"task": "videoInference"}))
    call = a_call(name="klingai:5@3")
    with pytest.raises(OutcomeUnknown):
        await driver.submit(call)
    again = await driver.submit(call)
    assert again.phase is Phase.QUEUED
    assert again.handle is not None
    assert (await driver.poll(again.handle)).output == ["https://vm.runware.ai/x.mp4"]
    assert len(taken) == 1


# -- somebody else's job ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adapter", "handle", "request_line", "answer"),
    [
        (Bfl(), {"id": "j", "polling_url": SIBLING}, f"GET {SIBLING}", gives(id="k", status="Ready")),
        (
            Luma(),
            {"id": "j"},
            "GET https://api.lumalabs.ai/dream-machine/v1/generations/j",
            gives(id="k", state="completed"),
        ),
        (Runway(), {"id": "j"}, f"GET {TASK}", gives(id="k", status="SUCCEEDED", output=["https://x.example/a"])),
        (
            Runware(),
            {"id": "j"},
            "POST https://api.runware.ai/v1",
            gives(data=[{"taskUUID": "k", "imageURL": "https://im.runware.ai/x.webp"}]),
        ),
        (
            Stability(),
            {"id": "j"},
            "GET https://api.stability.ai/v2beta/results/j",
            httpx.Response(202, json={"id": "k", "status": "in-progress"}),
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_an_answer_about_another_job_is_refused(
    adapter: Adapter, handle: dict[str, str], request_line: str, answer: httpx.Response
) -> None:
    with pytest.raises(PollFailed, match="another job"):
        await Provider({request_line: answer}).drive(adapter).poll(handle)
