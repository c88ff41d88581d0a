"""Bugs to be planted in a gateway process, so that it can be seen that the judge finds them. By their names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec.structs import replace

from gateway.contract.fact import Begun, Notify
from gateway.engine.lifecycle import reduce
from gateway.store.protocol import Applied


def send_before_intent() -> None:
    """The bytes of a submit leave first, and its intent is committed when the answer is there."""
    from gateway.assembly import ground

    held: dict[tuple[str, int], Callable[[], Coroutine[Any, Any, Any]]] = {}
    late: set[asyncio.Task[Any]] = set()
    open_store, drivers_of = ground.open_store, ground.drivers_of

    async def opened(*args: Any, **named: Any) -> Any:
        store = await open_store(*args, **named)
        apply = store.apply

        async def apply_later(id: str, happening: Any, *, lease: Any = None) -> Any:
            if not isinstance(happening, Begun):
                return await apply(id, happening, lease=lease)
            held[id, happening.attempt.number] = lambda: apply(id, happening, lease=lease)
            before = await store.get(id)
            assert before is not None
            made = reduce(before, happening, happening.attempt.begun_at)
            shown = replace(made.prediction, revision=before.revision + 1)
            return Applied(prediction=shown, changed=True, effects=made.effects)

        store.apply = apply_later  # type: ignore[method-assign, assignment]
        return store

    def committing(submit: Callable[..., Any]) -> Callable[..., Any]:
        async def send_first(call: Any, **named: Any) -> Any:
            try:
                return await submit(call, **named)
            finally:
                # Not now, but as soon as anything else is done.
                task = asyncio.create_task(held.pop((call.prediction, call.attempt))())
                late.add(task)
                task.add_done_callback(late.discard)

        return send_first

    def made(*args: Any) -> Any:
        drivers = drivers_of(*args)
        for driver in drivers.values():
            driver.submit = committing(driver.submit)  # type: ignore[method-assign]
        return drivers

    ground.open_store, ground.drivers_of = opened, made  # type: ignore[assignment]


def forget_the_delivery() -> None:
    """An end is written without the delivery that tells it."""
    from gateway.assembly import ground

    def without(prediction: Any, happening: Any, now: Any) -> Any:
        reduction = reduce(prediction, happening, now)
        return replace(reduction, effects=tuple(e for e in reduction.effects if not isinstance(e, Notify)))

    ground.reduce = without


BUGS: dict[str, Callable[[], None]] = {bug.__name__: bug for bug in (send_before_intent, forget_the_delivery)}
