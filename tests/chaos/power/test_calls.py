"""What was told was on the disk: the system calls of real processes, in their order."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from gateway.contract.key import new_key
from tests.chaos.power import calls
from tests.chaos.power.calls import Call, needs_strace
from tests.e2e.gateway_process import GatewayProcess
from tests.waiting import until

ROOT = Path(__file__).parents[3]
PREDICTIONS = 30
CONFIG = """
[keys.app]
hash = "{hash}"
[local]
enabled = false
[catalogue]
enabled = false
[providers.gone]
adapter = "replicate"
base_url = "http://127.0.0.1:9"
credentials = {{ token = "file:token" }}
[[models]]
name = "acme/echo"
[[models.offers]]
provider = "gone"
name = "acme/echo"
price = {{ per_prediction = "0.01" }}
"""


def early(seen: list[Call], told: list[tuple[str, Call]], log: str) -> list[str]:
    """
    Of (id, the call that told of it) those ids that were told before a sync of their frames in the log had ended.

    An id stands in the frames as it is; the first frame with it is one of its creation.
    """
    frames = [call for call in seen if call.is_on(log) and call.name.startswith("pwrite")]
    syncs = [call for call in seen if call.is_on(log) and call.is_sync]
    wrong: list[str] = []
    for id, call in told:
        written = min((frame.ended for frame in frames if id in frame.arguments), default=None)
        if written is None or not any(sync.begun > written and sync.ended < call.begun for sync in syncs):
            wrong.append(id)
    return wrong


def read_whole(out: Path, is_whole: Callable[[list[Call]], bool]) -> list[Call]:
    """What strace writes comes a moment after the end of what it looked at."""
    return until(
        lambda: seen if is_whole(seen := calls.read(out)) else None,
        seconds=5,
        or_else=lambda: f"strace has seen {len(calls.read(out))} calls",
    )


@needs_strace
def test_each_create_is_told_after_its_frames_were_synced(tmp_path: Path) -> None:
    out = tmp_path / "calls"
    command = [
        sys.executable,
        "-m",
        "tests.chaos.power.creator",
        str(tmp_path / "new" / "turnout.db"),
        f"{PREDICTIONS}",
    ]
    ended = subprocess.run([*calls.prefix(out), *command], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    ids = [line.split()[2] for line in ended.stdout.splitlines()]

    def is_told(call: Call) -> bool:
        return call.name == "write" and call.arguments.startswith("1<") and '"told ' in call.arguments

    seen = read_whole(out, lambda seen: sum(map(is_told, seen)) == PREDICTIONS)
    assert len(ids) == PREDICTIONS
    assert early(seen, list(zip(ids, filter(is_told, seen), strict=True)), "turnout.db-wal") == []
    syncs = [call for call in seen if call.is_on("turnout.db-wal") and call.is_sync]
    assert len(syncs) >= PREDICTIONS
    # That there is such a file, and such a folder, was synced before the first of them.
    first = next(call.begun for call in seen if is_told(call))
    for folder in (tmp_path, tmp_path / "new"):
        assert any(call.is_sync and call.is_on(str(folder)) and call.ended < first for call in seen), folder


class Looked(GatewayProcess):
    """A gateway under strace."""

    def _spawn(
        self, arguments: list[str], environ: dict[str, str], out: IO[bytes], err: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        command = [*calls.prefix(self.folder / "calls"), sys.executable, "-m", "gateway", *arguments]
        environ = environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, cwd=self.folder, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err)


@needs_strace
@pytest.mark.timeout(60)  # a gateway's start, several times slower than usual
def test_each_201_is_sent_after_its_frames_were_synced(tmp_path: Path) -> None:
    key = new_key()
    (tmp_path / "token").write_text("none")
    with Looked(tmp_path, CONFIG.format(hash=key.hash), key=key.text) as gateway, gateway.client() as client:
        ids: list[str] = []
        for number in range(PREDICTIONS):
            answer = client.post("/v1/models/acme/echo/predictions", json={"input": {"number": number}})
            assert answer.status_code == 201, answer.text
            ids.append(answer.json()["id"])

    def is_told(call: Call) -> bool:
        return "HTTP/1.1 201" in call.arguments

    seen = read_whole(tmp_path / "calls", lambda seen: sum(map(is_told, seen)) == PREDICTIONS)
    assert early(seen, list(zip(ids, filter(is_told, seen), strict=True)), "turnout.db-wal") == []
    assert len([call for call in seen if call.is_on("turnout.db-wal") and call.is_sync]) >= PREDICTIONS


def test_what_is_told_too_early_is_seen() -> None:
    log = "turnout.db-wal"
    write = Call(0, 0, 0.0, "pwrite64", '9</x/turnout.db-wal>, "\\0\\1abc\\0"', 1)
    sync = Call(1, 3, 0.0, "fdatasync", "9</x/turnout.db-wal>", 0)
    before = Call(2, 2, 0.0, "sendto", "told", 1)
    after = before._replace(begun=4, ended=4)
    assert early([write, sync], [("abc", after)], log) == []
    assert early([write, sync], [("abc", before)], log) == ["abc"]  # while it was being synced
    assert early([write, sync], [("xyz", after)], log) == ["xyz"]
    assert early([write, sync._replace(result=-1)], [("abc", after)], log) == ["abc"]
    assert early([write._replace(begun=2, ended=2), sync], [("abc", after)], log) == ["abc"]  # begun before it
    assert early([write, sync._replace(arguments="9</x/turnout.db>")], [("abc", after)], log) == ["abc"]


def test_lines_that_strace_has_cut_in_two_are_put_together() -> None:
    lines = [
        "1 5.000001 fdatasync(7</x/turnout.db-wal> <unfinished ...>",
        '2 5.000002 write(1<pipe:[9]>, "told", 4) = 4',
        "1 5.000003 <... fdatasync resumed>) = 0",
        "1 5.000004 +++ exited with 0 +++",
    ]
    [told, sync] = calls._read(lines)
    assert (told.begun, told.ended, told.name, told.result) == (1, 1, "write", 4)
    assert (sync.begun, sync.ended, sync.at, sync.is_sync) == (0, 2, 5.000001, True)
    assert sync.is_on("turnout.db-wal")
    assert not sync.is_on("turnout.db")
