"""npm's `replicate` 1.4.0, unchanged, against a real gateway. What it does is in `clients/npm_*.mjs`."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image

from tests.e2e.clients.prepared import NPM, Script
from tests.e2e.conftest import SIZE
from tests.e2e.cutting_proxy import CuttingProxy
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.receiver import Receiver
from tests.e2e.upstream import WORDS, Upstream

# The first to come may have to install the client, and starts the gateway.
pytestmark = pytest.mark.timeout(330)


@pytest.fixture
def predictions(npm: Callable[..., Script]) -> Script:
    return npm("npm_predictions")


@pytest.fixture
def resources(npm: Callable[..., Script]) -> Script:
    return npm("npm_resources")


@pytest.fixture
def text() -> str:
    """A text that no other test uses: jobs are found by it."""
    return f"text-{uuid4().hex}"


def size_of(encoded: str) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(encoded))).size


def test_it_is_the_client_this_file_is_about(predictions: Script) -> None:
    assert predictions("whoami") == {"version": NPM, "username": "default"}


# -- run, create, wait ------------------------------------------------------------------------------------------------


def test_run_by_name_and_by_version_returns_the_output(
    predictions: Script, version_of: Callable[[str], str], text: str
) -> None:
    for ref in ("acme/job", f"acme/job:{version_of('acme/job')}"):
        ran = predictions("run", ref=ref, input={"do": "echo", "text": text})
        assert ran == {"output": text, "seen": ["succeeded", "succeeded"]}
    assert predictions("run", ref="acme/writer", input={"prompt": "Tell."})["output"] == ["Tell.", *WORDS]


def test_run_in_poll_mode_polls(predictions: Script, text: str) -> None:
    ran = predictions("run", ref="acme/job", input={"do": "echo", "text": text}, wait={"mode": "poll", "interval": 50})
    assert ran["output"] == text
    assert (ran["seen"][0], ran["seen"][-1]) == ("starting", "succeeded")


def test_run_polls_on_when_the_model_is_slower_than_the_wait(
    predictions: Script, upstream: Upstream, text: str
) -> None:
    answered: list[Any] = []

    def run() -> None:
        wait = {"mode": "block", "timeout": 1}
        answered.append(predictions("run", ref="acme/job", input={"do": "hold", "text": text}, wait=wait))

    running = threading.Thread(target=run)
    running.start()
    upstream.held(text)
    running.join(1.5)  # the wait of a second is over, the job is not
    assert running.is_alive()
    upstream.release(text, "late, and whole")
    running.join(15)
    (ran,) = answered
    assert ran["output"] == "late, and whole"
    assert (ran["seen"][0], ran["seen"][-1]) == ("starting", "succeeded")
    assert len(upstream.jobs(text)) == 1


def test_create_answers_starting_and_wait_polls_to_the_end(
    predictions: Script, version_of: Callable[[str], str], text: str
) -> None:
    pinned = version_of("acme/job")
    for which in ({"model": "acme/job"}, {"version": pinned}):
        did = predictions("createAndWait", options={**which, "input": {"do": "echo", "text": text}})
        assert (did["created"]["status"], did["created"]["output"]) == ("starting", None)
        assert (did["ended"]["status"], did["ended"]["output"], did["ended"]["version"]) == ("succeeded", text, pinned)
        assert did["again"] == did["ended"]


def test_what_is_ours_rides_beside(predictions: Script, text: str) -> None:
    ended = predictions("createAndWait", options={"model": "acme/job", "input": {"do": "echo", "text": text}})["ended"]
    assert ended["routing"]["provider"] == "jobs"
    assert [attempt["status"] for attempt in ended["routing"]["attempts"]] == ["succeeded"]


# -- stream, cancel ---------------------------------------------------------------------------------------------------


def test_stream_yields_the_text_in_events_that_end_with_done(predictions: Script) -> None:
    events = predictions("stream", ref="acme/writer", input={"prompt": "Tell me.\n"})
    assert "".join(one["data"] for one in events if one["event"] == "output") == "Tell me.\n" + "".join(WORDS)
    assert events[-1]["event"] == "done"
    assert all(one["id"] for one in events)


def test_cancel_ends_a_running_prediction_here_and_there(predictions: Script, upstream: Upstream, text: str) -> None:
    id = predictions("create", options={"model": "acme/job", "input": {"do": "hold", "text": text}})["id"]
    job = upstream.held(text)
    assert predictions("cancel", id=id) == "canceled"
    assert job.status == "canceled"


def test_an_aborted_run_is_canceled(
    predictions: Script, gateway: GatewayProcess, upstream: Upstream, text: str
) -> None:
    aborted = predictions("abort", ref="acme/job", input={"do": "hold", "text": text})
    assert aborted["error"] is None
    assert aborted["output"] is None
    with gateway.client() as client:
        assert client.get(f"/v1/predictions/{aborted['id']}").json()["status"] == "canceled"
    assert [job.status for job in upstream.jobs(text)] == ["canceled"]


# -- lists ------------------------------------------------------------------------------------------------------------


def test_predictions_are_paginated(resources: Script, many: frozenset[str]) -> None:
    pages = resources("pages")
    assert len(pages) > 1
    assert all(len(page) == 100 for page in pages[:-1])
    ids = [id for page in pages for id in page]
    assert len(ids) == len(set(ids))
    assert many <= set(ids)


def test_models_and_versions_are_got_listed_and_searched(resources: Script) -> None:
    models = resources("models", owner="acme", name="writer")
    assert models["model"]["description"] == "Writes a little."
    assert models["versions"] == [models["model"]["latest_version"]["id"]]
    assert models["required"] == ["prompt"]
    assert {"acme/writer", "acme/job", "turnout/upscaler"} <= set(models["listed"])
    assert models["found"] == ["writer"]


def test_the_other_resources_answer(resources: Script) -> None:
    assert resources("others") == {"hardware": ["any"], "collections": [], "deployments": [], "trainings": []}


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_buffer_goes_up_and_its_picture_comes_back(resources: Script, picture: Path) -> None:
    got = resources("buffer", path=str(picture))
    # Without TLS in front an output stays a string: this client makes files of https: and data: only.
    assert got["kind"] == "string"
    assert size_of(got["bytes"]) == (SIZE[0] * 2, SIZE[1] * 2)


def test_a_streamed_picture_is_a_file(resources: Script, gateway: GatewayProcess, picture: Path) -> None:
    events = resources("blob", path=str(picture))
    assert events[-1] == {"event": "done"}
    (output,) = (one for one in events if one["event"] == "output")
    assert (output["kind"], output["type"]) == ("FileOutput", "image/png")
    assert output["url"].startswith(f"{gateway.url}/artifacts/")
    assert size_of(output["bytes"]) == (SIZE[0] * 4, SIZE[1] * 4)


def test_files_are_uploaded_got_listed_used_and_deleted(resources: Script, picture: Path) -> None:
    files = resources("files", path=str(picture))
    created = files["created"]
    assert (created["name"], created["size"], created["metadata"]) == (
        "shelf.png",
        picture.stat().st_size,
        {"shelf": "a"},
    )
    assert files["got"] == created
    assert (files["listed"], files["isDeleted"]) == (True, True)
    assert (files["after"]["name"], files["after"]["status"]) == ("ApiError", 404)
    assert "File not found" in files["after"]["message"]
    assert size_of(files["bytes"]) == (SIZE[0] * 2, SIZE[1] * 2)


def test_a_client_that_posts_itself_leaves_no_token(
    predictions: Script, gateway: GatewayProcess, upstream: Upstream
) -> None:
    created = predictions("leak", model="acme/grow", input={"do": "grow"})
    with gateway.client() as client:
        shown = client.get(f"/v1/predictions/{created['id']}").text
    assert gateway.key not in json.dumps(created) + shown + gateway.log
    assert created["input"] == {}


# -- errors -----------------------------------------------------------------------------------------------------------


def test_errors_are_its_own_types_with_our_detail(resources: Script) -> None:
    errors = resources("errors")
    failed = errors.pop("failed")
    assert {name: (error["name"], error["status"]) for name, error in errors.items()} == {
        "token": ("ApiError", 401),
        "model": ("ApiError", 404),
        "prediction": ("ApiError", 404),
        "version": ("ApiError", 422),
        "input": ("ApiError", 422),
        "deployment": ("ApiError", 404),
    }
    assert "You did not pass a valid authentication token" in errors["token"]["message"]
    assert "Invalid version or not permitted" in errors["version"]["message"]
    assert "input.do: do must be one of the following" in errors["input"]["message"]
    assert failed["name"] == "Error"
    assert failed["message"].startswith("Prediction failed: ")
    assert "could not do it: at all" in failed["message"]


# -- webhooks and broken connections ----------------------------------------------------------------------------------


def test_webhooks_are_accepted_by_the_clients_own_check(
    predictions: Script, resources: Script, receiver: Receiver, text: str
) -> None:
    options = {
        "model": "acme/job",
        "input": {"do": "echo", "text": text},
        "webhook": f"{receiver.url}/{text}?who=npm",
        "webhook_events_filter": ["completed"],
    }
    id = predictions("create", options=options)["id"]
    (arrived,) = receiver.until(f"/{text}?who=npm", bool)
    assert (arrived.prediction["id"], arrived.prediction["status"]) == (id, "succeeded")
    checked = resources("validate", headers=arrived.headers, body=arrived.body)
    assert checked == {"sound": True, "changed": False}


@pytest.mark.parametrize("wait", [False, 10])
def test_a_post_that_it_repeats_is_not_run_twice(
    predictions: Script, gateway: GatewayProcess, upstream: Upstream, text: str, wait: int | bool
) -> None:
    """
    Up to six times within milliseconds, and it does not say that it does.

    Once a whole answer is on its way there is no telling its repeat from a second wish: only 2.x numbers its tries.
    """
    options = {"model": "acme/job", "input": {"do": "echo", "text": text}, "wait": wait}
    with CuttingProxy(gateway.url, path="/v1/models/acme/job/predictions", cuts=3, when="forwarded") as proxy:
        id = predictions("create", options=options, url=f"{proxy.url}/v1")["id"]
        assert (proxy.cut, proxy.posted) == (3, 4)
    with gateway.client() as client:
        listed = client.get("/v1/predictions").json()["results"]
    assert [one["id"] for one in listed if one["input"].get("text") == text] == [id]
    assert len(upstream.jobs(text)) <= 1
