"""Which addresses are public, which spellings are read, and what an allow list means."""

from __future__ import annotations

import ipaddress

import pytest

from gateway.contract.errors import ConfigurationError
from gateway.net.address import Allowed, is_never, is_public, read_literal

NOT_PUBLIC = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 100.100.100.200 127.0.0.1 127.255.255.254
168.63.129.16 169.254.169.254 169.254.0.1 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1
192.88.99.1 192.168.0.1 192.168.255.255 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1
239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1
::ffff:169.254.169.254 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 64:ff9b:1::808:808
100::1 2001::1 2001:0:7f00:1::1 2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:a00:1::
2002:808:808:: 3fff::1 5f00::1 fc00::1 fd00::1 fd00:ec2::254 fd20:ce::254 fe80::1 fec0::1 ff00::1 ff02::1
ff0e::1 4000::1 e000::1
"""
PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.255.255
172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 ::ffff:8.8.8.8
64:ff9b::808:808 2001:200::1 2001:4860:4860::8888 2606:4700::1111 2a00::1
"""
DOUBTFUL = """
127.1 0x7f.1 0x7f000001 2130706433 017700000001 0177.0.0.1 127.0.0.01 127.0.0.0x1 1 0 0x 1.2.3.4.5 256.1.1.1
127.0.0.1. a..b -a.example a-.example fe80::1%eth0 ::1%25lo [::1] a%2eb a/b a@b a:b é
"""


@pytest.mark.parametrize("text", NOT_PUBLIC.split())
def test_special_address_is_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", PUBLIC.split())
def test_neighbours_of_special_networks_are_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text", ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fe80::1", "ff02::1"]
)
def test_metadata_link_local_and_multicast_are_never_reached_by_name(text: str) -> None:
    assert is_never(ipaddress.ip_address(text))


@pytest.mark.parametrize("host", DOUBTFUL.split())
def test_doubtful_spelling_of_a_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError):
        read_literal(host)


@pytest.mark.parametrize("host", ["example.com", "a_b", "xn--bcher-kva.example", "db", "1and1.example", "a-1.example"])
def test_plain_names_are_names(host: str) -> None:
    assert read_literal(host) is None


def test_allow_list_tells_hosts_ports_addresses_and_networks_apart() -> None:
    allowed = Allowed(
        ["Hooks.internal", "db:5432", "10.1.2.3", "127.0.0.1:9000", "[::1]:9000", "fd00::/8", "10.2.0.0/16"]
    )
    assert allowed.has("hooks.internal", 1)
    assert allowed.has("db", 5432)
    assert not allowed.has("db", 5433)
    assert not allowed.has("x.hooks.internal", 1)
    assert allowed.has("10.1.2.3", 1)
    assert allowed.has("::ffff:10.1.2.3", 1)
    assert allowed.has("127.0.0.1", 9000)
    assert not allowed.has("127.0.0.1", 9001)
    assert allowed.has("::1", 9000)
    assert not allowed.has("::1", 80)
    assert allowed.has("fd12::1", 1)
    assert allowed.has("10.2.255.1", 1)
    assert not allowed.has("10.3.0.1", 1)


@pytest.mark.parametrize("entry", ["", "http://a", "a:0", "a:70000", "10.0.0.0/33", "10.0.0.1/8", "a b", "127.1", "*"])
def test_wrong_allow_entry_is_a_configuration_error_that_quotes_it(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="allow list") as caught:
        Allowed([entry])
    assert repr(entry) in str(caught.value)
    assert "\n" not in str(caught.value)
