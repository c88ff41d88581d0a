"""`turnout serve --workers N`: one address, one greeting, one page of metrics, no worker that outlives its parent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.redis.server import RedisServer
from tests.waiting import until

pytestmark = pytest.mark.timeout(120)  # each starts several processes

START_SECONDS = 40.0
CONFIG = """
[server]
workers = {workers}
[store]
url = "{url}"
[local]
enabled = {local}
"""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def gateway(tmp_path: Path, redis: RedisServer) -> Iterator[GatewayProcess]:
    config = CONFIG.format(workers=2, url=redis.url, local="false")
    gateway = GatewayProcess(tmp_path, config)
    gateway.start(seconds=START_SECONDS)
    try:
        yield gateway
    finally:
        gateway.kill()


def workers_of(gateway: GatewayProcess) -> list[int]:
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"--as-worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def pages(gateway: GatewayProcess, count: int) -> list[str]:
    """/metrics by `count` connections, as they are shared out."""
    found = []
    for _ in range(count):
        with gateway.client() as client:
            found.append(client.get("/metrics").raise_for_status().text)
    return found


def test_they_greet_once_and_take_the_same_key(gateway: GatewayProcess) -> None:
    said = (gateway.folder / "stdout.log").read_text()
    assert said.count("serves at") == 1
    assert "by 2 workers" in said
    for _ in range(12):
        with gateway.client() as client:
            assert client.get("/v1/account").status_code == 200


def test_whichever_is_asked_counts_for_all(gateway: GatewayProcess) -> None:
    asked = 30
    for _ in range(asked):
        with gateway.client() as client:  # a connection of its own, for whoever takes it
            assert client.get("/v1/models").status_code == 200
    for page in pages(gateway, 4):
        assert 'turnout_worker_up{worker="0"} 1.0' in page
        assert 'turnout_worker_up{worker="1"} 1.0' in page
        counts = re.findall(
            r'^http_server_request_duration_seconds_count\{worker="(\d)"[^}]*http_route="/v1/models"[^}]*\} (\S+)$',
            page,
            re.MULTILINE,
        )
        assert sum(float(count) for _, count in counts) == asked, counts
        assert page.count("# TYPE http_server_request_duration_seconds ") == 1


def test_one_that_dies_is_started_again_while_the_others_serve(gateway: GatewayProcess) -> None:
    before = workers_of(gateway)
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    until(lambda: before[0] not in workers_of(gateway), seconds=5, or_else="it was not missed")
    for _ in range(5):
        with gateway.client() as client:
            assert client.get("/v1/account").status_code == 200
    until(
        lambda: re.findall(r"^turnout_worker_up\{.*\} (\S+)$", pages(gateway, 1)[0], re.MULTILINE) == ["1.0", "1.0"],
        seconds=START_SECONDS,
        or_else="it was not started again",
    )
    assert before[1] in workers_of(gateway)
    assert "ended with signal 9; it is started again" in gateway.log


def test_sigterm_ends_them_all(gateway: GatewayProcess) -> None:
    workers = workers_of(gateway)
    begun = time.monotonic()
    gateway.stop(seconds=25)
    assert time.monotonic() - begun >= 2.0, "they were not unready before they closed"
    assert not any(is_alive(pid) for pid in workers)
    assert "started again" not in gateway.log


def test_a_second_signal_means_now(gateway: GatewayProcess) -> None:
    workers = workers_of(gateway)
    os.kill(gateway.pid, signal.SIGTERM)
    time.sleep(0.2)  # two signals at one moment are one
    begun = time.monotonic()
    os.kill(gateway.pid, signal.SIGTERM)
    until(lambda: not gateway.is_running, seconds=5, or_else="it drains on")
    assert time.monotonic() - begun < 1.5
    until(lambda: not any(is_alive(pid) for pid in workers), seconds=5, or_else="a worker was left behind")


def test_no_worker_outlives_its_parent(gateway: GatewayProcess) -> None:
    workers = workers_of(gateway)
    gateway.kill()
    until(lambda: not any(is_alive(pid) for pid in workers), seconds=25, or_else="a worker was left behind")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{gateway.url}/livez", trust_env=False)


def test_each_line_of_the_log_says_which_worker_wrote_it(tmp_path: Path, redis: RedisServer) -> None:
    (tmp_path / "policies").mkdir()
    config = CONFIG.format(workers=2, url=redis.url, local="false") + '[policies]\nfiles = ["policies"]\n'
    gateway = GatewayProcess(tmp_path, config)
    gateway.start(seconds=START_SECONDS)
    try:
        (tmp_path / "policies" / "wrong.toml").write_text("wrong = true\n")
        said = re.compile(r"^\S+ ERROR +worker (\d) \S+: policies refused", re.MULTILINE)
        until(lambda: set(said.findall(gateway.log)) == {"0", "1"}, seconds=10, or_else="a worker is not told apart")
    finally:
        gateway.kill()


def test_they_share_one_local_backend(tmp_path: Path, redis: RedisServer) -> None:
    gateway = GatewayProcess(tmp_path, CONFIG.format(workers=2, url=redis.url, local="true"))
    gateway.start(seconds=START_SECONDS)
    try:
        children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in children]
        assert sum(b"local_backend" in command for command in commands) == 1
        for pid in workers_of(gateway):
            assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == ""
        until(
            lambda: pages(gateway, 1)[0].count('turnout_device="cpu"} 1.0') == 2,
            seconds=START_SECONDS,
            or_else="a worker does not find it",
        )
        assert 'turnout_local_backend_starts_total{worker="0"} 1.0' in pages(gateway, 1)[0]
        gateway.stop(seconds=25)
    finally:
        gateway.kill()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('[store]\nurl = "sqlite:///here.db"\n', "workers cannot share SQLite"),
        ('[store]\nurl = "redis://127.0.0.1:1/0"\n', "store.url: redis at 127.0.0.1:1 cannot be reached"),
    ],
    ids=["a store for one", "a store that is not there"],
)
def test_what_is_wrong_is_said_once(config: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(config + "[local]\nenabled = false\n")
    command = [sys.executable, "-m", "gateway", "serve", "--config", "config.toml", "--port", "0", "--workers", "3"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count(said) == 1, ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr


def test_a_worker_is_not_started_by_hand(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway", "serve", "--as-worker"]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
    )
    assert ended.returncode == 2
    assert "`turnout serve --workers N`" in ended.stderr
