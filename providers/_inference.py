"""The messages of the open inference protocol: tensors out and in, generated text. Not where they go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.contract.errors import InputRefused, ModelFailed, OutcomeUnknown
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Call, HttpResponse, ServerSentEvent
from providers._adapter import ended
from providers._reading import Malformed, read_object
from providers._tensor import TensorSpec, Unreadable, make_tensor, read_tensor, show, write_bytes, write_json

LENGTH = "inference-header-content-length"  # of the JSON, where raw bytes follow it


# -- what to send ----------------------------------------------------------------------------------------------------


def write_text(call: Call) -> dict[str, Any]:
    body = dict(call.input)
    if "text_input" not in body and "prompt" in body:
        body["text_input"] = body.pop("prompt")
    if not isinstance(body.get("text_input"), str):
        raise InputRefused("generate takes `text_input`, or a `prompt`")
    if call.stream:
        parameters = body.get("parameters")
        body["parameters"] = {**(parameters if isinstance(parameters, dict) else {}), "stream": True}
    return {**body, "id": call.idempotency_id}


def write_tensors(
    call: Call, specs: Mapping[str, TensorSpec], *, outputs: tuple[str, ...], binary: bool
) -> tuple[dict[str, Any], bytes]:
    """The JSON of a request, and the raw bytes that follow it. Raises InputRefused for what fits no tensor."""
    inputs: list[dict[str, Any]] = []
    raws: list[bytes] = []
    parameters: dict[str, Any] = {}
    for key, value in call.input.items():
        spec = specs.get(key)
        if spec is not None:
            tensor = make_tensor(key, value, spec)
            if binary:
                raw = write_bytes(tensor)
                raws.append(raw)
                head = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}
                inputs.append({**head, "parameters": {"binary_data_size": len(raw)}})
            else:
                inputs.append(write_json(tensor))
        elif isinstance(value, (str, int, float, bool)):
            parameters[key] = value
        elif value is not None:
            raise InputRefused(f"`{key}` is no tensor of this offer, and no parameter")
    body: dict[str, Any] = {"id": call.idempotency_id, "inputs": inputs}
    if binary and not outputs:
        parameters["binary_data_output"] = True
    if outputs:
        wanted = {"parameters": {"binary_data": True}} if binary else {}
        body["outputs"] = [{"name": name, **wanted} for name in outputs]
    if parameters:
        body["parameters"] = parameters
    return body, b"".join(raws)


# -- what came back --------------------------------------------------------------------------------------------------


def take_apart(response: HttpResponse, id: str) -> tuple[dict[str, Any], bytes]:
    """The JSON of an answer to request `id`, and what follows it. Raises Malformed, Unreadable."""
    length, content = response.headers.get(LENGTH, ""), response.body
    size = len(content)
    if length:
        size = int(length) if length.isascii() and length.isdigit() and len(length) < 12 else size + 1
        if size > len(content):
            raise Unreadable("its head is longer than the answer")
    body = read_object(content[:size])
    if body.get("id", id) != id:
        raise Unreadable("it answers another request")
    return body, content[size:]


def read_tensors(body: dict[str, Any], raw: bytes) -> Fact:
    heads = body.get("outputs")
    if not isinstance(heads, list):
        raise Unreadable("its answer has no outputs")
    output, at = {}, 0
    for head in heads:
        parameters = head.get("parameters") if isinstance(head, dict) else None
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is None:
            tensor = read_tensor(head, None)
        elif type(size) is int and 0 <= size <= len(raw) - at:
            tensor = read_tensor(head, raw[at : at + size])
            at += size
        else:
            raise Unreadable("an output breaks off")
        output[tensor.name] = show(tensor)
    if not output:
        return ended(ModelFailed, "the answer holds no output")
    return Fact(phase=Phase.SUCCEEDED, output=output)


def read_generated(chunks: list[Any]) -> Fact:
    if not chunks or not all(isinstance(chunk, str) for chunk in chunks):
        return ended(ModelFailed, "the answer holds no text")
    return Fact(phase=Phase.SUCCEEDED, output=list(chunks))


class GeneratedText:
    """Reads `generate_stream`: an object for each piece of text, perhaps an error at last, and no word for the end."""

    def __init__(self) -> None:
        self._chunks: list[Any] = []

    def read(self, event: ServerSentEvent) -> Fact | None:
        try:
            body = read_object(event.data)
        except Malformed as malformed:
            raise OutcomeUnknown(f"the stream carried a chunk, but {malformed}") from None
        if body.get("error"):
            return ended(ModelFailed, str(body["error"]), output=list(self._chunks) or None)
        if not isinstance(body.get("text_output"), str):
            return None
        self._chunks.append(body["text_output"])
        return Fact(phase=Phase.RUNNING, output=list(self._chunks))

    def end(self) -> Fact:
        return read_generated(self._chunks)
