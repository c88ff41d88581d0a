"""
Cloudflare Workers AI: models run while one waits, or in its batch queue, which is polled by POST.

Output: the file, where the model makes one; else the model's own object (`response`, `text` …). Its OpenAI dialect is
`openai_compatible`'s, with `…/accounts/<account>/ai/v1` for a base. Leaves out streams and its AI Gateway.
Thin: the words of its filters; where REST wants `rejectIfBusy` (in `options` of the body, after the documentation);
what becomes of a batch that is asked for too late.
"""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import quote as quote_path

from gateway.contract.errors import (
    AtCapacity,
    CredentialRefused,
    InputModerated,
    InputRefused,
    InputUnfit,
    JobFailed,
    ModelFailed,
    ModelMissing,
    OutcomeUnknown,
    PollFailed,
    ProviderFailure,
    Refused,
    WalletEmpty,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Call, Capabilities, CostForm, HttpRequest, HttpResponse
from providers._adapter import (
    HttpAdapter,
    Options,
    ended,
    failure_of,
    kind_of,
    malformed_submit,
    phase_of,
    read_id,
)
from providers._auth import bearer
from providers._content import bare_files, content_type_of, inline, inline_base64, is_file, is_json, part_of
from providers._form import form_request
from providers._openai_chat import read_usage
from providers._reading import Malformed, quote, read_object

_PHASES = {"queued": Phase.QUEUED, "running": Phase.RUNNING}
_FLAGGED = re.compile(r"\bnsfw\b|flagged|content polic|moderat", re.IGNORECASE)
_FILES = {"image": "image/jpeg", "audio": "audio/mpeg", "video": "video/mp4"}  # what each is, if it does not show
# developers.cloudflare.com/workers-ai/platform/errors: two codes share the status 429, and mean opposite things.
_CODES: dict[int, type[ProviderFailure]] = {
    3003: InputRefused,  # incomplete
    3006: InputUnfit,  # too large here
    3007: JobFailed,  # timed out
    3008: JobFailed,  # aborted
    3023: CredentialRefused,
    3036: WalletEmpty,  # the day's free allocation is used up
    3040: AtCapacity,
    3041: CredentialRefused,
    3042: ModelMissing,
    5004: InputRefused,  # bad base64
    5005: Refused,
    5007: ModelMissing,
    5016: CredentialRefused,
    5018: CredentialRefused,
    5019: Refused,
    10000: CredentialRefused,  # of the API as a whole: no such token
}


class CloudflareOptions(Options, kw_only=True, frozen=True):
    """
    `account`: its id. `batch`: by the queue. `files`: how a model wants those of its input. `form`: as multipart.
    `reject_if_busy`: be refused at once where there is no room, rather than wait.
    """

    account: str = ""
    batch: bool = False
    files: Literal["base64", "numbers", "uri"] = "base64"
    form: bool = False
    reject_if_busy: bool = False


class Cloudflare(HttpAdapter[CloudflareOptions]):
    """Reads the code of an error, never its status alone."""

    adapter = "cloudflare"
    base_url = "https://api.cloudflare.com/client/v4"
    auth = (bearer("CLOUDFLARE_API_TOKEN"),)
    options_type = CloudflareOptions
    provider_options = frozenset({"account"})

    def describe(self, options: CloudflareOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"sync", "queue"}),
            cost=CostForm.UNITS,
            result_forms=frozenset({"data", "json"}),
            min_poll_seconds=2,
            input_forms=frozenset({"data"}),
        )

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        """Raises InputRefused, and Refused without an account."""
        options = self.options_for(call)
        path = self._path(call, options)
        if options.form:
            return form_request(path, call.input, holds_until_end=True)
        input = _write_files(call.input, options.files)
        if options.batch:
            return HttpRequest(method="POST", url=path, json={"requests": [input]})
        if options.reject_if_busy:
            input = {**input, "options": {"rejectIfBusy": True}}
        return HttpRequest(method="POST", url=path, json=input, holds_until_end=True)

    def _path(self, call: Call, options: CloudflareOptions) -> str:
        if not options.account:
            raise Refused("the option `account` has to name the account at Cloudflare")
        path = f"/accounts/{quote_path(options.account, safe='')}/ai/run/{quote_path(call.name, safe='/@')}"
        return f"{path}?queueRequest=true" if options.batch else path

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        options = self.options_for(call)
        if 200 <= response.status < 300 and not is_json(response) and not options.batch:
            return _read_bytes(response)
        if not 200 <= response.status < 300:
            return _over(self.refusal(response), is_job=options.batch)
        body = self.accepted(response)
        if body.get("success") is False:
            return _over(self.refusal(response), is_job=options.batch)
        if "result" not in body:
            raise malformed_submit(response, "its answer has no result")
        if not options.batch:
            return _read_result(body["result"])
        id = read_id(body["result"], "request_id") if isinstance(body["result"], dict) else None
        if id is None:
            raise malformed_submit(response, "its answer has no usable id")
        return Fact(phase=Phase.QUEUED, handle={"id": id, "path": self._path(call, options)})

    def refusal(self, response: HttpResponse) -> ProviderFailure:
        try:
            body = read_object(response.body)
        except Malformed:
            return failure_of(kind_of(response.status), response)
        errors = body.get("errors")
        told = [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
        message = quote("; ".join(str(error.get("message") or "") for error in told))
        codes = [error["code"] for error in told if type(error.get("code")) is int]
        kind = next((_CODES[code] for code in codes if code in _CODES), None)
        if kind is None:
            kind = kind_of(response.status)
            if told and kind is OutcomeUnknown and response.status not in (408, 502, 504):
                kind = JobFailed  # it has said so itself: a synchronous call is over then
        if kind in (InputRefused, JobFailed, ModelFailed) and _FLAGGED.search(message):
            kind = InputModerated
        return failure_of(kind, response, message=message)

    # -- the queue ---------------------------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        path, id = handle.get("path"), read_id(handle)
        return HttpRequest(method="POST", url=path, json={"request_id": id}) if path and id else None

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact:
        body = self.polled(response)
        result = body.get("result")
        if body.get("success") is False or not isinstance(result, dict):
            raise PollFailed(str(self.refusal(response)), status=response.status)
        handle = {**handle, "id": read_id(result, "request_id") or handle["id"]}  # the last answer names none
        responses = result.get("responses")
        if not isinstance(responses, list):
            return Fact(phase=phase_of(result.get("status"), _PHASES), handle=handle)
        item = next((item for item in responses if isinstance(item, dict)), {})
        if item.get("success") is not True:
            told = item.get("error") or item.get("errors") or "the request failed"
            return ended(ModelFailed, told if isinstance(told, str) else str(told), handle=handle)
        return _read_result(item.get("result"), handle=handle, usage=read_usage(result))


# -- files, and what came back ---------------------------------------------------------------------------------------


def _write_files(input: dict[str, Any], form: str) -> dict[str, Any]:
    if form == "uri":
        return input
    if form == "base64":
        bare: dict[str, Any] = bare_files(input)
        return bare
    return {key: list(part_of(value, name=key)[2]) if is_file(value) else value for key, value in input.items()}


def _read_bytes(response: HttpResponse) -> Fact:
    kind = content_type_of(response)
    if kind.startswith("text/") or not response.body:
        raise malformed_submit(response, "its answer is neither JSON nor a file")
    metrics = {"image_count": 1} if kind.startswith("image/") else {}
    return Fact(phase=Phase.SUCCEEDED, output=inline(response), metrics=metrics)


def _read_result(result: Any, *, handle: dict[str, str] | None = None, usage: dict[str, Any] | None = None) -> Fact:
    """A file in base64 as a data URI; all else as it is."""
    metrics = usage or (read_usage(result) if isinstance(result, dict) else {})
    if result is None or result == {}:
        return ended(ModelFailed, "the answer holds no result", handle=handle, metrics=metrics)
    for name, kind in _FILES.items() if isinstance(result, dict) else ():
        text = result.get(name)
        file = inline_base64(text, otherwise=kind) if isinstance(text, str) else None
        if file is not None:
            metrics = metrics | ({"image_count": 1} if name == "image" else {})
            return Fact(phase=Phase.SUCCEEDED, output=file, handle=handle, metrics=metrics)
    return Fact(phase=Phase.SUCCEEDED, output=result, handle=handle, metrics=metrics)


def _over(failure: ProviderFailure, *, is_job: bool) -> Fact:
    """The end of a call that ran; raises what did not run, or may still. A queue's failed answer tells of no job."""
    if not isinstance(failure, JobFailed):
        raise failure
    if is_job:
        raise OutcomeUnknown(str(failure), status=failure.status)
    return Fact(phase=Phase.FAILED, failure=failure.failure)
