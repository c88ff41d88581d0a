"""Files are fitted to what the *offer* takes: one provider's routes may differ, and the call must follow its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gateway.contract.provider import Capabilities
from tests.unit.engine.stage import Stage, virtual


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
    assert asked == [{}]
    assert fitted == [special]
    assert [call.stream for call in provider.submits] == [True]
    assert "stream" not in general.modes
