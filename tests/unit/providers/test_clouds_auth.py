"""The clouds and the operators' own servers, through the driver: which headers go out, and to which origins never."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import botocore.auth
import httpx
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.contract.errors import ConfigurationError, OutcomeUnknown, PollFailed, ProviderFailure
from gateway.contract.fact import Phase
from gateway.contract.provider import Adapter
from gateway.testing import ManualClock
from providers._driver import HttpDriver
from providers.baseten import Baseten
from providers.bedrock import Bedrock
from providers.cloudflare import Cloudflare
from providers.google import Google
from providers.kserve import KServe
from providers.modal import Modal
from tests.unit.providers.echo_adapter import a_call

TOKEN = {"token": "s3cr3t-t0ken"}
AWS = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "s3cr3t-k3y", "session_token": "s3ssion"}
CLIP = {"prompt": "x"}
JOBS = {"method": "predictLongRunning"}
VERTEX = {"project": "p", "location": "europe-west4"}
ARN = "arn:aws:bedrock:eu-west-1:111122223333:async-invoke/s7"


class Wire:
    """Answers by what the URL ends with, and keeps what was sent."""

    def __init__(self, answers: dict[str, httpx.Response] | None = None) -> None:
        self.answers = answers or {}
        self.sent: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        for ending, answer in self.answers.items():
            if str(request.url).endswith(ending):
                return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
        return httpx.Response(400, json={"error": "whatever"})

    def driver(self, adapter: Adapter, credentials: dict[str, str], **more: Any) -> HttpDriver:
        transport = httpx.MockTransport(self)
        return HttpDriver("p", adapter, credentials=credentials, transport=transport, clock=ManualClock(), **more)


@pytest.fixture(scope="module")
def service_account() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    uri = "https://oauth2.googleapis.com/token"
    return json.dumps({"client_email": "t@p.example", "private_key": pem.decode(), "token_uri": uri})


@pytest.mark.parametrize(
    ("adapter", "credentials", "host", "headers"),
    [
        (Google(), TOKEN, "generativelanguage.googleapis.com", {"x-goog-api-key": "s3cr3t-t0ken"}),
        (Google(options={"express": True}), TOKEN, "aiplatform.googleapis.com", {"x-goog-api-key": "s3cr3t-t0ken"}),
        (Bedrock(), TOKEN, "bedrock-runtime.us-east-1.amazonaws.com", {"authorization": "Bearer s3cr3t-t0ken"}),
        (Cloudflare(options={"account": "a"}), TOKEN, "api.cloudflare.com", {"authorization": "Bearer s3cr3t-t0ken"}),
        (Baseten(), TOKEN, "model-m1.api.baseten.co", {"authorization": "Api-Key s3cr3t-t0ken"}),
        (KServe(), TOKEN, "127.0.0.1", {"authorization": "Bearer s3cr3t-t0ken"}),
        (KServe(options={"header": "X-Key"}), TOKEN, "127.0.0.1", {"x-key": "s3cr3t-t0ken"}),
    ],
)
async def test_a_token_goes_out_as_the_provider_wants_it(
    adapter: Adapter, credentials: dict[str, str], host: str, headers: dict[str, str]
) -> None:
    wire = Wire()
    with pytest.raises(ProviderFailure):  # what was answered is of no concern here
        await wire.driver(adapter, credentials).submit(a_call(name="m1"))
    (request,) = wire.sent
    assert request.url.host == host
    shown = {name: value for name, value in request.headers.items() if "s3cr3t" in value}
    assert shown == headers
    assert "s3cr3t" not in str(request.url)


async def test_modal_is_shown_a_pair_on_its_own_host_and_nothing_where_there_is_none() -> None:
    wire = Wire({"/": httpx.Response(200, json={"a": 1})})
    pair = {"key": "wk-s3cr3t", "secret": "ws-s3cr3t"}
    fact = await wire.driver(Modal(), pair, base_url="https://acme--x-web.modal.run").submit(a_call())
    assert fact.output == {"a": 1}
    assert wire.sent[0].headers["modal-key"] == "wk-s3cr3t"
    assert wire.sent[0].headers["modal-secret"] == "ws-s3cr3t"
    await wire.driver(Modal(), {}, base_url="https://acme--x-web.modal.run").submit(a_call())
    assert not {"modal-key", "modal-secret", "authorization"} & set(wire.sent[1].headers)


@pytest.mark.parametrize(
    "place",
    [
        "https://evil.example/?__modal_function_call_id=fc-1",
        "https://other--x-web.modal.run/?__modal_function_call_id=fc-1",
        "http://acme--x-web.modal.run/?__modal_function_call_id=fc-1",
        "//evil.example/?__modal_function_call_id=fc-1",
        "https://acme--x-web.modal.run@evil.example/?__modal_function_call_id=fc-1",
    ],
)
async def test_modal_s_303_to_another_place_is_not_followed(place: str) -> None:
    wire = Wire({"/": httpx.Response(303, headers={"location": place})})
    driver = wire.driver(Modal(), {"key": "k123", "secret": "s123"}, base_url="https://acme--x-web.modal.run")
    with pytest.raises(OutcomeUnknown):
        await driver.submit(a_call())
    with pytest.raises(PollFailed):
        await driver.poll({"id": "fc-1", "url": place})
    assert [request.url.host for request in wire.sent] == ["acme--x-web.modal.run"]


async def test_gemini_s_clips_are_fetched_with_the_key_and_others_without() -> None:
    driver = Wire().driver(Google(), TOKEN)
    own = "https://generativelanguage.googleapis.com/v1beta/files/video-123:download?alt=media"
    assert await driver.credentials_for(own) == {"x-goog-api-key": "s3cr3t-t0ken"}
    for url in ("https://storage.googleapis.com/x", "https://generativelanguage.googleapis.com.evil.example/x"):
        assert await driver.credentials_for(url) == {}


async def test_vertex_gets_a_grant_for_the_service_account(service_account: str) -> None:
    name = "projects/p/locations/europe-west4/publishers/google/models/veo/operations/o1"
    wire = Wire(
        {
            "/token": httpx.Response(200, json={"access_token": "ya29.gr4nt", "expires_in": 3599}),
            ":predictLongRunning": httpx.Response(200, json={"name": name}),
            ":fetchPredictOperation": httpx.Response(200, json={"name": name}),
        }
    )
    driver = wire.driver(Google(options={**VERTEX, "bucket": "clips"}), {"service_account": service_account})
    fact = await driver.submit(a_call(name="veo", input=CLIP, options=JOBS))
    assert fact.handle is not None
    assert (await driver.poll(fact.handle)).phase is Phase.RUNNING
    assert [request.url.host for request in wire.sent] == [
        "oauth2.googleapis.com",
        "europe-west4-aiplatform.googleapis.com",
        "europe-west4-aiplatform.googleapis.com",
    ]
    assert "authorization" not in wire.sent[0].headers
    assert [request.headers["authorization"] for request in wire.sent[1:]] == ["Bearer ya29.gr4nt"] * 2
    assert wire.sent[2].method == "POST"
    with_grant = {"authorization": "Bearer ya29.gr4nt"}
    assert await driver.credentials_for("https://clips.storage.googleapis.com/a.mp4") == with_grant
    assert await driver.credentials_for("https://other.storage.googleapis.com/a.mp4") == {}


async def test_bedrock_signs_for_its_region_and_for_the_one_bucket() -> None:
    wire = Wire({"/async-invoke": httpx.Response(200, json={"invocationArn": ARN})})
    options = {"region": "eu-west-1", "bucket": "clips", "method": "async-invoke"}
    driver = wire.driver(Bedrock(options=options), AWS)
    fact = await driver.submit(a_call(name="amazon.nova-reel-v1:0", input=CLIP))
    (request,) = wire.sent
    assert request.url.host == "bedrock-runtime.eu-west-1.amazonaws.com"
    assert "/20260101/eu-west-1/bedrock/aws4_request" in request.headers["authorization"]
    assert request.headers["x-amz-security-token"] == "s3ssion"
    assert fact.handle is not None
    with pytest.raises(PollFailed):
        await driver.poll(fact.handle)  # 400: but it was asked
    assert (
        wire.sent[1].url.raw_path == b"/async-invoke/arn%3Aaws%3Abedrock%3Aeu-west-1%3A111122223333%3Aasync-invoke%2Fs7"
    )
    shown = await driver.credentials_for("https://clips.s3.eu-west-1.amazonaws.com/s7/output.mp4")
    assert "/eu-west-1/s3/aws4_request" in shown["authorization"]
    assert "x-amz-content-sha256" in shown
    for url in ("https://other.s3.eu-west-1.amazonaws.com/x", "https://clips.s3.us-east-1.amazonaws.com/x"):
        assert await driver.credentials_for(url) == {}


async def test_what_is_signed_is_what_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a real socket: botocore signs the request as the server saw it, and comes to the same."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 400 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    clock = ManualClock()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        base = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        driver = HttpDriver("p", Bedrock(), credentials=AWS, base_url=base, clock=clock)
        with pytest.raises(ProviderFailure):
            await driver.submit(a_call(name="amazon.nova-canvas-v1:0"))
        with pytest.raises(PollFailed):
            await driver.poll({"id": quote(ARN, safe="")})
        await driver.aclose()
    monkeypatch.setattr(botocore.auth, "get_current_datetime", clock.now)
    assert len(heads) == 2
    for head in heads:
        line, *lines = head.decode().split("\r\n")
        method, path, _ = line.split(" ")
        headers = {name.lower(): value for name, _, value in (item.partition(": ") for item in lines if item)}
        seen = {name: headers[name] for name in ("host", "content-type") if name in headers}
        # The body's hash is the one thing a server takes from the body: here the body is known.
        body = b'{"prompt":"hi"}' if method == "POST" else b""
        request = AWSRequest(method=method, url=base + path, headers=seen, data=body)
        keys = Credentials(AWS["access_key_id"], AWS["secret_access_key"], AWS["session_token"])
        botocore.auth.SigV4Auth(keys, "bedrock", "us-east-1").add_auth(request)
        assert headers["authorization"] == request.headers["Authorization"]
        assert "%3A" in path


def test_a_key_of_bedrock_s_is_not_taken_where_a_bucket_has_to_be_read() -> None:
    with pytest.raises(ConfigurationError, match="access_key_id"):
        Wire().driver(Bedrock(options={"bucket": "clips"}), TOKEN)


async def test_a_bucket_that_is_elsewhere_is_signed_for_s3_all_the_same() -> None:
    place = "http://127.0.0.1:9000/clips"
    driver = Wire().driver(Bedrock(options={"bucket": "clips", "bucket_url": place}), AWS)
    shown = await driver.credentials_for(f"{place}/s7/output.mp4")
    assert "/us-east-1/s3/aws4_request" in shown["authorization"]


async def test_another_base_inherits_none_of_the_vendor_s_origins() -> None:
    wire = Wire()
    driver = wire.driver(Baseten(), TOKEN, base_url="https://proxy.example")
    with pytest.raises(Exception, match="not its own"):
        await driver.submit(a_call(name="m1"))
    with pytest.raises(PollFailed):
        await driver.poll({"id": "j", "url": "https://model-m1.api.baseten.co/async_request/j"})
    assert wire.sent == []


@pytest.mark.parametrize(
    ("adapter", "options"),
    [
        (Google, {"location": "evil.example/"}),
        (Google, {"bucket": "a.evil.example/x?"}),
        (Google, {"project": "../x"}),
        (Bedrock, {"region": "us-east-1.evil.example/"}),
        (Bedrock, {"bucket": "a.b"}),
        (KServe, {"header": "x: y"}),
        (KServe, {"inputs": {"a": {"datatype": "FLOAT"}}}),
        (KServe, {"inputs": {"a": {"datatype": "FP32", "sahpe": [1]}}}),
        (Google, {"metod": "predict"}),
    ],
)
def test_options_that_would_lead_elsewhere_are_refused_at_load_time(
    adapter: type[Google | Bedrock | KServe], options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        adapter(options=options)


async def test_an_operation_of_somebody_else_is_refused() -> None:
    wire = Wire({"/operations/o1": httpx.Response(200, json={"name": "models/veo/operations/o2", "done": True})})
    with pytest.raises(PollFailed, match="another job"):
        await wire.driver(Google(), TOKEN).poll({"id": "models/veo/operations/o1"})
