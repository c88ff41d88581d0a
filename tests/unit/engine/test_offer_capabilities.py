"""Files are fitted to what the *offer* takes: one provider's routes may differ, and the call must follow its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gateway.contract.provider import Cancel, Capabilities
from gateway.testing import Script
from tests.unit.engine.stage import HELD_BREAKABLE, POLLED, WITH_CALLBACKS, Stage, virtual


@virtual
async def test_the_input_and_the_stream_are_those_of_the_offer_not_of_its_provider(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    provider = stage.provider("first")
    general = provider.capabilities
    special = replace(general, input_forms=frozenset({"data"}), modes=frozenset({"sync", "stream"}))
    asked: list[Mapping[str, Any]] = []

    def capabilities_for(options: Mapping[str, Any]) -> Capabilities:
        asked.append(options)
        return special

    fitted: list[Capabilities] = []

    class Noting:
        async def fit(self, input: dict[str, Any], *, capabilities: Capabilities, **_: Any) -> dict[str, Any]:
            fitted.append(capabilities)
            return input

    provider.capabilities_for = capabilities_for  # type: ignore[method-assign]
    stage.intake = Noting()  # type: ignore[assignment]
    async with stage:
        await stage.run()
    assert asked
    assert all(options == {} for options in asked)
    assert fitted == [special]
    assert [call.stream for call in provider.submits] == [True]
    assert "stream" not in general.modes


@virtual
async def test_a_submit_is_not_broken_off_where_the_offer_starts_a_job_by_it(tmp_path: Path) -> None:
    """Speech stops when one hangs up; dubbing, at the same provider, is a job that goes on and is billed."""
    stage = Stage(tmp_path)
    provider = stage.provider("first", Script(run_seconds=10, holds=True), capabilities=HELD_BREAKABLE)
    provider.capabilities_for = lambda options: replace(HELD_BREAKABLE, cancel=Cancel.NONE)  # type: ignore[method-assign]
    async with stage:
        id = await stage.post()
        await asyncio.sleep(5)
        await stage.cancel(id)
        await stage.settled(id)
        assert provider.jobs[0].canceled_at is None


@virtual
async def test_an_offer_is_polled_no_sooner_than_its_options_allow(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    provider = stage.provider("first", Script(run_seconds=25), capabilities=POLLED)
    provider.capabilities_for = lambda options: replace(POLLED, min_poll_seconds=10.0)  # type: ignore[method-assign]
    async with stage:
        await stage.run()
    assert provider.jobs[0].polls == 3  # every half second, and at longest every five, without them


@virtual
async def test_an_offer_that_calls_nobody_back_is_given_no_address_and_polled_as_often(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    provider = stage.provider("first", Script(run_seconds=10), capabilities=WITH_CALLBACKS)
    provider.capabilities_for = lambda options: POLLED  # type: ignore[method-assign]
    async with stage:
        await stage.run()
    assert [call.callback_url for call in provider.submits] == [None]
    assert provider.jobs[0].polls > 4  # where a callback is expected there would be one or two
