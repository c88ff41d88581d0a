"""What adapters share: reading bodies with suspicion, and what an HTTP status means. Pure; no vendor's words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from gateway.contract.errors import (
    AtCapacity,
    ConfigurationError,
    CredentialRefused,
    InputRefused,
    JobLost,
    ModelMissing,
    OutcomeUnknown,
    PollFailed,
    ProviderFailure,
    RateLimited,
    Refused,
    WalletEmpty,
)
from gateway.contract.fact import Fact
from gateway.contract.provider import Capabilities, HttpResponse, ServerSentEvent
from gateway.contract.wording import nearest
from providers._retry_after import read_retry_after

MAX_DEPTH = 64  # what nests deeper is refused here, before the store has to write it again inside its own layers
QUOTED_CHARACTERS = 500

# Providers quote our own request in their errors: keys and callback tokens must not reach logs and callers that way.
_SECRETS = re.compile(
    r"(?i)\bbearer\s+[^\s\"']+"
    r"|\b(?:sk|r8|hf|whsec)[-_][A-Za-z0-9_*+/=-]{12,}"
    r"|(?<=/cb/)[A-Za-z0-9_-]{8,}"
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]+")


class Malformed(ValueError):
    """A body that is not the JSON it should be."""


# -- reading ---------------------------------------------------------------------------------------------------------


def read_json(body: bytes | str) -> Any:
    """Raises Malformed for anything that is not JSON, or nests deeper than MAX_DEPTH."""
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise Malformed("the body nests too deep") from None
    except (msgspec.DecodeError, ValueError):  # ValueError: an integer of thousands of digits
        raise Malformed("the body is not JSON") from None
    if _nests_deeper(value, body):
        raise Malformed("the body nests too deep")
    return value


def read_object(body: bytes | str) -> dict[str, Any]:
    """Raises Malformed for anything that is not a JSON object."""
    value = read_json(body)
    if not isinstance(value, dict):
        raise Malformed("the body is not a JSON object")
    return value


def _nests_deeper(value: Any, body: bytes | str) -> bool:
    # Counting brackets runs at memory speed and clears nearly every body, long vectors and base64 included.
    opened = body.count("[") + body.count("{") if isinstance(body, str) else body.count(b"[") + body.count(b"{")
    if opened <= MAX_DEPTH:
        return False
    layer = [value]
    for _ in range(MAX_DEPTH):
        layer = [child for item in layer for child in _children(item) if isinstance(child, (dict, list))]
        if not layer:
            return False
    return True


def _children(item: Any) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item


def quote(text: str, limit: int = QUOTED_CHARACTERS) -> str:
    """A provider's own words, made fit to be stored and shown: no secrets, no control characters, not endless."""
    text = _SECRETS.sub("***", text[: 4 * limit])
    text = _UNPRINTABLE.sub(" ", text).encode("utf-8", "replace").decode().strip()
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def words_of(response: HttpResponse) -> str:
    """What a refusal says, for people: the usual fields, FastAPI's list of errors, or plain text. Empty if nothing."""
    try:
        value = read_json(response.body)
    except Malformed:
        text = response.body[: 4 * QUOTED_CHARACTERS].decode("utf-8", "replace").strip()
        return "" if text.startswith("<") else quote(text)  # a proxy's page says nothing
    return quote(_words(value))


def _words(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, (_line(item) for item in value[:20])))
    if isinstance(value, dict):
        for key in ("detail", "error", "message", "title"):
            if value.get(key):
                return _words(value[key])
    return ""


def _line(item: Any) -> str:
    """One of FastAPI's validation errors: `{"loc": ["body", "input", "steps"], "msg": …}`."""
    if not isinstance(item, dict) or not isinstance(item.get("msg"), str):
        return _words(item)
    where = item.get("loc")
    where = where if isinstance(where, list) else []
    parts = [str(part) for part in where if isinstance(part, (str, int)) and part != "body"]
    return f"{'.'.join(parts)}: {item['msg']}" if parts else item["msg"]


# -- what a status means ---------------------------------------------------------------------------------------------

# A final 4xx ran nothing. 408, 409, 425 and every 5xx may have been said after the job had begun.
_REFUSALS: dict[int, type[ProviderFailure]] = {
    301: Refused,
    307: Refused,
    308: Refused,
    400: InputRefused,
    401: CredentialRefused,
    402: WalletEmpty,
    403: CredentialRefused,
    404: ModelMissing,
    408: OutcomeUnknown,
    409: OutcomeUnknown,
    410: ModelMissing,
    422: InputRefused,
    425: OutcomeUnknown,
    429: RateLimited,
    501: Refused,
}


def refusal(response: HttpResponse, *, message: str = "", runs_nothing_on_503: bool = False) -> ProviderFailure:
    """
    The failure an answer to a submit means when its adapter knows no better.

    `runs_nothing_on_503`: the provider documents that its 503 says "no room", and never "it broke while running".
    """
    nothing_ran = response.status == 503 and runs_nothing_on_503
    return failure_of(AtCapacity if nothing_ran else kind_of(response.status), response, message=message)


def kind_of(status: int) -> type[ProviderFailure]:
    """What a status other than 2xx means by itself."""
    return _REFUSALS.get(status) or (Refused if 400 <= status < 500 else OutcomeUnknown)


def failure_of(kind: type[ProviderFailure], response: HttpResponse, *, message: str = "") -> ProviderFailure:
    """`kind`, with what the answer says: its words, its status, and when to come back."""
    return kind(
        message or words_of(response) or f"{_sentence(kind)} (HTTP {response.status})",
        retry_after_seconds=read_retry_after(response),
        status=response.status,
    )


def poll_refusal(response: HttpResponse) -> ProviderFailure:
    """The failure a poll's answer other than 2xx means: the job is unknown there, or the poll did not get through."""
    if response.status in (404, 410):
        return failure_of(JobLost, response)
    return failure_of(PollFailed, response)


def malformed_submit(response: HttpResponse, reason: str) -> OutcomeUnknown:
    """A 2xx without sense: the provider said yes to something, and we do not know to what."""
    return OutcomeUnknown(f"the provider accepted, but {reason}", status=response.status)


def _sentence(kind: type[ProviderFailure]) -> str:
    return (kind.__doc__ or kind.code).strip().splitlines()[0].rstrip(".")


# -- options ---------------------------------------------------------------------------------------------------------


class Options(msgspec.Struct, kw_only=True, frozen=True):
    """What ops may say of any HTTP provider; adapters add theirs. Set per provider, and again per offer."""

    result_hosts: tuple[str, ...] | None = None
    input_forms: frozenset[str] | None = None
    max_inline_bytes: int | None = None
    min_poll_seconds: float | None = None
    result_lifetime_seconds: float | None = None

    def adjust(self, capabilities: Capabilities) -> Capabilities:
        said = {name: value for name in _ADJUSTABLE if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(capabilities, **said)


_ADJUSTABLE = Options.__struct_fields__
AnyOptions = TypeVar("AnyOptions", bound=Options)


def check_options(options: Mapping[str, Any], kind: type[AnyOptions], *, adapter: str) -> AnyOptions:
    """For load time: raises ConfigurationError for an unknown key, naming the nearest right one, or a wrong value."""
    known = kind.__struct_fields__
    for key in options:
        if key not in known:
            near = nearest(key, known)
            remedy = f"did you mean {near!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise ConfigurationError(f"options of adapter {adapter}: unknown key {key!r}; {remedy}")
    try:
        return msgspec.convert(dict(options), kind)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"options of adapter {adapter}: {error}") from None


def read_options(defaults: Mapping[str, Any], options: Mapping[str, Any], kind: type[AnyOptions]) -> AnyOptions:
    """For one call: the provider's options, overlaid with the offer's. Raises Refused if they cannot be read."""
    try:
        return msgspec.convert({**defaults, **options}, kind)
    except msgspec.ValidationError as error:
        raise Refused(f"the offer's options are wrong: {error}") from None


# -- streams ---------------------------------------------------------------------------------------------------------


class UnexpectedStream:
    """The reader of an adapter that never asks for server-sent events: whatever they say, it cannot be told."""

    def read(self, event: ServerSentEvent) -> Fact | None:
        raise OutcomeUnknown("the provider answered with a stream of events that was not asked for")

    def end(self) -> Fact:
        raise OutcomeUnknown("the provider answered with a stream of events that was not asked for")
