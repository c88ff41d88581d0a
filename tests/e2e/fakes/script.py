"""What a fake provider says, taken from a recording: exchanges, and the places where job ids and addresses stand."""

from __future__ import annotations

import base64
import functools
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Adapter, Call, HttpRequest
from gateway.testing.recording import Conversation, Recording, read_recording, recordings

FOLDER = Path(__file__).parents[2] / "contract" / "recordings"
IDEMPOTENCY_ID = "3zy5cb0aqn4e8kxw7mt1vdrs2g"  # what recordings are played with
_URL = re.compile(r"https?://[^\s\"'\\<>]+")


class Exchange(NamedTuple):
    do: str  # submit, poll, ask, cancel
    request: HttpRequest
    status: int
    headers: dict[str, str]
    body: bytes


class Script(NamedTuple):
    """One job of one provider, from its submit to its end."""

    adapter: Adapter
    recording: Recording
    call: Call
    exchanges: tuple[Exchange, ...]
    id: str | None  # the job's, as it was recorded
    output: Any


def words() -> list[str]:
    return sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


def adapter_of(word: str, options: dict[str, Any] | None = None) -> Adapter:
    index = json.loads((FOLDER / word / "INDEX.json").read_text())
    where, _, what = index["adapter"].partition(":")
    adapter: Adapter = getattr(importlib.import_module(where), what)(options=provider_options(word) | (options or {}))
    return adapter


def provider_options(word: str) -> dict[str, Any]:
    options: dict[str, Any] = json.loads((FOLDER / word / "INDEX.json").read_text()).get("options", {})
    return options


def of_case(word: str, *cases: str) -> Iterator[Recording]:
    for case in cases:
        for path in recordings(FOLDER / word):
            recording = read_recording(path)
            if recording.case == case:
                yield recording


def success(word: str) -> Script:
    """The provider's way to a success, by way of waiting if it knows waiting. Raises LookupError."""
    for recording in of_case(word, "waiting-then-success", "success"):
        script = _read(word, recording)
        if script is not None:
            return script
    raise LookupError(f"{word} has no recording that leads from a submit to a success")


def of_name(word: str, name: str) -> Script:
    """What the recording `name` holds, whatever it leads to, streams too."""
    return _play(word, read_recording(FOLDER / word / f"{name}.json"))


class Stop(NamedTuple):
    """How a job is stopped, and what is said of it then."""

    id: str
    cancel: Exchange
    polls: tuple[Exchange, ...]


def stops(word: str) -> list[Stop]:
    """Cancels that the provider's recordings show to be heard. One that only looks stops nothing."""
    found = []
    for recording in of_case(word, "cancel"):
        script = _play(word, recording)
        heard = [
            number
            for number, exchange in enumerate(script.exchanges)
            if exchange.do in ("cancel", "ask") and exchange.request.method != "GET" and exchange.status < 300
        ]
        if script.id and heard:
            after = tuple(exchange for exchange in script.exchanges[heard[0] + 1 :] if exchange.do == "poll")
            found.append(Stop(script.id, script.exchanges[heard[0]], after))
    return found


@functools.cache
def refusals(word: str, case: str) -> tuple[Exchange, ...]:
    """Answers to a submit by which the recordings of `case` refuse it."""
    found: list[Exchange] = []
    for recording in of_case(word, case):
        played = _play(word, recording, all_submits=True).exchanges
        found += [exchange for exchange in played if exchange.do == "submit" and exchange.status >= 400]
    return tuple(found)


def _read(word: str, recording: Recording) -> Script | None:
    """Up to the first success; None if there is none, or if it comes as a stream."""
    script = _play(word, recording)
    if script.call.version is not None and len(script.call.version) != 64:
        return None  # no public version: it could not be asked for
    if not script.exchanges or script.output is None or "event-stream" in script.exchanges[0].headers.get("accept", ""):
        return None
    return None if any(exchange.request.expects_stream for exchange in script.exchanges) else script


def _play(word: str, recording: Recording, *, all_submits: bool = False) -> Script:
    adapter = adapter_of(word, recording.options)
    fields = {
        "prediction": "p",
        "attempt": 1,
        "version": None,
        "idempotency_id": IDEMPOTENCY_ID,
        "callback_url": None,
        "deadline_seconds": 90.0,
    } | recording.call
    call = msgspec.convert(fields, Call)
    conversation = Conversation(adapter, call)
    exchanges: list[Exchange] = []
    id, output = None, None
    for step in recording.steps:
        if step["do"] == "submit" and exchanges and output is None and not all_submits:
            exchanges.clear()  # the last submit counts
        request = conversation.play(step)
        if request is None or "response" not in step or step["do"] == "upload":
            continue
        exchanges.append(_exchange(step, request))
        id = conversation.handle.get("id") or id
        outcome = conversation.outcome[-1] if isinstance(conversation.outcome, list) else conversation.outcome
        if isinstance(outcome, Fact) and outcome.phase is Phase.SUCCEEDED:
            output = outcome.output
            break
    return Script(adapter, recording, call, tuple(exchanges), id, output)


def _exchange(step: dict[str, Any], request: HttpRequest) -> Exchange:
    said = step["response"]
    headers = {name.lower(): value for name, value in said.get("headers", {}).items()}
    if "json" in said:
        headers.setdefault("content-type", "application/json")
        body = json.dumps(said["json"]).encode()
    else:
        body = base64.b64decode(said["base64"]) if "base64" in said else said.get("text", "").encode()
    return Exchange(step["do"], request, said["status"], headers, body)


def own_addresses(script: Script) -> list[str]:
    """Scheme and host of everything the adapter asks, or is told to ask: all of it is one server here."""
    adapter = script.adapter
    found = [adapter.base_url, *adapter.sites.values()]
    found += [exchange.request.url for exchange in script.exchanges if "://" in exchange.request.url]
    places = dict.fromkeys(f"{urlsplit(url).scheme}://{urlsplit(url).netloc}" for url in found if url)
    return sorted(places, key=len, reverse=True)


def result_urls(output: Any) -> list[str]:
    """Every URL in an output."""
    if isinstance(output, str):
        return [output] if _URL.fullmatch(output) else []
    inner = output.values() if isinstance(output, dict) else output if isinstance(output, list) else ()
    return list(dict.fromkeys(url for item in inner for url in result_urls(item)))
