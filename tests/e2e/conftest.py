"""A gateway process with an upstream and a webhook receiver around it, for all tests of official clients."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from PIL import Image

from tests.e2e.clients import prepared
from tests.e2e.clients.prepared import NotPrepared, Script
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.models import ENVIRON, UPSTREAM, write_schemas
from tests.e2e.receiver import Receiver
from tests.e2e.upstream import Upstream

SIZE = (24, 16)
MANY = 105  # more than a page

CONFIG = """
[webhooks]
allow = ["{receiver}"]
allow_http = true

[telemetry]
log_format = "json"

[providers.chat]
adapter = "openai_compatible"
base_url = "{upstream}/v1"

[[models]]
name = "acme/writer"
description = "Writes a little."
schema = "text.json"
[[models.offers]]
provider = "chat"
name = "little-writer"
"""


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def gateway(
    upstream: Upstream, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """With models of the upstream and the bundled upscaler, which has served once: its process is up."""
    folder = tmp_path_factory.mktemp("gateway")
    write_schemas(folder, "text", "job", "grow")
    config = (CONFIG + UPSTREAM).format(receiver=receiver.place, upstream=upstream.url)
    with GatewayProcess(folder, config, environ=ENVIRON) as gateway:
        with gateway.client() as client:
            body = {"version": "turnout/upscaler", "input": {"image": PIXEL}}
            first = client.post("/v1/predictions", json=body, headers={"prefer": "wait=12"}).json()
        assert first["status"] == "succeeded", (first, gateway.log)
        yield gateway


@pytest.fixture(scope="session")
def many(gateway: GatewayProcess) -> frozenset[str]:
    """The ids of more predictions than a page holds."""
    body = {"input": {"do": "echo", "text": "one of many"}}
    with gateway.client() as client:
        return frozenset(client.post("/v1/models/acme/job/predictions", json=body).json()["id"] for _ in range(MANY))


@pytest.fixture(scope="session")
def version_of(gateway: GatewayProcess) -> Callable[[str], str]:
    """The newest version of a model, 64 hex."""

    def find(model: str) -> str:
        with gateway.client() as client:
            return str(client.get(f"/v1/models/{model}").json()["latest_version"]["id"])

    return find


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small PNG."""
    path = tmp_path / "picture.png"
    path.write_bytes(png())
    return path


def png() -> bytes:
    kept = io.BytesIO()
    Image.linear_gradient("L").resize(SIZE).convert("RGB").save(kept, "PNG")
    return kept.getvalue()


PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="session")
def python2(gateway: GatewayProcess) -> Script:
    """The scenarios of `clients/python2.py` with Python's 2.x client."""
    import sys

    try:
        folder = prepared.python2()
    except NotPrepared as reason:
        absent(reason)
    # -S: nothing of our own virtual environment, which has another version of it.
    command = [sys.executable, "-S", str(prepared.HERE / "python2.py")]
    environ = {
        "PYTHONPATH": str(folder),
        "REPLICATE_API_TOKEN": gateway.key,
        "REPLICATE_BASE_URL": f"{gateway.url}/v1",
        "REPLICATE_POLL_INTERVAL": "0.05",
    }
    return Script(command, environ=environ)


@pytest.fixture(scope="session")
def npm(gateway: GatewayProcess) -> Callable[..., Script]:
    """npm(script) runs the scenarios of `clients/{script}.mjs` with npm's client."""
    try:
        folder = prepared.npm()
    except NotPrepared as reason:
        absent(reason)
    package = folder / "node_modules" / "replicate" / "index.js"

    def script(name: str) -> Script:
        environ = {
            "REPLICATE_PACKAGE": str(package),
            "REPLICATE_API_TOKEN": gateway.key,
            "TURNOUT_URL": f"{gateway.url}/v1",
        }
        return Script(["node", str(prepared.HERE / f"{name}.mjs")], environ=environ)

    return script


def absent(reason: NotPrepared) -> NoReturn:
    if os.environ.get(prepared.REQUIRED) == "1":
        pytest.fail(f"{prepared.REQUIRED}=1, but {reason}")
    pytest.skip(str(reason))
