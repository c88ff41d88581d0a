"""A gateway with everything that can be measured around it, and the calls that make each of it happen."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from gateway.contract.key import hash_key
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.telemetry.upstream import PNG

FAULTS = ("refuse", "throttle", "bad", "deny", "broke", "garbage", "html", "cut", "fail", "moderated")
PIXEL = "data:image/png;base64," + base64.b64encode(PNG).decode()

_SCHEMA = {
    "Input": {
        "type": "object",
        "properties": {"do": {"type": "string"}, "text": {"type": "string"}, "token": {"type": "string"}},
        "required": ["do"],
    },
    "Output": {"type": "string"},
}
_FILE_SCHEMA = _SCHEMA | {"Output": {"type": "string", "format": "uri"}}

_CONFIG = """
[webhooks]
allow = ["{receiver}", "{refusing}"]
allow_http = true
schedule_seconds = [0, 0.1]

[artifacts]
allow = ["127.0.0.1"]

[telemetry]
log_format = "{log_format}"
log_level = "debug"
otlp_endpoint = "{otlp}"

[policies]
files = ["policies"]
default = "in_order"

[providers.first]
adapter = "replicate"
base_url = "{upstream}/first/v1"
token = "env:FIRST_TOKEN"
callbacks = false
hold_seconds = 0.5

[providers.second]
adapter = "replicate"
base_url = "{upstream}/second/v1"
token = "env:SECOND_TOKEN"
options = {{ idempotent = true }}
"""
_MODEL = """
[[models]]
name = "acme/{name}"
schema = "{schema}.json"
"""
_OFFER = """[[models.offers]]
provider = "{provider}"
name = "upstream/{name}"
price = {price}
"""
_KEY = """
[keys.app]
hash = "{hash}"
scopes = ["predictions", "models", "files", "admin"]
"""
_PER_SECOND, _PER_PREDICTION, _UNKNOWN = '{ per_second = "0.01" }', '{ per_prediction = "0.002" }', "{}"

IN_ORDER = """
name = "in_order"
[rank]
by = "ordered"
order = ["first", "second"]
explore = 0
[limits]
pay_twice_up_to = "1"
"""
HASTY = """
name = "hasty"
[match]
models = ["nobody/nothing"]
[limits]
deadline_seconds = 0.3
"""


def make_gateway(
    folder: Path,
    *,
    upstream: str,
    receiver: str,
    refusing: str,
    otlp: str = "",
    log_format: str = "json",
    key: str = "",
    environ: Mapping[str, str] | None = None,
) -> GatewayProcess:
    """
    Not started yet.

    Models of FAULTS: `<fault>-saved`, by the second provider, and `<fault>-alone`, with only the first. Others: later,
    broken (paid by the second, so that its failures cost), priceless (nobody knows its price), file.
    """
    (folder / "policies").mkdir(parents=True)
    (folder / "policies" / "in_order.toml").write_text(IN_ORDER)
    (folder / "policies" / "hasty.toml").write_text(HASTY)
    (folder / "plain.json").write_text(json.dumps(_SCHEMA))
    (folder / "file.json").write_text(json.dumps(_FILE_SCHEMA))
    config = _CONFIG.format(receiver=receiver, refusing=refusing, upstream=upstream, otlp=otlp, log_format=log_format)
    saved = {f"{fault}-saved": (("first", _PER_SECOND), ("second", _PER_PREDICTION)) for fault in FAULTS}
    alone = {f"{fault}-alone": (("first", _PER_PREDICTION),) for fault in FAULTS}
    others = {
        "later": (("second", _PER_PREDICTION),),
        "broken": (("first", _PER_SECOND),),
        "priceless": (("first", _UNKNOWN),),
        "file": (("first", _PER_PREDICTION),),
    }
    for name, offers in (saved | alone | others).items():
        config += _MODEL.format(name=name, schema="file" if name == "file" else "plain")
        for provider, price in offers:
            config += _OFFER.format(provider=provider, name=name, price=price)
    if key:
        config += _KEY.format(hash=hash_key(key))
    tokens = {"FIRST_TOKEN": "first-token", "SECOND_TOKEN": "second-token"}
    return GatewayProcess(folder, config, key=key, environ=tokens | dict(environ or {}))


class Caller:
    """Posts predictions; `post` waits for their end and gives the body, `begin` does not wait."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def post(self, model: str, do: str, **more: Any) -> dict[str, Any]:
        return self._post(model, do, {"prefer": "wait=8"}, **more)

    def begin(self, model: str, do: str, **more: Any) -> dict[str, Any]:
        return self._post(model, do, {}, **more)

    def cancel(self, id: str) -> None:
        self.client.post(f"/v1/predictions/{id}/cancel").raise_for_status()

    def upscale(self) -> dict[str, Any]:
        body = {"version": "turnout/upscaler", "input": {"image": PIXEL}}
        return dict(self.client.post("/v1/predictions", json=body, headers={"prefer": "wait=12"}).json())

    def upload(self, name: str = "x.png") -> None:
        self.client.post("/v1/files", files={"content": (name, PNG, "image/png")}).raise_for_status()

    def metrics(self) -> str:
        return self.client.get("/metrics").text

    def _post(
        self,
        model: str,
        do: str,
        headers: dict[str, str],
        *,
        input: Mapping[str, str] | None = None,
        more_headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> dict[str, Any]:
        response = self.client.post(
            f"/v1/models/acme/{model}/predictions",
            json={"input": {"do": do, **(input or {})}, **body},
            headers=headers | dict(more_headers or {}),
        )
        assert response.status_code == 201, response.text
        return dict(response.json())
