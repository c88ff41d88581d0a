"""Gateway processes on a real redis-server: served, frozen, killed, shared, refused."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.redis.conftest import BODY, STORE_SECONDS, MakeGateway
from tests.redis.server import RedisServer
from tests.waiting import until

MARGIN_SECONDS = 1.0  # two cores, and others at work on them
ENDED = {"succeeded", "failed", "canceled"}


Answer = tuple[int, float, str]  # status, seconds, and the id if it was accepted


def post(gateway: GatewayProcess, *, wait: bool = False) -> Answer:
    with gateway.client() as client:
        return post_by(client, {"prefer": "wait=10"} if wait else {})


def post_by(client: httpx.Client, headers: dict[str, str] | None = None) -> Answer:
    begun = time.monotonic()
    answer = client.post("/v1/predictions", json=BODY, headers=headers)
    return answer.status_code, time.monotonic() - begun, answer.json().get("id", "")


def ended(gateway: GatewayProcess, id: str, *, seconds: float = 10.0) -> str:
    with gateway.client() as client:

        def status() -> str:
            return str(client.get(f"/v1/predictions/{id}").json().get("status"))

        return until(
            lambda: found if (found := status()) in ENDED else "",
            seconds=seconds,
            or_else=lambda: f"{id} is {status()}",
        )


def all_ids(gateway: GatewayProcess) -> set[str]:
    with gateway.client() as client:
        return {one["id"] for one in client.get("/v1/predictions").json()["results"]}


def status_of(gateway: GatewayProcess, path: str) -> int:
    return httpx.get(f"{gateway.url}{path}", timeout=5, trust_env=False).status_code


def until_accepted(gateway: GatewayProcess, *, seconds: float = 8.0) -> str:
    def accepted() -> str:
        status, _, id = post(gateway)
        assert status in (201, 503)
        return id if status == 201 else ""

    return until(accepted, seconds=seconds, or_else="it does not accept again")


def test_the_first_prediction_goes_through(gateway: GatewayProcess) -> None:
    status, _, id = post(gateway, wait=True)
    assert status == 201
    assert ended(gateway, id) == "succeeded"


@pytest.mark.timeout(60)  # several bounds of frozen time, and a gateway with its local backend
def test_a_frozen_server_gives_503_within_the_bound_and_leaves_nothing_behind(
    gateway: GatewayProcess, server: RedisServer
) -> None:
    accepted = {post(gateway, wait=True)[2]}
    server.freeze()
    try:
        with ThreadPoolExecutor(24) as crowd, gateway.client() as client:
            answers = list(crowd.map(lambda _: post_by(client), range(72)))
        assert {status for status, _, _ in answers} == {503}
        assert max(seconds for _, seconds, _ in answers) < STORE_SECONDS + MARGIN_SECONDS
        assert status_of(gateway, "/livez") == 200
        assert status_of(gateway, "/readyz") == 503
    finally:
        server.thaw()
    accepted.add(until_accepted(gateway))
    assert all(ended(gateway, id) == "succeeded" for id in accepted)
    assert all_ids(gateway) == accepted, "a 503 that was none"
    # What it said last keeps for a second.
    until(lambda: status_of(gateway, "/readyz") == 200, seconds=5, or_else="it does not say that it is ready")
    with server.client() as client:
        assert client.info("clients")["connected_clients"] < 12, "connections that nobody closes"


@pytest.mark.timeout(60)  # as above
def test_a_freeze_amid_creates_never_gives_a_false_201(gateway: GatewayProcess, server: RedisServer) -> None:
    """Some of those it freezes amid may stand though they were answered 503; whatever was answered 201 must."""
    answers: list[Answer] = []
    over = threading.Event()

    def ask() -> None:
        with gateway.client() as client:
            while not over.is_set():
                answers.append(post_by(client))

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for _ in range(3):
        count = len(answers)
        until(lambda count=count: len(answers) >= count + 20, or_else="nothing is answered")
        server.freeze()
        time.sleep(1.5 * STORE_SECONDS)  # the time that is frozen is what this is about
        server.thaw()
    over.set()
    for asker in askers:
        asker.join()
    accepted = [id for status, _, id in answers if status == 201]
    assert {status for status, _, _ in answers} == {201, 503}
    assert max(seconds for _, seconds, _ in answers) < STORE_SECONDS + MARGIN_SECONDS
    assert len(accepted) >= 60
    assert all(ended(gateway, id, seconds=30) == "succeeded" for id in accepted)


@pytest.mark.timeout(60)  # as above
def test_a_server_that_is_killed_and_started_again_has_all_that_was_accepted(
    gateway: GatewayProcess, server: RedisServer
) -> None:
    accepted = [post(gateway)[2] for _ in range(10)]
    for _ in range(3):
        server.kill()
        assert post(gateway)[0] == 503
        assert status_of(gateway, "/livez") == 200
        server.start()
        accepted.append(until_accepted(gateway))
    assert [ended(gateway, id) for id in accepted] == ["succeeded"] * len(accepted)
    assert gateway.is_running


@pytest.mark.timeout(60)  # two gateways with their local backends
def test_two_processes_on_one_server_see_each_others_predictions(make_gateway: MakeGateway) -> None:
    with make_gateway("one") as one, make_gateway("two") as two:
        first, second = post(one)[2], post(two)[2]
        assert ended(two, first) == ended(one, second) == "succeeded"
        assert all_ids(one) == all_ids(two) == {first, second}
        with one.client() as client:
            output = client.get(f"/v1/predictions/{second}").json()["output"]
            assert client.get(output.replace(two.url, one.url)).status_code == 200


def serve(folder: Path, config: str) -> subprocess.CompletedProcess[str]:
    (folder / "turnout.toml").write_text(config)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, "-m", "gateway", "serve", "--port", "0"]
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.timeout(40)  # a process that imports everything, on a busy machine
def test_a_server_that_evicts_is_refused_before_anything_is_served(tmp_path: Path, server: RedisServer) -> None:
    with server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendfsync", "everysec")
        keys_before = client.dbsize()
        ended = serve(tmp_path, f'[store]\nurl = "{server.url}"\ndurability = "aof-always"\n')
        assert client.dbsize() == keys_before
    assert ended.returncode == 2
    assert ended.stdout == ""
    first, second = ended.stderr.splitlines()
    place = f"turnout: turnout.toml:2: store.url: redis at 127.0.0.1:{server.port}: "
    assert first == (
        f'{place}appendfsync is everysec, too little for durability = "aof-always"; set appendfsync always there, '
        'or checks = "warn" in [store]'
    )
    assert second == (
        f"{place}maxmemory-policy is allkeys-lru: when memory is short it deletes accepted predictions; "
        'set maxmemory-policy noeviction there, or checks = "warn" in [store]'
    )


@pytest.mark.timeout(60)  # two processes, one after the other
def test_a_second_process_on_one_file_is_refused_with_a_word_about_redis(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "first", f'[store]\nurl = "sqlite:///{tmp_path}/t.db"\n[local]\nenabled = false\n'):
        ended = serve(tmp_path, f'[store]\nurl = "sqlite:///{tmp_path}/t.db"\n[local]\nenabled = false\n')
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "another process has this store open" in line
    assert "use Redis for several processes" in line
