"""
Replicate's HTTP API, which is also how we speak to another Turnout, to the simulator and to our own local backend.

Not its streams: text that grows comes by `output` callbacks and polls.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote as quote_path
from urllib.parse import unquote

from gateway.contract.errors import JobLost, ModelMissing, PollFailed, ProviderFailure
from gateway.contract.fact import Fact
from gateway.contract.provider import (
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
    Listing,
    Signature,
)
from providers._adapter import (
    HttpAdapter,
    Options,
    failure_of,
    malformed_submit,
    read_id,
    refusal,
    upload_refusal,
)
from providers._auth import bearer
from providers._job import read_stop
from providers._prediction import read_listed, read_prediction
from providers._reading import Malformed, read_object
from providers._signature import lower_names, verify

# Cancel-After and Prefer as documented: https://replicate.com/docs/reference/http
MIN_DEADLINE_SECONDS, MAX_DEADLINE_SECONDS = 5, 86_400
MAX_WAIT_SECONDS = 60

_MODEL = re.compile(r"(?P<owner>[^/:\s]+)/(?P<name>[^/:\s]+)(?::(?P<version>[^/:\s]+))?")


class ReplicateOptions(Options, kw_only=True, frozen=True):
    """
    `wait`: hold the create until it is done, as long as the deadline and the protocol allow.
    `deployment`: run the deployment `owner/name`; True: the offer's name is one.
    `idempotent`: the upstream is a Turnout or a local backend: it honours Idempotency-Key, and its 503 ran nothing.
    """

    wait: bool = False
    deployment: str | bool = False
    idempotent: bool = False


class Replicate(HttpAdapter[ReplicateOptions]):
    """Speaks to whoever speaks Replicate's contract. `options` hold for every offer that does not say otherwise."""

    adapter = "replicate"
    base_url = "https://api.replicate.com/v1"
    auth = (bearer("REPLICATE_API_TOKEN"),)
    options_type = ReplicateOptions

    def describe(self, options: ReplicateOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"sync", "queue"}),
            cancel=Cancel.ANY_TIME,
            callbacks=Callbacks.SIGNED,
            signature=Signature.STANDARD_WEBHOOKS,
            idempotent_submit=options.idempotent,
            lists=True,
            cost=CostForm.UNITS,
            result_forms=frozenset({"url", "data", "json"}),
            result_lifetime_seconds=3600,
            min_poll_seconds=0.5,
            # Larger data URIs are taken at first and lost later: "data URLs only for files under 256 kB".
            input_forms=frozenset({"url", "data", "upload"}),
            max_inline_bytes=256_000,
            max_upload_bytes=100_000_000,
            result_hosts=("replicate.delivery", ".replicate.delivery"),
            takes_traceparent=options.idempotent,  # another Turnout goes on with the trace
        )

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        """Raises ModelMissing if the offer's name is no `owner/name` and there is no version to go by."""
        options = self.options_for(call)
        url, body = _target(call, options)
        body["input"] = call.input
        if call.callback_url is not None:
            body["webhook"] = call.callback_url
            body["webhook_events_filter"] = (
                ["start", "output", "logs", "completed"] if call.stream else ["start", "completed"]
            )
        headers = {"cancel-after": str(_whole_seconds(call.seconds_to_end))}
        if options.wait:
            headers["prefer"] = f"wait={_wait_seconds(call.deadline_seconds)}"
        if options.idempotent:
            headers["idempotency-key"] = call.idempotency_id
        return HttpRequest(method="POST", url=url, headers=headers, json=body, holds_until_end=options.wait)

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        if not 200 <= response.status < 300:
            raise self._refused(call, response)
        try:
            body = read_object(response.body)
        except Malformed as malformed:
            raise malformed_submit(response, str(malformed)) from None
        if read_id(body) is None:
            raise malformed_submit(response, "its answer has no usable id")
        return read_prediction(body)

    def _refused(self, call: Call, response: HttpResponse) -> ProviderFailure:
        if response.status == 422 and _title(response) == "Invalid version or not permitted":
            return failure_of(ModelMissing, response)
        options = self.options_for(call)
        return refusal(response, runs_nothing_on_503=options.idempotent)

    # -- poll and cancel ---------------------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        # Always built from the id: `urls.get` names the provider's public address, which need not be the one we reach
        # it by, and a URL out of an answer must never decide where our token goes.
        path = _path_of(handle)
        return None if path is None else HttpRequest(method="GET", url=path)

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact:
        body = self.polled(response)
        if read_id(body) != handle.get("id") or not isinstance(body.get("status"), str):
            raise PollFailed("the provider answered the poll with something else", status=response.status)
        return read_prediction(body)

    def cancel(self, handle: dict[str, str]) -> HttpRequest | None:
        path = _path_of(handle)
        return None if path is None else HttpRequest(method="POST", url=f"{path}/cancel")

    def read_cancel(self, handle: dict[str, str], response: HttpResponse) -> Cancellation:
        return read_stop(response, lambda body: read_prediction(body).phase)

    # -- what it has -------------------------------------------------------------------------------------------------

    def listing(self, since: datetime) -> HttpRequest | None:
        """Of the whole account: there is no filter by model, and `source` knows only the web."""
        moment = quote_path(since.isoformat().replace("+00:00", "Z"))
        return HttpRequest(method="GET", url=f"/predictions?created_after={moment}")

    def read_listing(self, response: HttpResponse) -> Listing:
        try:
            page = self.polled(response)
        except JobLost as lost:  # a 404 is of the list's own address here, and tells of no job
            raise PollFailed(str(lost), status=response.status) from None
        items = page.get("results")
        if not isinstance(items, list):
            raise PollFailed("the provider answered, but not with a list", status=response.status)
        jobs = [item for item in items if isinstance(item, dict)]
        following = page.get("next")
        more = HttpRequest(method="GET", url=following) if isinstance(following, str) and jobs else None
        return Listing(jobs=tuple(job for item in jobs if (job := read_listed(item)) is not None), next=more)

    def marks(self, call: Call) -> dict[str, str]:
        url, body = _target(call, self.options_for(call))
        if "version" in body:
            return {"version": body["version"]}
        _, kind, owner, name, _ = url.split("/")
        return {} if kind == "deployments" else {"model": f"{unquote(owner)}/{unquote(name)}"}

    # -- files -------------------------------------------------------------------------------------------------------

    def upload(self, file: File) -> HttpRequest | None:
        part = ("content", file.name, file.content_type, file.content)
        return HttpRequest(method="POST", url="/files", files=(part,))

    def read_upload(self, file: File, handle: dict[str, str], response: HttpResponse) -> str:
        """The file's `urls.get`, which its models may read with no token of ours. It is kept for an hour at least."""
        if not 200 <= response.status < 300:
            raise upload_refusal(response)
        urls = self.polled(response).get("urls")
        url = urls.get("get") if isinstance(urls, dict) else None
        if not isinstance(url, str) or not url.startswith(("https://", "http://")):
            raise PollFailed("the provider did not say where the file is", status=response.status)
        return url

    # -- callbacks ---------------------------------------------------------------------------------------------------

    def read_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: tuple[str, ...], now: datetime
    ) -> Callback:
        """Without `secrets`, or without sense, it is a nudge. Raises CallbackForged."""
        if not secrets:
            return Callback(fact=None, dedupe=lower_names(headers).get("webhook-id"))
        id = verify(headers, body, secrets=secrets, now=now)
        try:
            prediction = read_object(body)
        except Malformed:
            return Callback(fact=None, dedupe=id)
        is_whole = read_id(prediction) is not None and isinstance(prediction.get("status"), str)
        return Callback(fact=read_prediction(prediction) if is_whole else None, dedupe=id)


def _target(call: Call, options: ReplicateOptions) -> tuple[str, dict[str, Any]]:
    """Path and first part of the body: one of the three ways to name what is to run."""
    name = call.name if options.deployment in (True, False) else str(options.deployment)
    parts = _MODEL.fullmatch(name)
    if options.deployment and parts is not None:
        return f"/deployments/{_segment(parts['owner'])}/{_segment(parts['name'])}/predictions", {}
    version = call.version or (parts["version"] if parts is not None else None)
    if version:
        # "owner/name:hex" is taken only by newer upstreams, the bare id by all of them.
        return "/predictions", {"version": version.rpartition(":")[2]}
    if parts is None:
        raise ModelMissing(f"{name!r} is no owner/name, and the offer names no version")
    return f"/models/{_segment(parts['owner'])}/{_segment(parts['name'])}/predictions", {}


def _segment(text: str) -> str:
    return quote_path(text, safe="")


def _path_of(handle: dict[str, str]) -> str | None:
    id = read_id(handle)
    return None if id is None else f"/predictions/{id}"


def _whole_seconds(seconds: float) -> int:
    """Cancel-After in whole seconds, never less than what is left, within the provider's bounds."""
    if not seconds < MAX_DEADLINE_SECONDS:
        return MAX_DEADLINE_SECONDS
    return math.ceil(max(MIN_DEADLINE_SECONDS, seconds))


def _wait_seconds(seconds: float) -> int:
    return MAX_WAIT_SECONDS if not seconds < MAX_WAIT_SECONDS else math.floor(max(1, seconds))


def _title(response: HttpResponse) -> str:
    try:
        title = read_object(response.body).get("title")
    except Malformed:
        return ""
    return title if isinstance(title, str) else ""
