"""This version and the next on one Redis: restarted into each other, up and down, politely and by kill -9."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple

import httpx
import msgspec
import pytest

from gateway.store._encoding import CONTRACT_VERSION
from gateway.store.redis import FORMAT
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.models import ENVIRON
from tests.e2e.replicas import next_version
from tests.e2e.replicas.balancer import Balancer
from tests.e2e.replicas.fleet import START_SECONDS, Fleet
from tests.e2e.replicas.next_version import MOOD, PLEDGED, WARM
from tests.e2e.replicas.test_replicas import events
from tests.e2e.replicas.test_rolling import EXIT_SECONDS, calls
from tests.e2e.upstream import Job, Upstream

ROUNDS = int(os.environ.get("TURNOUT_ROUNDS", "6"))  # restarts: three up, three down, and so on

pytestmark = [pytest.mark.long, pytest.mark.timeout(120 + 20 * ROUNDS)]  # gateways are started and ended, one by one

CALLERS = 2
LEASE = 3.0  # where replicas are killed
KNOWN = ("output", "logs", "error", "done")  # what this version says in a stream


class BookKeeping(Upstream):
    """Its books tell which jobs it was asked to stop; `nudge` calls back of one that goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped: set[str] = set()

    def cancel(self, id: str) -> dict[str, Any] | None:
        self.stopped.add(str(self._jobs[id].input.get("text")))
        return super().cancel(id)

    def started(self) -> Counter[str]:
        """How many jobs there were of each text."""
        with self._news:
            return Counter(str(job.input.get("text")) for job in self._jobs.values())

    def nudge(self, job: Job) -> None:
        self._nudge(job, job.events[0])


class EitherGateway(GatewayProcess):
    """Of the version whose packages lie in `code`; None: of this one."""

    code: Path | None = None

    def _spawn(
        self, arguments: list[str], environ: dict[str, str], out: IO[bytes], err: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        if self.code is not None:
            environ = environ | {"PYTHONPATH": str(self.code)}
        return super()._spawn(arguments, environ, out, err)


class Mixed(Fleet):
    """A fleet in which each replica may be of either version. All begin as this one; but the last, with `newer`."""

    def __init__(self, folder: Path, count: int, *, newer: Path | None = None, **how: Any) -> None:
        super().__init__(folder, count, **how)
        last = self.gateways[-1]
        assert isinstance(last, EitherGateway)
        last.code = newer

    def _gateway(self, number: int) -> GatewayProcess:
        return EitherGateway(self.folder / f"gateway-{number}", key=self.key.text, environ=ENVIRON)

    def turn(self, gateway: GatewayProcess, code: Path | None, *, kills: bool = False) -> float:
        """Restart it as the other version; for how long it took to end."""
        assert isinstance(gateway, EitherGateway)
        begun = time.monotonic()
        gateway.kill() if kills else gateway.stop(seconds=EXIT_SECONDS)
        took = time.monotonic() - begun
        gateway.code = code
        gateway.start(seconds=START_SECONDS)
        return took

    def newer(self) -> list[GatewayProcess]:
        return [one for one in self.gateways if isinstance(one, EitherGateway) and one.code is not None]

    def hold(self, gateway: GatewayProcess, text: str) -> Any:
        """A prediction whose job runs until it is released or stopped, with a webhook at /{text}."""
        body = {
            "input": {"do": "hold", "text": text},
            "webhook": f"{self.receiver.url}/{text}",
            "webhook_events_filter": ["start", "completed"],
        }
        with gateway.client(key=self.key.text) as client:
            posted = client.post("/v1/models/acme/job/predictions", json=body, headers={"idempotency-key": text})
        assert posted.status_code == 201, posted.text
        self.upstream.held(text)
        self.until(lambda: self.attempt(gateway, posted.json()["id"])["status"] in ("running", "warming"))
        return posted.json()

    def detail(self, gateway: GatewayProcess, id: str) -> Any:
        with gateway.client(key=self.key.text) as client:
            return client.get(f"/ops/v1/predictions/{id}").raise_for_status().json()

    def attempt(self, gateway: GatewayProcess, id: str) -> Any:
        return self.get(gateway, id)["routing"]["attempts"][-1]

    def row(self, id: str) -> tuple[dict[bytes, bytes], dict[str, Any]]:
        """The prediction's hash, and its state, as they lie in Redis."""
        with self.redis.client() as client:
            row = client.hgetall(f"turnout:{{s0}}:p:{id}")
        return row, msgspec.msgpack.decode(row[b"state"][1:])


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next_version.make(tmp_path_factory.mktemp("next"))


@pytest.fixture
def upstream() -> BookKeeping:
    return BookKeeping()


class Held(NamedTuple):
    text: str
    id: str
    stream: str
    is_released: bool  # else it is canceled
    is_newers: bool  # by whom it was made


class Rounds:
    """Turns the replicas one after another, all to the next version, all back, and so on; keeps what was made."""

    def __init__(self, fleet: Mixed, newer: Path, *, kills: bool) -> None:
        self.fleet = fleet
        self.newer = newer
        self.kills = kills
        self.exits: list[float] = []
        self.held: list[Held] = []
        self.streams: dict[str, Future[list[list[str]]]] = {}

    def play(self, number: int, pool: ThreadPoolExecutor) -> None:
        """Jobs are held, their holder is restarted, and then they end: by callbacks and by other replicas' cancels."""
        fleet, count = self.fleet, len(self.fleet.gateways)
        gateway, neighbour = fleet.gateways[number % count], fleet.gateways[(number + 1) % count]
        code = None if number // count % 2 else self.newer
        held = [self._hold(gateway, f"{do}-{number}", code) for do in ("release", "cancel")]
        for one in held:
            self.streams[one.text] = pool.submit(events, fleet, neighbour, one.stream)
        self.exits.append(fleet.turn(gateway, code, kills=self.kills))
        for one in held:
            if one.is_released:
                fleet.upstream.release(one.text)
                continue
            with gateway.client(key=fleet.key.text) as client:
                assert client.post(f"/v1/predictions/{one.id}/cancel").status_code == 200
        for one in held:
            fleet.ended(neighbour, one.id, seconds=40)
            self.judge(one)
        shown = fleet.get(gateway, held[0].id)
        assert ("later" in shown["routing"]) == (code is not None), "it is not of the version that was asked for"
        self.held += held

    def _hold(self, gateway: GatewayProcess, text: str, turns_to: Path | None) -> Held:
        posted = self.fleet.hold(gateway, text)
        ledger = PLEDGED if turns_to is None else "reserved"
        for replica in self.fleet.gateways:
            assert self.fleet.detail(replica, posted["id"])["attempts"][0]["ledger"] == ledger
        return Held(
            text, posted["id"], posted["urls"]["stream"], text.startswith("release"), is_newers=turns_to is None
        )

    def judge(self, one: Held) -> None:
        """It has ended, once, and everybody says the same of it."""
        fleet = self.fleet
        shown = [fleet.get(gateway, one.id) for gateway in fleet.gateways]
        for body in shown:
            body["routing"].pop("later", None)
            assert body == shown[0]
        assert shown[0]["status"] == ("succeeded" if one.is_released else "canceled")
        assert shown[0]["output"] == (one.text if one.is_released else None)
        [attempt] = shown[0]["routing"]["attempts"]
        assert attempt["status"] == shown[0]["status"]
        assert "resolved_by" not in attempt, "nobody knew of it for a while"
        assert len(fleet.upstream.jobs(one.text)) == 1
        self._judge_stream(one)
        self._judge_deliveries(one)
        if one.is_newers:
            self._judge_fields(one)

    def _judge_stream(self, one: Held) -> None:
        live = self.streams[one.text].result(20)
        told = [events(self.fleet, gateway, one.stream) for gateway in self.fleet.gateways]
        for found in (live, *told):
            assert [event for event in found if event[1] in KNOWN] == [event for event in told[0] if event[1] in KNOWN]
            assert [event for _, event in found].count("done") == 1
        for gateway, found in zip(self.fleet.gateways, told, strict=True):
            if gateway not in self.fleet.newer():
                assert {event for _, event in found} <= set(KNOWN), "clients raise on what they do not know"

    def _judge_deliveries(self, one: Held) -> None:
        arrived = self.fleet.receiver.until(
            f"/{one.text}", lambda arrived: any(one.prediction.get("completed_at") for one in arrived), seconds=20
        )
        ends = {found.headers["webhook-id"] for found in arrived if found.prediction.get("completed_at")}
        assert len(ends) == 1
        [shown, *others] = [self.fleet.detail(gateway, one.id) for gateway in self.fleet.gateways]
        assert [other["deliveries"] for other in others] == [shown["deliveries"]] * len(others)
        assert [other["attempts"] for other in others] == [shown["attempts"]] * len(others)
        kinds = [delivery["event"] for delivery in shown["deliveries"]]
        assert kinds.count("completed") == 1
        assert ("mood" in kinds) or not one.is_newers

    def _judge_fields(self, one: Held) -> None:
        """What the next version wrote of its own is there, whoever has written since."""
        row, state = self.fleet.row(one.id)
        assert row[b"state"][0] == CONTRACT_VERSION + 1
        assert row[b"made_by"] == b"later"
        later = {
            "mood": state["mood"],
            "weights": [attempt["weight"] for attempt in state["attempts"]],
            "note": state["plan"]["note"],
        }
        assert later == {"mood": MOOD, "weights": [0.5], "note": "later"}
        for gateway in self.fleet.newer():
            assert self.fleet.get(gateway, one.id)["routing"]["later"] == later


def test_callers_who_repeat_see_nothing_of_a_rollout_or_a_rollback(
    tmp_path: Path, newer: Path, upstream: BookKeeping
) -> None:
    done = threading.Event()
    with (
        ThreadPoolExecutor(CALLERS + 4) as pool,
        Mixed(tmp_path, 3, upstream=upstream) as fleet,
        Balancer([gateway.url for gateway in fleet.gateways]) as balancer,
    ):
        rounds = Rounds(fleet, newer, kills=False)
        callers = [pool.submit(calls, balancer.url, fleet.key.text, number, done) for number in range(CALLERS)]
        try:
            for number in range(ROUNDS):
                rounds.play(number, pool)
        finally:
            done.set()
        posted = {text: id for caller in callers for text, id in caller.result(60).items()}
        assert len(posted) > 3 * ROUNDS
        started = upstream.started()
        with fleet.gateways[0].client(key=fleet.key.text) as client:
            for text, id in posted.items():
                ended = fleet.until(lambda id=id: ended_of(client.get(f"/v1/predictions/{id}")), seconds=30)
                assert (ended["status"], ended["output"]) == ("succeeded", text)
                [attempt] = ended["routing"]["attempts"]
                assert attempt["status"] == "succeeded"
                assert "resolved_by" not in attempt, "nobody knew of it for a while"
                assert started[text] == 1
        assert upstream.stopped == {one.text for one in rounds.held if not one.is_released}
        assert_calm(fleet)
    print(f"{ROUNDS} restarts, {len(posted)} + {len(rounds.held)} predictions; exits within {max(rounds.exits):.1f} s")


def test_what_a_killed_replica_held_goes_on_at_one_of_the_other_version(
    tmp_path: Path, newer: Path, upstream: BookKeeping
) -> None:
    with ThreadPoolExecutor(4) as pool, Mixed(tmp_path, 2, lease=LEASE, upstream=upstream) as fleet:
        rounds = Rounds(fleet, newer, kills=True)
        for number in range(min(ROUNDS, 4)):
            rounds.play(number, pool)
        assert upstream.stopped == {one.text for one in rounds.held if not one.is_released}
        assert_calm(fleet)


def ended_of(answer: httpx.Response) -> Any:
    found = answer.raise_for_status().json()
    return found if found.get("completed_at") else None


def assert_calm(fleet: Fleet) -> None:
    """Nothing went wrong in a loop of theirs."""
    for gateway in fleet.gateways:
        assert "Traceback" not in gateway.log, gateway.log[-4000:]
        assert "broken off" not in gateway.log


class TestWords:
    """What is said in a word that this version does not know is left to the next one."""

    @pytest.fixture
    def fleet(self, tmp_path: Path, newer: Path, upstream: BookKeeping) -> Iterator[Mixed]:
        with Mixed(tmp_path, 2, newer=newer, upstream=upstream) as fleet:
            yield fleet

    def test_it_is_left_alone_and_finished_by_who_knows_it(self, fleet: Mixed, newer: Path) -> None:
        ours, next_ = fleet.gateways
        text = f"{WARM}-made-by-the-next"
        id = fleet.hold(next_, text)["id"]
        assert fleet.attempt(next_, id)["status"] == "warming"
        self.assert_left_alone(fleet, ours, id, text)
        next_.stop(seconds=EXIT_SECONDS)
        fleet.until(lambda: f"prediction {id} is left as it is" in ours.log)
        self.assert_left_alone(fleet, ours, id, text)
        fleet.upstream.release(text)  # nobody is there to hear of it
        next_.start(seconds=START_SECONDS)
        assert fleet.ended(next_, id)["output"] == text
        assert fleet.get(ours, id)["output"] == text, "what is told in words that it knows it can read again"
        assert len(fleet.upstream.jobs(text)) == 1
        assert_calm(fleet)

    def assert_left_alone(self, fleet: Mixed, gateway: GatewayProcess, id: str, text: str) -> None:
        before = fleet.row(id)[0][b"state"]
        body = {"input": {"do": "hold", "text": text}}
        with gateway.client(key=fleet.key.text) as client:
            answers = [
                client.get(f"/v1/predictions/{id}"),
                client.get(f"/ops/v1/predictions/{id}"),
                client.post(f"/v1/predictions/{id}/cancel"),
                client.post("/v1/models/acme/job/predictions", json=body, headers={"idempotency-key": text}),
            ]
            listed = client.get("/v1/predictions").raise_for_status().json()["results"]
            searched = client.get("/ops/v1/predictions").raise_for_status().text
        assert [answer.status_code for answer in answers] == [503] * 4
        assert all("retry-after" in answer.headers for answer in answers)
        assert id not in [one["id"] for one in listed]
        assert id not in searched
        # Others go on beside it.
        assert fleet.post(gateway, "in between", do="echo", prefer="wait=10")["output"] == "in between"
        assert fleet.row(id)[0][b"state"] == before

    def test_what_becomes_so_under_its_holder_is_let_go_and_streamed_on(
        self, fleet: Mixed, upstream: BookKeeping
    ) -> None:
        ours, next_ = fleet.gateways
        text = f"{WARM}-made-by-this"
        posted = fleet.hold(ours, text)
        id, holder = posted["id"], fleet.row(posted["id"])[0][b"worker"]
        with ThreadPoolExecutor(1) as pool:
            stream = pool.submit(events, fleet, ours, posted["urls"]["stream"])
            upstream.nudge(upstream.held(text))  # it goes to the next version, which looks
            fleet.until(lambda: fleet.attempt(next_, id)["status"] == "warming")
            fleet.until(lambda: fleet.row(id)[0][b"worker"] not in (b"", holder), seconds=10)
            upstream.release(text)
            assert fleet.ended(next_, id)["output"] == text
            begun = time.monotonic()
            assert [event for _, event in stream.result(20)] == ["output", "done"]
            assert time.monotonic() - begun < 5.0
        begun = time.monotonic()
        ours.stop(seconds=EXIT_SECONDS)
        assert time.monotonic() - begun < 10.0, "it held on to what it cannot read"
        assert_calm(fleet)


def test_one_that_the_store_is_too_new_for_refuses_to_start_and_those_that_run_go_on(
    tmp_path: Path, newer: Path, upstream: BookKeeping
) -> None:
    with Mixed(tmp_path, 2, newer=newer, upstream=upstream) as fleet:
        ours, other = fleet.gateways
        store = {b"format": b"%d" % (FORMAT + 1), b"min_format": b"%d" % FORMAT}
        with fleet.redis.client() as client:
            assert store.items() <= client.hgetall("turnout:{s0}:store").items()
        # What only adds lets this version in, and this one takes nothing back.
        fleet.turn(ours, None)
        with fleet.redis.client() as client:
            assert store.items() <= client.hgetall("turnout:{s0}:store").items()

        fleet.turn(other, next_version.make(tmp_path / "more", asks_for_more=True))
        assert fleet.post(ours, "still here", do="echo", prefer="wait=10")["output"] == "still here"
        assert fleet.post(other, "and here", do="echo", prefer="wait=10")["output"] == "and here"
        said = len(ours.log)
        ours.stop(seconds=EXIT_SECONDS)
        with pytest.raises(AssertionError, match="it does not run"):
            ours.start(seconds=START_SECONDS)
        [line] = [line for line in ours.log[said:].splitlines() if "newer Turnout" in line]
        assert f"format {FORMAT + 1}, for {FORMAT + 1} and later; this one knows {FORMAT}" in line
        assert "Traceback" not in ours.log[said:]
