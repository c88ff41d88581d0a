"""Python's `replicate` 2.0.0b4, unchanged, against a real gateway. What it does is in `clients/python2.py`."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from PIL import Image
from replicate.webhook import Webhooks, WebhookSigningSecret

from tests.e2e.clients.prepared import PYTHON2, Script
from tests.e2e.conftest import SIZE
from tests.e2e.cutting_proxy import CuttingProxy
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.receiver import Receiver
from tests.e2e.upstream import WORDS, Upstream

# The first to come may have to install the client, and starts the gateway.
pytestmark = pytest.mark.timeout(330)


@pytest.fixture
def text() -> str:
    """A text that no other test uses: jobs are found by it."""
    return f"text-{uuid4().hex}"


def size_at(url: str) -> tuple[int, int]:
    """Of the picture there, without a token."""
    answer = httpx.get(url, trust_env=False)
    assert answer.status_code == 200
    return Image.open(io.BytesIO(answer.content)).size


def test_it_is_the_client_this_file_is_about(python2: Script) -> None:
    assert python2("whoami") == {"version": PYTHON2, "username": "default"}


# -- run, create, wait ------------------------------------------------------------------------------------------------


def test_run_by_name_and_by_version_returns_the_output(
    python2: Script, version_of: Callable[[str], str], text: str
) -> None:
    for ref in ("acme/job", f"acme/job:{version_of('acme/job')}"):
        assert python2("run", ref=ref, input={"do": "echo", "text": text}) == text
    assert python2("run_asynchronously", ref="acme/job", input={"do": "echo", "text": text}) == text


def test_run_without_waiting_polls(python2: Script, text: str) -> None:
    assert python2("run", ref="acme/job", input={"do": "echo", "text": text}, wait=False) == text


def test_run_polls_on_when_the_model_is_slower_than_the_wait(python2: Script, upstream: Upstream, text: str) -> None:
    answered: list[Any] = []

    def run() -> None:
        answered.append(python2("run", ref="acme/job", input={"do": "hold", "text": text}, wait=1))

    running = threading.Thread(target=run)
    running.start()
    upstream.held(text)
    running.join(1.5)  # the wait of a second is over, the job is not
    assert running.is_alive()
    upstream.release(text, "late, and whole")
    running.join(15)
    assert answered == ["late, and whole"]
    assert len(upstream.jobs(text)) == 1


def test_create_answers_starting_and_wait_polls_to_the_end(python2: Script, text: str) -> None:
    assert python2("create_and_wait", model="acme/job", input={"do": "echo", "text": text}) == {
        "created": ["starting", None],
        "ended": ["succeeded", text, None],
        "same": True,
        "times": [True, True, True],
    }


def test_create_by_version_echoes_the_version(python2: Script, version_of: Callable[[str], str], text: str) -> None:
    pinned = version_of("acme/job")
    created = python2("create_pinned", version=pinned, input={"do": "echo", "text": text})
    assert created == ["succeeded", pinned, "acme/job", text]


# -- use, stream, cancel ----------------------------------------------------------------------------------------------


def test_use_joins_text_by_the_schema(python2: Script, text: str) -> None:
    assert python2("use", ref="acme/writer", input={"prompt": "Tell."}) == "Tell." + "".join(WORDS)
    assert python2("use", ref="acme/job", input={"do": "echo", "text": text}) == text


def test_streaming_yields_the_parts(python2: Script) -> None:
    assert python2("use_streaming", ref="acme/writer", input={"prompt": "Tell."}) == ["Tell.", *WORDS]
    assert python2("use_streaming", ref="acme/grow", input={"do": "grow"}) == list(WORDS)
    assert python2("stream", ref="acme/writer", input={"prompt": "Tell."}) == ["Tell.", *WORDS]


def test_cancel_ends_a_running_prediction_here_and_there(python2: Script, upstream: Upstream, text: str) -> None:
    id = python2("create", model="acme/job", input={"do": "hold", "text": text})
    job = upstream.held(text)
    assert python2("cancel", id=id)[1] == "canceled"
    assert job.status == "canceled"


def test_a_deadline_ends_one_that_runs(python2: Script, upstream: Upstream, text: str) -> None:
    """Only this client can set one; it polls for ever on `aborted`, so what runs must end as `canceled`."""
    id = python2("create", model="acme/job", input={"do": "hold", "text": text}, cancel_after="5s")
    job = upstream.held(text)
    assert python2("wait", id=id) == "canceled"
    assert job.status == "canceled"


# -- lists ------------------------------------------------------------------------------------------------------------


def test_predictions_are_listed_in_pages(python2: Script, many: frozenset[str]) -> None:
    pages = python2("pages")
    assert pages["first"] == 100
    assert len(pages["ids"]) == len(set(pages["ids"]))
    assert many <= set(pages["ids"])


def test_models_and_versions_are_got_listed_and_searched(python2: Script) -> None:
    models = python2("models", name="writer")
    assert models["model"] == ["acme", "writer", "Writes a little."]
    assert models["latest"] is True
    assert models["required"] == ["prompt"]
    assert {"acme/writer", "acme/job", "turnout/upscaler"} <= set(models["listed"])
    assert models["found"] == models["searched"] == ["writer"]


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_path_goes_up_and_its_picture_comes_back(python2: Script, picture: Path) -> None:
    assert size_at(python2("upload_and_run", path=str(picture))["path"]) == (SIZE[0] * 2, SIZE[1] * 2)
    assert size_at(python2("inline_and_run", path=str(picture))) == (SIZE[0] * 2, SIZE[1] * 2)


def test_use_downloads_an_output(python2: Script, picture: Path) -> None:
    used = python2("use_file", path=str(picture))
    assert Image.open(io.BytesIO(bytes.fromhex(used["bytes"]))).size == (SIZE[0] * 4, SIZE[1] * 4)
    assert size_at(used["url"]) == (SIZE[0] * 4, SIZE[1] * 4)


def test_files_are_uploaded_got_listed_and_deleted(python2: Script, picture: Path) -> None:
    files = python2("files", path=str(picture))
    after = files.pop("after")
    assert files == {
        "same": True,
        "kind": "image/png",
        "size": picture.stat().st_size,
        "metadata": {"shelf": "a"},
        "listed": True,
    }
    assert after[:2] == ["NotFoundError", 404]
    assert after[2]["detail"] == "File not found"


# -- errors -----------------------------------------------------------------------------------------------------------


def test_errors_are_its_own_types_with_our_detail(python2: Script) -> None:
    errors = python2("errors")
    kinds = {name: error[:2] for name, error in errors.items()}
    assert kinds == {
        "token": ["AuthenticationError", 401],
        "model": ["NotFoundError", 404],
        "prediction": ["NotFoundError", 404],
        "version": ["UnprocessableEntityError", 422],
        "input": ["UnprocessableEntityError", 422],
        "failed": ["ModelError", "failed"],
        "deadline": ["UnprocessableEntityError", 422],
    }
    assert errors["token"][2]["detail"] == "You did not pass a valid authentication token"
    assert errors["version"][2]["title"] == "Invalid version or not permitted"
    assert errors["input"][2]["invalid_fields"][0]["field"] == "input.do"
    assert "could not do it: at all" in errors["failed"][2]


# -- webhooks and broken connections ----------------------------------------------------------------------------------


def test_webhooks_are_signed_with_the_secret_it_fetches(python2: Script, receiver: Receiver, text: str) -> None:
    """It has no check of its own; the one of 1.x takes the secret."""
    id = python2(
        "create",
        model="acme/job",
        input={"do": "echo", "text": text},
        webhook=f"{receiver.url}/{text}",
        webhook_events_filter=["completed"],
    )
    (arrived,) = receiver.until(f"/{text}", bool)
    Webhooks.validate(
        headers=arrived.headers, body=arrived.body, secret=WebhookSigningSecret(key=python2("secret")), tolerance=60
    )
    assert (arrived.prediction["id"], arrived.prediction["status"]) == (id, "succeeded")


@pytest.mark.parametrize("when", ["forwarded", "answered"])
def test_a_post_that_it_repeats_is_not_run_twice(
    python2: Script, gateway: GatewayProcess, upstream: Upstream, text: str, when: str
) -> None:
    path = "/v1/models/acme/job/predictions"
    with CuttingProxy(gateway.url, path=path, cuts=2, when=when) as proxy:
        input = {"do": "echo", "text": text}
        id = python2("create_at", base_url=f"{proxy.url}/v1", model="acme/job", input=input)
        assert (proxy.cut, proxy.posted) == (2, 3)
    with gateway.client() as client:
        listed = client.get("/v1/predictions").json()["results"]
    assert [one["id"] for one in listed if one["input"].get("text") == text] == [id]
