"""`turnout deliveries` against a running gateway: lists, shows, sends again; and says what is wrong in one line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.models import write_schemas
from tests.e2e.receiver import Receiver
from tests.e2e.test_operations import CALLER, CONFIG, OPS, Ops, until
from tests.e2e.upstream import Upstream


@pytest.fixture(scope="module")
def ops(upstream: Upstream, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ops]:
    folder: Path = tmp_path_factory.mktemp("deliveries")
    write_schemas(folder, "job")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        config = CONFIG.format(
            receiver=receiver.place, upstream=upstream.url, nobody=nobody.getsockname()[1], ops=OPS.hash,
            caller=CALLER.hash,
        )  # fmt: skip
        with GatewayProcess(folder, config) as gateway:
            ops = Ops(gateway)
            with ops.admin, ops.shop:
                yield ops


def turnout(ops: Ops, *words: str, key: str = OPS.text) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("TURNOUT_", "REPLICATE_"))}
    environ |= {"TURNOUT_URL": str(ops.admin.base_url), "TURNOUT_KEY": key}
    return subprocess.run(
        [sys.executable, "-m", "gateway", "deliveries", *words], env=environ, capture_output=True, text=True, timeout=20
    )


def test_a_webhook_is_shown_and_sent_again_with_one_id_and_body(ops: Ops, receiver: Receiver) -> None:
    one = ops.predict("echo", "tell me", webhook=f"http://{receiver.place}/by-command")
    receiver.until("/by-command", lambda arrived: len(arrived) == 1)
    until(lambda: ops.get(f"predictions/{one['id']}")["deliveries"][-1]["ended"] == "delivered")
    shown = turnout(ops, "show", one["id"])
    assert shown.returncode == 0, shown.stderr
    assert "delivered" in shown.stdout
    assert "HTTP 200" in shown.stdout
    again = turnout(ops, "retry", "--prediction", one["id"], key=CALLER.text)
    assert again.returncode == 0, again.stderr
    first, second = receiver.until("/by-command", lambda arrived: len(arrived) == 2)
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_a_host_that_was_away_gets_all_that_it_missed(ops: Ops, receiver: Receiver) -> None:
    with socket.socket() as away:
        away.bind(("127.0.0.1", 0))
    ids = [ops.predict("echo", f"missed {n}", webhook=f"http://{receiver.place}/missed")["id"] for n in range(3)]
    receiver.until("/missed", lambda arrived: len(arrived) == 3)
    until(lambda: all(ops.get(f"predictions/{id}")["deliveries"][-1]["ended"] == "delivered" for id in ids))
    retried = turnout(ops, "retry", "--host", receiver.place.partition(":")[0], "--json")
    assert retried.returncode == 0, retried.stderr
    assert json.loads(retried.stdout)["retried"] == 0, "what has arrived is not sent again"
    assert json.loads(retried.stdout)["found"] >= 3
    mistyped = turnout(ops, "retry", "--host", "hoks.example")
    assert (mistyped.returncode, "has a webhook to hoks.example; look at its name" in mistyped.stderr) == (1, True)
    listed = turnout(ops, "list")
    assert (listed.returncode, "Nothing waits" in listed.stdout) == (0, True), listed.stdout


@pytest.mark.parametrize(
    ("words", "key", "said"),
    [
        (("show", "0" * 26), OPS.text, "has no such prediction"),
        (("list",), CALLER.text, 'no scope "admin"'),
        (("list",), "tk_wrong", "does not know this key"),
        (("list", "--url", "http://127.0.0.1:9"), OPS.text, "nobody answers at http://127.0.0.1:9"),
        (("list", "--url", "ftp://x"), OPS.text, "is no address"),
        (("list", "--key", "the-key-itself"), OPS.text, "by reference only"),
        (("list", "--key", "env:NOT_THERE"), OPS.text, "NOT_THERE is not set"),
        (("list", "--key", "file:/nowhere/at/all"), OPS.text, "cannot be read"),
    ],
    ids=("nobody's id", "no admin", "unknown", "nobody there", "no address", "bare", "no variable", "no file"),
)
def test_what_is_wrong_is_said_in_one_line(ops: Ops, words: tuple[str, ...], key: str, said: str) -> None:
    done = turnout(ops, *words, key=key)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "the-key-itself" not in done.stderr
