"""SIGTERM under load: callers see nothing of it, nothing is broken off, nobody is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.replicas.balancer import Balancer
from tests.e2e.replicas.fleet import Fleet
from tests.e2e.upstream import Upstream

pytestmark = pytest.mark.timeout(150)  # gateways are started and ended, one after another

CALLERS = 4
EXIT_SECONDS = 25.0


class SlowUpstream(Upstream):
    """Answers some submits late; its books tell what was asked to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.cancels = 0

    def begin(self, body: dict[str, Any]) -> dict[str, Any]:
        shown = super().begin(body)
        if str(body["input"].get("text", "")).startswith("slow"):
            time.sleep(4.0)  # the provider's own slowness, which a drain has to outwait
        return shown

    def cancel(self, id: str) -> dict[str, Any] | None:
        self.cancels += 1
        return super().cancel(id)


@pytest.fixture
def upstream() -> SlowUpstream:
    return SlowUpstream()


@pytest.fixture
def fleet(tmp_path: Path, upstream: SlowUpstream) -> Iterator[Fleet]:
    with Fleet(tmp_path, 2, upstream=upstream) as fleet:
        yield fleet


def test_a_rolling_restart_is_not_seen_by_callers_who_repeat(fleet: Fleet, upstream: SlowUpstream) -> None:
    done = threading.Event()
    with Balancer([gateway.url for gateway in fleet.gateways]) as balancer, ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(calls, balancer.url, fleet.key.text, number, done) for number in range(CALLERS)]
        try:
            exits: list[float] = []
            for gateway in fleet.gateways:
                begun = time.monotonic()
                gateway.stop(seconds=EXIT_SECONDS)
                exits.append(time.monotonic() - begun)
                gateway.start(seconds=40)
        finally:
            done.set()
        posted = {text: id for caller in callers for text, id in caller.result(60).items()}
    assert len(posted) > 20
    for text, id in posted.items():
        ended = fleet.ended(fleet.gateways[0], id, seconds=30)
        assert (ended["status"], ended["output"]) == ("succeeded", text)
        assert [attempt["status"] for attempt in ended["routing"]["attempts"]] == ["succeeded"]
        assert len(fleet.upstream.jobs(text)) == 1
    assert upstream.cancels == 0
    print(f"{len(posted)} predictions over {len(exits)} restarts; ended within {max(exits):.1f} s")


def calls(url: str, key: str, caller: int, done: threading.Event) -> dict[str, str]:
    """Post until `done`, each with a key and as often as it takes; ids by text. Raises for what no caller forgives."""
    posted: dict[str, str] = {}
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=20, trust_env=False) as client:
        while not done.is_set():
            text = f"caller {caller} number {len(posted)}"
            headers = {"idempotency-key": text, "prefer": "wait=5"}
            until = time.monotonic() + 20
            while text not in posted:
                assert time.monotonic() < until, f"{text} was not accepted for 20 s"
                try:
                    body = {"input": {"do": "echo", "text": text}}
                    answer = client.post("/v1/models/acme/job/predictions", json=body, headers=headers)
                except httpx.TransportError:
                    continue
                if answer.status_code == 503:
                    assert "retry-after" in answer.headers
                    time.sleep(0.1)  # as a caller who was asked to come again later
                    continue
                assert answer.status_code == 201, answer.text
                posted[text] = answer.json()["id"]
    return posted


def test_a_submit_under_way_is_waited_for_and_goes_on_elsewhere(fleet: Fleet, upstream: SlowUpstream) -> None:
    a, b = fleet.gateways
    posted = fleet.post(a, "slow one")
    fleet.upstream.held("slow one")  # the provider has it, and has not answered
    begun = time.monotonic()
    a.stop(seconds=EXIT_SECONDS)
    assert time.monotonic() - begun >= 2.0
    standing = fleet.until(lambda: found if (found := fleet.get(b, posted["id"]))["status"] == "processing" else None)
    assert [attempt["status"] for attempt in standing["routing"]["attempts"]] == ["running"]
    # Its lease was let go: nobody has to wait until it ends by itself.
    fleet.until(lambda: "that nobody held" in b.log, seconds=10)
    fleet.upstream.release("slow one")
    assert fleet.ended(b, posted["id"])["output"] == "slow one"
    assert len(fleet.upstream.jobs("slow one")) == 1
    assert upstream.cancels == 0


def test_a_stream_is_told_to_come_back_and_finds_the_rest_elsewhere(fleet: Fleet) -> None:
    a, b = fleet.gateways
    posted = fleet.post(a, "streamed")
    fleet.upstream.held("streamed")
    lines: list[str] = []
    ended_at: list[float] = []
    opened = threading.Event()

    def read() -> None:
        with (
            httpx.Client(timeout=30, trust_env=False) as client,
            client.stream("GET", a.url + urlsplit(posted["urls"]["stream"]).path) as answer,
        ):
            for line in answer.iter_lines():
                lines.append(line)
                opened.set()
        ended_at.append(time.monotonic())

    reading = threading.Thread(target=read)
    reading.start()
    assert opened.wait(10)
    begun = time.monotonic()
    a.stop(seconds=EXIT_SECONDS)
    reading.join(10)
    assert lines[-2:] == ["retry: 1000", ""]
    assert ended_at[0] - begun < 2.0
    fleet.upstream.release("streamed")
    with httpx.Client(timeout=30, trust_env=False) as client:
        rest = client.get(b.url + urlsplit(posted["urls"]["stream"]).path).text
    assert rest.count("event: done") == 1


def test_while_it_drains_it_is_unready_and_closes_what_it_answers(fleet: Fleet) -> None:
    a, _ = fleet.gateways
    with a.client(key=fleet.key.text) as client:
        assert "connection" not in client.get("/readyz").headers
        a.ask_to_stop()
        answer = fleet.until(lambda: found if (found := client.get("/readyz")).status_code == 503 else None)
        assert answer.headers["connection"] == "close"
        refused = client.post("/v1/models/acme/job/predictions", json={"input": {"do": "echo"}})
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
    a.wait()
