"""A store as one file: what is not whole is no file, and what is imported twice is there once."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from gateway.contract.errors import ConfigurationError, StoreUnavailable
from gateway.store import archive
from gateway.store.archive import Counts
from gateway.store.protocol import Record, Store
from gateway.store.sqlite import SqliteStore
from gateway.testing import ManualClock
from tests.contract.store import toy
from tests.contract.store.test_moving import fill, read_out
from tests.unit.store.conftest import OpenSqlite


async def exported(store: Store) -> bytes:
    out = io.BytesIO()
    await archive.write(store, out, made_by="turnout 9", at=toy.START, progress=lambda counts: None)
    return out.getvalue()


async def imported(store: Store, text: bytes) -> Counts:
    source = io.BytesIO(text)
    archive.examine(source, place="the file")
    return await archive.fill(store, source, place="the file", progress=lambda counts: None)


async def test_what_was_exported_is_imported_whole(open_sqlite: OpenSqlite, clock: ManualClock, tmp_path: Path) -> None:
    store, other = await open_sqlite(), await open_sqlite(tmp_path / "other.db")
    await fill(store, clock)
    text = await exported(store)
    assert await imported(other, text) == Counts(predictions=4, deliveries=3, settings=2, files=1, audits=2, budgets=4)
    assert await read_out(other) == await read_out(store)
    header, *_, end = map(msgspec.json.decode, text.splitlines())
    assert (header["type"], header["format"], header["made_by"]) == ("turnout-store", 2, "turnout 9")
    assert end["counts"]["predictions"] == 4


async def test_no_part_of_a_file_is_taken_for_a_file(open_sqlite: OpenSqlite) -> None:
    store = await open_sqlite()
    for _ in range(2):
        await store.create(toy.prediction())
    text = await exported(store)
    for cut in range(len(text)):
        with pytest.raises(ConfigurationError, match=r"^the file: "):
            archive.examine(io.BytesIO(text[:cut]), place="the file")
    archive.examine(io.BytesIO(text), place="the file")


async def test_no_changed_byte_goes_unseen(open_sqlite: OpenSqlite) -> None:
    store = await open_sqlite()
    await store.create(toy.prediction())
    text = await exported(store)
    body = text.rindex(b'{"type":"end"')
    for at in range(0, body, 3):
        changed = bytearray(text)
        changed[at] ^= 1
        with pytest.raises(ConfigurationError):
            archive.examine(io.BytesIO(bytes(changed)), place="the file")


async def test_lines_that_are_missing_doubled_or_misplaced_are_refused(open_sqlite: OpenSqlite) -> None:
    store = await open_sqlite()
    for _ in range(3):
        await store.create(toy.prediction())
    header, *records, end = (await exported(store)).splitlines(keepends=True)
    for lines, why in (
        ([header, *records[:-1], end], "checksum"),
        ([header, *records, records[0], end], "checksum"),
        ([header, *reversed(records), end], "checksum"),
        ([header, header, *records, end], "where it does not belong"),
        ([*records, end], "no export of a store"),
        ([header, *records, end, records[0]], "behind its end"),
        ([header, end], "checksum"),
        ([], "cut off"),
        ([b"hello\n"], "no export of a store"),
        ([b"x" * 100_000], "no export of a store"),
        ([header, b'{"type":"prediction","later":1}\n', end], "line 2 cannot be read"),
        ([header, b'{"type":"later"}\n', end], "line 2 cannot be read"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            archive.examine(io.BytesIO(b"".join(lines)), place="the file")


@pytest.mark.parametrize("field", ["format", "contract"])
async def test_what_a_newer_version_wrote_is_refused(open_sqlite: OpenSqlite, field: str) -> None:
    text = await exported(await open_sqlite())
    header, _, rest = text.partition(b"\n")
    newer = msgspec.json.encode(msgspec.json.decode(header) | {field: 77})
    with pytest.raises(ConfigurationError, match=r"a newer Turnout wrote it \(turnout 9\)"):
        archive.examine(io.BytesIO(newer + b"\n" + rest), place="the file")


class Breaking:
    """A store that breaks after some batches were written."""

    def __init__(self, store: SqliteStore, batches: int) -> None:
        self._store = store
        self._left = batches

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def load(self, records: Sequence[Record]) -> None:
        if not self._left:
            raise StoreUnavailable("gone")
        self._left -= 1
        await self._store.load(records)


async def test_an_import_that_broke_off_is_taken_up_by_doing_it_again(
    open_sqlite: OpenSqlite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_MOST_RECORDS", 7)
    store, other = await open_sqlite(), await open_sqlite(tmp_path / "other.db")
    made = [toy.prediction(webhook="https://hooks.example/") for _ in range(50)]
    for prediction in made:
        await store.create(prediction)
        await store.apply(prediction.id, toy.begun(prediction.id))
        await store.apply(prediction.id, toy.said("x"))
    text = await exported(store)
    for batches in (3, 5):
        with pytest.raises(StoreUnavailable):
            await imported(Breaking(other, batches), text)  # type: ignore[arg-type]
    assert 0 < len([one async for one in other.dump()]) < 50
    assert (await imported(other, text)).predictions == 50
    assert await read_out(other) == await read_out(store)
    assert (await imported(other, text)).predictions == 50  # and once more, though nothing is left to do


async def test_nothing_that_somebody_went_on_with_is_written_over(
    open_sqlite: OpenSqlite, tmp_path: Path, clock: ManualClock
) -> None:
    store, other = await open_sqlite(), await open_sqlite(tmp_path / "other.db")
    prediction = toy.prediction(webhook="https://hooks.example/")
    await store.create(prediction)
    await store.apply(prediction.id, toy.begun("t"))
    await store.apply(prediction.id, toy.said("x"))
    text = await exported(store)
    await imported(other, text)

    stranger = toy.prediction()
    await other.create(stranger)
    with pytest.raises(ConfigurationError, match="the store holds 1 predictions that do not stand in the file"):
        await imported(other, text)

    third = await open_sqlite(tmp_path / "third.db")
    await imported(third, text)
    clock.advance(timedelta(days=1).total_seconds())
    [delivery] = await third.claim_deliveries("w", limit=10, lease_seconds=60)
    assert await third.finish_delivery(delivery, ended="delivered", status=200)
    before = await read_out(third)
    with pytest.raises(ConfigurationError, match=f"another state of prediction {prediction.id}"):
        await imported(third, text)  # else its receiver would hear of it twice
    await third.apply(prediction.id, toy.succeeded())
    with pytest.raises(ConfigurationError, match="another state"):
        await imported(third, text)
    assert len(await read_out(third)) == len(before)


async def test_a_file_that_changes_while_it_is_read_is_told(open_sqlite: OpenSqlite, tmp_path: Path) -> None:
    store, other = await open_sqlite(), await open_sqlite(tmp_path / "other.db")
    for _ in range(3):
        await store.create(toy.prediction())
    source = io.BytesIO(await exported(store))
    archive.examine(source, place="the file")
    source.getbuffer()[:] = source.getvalue().replace(b'"alice"', b'"malic"')
    with pytest.raises(ConfigurationError, match="changed while it was read"):
        await archive.fill(other, source, place="the file", progress=lambda counts: None)
