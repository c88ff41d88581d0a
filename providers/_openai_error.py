"""The errors of OpenAI's dialect, in all the shapes its many servers give them. Not what follows from them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.contract.errors import (
    AtCapacity,
    CredentialRefused,
    InputModerated,
    InputUnfit,
    JobFailed,
    ModelMissing,
    OutcomeUnknown,
    ProviderFailure,
    RateLimited,
    WalletEmpty,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import HttpResponse
from providers._adapter import failure_of, kind_of
from providers._reading import Malformed, quote, read_json, words_of

_MODERATED = {
    "content_policy_violation",
    "moderation_blocked",
    "content_filter",
    "responsibleaipolicyviolation",
}
_WALLET = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "insufficient_credits",
    "insufficient_balance",
}
_UNFIT = {"context_length_exceeded"}  # others may serve the same model with more room
_LIMITED = {"rate_limit_exceeded", "rate_limit_error", "requests", "tokens"}
_MISSING = {"model_not_found", "deploymentnotfound"}
_STRANGER = {"no_db_connection"}  # LiteLLM's 400 for a key that it would have to look up and cannot
# LiteLLM's 400 for a model it has not, of type "invalid_request_error": https://docs.litellm.ai/docs/proxy
_NO_SUCH_MODEL = re.compile(r"\bInvalid model name passed in model=")
_ON_THE_WAY = {408, 502, 504, *range(520, 525)}  # whoever says these stands between us and the server
_BUSY = {"unavailable_error", "overloaded_error", "server_overloaded", "engine_overloaded"}


# What one vendor means by a status and its words where it is not what the dialect means; None: the usual.
Judge = Callable[[int, str], type[ProviderFailure] | None]


class ApiError(msgspec.Struct, kw_only=True, frozen=True):
    """An error object, levelled. `codes`: its type and code words, lower case. `status`: an HTTP status in it."""

    message: str
    codes: frozenset[str] = frozenset()
    status: int | None = None


def find_error(value: Any) -> ApiError | None:
    """
    The error that a decoded body or stream chunk holds, or None.

    `{"error": {…}}` with `code` a word, a number, a number as text or null; `{"error": "text"}`; vLLM's older flat
    `{"object": "error", …}`; an API gateway's `{"statusCode": …, "message": …}`; DeepInfra's `{"detail": {"error":
    "text"}}`; a queue's flat `{"type": …, "code": …, "message": …}`; any of them alone in a list.
    """
    if isinstance(value, list) and value:
        return find_error(value[0])
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    if isinstance(error, str) and error:
        return ApiError(message=quote(error), codes=_codes(value), status=_status(value))
    if isinstance(error, dict) and error:
        return _level(error)
    if isinstance(value.get("detail"), dict):
        return find_error({**value, **value["detail"], "detail": None})
    is_flat = isinstance(value.get("message"), str) and isinstance(value.get("type"), str) and "choices" not in value
    if (
        value.get("object") == "error"
        or ("statusCode" in value and "message" in value)
        or (is_flat and "code" in value)
    ):
        return _level(value)
    return None


def _level(error: dict[str, Any]) -> ApiError:
    message = error.get("message")
    return ApiError(
        message=quote(message if isinstance(message, str) else ""), codes=_codes(error), status=_status(error)
    )


def _codes(error: dict[str, Any]) -> frozenset[str]:
    inner = error.get("innererror")  # Azure hides the reason of a filter there
    holders = (error, inner) if isinstance(inner, dict) else (error,)
    words = (holder.get(key) for holder in holders for key in ("code", "type"))
    return frozenset(word.lower() for word in words if isinstance(word, str))


def _status(error: dict[str, Any]) -> int | None:
    for key in ("code", "status", "statusCode"):
        value = error.get(key)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
            return value
    return None


def classify(error: ApiError, status: int) -> type[ProviderFailure]:
    """
    The failure an error object means, said with HTTP `status`.

    These calls are synchronous: once the server itself has said "error", nothing of ours runs on. So a 500 is a failed
    job, and not an unknown outcome as it is where a job outlives its submit.
    """
    by_words = _by_words(error)
    if by_words is not None:
        return by_words
    if 200 <= status < 300:  # in the midst of a stream, or inside a 200
        status = error.status or 500
    if status in (503, 529):
        return AtCapacity  # llama.cpp while it loads, OpenAI while it is overloaded
    kind = kind_of(status)
    return JobFailed if kind is OutcomeUnknown and status not in _ON_THE_WAY else kind


def _by_words(error: ApiError) -> type[ProviderFailure] | None:
    # A filter's no comes as 400, 403 or 200, an empty wallet as 400, 402, 403 or 429: the words decide.
    kinds: tuple[tuple[set[str], type[ProviderFailure]], ...] = (
        (_MODERATED, InputModerated),
        (_WALLET, WalletEmpty),
        (_MISSING, ModelMissing),
        (_UNFIT, InputUnfit),
        (_STRANGER, CredentialRefused),
        (_LIMITED, RateLimited),
        (_BUSY, AtCapacity),
    )
    by_code = next((kind for words, kind in kinds if error.codes & words), None)
    return by_code or (ModelMissing if _NO_SUCH_MODEL.search(error.message) else None)


def refused(response: HttpResponse, *, judge: Judge | None = None, outlives_its_call: bool = False) -> ProviderFailure:
    """
    The failure that an answer other than 2xx means.

    `outlives_its_call`: a job was asked for, and a 5xx does not prove that none was started.
    """
    try:
        body = read_json(response.body)
        error = find_error(body) or _find_detail(body)
    except Malformed:
        error = None
    message = (error.message if error is not None else "") or words_of(response)
    judged = judge(response.status, message) if judge is not None else None
    return failure_of(judged or _kind(error, response, outlives_its_call), response, message=message)


def _find_detail(body: Any) -> ApiError | None:
    """FastAPI's `{"detail": "text"}`, which is an error by its status alone: a model may answer so, too."""
    is_one = isinstance(body, dict) and body.keys() == {"detail"} and isinstance(body["detail"], str)
    return ApiError(message=quote(body["detail"])) if is_one else None


def _kind(error: ApiError | None, response: HttpResponse, outlives_its_call: bool) -> type[ProviderFailure]:
    kind = kind_of(response.status)
    if error is not None:
        by_words = _by_words(error)
        kind = by_words or (kind if outlives_its_call else classify(error, response.status))
    verdict = response.headers.get("x-should-retry", "").strip().lower()
    if response.status == 429 and verdict == "false" and not (error and error.codes & _LIMITED):
        return WalletEmpty  # what no waiting mends is not a rate
    if response.status == 503 and verdict == "true" and kind is OutcomeUnknown and not outlives_its_call:
        return AtCapacity
    return kind


def read_refusal(response: HttpResponse, *, judge: Judge | None = None) -> Fact:
    """A Fact if the job ran and failed; raises the ProviderFailure if it did not run, or may still."""
    return failed(refused(response, judge=judge))


def failed(failure: ProviderFailure, *, output: Any = None, metrics: dict[str, Any] | None = None) -> Fact:
    """The end of a job that ran; raises anything that is not one."""
    if not isinstance(failure, JobFailed):
        raise failure
    return Fact(phase=Phase.FAILED, failure=failure.failure, output=output, metrics=metrics or {})
