"""What models answer through Bedrock: conversations, pictures, and failures inside a 200. Not the service's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.contract.errors import InputRefused, ModelFailed, OutputModerated
from gateway.contract.fact import Fact, Phase
from providers._adapter import ended
from providers._content import bare_files, inline_base64

FILTERED = re.compile(r"content filter|content polic|filter reason|moderat|guardrail|responsible ai", re.IGNORECASE)
_WITHHELD = ("guardrail_intervened", "content_filtered")


def write_conversation(input: dict[str, Any]) -> dict[str, Any]:
    """
    `messages` as they are, or made of `prompt`, `system_prompt` and the pictures under `image` or `images`.

    All else stands beside them (`inferenceConfig`, `toolConfig` …). Raises InputRefused.
    """
    body = {key: bare_files(value, name=key) for key, value in input.items() if key not in ("image", "images")}
    if "messages" in body:
        return body
    prompt, system = body.pop("prompt", None), body.pop("system_prompt", None)
    if not isinstance(prompt, str) or not prompt:
        raise InputRefused("converse takes `messages`, or a `prompt`")
    pictures = input.get("images", input.get("image"))
    blocks = [_picture(file) for file in (pictures if isinstance(pictures, list) else [pictures]) if file is not None]
    body["messages"] = [{"role": "user", "content": [*blocks, {"text": prompt}]}]
    if system:
        body["system"] = [{"text": system}]
    return body


def _picture(file: Any) -> dict[str, Any]:
    encoded = bare_files(file, name="image")
    if not isinstance(file, str) or encoded == file:
        raise InputRefused("`image` must be a file")
    subtype = file.removeprefix("data:").partition(";")[0].rpartition("/")[2].lower()
    return {"image": {"format": {"jpg": "jpeg"}.get(subtype, subtype), "source": {"bytes": encoded}}}


def read_token_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    """Tokens, and how long it ran, as `invoke` tells them whatever the model's own body says."""
    found: dict[str, Any] = {}
    for name, key in (("input-token-count", "input_token_count"), ("output-token-count", "output_token_count")):
        text = headers.get(f"x-amzn-bedrock-{name}", "")
        if text.isascii() and text.isdigit() and len(text) < 12:
            found[key] = int(text)
    latency = headers.get("x-amzn-bedrock-invocation-latency", "")
    if latency.isascii() and latency.isdigit() and len(latency) < 12:
        found["predict_time"] = int(latency) / 1000
    return found


def read_conversation(body: dict[str, Any], metrics: dict[str, Any]) -> Fact | None:
    """The text as a list of one chunk, or pictures; None if it is no answer of `converse`."""
    output = body.get("output")
    message = output.get("message") if isinstance(output, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return None
    metrics = metrics | _usage(body)
    if body.get("stopReason") in _WITHHELD:
        return ended(OutputModerated, f"the output was withheld: {body['stopReason']}", metrics=metrics)
    blocks = [block for block in content if isinstance(block, dict)]
    text = "".join(block["text"] for block in blocks if isinstance(block.get("text"), str))
    files = [file for block in blocks if (file := _inline(block.get("image")))]
    tools = [block["toolUse"] for block in blocks if "toolUse" in block]
    if files:
        return Fact(phase=Phase.SUCCEEDED, output=files, logs=text or None, metrics=metrics)
    if not text and tools:
        text = msgspec.json.encode(tools).decode()  # paid for, and there is no better place
    if not text:
        return ended(ModelFailed, "the answer is empty", metrics=metrics)
    return Fact(phase=Phase.SUCCEEDED, output=[text], metrics=metrics)


def _inline(image: Any) -> str | None:
    source = image.get("source") if isinstance(image, dict) else None
    encoded = source.get("bytes") if isinstance(source, dict) else None
    return inline_base64(encoded) if isinstance(encoded, str) else None


def _usage(body: dict[str, Any]) -> dict[str, Any]:
    usage, timing = body.get("usage"), body.get("metrics")
    found: dict[str, Any] = {}
    for name, key in (("inputTokens", "input_token_count"), ("outputTokens", "output_token_count")):
        count = usage.get(name) if isinstance(usage, dict) else None
        if type(count) is int and count >= 0:
            found[key] = count
    latency = timing.get("latencyMs") if isinstance(timing, dict) else None
    if type(latency) is int and latency >= 0:
        found["predict_time"] = latency / 1000
    return found


def read_model(body: dict[str, Any], metrics: dict[str, Any], *, single: bool) -> Fact:
    """
    What `invoke` brought: pictures if there are any, whatever else was withheld; then what it says went wrong; or else
    the object as it is.
    """
    images = body.get("images")
    texts = [text for text in images if isinstance(text, str)] if isinstance(images, list) else []
    files = [file for text in texts if text and (file := inline_base64(text, otherwise="image/png"))]
    if files:
        metrics = metrics | {"image_count": len(files)}
        return Fact(phase=Phase.SUCCEEDED, output=files[0] if single else files, metrics=metrics)
    reason = _reason(body)
    if reason:
        return ended(OutputModerated if FILTERED.search(reason) else ModelFailed, reason, metrics=metrics)
    if "images" in body or not body:
        return ended(ModelFailed, "the answer holds no picture", metrics=metrics)
    return Fact(phase=Phase.SUCCEEDED, output=body, metrics=metrics)


def _reason(body: dict[str, Any]) -> str:
    """Why there is nothing: `error` (Nova, Titan), `finish_reasons` (Stability), `status` ("Request Moderated")."""
    if body.get("error"):
        return body["error"] if isinstance(body["error"], str) else msgspec.json.encode(body["error"]).decode()
    reasons = body.get("finish_reasons")
    told = [str(reason) for reason in reasons if reason] if isinstance(reasons, list) else []
    if told and told[0] not in ("SUCCESS", "stop", "length"):
        return "; ".join(told)
    status = body.get("status")
    return status if isinstance(status, str) and FILTERED.search(status) else ""
