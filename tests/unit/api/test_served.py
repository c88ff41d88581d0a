"""Over a real server and real sockets: the official client unchanged, and connections that really break."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from io import BytesIO

import pytest
import replicate
import uvicorn
from replicate.exceptions import ModelError, ReplicateError

from gateway.contract.prediction import Status
from tests.unit.api.fakes import ALICE, FILES_VERSION, VERSION, World


@contextlib.asynccontextmanager
async def served(world: World) -> AsyncIterator[str]:
    config = uvicorn.Config(world.app, host="127.0.0.1", port=0, log_level="warning", lifespan="off", http="httptools")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        running = asyncio.create_task(server._serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await running


@pytest.fixture
async def client(world: World) -> AsyncIterator[replicate.Client]:
    async with served(world) as base:
        object.__setattr__(world.context, "base", base)
        client = replicate.Client(api_token=ALICE.text, base_url=base)
        yield client
        await client._async_client.aclose()  # it has no close of its own


async def test_run_waits_and_returns_the_output(world: World, client: replicate.Client) -> None:
    assert await client.async_run("acme/writer", input={"prompt": "x"}) == "out"
    assert await client.async_run(f"acme/writer:{VERSION}", input={"prompt": "x"}) == "out"


async def test_run_raises_its_own_error_for_a_failed_prediction(world: World, client: replicate.Client) -> None:
    world.engine.ending = {"status": Status.FAILED, "error": "it broke"}
    with pytest.raises(ModelError, match="it broke"):
        await client.async_run("acme/writer", input={"prompt": "x"})


async def test_create_reload_list_and_cancel(world: World, client: replicate.Client) -> None:
    created = await client.predictions.async_create(version=VERSION, input={"prompt": "x"})
    assert (created.status, created.output, created.version) == ("starting", None, VERSION)
    await created.async_cancel()
    assert (await client.predictions.async_get(created.id)).status == "canceled"
    page = await client.predictions.async_list()
    assert [one.id for one in page.results] == [created.id]


async def test_errors_come_as_its_own_error_with_our_words(world: World, client: replicate.Client) -> None:
    with pytest.raises(ReplicateError) as caught:
        await client.predictions.async_create(version=VERSION, input={})
    assert (caught.value.status, caught.value.detail) == (422, "- input: prompt is required\n")
    with pytest.raises(ReplicateError) as caught:
        await client.predictions.async_get("x" * 26)
    assert caught.value.status == 404


async def test_streaming(world: World, client: replicate.Client) -> None:
    async def during_wait(id: str, seconds: float) -> bool:
        world.add_events(id, ("output", "Hel"), ("output", "lo\nyou"), ("done", "{}"))
        return True

    world.engine.during_wait = during_wait
    events = [event async for event in await client.async_stream("acme/writer", input={"prompt": "x"})]
    assert "".join(str(event) for event in events) == "Hello\nyou"


async def test_files_in_and_their_url_as_input(world: World, client: replicate.Client) -> None:
    file = BytesIO(b"picture")
    file.name = "a.png"
    await client.async_run(f"acme/painter:{FILES_VERSION}", input={"image": file})
    assert world.only.request.input["image"].endswith("/v1/files/" + next(iter(world.store.files)))
    listed = await client.files.async_list()
    assert [(one.name, one.size) for one in listed] == [("a.png", 7)]
    assert await client.files.async_delete(listed[0].id)


async def test_models_and_the_rest(world: World, client: replicate.Client) -> None:
    model = await client.models.async_get("acme/writer")
    assert model.latest_version is not None
    assert model.latest_version.id == VERSION
    assert (await model.versions.async_get(VERSION)).cog_version
    assert [one.name for one in (await client.models.async_search("paint")).results] == ["painter"]
    assert (await client.accounts.async_current()).username == "alice"
    assert (await client.webhooks.default.async_secret()).key.startswith("whsec_")
    assert (await client.hardware.async_list())[0].sku


def raw_post(*, prefer: str = "") -> bytes:
    body = b'{"version":"' + VERSION.encode() + b'","input":{"prompt":"hi"}}'
    head = (
        f"POST /v1/predictions HTTP/1.1\r\nhost: x.example\r\nauthorization: Bearer {ALICE.text}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{prefer}\r\n"
    )
    return head.encode() + body


async def test_a_connection_that_breaks_on_a_real_server_is_noticed(world: World) -> None:
    world.engine.wait_held = asyncio.Event()
    async with served(world) as base:
        port = int(base.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw_post(prefer="prefer: wait\r\n"))
        await world.engine.is_waited_for.wait()
        writer.transport.abort()
        ids = []
        for _ in range(2):  # npm's client comes back at once; the second is a post of its own
            reader, again = await asyncio.open_connection("127.0.0.1", port)
            again.write(raw_post())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 201")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            ids.append((await reader.readexactly(length)).partition(b'"id":"')[2][:26].decode())
            again.close()
            await again.wait_closed()
        world.engine.wait_held.set()
    assert len(set(ids)) == len(world.store.predictions) == 2
    assert ids[0] == next(iter(world.store.predictions))
