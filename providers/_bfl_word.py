"""The words in which Black Forest Labs, and those who took their API over, say that a task has ended badly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.contract.errors import InputModerated, JobLost, ModelFailed, OutputModerated, ProviderFailure

BAD_ENDS: dict[str, type[ProviderFailure]] = {
    "Error": ModelFailed,
    "Failed": ModelFailed,
    "Request Moderated": InputModerated,
    "Content Moderated": OutputModerated,
    "Task not found": JobLost,
}


def reason(word: str, body: Mapping[str, Any]) -> str:
    """The word itself, and what is said beside it: a list of the filters that spoke, or a message."""
    details = body.get("details")
    reasons = details.get("Moderation Reasons") if isinstance(details, dict) else None
    said = ", ".join(map(str, reasons)) if isinstance(reasons, list) else body.get("message") or details
    return f"{word}: {said}" if said and isinstance(said, str) else word
