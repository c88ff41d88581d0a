"""Three gateways on one Redis: whatever one of them began, any of them answers for."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.replicas.fleet import Fleet
from tests.waiting import until

pytestmark = pytest.mark.timeout(90)  # three gateways are started, and ended, for all of them

TAKEN_UP = re.compile(r"(\d+) predictions? that nobody held")
SOON_SECONDS = 3.0  # a holder polls after five at the earliest: what comes sooner came by a hint


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet"), 3) as fleet:
        yield fleet


def events(fleet: Fleet, gateway: GatewayProcess, url: str, *, after: str = "", most: int = 10_000) -> list[list[str]]:
    """[id, event] of each that comes from this gateway, until it closes or there are `most`."""
    seen: list[list[str]] = []
    headers = {"last-event-id": after} if after else {}
    with (
        httpx.Client(timeout=30, trust_env=False) as client,
        client.stream("GET", gateway.url + urlsplit(url).path, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        id = ""
        for line in answer.iter_lines():
            if line.startswith("id: "):
                id = line[4:]
            elif line.startswith("event: "):
                seen.append([id, line[7:]])
                if len(seen) >= most:
                    return seen
    return seen


def test_who_waits_elsewhere_hears_of_the_end_at_once(fleet: Fleet) -> None:
    a, b, _ = fleet.gateways
    posted = fleet.post(a, "waited for", idempotency_key="waited for")
    fleet.upstream.held("waited for")
    threading.Timer(1.0, fleet.upstream.release, ["waited for"]).start()
    begun = time.monotonic()
    answer = fleet.post(b, "waited for", idempotency_key="waited for", prefer="wait=20")
    assert (answer["id"], answer["status"], answer["output"]) == (posted["id"], "succeeded", "waited for")
    assert time.monotonic() - begun < 1.0 + SOON_SECONDS
    assert len(fleet.upstream.jobs("waited for")) == 1


def test_a_cancel_reaches_the_replica_that_runs_it(fleet: Fleet) -> None:
    a, b, c = fleet.gateways
    posted = fleet.post(a, "unwanted")
    job = fleet.upstream.held("unwanted")
    with b.client(key=fleet.key.text) as client:
        assert client.post(f"/v1/predictions/{posted['id']}/cancel").status_code == 200
    begun = time.monotonic()
    fleet.until(lambda: job.status == "canceled", seconds=SOON_SECONDS)
    assert fleet.ended(c, posted["id"], seconds=SOON_SECONDS)["status"] == "canceled"
    assert time.monotonic() - begun < SOON_SECONDS


def test_a_callback_to_any_replica_ends_it(fleet: Fleet) -> None:
    """It goes to the last, is unsigned, and so no more than a reason to look: whoever got it does."""
    a, b, _ = fleet.gateways
    posted = fleet.post(a, "called back")
    fleet.upstream.held("called back")
    fleet.until(lambda: fleet.get(b, posted["id"])["status"] == "processing")
    begun = time.monotonic()
    fleet.upstream.release("called back")
    assert fleet.ended(b, posted["id"], seconds=SOON_SECONDS)["output"] == "called back"
    assert time.monotonic() - begun < SOON_SECONDS


def test_a_stream_goes_on_at_another_replica_each_event_once_and_in_order(fleet: Fleet) -> None:
    a, b, c = fleet.gateways
    posted = fleet.post(a, "grows", do="grow", model="grow")
    first = events(fleet, b, posted["urls"]["stream"], most=2)
    rest = events(fleet, c, posted["urls"]["stream"], after=first[-1][0])
    numbers = [int(id.partition(":")[2]) for id, _ in (*first, *rest)]
    assert numbers == list(range(len(numbers)))
    assert [event for _, event in (*first, *rest)] == ["output"] * 5 + ["done"]


def test_each_sees_what_the_others_measured(fleet: Fleet) -> None:
    a, b, _ = fleet.gateways
    held = [f"in flight {number}" for number in range(3)]
    for text in held:
        fleet.post(a, text)
    for text in held:
        fleet.upstream.held(text)

    def in_flight() -> bool:
        with b.client(key=fleet.key.text) as client:
            shown = client.get("/ops/v1/overview").raise_for_status().text
        return re.search(r'"in_flight":3\b', shown) is not None

    fleet.until(in_flight, seconds=5.0)
    for text in held:
        fleet.upstream.release(text)


def test_what_ops_do_in_one_replica_holds_in_all(fleet: Fleet) -> None:
    a, b, c = fleet.gateways
    offer = "acme/grow@jobs"

    def act(gateway: GatewayProcess, action: str) -> None:
        with gateway.client(key=fleet.key.text) as client:
            body = {"offer": offer, "action": action, "reason": "to see it"}
            answer = client.post("/ops/v1/breakers", json=body)
        assert answer.status_code == 200, answer.text

    def shows(gateway: GatewayProcess, state: str) -> bool:
        with gateway.client(key=fleet.key.text) as client:
            cells = client.get("/ops/v1/overview").raise_for_status().json()["matrix"]["cells"]
        return {cell["state"] for cell in cells if cell["offer"] == offer} == {state}

    act(a, "open")
    fleet.until(lambda: shows(b, "open") and shows(c, "open"), seconds=5.0)
    act(c, "release")
    fleet.until(lambda: shows(a, "closed") and shows(b, "closed"), seconds=5.0)


class TestFailing:
    """Replicas that die, and one that sleeps longer than its lease."""

    LEASE = 3.0

    @pytest.fixture
    def fleet(self, tmp_path: Path) -> Iterator[Fleet]:
        with Fleet(tmp_path, 3, lease=self.LEASE) as fleet:
            yield fleet

    def post(self, fleet: Fleet, gateway: GatewayProcess, text: str) -> str:
        """Its id, however often it takes: with a key, as callers do who must not pay twice."""

        def posted() -> str:
            try:
                return str(fleet.post(gateway, text, idempotency_key=text)["id"])
            except (httpx.HTTPError, AssertionError):
                return ""

        return until(posted, seconds=60, or_else=lambda: f"{text} was not accepted: {gateway.log[-2000:]}")

    def test_what_a_dead_replica_held_is_adopted_and_ends(self, fleet: Fleet) -> None:
        a, b, c = fleet.gateways
        texts = [f"orphan {number}" for number in range(20)]
        ids = [fleet.post(a, text)["id"] for text in texts]
        for text in texts:
            fleet.upstream.held(text)
        for id in ids:
            fleet.until(lambda id=id: fleet.get(b, id)["status"] == "processing")
        a.kill()
        for text in texts:
            fleet.upstream.release(text)
        for id, text in zip(ids, texts, strict=True):
            ended = fleet.ended(c, id, seconds=self.LEASE + 20)
            assert (ended["status"], ended["output"]) == ("succeeded", text)
            assert len(fleet.upstream.jobs(text)) == 1

    @pytest.mark.timeout(150)  # three sleeps longer than a lease
    def test_one_that_slept_longer_than_its_lease_starts_nothing_twice(self, fleet: Fleet) -> None:
        a, b, _ = fleet.gateways
        for cycle in range(3):
            texts = [f"cycle {cycle} number {number}" for number in range(10)]
            with ThreadPoolExecutor(len(texts)) as pool:
                posting = [
                    pool.submit(self.post, fleet, (a, a, b)[number % 3], text) for number, text in enumerate(texts)
                ]
                fleet.until(lambda posting=posting, cycle=cycle: sum(one.done() for one in posting) >= 4 * cycle)
                os.kill(a.pid, signal.SIGSTOP)
                time.sleep(2.5 * self.LEASE)
                os.kill(a.pid, signal.SIGCONT)
                posted = dict(zip(texts, (one.result() for one in posting), strict=True))
            for text, id in posted.items():
                if not is_withheld(fleet, b, text, id):
                    fleet.upstream.release(text)
                    ended = fleet.ended(b, id, seconds=40)
                    assert ended["status"] == "succeeded", ended
                    assert len(fleet.upstream.jobs(text)) == 1, f"{text} was started twice"
        assert a.is_running
        adopted = sum(int(count) for gateway in fleet.gateways[1:] for count in TAKEN_UP.findall(gateway.log))
        assert adopted >= 5, "nobody took its predictions up while it slept"


def is_withheld(fleet: Fleet, gateway: GatewayProcess, text: str, id: str) -> bool:
    """
    It slept between the intent and the first byte: when it woke the prediction was another's, and it sent nothing.

    Nobody but itself can know that, so that its attempt is unknown, and no other is begun beside it.
    """

    def stands() -> str:
        if fleet.upstream.jobs(text):
            return "started"
        attempts = fleet.get(gateway, id)["routing"]["attempts"]
        return "unknown" if [attempt["status"] for attempt in attempts] == ["unknown"] else ""

    return bool(fleet.until(stands, seconds=30) == "unknown")


def test_what_was_posted_into_a_frozen_store_runs_only_if_its_caller_can_find_it(tmp_path: Path) -> None:
    """503 within the store's bound, and nothing starts that no caller knows of; with a key the repeat gets it."""
    with Fleet(tmp_path, 1) as fleet:
        (a,) = fleet.gateways
        texts = [f"frozen {number}" for number in range(8)]

        def post(text: str, **headers: str) -> tuple[int, float]:
            begun = time.monotonic()
            with a.client(key=fleet.key.text) as client:
                body = {"input": {"do": "echo", "text": text}}
                answer = client.post("/v1/models/acme/job/predictions", json=body, headers=headers)
            return answer.status_code, time.monotonic() - begun

        fleet.redis.freeze()
        with ThreadPoolExecutor(2 * len(texts)) as pool:
            unkeyed = [pool.submit(post, text) for text in texts]
            keyed = [pool.submit(post, f"keyed {text}", **{"idempotency-key": text}) for text in texts]
            answers = [one.result() for one in (*unkeyed, *keyed)]
        fleet.redis.thaw()
        assert {status for status, _ in answers} == {503}
        assert max(seconds for _, seconds in answers) < 10
        fleet.until(lambda: post("afterwards")[0] == 201)
        for text in texts:
            posted = fleet.post(a, f"keyed {text}", do="echo", idempotency_key=text)
            assert fleet.ended(a, posted["id"])["status"] == "succeeded"
            assert len(fleet.upstream.jobs(f"keyed {text}")) == 1
        with a.client(key=fleet.key.text) as client:
            listed = client.get("/v1/predictions").raise_for_status().json()["results"]
        unknown = [one for one in listed if one["input"]["text"] in texts]
        assert all(fleet.ended(a, one["id"])["status"] == "canceled" for one in unknown)
        assert not any(fleet.upstream.jobs(text) for text in texts)
