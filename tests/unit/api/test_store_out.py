"""Every door while the store is out, asked through the whole HTTP stack: a 503 that may be tried again, never a 500."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.api.application import RESOURCES
from gateway.api.route import Route
from gateway.contract.clock import SeededIds
from gateway.dashboard.act import Acts
from gateway.dashboard.operations import Operations
from tests.unit.api.fakes import ADMIN, PUBLIC, VERSION, FakeFiles, World
from tests.unit.api.test_deliveries import Receivers
from tests.unit.api.test_files import form, part
from tests.unit.dashboard import test_view
from tests.unit.engine.stage import Stage, virtual

# What is answered from memory or from the disk, whatever becomes of the store.
WITHOUT_STORE = {
    "/v1/models",
    "/v1/models/{owner}/{name}",
    "/v1/models/{owner}/{name}/readme",
    "/v1/models/{owner}/{name}/examples",
    "/v1/models/{owner}/{name}/versions",
    "/v1/models/{owner}/{name}/versions/{id}",
    "/v1/models/{owner}/{name}/versions/{id}/trainings",
    "/v1/search",
    "/v1/account",
    "/v1/hardware",
    "/v1/collections",
    "/v1/collections/{slug}",
    "/v1/webhooks/default/secret",
    "/v1/deployments",
    "/v1/deployments/{owner}/{name}",
    "/v1/deployments/{owner}/{name}/predictions",
    "/v1/trainings",
    "/v1/trainings/{id}",
    "/v1/trainings/{id}/cancel",
    "/artifacts/{token}/{name}",
    "/livez",
    "/metrics",
    "/dashboard",
    "/dashboard/{file}",
}
ENDLESS = {"/ops/v1/events"}  # of what this process sees; it asks for nothing that is kept
WHY = {"reason": "it has to be"}
BODIES: dict[str, Any] = {
    "/v1/predictions": {"version": VERSION, "input": {"prompt": "hi"}},
    "/v1/models/{owner}/{name}/predictions": {"input": {"prompt": "hi"}},
    "/ops/v1/breakers": {"offer": "acme/upscale@north", "action": "open", **WHY},
    "/ops/v1/predictions/{id}/cancel": WHY,
    "/ops/v1/predictions/{id}/redeliver": WHY,
    "/ops/v1/deliveries/retry": {"host": "hooks.example", **WHY},
}
QUERIES = {"/v1/files/{id}/download": {"owner": "admin", "expiry": "4102444800"}}


class Desk:
    """The API over a real engine and a store that can be out."""

    def __init__(self, folder: Path, stage: Stage) -> None:
        self.stage = stage
        store: Any = stage.store
        seen, files = test_view.World(), FakeFiles(folder, SeededIds(8))
        assert stage.engine is not None
        acts = Acts(
            store,
            stage.engine,
            seen.breakers,
            seen.journal,
            offers=seen.routes.offers,
            receivers=Receivers(),
            clock=seen.clock,
        )
        operations = Operations(
            store, seen.view, seen.journal, acts, files, engine=stage.engine, clock=seen.clock, base=PUBLIC
        )
        self.world = World(folder, engine=stage.engine, store=store, operations=operations)
        self.admin = self.world.client(ADMIN.text)

    async def ask(self, route: Route, method: str) -> Any:
        path = route.path
        for name, value in {"id": "0" * 26, "token": "t" * 43, "owner": "acme", "name": "writer", "slug": "s"}.items():
            path = path.replace("{" + name + "}", value)
        query = dict(QUERIES.get(route.path, {}))
        if query:
            query["signature"] = self.world.files.sign_download("0" * 26, query["owner"], int(query["expiry"]))
        if (route.path, method) == ("/v1/files", "POST"):
            return await self.admin.post(
                path,
                content=form(part("content", b"bytes", filename="a.txt", type="text/plain")),
                headers={"content-type": "multipart/form-data; boundary=frontier"},
            )
        return await self.admin.request(method, path, params=query, json=BODIES.get(route.path))


CALLS = [
    (route, method)
    for resource in RESOURCES
    for route in resource.ROUTES
    for method in route.verbs
    if method != "HEAD" and route.path not in ENDLESS
]
DOORS = [(route, method) for route, method in CALLS if route.path not in WITHOUT_STORE]


@pytest.mark.parametrize(("route", "method"), DOORS, ids=lambda value: getattr(value, "path", value))
def test_it_is_answered_503_and_opens_when_the_store_is_back(tmp_path: Path, route: Route, method: str) -> None:
    @virtual
    async def scenario() -> None:
        async with Stage(tmp_path) as stage:
            desk = Desk(tmp_path, stage)
            stage.store.is_out = True
            reply = await desk.ask(route, method)
            assert reply.status_code == 503, f"{reply.status_code} {reply.text}"
            if route.path != "/readyz":
                assert reply.headers["content-type"] == "application/problem+json"
                assert reply.headers["retry-after"] == "1"
            stage.store.is_out = False
            desk.world.clock.advance(1)
            reply = await desk.ask(route, method)
            assert reply.status_code not in (500, 503), f"it was not the store: {reply.status_code} {reply.text}"

    scenario()


@virtual
async def test_what_needs_no_store_is_served_all_the_same(tmp_path: Path) -> None:
    async with Stage(tmp_path) as stage:
        desk = Desk(tmp_path, stage)
        stage.store.is_out = True
        for route, method in CALLS:
            if route.path in WITHOUT_STORE:
                reply = await desk.ask(route, method)
                assert reply.status_code < 500, f"{method} {route.path}: {reply.status_code} {reply.text}"
