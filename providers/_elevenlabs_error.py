"""ElevenLabs' refusals: a word in `detail` decides, for its statuses do not (an empty wallet is a 401)."""

from __future__ import annotations

from gateway.contract.errors import (
    AtCapacity,
    CredentialRefused,
    InputModerated,
    InputUnfit,
    JobFailed,
    ModelMissing,
    OutcomeUnknown,
    ProviderFailure,
    WalletEmpty,
)
from gateway.contract.provider import HttpResponse
from providers._adapter import failure_of, kind_of
from providers._reading import Malformed, quote, read_object, words_of

_KINDS: dict[str, type[ProviderFailure]] = {
    "quota_exceeded": WalletEmpty,
    "invalid_api_key": CredentialRefused,
    "only_for_creator+": CredentialRefused,
    "voice_not_found": ModelMissing,
    "max_character_limit_exceeded": InputUnfit,  # of this model: others take more
    "too_many_concurrent_requests": AtCapacity,
    "system_busy": AtCapacity,
    "content_against_policy": InputModerated,
}


def read_refusal(response: HttpResponse, *, is_job: bool = False) -> ProviderFailure:
    """
    The failure that an answer other than 2xx means: `{"detail": {"status": word, "message": …}}`, FastAPI's, or text.

    Everything but dubbing (`is_job`) is synchronous: once the server has said in its own words that it broke, nothing
    runs on.
    """
    word, message = _detail(response)
    kind = _KINDS.get(word) or kind_of(response.status)
    if kind is OutcomeUnknown and response.status == 500 and (word or message) and not is_job:
        kind = JobFailed
    return failure_of(kind, response, message=message)


def _detail(response: HttpResponse) -> tuple[str, str]:
    """The word and the message; newer answers call the word `code`."""
    try:
        detail = read_object(response.body).get("detail")
    except Malformed:
        return "", words_of(response)
    if not isinstance(detail, dict):
        return "", words_of(response)
    words = [word for word in (detail.get("status"), detail.get("code")) if isinstance(word, str)]
    word = next((word for word in words if word in _KINDS), words[0] if words else "")
    message = detail.get("message")
    return word, quote(message) if isinstance(message, str) and message else word
