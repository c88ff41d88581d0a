"""
Hugging Face: chat over its router of Inference Providers, tasks of its own hf-inference, and dedicated Endpoints.

Output: chat gives its text as a list of chunks; a task's bytes are a data URI, its JSON is as it came. Beside chat, not
the models of other providers behind the router: those take each provider's own dialect, and so its own adapter with a
`base_url` such as `https://router.huggingface.co/replicate/v1`. Not its late bills, which only partners get.
Thin: `x-compute-time` (older answers only), and the words by which a model is said not to be served (users' reports).
"""

from __future__ import annotations

import base64
import math
import re
from typing import Any, Literal

from msgspec.structs import replace

from gateway.contract.errors import AtCapacity, InputRefused, ModelFailed, ModelMissing, ProviderFailure
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Call, Callbacks, Cancel, Capabilities, CostForm, HttpRequest, HttpResponse
from providers._adapter import failure_of, malformed_submit, read_amount
from providers._auth import bearer
from providers._content import UNTYPED, content_type_of, inline, is_file, is_json, part_of
from providers._job import check_name
from providers._openai_dialect import DialectOptions, OpenAIDialect
from providers._openai_error import classify, failed, find_error
from providers._reading import Malformed, read_json

_OWN_WORDS = ("inputs", "parameters", "options")  # all else of an input is a parameter
_MEDIA = ("image/", "audio/", "video/")
_NOT_SERVED = re.compile(r"not supported by (?:the )?provider|model .{1,200} does not exist", re.IGNORECASE)


class HuggingFaceOptions(DialectOptions, kw_only=True, frozen=True):
    """
    `task`: the pipeline of a task where the model's own is not meant, e.g. "feature-extraction".
    `dedicated`: `base_url` is an Endpoint of one's own, whose tasks are at its root.
    `bill_to`: the organisation that pays. `scale_up_seconds`: an Endpoint that sleeps shall hold the call so long, at
    most, while it wakes; 0: it refuses at once.
    """

    route: Literal["chat", "task"] = "chat"
    task: str = ""
    dedicated: bool = False
    bill_to: str = ""
    scale_up_seconds: int = 0


class HuggingFace(OpenAIDialect[HuggingFaceOptions]):
    """All of it is synchronous, and nothing can be stopped. A model may pin a provider: `owner/name:provider`."""

    adapter = "huggingface"
    base_url = "https://router.huggingface.co"
    auth = (bearer("HF_TOKEN"),)
    options_type = HuggingFaceOptions

    def describe(self, options: HuggingFaceOptions) -> Capabilities:
        is_chat = options.route == "chat"
        return Capabilities(
            modes=frozenset({"sync", "stream"} if is_chat else {"sync"}),
            cancel=Cancel.NONE,
            callbacks=Callbacks.NONE,
            pollable=False,
            cost=CostForm.UNITS,
            result_forms=frozenset({"json"} if is_chat else {"data", "json"}),
            input_forms=frozenset({"url", "data"} if is_chat else {"data"}),
        )

    def locate(self, call: Call, options: HuggingFaceOptions, path: str) -> str:
        return f"/v1{path}"

    def judge(self, status: int, message: str) -> type[ProviderFailure] | None:
        if status in (400, 404, 422) and _NOT_SERVED.search(message):
            return ModelMissing
        # Scaled to zero, loading, or a full queue that dropped us: nothing of ours runs.
        return AtCapacity if status == 503 else None

    def submit(self, call: Call) -> HttpRequest:
        """Raises InputRefused if a task's input has no `inputs`."""
        options = self.options_for(call)
        request = super().submit(call) if options.route == "chat" else _task(call, options)
        headers = dict(request.headers)
        if options.bill_to:
            headers["x-hf-bill-to"] = options.bill_to
        if options.scale_up_seconds:
            headers["x-scale-up-timeout"] = str(
                max(1, math.floor(min(options.scale_up_seconds, call.seconds_to_start)))
            )
        return replace(request, headers=headers)

    def read_route(self, call: Call, options: HuggingFaceOptions, response: HttpResponse) -> Fact:
        if options.route == "chat" or not 200 <= response.status < 300:
            return super().read_route(call, options, response)
        return _read_task(response)


def _task(call: Call, options: HuggingFaceOptions) -> HttpRequest:
    """
    `{"inputs": …, "parameters": {…}}`. A file alone goes as its bytes; with parameters beside it, as base64.

    As the hub's own client does: https://huggingface.co/docs/inference-providers/tasks/index
    """
    inputs, parameters = call.input.get("inputs"), _parameters(call.input)
    if inputs is None:
        raise InputRefused("`inputs` is missing")
    url = "/" if options.dedicated else f"/hf-inference/models/{check_name(call.name)}"
    if options.task and not options.dedicated:
        url += f"/pipeline/{options.task}"
    body = {key: value for key, value in call.input.items() if key in _OWN_WORDS and key != "parameters"}
    if is_file(inputs):
        _, content_type, content = part_of(inputs, name="inputs")
        if not parameters and body.keys() == {"inputs"}:
            headers = {"content-type": content_type}
            return HttpRequest(method="POST", url=url, headers=headers, content=content, holds_until_end=True)
        body["inputs"] = base64.b64encode(content).decode()
    if parameters:
        body["parameters"] = parameters
    return HttpRequest(method="POST", url=url, json=body, holds_until_end=True)


def _parameters(input: dict[str, Any]) -> dict[str, Any]:
    told = input.get("parameters")
    loose = {key: value for key, value in input.items() if key not in _OWN_WORDS}
    return {**(told if isinstance(told, dict) else {}), **loose}


def _read_task(response: HttpResponse) -> Fact:
    """Bytes of a picture, a sound or a film as a data URI; JSON as it is."""
    metrics = _run_time(response)
    kind = content_type_of(response)
    if kind.startswith(_MEDIA) or kind == UNTYPED:
        if not response.body:
            return failed(ModelFailed("the answer holds no bytes"), metrics=metrics)
        counted = {"image_count": 1} if kind.startswith("image/") else {}
        return Fact(phase=Phase.SUCCEEDED, output=inline(response), metrics=metrics | counted)
    if not is_json(response):
        raise malformed_submit(response, f"its answer is {kind or 'of no type'}, and no file")
    try:
        body = read_json(response.body)
    except Malformed as malformed:
        raise malformed_submit(response, str(malformed)) from None
    error = find_error(body)
    if error is not None:
        return failed(failure_of(classify(error, response.status), response, message=error.message), metrics=metrics)
    if body in (None, [], {}):
        return failed(ModelFailed("the answer is empty"), metrics=metrics)
    return Fact(phase=Phase.SUCCEEDED, output=body, metrics=metrics)


def _run_time(response: HttpResponse) -> dict[str, Any]:
    seconds = read_amount(response.headers.get("x-compute-time"))
    return {"predict_time": seconds} if seconds else {}
