"""The smallest adapter there can be, for tests of the driver: a job is `{"id": …, "status": …}`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from gateway.contract.errors import ModelFailed, OutcomeUnknown, PollFailed, Refused
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import (
    Ask,
    Auth,
    Call,
    Callback,
    Cancellation,
    Capabilities,
    EventReader,
    HttpRequest,
    HttpResponse,
    ServerSentEvent,
)
from providers._adapter import HttpAdapter, Options
from providers._auth import bearer


def a_call(**changes: Any) -> Call:
    call = Call(
        prediction="p" * 26,
        attempt=1,
        name="acme/echo",
        version=None,
        input={"prompt": "hi"},
        idempotency_id="i" * 26,
        callback_url=None,
        deadline_seconds=10.0,
    )
    return msgspec.structs.replace(call, **changes)


class EchoAdapter(HttpAdapter[Options]):
    adapter = "echo"
    base_url = "https://api.example.com/v1"
    sites: Mapping[str, str] = {"sync": "https://sync.example.com/v2"}
    origins = (".example.org",)
    auth: tuple[Auth, ...] = (bearer("ECHO_TOKEN"),)
    options_type = Options

    def __init__(self, name: str = "echo", options: Mapping[str, Any] | None = None, **request: Any) -> None:
        super().__init__(name, options)
        self.request = {"method": "POST", "url": "/jobs", **request}
        self.answers: list[HttpResponse] = []

    def describe(self, options: Options) -> Capabilities:
        return Capabilities(modes=frozenset({"queue"}), result_hosts=("files.example.net", ".cdn.test"))

    def submit(self, call: Call) -> HttpRequest:
        request = dict(self.request)
        if not {"content", "form", "files"} & request.keys():
            request["json"] = call.input
        return HttpRequest(**request)

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        self.answers.append(response)
        if response.status >= 400:
            raise Refused(response.body.decode("utf-8", "replace"), status=response.status)
        return self._read(response, OutcomeUnknown)

    def read_events(self, call: Call) -> EventReader:
        return WordReader()

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        return HttpRequest(method="GET", url=handle["url"]) if handle else None

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact | Ask:
        return self._read(response, PollFailed)

    def cancel(self, handle: dict[str, str]) -> HttpRequest | None:
        return HttpRequest(method="POST", url=handle["url"]) if handle else None

    def read_cancel(self, handle: dict[str, str], response: HttpResponse) -> Cancellation | Ask:
        return Cancellation.STOPPED if response.status == 200 else Cancellation.REQUESTED

    def read_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: tuple[str, ...], now: datetime
    ) -> Callback:
        return Callback(fact=Fact(phase=Phase.SUCCEEDED, output=secrets), dedupe=body.decode())

    def _read(self, response: HttpResponse, otherwise: type[OutcomeUnknown | PollFailed]) -> Fact:
        try:
            job = msgspec.json.decode(response.body, type=dict[str, Any])
        except msgspec.DecodeError:
            raise otherwise("the body is not a job", status=response.status) from None
        return Fact(phase=Phase(job.get("status", "queued")), handle={"id": str(job.get("id"))}, output=job)


class WordReader:
    """Words come as data; `done` and `failed` end them, `boom` is a failure in the stream."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def read(self, event: ServerSentEvent) -> Fact | None:
        if event.event == "boom":
            raise Refused(event.data)
        if event.event == "done":
            return Fact(phase=Phase.SUCCEEDED, output=list(self.words))
        if event.event == "failed":
            return Fact(phase=Phase.FAILED, failure=ModelFailed(event.data).failure)
        self.words.append(event.data)
        return Fact(phase=Phase.RUNNING, output=list(self.words))

    def end(self) -> Fact:
        raise OutcomeUnknown("the stream ended before its end")
