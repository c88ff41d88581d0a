"""
Acme Paint: every picture is a job, which is polled. Output: the URL of the picture.

Acme is invented, so no fact of it is thin. What a real adapter says here is what it speaks, what it leaves out, and
where the vendor's pages are silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers import (
    Call,
    Cancel,
    Cancellation,
    Capabilities,
    CostForm,
    Fact,
    HttpRequest,
    HttpResponse,
    JobQueue,
    ModelFailed,
    Options,
    OutputModerated,
    Phase,
    PollFailed,
    bearer,
    dollars,
    ended,
    failure_of,
    read_id,
)


class AcmeOptions(Options, kw_only=True, frozen=True):
    """`studio`: where it is painted."""

    studio: str = "main"


class Acme(JobQueue[AcmeOptions]):
    """The offer's name is the model. A job that is painted already cannot be withdrawn."""

    adapter = "acme"
    base_url = "https://api.acme-paint.example/v1"
    auth = (bearer("ACME_API_KEY"),)
    options_type = AcmeOptions
    word_keys = ("state",)
    words: Mapping[str, Phase] = {
        "waiting": Phase.QUEUED,
        "painting": Phase.RUNNING,
        "done": Phase.SUCCEEDED,
        "failed": Phase.FAILED,
        "withdrawn": Phase.CANCELED,
    }

    def describe(self, options: AcmeOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"queue"}),
            cancel=Cancel.QUEUED_ONLY,
            cost=CostForm.MONEY,
            result_lifetime_seconds=3600,
            result_hosts=("pictures.acme-paint.example",),
        )

    def submit(self, call: Call) -> HttpRequest:
        studio = self.options_for(call).studio
        return HttpRequest(method="POST", url="/jobs", json={"model": call.name, "studio": studio, **call.input})

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        id = read_id(handle)
        return None if id is None else HttpRequest(method="GET", url=f"/jobs/{id}")

    def cancel(self, handle: dict[str, str]) -> HttpRequest | None:
        id = read_id(handle)
        return None if id is None else HttpRequest(method="DELETE", url=f"/jobs/{id}")

    def read_cancel(self, handle: dict[str, str], response: HttpResponse) -> Cancellation:
        if response.status in (404, 409):
            return Cancellation.TOO_LATE
        if not 200 <= response.status < 300:
            raise failure_of(PollFailed, response)
        return Cancellation.STOPPED

    def end(self, phase: Phase, handle: dict[str, str], body: dict[str, Any]) -> Fact:
        cost = dollars(body.get("cents"), each_nanos=10_000_000)
        if phase is Phase.CANCELED:
            return Fact(phase=phase, handle=handle, cost=cost)
        picture = body.get("picture")
        if phase is Phase.SUCCEEDED and isinstance(picture, str):
            return Fact(phase=phase, handle=handle, output=picture, cost=cost, metrics={"image_count": 1})
        kind = OutputModerated if body.get("code") == "indecent" else ModelFailed
        return ended(kind, str(body.get("reason") or "there is no picture"), handle=handle, cost=cost)
