"""The errors of fal's two families, the models' and the platform's. Not what refused a request before it was theirs."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.contract.errors import (
    AtCapacity,
    InputModerated,
    InputRefused,
    InputUnfit,
    JobCanceled,
    JobFailed,
    JobTimedOut,
    ModelFailed,
    OutputModerated,
    ProviderFailure,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import HttpResponse
from providers._adapter import ended
from providers._reading import Malformed, read_json, words_of

# Words of both families of errors, the models' and the platform's: https://docs.fal.ai/model-apis/errors
_KINDS: dict[str, type[ProviderFailure]] = {
    "no_media_generated": ModelFailed,
    "internal_server_error": JobFailed,
    "generation_timeout": JobTimedOut,
    "downstream_service_error": JobFailed,  # said with a 400, and yet no fault of the input
    "downstream_service_unavailable": JobFailed,
    "request_timeout": JobTimedOut,
    "startup_timeout": JobTimedOut,
    "client_cancelled": JobCanceled,
    "client_disconnected": JobCanceled,
    "bad_request": InputRefused,
    "image_too_large": InputUnfit,  # for this model, and this one's downloads: others may take it
    "file_download_error": InputUnfit,
    "internal_error": JobFailed,
    "concurrent_requests_limit": AtCapacity,
}


def failed(response: HttpResponse, **fields: Any) -> Fact:
    """The end of a job whose result is an error; by its word, else by its status."""
    kind = said(response)
    if kind is None:
        may_fare_better = any(
            response.headers.get(name, "").strip().lower() in ("1", "true")
            for name in ("x-fal-retryable", "x-fal-needs-retry")
        )
        is_input = response.status in (400, 413, 422) and not may_fare_better
        kind = InputRefused if is_input else JobFailed
    if kind is JobCanceled:
        return Fact(phase=Phase.CANCELED, **fields)
    return ended(kind, words_of(response), **fields)


def said(response: HttpResponse) -> type[ProviderFailure] | None:
    """What the error's own word means, if it has one that we know."""
    word, place = _word(response)
    if word == "content_policy_violation":
        return InputModerated if place == "body" else OutputModerated
    return JobFailed if word.startswith("runner_") else _KINDS.get(word)


def is_its_own(response: HttpResponse) -> bool:
    """True if fal says it of the job, and not a proxy of the asking."""
    return bool(_word(response)[0])


def _word(response: HttpResponse) -> tuple[str, str]:
    """An error's `type`, and to which part of the request it points ("body" or nothing)."""
    try:
        body = read_json(response.body)
    except Malformed:
        body = None
    body = body if isinstance(body, dict) else {}
    detail = body.get("detail")
    first = detail[0] if isinstance(detail, list) and detail and isinstance(detail[0], dict) else {}
    where = first.get("loc")
    place = where[0] if isinstance(where, list) and where and isinstance(where[0], str) else ""
    words = (body.get("error_type"), first.get("type"), response.headers.get("x-fal-error-type"))
    return next((word for word in words if isinstance(word, str) and word), ""), place


def as_answer(status: int, told: dict[str, Any]) -> HttpResponse:
    return HttpResponse(status=status, headers={}, body=msgspec.json.encode(told))
