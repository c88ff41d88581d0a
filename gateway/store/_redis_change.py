"""A change of a prediction as lua/create.lua and lua/apply.lua take it. Pure; what is written is in lua/change.lua."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.contract.errors import PredictionUnreadable, StoreOverloaded
from gateway.contract.host import host_of
from gateway.contract.prediction import Prediction
from gateway.store import _redis_event, _redis_row
from gateway.store._change import SPACED, SPACING_MICROS, Sorted
from gateway.store._encoding import encode_request, to_micros
from gateway.store._redis_key import digits, host_name
from gateway.store._redis_row import Row
from gateway.store._redis_wire import Argument
from gateway.store.protocol import Reduction, Whole

# Of what one change writes. A server takes four times as much; we do not want to hold the others up for so long.
MOST_BYTES = 128 * 1024 * 1024


class Draft(NamedTuple):
    """A prediction with its counters moved on, and what goes with it."""

    prediction: Prediction
    sorted: Sorted
    body: bytes  # of its deliveries


class Change(NamedTuple):
    """What becomes of a row."""

    draft: Draft
    reduction: Reduction
    state: bytes
    left: bytes  # of the request, once the data is removed; empty while it is not


class Key(NamedTuple):
    """The idempotency key a prediction is created under."""

    name: str = ""  # empty: none
    body_hash: str = ""
    micros: int = 0  # for how long


def of_apply(row: Row, change: Change, now: int) -> list[Argument]:
    prediction, sorted_, body = change.draft
    before, reduction = row.prediction, change.reduction
    is_open, due = reduction.is_open, due_of(reduction)
    is_found_elsewhere = prediction.status is not before.status or len(prediction.attempts) != len(before.attempts)
    found: list[Argument] = [
        change.state,
        prediction.revision,
        "1" if is_open else "0",
        due,
        _redis_row.searched(prediction, digits(to_micros(prediction.created_at))) if is_found_elsewhere else "",
        _aged(prediction, is_open=is_open, now=now, version=_redis_row.version_of(row.foreign)),
        change.left,
        *_attempts(prediction, len(before.attempts)),
        *_redis_event.of_change(sorted_, before.events, now),
        *_deliveries(prediction, sorted_, body),
    ]
    check_size(found)
    return found


def of_create(draft: Draft, first_event: int, *, worker: str, key: Key, now: int) -> list[Argument]:
    prediction, sorted_, body = draft
    found = [
        *_head(prediction, worker=worker, is_open=not prediction.is_terminal, now=now),
        0,  # due at once
        "",  # nothing of it is erased
        *key,
        *_attempts(prediction, 0),
        *_redis_event.of_change(sorted_, first_event, now),
        prediction.deliveries,
        *_deliveries(prediction, sorted_, body),
    ]
    check_size(found)
    return found


def of_whole(whole: Whole, key: Key) -> list[Argument]:
    """Without its deliveries, which come one by one."""
    prediction = whole.prediction
    found = [
        *_head(prediction, worker="", is_open=whole.is_open, now=to_micros(prediction.created_at)),
        to_micros(whole.due_at) if whole.due_at is not None else 0,
        "1" if prediction.data_removed else "",
        *key,
        *_attempts(prediction, 0),
        *_redis_event.of_whole(whole.events, whole.ledger),
        prediction.deliveries,
        0,
    ]
    check_size(found)
    return found


def due_of(reduction: Reduction) -> int:
    """In microseconds; 0 is at once."""
    return 0 if reduction.due_at is None else to_micros(reduction.due_at)


def left_of(row: Row, prediction: Prediction) -> bytes:
    """Of the request. Raises PredictionUnreadable where it is not for us to say what the data is."""
    if not prediction.data_removed or row.prediction.data_removed:
        return b""
    if row.foreign is not None:
        raise PredictionUnreadable(
            f"a newer Turnout wrote prediction {prediction.id}: what it keeps of the data is for that one to erase"
        )
    return encode_request(prediction.request)


def _head(prediction: Prediction, *, worker: str, is_open: bool, now: int) -> list[Argument]:
    created = digits(to_micros(prediction.created_at))
    return [
        worker,
        prediction.owner,
        prediction.stream_token,
        created + prediction.id,
        encode_request(prediction.request),
        _redis_row.encode(prediction),
        "1" if is_open else "0",
        prediction.revision,
        _redis_row.searched(prediction, created),
        prediction.request.model,
        _aged(prediction, is_open=is_open, now=now, version=_redis_row.version_of(None)),
    ]


def _aged(prediction: Prediction, *, is_open: bool, now: int, version: int) -> str:
    """Its place among those that age: none while it is open, or once there is nothing left to remove."""
    if is_open or prediction.data_removed:
        return ""
    ended = to_micros(prediction.completed_at) if prediction.completed_at is not None else now
    return f"{digits(ended)}{prediction.id}:{version}"


def _attempts(prediction: Prediction, known: int) -> list[Argument]:
    new = prediction.attempts[known:]
    found: list[Argument] = [len(new)]
    for attempt in new:
        found += (attempt.number, attempt.token_hash)
    return found


def _deliveries(prediction: Prediction, sorted_: Sorted, body: bytes) -> list[Argument]:
    if not sorted_.told:
        return [0]
    url = prediction.request.webhook or ""
    found: list[Argument] = [len(sorted_.told), prediction.owner, url, host_name(host_of(url)), body, SPACING_MICROS]
    for event in sorted_.told:
        found += (event, "1" if event in SPACED else "0")
    return found


def check_size(args: Sequence[Argument]) -> None:
    size = size_of(args)
    if size > MOST_BYTES:
        raise StoreOverloaded(f"{size:,} bytes of one prediction are more than redis is given at once ({MOST_BYTES:,})")


def size_of(args: Sequence[Argument]) -> int:
    return sum([len(arg) for arg in args if not isinstance(arg, int)])
