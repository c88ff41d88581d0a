"""The line through TLS: to a server whose certificate is accepted, and to none other."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.contract.errors import ConfigurationError
from tests.redis.line import line_to, open_line, put
from tests.redis.server import RedisServer, free_port


def certificate(folder: Path) -> tuple[Path, Path]:
    """One that vouches for itself, for 127.0.0.1: (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis under test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "server.crt", folder / "server.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password))
    return public, private


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address behind TLS, and the certificate."""
    public, private = certificate(tmp_path)
    port = free_port()
    options = ("--tls-port", str(port), "--tls-cert-file", str(public), "--tls-key-file", str(private))
    with RedisServer(tmp_path / "redis", *options, "--tls-auth-clients", "no"):
        yield f"rediss://127.0.0.1:{port}/0", public


async def test_a_server_that_is_vouched_for_is_spoken_to(
    encrypted: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, public = encrypted
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    async with open_line(url) as line:
        assert await line.run(put("{s0}a", "x" * 200_000)) == b"x" * 200_000


async def test_one_that_is_not_vouched_for_is_refused_in_words(encrypted: tuple[str, Path]) -> None:
    with pytest.raises(ConfigurationError, match="its certificate is not accepted"):
        await line_to(encrypted[0]).open(start_seconds=0)


async def test_one_without_tls_is_refused_in_words(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server, pytest.raises(ConfigurationError):
        await line_to(server.url.replace("redis://", "rediss://")).open(start_seconds=0)
