"""Ways to prove who we are: fixed headers, AWS signatures, OAuth grants. Keeps no secret, and sends nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlencode, urlsplit

import msgspec

from gateway.contract.errors import ConfigurationError, CredentialRefused, PollFailed
from gateway.contract.provider import Auth, Grant, HttpRequest, HttpResponse, Message
from gateway.contract.wording import nearest

MAX_LIFETIME_SECONDS = 86_400.0  # no grant is believed for longer, whatever it says
_FORM = "application/x-www-form-urlencoded"


class Headers:
    """
    Headers with credentials in them, the same for every request.

    `Headers({"authorization": "Key {token}"}, token="FAL_KEY")`: templates by header, then the parts, each with the
    environment variable it is customarily found in. A header whose optional part is missing is left out.
    """

    def __init__(self, templates: Mapping[str, str], *, optional: Sequence[str] = (), **parts: str) -> None:
        self.parts: Mapping[str, str] = parts
        self.optional = frozenset(optional)
        self._templates = dict(templates)

    def headers(self, message: Message, secrets: Mapping[str, str], *, now: datetime) -> dict[str, str]:
        missing = self.optional - secrets.keys()
        return {
            name: template.format_map(secrets)
            for name, template in self._templates.items()
            if not any(f"{{{part}}}" in template for part in missing)
        }

    def exchange(self, secrets: Mapping[str, str], *, now: datetime) -> HttpRequest | None:
        return None

    def read_exchange(self, response: HttpResponse) -> Grant:
        raise CredentialRefused("there is nothing to exchange")


def bearer(variable: str = "") -> Headers:
    """`Authorization: Bearer <token>`."""
    return Headers({"authorization": "Bearer {token}"}, token=variable)


class SigV4:
    """
    AWS Signature Version 4 (docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).

    Signs method, path, query, body, content type and every `x-amz-` header. A host of S3's is signed for S3; `s3` names
    further ones, as `host` or `host:port`.
    """

    parts: Mapping[str, str] = {
        "access_key_id": "AWS_ACCESS_KEY_ID",
        "secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "session_token": "AWS_SESSION_TOKEN",
    }
    optional = frozenset({"session_token"})

    def __init__(self, *, service: str, region: str, s3: Sequence[str] = ()) -> None:
        self._service = service
        self._region = region
        self._s3 = frozenset(s3)

    def headers(self, message: Message, secrets: Mapping[str, str], *, now: datetime) -> dict[str, str]:
        url = urlsplit(message.url)
        is_s3 = _is_s3(url.hostname or "") or url.netloc in self._s3
        service = "s3" if is_s3 else self._service
        stamp = now.strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(message.body).hexdigest()
        added = {"x-amz-date": stamp}
        if is_s3:
            added["x-amz-content-sha256"] = digest
        if secrets.get("session_token"):
            added["x-amz-security-token"] = secrets["session_token"]
        signed = {k: v for k, v in message.headers.items() if k.startswith("x-amz-") or k == "content-type"} | added
        signed["host"] = message.headers.get("host") or url.netloc
        names = ";".join(sorted(signed))
        canonical = "\n".join(
            (
                message.method.upper(),
                _canonical_path(url.path, is_s3=is_s3),
                _canonical_query(url.query),
                "".join(f"{name}:{' '.join(signed[name].split())}\n" for name in sorted(signed)),
                names,
                digest,
            )
        )
        scope = f"{stamp[:8]}/{self._region}/{service}/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{secrets['secret_access_key']}".encode()
        for word in (stamp[:8], self._region, service, "aws4_request"):
            key = hmac.new(key, word.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
        added["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={secrets['access_key_id']}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return added

    def exchange(self, secrets: Mapping[str, str], *, now: datetime) -> HttpRequest | None:
        return None

    def read_exchange(self, response: HttpResponse) -> Grant:
        raise CredentialRefused("there is nothing to exchange")


def _is_s3(host: str) -> bool:
    # bucket.s3.region.amazonaws.com, s3.region.amazonaws.com, and the old s3-region; never a bucket's own name.
    labels = host.lower().removesuffix(".cn").removesuffix(".amazonaws.com").split(".")
    return ".amazonaws.com" in host.lower() and any(label == "s3" or label.startswith("s3-") for label in labels[-3:])


def _canonical_path(path: str, *, is_s3: bool) -> str:
    # S3 signs the path as it is sent; all others tidy it (RFC 3986, 5.2.4), and encode it once more.
    if is_s3:
        return path or "/"
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            kept = kept[:-1]
        elif segment not in ("", "."):
            kept.append(segment)
    tail = "/" if kept and path.endswith(("/", "/.", "/..")) else ""
    return quote("/" + "/".join(kept) + tail, safe="/-_.~")


def _canonical_query(query: str) -> str:
    parts = (pair.partition("=") for pair in query.split("&") if pair)
    pairs = sorted((_encoded_once(name), _encoded_once(value)) for name, _, value in parts)
    return "&".join(f"{name}={value}" for name, value in pairs)


def _encoded_once(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="-_.~")


class _Granted:
    """What OAuth's grants have in common: a bearer token of limited life, had for a form."""

    parts: Mapping[str, str] = {}
    optional: frozenset[str] = frozenset()

    def headers(self, message: Message, secrets: Mapping[str, str], *, now: datetime) -> dict[str, str]:
        return {"authorization": f"Bearer {secrets['grant']}"}

    def read_exchange(self, response: HttpResponse) -> Grant:
        if response.status in (400, 401, 403):
            raise CredentialRefused(
                "the credentials were refused where access tokens are given", status=response.status
            )
        try:
            body = msgspec.json.decode(response.body, type=_Token, strict=False)  # some write the seconds as text
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise PollFailed("no access token was given", status=response.status) from None
        if response.status != 200 or not body.access_token:
            raise PollFailed("no access token was given", status=response.status)
        return Grant(token=body.access_token, lifetime_seconds=min(max(0.0, body.expires_in), MAX_LIFETIME_SECONDS))


class _Token(msgspec.Struct):
    access_token: str = ""
    expires_in: float = 3600.0


class GoogleServiceAccount(_Granted):
    """An access token for a service account's own signature (RFC 7523). `service_account` is its whole JSON file."""

    parts: Mapping[str, str] = {"service_account": ""}

    def __init__(self, scope: str = "https://www.googleapis.com/auth/cloud-platform") -> None:
        self._scope = scope

    def exchange(self, secrets: Mapping[str, str], *, now: datetime) -> HttpRequest | None:
        account = _account(secrets["service_account"])
        issued = int(now.timestamp())
        claims = {
            "iss": account["client_email"],
            "scope": self._scope,
            "aud": account["token_uri"],
            "iat": issued,
            "exp": issued + 3600,
        }
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": _signed_jwt(claims, account["private_key"], account["private_key_id"]),
        }
        return HttpRequest(
            method="POST",
            url=account["token_uri"],
            headers={"content-type": _FORM},
            content=urlencode(form).encode(),
        )


class EntraApplication(_Granted):
    """An access token of Microsoft Entra for an application and its secret (RFC 6749 4.4)."""

    parts: Mapping[str, str] = {
        "tenant_id": "AZURE_TENANT_ID",
        "client_id": "AZURE_CLIENT_ID",
        "client_secret": "AZURE_CLIENT_SECRET",
    }

    def __init__(self, *, scope: str, authority: str = "https://login.microsoftonline.com") -> None:
        self._scope = scope
        self._authority = authority.rstrip("/")

    def exchange(self, secrets: Mapping[str, str], *, now: datetime) -> HttpRequest | None:
        form = {
            "grant_type": "client_credentials",
            "client_id": secrets["client_id"],
            "client_secret": secrets["client_secret"],
            "scope": self._scope,
        }
        return HttpRequest(
            method="POST",
            url=f"{self._authority}/{quote(secrets['tenant_id'], safe='')}/oauth2/v2.0/token",
            headers={"content-type": _FORM},
            content=urlencode(form).encode(),
        )


def _account(text: str) -> dict[str, str]:
    try:
        account = json.loads(text)
        found = {key: str(account[key]) for key in ("client_email", "private_key", "token_uri")}
        return {**found, "private_key_id": str(account.get("private_key_id") or "")}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CredentialRefused("service_account is not the JSON of a service account's key") from None


def _signed_jwt(claims: Mapping[str, Any], private_key: str, key_id: str) -> str:
    # Only who has a service account pays for the import.
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    try:
        key = serialization.load_pem_private_key(private_key.encode(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise CredentialRefused("service_account holds no RSA private key")
    header = {"alg": "RS256", "typ": "JWT", **({"kid": key_id} if key_id else {})}
    head = _encoded(header) + b"." + _encoded(claims)
    signature = key.sign(head, padding.PKCS1v15(), hashes.SHA256())
    return (head + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def _encoded(value: Mapping[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(msgspec.json.encode(value)).rstrip(b"=")


def choose(ways: Sequence[Auth], secrets: Mapping[str, str], *, provider: str) -> Auth | None:
    """
    The first of `ways` whose parts are all among `secrets`; None if there are no secrets at all.

    Raises ConfigurationError for a part nobody knows, and for parts that make no whole.
    """
    place = f"provider {provider}"
    known = dict.fromkeys(part for way in ways for part in way.parts)
    for part in secrets:
        if part not in known:
            near = nearest(part, known)
            remedy = f"did you mean {near!r}?" if near else f"it takes {_either(ways)}"
            raise ConfigurationError(f"{place}: unknown credential {part!r}; {remedy}")
    if not secrets:
        return None
    for way in ways:
        if way.parts.keys() - way.optional <= secrets.keys():
            return way
    raise ConfigurationError(f"{place}: its credentials are not complete; it takes {_either(ways)}")


def _either(ways: Sequence[Auth]) -> str:
    lines = [", ".join(part for part in way.parts if part not in way.optional) for way in ways]
    return " or else ".join(lines) or "none"
