"""
Together AI: pictures, speech, transcripts, text and embeddings held; videos and a queue for containers as jobs.

Answers are those of `openai_compatible`; a video is its URL, the queue's answer whatever the container put out. Left
out: rerank, speech and transcripts over WebSockets, fine-tuning's files.
Thin: a video's `outputs.cost` names no unit, so it is not taken for money; a queue job that failed has no documented
reason; how long the links live is stated nowhere; that a 422 may be the safety checker's is told by its words alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote as quote_path
from urllib.parse import unquote

from msgspec.structs import replace

from gateway.contract.errors import AtCapacity, InputModerated, InputRefused, ModelFailed, PollFailed, ProviderFailure
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import (
    Call,
    Callbacks,
    Cancel,
    Cancellation,
    Capabilities,
    CostForm,
    HttpRequest,
    HttpResponse,
)
from providers._adapter import ended, failure_of, phase_of, read_id
from providers._auth import bearer
from providers._job import urls_of
from providers._openai_dialect import FORM_FILE_CHARACTERS, DialectOptions, OpenAIDialect
from providers._openai_error import refused
from providers._openai_routes import ROUTES
from providers._openai_video import PHASES, read_asked, read_started
from providers._reading import Malformed, read_object

_JOBS = ("videos", "queue")


class TogetherOptions(DialectOptions, kw_only=True, frozen=True):
    """`queue`: a dedicated or container model of one's own, which takes any input. `priority`: its place in there."""

    route: Literal[
        "chat", "completions", "images", "embeddings", "speech", "transcription", "translation", "videos", "queue"
    ] = "chat"
    priority: int | None = None


class Together(OpenAIDialect[TogetherOptions]):
    """Speaks to Together AI. Only a job that still waits in the queue can be stopped."""

    adapter = "together"
    base_url = "https://api.together.ai/v1"
    sites: Mapping[str, str] = {"v2": "https://api.together.ai/v2"}
    auth = (bearer("TOGETHER_API_KEY"),)
    options_type = TogetherOptions

    def describe(self, options: TogetherOptions) -> Capabilities:
        route = ROUTES.get(options.route)
        return Capabilities(
            modes=frozenset({"sync", "stream", "queue"}),
            cancel=Cancel.QUEUED_ONLY,
            callbacks=Callbacks.NONE,
            cost=CostForm.UNITS,
            result_forms=frozenset({"data", "url", "json"}),
            min_poll_seconds=1.0,
            input_forms=frozenset({"data"} if route is not None and route.files else {"url", "data"}),
            max_inline_bytes=FORM_FILE_CHARACTERS,
        )

    def judge(self, status: int, message: str) -> type[ProviderFailure] | None:
        """https://docs.together.ai/docs/error-codes and /docs/rate-limits: 403 is no matter of rights."""
        words = message.lower()
        if status == 403 and words and not words.startswith("error code"):  # which is the proxy before them
            return InputRefused  # prompt and max_tokens together exceed the model's context
        if status == 422 and ("safety" in words or "nsfw" in words):
            return InputModerated
        # At or below our rate: theirs to mend, and nothing ran. Without a word it may be anybody's on the way.
        return AtCapacity if status == 503 and message else None

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        options = self.options_for(call)
        if options.route == "videos":
            return HttpRequest(method="POST", url="/videos", site="v2", json={**call.input, "model": call.name})
        if options.route == "queue":
            body: dict[str, Any] = {"model": call.name, "payload": call.input}
            if options.priority is not None:
                body["priority"] = options.priority
            return HttpRequest(method="POST", url="/queue/submit", json=body)
        return super().submit(call)

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        route = self.options_for(call).route
        if route not in _JOBS:
            return super().read_submit(call, response)
        if not 200 <= response.status < 300:
            raise refused(response, judge=self.judge, outlives_its_call=True)
        body = self.accepted(response)
        if route == "videos":
            return read_started(response, body, also={"api": "videos"})
        # The submit says requestId, and everything after it request_id.
        return read_started(response, body, also={"api": "queue", "model": _escaped(call.name)}, id="requestId")

    # -- poll and cancel ---------------------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        id = read_id(handle)
        if id is None:
            return None
        if handle.get("api") != "queue":
            return HttpRequest(method="GET", url=f"/videos/{id}", site="v2")
        return HttpRequest(method="GET", url=f"/queue/status?request_id={id}&model={handle.get('model', '')}")

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact:
        body = self.polled(response)
        if handle.get("api") != "queue":
            return _with_film(read_asked(response, body, handle), body)
        fact = read_asked(response, body, handle, id="request_id")
        if fact.phase is not Phase.SUCCEEDED:
            return fact
        if body.get("outputs") in (None, {}, []):
            return ended(ModelFailed, "the job is done and put nothing out", handle=fact.handle)
        return replace(fact, output=body["outputs"])

    def cancel(self, handle: dict[str, str]) -> HttpRequest | None:
        id = read_id(handle)
        if id is None or handle.get("api") != "queue":
            return None
        body = {"model": unquote(handle.get("model", "")), "request_id": id}
        return HttpRequest(method="POST", url="/queue/cancel", json=body)

    def read_cancel(self, handle: dict[str, str], response: HttpResponse) -> Cancellation:
        if response.status in (404, 410):
            return Cancellation.TOO_LATE
        if response.status == 409:  # it says how far the job is: only what waits can be stopped
            return Cancellation.TOO_LATE if _state(response).is_end else Cancellation.UNSUPPORTED
        if not 200 <= response.status < 300:
            raise failure_of(PollFailed, response)
        return Cancellation.STOPPED if _state(response, Phase.CANCELED).is_end else Cancellation.REQUESTED


def _state(response: HttpResponse, otherwise: Phase = Phase.RUNNING) -> Phase:
    try:
        return phase_of(read_object(response.body).get("status"), PHASES, otherwise=otherwise)
    except Malformed:
        return otherwise


def _escaped(name: str) -> str:
    """As it stands in a query; in a handle nothing may look like a URL."""
    return quote_path(name, safe="")


def _with_film(fact: Fact, body: dict[str, Any]) -> Fact:
    """A finished video, with its URL. One that is finished without it is a failure."""
    if fact.phase is not Phase.SUCCEEDED:
        return fact
    outputs = body.get("outputs")
    films = urls_of([outputs.get("video_url")]) if isinstance(outputs, dict) else []
    if not films:
        return ended(ModelFailed, "the video is finished and has no address", handle=fact.handle, metrics=fact.metrics)
    return replace(fact, output=films[0])
