"""Polls that a provider holds until the job ends: silence says that it runs, and nothing else is taken for that."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.contract.errors import PollFailed
from gateway.contract.fact import Phase
from providers._driver import HttpDriver
from providers.modal import Modal
from tests.unit.providers.echo_adapter import EchoAdapter

URL = "https://acme--x-web.modal.run/?__modal_function_call_id=fc-1"


async def never(request: httpx.Request) -> httpx.Response:
    await asyncio.Event().wait()
    raise AssertionError("nobody waits so long")


def refused(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


async def test_a_held_poll_that_hears_nothing_says_that_the_job_runs() -> None:
    driver = HttpDriver(
        "m", Modal(), base_url="https://acme--x-web.modal.run", poll_seconds=0.02, transport=httpx.MockTransport(never)
    )
    handle = {"id": "fc-1", "url": URL}
    fact = await driver.poll(handle)
    assert (fact.phase, fact.handle) == (Phase.RUNNING, handle)


async def test_a_held_poll_that_is_refused_has_failed() -> None:
    driver = HttpDriver("m", Modal(), base_url="https://acme--x-web.modal.run", transport=httpx.MockTransport(refused))
    with pytest.raises(PollFailed):
        await driver.poll({"id": "fc-1", "url": URL})


async def test_any_other_poll_that_hears_nothing_has_failed() -> None:
    driver = HttpDriver("e", EchoAdapter(), poll_seconds=0.02, transport=httpx.MockTransport(never))
    with pytest.raises(PollFailed, match="no answer within"):
        await driver.poll({"url": "/jobs/j1"})


async def test_who_polls_and_is_cancelled_is_cancelled() -> None:
    driver = HttpDriver("m", Modal(), base_url="https://acme--x-web.modal.run", transport=httpx.MockTransport(never))
    task = asyncio.create_task(driver.poll({"id": "fc-1", "url": URL}))
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
