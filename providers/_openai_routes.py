"""OpenAI's endpoints, one table: what each is sent, and what its answer says. Not what its errors mean."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from gateway.contract import data_uri
from gateway.contract.errors import InputRefused, ModelFailed
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import HttpRequest, HttpResponse
from providers._adapter import malformed_submit
from providers._content import content_type_of, inline_base64, is_json, sniff
from providers._form import form_request
from providers._openai_chat import is_amount, read_text, read_usage
from providers._openai_error import failed

Input = dict[str, Any]

_SOUNDS = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_TEXT_FORMATS = ("text", "srt", "vtt")


class Route(NamedTuple):
    """One endpoint. Inputs whose `files` name any go as a form, all others as JSON."""

    path: str
    write: Callable[[Input], Input]  # raises InputRefused where something is missing that it cannot do without
    read: Callable[[Input, Any], Fact | None]  # of a decoded answer; None: it is none of this route
    # Of an answer that may be no JSON. None: read it as JSON.
    read_raw: Callable[[Input, HttpResponse], Fact | None] | None = None
    files: tuple[str, ...] = ()
    is_streamed: bool = False
    makes_images: bool = False


# -- what to send ----------------------------------------------------------------------------------------------------


def _chat_body(input: Input) -> Input:
    """`messages` as they are, or made of `prompt` and `system_prompt`."""
    body = dict(input)
    prompt, system = body.pop("prompt", None), body.pop("system_prompt", None)
    if "messages" in body:
        return body
    if prompt is None:
        raise InputRefused("chat takes `messages`, or a `prompt`")
    first = [{"role": "system", "content": system}] if system else []
    return {**body, "messages": [*first, {"role": "user", "content": prompt}]}


def _needing(name: str) -> Callable[[Input], Input]:
    def body(input: Input) -> Input:
        if input.get(name) in (None, []):
            raise InputRefused(f"`{name}` is missing")
        return dict(input)

    return body


def _input_body(input: Input) -> Input:
    """What is to be embedded or spoken is called `input`; `text` and `prompt` are taken for it."""
    body = dict(input)
    for name in ("text", "prompt"):
        if "input" not in body and name in body:
            body["input"] = body.pop(name)
    if "input" not in body:
        raise InputRefused("`input` is missing")
    return body


def write_form(url: str, body: Input, files: tuple[str, ...], *, holds_until_end: bool = False) -> HttpRequest:
    """A POST of a form. Those under `files` are files; what is several is sent as `name[]`. Raises InputRefused."""
    several = {name for name, value in body.items() if isinstance(value, list) and len(value) > 1}
    fields = {f"{name}[]" if name in several and not name.endswith("[]") else name: body[name] for name in body}
    files_in = [f"{name}[]" if name in several else name for name in files]
    return form_request(url, fields, files_in=files_in, holds_until_end=holds_until_end)


# -- what came back --------------------------------------------------------------------------------------------------


def _read_text(input: Input, body: Any) -> Fact | None:
    return read_text(body) if isinstance(body, dict) else None


def _read_images(input: Input, body: Any) -> Fact | None:
    """A list of URLs and data URIs, in the order of the answer."""
    items = body.get("data") if isinstance(body, dict) else None
    if not isinstance(items, list):
        return None
    said = body.get("output_format", input.get("output_format"))
    images = [image for image in (_image(item, said) for item in items) if image]
    metrics = {**read_usage(body), "image_count": len(images)}
    if not images:
        return failed(ModelFailed("the answer holds no picture"), metrics=metrics)
    return Fact(phase=Phase.SUCCEEDED, output=images, metrics=metrics)


def _image(item: Any, format: Any) -> str:
    if not isinstance(item, dict):
        return ""
    inline, url = item.get("b64_json"), item.get("url")
    if not isinstance(inline, str) or not inline:
        if not isinstance(url, str):
            return ""
        return url if url.startswith(("https://", "http://")) or data_uri.is_data_uri(url) else ""
    said = f"image/{format}" if format in ("png", "jpeg", "webp") else "image/png"
    return inline_base64(inline, otherwise=said) or ""


def _read_embeddings(input: Input, body: Any) -> Fact | None:
    """One vector for one text, a list of vectors for a list."""
    items = body.get("data") if isinstance(body, dict) else None
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
    asked = _input_body(input)["input"]
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


def _read_sound(input: Input, response: HttpResponse) -> Fact | None:
    """The sound itself, as a data URI. No usage is told: it is priced by the characters sent."""
    kind = content_type_of(response)
    is_told = kind.startswith(("audio/", "video/"))
    # Raw samples may begin with any byte; a file of sound begins with no bracket.
    begins = response.body[:1] if not is_told and input.get("response_format") != "pcm" else b""
    if is_json(response) or begins == b"{":
        return None
    if kind.startswith("text/") or begins == b"<":
        raise malformed_submit(response, "its answer is text, not sound")
    if not response.body:
        return failed(ModelFailed("the answer holds no sound"))
    if not is_told:
        # What the bytes tell, or else what was asked for.
        kind = sniff(response.body, _SOUNDS.get(str(input.get("response_format")), "audio/mpeg"))
    return Fact(phase=Phase.SUCCEEDED, output=data_uri.build(response.body, kind))


def _no_sound(input: Input, body: Any) -> Fact | None:
    return None  # speech is bytes; JSON in its place is nothing we know


def _read_raw_words(input: Input, response: HttpResponse) -> Fact | None:
    """Plain text, where text or subtitles were asked for."""
    if is_json(response) or input.get("response_format") not in _TEXT_FORMATS:
        return None
    if content_type_of(response) == "text/html":
        raise malformed_submit(response, "its answer is a page, not a transcript")
    try:
        return Fact(phase=Phase.SUCCEEDED, output=response.body.decode().rstrip("\n"))
    except UnicodeDecodeError:
        raise malformed_submit(response, "its answer is no text") from None


def _read_words(input: Input, body: Any) -> Fact | None:
    """The whole transcript with its segments, words and speakers, or text alone where that was asked for."""
    wants_text = input.get("response_format") in _TEXT_FORMATS
    if isinstance(body, str):  # some servers wrap plain text into JSON
        return Fact(phase=Phase.SUCCEEDED, output=body) if wants_text else None
    if not isinstance(body, dict) or not isinstance(body.get("text"), str):
        return None
    metrics = read_usage(body)
    if is_amount(body.get("duration")):
        metrics.setdefault("audio_duration_seconds", body["duration"])
    output = body["text"] if wants_text else {key: value for key, value in body.items() if key != "usage"}
    return Fact(phase=Phase.SUCCEEDED, output=output, metrics=metrics)


ROUTES: dict[str, Route] = {
    "chat": Route("/chat/completions", _chat_body, _read_text, is_streamed=True),
    "completions": Route("/completions", _needing("prompt"), _read_text, is_streamed=True),
    "images": Route("/images/generations", _needing("prompt"), _read_images, makes_images=True),
    "edits": Route("/images/edits", _needing("image"), _read_images, files=("image", "mask"), makes_images=True),
    "variations": Route("/images/variations", _needing("image"), _read_images, files=("image",), makes_images=True),
    "embeddings": Route("/embeddings", _input_body, _read_embeddings),
    "speech": Route("/audio/speech", _input_body, _no_sound, _read_sound),
    "transcription": Route("/audio/transcriptions", _needing("file"), _read_words, _read_raw_words, files=("file",)),
    "translation": Route("/audio/translations", _needing("file"), _read_words, _read_raw_words, files=("file",)),
}
