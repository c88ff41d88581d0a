"""Scenarios with Python's 2.x client: `python2.py SCENARIO '{"argument": …}'` prints what came of it, as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import replicate
from replicate import AsyncReplicate, Replicate
from replicate.exceptions import ModelError

client = Replicate()


def whoami() -> dict[str, Any]:
    return {"version": version("replicate"), "username": client.account.get().username}


def run(*, ref: str, input: dict[str, Any], wait: int | bool = True) -> Any:
    output = client.run(ref, input=input, wait=wait)
    return output if isinstance(output, (str, list)) else list(output)


def run_asynchronously(*, ref: str, input: dict[str, Any]) -> Any:
    async def run() -> Any:
        async with AsyncReplicate() as client:
            return await client.run(ref, input=input)

    return asyncio.run(run())


def create_and_wait(*, model: str, input: dict[str, Any]) -> dict[str, Any]:
    owner, name = model.split("/")
    created = client.models.predictions.create(model_owner=owner, model_name=name, input=input)
    ended = client.predictions.wait(created.id)
    return {
        "created": [created.status, created.output],
        "ended": [ended.status, ended.output, ended.error],
        "same": created.id == ended.id,
        "times": [ended.created_at is not None, ended.started_at is not None, ended.completed_at is not None],
    }


def create_pinned(*, version: str, input: dict[str, Any]) -> list[Any]:
    prediction = client.predictions.create(version=version, input=input, prefer="wait=10")
    return [prediction.status, prediction.version, prediction.model, prediction.output]


def use(*, ref: str, input: dict[str, Any]) -> Any:
    """By the module's function: the method of a client takes itself for a class and raises, in this version."""
    return replicate.use(ref)(**input)


def use_streaming(*, ref: str, input: dict[str, Any]) -> list[str]:
    return [str(part) for part in replicate.use(ref, streaming=True)(**input)]


def stream(*, ref: str, input: dict[str, Any]) -> list[str]:
    with warnings.catch_warnings(record=True):
        return [str(part) for part in replicate.stream(ref, input=input)]


def create(*, model: str, input: dict[str, Any], **more: Any) -> str:
    owner, name = model.split("/")
    return client.models.predictions.create(model_owner=owner, model_name=name, input=input, **more).id


def cancel(*, id: str) -> list[str]:
    return [client.predictions.cancel(prediction_id=id).status, client.predictions.wait(id).status]


def wait(*, id: str) -> str:
    return client.predictions.wait(id).status


def pages() -> dict[str, Any]:
    first = client.predictions.list()
    return {"first": len(first.results), "ids": [prediction.id for prediction in client.predictions.list()]}


def models(*, name: str) -> dict[str, Any]:
    model = client.models.get(model_owner="acme", model_name=name)
    versions = list(client.models.versions.list(model_owner="acme", model_name=name))
    (newest,) = versions
    got = client.models.versions.get(model_owner="acme", model_name=name, version_id=newest.id)
    return {
        "model": [model.owner, model.name, model.description],
        "latest": model.latest_version.id == newest.id,
        "required": got.openapi_schema["components"]["schemas"]["Input"]["required"],
        "listed": [f"{one.owner}/{one.name}" for one in client.models.list()],
        "found": [one.name for one in client.models.search(body="writes little")],
        "searched": [one.model.name for one in client.search(query="writes little").models],
    }


def upload_and_run(*, path: str) -> dict[str, Any]:
    return {"path": str(client.run("turnout/upscaler", input={"image": Path(path)}))}


def inline_and_run(*, path: str) -> str:
    with Path(path).open("rb") as file:
        return str(client.run("turnout/upscaler", input={"image": file}, file_encoding_strategy="base64"))


def use_file(*, path: str) -> dict[str, Any]:
    """With use() an output is a path by the schema, over http too: opening it downloads it."""
    file = client.files.create(content=Path(path).read_bytes())
    output = replicate.use("turnout/upscaler")(image=file.urls.get, scale=4)
    return {"url": replicate.get_path_url(output), "bytes": Path(output).read_bytes().hex()}


def files(*, path: str) -> dict[str, Any]:
    raw = Path(path).read_bytes()
    file = client.files.create(content=raw, filename="shelf.png", type="image/png", metadata={"shelf": "a"})
    got = client.files.get(file_id=file.id)
    listed = [one.id for one in client.files.list()]
    client.files.delete(file_id=file.id)
    return {
        "same": got.id == file.id,
        "kind": got.content_type,
        "size": got.size,
        "metadata": got.metadata,
        "listed": file.id in listed,
        "after": error_of(lambda: client.files.get(file_id=file.id)),
    }


def errors() -> dict[str, Any]:
    stranger = Replicate(bearer_token="to_wrong")
    job = {"model_owner": "acme", "model_name": "job"}
    return {
        "token": error_of(lambda: stranger.account.get()),
        "model": error_of(lambda: client.models.get(model_owner="acme", model_name="nothing")),
        "prediction": error_of(lambda: client.predictions.get(prediction_id="x" * 26)),
        "version": error_of(lambda: client.predictions.create(version="0" * 64, input={})),
        "input": error_of(lambda: client.models.predictions.create(**job, input={"do": "dance"})),
        "failed": error_of(lambda: client.run("acme/job", input={"do": "fail", "text": "at all"})),
        "deadline": error_of(lambda: client.models.predictions.create(**job, input={"do": "echo"}, cancel_after="1s")),
    }


def error_of(call: Callable[[], object]) -> list[Any]:
    try:
        return ["none", repr(call())]
    except replicate.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.body]
    except ModelError as error:
        return [type(error).__name__, error.prediction.status, error.prediction.error]


def secret() -> str:
    return client.webhooks.default.secret.get().key


def create_at(*, base_url: str, model: str, input: dict[str, Any]) -> str:
    """Through another address: one that breaks connections."""
    owner, name = model.split("/")
    other = Replicate(base_url=base_url)
    return other.models.predictions.create(model_owner=owner, model_name=name, input=input).id


if __name__ == "__main__":
    result = globals()[sys.argv[1]](**json.loads(sys.argv[2]))
    sys.stdout.write(json.dumps(result))
