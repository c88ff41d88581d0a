"""The commands as a user runs them: real processes, exit codes, nothing half-started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.waiting import until


def turnout(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, "-m", "gateway", *words]
    return subprocess.run(command, cwd=cwd, env=kept | environ, capture_output=True, text=True, timeout=15, check=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nport = ", "turnout.toml:2: not TOML"),
        ("[server]\nprot = 1", 'turnout.toml:2: server.prot: unknown key "prot"; did you mean "port"?'),
        ('[providers.x]\nadapter = "replicate"\ntoken = "env:GONE"', "turnout.toml:3: providers.x.token: environment"),
        ('[server]\nhost = "203.0.113.7"', "203.0.113.7"),
        ('[store]\nurl = "sqlite:////proc/nowhere/turnout.db"', "/proc/nowhere"),
    ],
)
def test_serve_refuses_what_is_wrong_in_one_line_and_starts_nothing(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "turnout.toml").write_text(text)
    ended = turnout("serve", "--port", "0", cwd=tmp_path)
    assert ended.returncode == 2, ended.stderr
    assert said in ended.stderr
    assert ended.stderr.startswith("turnout: ")
    assert len(ended.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["turnout.toml"]


def test_serve_refuses_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        ended = turnout("serve", "--port", str(port), cwd=tmp_path)
    assert ended.returncode == 2, ended.stderr
    assert str(port) in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_check_explain_and_doctor_need_no_configuration(tmp_path: Path) -> None:
    check = turnout("check", cwd=tmp_path)
    assert (check.returncode, check.stderr) == (0, "")
    assert "turnout/upscaler" in check.stdout
    explain = turnout("explain", "turnout/upscaler", cwd=tmp_path)
    assert (explain.returncode, explain.stderr) == (0, "")
    assert "turnout/upscaler@local" in explain.stdout
    doctor = turnout("doctor", cwd=tmp_path)
    assert doctor.stderr == ""
    assert doctor.returncode == 0, doctor.stdout
    assert "ONNX Runtime" in doctor.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(40)  # a process that imports everything, twice
def test_a_second_signal_ends_it_undrained_and_its_store_can_be_opened_again(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path, "[local]\nenabled = false\n[catalogue]\nenabled = false\n") as gateway:

        def is_unready() -> bool:
            return httpx.get(f"{gateway.url}/readyz", trust_env=False).status_code == 503

        gateway.ask_to_stop()
        until(is_unready, seconds=2, or_else="it has not heard the first")
        gateway.ask_to_stop()
        until(lambda: not gateway.is_running, seconds=5, or_else="it drains on")
        assert gateway._process is not None
        assert gateway._process.returncode == -signal.SIGTERM, "it has drained"
        gateway.start()
