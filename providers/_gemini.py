"""What Google's `generateContent` takes and answers, whole and streamed. Not where it is, nor its operations."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

import msgspec

from gateway.contract import data_uri
from gateway.contract.errors import (
    InputModerated,
    InputRefused,
    ModelFailed,
    OutcomeUnknown,
    OutputModerated,
    TooLarge,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import ServerSentEvent
from providers._adapter import ended
from providers._content import inline_base64, is_file
from providers._pcm import is_pcm, rate_of, wave
from providers._reading import Malformed, quote, read_json

# FinishReason values that say "withheld": ai.google.dev/api/generate-content
_WITHHELD = {
    "SAFETY",
    "RECITATION",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
}
_GOOD = {"STOP", "MAX_TOKENS"}
_TYPE = re.compile(r"[A-Za-z]+/[A-Za-z0-9.+-]+")
_FILES = ("image", "images", "audio", "video", "files")


# -- what to send ----------------------------------------------------------------------------------------------------


def write_contents(input: dict[str, Any]) -> dict[str, Any]:
    """
    `contents` as they are, or made of `prompt`, `system_prompt` and the files under image(s), audio, video and files.

    All else of the input stands beside them (`generationConfig`, `safetySettings` …). Raises InputRefused.
    """
    body = dict(input)
    if "contents" not in body:
        files = [file for name in _FILES for file in _listed(body.pop(name, None))]
        prompt, system = body.pop("prompt", None), body.pop("system_prompt", None)
        texts = [{"text": prompt}] if isinstance(prompt, str) and prompt else []
        parts = [*texts, *(_file_part(file) for file in files)]
        if not parts:
            raise InputRefused("Google takes `contents`, or a `prompt`")
        body["contents"] = [{"role": "user", "parts": parts}]
        if system:
            body.setdefault("systemInstruction", {"parts": [{"text": system}]})
    return body


def write_blob(value: Any) -> Any:
    """A file of an instance as `:predict` takes it; what is no file stays, and so does what lies in it."""
    if isinstance(value, dict):
        return {key: write_blob(item) for key, item in value.items()}
    if isinstance(value, list):
        return [write_blob(item) for item in value]
    if is_file(value):
        uri = _parsed(value)
        return {"bytesBase64Encoded": base64.b64encode(uri.content).decode(), "mimeType": uri.content_type}
    if isinstance(value, str) and value.startswith("gs://"):
        return {"gcsUri": value}
    return value


def _file_part(file: Any) -> dict[str, Any]:
    if isinstance(file, str) and file.startswith("data:"):
        uri = _parsed(file)
        data = base64.b64encode(uri.content).decode()
        return {"inlineData": {"mimeType": uri.content_type, "data": data}}
    if isinstance(file, str) and file:
        return {"fileData": {"fileUri": file}}  # gs:// with Vertex, a file of its own with the Gemini API
    if isinstance(file, dict):
        return file
    raise InputRefused("a file of the input is no file")


def _parsed(text: str) -> data_uri.DataUri:
    try:
        return data_uri.parse(text, max_bytes=100_000_000)
    except (data_uri.Malformed, TooLarge) as error:
        raise InputRefused(f"a file of the input cannot be read: {error}") from None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


# -- what came back --------------------------------------------------------------------------------------------------


def read_blob(blob: Any, key: str = "data") -> str | None:
    """`{mimeType, <key>}` as a data URI; samples without a head as a WAV file; None if it is no such thing."""
    if not isinstance(blob, dict) or not isinstance(blob.get(key), str):
        return None
    said = str(blob.get("mimeType") or "")
    if is_pcm(said):
        try:
            samples = base64.b64decode(blob[key], validate=True)
        except (binascii.Error, ValueError):
            return None
        return data_uri.build(wave(samples, rate=rate_of(said)), "audio/wav") if samples else None
    kind = said.partition(";")[0].strip().lower()
    return inline_base64(blob[key], says=kind if _TYPE.fullmatch(kind) else "")


class Content:
    """An answer of `generateContent` as it grows: `add` its chunks, `end` it once. Serves streams and whole answers."""

    def __init__(self, *, single: bool = False) -> None:
        self.texts: list[str] = []
        self.files: list[str] = []
        self.metrics: dict[str, Any] = {}
        self.reason: Any = None
        self._calls: list[Any] = []
        self._single = single

    def add(self, body: dict[str, Any]) -> bool:
        """Whether there was anything new in it to show. Raises InputModerated if the prompt was blocked."""
        feedback = body.get("promptFeedback")
        if isinstance(feedback, dict) and feedback.get("blockReason"):
            raise InputModerated(f"the prompt was blocked: {quote(str(feedback['blockReason']), 60)}")
        self.metrics |= _usage(body)
        shown = len(self.texts)
        for candidate in objects(body.get("candidates")):
            self.reason = candidate.get("finishReason") or self.reason
            content = candidate.get("content")
            for part in objects(content.get("parts") if isinstance(content, dict) else None):
                self._take(part)
        return len(self.texts) > shown

    def _take(self, part: dict[str, Any]) -> None:
        file = read_blob(part.get("inlineData"))
        if file is not None:
            self.files.append(file)
        elif isinstance(part.get("text"), str) and part["text"] and part.get("thought") is not True:
            self.texts.append(part["text"])
        elif "functionCall" in part:
            self._calls.append(part["functionCall"])

    def end(self) -> Fact:
        """Files are the output, and the text beside them its log; without files the text is, as a list of chunks."""
        reason = self.reason if isinstance(self.reason, str) else ""
        if self.files:
            pictures = sum(file.startswith("data:image/") for file in self.files)
            metrics = self.metrics | ({"image_count": pictures} if pictures else {})
            is_sound = len(self.files) == 1 and self.files[0].startswith("data:audio/")
            output: Any = self.files[0] if self._single or is_sound else list(self.files)
            return Fact(phase=Phase.SUCCEEDED, output=output, logs="".join(self.texts) or None, metrics=metrics)
        if reason in _WITHHELD:
            return ended(OutputModerated, f"the output was withheld: {reason}", metrics=self.metrics)
        chunks = list(self.texts) or [msgspec.json.encode(call).decode() for call in self._calls]
        if not chunks:
            message = f"the answer is empty: {reason}" if reason and reason not in _GOOD else "the answer is empty"
            return ended(ModelFailed, message, metrics=self.metrics)
        return Fact(phase=Phase.SUCCEEDED, output=chunks, metrics=self.metrics)


class ContentStream:
    """Reads `streamGenerateContent?alt=sse`. `explain` makes a failed fact, or raises, of an error in the stream."""

    def __init__(self, explain: Any, *, single: bool = False) -> None:
        self._content = Content(single=single)
        self._explain = explain

    def read(self, event: ServerSentEvent) -> Fact | None:
        try:
            chunk = read_json(event.data)
        except Malformed as malformed:
            raise OutcomeUnknown(f"the stream carried a chunk, but {malformed}") from None
        if isinstance(chunk, list) and chunk:
            chunk = chunk[0]
        if not isinstance(chunk, dict):
            raise OutcomeUnknown("the stream carried a chunk that is no object")
        if chunk.get("error"):
            failed: Fact = self._explain(chunk)
            return failed
        if self._content.add(chunk) and not self._content.files:
            return Fact(phase=Phase.RUNNING, output=list(self._content.texts), metrics=dict(self._content.metrics))
        return None

    def end(self) -> Fact:
        """The last chunk names a reason, and usage may follow: only the stream's own end is the end."""
        if self._content.reason is None:
            raise OutcomeUnknown("the stream ended before the answer did")
        return self._content.end()


def _usage(body: dict[str, Any]) -> dict[str, Any]:
    usage = body.get("usageMetadata")
    if not isinstance(usage, dict):
        return {}
    counts = {key: value for key, value in usage.items() if type(value) is int and value >= 0}
    found = {}
    if "promptTokenCount" in counts:
        found["input_token_count"] = counts["promptTokenCount"]
    if "candidatesTokenCount" in counts:  # thoughts are billed as output
        found["output_token_count"] = counts["candidatesTokenCount"] + counts.get("thoughtsTokenCount", 0)
    return found


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; none if it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
