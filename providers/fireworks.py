"""
Fireworks AI: text and embeddings in OpenAI's dialect, and three families of addresses for pictures.

`text_to_image` (FLUX) and `image_generation` (SDXL and its like) are held, `kontext` is a job whose states are Black
Forest Labs'. Answers: pictures as a list, a `kontext` picture as its URL, text and embeddings as `openai_compatible`.
Left out: audio, which lives on other hosts, and batches.
Thin: the errors of the pictures' addresses (taken for OpenAI's, or plain text); that `finishReason` may be
CONTENT_FILTERED is taken from Stability's words, and whether a picture in bytes says so at all is unknown, so JSON is
asked for where it is documented; on which hosts a `kontext` picture lies and for how long; limits' headers.
"""

from __future__ import annotations

from typing import Literal

from gateway.contract.errors import (
    InputRefused,
    JobFailed,
    ModelFailed,
    OutputModerated,
    PollFailed,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import (
    Call,
    Callbacks,
    Cancel,
    Capabilities,
    CostForm,
    HttpRequest,
    HttpResponse,
)
from providers._adapter import ended, malformed_submit, phase_of, read_id
from providers._auth import bearer
from providers._bfl_word import BAD_ENDS, reason
from providers._content import content_type_of, inline, inline_base64, is_json
from providers._job import check_name, urls_of
from providers._openai_dialect import DialectOptions, OpenAIDialect
from providers._openai_error import failed, read_refusal, refused

_PICTURES = ("text_to_image", "image_generation")
_PHASES = {"Pending": Phase.RUNNING, "Ready": Phase.SUCCEEDED, **dict.fromkeys(BAD_ENDS, Phase.FAILED)}


class FireworksOptions(DialectOptions, kw_only=True, frozen=True):
    route: Literal["chat", "completions", "embeddings", "text_to_image", "image_generation", "kontext"] = "chat"


class Fireworks(OpenAIDialect[FireworksOptions]):
    """Speaks to Fireworks AI. Models are named `accounts/<account>/models/<model>`. Nothing can be stopped."""

    adapter = "fireworks"
    base_url = "https://api.fireworks.ai/inference/v1"
    auth = (bearer("FIREWORKS_API_KEY"),)
    options_type = FireworksOptions

    def describe(self, options: FireworksOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"sync", "stream", "queue"}),
            cancel=Cancel.NONE,
            callbacks=Callbacks.NONE,
            cost=CostForm.UNITS,
            result_forms=frozenset({"data", "url", "json"}),
            min_poll_seconds=0.5,
            input_forms=frozenset({"data"} if options.route == "kontext" else {"url", "data"}),
        )

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        route = self.options_for(call).route
        if route not in (*_PICTURES, "kontext"):
            return super().submit(call)
        if not isinstance(call.input.get("prompt"), str):
            raise InputRefused("`prompt` is missing")
        path = check_name(call.name)
        if route == "kontext":
            return HttpRequest(method="POST", url=f"/workflows/{path}", json=call.input)
        is_flux = route == "text_to_image"
        return HttpRequest(
            method="POST",
            url=f"/workflows/{path}/text_to_image" if is_flux else f"/image_generation/{path}",
            headers={"accept": "application/json" if is_flux else "image/png"},
            json=call.input,
            holds_until_end=True,
        )

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        route = self.options_for(call).route
        if route in _PICTURES:
            return self._read_pictures(call, response)
        if route != "kontext":
            return super().read_submit(call, response)
        if not 200 <= response.status < 300:
            raise refused(response, outlives_its_call=True)
        id = read_id(self.accepted(response), "request_id")
        if id is None:
            raise malformed_submit(response, "its answer has no usable id")
        return Fact(phase=Phase.QUEUED, handle={"id": id, "model": call.name})

    def _read_pictures(self, call: Call, response: HttpResponse) -> Fact:
        if not 200 <= response.status < 300:
            return read_refusal(response)
        if not is_json(response):
            only = inline(response)
            if not only.startswith("data:image/"):
                raise malformed_submit(
                    response, f"its answer is {content_type_of(response) or 'bytes'}, and no picture"
                )
            return self._pictures(call, [only])
        body = self.accepted(response)
        reason, items = body.get("finishReason"), body.get("base64")
        if reason == "CONTENT_FILTERED":
            return failed(OutputModerated("the picture was withheld by a content filter"))
        if not isinstance(items, list):
            raise malformed_submit(response, "its answer holds no list of pictures")
        pictures = [picture for item in items if isinstance(item, str) and (picture := inline_base64(item))]
        if not pictures:
            return failed(ModelFailed("the answer holds no picture"))
        if reason == "ERROR":
            return failed(JobFailed("the picture was finished with an error"), output=pictures)
        return self._pictures(call, pictures)

    def _pictures(self, call: Call, pictures: list[str]) -> Fact:
        output = pictures[0] if self.options_for(call).single else pictures
        return Fact(phase=Phase.SUCCEEDED, output=output, metrics={"image_count": len(pictures)})

    # -- poll --------------------------------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        id, model = read_id(handle), handle.get("model")
        if id is None or not model:
            return None
        return HttpRequest(method="POST", url=f"/workflows/{model}/get_result", json={"id": id})

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact:
        body = self.polled(response)
        id, word = read_id(body), body.get("status")
        if id is None or not isinstance(word, str):
            raise PollFailed("the provider answered the poll with something else", status=response.status)
        told = {**handle, "id": id}
        phase = phase_of(word, _PHASES)
        if phase is Phase.FAILED:
            return ended(BAD_ENDS[word], reason(word, body), handle=told)
        if phase is not Phase.SUCCEEDED:
            return Fact(phase=phase, handle=told)
        result = body.get("result")
        pictures = urls_of([result.get("sample")]) if isinstance(result, dict) else []
        if not pictures:
            return ended(ModelFailed, "the job is ready and holds no picture", handle=told)
        return Fact(phase=phase, handle=told, output=pictures[0], metrics={"image_count": 1})
