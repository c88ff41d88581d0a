"""Models, account and the other small resources, callbacks and probes."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.contract.errors import CallbackForged, NotFound, StoreUnavailable
from gateway.contract.model import Model
from tests.unit.api.fakes import ADMIN, ALICE, BEGIN, FILES_VERSION, OLD_VERSION, PUBLIC, VERSION, World, replace


async def test_a_model_has_all_that_the_clients_require(world: World) -> None:
    body = (await world.alice.get("/v1/models/acme/writer")).json()
    assert body["url"] == f"{PUBLIC}/v1/models/acme/writer"
    assert (body["owner"], body["name"], body["visibility"], body["run_count"]) == ("acme", "writer", "public", 0)
    assert body["default_example"] is None
    latest = body["latest_version"]
    assert latest["id"] == VERSION
    assert isinstance(latest["cog_version"], str)
    assert tuple(int(part) for part in latest["cog_version"].split(".")) >= (0, 3, 9)
    assert latest["openapi_schema"]["components"]["schemas"]["Input"]["required"] == ["prompt"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/acme/none",
        "/v1/models/acme/none/versions",
        "/v1/models/acme/none/versions/" + VERSION,
        "/v1/models/acme/none/readme",
        "/v1/models/acme/none/examples",
        "/v1/models/acme/writer/versions/" + FILES_VERSION,
        "/v1/collections/x",
        "/v1/deployments/a/b",
        "/v1/trainings/x",
    ],
)
async def test_what_is_not_there_is_a_404(world: World, path: str) -> None:
    reply = await world.alice.get(path)
    assert reply.status_code == 404
    assert set(reply.json()) >= {"title", "detail", "status"}


async def test_versions_are_listed_newest_first_and_found_by_id(world: World) -> None:
    listed = (await world.alice.get("/v1/models/acme/writer/versions")).json()
    assert [one["id"] for one in listed["results"]] == [VERSION, OLD_VERSION]
    one = (await world.alice.get(f"/v1/models/acme/writer/versions/{OLD_VERSION}")).json()
    assert set(one) == {"id", "created_at", "cog_version", "openapi_schema"}
    assert None not in one.values()


async def test_models_are_paged_by_25_and_sorted_as_asked(world: World) -> None:
    world.models.all = [
        Model(
            owner="acme",
            name=f"m{number:02}",
            description="",
            default_version=VERSION,
            offers=(),
            versions=(replace(world.models.all[0].versions[0], created_at=BEGIN + timedelta(hours=number)),),
            created_at=BEGIN - timedelta(hours=number),
        )
        for number in range(60)
    ]
    page = (await world.alice.get("/v1/models")).json()
    names = [one["name"] for one in page["results"]]
    assert names == [f"m{number:02}" for number in range(59, 34, -1)]
    second = (await world.alice.get(page["next"])).json()
    third = (await world.alice.get(second["next"])).json()
    assert [len(one["results"]) for one in (second, third)] == [25, 10]
    assert third["next"] is None
    assert (await world.alice.get(second["previous"])).json()["results"][0]["name"] == "m59"
    created = (
        await world.alice.get("/v1/models", params={"sort_by": "model_created_at", "sort_direction": "desc"})
    ).json()
    assert created["results"][0]["name"] == "m00"
    ascending = (await world.alice.get("/v1/models", params={"sort_direction": "asc"})).json()
    assert ascending["results"][0]["name"] == "m00"
    assert (await world.alice.get("/v1/models", params={"sort_by": "stars"})).status_code == 422


@pytest.mark.parametrize("text", [b"paint", b'"paint"', b"PAINT things", b"pictures paint"])
async def test_models_are_searched_by_text_as_each_client_sends_it(world: World, text: bytes) -> None:
    reply = await world.alice.request("QUERY", "/v1/models", content=text, headers={"content-type": "text/plain"})
    assert [one["name"] for one in reply.json()["results"]] == ["painter"]


async def test_a_search_text_that_is_not_utf8_or_too_long_is_refused(world: World) -> None:
    assert (await world.alice.request("QUERY", "/v1/models", content=b"\xff")).status_code == 400
    assert (await world.alice.request("QUERY", "/v1/models", content=b"x" * 20_000)).status_code == 413
    assert len((await world.alice.request("QUERY", "/v1/models", content=b'"')).json()["results"]) == 0


async def test_search_answers_models_and_wants_a_query(world: World) -> None:
    body = (await world.alice.get("/v1/search", params={"query": "things", "limit": "1"})).json()
    assert set(body) == {"query", "models", "collections", "pages"}
    assert len(body["models"]) == 1
    missing = await world.alice.get("/v1/search")
    assert (missing.status_code, missing.json()["detail"]) == (400, 'Query parameter "query" is required')
    for limit in ("0", "51", "x", "-1", "9" * 5000):
        assert (await world.alice.get("/v1/search", params={"query": "x", "limit": limit})).status_code == 422


async def test_readme_is_markdown_and_examples_are_a_page(world: World) -> None:
    readme = await world.alice.get("/v1/models/acme/writer/readme")
    assert readme.headers["content-type"].startswith("text/plain")
    assert readme.text.startswith("# acme/writer")
    assert (await world.alice.get("/v1/models/acme/writer/examples")).json() == PAGE


PAGE = {"next": None, "previous": None, "results": []}


async def test_the_small_resources_have_their_shapes(world: World) -> None:
    assert (await world.alice.get("/v1/account")).json() == {
        "type": "user",
        "username": "alice",
        "name": "alice",
        "github_url": None,
        "avatar_url": None,
    }
    assert (await world.alice.get("/v1/webhooks/default/secret")).json() == {
        "key": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
    }
    hardware = (await world.alice.get("/v1/hardware")).json()
    assert isinstance(hardware, list)
    assert all(set(one) == {"name", "sku"} for one in hardware)
    for path in ("/v1/collections", "/v1/deployments", "/v1/trainings"):
        assert (await world.alice.get(path)).json() == PAGE


@pytest.mark.parametrize(
    ("method", "path", "status", "word"),
    [
        ("POST", "/v1/deployments", 405, "deployments"),
        ("POST", "/v1/deployments/a/b/predictions", 404, "deployments"),
        ("PATCH", "/v1/deployments/a/b", 405, "deployments"),
        ("POST", f"/v1/models/acme/writer/versions/{VERSION}/trainings", 404, "train"),
        ("POST", "/v1/trainings/x/cancel", 404, "train"),
        ("POST", "/v1/models", 405, "operator"),
    ],
)
async def test_what_is_not_done_here_is_said_clearly(
    world: World, method: str, path: str, status: int, word: str
) -> None:
    reply = await world.alice.request(method, path, json={})
    assert reply.status_code == status
    assert word in reply.json()["detail"]


TOKEN = "t" * 43


@pytest.mark.parametrize("outcome", ["applied", "duplicate", "nudge"])
async def test_a_callback_goes_to_the_engine_raw_and_without_a_key(world: World, outcome: str) -> None:
    world.engine.callback_outcome = outcome
    body = b'{"a": 1,  "a": 2}\n'
    reply = await world.nobody.post(f"/cb/{TOKEN}", content=body, headers={"Webhook-Id": "msg_1"})
    assert (reply.status_code, reply.json()) == (200, {"status": outcome})
    ((token, headers, raw),) = world.engine.callbacks
    assert (token, raw, headers["webhook-id"]) == (TOKEN, body, "msg_1")


@pytest.mark.parametrize(
    ("error", "status"), [(CallbackForged("x"), 401), (NotFound("x"), 404), (StoreUnavailable("x"), 503)]
)
async def test_a_callback_that_is_not_taken_says_why_by_status(world: World, error: Exception, status: int) -> None:
    world.engine.callback_outcome = error
    reply = await world.nobody.post(f"/cb/{TOKEN}", content=b"{}")
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"


async def test_a_callback_is_bounded_and_its_token_looked_at_first(world: World) -> None:
    assert (await world.nobody.post(f"/cb/{TOKEN}", content=b"x" * 1_000_001)).status_code == 413
    assert (await world.nobody.post("/cb/short", content=b"{}")).status_code == 404
    assert world.engine.callbacks == []


async def test_alive_asks_nothing_and_ready_asks_the_store(world: World) -> None:
    world.store.is_down = True
    assert (await world.nobody.get("/livez")).status_code == 200
    unready = await world.nobody.get("/readyz")
    assert (unready.status_code, unready.json()["reasons"]) == (503, ["the store cannot be written"])
    world.store.is_down = False
    world.clock.advance(1)
    assert (await world.nobody.get("/readyz")).json() == {"status": "ready", "reasons": []}
    world.engine.is_draining = True
    assert (await world.nobody.get("/readyz")).json()["reasons"] == ["draining"]


async def test_a_store_that_hangs_is_not_ready(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api.store_check.CHECK_SECONDS", 0.01)

    async def hang() -> None:
        await asyncio.Event().wait()

    world.store.check = hang  # type: ignore[method-assign]
    assert (await world.nobody.get("/readyz")).status_code == 503


async def test_the_store_is_asked_once_a_second_however_many_ask_us(world: World) -> None:
    asked = 0
    answered = asyncio.Event()

    async def check() -> None:
        nonlocal asked
        asked += 1
        await answered.wait()

    world.store.check = check  # type: ignore[method-assign]
    together = [asyncio.create_task(world.nobody.get("/readyz")) for _ in range(20)]
    for _ in range(50):
        await asyncio.sleep(0)
    together[0].cancel()  # who asked first must not take the answer from the rest
    answered.set()
    replies = await asyncio.gather(*together, return_exceptions=True)
    assert isinstance(replies[0], asyncio.CancelledError)
    assert [reply.status_code for reply in replies[1:] if not isinstance(reply, BaseException)] == [200] * 19
    world.clock.advance(0.99)
    assert (await world.nobody.get("/readyz")).status_code == 200
    assert asked == 1
    world.clock.advance(0.01)
    assert (await world.nobody.get("/readyz")).status_code == 200
    assert asked == 2


async def test_readiness_may_name_more_reasons(tmp_path: Path) -> None:
    async def readiness() -> list[str]:
        return ["the local backend is starting"]

    reply = await World(tmp_path, readiness=readiness).nobody.get("/readyz")
    assert (reply.status_code, reply.json()["reasons"]) == (503, ["the local backend is starting"])


async def test_metrics_are_prometheus_text_and_may_ask_for_an_admin_key(world: World, tmp_path: Path) -> None:
    open_ = await world.nobody.get("/metrics")
    assert open_.text == "turnout_predictions_total 1\n"
    assert open_.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert (await World(tmp_path, metrics=None).nobody.get("/metrics")).status_code == 404, "no zeros that stand still"
    closed = World(tmp_path, metrics_key=True)
    assert (await closed.nobody.get("/metrics")).status_code == 401
    assert (await closed.client(ALICE.text).get("/metrics")).status_code == 403
    assert (await closed.client(ADMIN.text).get("/metrics")).status_code == 200
