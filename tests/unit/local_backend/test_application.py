"""The HTTP contract of the server, in process: accepted once, refused in Replicate's shape, cancelled, waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.contract.clock import RandomIds, SystemClock
from local_backend.application import Application
from local_backend.batcher import Kind
from local_backend.kinds.open import open_kind
from local_backend.package import BUNDLED, Package, load
from local_backend.server import ModelServer
from tests.unit.local_backend.making import data_uri, encoded, opened, picture, tensor_package
from tests.unit.local_backend.test_queue import Gated

DOUBLE = "/v1/models/test/double/predictions"
UPSCALE = "/v1/models/turnout/upscaler/predictions"
ONES = {"x": [[1, 1, 1]]}


class Bench:
    """A server with the bundled model, a small one, and `gated` in place of the small one's runs if asked."""

    def __init__(self, packages: list[Package], gated: Gated | None, max_queue: int) -> None:
        def opened_kind(package: Package) -> Kind:
            if gated is not None and package.manifest.name == "test/double":
                return gated
            return open_kind(package, device="cpu", threads=1)

        self.packages = {package.manifest.name: package for package in packages}
        self.server = ModelServer(packages, opened_kind, max_queue=max_queue, clock=SystemClock(), ids=RandomIds())
        application = Application(self.server, address="http://here", device="cpu")
        transport = httpx.ASGITransport(app=application)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://here", timeout=15)

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return await self.client.post(path, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.fixture
def packages(tmp_path: Path) -> list[Package]:
    return [load(BUNDLED / "upscaler", into=tmp_path), load(tensor_package(tmp_path / "pack"), into=tmp_path)]


@pytest.fixture
async def bench(packages: list[Package]) -> AsyncIterator[Bench]:
    made = Bench(packages, None, max_queue=8)
    yield made
    await made.server.aclose()
    await made.client.aclose()


@pytest.fixture
async def gated() -> Gated:
    return Gated()


@pytest.fixture
async def busy(packages: list[Package], gated: Gated) -> AsyncIterator[Bench]:
    """Room for two waiting predictions; runs go on until `gated` lets them."""
    made = Bench(packages, gated, max_queue=2)
    yield made
    gated.go.release(100)
    await made.server.aclose()
    await made.client.aclose()


async def _ended(bench: Bench, id: str) -> Any:
    await bench.server.wait(bench.server.get(id), 10)
    return (await bench.client.get(f"/v1/predictions/{id}")).json()


async def test_without_prefer_the_answer_is_starting_and_polling_shows_the_end(bench: Bench) -> None:
    created = await bench.post(DOUBLE, {"input": ONES})
    assert created.status_code == 201
    body = created.json()
    assert (body["status"], body["output"], body["logs"], body["error"]) == ("starting", None, "", None)
    assert body["urls"]["get"].endswith(f"/v1/predictions/{body['id']}")
    done = await _ended(bench, body["id"])
    assert (done["status"], done["output"]) == ("succeeded", {"y": [[2, 2, 2]]})
    assert done["metrics"].keys() >= {"predict_time", "total_time"}


async def test_with_prefer_wait_the_answer_is_the_end(bench: Bench) -> None:
    image = data_uri(encoded(picture(30, 20)))
    created = await bench.post(UPSCALE, {"input": {"image": image, "unknown": 1}}, prefer="wait=10")
    assert created.headers["preference-applied"] == "wait=10"
    body = created.json()
    assert body["status"] == "succeeded"
    assert opened(body["output"]).size == (60, 40)
    assert len(body["input"]["image"]) < 200  # the echo is short


async def test_a_wait_that_runs_out_shows_it_as_it_began(busy: Bench, gated: Gated) -> None:
    created = (await busy.post(DOUBLE, {"input": ONES}, prefer="wait=0")).json()
    assert (created["status"], created["output"]) == ("starting", None)


async def test_all_three_ways_to_name_a_version(bench: Bench) -> None:
    version = bench.packages["test/double"].version
    for name in (version, f"test/double:{version}", "test/double"):
        created = await bench.post("/v1/predictions", {"version": name, "input": ONES}, prefer="wait")
        assert created.json()["version"] == version
        assert created.json()["output"] == {"y": [[2, 2, 2]]}
    for name in ("0" * 64, f"turnout/upscaler:{version}", "no/such", "test/double:abc", "", ":", "a b"):
        refused = await bench.post("/v1/predictions", {"version": name, "input": ONES})
        assert refused.status_code == 422
        assert refused.json()["title"] == "Invalid version or not permitted"


async def test_models_and_versions_are_shown(bench: Bench) -> None:
    version = bench.packages["turnout/upscaler"].version
    page = (await bench.client.get("/v1/models")).json()
    assert [f"{model['owner']}/{model['name']}" for model in page["results"]] == ["turnout/upscaler", "test/double"]
    model = (await bench.client.get("/v1/models/turnout/upscaler")).json()
    assert model["latest_version"]["id"] == version
    for path in ("versions", f"versions/{version}"):
        shown = (await bench.client.get(f"/v1/models/turnout/upscaler/{path}")).json()
        shown = shown.get("results", [shown])[0]
        assert "Input" in shown["openapi_schema"]["components"]["schemas"]
    for path in ("/v1/models/no/such", "/v1/models/turnout/upscaler/versions/abc", "/v1/predictions/abc", "/nothing"):
        missing = await bench.client.get(path)
        assert missing.status_code == 404
        assert missing.headers["content-type"] == "application/problem+json"
    assert (await bench.client.delete("/v1/models")).status_code == 405


@pytest.mark.parametrize(
    ("input", "field", "description"),
    [
        ({}, "input", "image is required"),
        ({"image": 1}, "input.image", "Invalid type. Expected: string, given: integer"),
        ({"image": None}, "input.image", "Invalid type. Expected: string, given: null"),
        ({"image": "DATA", "scale": 3}, "input.scale", "scale must be one of the following: 2, 4"),
        ({"image": "DATA", "scale": True}, "input.scale", "Invalid type. Expected: integer, given: boolean"),
        ({"image": "DATA", "scale": "2"}, "input.scale", "Invalid type. Expected: integer, given: string"),
        (
            {"image": "DATA", "format": "gif"},
            "input.format",
            'format must be one of the following: "png", "jpeg", "webp"',
        ),
        ({"image": "https://example.com/x.png"}, "input.image", "is a URL, and this server fetches none"),
        ({"image": data_uri(b"hello")}, "input.image", "no sound picture"),
        ({"image": data_uri(encoded(picture(99, 99))[:-900])}, "input.image", "no sound picture"),
    ],
)
async def test_a_bad_input_is_a_422_in_replicates_shape(
    input: dict[str, Any], field: str, description: str, bench: Bench
) -> None:
    given = {key: data_uri(encoded(picture(4, 4))) if value == "DATA" else value for key, value in input.items()}
    refused = await bench.post(UPSCALE, {"input": given})
    assert refused.status_code == 422
    body = refused.json()
    assert body["title"] == "Input validation failed"
    assert body["invalid_fields"][0]["field"] == field
    assert description in body["invalid_fields"][0]["description"]
    assert body["detail"].startswith(f"- {field}: ")


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"input": {"x": "\xff"}}', 400),
        (b'{"input": {"x": NaN}}', 400),
        (b'{"input":' + b'{"x":' * 5_000 + b"1" + b"}" * 5_001, 400),
        (b'{"input": {"x": ' + b"[" * 900 + b"]" * 900 + b"}}", 422),
        (b"[]", 422),
        (b"null", 422),
        (b"{}", 422),
        (b'{"input": []}', 422),
        (b'{"input": {}, "version": 1}', 422),
        (b'{"input": {}, "model": "x"}', 422),
    ],
)
async def test_a_malformed_body_is_a_problem_and_never_a_500(content: bytes, status: int, bench: Bench) -> None:
    answer = await bench.client.post(DOUBLE, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)
    assert (await bench.post(DOUBLE, {"input": ONES}, prefer="wait")).json()["status"] == "succeeded"


async def test_only_json_is_taken_and_not_too_much_of_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_backend.application.MAX_BODY_BYTES", 2**20)
    plain = await bench.client.post(DOUBLE, content=b"{}", headers={"content-type": "text/plain"})
    assert plain.status_code == 415
    huge = await bench.client.post(DOUBLE, content=b"{}", headers={"content-length": str(10**9)})
    assert huge.status_code == 413

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * 2**16

    assert (await bench.client.post(DOUBLE, content=endless())).status_code == 413


async def test_the_same_idempotency_key_never_runs_twice_even_at_once(busy: Bench, gated: Gated) -> None:
    sent = [busy.post(DOUBLE, {"input": ONES}, idempotency_key="k", prefer="wait") for _ in range(5)]
    gated.go.release()
    answers = await asyncio.gather(*sent)
    assert len({answer.json()["id"] for answer in answers}) == 1
    again = await busy.post(DOUBLE, {"input": ONES}, idempotency_key="k", prefer="wait")
    assert again.json() == answers[0].json()
    assert len(gated.batches) == 1
    other = await busy.post(DOUBLE, {"input": {"x": [[2, 2, 2]]}}, idempotency_key="k")
    assert other.status_code == 422
    assert other.json()["title"] == "Idempotency key reused"


async def test_a_refused_request_does_not_use_up_its_key(bench: Bench) -> None:
    assert (await bench.post(UPSCALE, {"input": {}}, idempotency_key="k")).status_code == 422
    assert (await bench.post(DOUBLE, {"input": ONES}, idempotency_key="k")).status_code == 201


async def test_a_full_queue_answers_503_with_a_time_and_takes_more_when_there_is_room(
    busy: Bench, gated: Gated
) -> None:
    first = (await busy.post(DOUBLE, {"input": ONES})).json()
    assert await asyncio.to_thread(gated.begun.acquire, timeout=10)
    waiting = [(await busy.post(DOUBLE, {"input": ONES})).json()["id"] for _ in range(2)]
    full = await busy.post(DOUBLE, {"input": ONES})
    assert full.status_code == 503
    assert int(full.headers["retry-after"]) >= 1
    assert full.json()["retry_after"] == int(full.headers["retry-after"])
    assert (await busy.post(UPSCALE, {"input": {"image": data_uri(encoded(picture(4, 4)))}})).status_code == 503
    await busy.client.post(f"/v1/predictions/{waiting[0]}/cancel")
    assert (await busy.post(DOUBLE, {"input": ONES})).status_code == 201
    gated.go.release(10)
    assert (await _ended(busy, first["id"]))["status"] == "succeeded"


async def test_a_prediction_that_cannot_be_done_by_its_deadline_is_refused_at_once(busy: Bench, gated: Gated) -> None:
    worker = busy.server._workers[busy.packages["test/double"].version]
    await worker.opened
    worker._estimate.learn(1, 100)
    refused = await busy.post(DOUBLE, {"input": ONES}, cancel_after="30s")
    assert refused.status_code == 503
    assert "after its deadline" in refused.json()["detail"]
    assert (await busy.post(DOUBLE, {"input": ONES}, cancel_after="5m")).status_code == 201


async def test_cancelling_ends_a_queued_and_a_running_prediction_at_once(busy: Bench, gated: Gated) -> None:
    running = (await busy.post(DOUBLE, {"input": ONES})).json()["id"]
    assert await asyncio.to_thread(gated.begun.acquire, timeout=10)
    queued = (await busy.post(DOUBLE, {"input": ONES})).json()["id"]
    for id in (queued, running):
        answer = (await busy.client.post(f"/v1/predictions/{id}/cancel")).json()
        assert answer["status"] == "canceled"
        assert (await busy.client.post(f"/v1/predictions/{id}/cancel")).json() == answer
    assert (await busy.client.get("/health")).json()["queue"] == 0
    gated.go.release(2)
    after = await busy.post(DOUBLE, {"input": ONES}, prefer="wait")
    assert after.json()["status"] == "succeeded"
    assert len(gated.batches) == 2  # the queued one never ran


async def test_a_deadline_ends_what_waits_as_aborted_and_what_runs_as_canceled(busy: Bench, gated: Gated) -> None:
    running = (await busy.post(DOUBLE, {"input": ONES}, cancel_after="0s")).json()["id"]
    assert (await _ended(busy, running))["status"] in ("aborted", "canceled")
    blocker = await busy.post(DOUBLE, {"input": ONES})
    assert blocker.status_code == 201
    late = (await busy.post(DOUBLE, {"input": ONES}, cancel_after="1s")).json()
    assert "deadline" in late
    assert (await _ended(busy, late["id"]))["status"] == "aborted"


@pytest.mark.parametrize("text", ["soon", "-5s", "5x", "s", " "])
async def test_a_cancel_after_that_is_no_duration_is_refused(text: str, bench: Bench) -> None:
    assert (await bench.post(DOUBLE, {"input": ONES}, cancel_after=text)).status_code == 400


async def test_health_says_what_runs_where(bench: Bench) -> None:
    await asyncio.gather(*(worker.opened for worker in bench.server._workers.values()))
    health = await bench.client.get("/health")
    assert health.status_code == 200
    body = health.json()
    assert (body["device"], body["state"], body["queue"], body["max_queue"]) == ("cpu", "ready", 0, 8)
    assert [(model["model"], model["state"], model["devices"]) for model in body["models"]] == [
        ("turnout/upscaler", "ready", ["cpu"]),
        ("test/double", "ready", ["cpu"]),
    ]


async def test_a_run_that_does_not_hear_its_stop_makes_the_server_unwell(
    busy: Bench, gated: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = (await busy.post(DOUBLE, {"input": ONES})).json()["id"]
    assert await asyncio.to_thread(gated.begun.acquire, timeout=10)
    assert (await busy.client.get("/health")).status_code == 200
    await busy.client.post(f"/v1/predictions/{running}/cancel")
    monkeypatch.setattr("local_backend.server.STUCK_SECONDS", 0.0)
    stuck = await busy.client.get("/health")
    assert (stuck.status_code, stuck.json()["state"]) == (503, "stuck")


async def test_a_model_that_cannot_be_opened_is_unavailable_and_the_others_are_not(packages: list[Package]) -> None:
    def refuse(package: Package) -> Kind:
        if package.manifest.name == "test/double":
            raise ValueError("no such graph")
        return open_kind(package, device="cpu", threads=1)

    server = ModelServer(packages, refuse, max_queue=4, clock=SystemClock(), ids=RandomIds())
    transport = httpx.ASGITransport(app=Application(server, address="", device="cpu"))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        refused = await client.post(DOUBLE, json={"input": ONES})
        assert refused.status_code == 503
        assert "no such graph" in refused.json()["detail"]
        image = data_uri(encoded(picture(4, 4)))
        fine = await client.post(UPSCALE, json={"input": {"image": image}}, headers={"prefer": "wait"})
        assert fine.json()["status"] == "succeeded"
    await server.aclose()


async def test_a_token_is_asked_of_every_request_if_there_is_one(bench: Bench) -> None:
    application = Application(bench.server, address="", device="cpu", token="t" * 16)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=application), base_url="http://here") as client:
        for authorization in ({}, {"authorization": "Bearer wrong"}, {"authorization": "t" * 16}):
            assert (await client.get("/health", headers=authorization)).status_code == 401
        assert (await client.get("/health", headers={"authorization": "Bearer " + "t" * 16})).status_code == 200


async def test_what_our_own_adapter_sends_is_understood(busy: Bench, gated: Gated) -> None:
    from gateway.contract.provider import Call, HttpResponse
    from providers.replicate import Replicate

    adapter = Replicate("local", {"wait": True, "idempotent": True})
    call = Call(
        prediction="p",
        attempt=1,
        name="test/double",
        version=busy.packages["test/double"].version,
        input=ONES,
        idempotency_id="i" * 26,
        callback_url=None,
        deadline_seconds=20,
    )
    request = adapter.submit(call)

    async def send() -> HttpResponse:
        answer = await busy.client.request(
            request.method, "/v1" + request.url, headers=request.headers, json=request.json
        )
        return HttpResponse(status=answer.status_code, headers=answer.headers, body=answer.content)

    gated.go.release()
    fact = adapter.read_submit(call, await send())
    assert (fact.phase, fact.output) == ("succeeded", ONES)
    again = adapter.read_submit(call, await send())
    assert again.handle == fact.handle
