"""
Runway's tasks: films, pictures, voices and sounds. Not its own router, its workflows, nor its realtime avatars.

Thin: no code tells an empty wallet, so a 400 that speaks of credits is taken for one; 429 is the day's cap and no rate,
as documented, unless it says when to come back. The hosts of files and of uploads are taken from third parties. Between
the look that a cancel takes first and the DELETE after it a task may still end, and its output go with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gateway.contract.errors import (
    InputModerated,
    InputRefused,
    ModelFailed,
    OutputModerated,
    PollFailed,
    ProviderFailure,
    RateLimited,
    WalletEmpty,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.money import Cost
from gateway.contract.provider import (
    Ask,
    Call,
    Cancel,
    Cancellation,
    Capabilities,
    CostForm,
    File,
    HttpRequest,
    HttpResponse,
)
from providers._adapter import Options, dollars, ended, failure_of, kind_of, read_id, upload_refusal
from providers._auth import bearer
from providers._job import JobQueue, speaks_of_credit, urls_of
from providers._reading import Malformed, read_object, words_of

VERSION = "2024-11-06"
CREDIT_NANOS = 10_000_000  # a credit is a cent

_HEADERS = {"x-runway-version": VERSION}

Route = Literal[
    "image_to_video",
    "text_to_video",
    "video_to_video",
    "text_to_image",
    "image_upscale",
    "video_upscale",
    "character_performance",
    "text_to_speech",
    "sound_effect",
    "speech_to_speech",
    "voice_dubbing",
    "voice_isolation",
]


class RunwayOptions(Options, kw_only=True, frozen=True):
    """`route`: the endpoint. If nothing is said, `promptImage` decides between the first two."""

    route: Route | None = None


class Runway(JobQueue[RunwayOptions]):
    """The offer's name is the model. Output: the list of URLs. Over our own concurrency Runway itself queues."""

    adapter = "runway"
    base_url = "https://api.dev.runwayml.com/v1"
    auth = (bearer("RUNWAYML_API_SECRET"),)
    options_type = RunwayOptions
    words: ClassVar[Mapping[str, Phase]] = {
        "PENDING": Phase.QUEUED,
        "THROTTLED": Phase.QUEUED,
        "RUNNING": Phase.RUNNING,
        "SUCCEEDED": Phase.SUCCEEDED,
        "FAILED": Phase.FAILED,
        "CANCELLED": Phase.CANCELED,
    }

    def describe(self, options: RunwayOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"queue"}),
            cancel=Cancel.ANY_TIME,
            cost=CostForm.MONEY,
            result_lifetime_seconds=86_400,  # asking again renews the links, as long as the task is there
            min_poll_seconds=5.0,
            input_forms=frozenset({"url", "data", "upload"}),
            max_inline_bytes=5_000_000,
            max_upload_bytes=200_000_000,
            result_hosts=(".cloudfront.net", ".amazonaws.com"),
        )

    def submit(self, call: Call) -> HttpRequest:
        route = self.options_for(call).route
        route = route or ("image_to_video" if "promptImage" in call.input else "text_to_video")
        return HttpRequest(
            method="POST", url=f"/{route}", headers=dict(_HEADERS), json={**call.input, "model": call.name}
        )

    def refusal(self, response: HttpResponse) -> ProviderFailure:
        words = _words(response)
        kind = kind_of(response.status)
        if response.status == 400 and speaks_of_credit(words):
            kind = WalletEmpty
        elif response.status == 429:
            kind = RateLimited if "retry-after" in response.headers else WalletEmpty
        return failure_of(kind, response, message=words)

    # -- poll and cancel ---------------------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        return self._request("GET", handle)

    def cancel(self, handle: dict[str, str]) -> HttpRequest | None:
        # DELETE stops a task that runs, and deletes the output of one that has ended: it has to be looked at first.
        return self._request("GET", handle)

    def read_cancel(self, handle: dict[str, str], response: HttpResponse) -> Cancellation | Ask:
        if response.status == 404:
            return Cancellation.TOO_LATE
        if handle.get("step") == "delete":
            if not 200 <= response.status < 300:
                raise failure_of(PollFailed, response)
            return Cancellation.STOPPED
        told, body = self.asked(handle, response)
        phase = self.words.get(self.word_of(body) or "")
        if phase is not None and phase.is_end:
            return Cancellation.TOO_LATE
        request = self._request("DELETE", handle)
        if phase is None or request is None or told["id"] != handle.get("id"):
            raise PollFailed("it cannot be told whether the task has ended, so it is not deleted")
        return Ask(request=request, handle={**handle, "step": "delete"})

    def _request(self, method: str, handle: dict[str, str]) -> HttpRequest | None:
        id = read_id(handle)
        return None if id is None else HttpRequest(method=method, url=f"/tasks/{id}", headers=dict(_HEADERS))

    def end(self, phase: Phase, handle: dict[str, str], body: dict[str, Any]) -> Fact:
        cost = _cost(body)
        if phase is Phase.CANCELED:
            return Fact(phase=phase, handle=handle, cost=cost)
        failure = body.get("failure")
        if phase is Phase.FAILED or failure:
            code = body.get("failureCode")
            said = failure if isinstance(failure, str) else str(code or "")
            return ended(_kind(code), said, handle=handle, cost=cost)
        files = urls_of(body.get("output"))
        if not files:
            return ended(ModelFailed, "the task succeeded, and there is no file", handle=handle, cost=cost)
        return Fact(phase=phase, handle=handle, output=files, cost=cost)

    # -- uploads -----------------------------------------------------------------------------------------------------

    def upload(self, file: File) -> HttpRequest | None:
        """First a place for the file is asked for, then it is brought there, without credentials."""
        body = {"filename": file.name, "type": "ephemeral"}
        return HttpRequest(method="POST", url="/uploads", headers=dict(_HEADERS), json=body)

    def read_upload(self, file: File, handle: dict[str, str], response: HttpResponse) -> str | Ask:
        if not 200 <= response.status < 300:
            raise upload_refusal(response)
        if "uri" in handle:
            return handle["uri"]
        body = self.polled(response)
        places, fields, uri = urls_of([body.get("uploadUrl")]), body.get("fields"), body.get("runwayUri")
        if not places or not isinstance(fields, dict) or not isinstance(uri, str) or not uri.startswith("runway://"):
            raise PollFailed("the provider named no place for the file", status=response.status)
        form = tuple((name, value) for name, value in fields.items() if isinstance(value, str))
        files = (("file", file.name, file.content_type, file.content),)
        request = HttpRequest(method="POST", url=places[0], form=form, files=files)
        return Ask(request=request, handle={"uri": uri})


def _kind(code: Any) -> type[ProviderFailure]:
    """By the families of `failureCode`. Runway asks that what its filters refused is not sent again."""
    parts = code.split(".") if isinstance(code, str) else []
    if "SAFETY" in parts:
        return OutputModerated if "OUTPUT" in parts else InputModerated
    if parts[:1] == ["ASSET"]:
        return InputRefused
    return ModelFailed


def _cost(body: Mapping[str, Any]) -> Cost | None:
    """The final cost; 0 is a refund, and meant. What a submit estimates is the most that it can be."""
    cost = body.get("cost")
    credits = cost.get("credits") if isinstance(cost, dict) else None
    return dollars(credits, each_nanos=CREDIT_NANOS, may_be_free=True)


def _words(response: HttpResponse) -> str:
    """The error, and the first issues with the parameter that each is about."""
    try:
        issues = read_object(response.body).get("issues")
    except Malformed:
        issues = None
    found = [issue for issue in issues[:20] if isinstance(issue, dict)] if isinstance(issues, list) else []
    said = [f"{_path(issue.get('path'))}: {issue['message']}" for issue in found if "message" in issue]
    return "; ".join([words_of(response), *said])[:500]


def _path(path: Any) -> str:
    return ".".join(map(str, path)) if isinstance(path, list) else str(path)
