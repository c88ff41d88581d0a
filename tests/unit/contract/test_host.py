from __future__ import annotations

import pytest

from gateway.contract.host import host_of, is_loopback


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Hooks.Example:8443/x", "hooks.example"),
        ("https://user@[2001:DB8::1]:8443/x", "2001:db8::1"),
        ("https://[::1/", ""),
        ("mailto:x", ""),
    ],
)
def test_a_host_is_in_lower_case_and_without_its_port(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("127.0.0.1.example", False),
        ("localhost.example", False),
        ("me.localhost", False),
        ("", False),
    ],
)
def test_only_what_cannot_be_reached_from_elsewhere_is_loopback(host: str, is_ours: bool) -> None:
    assert is_loopback(host) is is_ours
