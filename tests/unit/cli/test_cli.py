from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

import gateway
from gateway.cli import main
from gateway.contract.errors import ConfigurationError, StoreUnavailable

ALONE = [sys.executable, "-m", "gateway"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """`turnout check` as a module of our own."""
    module = types.ModuleType("tests.command")
    monkeypatch.setitem(sys.modules, "tests.command", module)
    monkeypatch.setitem(__import__("gateway.cli", fromlist=["cli"])._COMMANDS, "check", "tests.command")
    return module


def test_faults_of_the_configuration_are_a_line_each_and_exit_2(
    command: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: object) -> int:
        raise ConfigurationError("a.toml:1: x; do y\na.toml:2: z; do w")

    command.run = run  # type: ignore[attr-defined]
    assert main(["check"]) == 2
    said = capsys.readouterr()
    assert said.err == "turnout: a.toml:1: x; do y\nturnout: a.toml:2: z; do w\n"
    assert said.out == ""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (StoreUnavailable("disk full"), 1, "turnout: disk full\n"),
        (ConfigurationError(""), 2, "turnout: no reason was given\n"),
        (KeyboardInterrupt(), 1, ""),
    ],
)
def test_other_ends_are_said_without_a_trace(
    error: BaseException, code: int, said: str, command: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: object) -> int:
        raise error

    command.run = run  # type: ignore[attr-defined]
    assert main(["check"]) == code
    assert capsys.readouterr().err == said


def test_a_bug_is_not_dressed_up_as_anything_else(command: types.ModuleType) -> None:
    def run(options: object) -> int:
        raise ZeroDivisionError

    command.run = run  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        main(["check"])


@pytest.mark.parametrize(
    "words",
    [[], ["sreve"], ["serve", "--port", "x"], ["serve", "--port", "70000"], ["explain"], ["keys"], ["check", "extra"]],
)
def test_wrong_arguments_exit_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: turnout")


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"turnout {gateway.__version__}\n"
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"turnout {gateway.__version__}\n"


def test_help_needs_nothing_heavy() -> None:
    """What makes help slow is what it imports; a time would say more of the machine than of us."""
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "gateway", "--help"], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines() if line.startswith("import time:")}
    assert "argparse" in imported
    heavy = {"msgspec", "asyncio", "rich", "litestar", "uvicorn", "httpx", "opentelemetry", "numpy", "onnxruntime"}
    assert {name.partition(".")[0] for name in imported} & heavy == set()


def test_every_command_is_in_the_help() -> None:
    told = subprocess.run([*ALONE, "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("serve", "check", "explain", "demo", "simulator", "keys", "doctor", "version"):
        assert f"\n    {name}" in told


def test_a_reader_that_stops_listening_makes_no_noise(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [*ALONE, "keys", "new"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    said = child.stderr.read()
    child.stderr.close()
    child.wait()
    assert "Traceback" not in said
