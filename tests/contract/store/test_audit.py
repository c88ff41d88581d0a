"""The trail of what people did, in any store: kept in order, the outcome written once more, and no restart loses it."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from gateway.store.protocol import AuditRow, Store
from tests.contract.store import toy
from tests.contract.store.conftest import OpenStore

DONE = frozenset({"done"})


def row(target: str, action: str = "breaker.open", *, outcome: str = "done", seconds: float = 0) -> AuditRow:
    at = toy.START + timedelta(seconds=seconds)
    return AuditRow(at=at, who="ops", action=action, target=target, reason="because ' \"", outcome=outcome)


async def test_rows_come_back_whole_newest_first_by_ascending_ids(store: Store) -> None:
    kept = [await store.put_audit(row(f"offer-{n}", seconds=n)) for n in range(5)]
    assert [one.id for one in kept] == sorted({one.id for one in kept})
    assert all(one == replace(row(f"offer-{n}", seconds=n), id=one.id) for n, one in enumerate(kept))
    assert await store.audit() == kept[::-1]
    assert await store.audit(limit=2) == kept[:2:-1]
    assert await store.audit(before=kept[2].id, limit=2) == [kept[1], kept[0]]
    assert await store.audit(before=kept[0].id) == []


async def test_only_the_outcome_of_a_kept_row_changes(store: Store) -> None:
    kept = await store.put_audit(row("offer", outcome="begun"))
    await store.put_audit(replace(kept, outcome="done", who="somebody else", reason="another"))
    assert await store.audit() == [replace(kept, outcome="done")]


async def test_the_last_of_each_target_is_asked_for_by_action_and_outcome(store: Store) -> None:
    for one in (
        row("a", "breaker.open"),
        row("b", "breaker.open"),
        row("a", "breaker.release"),
        row("b", "breaker.close", outcome="refused"),
        row("b", "prediction.cancel"),
    ):
        await store.put_audit(one)
    actions = frozenset({"breaker.open", "breaker.close", "breaker.release"})
    found = await store.last_audit(actions, outcomes=DONE)
    assert [(one.target, one.action) for one in found] == [("b", "breaker.open"), ("a", "breaker.release")]
    assert await store.last_audit(frozenset(), outcomes=DONE) == []
    assert await store.last_audit(frozenset({"breaker.close"}), outcomes=DONE) == []


async def test_the_trail_outlives_a_restart_and_ids_go_on(open_store: OpenStore) -> None:
    store = await open_store()
    first = await store.put_audit(row("a"))
    await store.aclose()
    again = await open_store()
    second = await again.put_audit(row("b"))
    assert second.id > first.id
    assert await again.audit() == [second, first]
