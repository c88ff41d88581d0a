"""
Baseten: a deployed model while one waits, or in the background, where the callback alone brings the output.

Output is whatever the model returns, as JSON or as one file. The offer's name is the model's id. In the background only
with `webhook_secret` in the configuration: results are not stored there, and an unsigned callback is not believed.
Leaves out chains and its hosted models, which are `openai_compatible`'s.
Thin: what those before the model's server answer when it is away; how long an output may be in the background.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from gateway.contract.errors import (
    AtCapacity,
    InputRefused,
    InputUnfit,
    JobFailed,
    JobTimedOut,
    ModelFailed,
    ModelMissing,
    OutcomeUnknown,
    PollFailed,
    ProviderFailure,
    ResultLost,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import (
    Call,
    Callback,
    Callbacks,
    Cancel,
    Cancellation,
    Capabilities,
    CostForm,
    HttpRequest,
    HttpResponse,
    Signature,
)
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
from providers._answer import read_answer
from providers._auth import Headers
from providers._prediction import read_time
from providers._reading import Malformed, quote, read_object
from providers._signature import check_time, lower_names, verify_hmac

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}|")
_PHASES = {
    "QUEUED": Phase.QUEUED,
    "IN_PROGRESS": Phase.RUNNING,
    "SUCCEEDED": Phase.SUCCEEDED,
    "FAILED": Phase.FAILED,
    "EXPIRED": Phase.FAILED,
    "WEBHOOK_FAILED": Phase.FAILED,
    "CANCELED": Phase.CANCELED,
}
_MODEL_SERVER = "04"
_CODES: dict[str, type[ProviderFailure]] = {
    "MODEL_NOT_READY": AtCapacity,
    "MODEL_DOES_NOT_EXIST": ModelMissing,
    "MODEL_INVALID_INPUT": InputRefused,
    "MODEL_PREDICT_ERROR": ModelFailed,
    "MODEL_UNAVAILABLE": JobFailed,
    "MODEL_PREDICT_TIMEOUT": JobFailed,
    "INTERNAL_SERVER_ERROR": JobFailed,
}


class BasetenOptions(Options, kw_only=True, frozen=True):
    """
    `background`: by async_predict, where there is a callback to be had. `environment`, `deployment`: which one of the
    model's runs it. `host`: where models are, `{name}` being the offer's; empty: the provider's base is the model.
    """

    background: bool = False
    environment: str = "production"
    deployment: str = ""
    host: str = "https://model-{name}.api.baseten.co"


class Baseten(HttpAdapter[BasetenOptions]):
    """A model lives on a host of its own, and so do its jobs."""

    adapter = "baseten"
    base_url = "https://api.baseten.co"
    origins = (".api.baseten.co",)
    auth = (Headers({"authorization": "Api-Key {token}"}, token="BASETEN_API_KEY"),)  # noqa: S106 - where it is found
    options_type = BasetenOptions

    def describe(self, options: BasetenOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"sync", "queue"}),
            cancel=Cancel.QUEUED_ONLY,
            callbacks=Callbacks.SIGNED,
            signature=Signature.HMAC_SHA256,
            cost=CostForm.NONE,
            result_forms=frozenset({"json", "data", "url"}),
            min_poll_seconds=1,
            max_inline_bytes=180_000 if options.background else 10_000_000,  # of a request of 256 KiB
        )

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        """Raises ModelMissing for a name that is no model's id."""
        options = self.options_for(call)
        host = _host(call, options)
        if options.background and call.callback_url is not None:
            body = {
                "model_input": call.input,
                "webhook_endpoint": call.callback_url,
                "max_time_in_queue_seconds": math.ceil(min(max(call.seconds_to_start, 10), 259_200)),
                "inference_retry_config": {"max_attempts": 1},  # whether to run again is ours to say
            }
            return HttpRequest(method="POST", url=f"{host}/{_place(options)}/async_predict", json=body)
        url = f"{host}/{_place(options)}/predict"
        return HttpRequest(method="POST", url=url, json=call.input, holds_until_end=True)

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        options = self.options_for(call)
        is_job = options.background and call.callback_url is not None
        if not 200 <= response.status < 300:
            failure = self.refusal(response)
            if isinstance(failure, JobFailed) and is_job:
                raise failure_of(OutcomeUnknown, response)
            if isinstance(failure, JobFailed):
                return Fact(phase=Phase.FAILED, failure=failure.failure)
            raise failure
        if not is_job:
            return read_answer(response)
        id = read_id(self.accepted(response), "request_id")
        if id is None:
            raise malformed_submit(response, "its answer has no usable id")
        return Fact(phase=Phase.QUEUED, handle={"id": id, "url": f"{_host(call, options)}/async_request/{id}"})

    def refusal(self, response: HttpResponse) -> ProviderFailure:
        """By the error's code, where the body names one, and by who says it: the model's own server or those before."""
        kind = _CODES.get(_code(response)) or kind_of(response.status)
        if response.status == 413:
            kind = InputUnfit
        elif response.headers.get("x-baseten-error-source") == _MODEL_SERVER and response.status >= 500:
            kind = AtCapacity if response.status == 503 else ModelFailed  # 503: it is still loading
        return failure_of(kind, response)

    # -- jobs --------------------------------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        url = handle.get("url")
        return HttpRequest(method="GET", url=url) if url else None

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact:
        """It tells how the job fares and never brings its output: that comes, or came, by the callback."""
        body = self.polled(response)
        id, word, delivery = read_id(body, "request_id"), body.get("status"), body.get("webhook_status")
        if id is None or not isinstance(word, str):
            raise PollFailed("the provider answered the poll with something else", status=response.status)
        handle, phase = {**handle, "id": id}, phase_of(word, _PHASES)
        if phase is Phase.SUCCEEDED and delivery == "PENDING":
            return Fact(phase=Phase.RUNNING, handle=handle)  # the callback is on its way
        if phase is Phase.SUCCEEDED or word == "WEBHOOK_FAILED":
            message = "it was done, and its output, which the callback alone brings, did not arrive or was not signed"
            return ended(ResultLost, message, handle=handle)
        if word == "EXPIRED":
            expired = JobTimedOut("it expired in the queue").failure
            return Fact(
                phase=phase, handle=handle, failure=msgspec.structs.replace(expired, maybe_running=False)
            )  # it never began
        if phase is Phase.FAILED:
            return _failed(body, handle)
        return Fact(phase=phase, handle=handle)

    def cancel(self, handle: dict[str, str]) -> HttpRequest | None:
        url = handle.get("url")
        return HttpRequest(method="DELETE", url=url) if url else None

    def read_cancel(self, handle: dict[str, str], response: HttpResponse) -> Cancellation:
        if response.status in (404, 410):
            return Cancellation.TOO_LATE
        body = self.polled(response)
        return Cancellation.STOPPED if body.get("canceled") is True else Cancellation.UNSUPPORTED  # it runs, or did

    # -- callbacks ---------------------------------------------------------------------------------------------------

    def read_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: tuple[str, ...], now: datetime
    ) -> Callback:
        """Without `secrets`, or without sense, it is a nudge. Raises CallbackForged."""
        shown = lower_names(headers)
        dedupe = quote(shown.get("x-baseten-request-id", ""), 100) or None
        if not secrets:
            return Callback(fact=None, dedupe=dedupe)
        given = (item.strip() for item in shown.get("x-baseten-signature", "").split(","))
        verify_hmac((item.removeprefix("v1=") for item in given if item.startswith("v1=")), body, secrets=secrets)
        try:
            told = read_object(body)
        except Malformed:
            return Callback(fact=None, dedupe=dedupe)
        # The time is inside what is signed, and nowhere else.
        sent = read_time(told.get("time"))
        check_time(None if sent is None else sent.timestamp(), now=now)
        id = read_id(told, "request_id")
        if id is None:
            return Callback(fact=None, dedupe=dedupe)
        handle = {"id": id}
        if told.get("errors"):
            return Callback(fact=_failed(told, handle), dedupe=id)
        if told.get("data") is None:
            return Callback(fact=ended(ModelFailed, "the model left no output", handle=handle), dedupe=id)
        return Callback(fact=Fact(phase=Phase.SUCCEEDED, output=told["data"], handle=handle), dedupe=id)


def _host(call: Call, options: BasetenOptions) -> str:
    if _ID.fullmatch(call.name) is None:
        raise ModelMissing(f"{call.name[:100]!r} is no id of a model at Baseten")
    return options.host.replace("{name}", call.name).rstrip("/")


def _place(options: BasetenOptions) -> str:
    for word in (options.deployment, options.environment):
        if _WORD.fullmatch(word) is None:
            raise ModelMissing(f"{word[:100]!r} is no environment and no deployment")
    if options.deployment:
        return f"deployment/{options.deployment}"
    is_short = options.environment in ("production", "development")
    return options.environment if is_short else f"environments/{options.environment}"


def _code(response: HttpResponse) -> str:
    try:
        return _errors(read_object(response.body))[0]
    except Malformed:
        return ""


def _errors(body: Mapping[str, Any]) -> tuple[str, str]:
    """The first code of `errors`, and all its words."""
    errors = body.get("errors")
    told = [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    codes = [error["code"] for error in told if isinstance(error.get("code"), str)]
    return codes[0] if codes else "", "; ".join(str(error.get("message") or "") for error in told)


def _failed(body: Mapping[str, Any], handle: dict[str, str]) -> Fact:
    code, message = _errors(body)
    kind = _CODES.get(code, ModelFailed)
    return ended(kind if kind is InputRefused or issubclass(kind, JobFailed) else JobFailed, message, handle=handle)
