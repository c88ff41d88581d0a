"""Text out of OpenAI's dialect: whole answers, streams, and what they count. Not how it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

import msgspec
from msgspec.structs import replace

from gateway.contract.errors import JobFailed, ModelFailed, OutcomeUnknown, OutputModerated
from gateway.contract.fact import Fact, Phase
from gateway.contract.money import Cost
from gateway.contract.provider import ServerSentEvent
from providers._openai_error import classify, failed, find_error
from providers._reading import Malformed, read_json

CostOf = Callable[[dict[str, Any]], Cost | None]

DONE = "[DONE]"
MAX_AMOUNT = 1e12  # what is beyond it was not counted


def read_usage(body: dict[str, Any]) -> dict[str, Any]:
    """Token counts, seconds heard and run time under Replicate's names for them; empty where nothing is counted."""
    usage, timings = _object(body, "usage"), _object(body, "timings")
    counts = {
        "input_token_count": usage.get("prompt_tokens", usage.get("input_tokens")),
        "output_token_count": usage.get("completion_tokens", usage.get("output_tokens")),
    }
    found: dict[str, Any] = {name: count for name, count in counts.items() if type(count) is int and count >= 0}
    if usage.get("type") == "duration" and is_amount(usage.get("seconds")):
        found["audio_duration_seconds"] = usage["seconds"]
    reading, writing = timings.get("prompt_ms"), timings.get("predicted_ms")  # llama.cpp's own clock
    if is_amount(reading) and is_amount(writing):
        found["predict_time"] = (reading + writing) / 1_000
    return found


def is_amount(value: Any) -> TypeGuard[int | float]:
    """A finite number that is not negative."""
    return type(value) in (int, float) and 0 <= value <= MAX_AMOUNT


def _object(body: dict[str, Any], key: str) -> dict[str, Any]:
    value = body.get(key)
    return value if isinstance(value, dict) else {}


def read_text(body: dict[str, Any]) -> Fact | None:
    """A whole answer; None if it holds no first choice. Output is a list of one chunk, as a stream's would be."""
    choice = _first_choice(body)
    if choice is None:
        return None
    message = choice.get("message")
    said = message if isinstance(message, dict) else choice
    text = _text(said)
    if not text and isinstance(said.get("tool_calls"), list):
        text = msgspec.json.encode(said["tool_calls"]).decode()  # paid for, and there is no better place
    return _finish([text] if text else [], choice.get("finish_reason"), read_usage(body))


class TextStream:
    """Reads one stream of text. Its facts carry all chunks so far. `cost_of` finds a price in a chunk."""

    def __init__(self, cost_of: CostOf | None = None) -> None:
        self._cost_of = cost_of
        self._cost: Cost | None = None
        self._chunks: list[str] = []
        self._usage: dict[str, Any] = {}
        self._reason: Any = None
        self._end: Fact | None = None

    def read(self, event: ServerSentEvent) -> Fact | None:
        if self._end is not None or not event.data.strip():
            return None
        if event.data.strip() == DONE:
            self._end = self._finished()
            return self._end
        try:
            chunk = read_json(event.data)
        except Malformed as malformed:
            raise OutcomeUnknown(f"the stream carried a chunk, but {malformed}") from None
        error = find_error(chunk)
        if error is not None:
            kind = classify(error, 200)
            failure = kind(error.message or "the stream carried an error", status=error.status)
            self._end = failed(failure, output=list(self._chunks) or None, metrics=self._usage)
            return self._end
        if not isinstance(chunk, dict):
            raise OutcomeUnknown("the stream carried a chunk that is no object")
        self._usage |= read_usage(chunk)
        if self._cost_of is not None:
            self._cost = self._cost_of(chunk) or self._cost
        return self._take(_first_choice(chunk))

    def end(self) -> Fact:
        """Some servers close without [DONE]: a reason to finish is as good."""
        if self._end is None:
            if self._reason is None:
                raise OutcomeUnknown("the stream ended before the text did")
            self._end = self._finished()
        return self._end

    def _finished(self) -> Fact:
        return replace(_finish(self._chunks, self._reason, self._usage), cost=self._cost)

    def _take(self, choice: dict[str, Any] | None) -> Fact | None:
        if choice is None:  # Azure's filter results, the final usage
            return None
        self._reason = choice.get("finish_reason") or self._reason
        delta = choice.get("delta")
        text = _text(delta if isinstance(delta, dict) else choice)
        if not text:
            return None
        self._chunks.append(text)
        return Fact(phase=Phase.RUNNING, output=list(self._chunks), metrics=dict(self._usage))


def _first_choice(body: dict[str, Any]) -> dict[str, Any] | None:
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("index", 0) == 0:
            return choice
    return None


def _text(said: dict[str, Any]) -> str:
    """`content` as text or as a list of parts, a refusal in its place, or the `text` of plain completions."""
    for key in ("content", "refusal", "text"):
        value = said.get(key)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, list):
            parts = [part.get("text") for part in value if isinstance(part, dict)]
            return "".join(part for part in parts if isinstance(part, str))
    return ""


def _finish(chunks: list[str], reason: Any, usage: dict[str, Any]) -> Fact:
    if reason == "content_filter":
        return failed(OutputModerated("the text was withheld by a content filter"), metrics=usage)
    if reason == "error":
        return failed(JobFailed("the text broke off with an error"), output=list(chunks) or None, metrics=usage)
    if reason is None and not chunks:
        return failed(ModelFailed("the answer holds no text"), metrics=usage)
    return Fact(phase=Phase.SUCCEEDED, output=list(chunks), metrics=dict(usage))
