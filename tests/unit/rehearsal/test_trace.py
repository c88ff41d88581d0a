"""Traces: what a store tells of the past, what a file holds of it, and what is wrong with one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from gateway.contract.errors import ConfigurationError, JobFailed, RateLimited
from gateway.contract.fact import Phase
from gateway.contract.money import Units
from gateway.rehearsal.trace import FAILED, GOOD, REFUSED, read_trace, shortened, trace_of, write_trace
from gateway.testing import Script
from gateway.testing.virtual import START
from tests.unit.engine.stage import MODEL, Stage, virtual
from tests.unit.rehearsal.making import asked, trace, tried


@virtual
async def test_a_store_tells_what_was_asked_for_and_how_each_attempt_went(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    failing = Script(run_seconds=2, end=Phase.FAILED, failure=JobFailed("out of memory").failure)
    scripts = iter([Script(run_seconds=3), failing, Script(run_seconds=900)])
    stage.provider("first", lambda call: next(scripts))
    stage.provider("second", Script(run_seconds=4), price=7_000_000)
    async with stage:
        await stage.run(prompt="a cat", num_outputs=2)
        stage.clock.advance(60)
        await stage.run(prompt="a dog")
        open_id = await stage.post()
        found = await trace_of(stage.store, since=START)  # type: ignore[arg-type] # it guards a store
        await stage.cancel(open_id)
    first, second = found.asked
    assert (first.at, first.policy, first.status) == (0.0, "in-order", "succeeded")
    assert (first.facts.images, first.facts.characters) == (2.0, 5.0)
    assert [one.how for one in first.tried] == [GOOD]
    assert first.tried[0].seconds == pytest.approx(first.seconds, abs=0.2)
    assert first.tried[0].nanos == first.tried[0].expected_nanos
    assert [(one.offer, one.how) for one in second.tried] == [
        (f"{MODEL}@first", FAILED),
        (f"{MODEL}@second", GOOD),
    ]
    assert second.at > 60
    assert second.expected[f"{MODEL}@second"] == 7_000_000


@virtual
async def test_a_refusal_for_its_rate_is_told_apart(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.provider("first", Script(starts=False, raises=RateLimited("slow down", retry_after_seconds=5.0)))
    stage.provider("second")
    async with stage:
        await stage.run()
        found = await trace_of(stage.store, since=START)  # type: ignore[arg-type] # it guards a store
    assert [one.how for one in found.asked[0].tried] == [REFUSED, GOOD]


def test_a_file_gives_back_what_was_written_and_names_no_input(tmp_path: Path) -> None:
    made = trace(asked(1, tried(at=1.0), facts=Units(images=2, megapixels=1.5), labels={"team": "x"}), asked(2))
    write_trace(made, tmp_path / "trace.jsonl")
    assert read_trace(tmp_path / "trace.jsonl") == made


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "this is no trace"),
        ("not json\n", "this is no trace"),
        ('{"turnout_trace": 99, "begun_at": "2026-01-01T00:00:00Z"}\n', "this is no trace"),
        ('{"turnout_trace": 1, "begun_at": "2026-01-01T00:00:00Z"}\n{"id": 3}\n', ":2: this is no prediction"),
    ],
)
def test_what_is_no_trace_is_said_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_trace(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_trace(tmp_path / "none.jsonl")


def test_only_the_last_part_is_kept() -> None:
    made = trace(*(asked(number) for number in range(100)))
    assert [one.at for one in shortened(made, seconds=9.5).asked] == [float(n) for n in range(90, 100)]
    assert shortened(made, seconds=math.inf) is made
    assert shortened(trace(), seconds=10) == trace()
