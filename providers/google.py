"""
Google's models by the Gemini API, or by Vertex AI with a project: `generateContent`, `:predict`, video operations.

Output: text as a list of chunks; pictures and clips as a list (option `single`: the first alone); speech as one WAV
file; other predictions as they came. Leaves out the Files API, batches, and cancelling, which Veo is not known to obey.
Thin: how long clips are kept (two days, from third parties); the words by which an operation says it was moderated;
operations with an express key.
"""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import quote as quote_path

from gateway.contract.errors import (
    ConfigurationError,
    InputRefused,
    JobFailed,
    PollFailed,
    ProviderFailure,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Call, Capabilities, CostForm, EventReader, HttpRequest, HttpResponse
from providers._adapter import HttpAdapter, Options, failure_of, kind_of, malformed_submit
from providers._auth import GoogleServiceAccount, Headers
from providers._content import check_storage
from providers._gemini import Content, ContentStream, write_blob, write_contents
from providers._google_answer import read_operation, read_predictions
from providers._google_error import classify
from providers._reading import Malformed, read_json

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}"
_OPERATION = re.compile(rf"(?:{_SEGMENT}/){{1,12}}operations/{_SEGMENT}")
_PLACE = re.compile(r"[a-z0-9][a-z0-9._:-]{0,62}|")
_IN_INSTANCE = ("prompt", "image", "lastFrame", "video", "referenceImages", "mask", "content")


class GoogleOptions(Options, kw_only=True, frozen=True):
    """
    `method`: how the offer is run. `project`, `location`: by Vertex AI; `express`: by Vertex AI with a key and without
    a project. `bucket`: of Cloud Storage, where Vertex AI lays clips and our service account may read them;
    `bucket_url`: where it is, if not under its own name. `input_buckets`: those that inputs may name (`gs://…`): they
    are read by our account's rights, so that callers can read whatever lies there.
    """

    method: Literal["generateContent", "predict", "predictLongRunning"] = "generateContent"
    single: bool = False
    project: str = ""
    location: str = "us-central1"
    express: bool = False
    bucket: str = ""
    bucket_url: str = ""
    input_buckets: tuple[str, ...] = ()


class Google(HttpAdapter[GoogleOptions]):
    """Project, location and bucket are the provider's; `method` and `single` are each offer's."""

    adapter = "google"
    base_url = "https://generativelanguage.googleapis.com/v1beta"
    auth = (Headers({"x-goog-api-key": "{token}"}, token="GEMINI_API_KEY"), GoogleServiceAccount())  # noqa: S106 - where it is found
    options_type = GoogleOptions
    provider_options = frozenset({"project", "location", "express", "bucket", "bucket_url"})

    def __init__(self, name: str = "", options: Any = None) -> None:
        super().__init__(name, options)
        chosen = self._chosen = self.check(self._options)
        if chosen.project or chosen.express:
            is_global = chosen.express or chosen.location == "global"
            self.base_url = f"https://{'' if is_global else chosen.location + '-'}aiplatform.googleapis.com/v1"
        if chosen.bucket:
            place = chosen.bucket_url or f"https://{chosen.bucket}.storage.googleapis.com"
            self.sites = {"bucket": place.rstrip("/")}

    def check(self, options: Any) -> GoogleOptions:
        chosen = super().check(options)
        for key in ("project", "location", "bucket"):
            if _PLACE.fullmatch(getattr(chosen, key)) is None:
                raise ConfigurationError(f"options of adapter google: {key} is none: {getattr(chosen, key)!r}")
        return chosen

    def describe(self, options: GoogleOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"sync", "queue", "stream"}),
            cost=CostForm.UNITS,
            result_forms=frozenset({"data", "url", "json"}),
            result_lifetime_seconds=2 * 86_400,
            result_needs_credentials=True,  # clips lie behind the API key, or in a bucket of ours
            min_poll_seconds=5,
            input_forms=frozenset({"data"}),
            max_inline_bytes=19_000_000,  # of a request of 20 MB
        )

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        """Raises InputRefused."""
        options = self.options_for(call)
        check_storage(call.input, "gs://", options.input_buckets)
        model = self._model(call.name)
        if options.method != "generateContent":
            is_job = options.method == "predictLongRunning"
            body = self._instances(call, is_job=is_job)
            return HttpRequest(method="POST", url=f"{model}:{options.method}", json=body, holds_until_end=not is_job)
        return HttpRequest(
            method="POST",
            url=f"{model}:streamGenerateContent?alt=sse" if call.stream else f"{model}:generateContent",
            json=write_contents(call.input),
            expects_stream=call.stream,
            holds_until_end=True,
        )

    def _model(self, name: str) -> str:
        place = f"/projects/{self._chosen.project}/locations/{self._chosen.location}" if self._chosen.project else ""
        if place or self._chosen.express:
            return f"{place}/publishers/google/models/{quote_path(name, safe='')}"
        return f"/{quote_path(name, safe='/')}" if "/" in name else f"/models/{quote_path(name, safe='')}"

    def _instances(self, call: Call, *, is_job: bool) -> dict[str, Any]:
        input = dict(call.input)
        if "instances" in input:
            return input
        parameters = input.pop("parameters", None)
        instance = {key: write_blob(input.pop(key)) for key in _IN_INSTANCE if key in input}
        if not instance:
            raise InputRefused("Google takes `instances`, or a `prompt`")
        parameters = input | (parameters if isinstance(parameters, dict) else {})
        if not is_job:
            parameters.setdefault("includeRaiReason", True)  # or filtered pictures are just not there
        elif self._chosen.bucket:
            parameters.setdefault("storageUri", f"gs://{self._chosen.bucket}/{call.idempotency_id}/")
        return {"instances": [instance], "parameters": parameters}

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        options = self.options_for(call)
        if not 200 <= response.status < 300 and options.method != "predictLongRunning":
            return _over(self._refusal(response, held=True))
        body = self.accepted(response)
        if body.get("error") and "name" not in body:
            return _over(self._refusal(response, held=options.method != "predictLongRunning"))
        if options.method == "predictLongRunning":
            name = body.get("name")
            if not isinstance(name, str) or _OPERATION.fullmatch(name) is None:
                raise malformed_submit(response, "its answer names no operation")
            return self._read_operation({"model": self._model(call.name)}, body, single=options.single)
        if options.method == "predict":
            return read_predictions(body, response, single=options.single)
        if not body.keys() & {"candidates", "promptFeedback"}:
            raise malformed_submit(response, "its answer is none of generateContent")
        content = Content(single=options.single)
        content.add(body)
        return content.end()

    def read_events(self, call: Call) -> EventReader:
        def explain(chunk: dict[str, Any]) -> Fact:
            kind, message = classify(chunk, 500, held=True)
            return _over(kind(message))

        return ContentStream(explain, single=self.options_for(call).single)

    def refusal(self, response: HttpResponse) -> ProviderFailure:
        return self._refusal(response, held=False)

    def _refusal(self, response: HttpResponse, *, held: bool) -> ProviderFailure:
        try:
            body = read_json(response.body)
        except Malformed:
            return failure_of(kind_of(response.status), response)
        kind, message = classify(body, response.status, held=held)
        return failure_of(kind, response, message=message)

    # -- operations --------------------------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        name = handle.get("id", "")
        if _OPERATION.fullmatch(name) is None:
            return None
        if self._chosen.project or self._chosen.express:  # Vertex AI asks a model for its operations
            model = handle.get("model") or "/" + name.rpartition("/operations/")[0]
            url = f"{model}:fetchPredictOperation"
            return HttpRequest(method="POST", url=url, json={"operationName": name})
        return HttpRequest(method="GET", url=f"/{name}")

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact:
        body = self.polled(response)
        if not isinstance(body.get("name"), str):
            raise PollFailed("the provider answered the poll with something else", status=response.status)
        return self._read_operation(handle, body, single=handle.get("single") == "1")

    def _read_operation(self, handle: dict[str, str], body: dict[str, Any], *, single: bool) -> Fact:
        handle = {**handle, "id": body["name"], **({"single": "1"} if single else {})}
        shelf = (f"gs://{self._chosen.bucket}/", self.sites["bucket"]) if self._chosen.bucket else None
        return read_operation(handle, body, single=single, shelf=shelf)


def _over(failure: ProviderFailure) -> Fact:
    """The end of a call that ran; raises what is no such end."""
    if isinstance(failure, JobFailed):
        return Fact(phase=Phase.FAILED, failure=failure.failure)
    raise failure
