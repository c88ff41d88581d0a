"""
A self-hosted Cog container, both servers: Rust's coglet (0.17 on) and the older FastAPI one (to 0.16).

A Cog server cannot be asked about a prediction: the held answer, its stream, or its callback is the only word.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from gateway.contract.errors import AtCapacity, InputRefused, OutcomeUnknown, PollFailed, ProviderFailure, Refused
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import (
    Call,
    Callback,
    Callbacks,
    Cancel,
    Cancellation,
    Capabilities,
    CostForm,
    EventReader,
    HttpRequest,
    HttpResponse,
    ServerSentEvent,
    Signature,
)
from providers._adapter import HttpAdapter, Options, failure_of, malformed_submit, read_id, refusal
from providers._auth import bearer
from providers._prediction import explain, read_prediction
from providers._reading import Malformed, read_object
from providers._signature import verify_bearer


class CogOptions(Options, kw_only=True, frozen=True):
    """
    `callbacks`: run in the background and let the server call back. It shows WEBHOOK_AUTH_TOKEN, which must be set on
    both sides: a callback that is not believed leaves nothing to go by.
    `stream`: the model is declared with `@cog.streaming`, so its output may be had as it arises.
    """

    callbacks: bool = False
    stream: bool = False


class Cog(HttpAdapter[CogOptions]):
    """Speaks to one Cog server. Predictions carry our id, so that a repeated submit joins the one that runs."""

    adapter = "cog"
    base_url = "http://127.0.0.1:5000"
    auth = (bearer(),)  # the server itself asks for nothing; a proxy before it may
    options_type = CogOptions

    def describe(self, options: CogOptions) -> Capabilities:
        modes = {"sync"} | ({"queue"} if options.callbacks else set()) | ({"stream"} if options.stream else set())
        return Capabilities(
            modes=frozenset(modes),
            cancel=Cancel.ANY_TIME,
            callbacks=Callbacks.SIGNED if options.callbacks else Callbacks.NONE,
            signature=Signature.SHARED_SECRET if options.callbacks else Signature.NONE,
            pollable=False,
            idempotent_submit=True,  # while it runs; its end is forgotten at once
            cost=CostForm.UNITS,
            result_forms=frozenset({"data", "url", "json"}),
            max_inline_bytes=64_000_000,  # of a request of at most 100 MiB
            takes_traceparent=True,
        )

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        options = self.options_for(call)
        # The id stands in the path alone: the old server does not need it in the body, and the new one compares.
        body: dict[str, Any] = {"input": call.input}
        headers: dict[str, str] = {}
        streams = call.stream and options.stream
        calls_back = options.callbacks and call.callback_url is not None and not streams
        if streams:
            headers["accept"] = "text/event-stream"
        elif calls_back:
            headers["prefer"] = "respond-async"
            body["webhook"] = call.callback_url
            body["webhook_events_filter"] = (
                ["start", "output", "logs", "completed"] if call.stream else ["start", "completed"]
            )
        return HttpRequest(
            method="PUT",
            url=f"/predictions/{call.idempotency_id}",
            headers=headers,
            json=body,
            expects_stream=streams,
            holds_until_end=not calls_back,
        )

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        if not 200 <= response.status < 300:
            raise self.refusal(response)
        try:
            body = read_object(response.body)
        except Malformed as malformed:
            raise malformed_submit(response, str(malformed)) from None
        if not isinstance(body.get("status"), str):
            raise malformed_submit(response, "its answer has no status")
        # A 202 to the repeated PUT of a prediction that still runs tells how far it is; nothing was started.
        return _own(call, read_prediction(body))

    def refusal(self, response: HttpResponse) -> ProviderFailure:
        try:
            body = read_object(response.body)
        except Malformed:
            return refusal(response)  # not the server's own words: some proxy's
        if response.status in (409, 503):
            # 409: every slot is taken, and never "the same id". 503: its setup has not finished, or has failed.
            return failure_of(AtCapacity, response)
        if response.status == 406:
            return failure_of(Refused, response)
        if response.status == 422 and isinstance(body.get("error"), str):
            return failure_of(InputRefused, response, message=str(explain(body["error"])))
        return refusal(response)

    def read_events(self, call: Call) -> EventReader:
        return CogStream(call)

    # -- cancel ------------------------------------------------------------------------------------------------------

    # Not polled: a repeated PUT would tell while it runs, and start it anew once it has ended.

    def cancel(self, handle: dict[str, str]) -> HttpRequest | None:
        id = read_id(handle)
        return None if id is None else HttpRequest(method="POST", url=f"/predictions/{id}/cancel")

    def read_cancel(self, handle: dict[str, str], response: HttpResponse) -> Cancellation:
        if response.status == 404:
            return Cancellation.TOO_LATE
        if not 200 <= response.status < 300:
            raise failure_of(PollFailed, response)
        return Cancellation.REQUESTED  # the model may catch the interruption, and takes its time in any case

    # -- callbacks ---------------------------------------------------------------------------------------------------

    def read_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: tuple[str, ...], now: datetime
    ) -> Callback:
        """Without `secrets`, or without sense, it is a nudge. Raises CallbackForged."""
        if not secrets:
            return Callback(fact=None)
        verify_bearer(headers, secrets=secrets)
        try:
            prediction = read_object(body)
        except Malformed:
            return Callback(fact=None)
        is_whole = read_id(prediction) is not None and isinstance(prediction.get("status"), str)
        return Callback(fact=read_prediction(prediction) if is_whole else None)


class CogStream:
    """Reads the events of one prediction: start, output, log, metric, completed, error."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._chunks: list[Any] = []
        self._logs: list[str] = []
        self._metrics: dict[str, Any] = {}
        self._end: Fact | None = None

    def read(self, event: ServerSentEvent) -> Fact | None:
        if self._end is not None:
            return None
        try:
            value = read_object(event.data)
        except Malformed as malformed:
            if event.event in ("start", "output", "log", "metric", "completed", "error"):
                raise OutcomeUnknown(f"the stream carried an event {event.event!r}, but {malformed}") from None
            return None
        match event.event:
            case "output":
                self._take_chunk(value)
            case "log":
                self._logs.append(value["data"] if isinstance(value.get("data"), str) else "")
            case "metric":
                self._take_metric(value)
            case "start":
                pass
            case "completed":
                return self._complete(value)
            case "error":
                # The server's replay buffer was overrun: what was skipped is gone, and so is the end.
                raise OutcomeUnknown("the stream broke off: the server had dropped a part of it")
            case _:
                return None
        return self._so_far()

    def end(self) -> Fact:
        if self._end is None:
            raise OutcomeUnknown("the stream ended before the prediction did")
        return self._end

    def _so_far(self) -> Fact:
        return Fact(
            phase=Phase.RUNNING,
            handle={"id": self._call.idempotency_id},
            output=list(self._chunks) or None,
            logs="".join(self._logs),
            metrics=dict(self._metrics),
        )

    def _take_chunk(self, value: dict[str, Any]) -> None:
        index = value.get("index")
        # A stream that is joined again starts from its beginning: what is known is passed over.
        if isinstance(index, int) and index < len(self._chunks):
            return
        self._chunks.append(value.get("chunk"))

    def _take_metric(self, value: dict[str, Any]) -> None:
        name, amount = value.get("name"), value.get("value")
        if not isinstance(name, str):
            return
        known, mode = self._metrics.get(name), value.get("mode")
        if mode == "append":
            self._metrics[name] = [*(known if isinstance(known, list) else []), amount]
        elif mode in ("incr", "increment") and isinstance(known, (int, float)) and isinstance(amount, (int, float)):
            self._metrics[name] = known + amount
        else:
            self._metrics[name] = amount

    def _complete(self, value: dict[str, Any]) -> Fact:
        fact = _own(self._call, read_prediction(value))
        if not fact.phase.is_end:
            raise OutcomeUnknown("the stream called something completed that is not at its end")
        self._end = fact
        return fact


def _own(call: Call, fact: Fact) -> Fact:
    """The fact under the id we chose, whatever the answer calls it (or does not)."""
    return msgspec.structs.replace(fact, handle={"id": call.idempotency_id})
