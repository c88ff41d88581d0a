"""What a newer version wrote: kept whole where we can go on with it, left alone where we cannot."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway.contract.errors import LeaseLost, PredictionUnreadable
from gateway.contract.fact import DataRemoved, Happening
from gateway.contract.prediction import Prediction
from gateway.store._encoding import (
    CONTRACT_VERSION,
    decode_prediction,
    decode_state,
    encode_request,
    encode_state,
    foreign_of,
)
from gateway.store.protocol import CreateResult, Reduction, Search
from tests.contract.store import toy
from tests.unit.store.conftest import OpenSqlite

NEWER = CONTRACT_VERSION + 1
Alter = Callable[[dict[str, Any]], object]


def newer(state: bytes, alter: Alter, version: int = NEWER) -> bytes:
    """What a version to come might have made of `state`."""
    fields = msgspec.msgpack.decode(state[1:])
    alter(fields)
    return bytes([version]) + msgspec.msgpack.encode(fields)


def as_it_lies(path: Path, id: str) -> tuple[int, dict[str, Any]]:
    db = sqlite3.connect(path)
    [(state,)] = db.execute("SELECT state FROM prediction WHERE id = ?", (id,)).fetchall()
    db.close()
    return state[0], msgspec.msgpack.decode(state[1:])


def rewrite(path: Path, id: str, alter: Alter, version: int = NEWER) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    [(state,)] = db.execute("SELECT state FROM prediction WHERE id = ?", (id,)).fetchall()
    db.execute("UPDATE prediction SET state = ? WHERE id = ?", (newer(state, alter, version), id))
    db.close()


def more_fields(fields: dict[str, Any]) -> None:
    fields["mood"] = {"deep": [1, b"\x00", None]}
    fields["attempts"][0]["weather"] = "rain"
    fields["attempts"][0]["cost"]["currency"] = "EUR"


def unknown_status(fields: dict[str, Any]) -> None:
    fields["status"] = "resting"


async def test_fields_of_a_newer_version_live_through_our_changes(open_sqlite: OpenSqlite, path: Path) -> None:
    store = await open_sqlite()
    prediction = toy.prediction()
    await store.create(prediction)
    await store.apply(prediction.id, toy.begun("one"))
    await store.aclose()
    rewrite(path, prediction.id, more_fields)
    for happening in (toy.said("half"), toy.begun("two", 2), toy.begun("three", 3), toy.succeeded("all")):
        store = await open_sqlite()  # as well from the file as from memory
        await store.apply(prediction.id, toy.said(str(happening)))
        applied = await store.apply(prediction.id, happening)
        assert applied.changed
        assert await store.get(prediction.id) == applied.prediction
        await store.aclose()
    version, fields = as_it_lies(path, prediction.id)
    assert version == NEWER
    assert fields["mood"] == {"deep": [1, b"\x00", None]}
    assert [attempt.get("weather") for attempt in fields["attempts"]] == ["rain", None, None]
    assert fields["attempts"][0]["cost"] == {"nanos": None, "basis": "unknown", "currency": "EUR"}
    assert (fields["status"], fields["output"], fields["revision"]) == ("succeeded", "all", 9)
    assert fields["request"]["model"] == ""


def test_what_we_change_is_ours_and_what_we_leave_is_as_it_was() -> None:
    attempt = toy.begun("t").attempt
    before = encode_state(toy.prediction(attempts=(attempt,), logs="a"))
    foreign = foreign_of(newer(before, more_fields))
    assert foreign is not None
    changed = replace(foreign.prediction, logs="b", attempts=(replace(attempt, logs="c", cancel_tries=2),))
    after = encode_state(changed, foreign)
    assert decode_state(after) == changed
    fields = msgspec.msgpack.decode(after[1:])
    assert (fields["logs"], fields["attempts"][0]["logs"], fields["attempts"][0]["cancel_tries"]) == ("b", "c", 2)
    assert (fields["attempts"][0]["weather"], fields["mood"]["deep"][0]) == ("rain", 1)


def test_a_newer_state_with_an_endless_number_in_it_is_kept_too() -> None:
    prediction = toy.prediction(output=2**80, started_at=toy.START, attempts=(toy.begun("t").attempt,))
    state = encode_state(prediction)
    fields = msgspec.json.decode(state[1:]) | {"mood": 1}
    foreign = foreign_of(bytes([NEWER]) + msgspec.json.encode(fields))
    assert foreign is not None
    for output in (2**81, 3):
        changed = replace(foreign.prediction, output=output)
        again = encode_state(changed, foreign)
        assert decode_state(again) == changed
        found = foreign_of(again)
        assert found is not None
        assert found.fields["mood"] == 1


def test_our_own_states_are_numbered_and_those_without_a_number_are_read() -> None:
    prediction = toy.prediction(attempts=(toy.begun("t").attempt,))
    request, state = encode_request(prediction.request), encode_state(prediction)
    assert state[0] == CONTRACT_VERSION
    assert foreign_of(state) is None
    for old in (state, state[1:], msgspec.json.encode(msgspec.msgpack.decode(state[1:]))):
        assert decode_prediction(request, old) == prediction
        assert foreign_of(old) is None


@pytest.mark.parametrize(
    "alter",
    [
        unknown_status,
        lambda fields: fields["attempts"][0].update(status="resting"),
        lambda fields: fields["attempts"][0].update(status=7),
        lambda fields: fields.pop("owner"),
    ],
)
async def test_what_we_cannot_read_is_left_alone_and_its_neighbours_are_not(
    open_sqlite: OpenSqlite, path: Path, alter: Alter
) -> None:
    store = await open_sqlite()
    created: list[CreateResult] = []
    for number in range(30):
        prediction = toy.prediction(created_at=toy.START + timedelta(seconds=number))
        created.append(await store.create(prediction, idempotency_key=f"k{number}", body_hash="h"))
        await store.apply(prediction.id, toy.begun(f"{number}"))
    await store.aclose()
    ids = [one.prediction.id for one in created]
    strange, ours = ids[:25], ids[25:]
    for id in strange:
        rewrite(path, id, alter)
    kept = [as_it_lies(path, id) for id in strange]

    store = await open_sqlite()
    await store.beat("w", lease_seconds=60)
    taken = [held.prediction.id for _ in range(4) for held in await store.claim_due("w", limit=2)]
    assert sorted(taken) == sorted(ours)
    with pytest.raises(PredictionUnreadable, match="a newer Turnout wrote this prediction"):
        await store.get(strange[0])
    with pytest.raises(PredictionUnreadable):
        await store.apply(strange[0], toy.succeeded())
    with pytest.raises(LeaseLost):
        await store.apply(strange[0], toy.succeeded(), lease=toy.lease("w"))
    with pytest.raises(PredictionUnreadable):
        await store.create(toy.prediction(), idempotency_key="k0", body_hash="h")
    assert (await store.find_attempt(toy.begun("0").attempt.token_hash)) == (strange[0], 1)
    assert (await store.apply(ours[0], toy.succeeded())).changed

    # Lists go on behind it.
    listed: list[str] = []
    position: str | None = None
    while True:
        page = await store.list_predictions(owner="alice", position=position, limit=4)
        listed += [one.id for one in page.predictions]
        if (position := page.next) is None:
            break
    assert listed == ours[::-1]
    found = await store.search_predictions(Search(model="acme/upscale"), limit=100)
    assert [one.id for one in found.predictions] == ours[::-1]
    with pytest.raises(PredictionUnreadable):
        [_ async for _ in store.dump()]
    await store.release("w")
    await store.aclose()
    assert [as_it_lies(path, id) for id in strange] == kept


async def test_a_request_we_cannot_read_is_left_alone_too(open_sqlite: OpenSqlite, path: Path) -> None:
    store = await open_sqlite()
    prediction = toy.prediction()
    await store.create(prediction)
    await store.aclose()
    rewrite(path, prediction.id, lambda fields: None)
    db = sqlite3.connect(path, isolation_level=None)
    request = msgspec.msgpack.decode(encode_request(prediction.request)) | {"webhook_events": ["resting"]}
    db.execute("UPDATE request SET body = ?", (msgspec.msgpack.encode(request),))
    db.close()
    store = await open_sqlite()
    assert await store.claim_due("w", limit=10) == []
    with pytest.raises(PredictionUnreadable, match="a newer Turnout"):
        await store.get(prediction.id)


async def test_bytes_that_are_broken_are_told_as_such(open_sqlite: OpenSqlite, path: Path) -> None:
    store = await open_sqlite()
    prediction = toy.prediction()
    await store.create(prediction)
    await store.aclose()
    rewrite(path, prediction.id, unknown_status, version=CONTRACT_VERSION)
    store = await open_sqlite()
    assert await store.claim_due("w", limit=10) == []
    with pytest.raises(PredictionUnreadable, match="cannot be read") as caught:
        await store.get(prediction.id)
    assert "newer" not in str(caught.value)


async def test_what_a_newer_version_keeps_is_for_that_one_to_erase_and_to_move(
    open_sqlite: OpenSqlite, path: Path
) -> None:
    def reduce(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
        if not isinstance(happening, DataRemoved):
            return toy.reduce(prediction, happening, now)
        return Reduction(prediction=replace(prediction, data_removed=True), is_open=False)

    store = await open_sqlite(reduce=reduce)
    newers, ours = toy.prediction(), toy.prediction()
    for prediction in (newers, ours):
        await store.create(prediction)
        await store.apply(prediction.id, toy.begun(prediction.id))
        await store.apply(prediction.id, toy.succeeded())
    await store.aclose()
    rewrite(path, newers.id, more_fields)
    store = await open_sqlite(reduce=reduce)
    assert await store.aged(before=toy.START + timedelta(days=1), limit=1) == [ours.id]
    with pytest.raises(PredictionUnreadable, match="for that one to erase"):
        await store.apply(newers.id, DataRemoved())
    assert as_it_lies(path, newers.id)[1]["data_removed"] is False
    with pytest.raises(PredictionUnreadable, match=f"prediction {newers.id}.*move it with that one"):
        [_ async for _ in store.dump()]
