"""
Our answers held against the shapes of recorded ones.

The tables state, in our own words, which keys a recorded answer had and of which type each was; where Replicate's
older and newer backends differ, the newer one counts.
"""

from __future__ import annotations

from typing import Any

import pytest
from replicate.file import File
from replicate.model import Model
from replicate.prediction import Prediction
from replicate.version import Version

from gateway.contract.prediction import Status
from tests.unit.api.fakes import VERSION, World
from tests.unit.api.test_files import upload

TEXT, NULL, FLAG, OBJECT, NUMBER, WHOLE = str, type(None), bool, dict, float, int

# Create, June 2025, and the same prediction's keys as a webhook of that month showed them at its end.
CREATED = {
    "id": TEXT,
    "model": TEXT,
    "version": TEXT,
    "input": OBJECT,
    "logs": TEXT,
    "output": NULL,
    "data_removed": FLAG,
    "error": NULL,
    "status": TEXT,
    "created_at": TEXT,
    "urls": OBJECT,
}
ENDED = CREATED | {"output": TEXT, "started_at": TEXT, "completed_at": TEXT, "metrics": OBJECT}
URLS = {"cancel": TEXT, "get": TEXT, "stream": TEXT, "web": TEXT}
# Upload of August 2024.
FILE = {
    "id": TEXT,
    "name": TEXT,
    "content_type": TEXT,
    "size": WHOLE,
    "etag": TEXT,
    "checksums": OBJECT,
    "metadata": OBJECT,
    "created_at": TEXT,
    "expires_at": TEXT,
    "urls": OBJECT,
}
# Model of 2023; `is_official`, `weights_url` and `created_at` came in 2025.
MODEL = {
    "url": TEXT,
    "owner": TEXT,
    "name": TEXT,
    "description": TEXT,
    "visibility": TEXT,
    "github_url": NULL,
    "paper_url": NULL,
    "license_url": NULL,
    "run_count": WHOLE,
    "cover_image_url": NULL,
    "default_example": NULL,
    "latest_version": OBJECT,
}
VERSION_KEYS = {"id": TEXT, "created_at": TEXT, "cog_version": TEXT, "openapi_schema": OBJECT}
INVALID = {"detail": TEXT, "status": WHOLE, "title": TEXT, "invalid_fields": list}
UNAUTHENTICATED = {"title": TEXT, "detail": TEXT, "status": WHOLE}


def assert_shape(body: dict[str, Any], shape: dict[str, type]) -> None:
    assert set(body) >= set(shape)
    assert {key: type(body[key]) for key in shape} == shape


async def test_create_get_and_end_have_the_recorded_shapes(world: World) -> None:
    created = (await world.post()).json()
    assert_shape(created, CREATED)
    assert_shape(created["urls"], URLS)
    assert set(created) - set(CREATED) == {"source"}
    world.engine.end(
        created["id"], status=Status.SUCCEEDED, output="x", metrics={"predict_time": 1.5, "total_time": 2.0}
    )
    ended = (await world.alice.get(f"/v1/predictions/{created['id']}")).json()
    assert_shape(ended, ENDED)
    assert_shape(ended["metrics"], {"predict_time": NUMBER, "total_time": NUMBER})


async def test_a_waited_create_has_the_recorded_header_and_status(world: World) -> None:
    reply = await world.post(prefer="wait=10")
    assert (reply.status_code, reply.headers["preference-applied"]) == (201, "wait=10")
    assert reply.headers["content-type"].startswith("application/json")


async def test_errors_have_the_recorded_shapes(world: World) -> None:
    invalid = await world.post({"version": VERSION, "input": {}})
    assert_shape(invalid.json(), INVALID)
    assert all(set(one) == {"type", "field", "description"} for one in invalid.json()["invalid_fields"])
    nobody = await world.client("r8_wrong").post("/v1/predictions", json={})
    assert_shape(nobody.json(), UNAUTHENTICATED)
    assert int(nobody.headers["content-length"]) == 98  # the recorded one, its line end included


async def test_the_official_client_parses_every_object(world: World) -> None:
    await world.post(prefer="wait")
    id = world.only.id
    for path, kind, shape in (
        (f"/v1/predictions/{id}", Prediction, ENDED),
        ("/v1/models/acme/writer", Model, MODEL),
        (f"/v1/models/acme/writer/versions/{VERSION}", Version, VERSION_KEYS),
        (f"/v1/files/{await upload(world)}", File, FILE),
    ):
        body = (await world.alice.get(path)).json()
        if kind is Prediction:
            body["metrics"] = {"predict_time": 1.0}
        assert_shape(body, shape)
        assert kind(**body).dict().keys() & shape.keys()


@pytest.mark.parametrize(
    "path", ["/v1/predictions", "/v1/models", "/v1/files", "/v1/collections", "/v1/models/acme/writer/versions"]
)
async def test_pages_have_the_three_recorded_keys(world: World, path: str) -> None:
    body = (await world.alice.get(path)).json()
    assert list(body) == ["next", "previous", "results"]
