"""Delays, addresses and the installed runtime: what needs no process."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from gateway.contract.clock import SystemClock
from gateway.contract.errors import ConfigurationError
from local_backend.address import bind, read_address
from local_backend.supervisor import Backoff, LocalBackend, Timing


def test_delays_double_to_their_most_and_begin_anew_after_a_stable_life() -> None:
    backoff = Backoff(Timing())
    delays = [backoff.after(0) for _ in range(10)]
    assert delays[:4] == [0.2, 0.4, 0.8, 1.6]
    assert delays[-1] == max(delays) == 30
    assert backoff.after(59.9) == 30
    assert [backoff.after(60), backoff.after(0)] == [0.2, 0.4]


@pytest.mark.parametrize(
    ("text", "url", "is_private"),
    [
        ("unix:/run/x.sock", "unix:/run/x.sock", True),
        ("tcp://127.0.0.1:80", "http://127.0.0.1:80", True),
        ("tcp://localhost:80", "http://localhost:80", True),
        ("tcp://[::1]:80", "http://[::1]:80", True),
        ("tcp://0.0.0.0:80", "http://0.0.0.0:80", False),
        ("tcp://10.0.0.5:80", "http://10.0.0.5:80", False),
        ("tcp://models.internal:80", "http://models.internal:80", False),
    ],
)
def test_addresses_are_read(text: str, url: str, is_private: bool) -> None:
    address = read_address(text)
    assert (address.url, address.listen, address.is_private) == (url, text, is_private)


@pytest.mark.parametrize(
    "text",
    ["", "unix:", "unix:relative", "unix:/" + "x" * 200, "tcp://1.2.3.4", "tcp://:80", "http://x:80", "tcp://x:99999"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="listen = "):
        read_address(text)


def test_a_socket_left_by_the_dead_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    address = read_address(f"unix:{tmp_path}/s")
    dead, _ = bind(address)
    dead.close()
    alive, _ = bind(address)
    with alive:
        assert stat.S_IMODE(os.stat(address.path).st_mode) == 0o600
        alive.listen(1)
        with pytest.raises(ConfigurationError, match="cannot be bound"):
            bind(address)


def test_a_file_that_is_no_socket_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(ConfigurationError, match="cannot be bound"):
        bind(read_address(f"unix:{tmp_path}/s"))
    assert (tmp_path / "s").read_text() == "precious"


def test_a_port_in_use_is_refused_in_one_line() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigurationError, match="cannot be bound") as refused,
    ):
        bind(read_address(f"tcp://127.0.0.1:{taken.getsockname()[1]}"))
    assert "\n" not in str(refused.value)


async def test_a_chosen_port_is_reserved_and_nobody_answers_on_it_yet() -> None:
    backend = LocalBackend(clock=SystemClock(), listen="tcp://127.0.0.1:0")
    port = int(backend.address.rpartition(":")[2])
    assert port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    await backend.aclose()


async def test_the_gateways_child_listens_on_this_machine_only() -> None:
    with pytest.raises(ConfigurationError, match="other machines"):
        LocalBackend(clock=SystemClock(), listen="tcp://0.0.0.0:0")


async def test_a_folder_too_deep_for_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(ConfigurationError, match="too long for a socket"):
        LocalBackend(clock=SystemClock())
    assert list(deep.iterdir()) == []
