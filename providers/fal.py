"""
fal.ai: its queue, or its synchronous host, with callbacks that are signed by published Ed25519 keys.

Output is the model's own object (`images[*].url`, `video.url`, `text` …). Not its streams, nor its WebSockets.
Thin: the words of an account without balance (from users' reports); on which of its hosts uploads end.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from gateway.contract.errors import (
    JobFailed,
    ModelFailed,
    PollFailed,
    ProviderFailure,
    ResultLost,
    WalletEmpty,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import (
    Ask,
    Call,
    Callback,
    Callbacks,
    Cancel,
    Cancellation,
    Capabilities,
    CostForm,
    File,
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
    read_amount,
    read_id,
    upload_refusal,
)
from providers._auth import Headers
from providers._fal_error import as_answer, failed, is_its_own, said
from providers._job import check_name
from providers._reading import Malformed, read_json, read_object, words_of
from providers._signature import check_time, lower_names, verify_ed25519

_PHASES = {"IN_QUEUE": Phase.QUEUED, "IN_PROGRESS": Phase.RUNNING, "COMPLETED": Phase.SUCCEEDED}
_LOCKED = re.compile(r"exhausted balance|user is locked|top up", re.IGNORECASE)
_STATUS = re.compile(r"status code: ([1-5][0-9]{2})\b")
_SECONDS = re.compile(r"[0-9]{1,11}")
_URLS = ("status_url", "response_url", "cancel_url")


class FalOptions(Options, kw_only=True, frozen=True):
    """
    `sync`: hold the call at the synchronous host, which neither queues nor retries.
    `settle_by_result`: a good callback only has us fetch the result, whose header alone tells what was billed.
    """

    sync: bool = False
    settle_by_result: bool = False


class Fal(HttpAdapter[FalOptions]):
    """Its URLs cannot be rebuilt from a model's name: those that the submit's answer names are kept and asked."""

    adapter = "fal"
    base_url = "https://queue.fal.run"
    sites: Mapping[str, str] = {"sync": "https://fal.run", "rest": "https://rest.fal.ai"}
    auth = (Headers({"authorization": "Key {token}"}, token="FAL_KEY"),)  # noqa: S106 - where it is found
    options_type = FalOptions

    def describe(self, options: FalOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"sync", "queue"}),
            cancel=Cancel.ANY_TIME,  # what runs may go on, and is billed then
            callbacks=Callbacks.SIGNED,
            signature=Signature.ED25519_KEYS,
            cost=CostForm.UNITS,
            result_forms=frozenset({"url", "data", "json"}),
            result_lifetime_seconds=7 * 86_400,  # of files, at least
            input_forms=frozenset({"url", "data", "upload"}),
            max_inline_bytes=64_000,  # data URIs are taken, and discouraged "above a few kB"
            result_hosts=("fal.media", ".fal.media"),
        )

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        options = self.options_for(call)
        url = f"/{check_name(call.name)}"
        if call.callback_url is not None and not options.sync:
            url += f"?fal_webhook={quote(call.callback_url, safe='')}"
        return HttpRequest(
            method="POST",
            url=url,
            site="sync" if options.sync else "",
            headers={
                "x-fal-no-retry": "1",  # it would run up to ten times; whether to run again is ours to say
                "x-fal-request-timeout": str(math.ceil(min(max(call.seconds_to_start, 1), 86_400))),  # to start within
            },
            json=call.input,
            holds_until_end=options.sync,
        )

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        if self.options_for(call).sync:
            return self._read_held(call, response)
        body = self.accepted(response)
        id = read_id(body, "request_id")
        urls = {name: body[name] for name in _URLS if isinstance(body.get(name), str)}
        if id is None or not {"status_url", "response_url"} <= urls.keys():
            raise malformed_submit(response, "its answer has no usable id, or not the URLs to ask at")
        return Fact(phase=Phase.QUEUED, handle={"id": id, "name": call.name, **urls}, metrics=_position(body))

    def refusal(self, response: HttpResponse) -> ProviderFailure:
        kind = said(response)
        if kind is None or issubclass(kind, JobFailed) or response.status >= 500:
            kind = kind_of(response.status)
        if response.status in (402, 403) and _LOCKED.search(words_of(response)):
            kind = WalletEmpty
        return failure_of(kind, response)

    def _read_held(self, call: Call, response: HttpResponse) -> Fact:
        if not 200 <= response.status < 300:
            if response.status in (400, 422, 499) or (response.status >= 500 and is_its_own(response)):
                return failed(response)
            raise self.refusal(response)
        try:
            output = read_json(response.body)
        except Malformed as malformed:
            raise malformed_submit(response, str(malformed)) from None
        return _succeeded(output, metrics=_run_time(output) | _units(response, call.name))

    # -- poll and cancel ---------------------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        url = handle.get("status_url")
        return None if not url else HttpRequest(method="GET", url=f"{url}{'&' if '?' in url else '?'}logs=1")

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact | Ask:
        if handle.get("step") == "result":
            return _read_result(handle, response)
        body = self.polled(response)  # 202 while it waits or runs, 200 when it is over
        id, url = body.get("request_id", handle.get("id")), handle.get("response_url")
        if not isinstance(body.get("status"), str) or not isinstance(id, str) or not url:
            raise PollFailed("the provider answered the poll with something else", status=response.status)
        phase, logs, metrics = phase_of(body["status"], _PHASES), _logs(body), _position(body) | _run_time(body)
        if id != handle.get("id"):
            return Fact(phase=Phase.RUNNING, handle={"id": id})  # another's: the driver will have none of it
        if phase is not Phase.SUCCEEDED:
            return Fact(phase=phase, handle=handle, logs=logs, metrics=metrics)
        if body.get("error") or body.get("error_type"):  # COMPLETED is an end, and not yet a good one
            told = {"detail": body.get("error"), "error_type": body.get("error_type")}
            return failed(as_answer(500, told), handle=handle, logs=logs, metrics=metrics)
        kept = {"step": "result", "logs": logs or "", "predict_time": str(metrics.get("predict_time", ""))}
        return Ask(request=HttpRequest(method="GET", url=url), handle={**handle, **kept})

    def cancel(self, handle: dict[str, str]) -> HttpRequest | None:
        url = handle.get("cancel_url")
        return HttpRequest(method="PUT", url=url) if url else None

    def read_cancel(self, handle: dict[str, str], response: HttpResponse) -> Cancellation:
        if response.status in (400, 404):  # ALREADY_COMPLETED, NOT_FOUND
            return Cancellation.TOO_LATE
        if not 200 <= response.status < 300:
            raise failure_of(PollFailed, response)
        return Cancellation.REQUESTED

    # -- files -------------------------------------------------------------------------------------------------------

    def upload(self, file: File) -> HttpRequest | None:
        return HttpRequest(
            method="POST",
            url="/storage/upload/initiate?storage_type=fal-cdn-v3",
            site="rest",
            json={"file_name": file.name, "content_type": file.content_type},
        )

    def read_upload(self, file: File, handle: dict[str, str], response: HttpResponse) -> str | Ask:
        if not 200 <= response.status < 300:
            raise upload_refusal(response)
        if handle.get("step") == "put":
            return handle["file_url"]
        body = self.polled(response)
        place, url = body.get("upload_url"), body.get("file_url")
        if not isinstance(place, str) or not isinstance(url, str):
            raise PollFailed("the provider did not say where to upload to", status=response.status)
        put = HttpRequest(method="PUT", url=place, headers={"content-type": file.content_type}, content=file.content)
        return Ask(request=put, handle={"step": "put", "file_url": url})

    # -- callbacks ---------------------------------------------------------------------------------------------------

    def callback_keys(self) -> HttpRequest | None:
        return HttpRequest(method="GET", url="/.well-known/jwks.json", site="rest")

    def read_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: tuple[str, ...], now: datetime
    ) -> Callback:
        """Without `secrets`, or without sense, it is a nudge. Raises CallbackForged."""
        shown = lower_names(headers)
        id, user, at = (shown.get(f"x-fal-webhook-{name}", "") for name in ("request-id", "user-id", "timestamp"))
        if not secrets:
            return Callback(fact=None, dedupe=id or None)
        check_time(float(at) if _SECONDS.fullmatch(at) else None, now=now)
        signed = "\n".join((id, user, at, hashlib.sha256(body).hexdigest())).encode("utf-8", "backslashreplace")
        verify_ed25519(shown.get("x-fal-webhook-signature", ""), signed, key_sets=secrets)
        try:
            return Callback(fact=self._read_news(read_object(body)), dedupe=id or None)
        except Malformed:
            return Callback(fact=None, dedupe=id or None)

    def _read_news(self, body: dict[str, Any]) -> Fact | None:
        id, payload = read_id(body, "request_id"), body.get("payload")
        if id is None:
            return None
        if body.get("status") == "ERROR":
            found = _STATUS.search(str(body.get("error")))
            told = payload if isinstance(payload, dict) else {"detail": body.get("error")}
            return failed(as_answer(int(found[1]) if found else 500, told), handle={"id": id})
        if body.get("status") != "OK" or payload is None or self.check(self._options).settle_by_result:
            return None  # an output that is no JSON comes as `payload_error`: the poll will tell
        return _succeeded(payload, handle={"id": id}, metrics=_run_time(payload))


# -- what came back --------------------------------------------------------------------------------------------------


def _read_result(handle: dict[str, str], response: HttpResponse) -> Fact:
    """The answer at `response_url`. Not compared with its `x-fal-request-id`, which a retry of its own may change."""
    known = {key: value for key, value in handle.items() if key not in ("step", "logs", "predict_time")}
    fields: dict[str, Any] = {"handle": known, "logs": handle.get("logs") or None}
    ran = read_amount(handle.get("predict_time"))
    metrics = {"predict_time": ran} if ran is not None else {}
    if 200 <= response.status < 300:
        try:
            output = read_json(response.body)
        except Malformed as malformed:
            raise PollFailed(f"the result came, but {malformed}", status=response.status) from None
        return _succeeded(output, metrics=metrics | _units(response, handle.get("name", "")), **fields)
    if response.status == 400 and "still in progress" in words_of(response):
        return Fact(phase=Phase.RUNNING, **fields)
    if response.status in (404, 410) and not is_its_own(response):
        return ended(ResultLost, words_of(response), metrics=metrics, **fields)
    is_of_the_asking = response.status in (401, 402, 403, 408, 425, 429) or response.status >= 500
    if is_of_the_asking and not is_its_own(response):
        raise failure_of(PollFailed, response)
    return failed(response, metrics=metrics, **fields)


def _succeeded(output: Any, **fields: Any) -> Fact:
    if output is None or output == {}:
        return ended(ModelFailed, "the model left no output", **fields)
    return Fact(phase=Phase.SUCCEEDED, output=output, **fields)


def _logs(body: dict[str, Any]) -> str | None:
    lines = body.get("logs")
    said = [line.get("message") for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []
    return "".join(f"{text}\n" for text in said if isinstance(text, str)) or None


def _position(body: dict[str, Any]) -> dict[str, Any]:
    place = body.get("queue_position")
    return {"queue_position": place} if type(place) is int and place >= 0 else {}


def _run_time(body: Any) -> dict[str, Any]:
    """Seconds that it ran: `metrics.inference_time` of a status, `timings.inference` of some results."""
    for holder, key in (("metrics", "inference_time"), ("timings", "inference")):
        told = body.get(holder) if isinstance(body, dict) else None
        seconds = read_amount(told.get(key)) if isinstance(told, dict) else None
        if seconds is not None:
            return {"predict_time": seconds}
    return {}


def _units(response: HttpResponse, name: str) -> dict[str, Any]:
    """What was billed. 0 says that the model reported nothing; another endpoint's units are not of our price."""
    units = read_amount(response.headers.get("x-fal-billable-units"))
    billed_as = response.headers.get("x-fal-bill-as", name)
    return {"billable_units": units} if units and billed_as == name else {}
