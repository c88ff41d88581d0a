"""The metrics of several workers on one page, as Prometheus' own parser reads it; and the sockets they come by."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.merge import merged
from gateway.telemetry.sibling import Siblings


def page(number: int, *, with_gauge: bool = True) -> bytes:
    registry = CollectorRegistry()
    counter = Counter("requests", "Requests, {in braces}.", ["path"], registry=registry)
    counter.labels('/a b{c}"d\\').inc(number)
    Counter("plain", "Without labels.", registry=registry).inc(10 * number)
    Histogram("took_seconds", "How long.", ["path"], buckets=(1.0, 2.0), registry=registry).labels("/").observe(1.5)
    if with_gauge:
        Gauge("level", "Only some have it.", registry=registry).set(number)
    return generate_latest(registry)


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = list(text_string_to_metric_families(text.decode()))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "a family stands twice"
    found = {}
    for family in families:
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_each_sample_says_whose_it_is_and_nothing_else_changes() -> None:
    pages = {"0": page(1), "1": page(2, with_gauge=False), "2": page(3)}
    found = samples(merged(pages))
    expected = {
        (name, tuple(sorted((*labels, ("worker", worker))))): value
        for worker, one in pages.items()
        for (name, labels), value in samples(one).items()
    }
    assert found == expected


def test_one_page_is_enough_and_none_is_none() -> None:
    assert samples(merged({"0": page(1)}))["level", (("worker", "0"),)] == 1.0
    assert merged({}) == b""


async def test_whoever_is_asked_answers_for_all_and_names_who_does_not(tmp_path: Path) -> None:
    def a_worker(number: int) -> Siblings:
        async def render() -> bytes:
            return page(number + 1)

        return Siblings(tmp_path, number=number, count=3, render=render)

    workers = [a_worker(0), a_worker(1)]
    for worker in workers:
        await worker.start()
    for worker in workers:
        found = samples(await worker.scrape())
        up = [found["turnout_worker_up", (("worker", str(number)),)] for number in range(3)]
        assert up == [1.0, 1.0, 0.0]
        assert [found["level", (("worker", str(number)),)] for number in range(2)] == [1.0, 2.0]
    for worker in workers:
        await worker.aclose()


async def test_one_that_hangs_costs_its_numbers_and_not_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.telemetry.sibling.ANSWER_SECONDS", 0.1)
    never = asyncio.Event()

    async def hangs() -> bytes:
        await never.wait()
        return b""

    async def render() -> bytes:
        return page(1)

    hanging = Siblings(tmp_path, number=1, count=2, render=hangs)
    asked = Siblings(tmp_path, number=0, count=2, render=render)
    await hanging.start()
    found = samples(await asked.scrape())
    assert found["turnout_worker_up", (("worker", "1"),)] == 0.0
    assert found["level", (("worker", "0"),)] == 1.0
    never.set()
    await hanging.aclose()


async def test_the_socket_of_a_killed_one_is_taken_over(tmp_path: Path) -> None:
    async def render() -> bytes:
        return page(5)

    (tmp_path / "worker-0.sock").touch()
    worker = Siblings(tmp_path, number=0, count=1, render=render)
    await worker.start()
    await worker.aclose()
