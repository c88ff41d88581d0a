"""
One runner for all adapters over their recordings: data under `recordings/<provider>/*.json`.

A recording is a conversation: each step says what the adapter has to send, what came back, and what that has to mean.
"""

from __future__ import annotations

import base64
import importlib
import json
import pkgutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import providers
from gateway.contract.errors import CallbackForged, ProviderFailure
from gateway.contract.fact import Fact
from gateway.contract.provider import Adapter, Call, Callback, Cancellation, HttpRequest, HttpResponse, ServerSentEvent

RECORDINGS = Path(__file__).parent / "recordings"
REQUIRED = (
    "success",
    "waiting-then-success",
    "bad-input",
    "rate-limited",
    "server-error",
    "malformed",
    "cancel",
    "callback",
)
KINDS = ("recorded", "documented", "derived")
FILES = sorted(path for path in RECORDINGS.glob("*/*.json") if path.name != "INDEX.json")


# -- completeness ----------------------------------------------------------------------------------------------------


def public_adapters() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(providers.__path__) if not module.name.startswith("_"))


def missing_cases(folder: Path) -> set[str]:
    """Cases a provider's folder owes: neither recorded nor excused with a reason."""
    index = json.loads((folder / "INDEX.json").read_text()) if (folder / "INDEX.json").exists() else {}
    excused = {case for case, reason in index.get("not_applicable", {}).items() if len(reason.split()) >= 5}
    recorded = {json.loads(path.read_text())["case"] for path in folder.glob("*.json") if path.name != "INDEX.json"}
    return set(REQUIRED) - excused - recorded


@pytest.mark.parametrize("name", public_adapters())
def test_every_adapter_has_every_case_or_says_why_not(name: str) -> None:
    assert missing_cases(RECORDINGS / name) == set()


def test_an_adapter_without_recordings_is_found_out(tmp_path: Path) -> None:
    assert missing_cases(tmp_path / "newcomer") == set(REQUIRED)


def test_a_case_is_not_excused_without_a_reason(tmp_path: Path) -> None:
    (tmp_path / "INDEX.json").write_text(json.dumps({"not_applicable": dict.fromkeys(REQUIRED, "no")}))
    assert missing_cases(tmp_path) == set(REQUIRED)


@pytest.mark.parametrize("name", public_adapters())
def test_every_public_module_holds_an_adapter_of_the_protocol(name: str) -> None:
    adapter = build(RECORDINGS / name, {})
    assert isinstance(adapter, Adapter)
    assert adapter.name == name
    assert type(adapter).__module__ == f"providers.{name}"


def test_every_folder_belongs_to_an_adapter() -> None:
    assert sorted(path.name for path in RECORDINGS.iterdir() if path.is_dir()) == public_adapters()


# -- the runner ------------------------------------------------------------------------------------------------------


def build(folder: Path, options: dict[str, Any]) -> Adapter:
    where, _, what = json.loads((folder / "INDEX.json").read_text())["adapter"].partition(":")
    adapter: Adapter = getattr(importlib.import_module(where), what)(options=options)
    return adapter


class Conversation:
    """Plays the part of the driver: hands answers to the adapter, and keeps the handle it learned."""

    def __init__(self, adapter: Adapter, call: Call) -> None:
        self.adapter = adapter
        self.call = call
        self.handle: dict[str, str] = {}

    def play(self, step: dict[str, Any]) -> None:
        outcome, request = getattr(self, step["do"])(step)
        if "request" in step:
            assert_request(request, step["request"])
        assert_outcome(outcome, step["expect"])
        for fact in outcome if isinstance(outcome, list) else [outcome]:
            if isinstance(fact, Fact) and fact.handle is not None:
                self.handle = fact.handle

    def submit(self, step: dict[str, Any]) -> tuple[Any, HttpRequest | None]:
        try:
            request = self.adapter.submit(self.call)
        except ProviderFailure as failure:
            return failure, None
        if "response" not in step:
            return None, request
        response = answer(step["response"])
        if response.headers.get("content-type") == "text/event-stream" and response.status == 200:
            assert request.expects_stream
            return [said for said in self.stream(response.body.decode()) if said is not None], request
        return caught(lambda: self.adapter.read_submit(self.call, response)), request

    def stream(self, text: str) -> Iterator[Any]:
        """All that is read, and at last the end: a fact too, or what was raised on the way."""
        reader = self.adapter.read_events(self.call)
        try:
            for event in server_sent_events(text):
                yield reader.read(event)
            yield reader.end()
        except ProviderFailure as failure:
            yield failure

    def poll(self, step: dict[str, Any]) -> tuple[Any, HttpRequest | None]:
        request = self.adapter.poll(self.handle)
        if "response" not in step:
            return request, request
        return caught(lambda: self.adapter.read_poll(self.handle, answer(step["response"]))), request

    def cancel(self, step: dict[str, Any]) -> tuple[Any, HttpRequest | None]:
        request = self.adapter.cancel(self.handle)
        if "response" not in step:
            return request, request
        return caught(lambda: self.adapter.read_cancel(self.handle, answer(step["response"]))), request

    def callback(self, step: dict[str, Any]) -> tuple[Any, None]:
        body = step["text"].encode() if "text" in step else json.dumps(step["json"]).encode()
        now = datetime.fromtimestamp(step.get("now", 0), UTC)
        try:
            return self.adapter.read_callback(
                step["headers"], body, secrets=tuple(step.get("secrets", ())), now=now
            ), None
        except CallbackForged as forged:
            return forged, None


def caught(read: Any) -> Any:
    try:
        return read()
    except ProviderFailure as failure:
        return failure


def answer(said: dict[str, Any]) -> HttpResponse:
    headers = dict(said.get("headers", {}))
    if "json" in said:
        headers.setdefault("content-type", "application/json")
        body = json.dumps(said["json"]).encode()
    else:
        body = base64.b64decode(said["base64"]) if "base64" in said else said.get("text", "").encode()
    return HttpResponse(status=said["status"], headers=headers, body=body)


def server_sent_events(text: str) -> list[ServerSentEvent]:
    """Fields as the standard reads them; comments and blocks without data are nothing."""
    events = []
    for block in text.split("\n\n"):
        event, data = "message", []
        for line in block.splitlines():
            field, _, value = line.partition(":")
            if field == "event":
                event = value.removeprefix(" ")
            elif field == "data":
                data.append(value.removeprefix(" "))
        if data:
            events.append(ServerSentEvent(event=event, data="\n".join(data)))
    return events


# -- what has to hold ------------------------------------------------------------------------------------------------


def assert_request(request: HttpRequest | None, expected: dict[str, Any]) -> None:
    assert request is not None
    shown: dict[str, Any] = msgspec.to_builtins(request)
    headers = expected.get("headers", {})
    assert headers.items() <= shown["headers"].items()
    assert not set(expected.get("without_headers", ())) & set(shown["headers"])
    assert not {"authorization", "cookie"} & set(shown["headers"]), "secrets do not pass through adapters"
    for key in expected.keys() - {"headers", "without_headers"}:
        assert shown.get(key) == expected[key], key


def assert_outcome(outcome: Any, expected: Any) -> None:
    if isinstance(expected, list):
        assert isinstance(outcome, list)
        assert len(outcome) == len(expected)
        for one, wanted in zip(outcome, expected, strict=True):
            assert_outcome(one, wanted)
        return
    if isinstance(outcome, list) and "last" in expected:
        outcome, expected = outcome[-1], expected["last"]
    kind, wanted = next(iter(expected.items()))
    match kind:
        case "nothing":
            assert outcome is None
        case "request":
            assert wanted == "built"
        case "fact":
            assert isinstance(outcome, Fact), outcome
            assert_subset(msgspec.to_builtins(outcome), wanted)
        case "failure":
            assert isinstance(outcome, ProviderFailure), outcome
            assert_subset(msgspec.to_builtins(outcome.failure), wanted)
        case "cancellation":
            assert outcome is Cancellation(wanted)
        case "callback":
            assert isinstance(outcome, Callback), outcome
            assert_subset(msgspec.to_builtins(outcome), wanted)
        case "forged":
            assert isinstance(outcome, CallbackForged) is wanted
        case _:
            raise AssertionError(f"a recording expects {kind!r}")


def assert_subset(shown: Any, wanted: Any) -> None:
    """Objects hold at least what is wanted; `{"contains": text}` looks inside a text; all else is equal."""
    if isinstance(wanted, dict) and set(wanted) == {"contains"} and isinstance(shown, str):
        assert wanted["contains"] in shown
    elif isinstance(wanted, dict) and isinstance(shown, dict):
        for key, value in wanted.items():
            assert key in shown
            assert_subset(shown[key], value)
    else:
        assert shown == wanted


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recording_is_understood(path: Path) -> None:
    recording = json.loads(path.read_text())
    assert recording["kind"] in KINDS
    assert recording["source"]
    assert any(step["expect"] for step in recording["steps"])
    call = {
        "prediction": "p",
        "attempt": 1,
        "version": None,
        "idempotency_id": "3zy5cb0aqn4e8kxw7mt1vdrs2g",
        "callback_url": None,
        "deadline_seconds": 90.0,
    } | recording.get("call", {"name": "owner/name", "input": {}})
    conversation = Conversation(build(path.parent, recording.get("options", {})), msgspec.convert(call, Call))
    for step in recording["steps"]:
        conversation.play(step)
