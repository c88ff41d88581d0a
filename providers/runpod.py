"""
RunPod's serverless endpoints, a team's own and the public ones: `/run`, or `/runsync`, which waits for a while.

Output is whatever the worker returns (`image_url`, `[*].image` …). Not its `/stream`, which is polled, nor what workers
serve in OpenAI's dialect: that is `openai_compatible` at `https://api.runpod.ai/v2/<endpoint>/openai/v1`.
Thin: how an account without credit is refused (402 is read as HTTP means it), and how a public model says "moderated".
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gateway.contract.errors import JobTimedOut, ModelFailed, ModelMissing
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import (
    Call,
    Callbacks,
    Cancel,
    Cancellation,
    Capabilities,
    CostForm,
    HttpRequest,
    HttpResponse,
)
from providers._adapter import Options, dollars, ended, phase_of, read_id
from providers._auth import bearer
from providers._job import JobQueue, read_stop
from providers._openai_chat import read_usage
from providers._prediction import explain
from providers._reading import Malformed, quote, read_object

# Bounds as documented: https://docs.runpod.io/serverless/endpoints/send-requests
MIN_EXECUTION_SECONDS, MIN_TTL_SECONDS, MAX_SECONDS = 5, 10, 604_800
MIN_WAIT_MS, MAX_WAIT_MS = 1_000, 300_000
# A job is deleted when its `ttl` is over, even while it runs: our last poll shall still find it.
SPARE_SECONDS = 60


class RunPodOptions(Options, kw_only=True, frozen=True):
    """
    `wait`: hold the submit until it is done, five minutes at most; the result is kept for a minute only.
    `cost`: "output": an output's `cost` is dollars, as public endpoints tell it; "none": it is a worker's own word.
    """

    wait: bool = False
    cost: Literal["output", "none"] = "output"


class RunPod(JobQueue[RunPodOptions]):
    """An offer's name is the endpoint's id. Its callbacks are unsigned, so that they only have us poll."""

    adapter = "runpod"
    base_url = "https://api.runpod.ai/v2"
    auth = (bearer("RUNPOD_API_KEY"),)
    options_type = RunPodOptions
    words: ClassVar[Mapping[str, Phase]] = {
        "IN_QUEUE": Phase.QUEUED,
        "IN_PROGRESS": Phase.RUNNING,
        "RUNNING": Phase.RUNNING,
        "COMPLETED": Phase.SUCCEEDED,
        "FAILED": Phase.FAILED,
        "CANCELLED": Phase.CANCELED,
        "TIMED_OUT": Phase.FAILED,
    }

    def describe(self, options: RunPodOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"sync", "queue"}),
            cancel=Cancel.ANY_TIME,
            callbacks=Callbacks.UNSIGNED,
            cost=CostForm.UNITS if options.cost == "none" else CostForm.MONEY,
            result_forms=frozenset({"url", "data", "json"}),
            result_lifetime_seconds=60 if options.wait else 1_800,  # of the job; files of public models stay 7 days
            min_poll_seconds=0.5,  # 2,000 in 10 s
            max_inline_bytes=18_000_000 if options.wait else 9_000_000,  # of a body of 20 or 10 MB
            result_hosts=(".runpod.ai",),
        )

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        """Raises ModelMissing if the offer's name can be no endpoint's id."""
        options, endpoint = self.options_for(call), read_id({"id": call.name})
        if endpoint is None:
            raise ModelMissing(f"{quote(call.name, 100)!r} is no id of an endpoint")
        body: dict[str, Any] = {
            "input": call.input,
            "policy": {
                "executionTimeout": 1_000 * _whole_seconds(call.seconds_to_run, MIN_EXECUTION_SECONDS),
                "ttl": 1_000 * _whole_seconds(call.seconds_to_end + SPARE_SECONDS, MIN_TTL_SECONDS),
            },
        }
        if call.callback_url is not None:
            body["webhook"] = call.callback_url
        wait = max(MIN_WAIT_MS, min(MAX_WAIT_MS, math.floor(min(call.deadline_seconds, MAX_SECONDS) * 1_000)))
        return HttpRequest(
            method="POST",
            url=f"/{endpoint}/" + (f"runsync?wait={wait}" if options.wait else "run"),
            json=body,
            holds_until_end=options.wait,
        )

    def keep(self, call: Call, body: Mapping[str, Any]) -> dict[str, str]:
        return {"endpoint": call.name, "cost": self.options_for(call).cost}

    def end(self, phase: Phase, handle: dict[str, str], body: dict[str, Any]) -> Fact:
        """Workers that catch their own errors return them: COMPLETED is good only without an `error` in it."""
        output = body.get("output")
        told = output if isinstance(output, dict) else {}
        known: dict[str, Any] = {"handle": handle, "metrics": _times(body) | read_usage({"usage": told})}
        if handle.get("cost") == "output":
            known["cost"] = dollars(told.get("cost"))
        if phase is Phase.CANCELED:
            return Fact(phase=phase, **known)
        error = body.get("error") or told.get("error")
        if self.word_of(body) == "TIMED_OUT":
            return ended(JobTimedOut, _words(error) or "it was not picked up, or did not end, in its time", **known)
        if phase is Phase.FAILED or error or told.get("status") in ("error", "failed", "FAILED"):
            failure = explain(_words(error) or _words(told.get("message")))
            return ended(type(failure), str(failure), **known)
        if output is None:
            return ended(ModelFailed, "the job completed and left no output", **known)
        return Fact(phase=phase, output=output, **known)

    # -- poll and cancel ---------------------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        return _request(handle, "GET", "status")

    # An output while it runs is a worker's report of its progress, and no output: it is not read before the end.

    def cancel(self, handle: dict[str, str]) -> HttpRequest | None:
        return _request(handle, "POST", "cancel")

    def read_cancel(self, handle: dict[str, str], response: HttpResponse) -> Cancellation:
        return read_stop(response, lambda body: phase_of(self.word_of(body), self.words))


def _request(handle: dict[str, str], method: str, verb: str) -> HttpRequest | None:
    endpoint, id = read_id(handle, "endpoint"), read_id(handle)
    return HttpRequest(method=method, url=f"/{endpoint}/{verb}/{id}") if endpoint and id else None


def _words(error: Any) -> str:
    """A worker's exception comes as text that holds JSON; its traceback and host are nobody's business."""
    if isinstance(error, str) and error.lstrip().startswith("{"):
        with contextlib.suppress(Malformed):
            error = read_object(error)
    if isinstance(error, dict):
        error = error.get("error_message") or error.get("message") or error.get("error")
    return error if isinstance(error, str) else ""


def _times(body: dict[str, Any]) -> dict[str, Any]:
    """Seconds it ran, and seconds in all; told in milliseconds."""
    ran, waited = body.get("executionTime"), body.get("delayTime")
    if type(ran) is not int or not 0 <= ran < 10**12:
        return {}
    total = {"total_time": (ran + waited) / 1_000} if type(waited) is int and 0 <= waited < 10**12 else {}
    return {"predict_time": ran / 1_000, **total}


def _whole_seconds(seconds: float, least: int) -> int:
    return math.ceil(max(least, min(seconds, MAX_SECONDS)))
