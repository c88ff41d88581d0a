"""
Stability AI's v2beta: images, upscaling, audio and 3D. Not its retired v1 and image-to-video, nor its own result paths.

Thin throughout: no official specification was at hand. Paths, forms and `finish_reason` agree among third parties;
which endpoints answer with an id, and that 150 requests in 10 s are the most, are taken from them unproven.
"""

from __future__ import annotations

from typing import Any

from gateway.contract.errors import InputModerated, JobFailed, ModelFailed, OutcomeUnknown, OutputModerated, PollFailed
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Call, Capabilities, CostForm, HttpRequest, HttpResponse
from providers._adapter import HttpAdapter, Options, ended, failure_of, kind_of, malformed_submit, read_id
from providers._auth import bearer
from providers._content import content_type_of, inline, inline_base64, is_json
from providers._form import form_request
from providers._job import check_name
from providers._reading import Malformed, quote, read_object, words_of

_MEDIA = ("image/", "video/", "audio/", "model/")
# In an answer of JSON the file has its kind for a name; where a job's result is fetched it is called `result` too.
_FIELDS = {"image": "image/png", "video": "video/mp4", "audio": "audio/mpeg", "result": "image/png"}


class StabilityOptions(Options, kw_only=True, frozen=True):
    """
    `accept`: in which form results are asked for. JSON, if nothing is said, since it never comes without the word
    whether the picture was filtered; endpoints of 3D give bytes alone.
    """

    accept: str = ""


class Stability(HttpAdapter[StabilityOptions]):
    """
    The offer's name is the path below /v2beta, its version (if it has one) the form's `model`.

    Output: the one file, as a data URI. Some endpoints hold until it is there, some answer with the id of a job.
    """

    adapter = "stability"
    base_url = "https://api.stability.ai/v2beta"
    auth = (bearer("STABILITY_API_KEY"),)
    options_type = StabilityOptions

    def describe(self, options: StabilityOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"sync", "queue"}),
            cost=CostForm.NONE,  # credits by endpoint, told nowhere
            result_forms=frozenset({"data"}),
            result_lifetime_seconds=86_400,
            min_poll_seconds=10.0,
            input_forms=frozenset({"data"}),  # addresses are not taken
        )

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        """Raises ModelMissing for a name that is no path, InputRefused for a file that is none."""
        name = check_name(call.name)
        input = {**call.input, **({"model": call.version} if call.version else {})}
        # JSON bodies are refused, and so is a form without parts. Jobs answer at once, and are waited for in vain
        # no longer than the deadline allows.
        return form_request(
            f"/{name}", input, headers={"accept": self._accept(call)}, holds_until_end=not _is_job(name)
        )

    def _accept(self, call: Call) -> str:
        said = self.options_for(call).accept
        return said or ("*/*" if call.name.startswith("3d/") else "application/json")

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        if not 200 <= response.status < 300:
            kind = _kind(response)
            if kind is OutcomeUnknown and response.status == 500 and _name(response) and not _is_job(call.name):
                # The call was synchronous, and the server itself has said that it broke: nothing of ours runs on.
                return ended(JobFailed, _words(response))
            raise failure_of(kind, response, message=_words(response))
        body = _object(response)
        id = read_id(body) if body is not None else None
        if body is not None and id is not None and _file(body) is None:
            # 202 or 200, by endpoint.
            return Fact(phase=Phase.QUEUED, handle={"id": id, "accept": self._accept(call)})
        fact = _result(response, body, None)
        if fact is None:
            raise malformed_submit(response, "its answer is neither a file nor a job")
        return fact

    # -- poll --------------------------------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        id = read_id(handle)
        headers = {"accept": handle.get("accept", "application/json")}
        return None if id is None else HttpRequest(method="GET", url=f"/results/{id}", headers=headers)

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact:
        """The HTTP status is the state: 202 goes on, 200 is the result."""
        body = _object(response)
        told = {**handle, "id": (read_id(body) if body is not None else None) or handle.get("id", "")}
        if response.status == 202:
            return Fact(phase=Phase.RUNNING, handle=told)
        if response.status in (400, 403, 422) and _name(response):
            # Said of the job: the question itself has nothing in it that could be refused so.
            kind = _kind(response)
            if response.status != 403 or kind is InputModerated:
                return ended(kind, _words(response), handle=handle)
        if response.status != 200:
            self.polled(response)
            raise PollFailed("the provider answered the poll with something else", status=response.status)
        if body is not None and _file(body) is None and isinstance(body.get("status"), str):
            return Fact(phase=Phase.RUNNING, handle=told)  # a 200 that contradicts itself claims the least
        fact = _result(response, body, handle)
        if fact is None:
            raise PollFailed("the provider answered the poll with neither a file nor a state", status=response.status)
        return fact


def _is_job(name: str) -> bool:
    """True for the endpoints that are known to answer with an id."""
    return "/async/" in name or name.endswith(("upscale/creative", "replace-background-and-relight", "image-to-video"))


def _result(response: HttpResponse, body: dict[str, Any] | None, handle: dict[str, str] | None) -> Fact | None:
    """The end that an answer of bytes or JSON is; None if there is no file in it."""
    if body is not None:
        file, said = _file(body), body.get("finish_reason")
    else:
        kind = content_type_of(response)
        is_file = bool(response.body) and (kind.startswith(_MEDIA) or kind == "application/octet-stream")
        file, said = (inline(response) if is_file else None), response.headers.get("finish-reason")
    if said not in (None, "SUCCESS"):
        # Filtered results come as a 200 with a blurred picture.
        filtered = said == "CONTENT_FILTERED"
        words = "the output was withheld by the content filter" if filtered else f"it finished with {said!r}"
        return ended(OutputModerated if filtered else ModelFailed, words, handle=handle)
    if file is None:
        return None
    metrics = {"image_count": 1} if file.startswith("data:image/") else {}
    return Fact(phase=Phase.SUCCEEDED, handle=handle, output=file, metrics=metrics)


def _object(response: HttpResponse) -> dict[str, Any] | None:
    try:
        return read_object(response.body) if is_json(response) else None
    except Malformed:
        return None


def _file(body: dict[str, Any]) -> str | None:
    for field, kind in _FIELDS.items():
        value = body.get(field)
        if isinstance(value, str) and value:
            return inline_base64(value, otherwise=kind)
    return None


# -- refusals: {"id": of the request, "name": a code, "errors": [text]} ----------------------------------------------


def _name(response: HttpResponse) -> str:
    name = (_object(response) or {}).get("name")
    return name if isinstance(name, str) else ""


def _words(response: HttpResponse) -> str:
    errors = (_object(response) or {}).get("errors")
    said = [error for error in errors if isinstance(error, str)] if isinstance(errors, list) else []
    return quote("; ".join(said)) or words_of(response)


def _kind(response: HttpResponse) -> type[Any]:
    # A rejected prompt is a 403 like a rejected key: the name decides.
    return InputModerated if _name(response) == "content_moderation" else kind_of(response.status)
