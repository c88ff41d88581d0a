"""How the store's values look at rest: times as integers, structs as MessagePack. Not where they lie."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import msgspec
from msgspec.structs import replace

from gateway.contract.prediction import Prediction, Request
from gateway.store.protocol import FileRow

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
_REQUEST = Format(Request)
FILE = Format(FileRow)
encode_request = _REQUEST.encode


def encode_state(prediction: Prediction) -> bytes:
    """All of a prediction but its request, which is written once and lies elsewhere."""
    return _STATE.encode(replace(prediction, request=_NO_REQUEST))


def decode_prediction(request: bytes, state: bytes) -> Prediction:
    return replace(_STATE.decode(state), request=_REQUEST.decode(request))


class _Brief(msgspec.Struct, kw_only=True, frozen=True):
    """A request without what may be long."""

    model: str
    version: str
    is_pinned: bool
    webhook: str | None = None
    policy: str | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    wants_deadline: bool = False
    file_output: bool = False
    source: str = "api"


_BRIEF = Format(_Brief)


def decode_brief(model: str, request: bytes | None, state: bytes) -> Prediction:
    """The same without the input; without `request`, because it is too long to be read for a list, with less still."""
    if request is None:
        short = replace(_NO_REQUEST, model=model)
    else:
        short = Request(**msgspec.structs.asdict(_BRIEF.decode(request)), input={})
    return replace(_STATE.decode(state), request=short)


def providers_of(prediction: Prediction) -> str:
    """Every provider that was tried, a blank round each: ` fal replicate `. Names hold no blanks."""
    names = dict.fromkeys(attempt.provider for attempt in prediction.attempts)
    return f" {' '.join(names)} " if names else ""
