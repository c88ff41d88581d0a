"""Answers of code that somebody else wrote: JSON, text or a file, as it happens to come. No vendor's envelope."""

from __future__ import annotations

from typing import Any

from gateway.contract.errors import ModelFailed, ProviderFailure
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import HttpResponse
from providers._adapter import ended, malformed_submit
from providers._content import content_type_of, inline
from providers._reading import Malformed, read_json


def read_answer(
    response: HttpResponse,
    *,
    handle: dict[str, str] | None = None,
    otherwise: type[ProviderFailure] | None = None,
) -> Fact:
    """
    The fact that a 2xx is: JSON as values, plain text as text, anything else as a data URI.

    Raises `otherwise` (OutcomeUnknown, if there is none) for a page, and for JSON that is none.
    """
    kind = content_type_of(response)
    reason = ""
    output: Any = None
    if not response.body:
        return ended(ModelFailed, "the model left no output", handle=handle)
    if kind == "text/html":
        reason = "its answer is a page"
    elif kind.endswith("json") or not kind:
        try:
            output = read_json(response.body)
        except Malformed as malformed:
            reason = str(malformed)
    elif kind.startswith("text/"):
        output = response.body.decode("utf-8", "replace")
    else:
        output = inline(response)
    if reason:
        raise otherwise(reason, status=response.status) if otherwise else malformed_submit(response, reason)
    if output is None:
        return ended(ModelFailed, "the model left no output", handle=handle)
    return Fact(phase=Phase.SUCCEEDED, output=output, handle=handle)
