"""
OpenAI and the many servers that speak like it: vLLM, llama.cpp, LocalAI, SGLang, TGI, Ollama and hosted ones.

Everything is synchronous: no job outlives its call. Not its files, batches, videos or background responses.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

from gateway.contract.errors import InputRefused, ModelFailed, PollFailed
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import (
    SPEC_VERSION,
    Call,
    Callback,
    Callbacks,
    Cancel,
    Cancellation,
    Capabilities,
    EventReader,
    HttpRequest,
    HttpResponse,
)
from providers._adapter import (
    Malformed,
    Options,
    UnexpectedStream,
    check_options,
    failure_of,
    malformed_submit,
    read_json,
    read_options,
)
from providers._openai_chat import TextStream, read_text, read_usage
from providers._openai_error import classify, failed, find_error, read_refusal

Route = Literal["chat", "completions", "images", "embeddings", "speech"]

_PATHS: dict[str, str] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "images": "/images/generations",
    "embeddings": "/embeddings",
    "speech": "/audio/speech",
}
_STREAMED = ("chat", "completions")
# What the first bytes of a picture look like in base64: servers seldom say what they send.
_PICTURES = {"iVBOR": "image/png", "/9j/": "image/jpeg", "UklGR": "image/webp", "R0lGO": "image/gif"}
_SOUNDS = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


class OpenAIOptions(Options, kw_only=True, frozen=True):
    """
    `route`: which endpoint the offer is. `single`: a route of pictures gives the first one alone, not a list.
    `stream_usage`: ask for token counts in streams; some older servers refuse the very question.
    """

    route: Route = "chat"
    single: bool = False
    stream_usage: bool = True


class OpenAICompatible:
    """Speaks to one server of the dialect. Closing the connection is the only way to stop it."""

    spec_version = SPEC_VERSION
    base_url = "https://api.openai.com/v1"
    auth_scheme = "bearer"

    def __init__(self, name: str = "openai_compatible", options: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self._options = dict(options or {})
        chosen = self.check(self._options)
        self.capabilities = chosen.adjust(
            Capabilities(
                modes=frozenset({"sync", "stream"}),
                cancel=Cancel.DISCONNECT,
                callbacks=Callbacks.NONE,
                pollable=False,
                result_lifetime_seconds=3600,  # of the URLs of pictures
                max_inline_bytes=20_000_000,
                result_hosts=("oaidalleapiprodscus.blob.core.windows.net",),
            )
        )

    def check(self, options: Mapping[str, Any]) -> OpenAIOptions:
        """Raises ConfigurationError for options that are none of this adapter's."""
        return check_options(options, OpenAIOptions, adapter="openai_compatible")

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        """Raises InputRefused if the input lacks what its route cannot do without."""
        options = read_options(self._options, call.options, OpenAIOptions)
        body = {**_BODIES[options.route](call.input), "model": call.name}
        body.pop("stream", None)
        body.pop("stream_options", None)
        # Calls of tools arrive in crumbs that only make sense whole.
        streams = call.stream and options.route in _STREAMED and not body.get("tools")
        if streams:
            body["stream"] = True
            if options.stream_usage:
                body["stream_options"] = {"include_usage": True}
        return HttpRequest(
            method="POST",
            url=_PATHS[options.route],
            headers={"accept": "text/event-stream"} if streams else {},
            json=body,
            expects_stream=streams,
            holds_until_end=True,
        )

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        if not 200 <= response.status < 300:
            return read_refusal(response)
        options = read_options(self._options, call.options, OpenAIOptions)
        if options.route == "speech" and not _is_json(response):
            return _read_speech(call, response)
        try:
            body = read_json(response.body)
        except Malformed as malformed:
            raise malformed_submit(response, str(malformed)) from None
        error = find_error(body)
        if error is not None:
            return failed(failure_of(classify(error, response.status), response, message=error.message))
        fact = _READERS[options.route](call, options, body) if isinstance(body, dict) else None
        if fact is None:
            raise malformed_submit(response, f"its answer is none of route {options.route!r}")
        return fact

    def read_events(self, call: Call) -> EventReader:
        options = read_options(self._options, call.options, OpenAIOptions)
        return TextStream() if options.route in _STREAMED else UnexpectedStream()

    # -- there is no job to ask about --------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        return None

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact:
        raise PollFailed("there is nothing to poll", status=response.status)

    def cancel(self, handle: dict[str, str]) -> HttpRequest | None:
        return None

    def read_cancel(self, handle: dict[str, str], response: HttpResponse) -> Cancellation:
        return Cancellation.UNSUPPORTED

    def read_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: tuple[str, ...], now: datetime
    ) -> Callback:
        """Nobody calls back about these calls; whoever does says nothing."""
        return Callback(fact=None)


# -- what to send ----------------------------------------------------------------------------------------------------


def _chat_body(input: dict[str, Any]) -> dict[str, Any]:
    """`messages` as they are, or made of `prompt` and `system_prompt`."""
    body = dict(input)
    prompt, system = body.pop("prompt", None), body.pop("system_prompt", None)
    if "messages" in body:
        return body
    if prompt is None:
        raise InputRefused("chat takes `messages`, or a `prompt`")
    first = [{"role": "system", "content": system}] if system else []
    return {**body, "messages": [*first, {"role": "user", "content": prompt}]}


def _prompt_body(input: dict[str, Any]) -> dict[str, Any]:
    if "prompt" not in input:
        raise InputRefused("`prompt` is missing")
    return dict(input)


def _input_body(input: dict[str, Any]) -> dict[str, Any]:
    """What is to be embedded or spoken is called `input`; `text` and `prompt` are taken for it."""
    body = dict(input)
    for name in ("text", "prompt"):
        if "input" not in body and name in body:
            body["input"] = body.pop(name)
    if "input" not in body:
        raise InputRefused("`input` is missing")
    return body


_BODIES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "chat": _chat_body,
    "completions": _prompt_body,
    "images": _prompt_body,
    "embeddings": _input_body,
    "speech": _input_body,
}


# -- what came back --------------------------------------------------------------------------------------------------


def _read_text(call: Call, options: OpenAIOptions, body: dict[str, Any]) -> Fact | None:
    return read_text(body)


def _read_images(call: Call, options: OpenAIOptions, body: dict[str, Any]) -> Fact | None:
    """A list of URLs and data URIs, in the order of the answer."""
    items = body.get("data")
    if not isinstance(items, list):
        return None
    said = body.get("output_format", call.input.get("output_format"))
    images = [image for image in (_image(item, said) for item in items) if image]
    metrics = {**read_usage(body), "image_count": len(images)}
    if not images:
        return failed(ModelFailed("the answer holds no picture"), metrics=metrics)
    return Fact(phase=Phase.SUCCEEDED, output=images[0] if options.single else images, metrics=metrics)


def _image(item: Any, format: Any) -> str:
    if not isinstance(item, dict):
        return ""
    inline, url = item.get("b64_json"), item.get("url")
    if not isinstance(inline, str) or not inline:
        return url if isinstance(url, str) else ""
    if inline.startswith("data:"):
        return inline
    said = f"image/{format}" if format in ("png", "jpeg", "webp") else "image/png"
    kind = next((kind for start, kind in _PICTURES.items() if inline.startswith(start)), said)
    return f"data:{kind};base64,{inline}"


def _read_embeddings(call: Call, options: OpenAIOptions, body: dict[str, Any]) -> Fact | None:
    """One vector for one text, a list of vectors for a list."""
    items = body.get("data")
    if not isinstance(items, list) or not items:
        return None
    vectors: list[tuple[int, list[float]]] = []
    for position, item in enumerate(items):
        vector = _vector(item.get("embedding")) if isinstance(item, dict) else None
        if vector is None:
            return None
        index = item.get("index")
        vectors.append((index if type(index) is int else position, vector))
    vectors.sort(key=lambda pair: pair[0])
    ordered = [vector for _, vector in vectors]
    asked = _input_body(call.input)["input"]
    # A list of numbers is one text, given as tokens.
    is_many = isinstance(asked, list) and not all(type(token) is int for token in asked)
    output = ordered if is_many else ordered[0]
    return Fact(phase=Phase.SUCCEEDED, output=output, metrics=read_usage(body))


def _vector(value: Any) -> list[float] | None:
    """Numbers, or base64 of little-endian 32-bit floats; None for anything else."""
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
            numbers = list(struct.unpack(f"<{len(raw) // 4}f", raw))
        except (binascii.Error, struct.error, ValueError):
            return None
        return numbers if numbers and all(map(math.isfinite, numbers)) else None
    if isinstance(value, list) and value and all(type(number) in (int, float) for number in value):
        return value
    return None


def _no_speech(call: Call, options: OpenAIOptions, body: dict[str, Any]) -> Fact | None:
    return None  # speech is bytes; JSON in its place is nothing we know


_READERS: dict[str, Callable[[Call, OpenAIOptions, dict[str, Any]], Fact | None]] = {
    "chat": _read_text,
    "completions": _read_text,
    "images": _read_images,
    "embeddings": _read_embeddings,
    "speech": _no_speech,
}


def _read_speech(call: Call, response: HttpResponse) -> Fact:
    """The sound itself, as a data URI. No usage is told: it is priced by the characters sent."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind.startswith("audio/"):
        if kind.startswith("text/"):
            raise malformed_submit(response, "its answer is text, not sound")
        kind = _SOUNDS.get(str(call.input.get("response_format")), "audio/mpeg")
    if not response.body:
        return failed(ModelFailed("the answer holds no sound"))
    sound = f"data:{kind};base64,{base64.b64encode(response.body).decode()}"
    return Fact(phase=Phase.SUCCEEDED, output=sound)


def _is_json(response: HttpResponse) -> bool:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower().endswith("json")
