"""The errors of Google's APIs (google.rpc.Status), read into failures. When to come back stands in `_retry_after`."""

from __future__ import annotations

import re
from typing import Any

from gateway.contract.errors import (
    AtCapacity,
    CredentialRefused,
    InputRefused,
    JobFailed,
    ModelMissing,
    ProviderFailure,
    RateLimited,
    Refused,
    WalletEmpty,
)
from providers._adapter import kind_of
from providers._gemini import objects
from providers._reading import quote

_PREPAID = re.compile(r"credits are depleted|prepay", re.IGNORECASE)
_STATUSES: dict[str, type[ProviderFailure]] = {
    "INVALID_ARGUMENT": InputRefused,
    "OUT_OF_RANGE": InputRefused,
    "FAILED_PRECONDITION": Refused,  # "User location is not supported", billing that is not switched on
    "UNAUTHENTICATED": CredentialRefused,
    "PERMISSION_DENIED": CredentialRefused,
    "NOT_FOUND": ModelMissing,
    "RESOURCE_EXHAUSTED": RateLimited,
    "UNIMPLEMENTED": Refused,
}


def classify(body: Any, status: int, *, held: bool) -> tuple[type[ProviderFailure], str]:
    """
    The failure that an error means, and its words. `held`: the call was synchronous, and over once it says "error".

    Errors come in an array where a stream was asked for.
    """
    body = body[0] if isinstance(body, list) and body else body
    error = body.get("error") if isinstance(body, dict) else None
    error = error if isinstance(error, dict) else {}
    message = quote(str(error.get("message") or ""))
    word, details = error.get("status"), objects(error.get("details"))
    reasons = {str(detail.get("reason")) for detail in details}
    kind = _STATUSES.get(word) if isinstance(word, str) else None
    if "API_KEY_INVALID" in reasons:  # said with INVALID_ARGUMENT
        kind = CredentialRefused
    elif "BILLING_DISABLED" in reasons or (kind is Refused and "billing" in message.lower()):
        kind = WalletEmpty
    elif kind is RateLimited and (_is_per_day(details) or _PREPAID.search(message)):
        kind = WalletEmpty  # waiting does not help today
    if kind is None and held and word == "UNAVAILABLE":
        kind = AtCapacity  # "The model is overloaded"
    if kind is None and held and error and status not in (408, 502):
        kind = JobFailed
    return kind or kind_of(status), message


def _is_per_day(details: list[dict[str, Any]]) -> bool:
    """By google.rpc.QuotaFailure: its words for people speak of plan and billing even where a minute's wait helps."""
    quotas = (violation.get("quotaId") for detail in details for violation in objects(detail.get("violations")))
    return any("PerDay" in str(quota) for quota in quotas)
