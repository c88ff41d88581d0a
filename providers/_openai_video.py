"""Jobs that make videos, as OpenAI's videos API shaped them and others took over. Not where a vendor keeps them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from gateway.contract.errors import (
    InputModerated,
    InputRefused,
    JobFailed,
    JobLost,
    OutputModerated,
    PollFailed,
    ProviderFailure,
    ResultLost,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Ask, Call, HttpRequest, HttpResponse
from providers._adapter import ended, malformed_submit, phase_of, poll_refusal, read_id
from providers._content import content_type_of, inline, is_json
from providers._openai_routes import write_form
from providers._prediction import read_time
from providers._reading import quote

FILES = ("input_reference",)
PHASES = {
    "queued": Phase.QUEUED,
    "pending": Phase.QUEUED,
    "preprocessing": Phase.QUEUED,
    "in_progress": Phase.RUNNING,
    "processing": Phase.RUNNING,
    "running": Phase.RUNNING,
    "completed": Phase.SUCCEEDED,
    "succeeded": Phase.SUCCEEDED,
    "done": Phase.SUCCEEDED,
    "failed": Phase.FAILED,
    "canceled": Phase.CANCELED,
    "cancelled": Phase.CANCELED,
}
_MODERATED: dict[str, type[ProviderFailure]] = {
    "moderation_blocked": InputModerated,
    "content_policy_violation": InputModerated,
    "content_policy": InputModerated,
    "input_moderation": InputModerated,
    "output_moderation": OutputModerated,
}


def read_started(response: HttpResponse, body: dict[str, Any], *, also: dict[str, str], id: str = "id") -> Fact:
    """
    The fact of a job that was asked for; `also` goes into its handle, `id` is the key of its id.

    Some leave the state out at first: then it waits. A good end that is told already is one poll away, which brings
    the film. Raises OutcomeUnknown if there is no id to ask about it by.
    """
    found = read_id(body, id)
    if found is None:
        raise malformed_submit(response, "its answer has no usable id")
    fact = read_job(body, handle={"id": found, **also})
    return replace(fact, phase=Phase.RUNNING) if fact.phase is Phase.SUCCEEDED else fact


def read_asked(response: HttpResponse, body: dict[str, Any], handle: dict[str, str], *, id: str = "id") -> Fact:
    """The fact of a job that was asked about. Its handle names the job that the answer names. Raises PollFailed."""
    found = read_id(body, id)
    if found is None:
        raise PollFailed("the provider answered the poll with something else", status=response.status)
    return read_job(body, handle={**handle, "id": found})


def read_job(body: dict[str, Any], *, handle: dict[str, str]) -> Fact:
    """State, failure, length and times; the film is for the adapter to find. An error beside a good end is believed."""
    phase = phase_of(body.get("status"), PHASES, otherwise=Phase.QUEUED if "status" not in body else Phase.RUNNING)
    fields: dict[str, Any] = {
        "handle": handle,
        "metrics": read_length(body.get("seconds", body.get("n_seconds"))),
        "started_at": _time(body.get("started_at", body.get("claimed_at"))),
        "completed_at": _time(body.get("completed_at", body.get("finished_at", body.get("done_at")))),
    }
    error = body.get("error")
    if phase is Phase.FAILED or (phase is Phase.SUCCEEDED and error):
        kind, message = _why(error, body.get("failure_reason"))
        return ended(kind, message, **fields)
    return Fact(phase=phase, **fields)


def read_length(value: Any) -> dict[str, Any]:
    """Seconds of film, as a number or as text, under the word they are measured by; empty for what is no length."""
    try:
        seconds = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        return {}
    return {"video_output_duration_seconds": seconds} if 0 < seconds < 86_400 else {}


# -- where the film is had by its job's id ---------------------------------------------------------------------------


def submit_video(call: Call, url: str) -> HttpRequest:
    """A form if there is a picture to begin with, else JSON. Raises InputRefused."""
    body: dict[str, Any] = {**call.input, "model": call.name}
    if not isinstance(body.get("prompt"), str):
        raise InputRefused("`prompt` is missing")
    if not any(body.get(name) for name in FILES):
        return HttpRequest(method="POST", url=url, json=body)
    return write_form(url, body, FILES)


def ask_film(fact: Fact, url: str) -> Ask:
    """The bytes of a finished video, asked for with our key; what the job told goes along."""
    seconds = fact.metrics.get("video_output_duration_seconds")
    told = {} if seconds is None else {"seconds": str(seconds)}
    return Ask(request=HttpRequest(method="GET", url=url), handle={**(fact.handle or {}), **told, "step": "content"})


def read_film(handle: dict[str, str], response: HttpResponse) -> Fact:
    """The film as a data URI. Raises PollFailed if it did not come through."""
    own = {key: value for key, value in handle.items() if key not in ("step", "seconds")}
    metrics = read_length(handle.get("seconds"))
    if not 200 <= response.status < 300:
        failure = poll_refusal(response)
        if isinstance(failure, JobLost):
            return ended(ResultLost, "the video is made, and gone already", handle=own, metrics=metrics)
        raise failure
    if is_json(response) or content_type_of(response).startswith("text/"):
        raise PollFailed("the provider answered with something else than the film", status=response.status)
    if not response.body:
        return ended(ResultLost, "the video is made, and its file holds no film", handle=own, metrics=metrics)
    return Fact(phase=Phase.SUCCEEDED, handle=own, output=inline(response, otherwise="video/mp4"), metrics=metrics)


# -- details ---------------------------------------------------------------------------------------------------------


def _why(error: Any, reason: Any) -> tuple[type[ProviderFailure], str]:
    word = error.get("code") if isinstance(error, dict) else reason
    said = error.get("message") if isinstance(error, dict) else error
    word = word if isinstance(word, str) else ""
    text = said if isinstance(said, str) and said else word
    return _MODERATED.get(word, JobFailed), quote(text) or "the job failed, and the provider did not say why"


def _time(value: Any) -> datetime | None:
    """Seconds since 1970, or ISO 8601."""
    if type(value) in (int, float):
        try:
            return datetime.fromtimestamp(value, UTC)
        except (ValueError, OverflowError, OSError):
            return None
    return read_time(value)
