"""What the rooms tell observers for the sake of numbers, spans and logs."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from gateway.config.watch import PolicyFiles
from gateway.contract.errors import StoreUnavailable, refuse
from gateway.contract.fact import LedgerEntry
from gateway.contract.observer import DeliveryTry, Observer
from gateway.contract.prediction import Prediction, Status
from gateway.delivery.webhook import Outcome
from gateway.store.protocol import Delivery
from policies.document import Policy
from tests.unit.delivery.test_outbox import DEAD, OK, Script, World, settle
from tests.unit.engine.stage import Stage, virtual
from tests.unit.telemetry.made import prediction, won


class Told(Observer):
    def __init__(self) -> None:
        self.made: list[tuple[str, DeliveryTry]] = []
        self.ended: list[tuple[str, str, float]] = []
        self.policies: list[tuple[str, bool]] = []
        self.accepted: list[float] = []
        self.steps: list[tuple[Prediction | None, Prediction]] = []
        self.money: list[str] = []

    def delivery_made(self, prediction: Prediction, tried: DeliveryTry) -> None:
        self.made.append((prediction.id, tried))

    def delivery_ended(self, event: str, outcome: str, seconds: float) -> None:
        self.ended.append((event, outcome, seconds))

    def policies_read(self, version: str, *, refused: bool) -> None:
        self.policies.append((version, refused))

    def prediction_accepted(self, prediction: Prediction, seconds: float) -> None:
        self.accepted.append(seconds)

    def committed(self, before: Prediction | None, after: Prediction, effects: tuple[Any, ...]) -> None:
        self.steps.append((before, after))
        self.money += [effect.state for effect in effects if isinstance(effect, LedgerEntry)]


class Passing(Script):
    """A sender that keeps what context it is to pass on."""

    def __init__(self, outcome: Outcome = OK) -> None:
        super().__init__(lambda delivery: outcome)
        self.passed: list[str] = []

    async def send(self, delivery: Delivery, *, traceparent: str = "") -> Outcome:
        self.passed.append(traceparent)
        return await super().send(delivery)


def _trace(prediction: Prediction, delivery: str, number: int) -> str:
    return f"{prediction.id} {delivery} {number}"


async def test_whose_delivery_it_is_is_looked_up_and_its_context_passed_on() -> None:
    world, told, sender = World(), Told(), Passing()
    world.notes = told  # type: ignore[assignment]
    whose = prediction(won(1))

    async def look(id: str) -> Prediction:
        assert id == "p1"
        return whose

    async with world.running(sender, look=look, trace=_trace):
        id = world.store.put(1, "https://a.test/hook?secret")
        world.clock.advance(3 - world.clock.monotonic())
        await world.until_tried(id, 1)
    assert sender.passed == [f"{whose.id} {id} 1"]
    ((prediction_id, tried),) = told.made
    assert prediction_id == whose.id
    assert (tried.delivery, tried.number, tried.outcome, tried.status) == (id, 1, "delivered", 200)
    assert "secret" not in repr(tried)
    assert told.ended == [("completed", "delivered", 3.0)]


async def test_a_look_that_fails_costs_the_trace_and_not_the_delivery() -> None:
    world, told, sender = World(), Told(), Passing()
    world.notes = told  # type: ignore[assignment]

    async def look(id: str) -> Prediction:
        raise StoreUnavailable("out")

    async with world.running(sender, look=look, trace=_trace):
        id = world.store.put(1, "https://a.test/hook")
        delivered = await world.until_tried(id, 1)
    assert delivered.ended == "delivered"
    assert sender.passed == [""]
    assert told.made == []


async def test_what_is_in_hand_and_who_does_not_take_it_can_be_asked() -> None:
    world, sender = World(), Script(lambda delivery: DEAD if "dead" in delivery.url else OK, held=True)
    async with world.running(sender, known=["dead.test"]) as outbox:
        assert outbox.in_hand() == (0, None)
        since = world.clock.now()
        ids = [world.store.put(number, "https://dead.test/") for number in range(1, 4)]
        outbox.wake()
        await sender.until(3)
        assert outbox.in_hand() == (3, since)
        for id in ids:
            sender.gate(id).set()
            await world.until_tried(id, 1)
        await settle()
        assert outbox.receivers() == {"failing": 1, "shut": 0}
        for number in (4, 5):
            id = world.store.put(number, "https://dead.test/")
            sender.gate(id).set()
            outbox.wake()
            await world.until_tried(id, 1)
        await settle()
        assert outbox.receivers() == {"failing": 0, "shut": 1}
        assert outbox.in_hand() == (0, None)


def read(text: str, *, place: str) -> tuple[Policy, ...]:
    try:
        return (msgspec.convert(tomllib.loads(text), Policy),)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise refuse(str(error), place=place, remedy="correct it") from None


def test_a_swap_of_policies_and_a_refusal_are_announced_and_a_mere_look_is_not(tmp_path: Path) -> None:
    file, told = tmp_path / "p.toml", Told()
    file.write_text('name = "one"')
    files = PolicyFiles([file], read=read)
    files.observer = told
    for text in ('name = "one"', 'name = "other"', "name = 7"):
        fresh = file.with_suffix(".new")
        fresh.write_text(text)
        os.replace(fresh, file)
        for _ in range(3):
            files.look()
    version = files.current().version
    assert told.policies == [(version, False), (version, True)]


@virtual
async def test_every_commit_is_told_with_what_was_before_it_and_its_money(tmp_path: Path) -> None:
    stage, told = Stage(tmp_path), Told()
    stage.observer = told  # type: ignore[assignment]
    stage.provider("only")
    async with stage:
        done = await stage.run()
    assert done.status is Status.SUCCEEDED
    assert len(told.accepted) == 1
    assert (told.money[0], told.money[-1]) == ("reserved", "settled")
    for before, after in told.steps:
        assert before is not None, "it was driving it"
        assert before.revision < after.revision
    assert [after.revision for _, after in told.steps] == sorted({after.revision for _, after in told.steps})


@virtual
async def test_an_attempt_passes_on_the_context_that_it_is_given(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    only = stage.provider("only")
    submitted: list[str] = []
    submit = only.submit

    async def noting(call: Any, **more: Any) -> Any:
        submitted.append(call.traceparent)
        return await submit(call, **more)

    only.submit = noting  # type: ignore[method-assign]
    async with stage:
        await stage.run()
    assert submitted == [""], "nobody gave one, and nobody draws"
