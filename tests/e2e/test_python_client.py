"""Python's `replicate` 1.0.7, unchanged, against a real gateway. The 2.x line and npm's have files of their own."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from PIL import Image
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.helpers import FileOutput
from replicate.webhook import InvalidSignatureError, Webhooks

from tests.e2e.conftest import SIZE
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.receiver import Receiver
from tests.e2e.upstream import WORDS, Upstream

UPSCALED = (SIZE[0] * 2, SIZE[1] * 2)


@pytest.fixture
def client(gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0.05")
    client = Client(api_token=gateway.key, base_url=gateway.url)
    yield client
    client._client.close()


@pytest.fixture
def text() -> str:
    """A text that no other test uses: jobs are found by it."""
    return f"text-{uuid4().hex}"


def opened(raw: bytes) -> Image.Image:
    return Image.open(io.BytesIO(raw))


def test_it_is_the_version_this_file_is_about() -> None:
    assert version("replicate") == "1.0.7"


# -- run, create, wait ------------------------------------------------------------------------------------------------


def test_run_by_name_returns_the_output(client: Client, text: str) -> None:
    assert client.run("acme/job", input={"do": "echo", "text": text}) == text


def test_run_by_version_returns_the_output(client: Client, version_of: Callable[[str], str], text: str) -> None:
    assert client.run(f"acme/job:{version_of('acme/job')}", input={"do": "echo", "text": text}) == text


async def test_run_works_asynchronously(gateway: GatewayProcess, text: str) -> None:
    client = Client(api_token=gateway.key, base_url=gateway.url)
    assert await client.async_run("acme/job", input={"do": "echo", "text": text}) == text
    await client._async_client.aclose()


def test_run_without_waiting_polls(client: Client, text: str) -> None:
    assert client.run("acme/job", input={"do": "echo", "text": text}, wait=False) == text


def test_run_polls_on_when_the_model_is_slower_than_the_wait(client: Client, upstream: Upstream, text: str) -> None:
    answered: list[Any] = []

    def run() -> None:
        answered.append(client.run("acme/job", input={"do": "hold", "text": text}, wait=1))

    running = threading.Thread(target=run)
    running.start()
    upstream.held(text)
    running.join(1.5)  # the wait of a second is over, the job is not
    assert running.is_alive()
    upstream.release(text, "late, and whole")
    running.join(15)
    assert answered == ["late, and whole"]
    assert len(upstream.jobs(text)) == 1


def test_run_of_a_pinned_iterator_model_returns_its_parts(client: Client, version_of: Callable[[str], str]) -> None:
    output = client.run(f"acme/writer:{version_of('acme/writer')}", input={"prompt": "Tell."})
    assert list(output) == ["Tell.", *WORDS]


def test_an_unwaited_iterator_yields_parts_as_the_output_grows(
    client: Client, version_of: Callable[[str], str]
) -> None:
    output = client.run(f"acme/grow:{version_of('acme/grow')}", input={"do": "grow"}, wait=False)
    assert list(output) == list(WORDS)


def test_create_answers_starting_and_wait_polls_to_the_end(client: Client, text: str) -> None:
    prediction = client.models.predictions.create(model="acme/job", input={"do": "echo", "text": text})
    assert (prediction.status, prediction.output) == ("starting", None)
    prediction.wait()
    assert (prediction.status, prediction.output) == ("succeeded", text)
    assert prediction.metrics is not None
    assert prediction.metrics["predict_time"] >= 0
    assert prediction.logs == "echoing\n"
    again = client.predictions.get(prediction.id)
    assert (again.id, again.output, again.completed_at) == (prediction.id, text, prediction.completed_at)


def test_create_by_version_echoes_the_version(client: Client, version_of: Callable[[str], str], text: str) -> None:
    pinned = version_of("acme/job")
    prediction = client.predictions.create(version=pinned, input={"do": "echo", "text": text}, wait=True)
    assert (prediction.version, prediction.model, prediction.output) == (pinned, "acme/job", text)
    assert prediction.input == {"do": "echo", "text": text, "count": 1}


def test_a_version_object_runs(client: Client, text: str) -> None:
    model = client.models.get("acme/job")
    assert model.latest_version is not None
    assert client.run(model.latest_version, input={"do": "echo", "text": text}) == text
    assert client.run(model, input={"do": "echo", "text": text}) == text


# -- stream, cancel ---------------------------------------------------------------------------------------------------


def test_stream_yields_the_text_in_events_that_end_with_done(client: Client) -> None:
    events = list(client.stream("acme/writer", input={"prompt": "Tell me.\n"}))
    assert [event.event.value for event in events][-1] == "done"
    outputs = [event for event in events if event.event.value == "output"]
    assert "".join(str(event) for event in outputs) == "Tell me.\n" + "".join(WORDS)
    assert len({event.id for event in events}) == len(events)


def test_text_that_grows_at_a_provider_is_streamed_as_it_grows(client: Client) -> None:
    events = list(client.stream("acme/grow", input={"do": "grow"}))
    assert [str(event) for event in events if event.event.value == "output"] == list(WORDS)


def test_a_failed_stream_raises(client: Client) -> None:
    with pytest.raises(RuntimeError, match="could not do it"):
        list(client.stream("acme/job", input={"do": "fail", "text": "streamed"}))


def test_cancel_ends_a_running_prediction_here_and_there(client: Client, upstream: Upstream, text: str) -> None:
    prediction = client.models.predictions.create(model="acme/job", input={"do": "hold", "text": text})
    job = upstream.held(text)
    prediction.cancel()
    prediction.wait()
    assert (prediction.status, prediction.error) == ("canceled", None)
    assert job.status == "canceled"
    prediction.cancel()  # of one that has ended: shown unchanged
    assert prediction.status == "canceled"


# -- lists ------------------------------------------------------------------------------------------------------------


def test_predictions_are_listed_in_pages(client: Client, many: frozenset[str]) -> None:
    first = client.predictions.list()
    assert len(first.results) == 100
    assert first.previous is None
    assert first.next is not None
    ids = [prediction.id for page in replicate_pages(client) for prediction in page]
    assert len(ids) == len(set(ids))
    assert many <= set(ids)
    second = client.predictions.list(first.next)
    assert second.previous is not None
    assert [one.id for one in client.predictions.list(second.previous)] == [one.id for one in first]


def replicate_pages(client: Client) -> Iterator[list[Any]]:
    from replicate.pagination import Page

    page: Page[Any] = client.predictions.list()
    yield page.results
    while page.next:
        page = client.predictions.list(page.next)
        yield page.results


def test_models_are_got_listed_and_searched(client: Client) -> None:
    model = client.models.get("acme/writer")
    assert (model.owner, model.name, model.description) == ("acme", "writer", "Writes a little.")
    names = {f"{one.owner}/{one.name}" for one in client.models.list()}
    assert {"acme/writer", "acme/job", "turnout/upscaler"} <= names
    assert [one.name for one in client.models.search("writes little")] == ["writer"]
    assert list(client.models.search("nothing-like-it")) == []


def test_versions_are_got_and_listed(client: Client) -> None:
    model = client.models.get("acme/job")
    versions = list(model.versions.list())
    assert model.latest_version is not None
    assert [one.id for one in versions] == [model.latest_version.id]
    got = model.versions.get(versions[0].id)
    assert got.openapi_schema["components"]["schemas"]["Input"]["required"] == ["do"]


def test_the_other_resources_answer(client: Client, gateway: GatewayProcess) -> None:
    assert client.accounts.current().username == "default"
    assert [one.sku for one in client.hardware.list()] == ["any"]
    assert list(client.collections.list()) == []
    assert list(client.deployments.list()) == []
    assert list(client.trainings.list()) == []


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_path_goes_up_and_its_picture_comes_back(client: Client, picture: Path) -> None:
    output = client.run("turnout/upscaler", input={"image": picture, "scale": 2})
    # Without TLS in front an output stays a string: this client makes files of https: and data: only.
    assert isinstance(output, str)
    answer = httpx.get(output, trust_env=False)  # no token
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert opened(answer.content).size == UPSCALED
    assert FileOutput(output, client).read() == answer.content  # as it reads what it takes for a file: with the token


def test_an_open_file_inlined_as_base64_works_too(client: Client, picture: Path) -> None:
    with picture.open("rb") as file:
        output = client.run("turnout/upscaler", input={"image": file, "scale": 4}, file_encoding_strategy="base64")
    assert opened(httpx.get(output, trust_env=False).content).size == (SIZE[0] * 4, SIZE[1] * 4)


def test_an_output_is_an_input(client: Client, picture: Path) -> None:
    once = client.run("turnout/upscaler", input={"image": picture})
    twice = client.run("turnout/upscaler", input={"image": once})
    assert opened(httpx.get(twice, trust_env=False).content).size == (SIZE[0] * 4, SIZE[1] * 4)


def test_files_are_uploaded_got_listed_used_and_deleted(client: Client, picture: Path) -> None:
    with picture.open("rb") as content:
        file = client.files.create(content, metadata={"shelf": "a"})
    assert (file.name, file.size, file.metadata) == ("picture.png", picture.stat().st_size, {"shelf": "a"})
    assert file.content_type == "image/png"
    assert client.files.get(file.id).checksums == file.checksums
    assert file.id in [one.id for one in client.files.list()]
    output = client.run("turnout/upscaler", input={"image": file.urls["get"]})
    assert opened(httpx.get(output, trust_env=False).content).size == UPSCALED
    client.files.delete(file.id)
    with pytest.raises(ReplicateError) as caught:
        client.files.get(file.id)
    assert (caught.value.status, caught.value.detail) == (404, "File not found")


# -- errors -----------------------------------------------------------------------------------------------------------


def test_a_failed_model_is_a_model_error_with_its_prediction(client: Client) -> None:
    with pytest.raises(ModelError) as caught:
        client.run("acme/job", input={"do": "fail", "text": "at all"})
    assert caught.value.prediction.status == "failed"
    assert "could not do it: at all" in str(caught.value)


def test_a_wrong_token_is_a_replicate_error(gateway: GatewayProcess) -> None:
    client = Client(api_token="to_wrong", base_url=gateway.url)
    with pytest.raises(ReplicateError) as caught:
        client.run("acme/job", input={"do": "echo"})
    client._client.close()
    assert (caught.value.status, caught.value.title) == (401, "Unauthenticated")
    assert caught.value.detail == "You did not pass a valid authentication token"


@pytest.mark.parametrize("call", ["model", "prediction", "run"])
def test_what_is_not_there_is_a_replicate_error(client: Client, call: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "model": lambda: client.models.get("acme/nothing"),
        "prediction": lambda: client.predictions.get("x" * 26),
        "run": lambda: client.run("acme/nothing", input={}),
    }
    with pytest.raises(ReplicateError) as caught:
        calls[call]()
    assert (caught.value.status, caught.value.detail) == (404, "The requested resource could not be found.")


def test_an_unknown_version_is_a_replicate_error(client: Client) -> None:
    with pytest.raises(ReplicateError) as caught:
        client.predictions.create(version="0" * 64, input={})
    assert (caught.value.status, caught.value.title) == (422, "Invalid version or not permitted")


def test_a_bad_input_is_a_replicate_error_that_says_which(client: Client) -> None:
    with pytest.raises(ReplicateError) as caught:
        client.run("acme/job", input={"do": "dance", "count": 12})
    assert (caught.value.status, caught.value.title) == (422, "Input validation failed")
    assert caught.value.detail == (
        '- input.do: do must be one of the following: "echo", "fail", "hold"\n'
        "- input.count: Must be less than or equal to 9\n"
    )


def test_there_are_no_deployments_and_it_says_so(client: Client) -> None:
    with pytest.raises(ReplicateError) as caught:
        client.deployments.get("acme/none")
    assert caught.value.status == 404
    assert caught.value.detail is not None
    assert "deployments" in caught.value.detail


# -- webhooks ---------------------------------------------------------------------------------------------------------


def test_webhooks_are_accepted_by_the_clients_own_check(client: Client, receiver: Receiver, text: str) -> None:
    prediction = client.models.predictions.create(
        model="acme/job",
        input={"do": "echo", "text": text},
        webhook=f"{receiver.url}/{text}?who=python",
        webhook_events_filter=["completed"],
    )
    prediction.wait()
    (arrived,) = receiver.until(f"/{text}?who=python", bool)
    secret = client.webhooks.default.secret()
    Webhooks.validate(headers=arrived.headers, body=arrived.body, secret=secret, tolerance=60)
    shown = arrived.prediction
    assert (shown["id"], shown["status"], shown["output"]) == (prediction.id, "succeeded", text)
    with pytest.raises(InvalidSignatureError):
        Webhooks.validate(headers=arrived.headers, body=arrived.body + " ", secret=secret, tolerance=60)


def test_the_events_filter_decides_what_is_sent(
    client: Client, receiver: Receiver, upstream: Upstream, text: str
) -> None:
    prediction = client.models.predictions.create(
        model="acme/job",
        input={"do": "hold", "text": text},
        webhook=f"{receiver.url}/{text}",
        webhook_events_filter=["start", "completed"],
    )
    receiver.until(f"/{text}", lambda arrived: bool(arrived))
    upstream.release(text)
    prediction.wait()
    arrived = receiver.until(f"/{text}", lambda arrived: len(arrived) == 2)
    assert [one.prediction["status"] for one in arrived] == ["processing", "succeeded"]
    assert len({one.headers["webhook-id"] for one in arrived}) == 2
