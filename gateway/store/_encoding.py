"""How the store's values look at rest: times as integers, structs as MessagePack. Not where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import msgspec
from msgspec.structs import replace

from gateway.contract.attempt import Attempt
from gateway.contract.errors import PredictionUnreadable
from gateway.contract.money import Units
from gateway.contract.prediction import Prediction, Request
from gateway.store.protocol import MOST_TRIES_KEPT, FileRow, Try

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NO_REQUEST = Request(model="", version="", is_pinned=False, input={}, webhook_events=())


def to_micros(at: datetime) -> int:
    """Whole microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """UTC, aware."""
    return _EPOCH + micros * _MICROSECOND


class Format(Generic[T]):
    """MessagePack; JSON for the rare value MessagePack cannot hold: JSON's integers have no end."""

    def __init__(self, type_: type[T]) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(type_).decode
        self._decode_json = msgspec.json.Decoder(type_).decode

    def encode(self, value: T) -> bytes:
        try:
            return self._encode(value)
        except OverflowError:
            return msgspec.json.encode(value)

    def decode(self, body: bytes) -> T:
        # A struct is a map: in MessagePack its first byte is never that of "{".
        return self._decode_json(body) if body[:1] == b"{" else self._decode(body)


_STATE = Format(Prediction)
_ANY: Format[Any] = Format(Any)
_REQUEST = Format(Request)
FILE = Format(FileRow)
encode_request = _REQUEST.encode

# Of what a state says, as its first byte. It grows when `Prediction` or what hangs on it is given a field or a word.
# A state without the byte is of version 1: the first byte of a map, in either form, is none of these.
CONTRACT_VERSION = 3
_VERSIONS = range(2, ord("{"))
_VERSION = bytes([CONTRACT_VERSION])


class Foreign(msgspec.Struct, kw_only=True, frozen=True):
    """A state that a newer version wrote: all it says, and as much of it as we understand."""

    version: int
    fields: dict[str, Any]
    prediction: Prediction


def encode_state(prediction: Prediction, foreign: Foreign | None = None) -> bytes:
    """
    All of a prediction but its request, which is written once and lies elsewhere.

    `foreign` is what stood there before: what we do not know of it is kept, and so is its number.
    """
    if foreign is None:
        return _VERSION + _STATE.encode(replace(prediction, request=_NO_REQUEST))
    fields = _merge(foreign.fields, foreign.prediction, prediction)
    attempts = {attempt.number: (attempt, raw) for attempt, raw in _attempts(foreign)}
    fields["attempts"] = [
        _merge(attempts[attempt.number][1], attempts[attempt.number][0], attempt)
        if attempt.number in attempts
        else attempt
        for attempt in prediction.attempts
    ]
    fields["request"] = _NO_REQUEST
    return bytes([foreign.version]) + _ANY.encode(fields)


def _attempts(foreign: Foreign) -> Iterator[tuple[Attempt, dict[str, Any]]]:
    return zip(foreign.prediction.attempts, foreign.fields.get("attempts", ()), strict=True)


def _merge(fields: dict[str, Any], before: msgspec.Struct, after: msgspec.Struct) -> dict[str, Any]:
    """What was said before, with our word for what has changed: a value we have not touched stays as it was written."""
    changed = {
        name: getattr(after, name)
        for name in after.__struct_fields__
        if name not in fields or getattr(after, name) != getattr(before, name)
    }
    return fields | changed


def foreign_of(state: bytes) -> Foreign | None:
    """None for a state of our own version, or an earlier one. Raises PredictionUnreadable."""
    if not is_foreign(state):
        return None
    return Foreign(version=_version(state), fields=_ANY.decode(state[1:]), prediction=decode_state(state))


def is_foreign(state: bytes) -> bool:
    return _version(state) > CONTRACT_VERSION


def _version(state: bytes) -> int:
    return state[0] if state and state[0] in _VERSIONS else 1


def decode_state(state: bytes) -> Prediction:
    """All but its request. Raises PredictionUnreadable."""
    version = _version(state)
    try:
        return _STATE.decode(state[1:] if version > 1 else state)
    except msgspec.DecodeError as error:
        raise _unreadable(version, error) from error


def decode_prediction(request: bytes, state: bytes) -> Prediction:
    """Raises PredictionUnreadable."""
    prediction = decode_state(state)
    try:
        return replace(prediction, request=_REQUEST.decode(request))
    except msgspec.DecodeError as error:
        raise _unreadable(_version(state), error) from error


def _unreadable(version: int, error: msgspec.DecodeError) -> PredictionUnreadable:
    if version > CONTRACT_VERSION:
        return PredictionUnreadable(
            f"a newer Turnout wrote this prediction (version {version}, this one reads {CONTRACT_VERSION}): {error}"
        )
    return PredictionUnreadable(f"what is kept of this prediction cannot be read: {error}")


class _Brief(msgspec.Struct, kw_only=True, frozen=True):
    """A request without what may be long."""

    model: str
    version: str
    is_pinned: bool
    webhook: str | None = None
    policy: str | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    facts: Units | None = None
    wants_deadline: bool = False
    file_output: bool = False
    source: str = "api"


_BRIEF = Format(_Brief)


def decode_brief(model: str, request: bytes | None, state: bytes) -> Prediction:
    """
    A prediction without its input; without `request`, because it is too long to be read for a list, with less still.

    Raises PredictionUnreadable.
    """
    if request is None:
        short = replace(_NO_REQUEST, model=model)
    else:
        try:
            brief = _BRIEF.decode(request)
        except msgspec.DecodeError as error:
            raise _unreadable(_version(state), error) from error
        short = Request(**msgspec.structs.asdict(brief), input={})
    return replace(decode_state(state), request=short)


_HISTORY = msgspec.msgpack.Decoder(tuple[Try, ...])


def encode_history(tries: tuple[Try, ...]) -> bytes:
    return msgspec.msgpack.encode(tries[-MOST_TRIES_KEPT:])


def decode_history(body: bytes | None) -> tuple[Try, ...]:
    return _HISTORY.decode(body) if body else ()


def providers_of(prediction: Prediction) -> str:
    """Every provider that was tried, a blank round each: ` fal replicate `. Names hold no blanks."""
    names = dict.fromkeys(attempt.provider for attempt in prediction.attempts)
    return f" {' '.join(names)} " if names else ""
