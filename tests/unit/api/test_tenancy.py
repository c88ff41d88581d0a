"""Keys: who is let in, by which scope, and that another's things are as good as missing, on every route with an id."""

from __future__ import annotations

import pytest

from gateway.api.application import RESOURCES
from gateway.api.route import Route
from tests.unit.api.fakes import ALICE, BOB, READER, VERSION, World
from tests.unit.api.test_files import upload

ROUTES: list[Route] = [route for resource in RESOURCES for route in resource.ROUTES]
OPEN = {
    "/stream/{token}",
    "/v1/files/{id}",
    "/v1/files/{id}/download",
    "/artifacts/{token}/{name}",
    "/cb/{token}",
    "/livez",
    "/readyz",
    "/metrics",
    "/dashboard",
    "/dashboard/{file}",
}
NO_TOKEN = {"title": "Unauthenticated", "detail": "You did not pass an authentication token", "status": 401}
BAD_TOKEN = {"title": "Unauthenticated", "detail": "You did not pass a valid authentication token", "status": 401}


def filled(route: Route, id: str = "x" * 26) -> str:
    path = route.path
    for name, value in {"id": id, "token": "t" * 43, "owner": "acme", "name": "writer", "slug": "s"}.items():
        path = path.replace("{" + name + "}", value)
    return path


CALLS = [(route, method) for route in ROUTES for method in route.verbs]


@pytest.mark.parametrize(("route", "method"), CALLS, ids=lambda value: getattr(value, "path", value))
async def test_every_route_but_the_open_ones_asks_for_a_key_first(world: World, route: Route, method: str) -> None:
    if route.path in OPEN and route.path != "/v1/files/{id}":
        reply = await world.nobody.request(method, filled(route))
        assert reply.status_code != 401
        return
    reply = await world.nobody.request(method, filled(route))
    assert reply.status_code == 401
    if method != "HEAD":
        assert reply.json() == NO_TOKEN
    assert reply.headers["content-type"] == "application/problem+json"
    wrong = await world.client("r8_wrong").request(method, filled(route))
    assert wrong.status_code == 401


async def test_a_route_without_needs_is_one_we_meant_to_open() -> None:
    assert {route.path for route in ROUTES if route.needs is None} == OPEN


@pytest.mark.parametrize("scheme", ["Bearer", "Token", "bearer", "TOKEN"])
async def test_both_schemes_are_taken(world: World, scheme: str) -> None:
    reply = await world.client(ALICE.text, scheme).get("/v1/account")
    assert reply.json()["username"] == "alice"


@pytest.mark.parametrize(
    "header",
    [
        "Basic abc",
        "Bearer",
        "Bearer  ",
        ALICE.text,
        "Bearer " + ALICE.hash,
        "Bearer " + "x" * 5000,
        "Bearer é",
        f"Bearer {ALICE.text}x",
    ],
    ids=["basic", "no token", "blank", "no scheme", "the hash", "long", "not ASCII", "one letter more"],
)
async def test_a_wrong_token_is_told_in_the_words_of_replicate(world: World, header: str) -> None:
    reply = await world.nobody.get("/v1/account", headers=[(b"authorization", header.encode("latin-1"))])
    assert (reply.status_code, reply.json()) == (401, BAD_TOKEN)
    assert "www-authenticate" in reply.headers


async def test_a_typo_is_told_from_a_wrong_key(world: World) -> None:
    typo = ALICE.text[:-12] + ("0" if ALICE.text[-12] != "0" else "1") + ALICE.text[-11:]
    reply = await world.client(typo).get("/v1/account")
    assert reply.json() == BAD_TOKEN
    assert "checksum" in reply.headers["www-authenticate"]
    other = await world.client("r8_other").get("/v1/account")
    assert "checksum" not in other.headers["www-authenticate"]


async def test_a_key_can_only_do_what_its_scopes_say(world: World) -> None:
    reader = world.client(READER.text)
    assert (await reader.get("/v1/models")).status_code == 200
    for method, path in [
        ("POST", "/v1/predictions"),
        ("GET", "/v1/predictions"),
        ("POST", "/v1/files"),
        ("GET", "/v1/files/x"),
        ("DELETE", "/v1/files/x"),
        ("POST", "/v1/predictions/x/cancel"),
        ("GET", "/v1/webhooks/default/secret"),
    ]:
        reply = await reader.request(method, path)
        assert reply.status_code == 403, path
        assert reply.json()["title"] == "Forbidden"


async def test_a_foreign_id_gets_the_very_answer_of_a_missing_one(world: World) -> None:
    prediction = (await world.post()).json()["id"]
    file = await upload(world)
    asked = 0
    for route, method in CALLS:
        if route.path.startswith("/v1/predictions/{id}"):
            id = prediction
        elif route.path == "/v1/files/{id}":
            id = file
        else:
            continue
        asked += 1
        foreign = await world.bob.request(method, filled(route, id))
        missing = await world.bob.request(method, filled(route, "0" * 26))
        assert foreign.status_code == missing.status_code == 404, route.path
        assert foreign.content == missing.content
        assert foreign.headers == missing.headers
    assert asked == 6  # with HEAD
    assert prediction in world.store.predictions
    assert file in world.store.files
    assert not world.store.predictions[prediction].is_terminal


async def test_lists_hold_only_ones_own(world: World) -> None:
    await world.post()
    await upload(world)
    for path in ("/v1/predictions", "/v1/files"):
        assert len((await world.alice.get(path)).json()["results"]) == 1
        assert (await world.bob.get(path)).json()["results"] == []


async def test_an_idempotency_key_is_ones_own(world: World) -> None:
    mine = await world.post(idempotency_key="k")
    theirs = await world.bob.post(
        "/v1/predictions", json={"version": VERSION, "input": {"prompt": "hi"}}, headers={"idempotency-key": "k"}
    )
    assert mine.json()["id"] != theirs.json()["id"]
    assert world.store.predictions[theirs.json()["id"]].owner == "bob"


async def test_no_answer_and_no_log_holds_a_key(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.engine.failures = [RuntimeError("boom")]
    for reply in (
        await world.post(),
        await world.post({"version": VERSION, "input": {"prompt": ALICE.text}}),
        await world.post({"version": VERSION, "input": {"prompt": 7, "x": ALICE.text}}),
        await world.alice.get(f"/v1/{ALICE.text}"),
        await world.alice.get("/v1/predictions", params={"cursor": ALICE.text}),
    ):
        assert ALICE.text not in reply.text
    assert ALICE.text not in caplog.text
    assert BOB.text not in caplog.text
