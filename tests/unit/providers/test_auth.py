"""Our signatures and grants, held against AWS's published examples, botocore's signer and google-auth's reader."""

from __future__ import annotations

import datetime as time
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import botocore.auth
import httpx
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from google.auth import jwt
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract.errors import ConfigurationError, CredentialRefused, PollFailed
from gateway.contract.provider import Auth, HttpResponse, Message
from providers._auth import EntraApplication, GoogleServiceAccount, Headers, SigV4, bearer, choose

NOW = time.datetime(2026, 3, 2, 9, 5, 7, tzinfo=time.UTC)
KEYS = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}


def message(method: str, url: str, body: bytes = b"", **headers: str) -> Message:
    """As the driver has it: what httpx makes of a request, in its own spelling."""
    request = httpx.Request(method, url, content=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
    return Message(method=method, url=str(request.url), headers=dict(request.headers), body=body)


def signature(auth: SigV4, of: Message, secrets: dict[str, str], now: time.datetime) -> str:
    return auth.headers(of, secrets, now=now)["authorization"].rpartition("Signature=")[2]


# -- SigV4: what AWS has published -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "url", "headers", "expected"),
    [
        # The test suite's get-vanilla, and its relatives.
        (
            "service",
            "https://example.amazonaws.com/",
            {},
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "service",
            "https://example.amazonaws.com/?Param2=value2&Param1=value1",
            {},
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        # The signing guide's ListUsers.
        (
            "iam",
            "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08",
            {"content_type": "application/x-www-form-urlencoded; charset=utf-8"},
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
        ),
    ],
)
def test_published_requests_are_signed_as_published(
    service: str, url: str, headers: dict[str, str], expected: str
) -> None:
    auth = SigV4(service=service, region="us-east-1")
    at = time.datetime(2015, 8, 30, 12, 36, tzinfo=time.UTC)
    assert signature(auth, message("GET", url, **headers), KEYS, at) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_published_requests_to_s3_are_signed_as_published(query: str, expected: str) -> None:
    secrets = {
        "access_key_id": "AKIAIOSFODNN7EXAMPLE",
        "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    }
    at = time.datetime(2013, 5, 24, tzinfo=time.UTC)
    of = message("GET", f"https://examplebucket.s3.amazonaws.com/?{query}")
    assert signature(SigV4(service="bedrock", region="us-east-1"), of, secrets, at) == expected


# -- SigV4: what botocore makes of the same ----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _botocore_reads_our_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: NOW)
        yield


def signed_by_botocore(of: Message, secrets: dict[str, str], *, is_s3: bool, service: str, region: str) -> str:
    kind = botocore.auth.S3SigV4Auth if is_s3 else botocore.auth.SigV4Auth
    headers = {k: v for k, v in of.headers.items() if k in ("host", "content-type") or k.startswith("x-amz-")}
    request = AWSRequest(method=of.method, url=of.url, headers=headers, data=of.body)
    credentials = Credentials(secrets["access_key_id"], secrets["secret_access_key"], secrets.get("session_token"))
    kind(credentials, service, region).add_auth(request)
    return str(request.headers["Authorization"])


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)
segments = st.builds(lambda word: quote(word, safe=""), words) | st.sampled_from(
    [
        "model",
        "amazon.nova-canvas-v1%3A0",
        "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aasync-invoke%2Fs7",
        "a~b_c-d.e",
        "x y",
    ]
)
queries = st.lists(
    st.builds(lambda name, value: f"{quote(name, safe='')}={quote(value, safe='')}", words, words | st.just("")),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    path=st.lists(segments, max_size=5),
    slash=st.sampled_from(["", "/"]),
    query=queries,
    body=st.binary(max_size=40),
    token=st.none() | st.text("abcDEF123+/=", min_size=1, max_size=30),
    place=st.sampled_from(
        [
            (False, "bedrock-runtime.us-east-1.amazonaws.com"),
            (False, "bedrock-runtime.us-east-1.amazonaws.com:8443"),
            (True, "bucket.s3.us-east-1.amazonaws.com"),
            (True, "s3.us-east-1.amazonaws.com"),
            (True, "s3.dualstack.eu-west-1.amazonaws.com"),
            (True, "bucket.s3-us-west-2.amazonaws.com"),
            (True, "bucket.s3.cn-north-1.amazonaws.com.cn"),
        ]
    ),
    extra=st.sampled_from([{}, {"x-amz-meta-a": "  two   words "}, {"content-type": "application/json"}]),
)
def test_every_request_is_signed_as_botocore_signs_it(
    method: str,
    path: list[str],
    slash: str,
    query: list[str],
    body: bytes,
    token: str | None,
    place: tuple[bool, str],
    extra: dict[str, str],
) -> None:
    is_s3, host = place
    url = f"https://{host}/{'/'.join(path)}{slash}" + ("?" + "&".join(query) if query else "")
    of = message(method, url, body, **extra)
    secrets = KEYS | ({"session_token": token} if token else {})
    ours = SigV4(service="bedrock", region="us-east-1").headers(of, secrets, now=NOW)
    theirs = signed_by_botocore(of, secrets, is_s3=is_s3, service="s3" if is_s3 else "bedrock", region="us-east-1")
    assert ours["authorization"] == theirs
    assert ours.get("x-amz-security-token") == token
    assert ("x-amz-content-sha256" in ours) is is_s3


@pytest.mark.parametrize(
    "host", ["s3.example.com", "my.s3.bucket.execute-api.us-east-1.amazonaws.com", "amazonaws.com"]
)
def test_a_host_that_only_looks_like_s3_is_signed_for_its_own_service(host: str) -> None:
    auth = SigV4(service="bedrock", region="us-east-1").headers(message("GET", f"https://{host}/x"), KEYS, now=NOW)
    assert "/us-east-1/bedrock/aws4_request" in auth["authorization"]


def test_a_path_with_dots_and_doubled_slashes_is_signed_as_botocore_does() -> None:
    of = Message(
        method="GET", url="https://h.amazonaws.com//a/./b//../c/", headers={"host": "h.amazonaws.com"}, body=b""
    )
    ours = SigV4(service="bedrock", region="us-east-1").headers(of, KEYS, now=NOW)["authorization"]
    assert ours == signed_by_botocore(of, KEYS, is_s3=False, service="bedrock", region="us-east-1")


# -- grants ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: Any) -> str:
    return str(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
    )


def account(key: Any, **changes: str) -> str:
    return json.dumps(
        {
            "type": "service_account",
            "client_email": "turnout@p.iam.gserviceaccount.com",
            "private_key_id": "k1",
            "private_key": pem(key),
            "token_uri": "https://oauth2.googleapis.com/token",
        }
        | changes
    )


def test_google_reads_the_assertion_of_a_service_account(
    key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = GoogleServiceAccount().exchange({"service_account": account(key)}, now=NOW)
    assert request is not None
    assert (request.method, request.url) == ("POST", "https://oauth2.googleapis.com/token")
    form = parse_qs((request.content or b"").decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    monkeypatch.setattr("google.auth._helpers.utcnow", lambda: NOW.replace(tzinfo=None))
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    # google-auth reads a certificate's or a key's PEM; it checks the signature, iat, exp and aud.
    claims = jwt.decode(form["assertion"][0], certs=public, audience="https://oauth2.googleapis.com/token")
    assert claims == {
        "iss": "turnout@p.iam.gserviceaccount.com",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "aud": "https://oauth2.googleapis.com/token",
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 3600,
    }
    assert jwt.decode_header(form["assertion"][0]) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}


def test_an_assertion_by_another_key_is_not_read(key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    request = GoogleServiceAccount().exchange({"service_account": account(key)}, now=NOW)
    assert request is not None
    monkeypatch.setattr("google.auth._helpers.utcnow", lambda: NOW.replace(tzinfo=None))
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    public = other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ValueError, match="signature"):
        jwt.decode(parse_qs((request.content or b"").decode())["assertion"][0], certs=public)


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[1]",
        "null",
        "{}",
        '{"client_email": "a", "private_key": "SECRETSECRET", "token_uri": "https://x"}',
        "[" * 100_000,
        account(ed25519.Ed25519PrivateKey.generate()),
    ],
)
def test_what_is_no_service_account_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(CredentialRefused) as caught:
        GoogleServiceAccount().exchange({"service_account": text}, now=NOW)
    assert "SECRETSECRET" not in str(caught.value)
    assert "PRIVATE" not in str(caught.value)


def test_entra_is_asked_with_the_client_s_secret_in_the_form() -> None:
    auth = EntraApplication(scope="https://cognitiveservices.azure.com/.default")
    secrets = {"tenant_id": "a/b", "client_id": "c", "client_secret": "s&=+%"}
    request = auth.exchange(secrets, now=NOW)
    assert request is not None
    assert request.url == "https://login.microsoftonline.com/a%2Fb/oauth2/v2.0/token"
    assert parse_qs((request.content or b"").decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["c"],
        "client_secret": ["s&=+%"],
        "scope": ["https://cognitiveservices.azure.com/.default"],
    }
    assert "s&=+%" not in request.url
    assert auth.headers(message("GET", "https://x.example"), {**secrets, "grant": "g"}, now=NOW) == {
        "authorization": "Bearer g"
    }


def granted(status: int, body: str) -> Any:
    return EntraApplication(scope="s").read_exchange(HttpResponse(status=status, headers={}, body=body.encode()))


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ('{"access_token": "t", "expires_in": 3599, "token_type": "Bearer"}', 3599.0),
        ('{"access_token": "t", "expires_in": "3599"}', 3599.0),
        ('{"access_token": "t"}', 3600.0),
        ('{"access_token": "t", "expires_in": -5}', 0.0),
        ('{"access_token": "t", "expires_in": 1e300}', 86_400.0),
    ],
)
def test_a_grant_tells_how_long_it_holds(body: str, seconds: float) -> None:
    grant = granted(200, body)
    assert (grant.token, grant.lifetime_seconds) == ("t", seconds)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_an_exchange_that_is_refused_is_a_credential_refused_in_our_words(status: int) -> None:
    with pytest.raises(CredentialRefused) as caught:
        granted(status, '{"error": "invalid_client", "error_description": "secret s3cr3t is wrong"}')
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<html>"),
        (200, "[]"),
        (200, "{}"),
        (200, '{"access_token": 7}'),
        (200, '{"access_token": "t", "expires_in": "soon"}'),
        (200, "[" * 100_000),
        (200, '{"access_token": "\ud800"}'.encode("utf-8", "replace").decode()[:5]),
        (500, '{"access_token": "t"}'),
        (429, ""),
    ],
)
def test_an_exchange_without_sense_is_a_poll_failed(status: int, body: str) -> None:
    with pytest.raises(PollFailed):
        granted(status, body)


# -- plain headers, and the choice ------------------------------------------------------------------------------------


def test_a_header_whose_optional_part_is_missing_is_left_out() -> None:
    auth = Headers(
        {"Modal-Key": "{key}", "Modal-Secret": "{secret}", "X-Org": "{org}"},
        optional=("org",),
        key="",
        secret="",
        org="",
    )
    of = message("GET", "https://x.example")
    assert auth.headers(of, {"key": "{secret}", "secret": "b"}, now=NOW) == {
        "Modal-Key": "{secret}",  # a secret is no template
        "Modal-Secret": "b",
    }
    assert auth.headers(of, {"key": "a", "secret": "b", "org": "o"}, now=NOW)["X-Org"] == "o"


WAYS: tuple[Auth, ...] = (bearer("AWS_BEARER_TOKEN_BEDROCK"), SigV4(service="bedrock", region="us-east-1"))


def test_the_first_way_whose_parts_are_all_there_is_taken() -> None:
    assert choose(WAYS, {"token": "t"}, provider="p") is WAYS[0]
    assert choose(WAYS, KEYS, provider="p") is WAYS[1]
    assert choose(WAYS, {**KEYS, "token": "t"}, provider="p") is WAYS[0]
    assert choose(WAYS, {**KEYS, "session_token": "t"}, provider="p") is WAYS[1]
    assert choose(WAYS, {}, provider="p") is None


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        ({"access_key_id": "a"}, "it takes token or else access_key_id, secret_access_key"),
        ({"acess_key_id": "a"}, "did you mean 'access_key_id'"),
        ({"qqqq": "a"}, "it takes token"),
    ],
)
def test_credentials_that_make_no_whole_are_refused_by_name(secrets: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        choose(WAYS, secrets, provider="p")


def test_the_signed_host_is_the_one_that_is_sent() -> None:
    of = message("GET", "https://bedrock-runtime.us-east-1.amazonaws.com:443/x")
    assert of.headers["host"] == urlsplit(of.url).netloc == "bedrock-runtime.us-east-1.amazonaws.com"
