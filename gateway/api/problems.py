"""Errors as callers see them: one table from exception to problem body. Decides nothing about what is an error."""

from __future__ import annotations

import logging
import secrets
from typing import Any

import msgspec

from gateway.api.exchange import Reply
from gateway.api.refusal import NOT_FOUND, Busy, MethodMissing, invalid
from gateway.contract.errors import (
    AddressForbidden,
    CallbackForged,
    InputInvalid,
    InvalidField,
    RequestRefused,
    StoreError,
    StoreOverloaded,
    Throttled,
    Unauthenticated,
)

PROBLEM_TYPE = b"application/problem+json"

_log = logging.getLogger("gateway.api")


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457 by the members Replicate uses. Always an object: a list crashes Python's 1.x client."""

    title: str
    detail: str
    status: int
    invalid_fields: tuple[InvalidField, ...] = ()
    retry_after: int | None = None
    instance: str | None = None


def problem(
    status: int, title: str, detail: str, *, headers: tuple[tuple[bytes, bytes], ...] = (), **members: Any
) -> Reply:
    body = msgspec.json.encode(Problem(title=title, detail=detail, status=status, **members)) + b"\n"
    return Reply(status, body, content_type=PROBLEM_TYPE, headers=headers)


def problem_of(error: Exception) -> Reply:
    """The answer to `error`. What nobody expected is logged under an id, and only the id is told."""
    if isinstance(error, RequestRefused):
        return _refusal(error)
    if isinstance(error, StoreOverloaded):
        return _unavailable("The store does not take requests at the moment; nothing was changed. Try again.")
    if isinstance(error, StoreError):
        # It may have done it, and its answer been lost.
        again = "Try again: with the same Idempotency-Key nothing is created twice."
        return _unavailable(f"The store does not take requests at the moment. {again}")
    if isinstance(error, AddressForbidden):
        return problem_of(invalid("format", "webhook", str(error)))
    if isinstance(error, CallbackForged):
        return problem(401, "Unauthenticated", "The signature does not fit the body.")
    if isinstance(error, RecursionError):
        return problem(400, "Malformed body", "The body is nested too deeply.")
    if isinstance(error, UnicodeError):
        return problem(400, "Malformed body", "The request is not valid UTF-8.")
    return unexpected(error)


def unexpected(error: BaseException) -> Reply:
    id = secrets.token_hex(8)
    _log.error("unexpected error %s", id, exc_info=error)
    # Whether the work was begun is not known: a client must not repeat it by itself.
    return problem(
        500,
        "Internal error",
        f"Something went wrong on our side. Quote {id} to the operator.",
        headers=((b"x-should-retry", b"false"),),
        instance=f"urn:turnout:error:{id}",
    )


def _refusal(error: RequestRefused) -> Reply:
    headers: tuple[tuple[bytes, bytes], ...] = ()
    members: dict[str, Any] = {}
    if isinstance(error, InputInvalid):
        members["invalid_fields"] = error.fields
    elif isinstance(error, Throttled):
        members["retry_after"] = error.retry_after_seconds
        headers = ((b"retry-after", str(error.retry_after_seconds).encode()),)
    elif isinstance(error, MethodMissing):
        headers = ((b"allow", error.allow.encode()),)
    elif isinstance(error, Unauthenticated):
        headers = ((b"www-authenticate", getattr(error, "challenge", b"Bearer")),)
    elif isinstance(error, Busy):
        return _unavailable(str(error))
    elif error.status in (408, 413):
        headers = ((b"connection", b"close"),)  # the rest of the body is not wanted
    return problem(error.status, error.title, str(error) or NOT_FOUND, headers=headers, **members)


def _unavailable(detail: str) -> Reply:
    return problem(503, "Service unavailable", detail, headers=((b"retry-after", b"1"),))
