"""
Plays an adapter's recordings: data that says what it has to send, what comes back, and what that has to mean.

A provider's package keeps a folder of them beside its tests and plays each with `play`; what a folder owes is asked by
`missing_cases`. The words of a recording stand in `Recording`. No product code imports this.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gateway.contract.errors import CallbackForged, ProviderFailure
from gateway.contract.fact import Fact
from gateway.contract.provider import (
    Adapter,
    Ask,
    Call,
    Callback,
    Cancellation,
    File,
    Found,
    HttpRequest,
    HttpResponse,
    ServerSentEvent,
    Unanswered,
)
from providers._lookout import Lookout

CASES = (
    "success",
    "waiting-then-success",
    "bad-input",
    "rate-limited",
    "wallet-empty",
    "moderated",
    "server-error",
    "malformed",
    "cancel",
    "callback",
    "callback-forged",
    "result-expired",
)
KINDS = ("recorded", "documented", "derived")
INDEX = "INDEX.json"


class Recording(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """
    One conversation.

    `case`: one of CASES, or a word of its own. `kind`: recorded (seen on the wire), documented (as the vendor's pages
    or specification have it), derived (composed from a documented schema). `call` are fields of `Call`.

    Each step has `do` (submit, poll, cancel, listing, callback, upload), the `request` that has to be sent (those of
    its fields that are named), the `response` (`status`, `headers`, and `json`, `text` or `base64`), and what is to be
    understood in `expect`: `{"fact": …}`, `{"failure": …}`, `{"ask": …}`, `{"cancellation": …}`, `{"callback": …}`,
    `{"listing": {"found": […], "next": …}}`, `{"forged": true}`, `{"text": …}`, `{"nothing": true}` or
    `{"request": "built"}`. A step `ask` goes on with what the adapter asked for beside; a `listing` has a `since`.
    """

    case: str
    kind: str
    source: str
    note: str = ""
    steps: list[dict[str, Any]]
    call: dict[str, Any] = msgspec.field(default_factory=lambda: {"name": "owner/name", "input": {}})
    options: dict[str, Any] = msgspec.field(default_factory=dict)


def read_recording(path: Path) -> Recording:
    """Raises ValueError, with the file's name, for what is no recording."""
    try:
        recording = msgspec.json.decode(path.read_bytes(), type=Recording)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path.name}: {error}") from None
    if recording.kind not in KINDS or not recording.source:
        raise ValueError(f"{path.name}: `kind` is one of {', '.join(KINDS)}, and a `source` is needed")
    if not any(step.get("expect") for step in recording.steps):
        raise ValueError(f"{path.name}: no step expects anything")
    return recording


def recordings(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if path.name != INDEX)


def missing_cases(folder: Path) -> set[str]:
    """Cases that a provider's folder owes: neither recorded nor excused, with a reason, in its INDEX.json."""
    index = json.loads((folder / INDEX).read_text()) if (folder / INDEX).exists() else {}
    excused = {case for case, reason in index.get("not_applicable", {}).items() if len(reason.split()) >= 5}
    return set(CASES) - excused - {read_recording(path).case for path in recordings(folder)}


def play(adapter: Adapter, recording: Recording) -> None:
    """Raises AssertionError where `adapter` sends or understands anything else than the recording has it."""
    call = {
        "prediction": "p",
        "attempt": 1,
        "version": None,
        "idempotency_id": "3zy5cb0aqn4e8kxw7mt1vdrs2g",
        "callback_url": None,
        "deadline_seconds": 90.0,
    } | recording.call
    conversation = Conversation(adapter, msgspec.convert(call, Call))
    for step in recording.steps:
        conversation.play(step)


class Seen(NamedTuple):
    """What a page of a list tells of the recording's call, and what asks for the next page, if that is to be read."""

    found: tuple[Found, ...]
    next: HttpRequest | None


class Conversation:
    """Plays the part of the driver: hands answers to the adapter, and keeps the handle it learned."""

    def __init__(self, adapter: Adapter, call: Call) -> None:
        self.adapter = adapter
        self.call = call
        self.handle: dict[str, str] = {}
        self.outcome: Any = None  # of the latest step
        self._asked: tuple[Any, Ask] | None = None  # by which verb, and what

    def play(self, step: dict[str, Any]) -> HttpRequest | None:
        """The request that the adapter made. Raises AssertionError."""
        verb: Callable[[dict[str, Any]], tuple[Any, HttpRequest | None]] = getattr(self, f"_{step['do']}")
        outcome, request = verb(step)
        if "request" in step:
            assert_request(request, step["request"])
        assert_outcome(outcome, step["expect"])
        for fact in outcome if isinstance(outcome, list) else [outcome]:
            if isinstance(fact, Fact) and fact.handle is not None:
                self.handle = self.handle or fact.handle
        self.outcome = outcome
        return request

    def _submit(self, step: dict[str, Any]) -> tuple[Any, HttpRequest | None]:
        self.handle = {}
        try:
            request = self.adapter.submit(self.call)
        except ProviderFailure as failure:
            return failure, None
        if "response" not in step:
            return request, request
        response = answer(step["response"])
        if response.headers.get("content-type") == "text/event-stream" and response.status == 200:
            assert request.expects_stream, "events came that were not asked for"
            return [said for said in self._events(response.body.decode()) if said is not None], request
        return _caught(lambda: self.adapter.read_submit(self.call, response)), request

    def _events(self, text: str) -> Iterator[Any]:
        """All that is read, and at last the end: a fact too, or what was raised on the way."""
        reader = self.adapter.read_events(self.call)
        try:
            for event in server_sent_events(text):
                yield reader.read(event)
            yield reader.end()
        except ProviderFailure as failure:
            yield failure

    def _poll(self, step: dict[str, Any]) -> tuple[Any, HttpRequest | None]:
        return self._query(step, self.adapter.poll(self.handle), self.adapter.read_poll)

    def _cancel(self, step: dict[str, Any]) -> tuple[Any, HttpRequest | None]:
        return self._query(step, self.adapter.cancel(self.handle), self.adapter.read_cancel)

    def _listing(self, step: dict[str, Any]) -> tuple[Any, HttpRequest | None]:
        since = datetime.fromisoformat(step["since"])

        submit = Unanswered(call=self.call, since=since, until=datetime.max.replace(tzinfo=UTC))

        def read(handle: dict[str, str], response: HttpResponse) -> Any:
            lookout, marks = Lookout(), self.adapter.marks(self.call)
            lookout.expect(self.call, marks)
            listing = self.adapter.read_listing(response)
            for job in listing.jobs:
                lookout.see(job)
            return Seen(lookout.found(submit, marks), None if lookout.is_past(since) else listing.next)

        return self._query(step, self.adapter.listing(since), read, handle={})

    def _upload(self, step: dict[str, Any]) -> tuple[Any, HttpRequest | None]:
        said = step["file"]
        file = File(
            name=said["name"], content_type=said["content_type"], content=base64.b64decode(said.get("base64", ""))
        )

        def read(handle: dict[str, str], response: HttpResponse) -> Any:
            return self.adapter.read_upload(file, handle, response)

        return self._query(step, self.adapter.upload(file), read, handle={})

    def _query(
        self, step: dict[str, Any], request: HttpRequest | None, read: Any, *, handle: dict[str, str] | None = None
    ) -> tuple[Any, HttpRequest | None]:
        if "response" not in step:
            return request, request
        known = self.handle if handle is None else handle
        outcome = _caught(lambda: read(known, answer(step["response"])))
        self._asked = (read, outcome) if isinstance(outcome, Ask) else None
        return outcome, request

    def _ask(self, step: dict[str, Any]) -> tuple[Any, HttpRequest | None]:
        assert self._asked is not None, "nothing was asked for beside"
        read, ask = self._asked
        return self._query(step, ask.request, read, handle=ask.handle)

    def _callback(self, step: dict[str, Any]) -> tuple[Any, None]:
        body = step["text"].encode() if "text" in step else json.dumps(step["json"]).encode()
        now = datetime.fromtimestamp(step.get("now", 0), UTC)
        try:
            return self.adapter.read_callback(
                step["headers"], body, secrets=tuple(step.get("secrets", ())), now=now
            ), None
        except CallbackForged as forged:
            return forged, None


def _caught(read: Any) -> Any:
    try:
        return read()
    except ProviderFailure as failure:
        return failure


def answer(said: dict[str, Any]) -> HttpResponse:
    """The response that a recording describes."""
    headers = {name.lower(): value for name, value in said.get("headers", {}).items()}
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


# -- what has to hold -------------------------------------------------------------------------------------------------


def assert_request(request: HttpRequest | None, expected: dict[str, Any]) -> None:
    assert request is not None, "nothing was sent"
    shown: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(request))  # as a recording can write it
    headers = expected.get("headers", {})
    assert headers.items() <= shown["headers"].items(), f"headers: {shown['headers']}"
    unwanted = set(expected.get("without_headers", ())) & set(shown["headers"])
    assert not unwanted, f"headers that should not be there: {unwanted}"
    assert not {"authorization", "cookie"} & set(shown["headers"]), "secrets do not pass through adapters"
    for key in expected.keys() - {"headers", "without_headers"}:
        assert shown.get(key) == expected[key], f"{key}: {shown.get(key)!r} is not {expected[key]!r}"


def assert_outcome(outcome: Any, expected: Any) -> None:
    if isinstance(expected, list):
        assert isinstance(outcome, list), outcome
        assert len(outcome) == len(expected), outcome
        for one, wanted in zip(outcome, expected, strict=True):
            assert_outcome(one, wanted)
        return
    if isinstance(outcome, list) and "last" in expected:
        outcome, expected = outcome[-1], expected["last"]
    kind, wanted = next(iter(expected.items()))
    match kind:
        case "nothing":
            assert outcome is None, outcome
        case "request":
            assert wanted == "built"
            assert isinstance(outcome, HttpRequest), outcome
        case "fact":
            assert isinstance(outcome, Fact), outcome
            assert_subset(msgspec.to_builtins(outcome), wanted)
        case "failure":
            assert isinstance(outcome, ProviderFailure), outcome
            assert_subset(msgspec.to_builtins(outcome.failure), wanted)
        case "ask":
            assert isinstance(outcome, Ask), outcome
            assert_request(outcome.request, wanted)
        case "listing":
            assert isinstance(outcome, Seen), outcome
            assert len(outcome.found) == len(wanted["found"]), outcome
            for job, one in zip(outcome.found, wanted["found"], strict=True):
                assert_subset(msgspec.to_builtins(job), one)
            assert (outcome.next is None) == (wanted["next"] is None), outcome
            if wanted["next"] is not None:
                assert_request(outcome.next, wanted["next"])
        case "cancellation":
            assert outcome is Cancellation(wanted), outcome
        case "text":
            assert outcome == wanted, outcome
        case "callback":
            assert isinstance(outcome, Callback), outcome
            assert_subset(msgspec.to_builtins(outcome), wanted)
        case "forged":
            assert isinstance(outcome, CallbackForged) is wanted, outcome
        case _:
            raise AssertionError(f"a recording expects {kind!r}")


def assert_subset(shown: Any, wanted: Any) -> None:
    """
    Objects hold at least what is wanted, and nothing where that is `{}`; `{"contains": text}` looks inside a text; all
    else is equal.
    """
    if isinstance(wanted, dict) and set(wanted) == {"contains"} and isinstance(shown, str):
        assert wanted["contains"] in shown, f"{wanted['contains']!r} is not in {shown!r}"
    elif wanted and isinstance(wanted, dict) and isinstance(shown, dict):
        for key, value in wanted.items():
            assert key in shown, f"{key!r} is missing in {shown!r}"
            assert_subset(shown[key], value)
    else:
        assert shown == wanted, f"{shown!r} is not {wanted!r}"
