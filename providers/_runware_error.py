"""Runware's errors: a code each, beside or instead of data, whatever the status. Not which task they are about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.contract.errors import (
    AtCapacity,
    CredentialRefused,
    InputModerated,
    InputRefused,
    JobLost,
    JobTimedOut,
    ModelFailed,
    ModelMissing,
    ProviderFailure,
    RateLimited,
    WalletEmpty,
)
from providers._reading import quote

# There are hundreds of codes, made of few words; the first line that fits counts. What the provider behind Runware
# refuses (`provider…`) is its failure, not ours.
_FAMILIES: tuple[tuple[re.Pattern[str], type[ProviderFailure]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"insufficientcredits|quotaexceeded|paymentrequired", WalletEmpty),
        (r"content|nsfw|unsafe|sensitive|promptblocked|imageblocked|moderation", InputModerated),
        (r"provider.*authentication", ModelFailed),
        (r"apikey|^auth|unauthori[sz]ed|forbidden|permission|suspended|organizationdisabled", CredentialRefused),
        (r"ratelimit|toomanyrequests", RateLimited),
        (r"timeout", JobTimedOut),
        (r"noavailableserver|modelunavailable|modelnotready|unavailable", AtCapacity),
        (r"^task(?:notfound|expired|failedornotfound)|^mediaexpired", JobLost),
        (r"^invalidmodel$|modelnotfound|unknownmodel|modelownership", ModelMissing),
        (r"(?<!validation)error$", ModelFailed),
        (r"^(?:invalid|missing|unsupported|unknown|incompatible|duplicate|value|array|max|mismatch)", InputRefused),
        (r"^validationfailed$", InputRefused),
    )
)


def kind_of_code(code: Any) -> type[ProviderFailure] | None:
    """The failure that a code means; None for one that nobody knows."""
    text = code if isinstance(code, str) else ""
    return next((kind for pattern, kind in _FAMILIES if pattern.search(text)), None)


def is_about_asking(error: Mapping[str, Any]) -> bool:
    """True for an error that is about the question how a task is, and not about that task."""
    kind = kind_of_code(error.get("code"))
    is_anonymous = error.get("taskUUID") is None
    return is_anonymous or error.get("taskType") == "getResponse" or kind in (CredentialRefused, RateLimited)


def words_of_error(error: Mapping[str, Any]) -> str:
    message = error.get("message")
    return quote(message if isinstance(message, str) and message else str(error.get("code") or ""))
