"""No connection leaves for an address that may not be dialled, however it is spelt, resolved or redirected to."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest

from gateway.contract.errors import AddressForbidden
from gateway.net.target import Guard, SystemResolver
from gateway.net.transport import GuardedBackend, GuardedTransport, guarded_client
from tests.unit.net.canary import Canary, listening
from tests.unit.net.corpus import corpus


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    async with listening() as found:
        yield found


def resolving(*rounds: list[str]) -> Any:
    """A resolver that answers with one list after the other, the last for ever."""
    calls: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        calls.append(host)
        return rounds[min(len(calls), len(rounds)) - 1]

    resolve.calls = calls  # type: ignore[attr-defined]
    return resolve


async def names_as_system(host: str, port: int) -> list[str]:
    """What a system's resolver makes of odd spellings, without asking a name server for the rest."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return ["127.0.0.1"]  # the worst a name server could say
    return [str(entry[4][0]) for entry in found]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1.", "10.1.2.3:8000", "169.254.169.254", "192.168.0.1", "0.0.0.0", "[::1]", "[fe80::1]",
     "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "user@127.0.0.1", "2130706433", "0x7f.1", "127.1",
     "0177.0.0.1", "127。0。0。1", "①②⑦.0.0.1"],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_that_is_not_public_is_known_by_its_spelling(scheme: str, host: str) -> None:
    with pytest.raises(AddressForbidden):
        Guard(allow_http=True).check_literal(f"{scheme}://{host}/x")


@pytest.mark.parametrize(
    "url",
    ["http://localhost/x", "https://intern", "https://a.example.:22/x", "https://8.8.8.8:22/x", "https://bücher.example",
     "http://10.0.0.1.example/x", "https://own.example/x", "http://10.9.9.9:9000/x"],
)  # fmt: skip
def test_by_its_spelling_no_name_is_refused_and_nothing_that_is_public_or_allowed(url: str) -> None:
    Guard(["10.9.9.9:9000"], own_hosts=["own.example"]).check_literal(url)


async def test_no_url_of_the_hostile_corpus_reaches_loopback(canary: Canary) -> None:
    urls = corpus(canary.port)
    assert len(set(urls)) >= 250
    guard = Guard(allow_http=True, resolve=names_as_system)
    reached, forbidden = [], 0
    async with guarded_client(guard, timeout=2) as client:
        for url in urls:
            try:
                await client.get(url)
                reached.append(url)
            except AddressForbidden:
                forbidden += 1
            except (httpx.HTTPError, httpx.InvalidURL):
                pass
    assert (reached, canary.connections) == ([], 0)
    assert forbidden >= 230


async def test_corpus_would_reach_the_canary_without_the_guard(canary: Canary) -> None:
    """The control: the corpus holds real attacks, or the test above says nothing."""
    async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
        for host in ("127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"):
            await client.get(f"http://{host}:{canary.port}/hook")
    assert canary.connections == 4


@pytest.mark.parametrize(
    "url",
    [
        "http://public.example/", "https://user@public.example/", "https://127.1/", "https://localhost/", "https://[::1]/",
        "https://public.example:22/", "https://public.example\\x", "ftp://public.example/", "https://a\nb/", "", "https://",
        "https://public.example/" + "a" * 2048, "https://bücher.example/", "https://10.0.0.1/", "https://us.example:8000/",
    ],
)  # fmt: skip
def test_create_time_check_refuses_with_one_plain_sentence(url: str) -> None:
    with pytest.raises(AddressForbidden) as caught:
        Guard(own_hosts=["us.example:8000"]).check_url(url)
    assert len(str(caught.value)) > 20
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://public.example/hook?x=1&y=a%20b#z", "https://public.example:8443/", "https://hooks.internal/x", "https://8.8.8.8/",
        "https://[2606:4700::1111]/", "https://127.0.0.1:9000/", "https://xn--bcher-kva.example/", "https://under_score.example/",
        "https://us.example/elsewhere", "HTTPS://Public.Example/",
    ],
)  # fmt: skip
def test_create_time_check_lets_good_urls_pass(url: str) -> None:
    Guard(["127.0.0.1:9000", "hooks.internal"], own_hosts=["us.example:8000"]).check_url(url)


async def test_own_host_is_refused_even_when_allowed(canary: Canary) -> None:
    own = f"127.0.0.1:{canary.port}"
    guard = Guard(["127.0.0.1", "us.example"], allow_http=True, own_hosts=[own], resolve=resolving(["127.0.0.1"]))
    async with guarded_client(guard) as client:
        for host in ("127.0.0.1", "us.example"):
            with pytest.raises(AddressForbidden, match="itself"):
                await client.get(f"http://{host}:{canary.port}/")
    assert canary.connections == 0


async def test_rebinding_gets_one_lookup_per_connection_and_no_hit(canary: Canary) -> None:
    resolve = resolving(["93.184.216.34"], ["127.0.0.1"])
    guard = Guard(allow_http=True, resolve=resolve)
    url = f"http://rebound.example:{canary.port}/"
    guard.check_url(url)
    assert await guard.addresses("rebound.example", canary.port) == ["93.184.216.34"]
    async with guarded_client(guard) as client:
        with pytest.raises(AddressForbidden):
            await client.get(url)
    assert resolve.calls == ["rebound.example"] * 2
    assert canary.connections == 0


@pytest.mark.parametrize(
    "answers",
    [["93.184.216.34", "127.0.0.1"], ["127.0.0.1", "93.184.216.34"], ["::ffff:127.0.0.1"], ["fe80::1%1"], ["x"]],
)
async def test_one_forbidden_answer_among_public_ones_refuses_the_name(answers: list[str]) -> None:
    with pytest.raises(AddressForbidden):
        await Guard(resolve=resolving(answers)).addresses("two-faced.example", 443)


async def test_the_answer_that_passed_is_dialled_literally_and_in_order() -> None:
    dialled: list[str] = []

    class Stream(httpcore.AsyncMockStream):
        def get_extra_info(self, info: str) -> Any:
            return (dialled[-1], 443) if info == "server_addr" else None

    class Dial(httpcore.AsyncMockBackend):
        async def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
            dialled.append(host)
            if len(dialled) == 1:
                raise httpcore.ConnectError("refused")
            return Stream([b"HTTP/1.1 204 No Content\r\n\r\n"])

    transport = GuardedTransport(
        Guard(allow_http=True, resolve=resolving(["93.184.216.34", "2606:4700::1111"])), dial=Dial([])
    )
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        answer = await client.get("http://public.example/")
    assert answer.status_code == 204
    assert dialled == ["93.184.216.34", "2606:4700::1111"]


async def test_a_peer_other_than_the_dialled_address_is_hung_up_on() -> None:
    class Stream(httpcore.AsyncMockStream):
        def get_extra_info(self, info: str) -> Any:
            return ("127.0.0.1", 443)

    class Dial(httpcore.AsyncMockBackend):
        async def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
            return Stream([b"HTTP/1.1 204 No Content\r\n\r\n"])

    transport = GuardedTransport(Guard(allow_http=True, resolve=resolving(["93.184.216.34"])), dial=Dial([]))
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        with pytest.raises(AddressForbidden, match="not dialled"):
            await client.get("http://public.example/")


async def test_redirect_to_loopback_is_not_followed(canary: Canary) -> None:
    async with listening() as door:
        door.answer = lambda head: (
            f"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:{canary.port}/\r\ncontent-length: 0\r\n\r\n".encode()
        )
        guard = Guard([f"127.0.0.1:{door.port}"], allow_http=True)
        async with guarded_client(guard) as client:
            answer = await client.get(f"http://127.0.0.1:{door.port}/")
    assert (answer.status_code, door.connections, canary.connections) == (307, 1, 0)


@pytest.mark.parametrize(
    "name",
    [f"host-{n}.public.example" for n in range(10)] + ["xn--bcher-kva.example", "a_b.example", "deep.er.example"],
)
async def test_public_like_names_pass_when_they_lead_to_a_permitted_address(name: str, canary: Canary) -> None:
    guard = Guard(["127.0.0.1"], allow_http=True, resolve=resolving(["127.0.0.1"]))
    async with guarded_client(guard) as client:
        assert (await client.get(f"http://{name}:{canary.port}/x?y=z")).text == "ok"
    assert canary.requests[0].startswith(b"GET /x?y=z HTTP/1.1\r\nHost: " + name.encode())


async def test_private_receiver_allowed_by_name_is_reached_and_others_there_are_not(canary: Canary) -> None:
    guard = Guard([f"hooks.internal:{canary.port}"], allow_http=True, resolve=resolving(["127.0.0.1"]))
    async with guarded_client(guard) as client:
        assert (await client.get(f"http://hooks.internal:{canary.port}/")).text == "ok"
        for url in (f"http://other.internal:{canary.port}/", f"http://127.0.0.1:{canary.port}/"):
            with pytest.raises(AddressForbidden):
                await client.get(url)
    assert canary.connections == 1


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "168.63.129.16"]
)
async def test_an_allowed_name_still_cannot_lead_to_metadata(address: str) -> None:
    with pytest.raises(AddressForbidden):
        await Guard(["hooks.internal"], resolve=resolving([address])).addresses("hooks.internal", 443)


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "unknown"), UnicodeError("label too long"), OSError("no network")]
)
async def test_a_name_that_cannot_be_resolved_is_a_connect_error(error: Exception) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise error

    async with guarded_client(Guard(resolve=resolve)) as client:
        with pytest.raises(httpx.ConnectError, match="cannot be resolved"):
            await client.get("https://nowhere.example/")


async def test_a_silent_name_server_is_a_connect_timeout() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    async with guarded_client(Guard(resolve=resolve, dns_seconds=0.01)) as client:
        with pytest.raises(httpx.ConnectTimeout, match="not resolved"):
            await client.get("https://slow.example/")


async def test_system_resolver_names_each_address_once() -> None:
    assert await SystemResolver(threads=1)("127.0.0.1", 80) == ["127.0.0.1"]


async def test_proxies_of_the_environment_are_not_used(canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with guarded_client(Guard([f"127.0.0.1:{canary.port}"], allow_http=True)) as client:
            assert (await client.get(f"http://127.0.0.1:{canary.port}/")).text == "ok"
        assert (canary.connections, proxy.connections) == (1, 0)


async def test_unix_sockets_are_refused() -> None:
    with pytest.raises(AddressForbidden):
        await GuardedBackend(Guard(), httpcore.AnyIOBackend()).connect_unix_socket("/run/x.sock")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """(certificate, key) of hooks.example, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=hooks.example"
    subprocess.run(
        [*make.split(), "-addext", "subjectAltName=DNS:hooks.example", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


async def test_tls_is_verified_by_name_although_an_address_is_dialled(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    trust = ssl.create_default_context(cafile=str(cert))
    async with listening(tls=server) as secure:
        guard = Guard(["127.0.0.1"], resolve=resolving(["127.0.0.1"]))
        async with guarded_client(guard, verify=trust) as client:
            assert (await client.get(f"https://hooks.example:{secure.port}/")).text == "ok"
            with pytest.raises(httpx.ConnectError, match="ertificate"):
                await client.get(f"https://other.example:{secure.port}/")
        assert len(secure.requests) == 1
