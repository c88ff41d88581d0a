"""The schemes by which providers sign their callbacks, the receiving side. Signing is the delivery's business."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from gateway.contract.errors import CallbackForged

TOLERANCE_SECONDS = 300  # both ways, as the scheme advises
_TIMESTAMP = re.compile(r"[0-9]{1,11}")


def lower_names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def signing_key(secret: str) -> bytes:
    """The key behind `whsec_<base64>` (the prefix may be missing). Raises ValueError if it is none."""
    text = secret.strip().removeprefix("whsec_").rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)  # some hand it out without its padding
    except ValueError:  # binascii's own is one; text that is not ASCII raises the plain one
        raise ValueError("a webhook secret is whsec_ followed by base64") from None
    if not key:
        raise ValueError("a webhook secret is whsec_ followed by base64")
    return key


def verify(headers: Mapping[str, str], body: bytes, *, secrets: tuple[str, ...], now: datetime) -> str:
    """
    The callback's id, if one of its `v1` signatures over the raw `body` was made with one of `secrets`.

    Raises CallbackForged for everything else: a missing header, a time that is no whole number or more than
    TOLERANCE_SECONDS away from `now`, no matching signature. Secrets that are none match nothing.
    """
    headers = lower_names(headers)
    id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not id or not _TIMESTAMP.fullmatch(timestamp):
        raise CallbackForged("the callback has no id, or no time in whole seconds")
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE_SECONDS:
        raise CallbackForged("the callback's time is out of the window")
    signed = b".".join((_bytes(id), timestamp.encode(), body))
    given = [
        _bytes(signature)
        for version, _, signature in (item.partition(",") for item in headers.get("webhook-signature", "").split())
        if version == "v1"
    ]
    is_genuine = False
    for secret in secrets:
        expected = _signature(secret, signed)
        for signature in given:
            # No early exit: the time taken says nothing of which secret or signature came near.
            is_genuine |= expected is not None and hmac.compare_digest(signature, expected)
    if not is_genuine:
        raise CallbackForged("no signature of the callback fits")
    return id


def verify_hmac(given: Iterable[str], signed: bytes, *, secrets: tuple[str, ...]) -> None:
    """
    For schemes of a provider's own: one of `given` is the hex HMAC-SHA256 of `signed` under one of `secrets`.

    The secrets are used as they are written. Raises CallbackForged.
    """
    shown = [_bytes(signature.strip().lower()) for signature in given]
    is_genuine = False
    for secret in secrets:
        expected = hmac.new(_bytes(secret), signed, hashlib.sha256).hexdigest().encode()
        for signature in shown:
            is_genuine |= bool(secret) and hmac.compare_digest(signature, expected)
    if not is_genuine:
        raise CallbackForged("no signature of the callback fits")


def check_time(seconds: float | None, *, now: datetime, tolerance_seconds: float = TOLERANCE_SECONDS) -> None:
    """Raises CallbackForged if a callback does not say when it was sent, or was sent too long ago."""
    if seconds is None or not abs(now.timestamp() - seconds) <= tolerance_seconds:
        raise CallbackForged("the callback's time is out of the window")


def verify_ed25519(signature: str, signed: bytes, *, key_sets: tuple[str, ...]) -> None:
    """
    The hex `signature` over `signed` was made with one of the Ed25519 keys in `key_sets` (RFC 7517, RFC 8037).

    Raises CallbackForged. Key sets that are none match nothing.
    """
    # Only who is called back with such signatures pays for the import.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        given = bytes.fromhex(signature)
    except ValueError:
        raise CallbackForged("the callback's signature is no signature") from None
    for text in key_sets:
        for key in _ed25519_keys(text):
            try:
                Ed25519PublicKey.from_public_bytes(key).verify(given, signed)
            except (InvalidSignature, ValueError):
                continue
            return
    raise CallbackForged("no signature of the callback fits")


def _ed25519_keys(text: str) -> list[bytes]:
    try:
        keys = msgspec.json.decode(text, type=_KeySet).keys
    except msgspec.DecodeError:
        return []
    found = []
    for key in keys[:64]:
        if key.kty == "OKP" and key.crv == "Ed25519":
            with contextlib.suppress(ValueError):
                found.append(base64.urlsafe_b64decode(key.x + "=" * (-len(key.x) % 4)))
    return found


class _Key(msgspec.Struct):
    kty: str = ""
    crv: str = ""
    x: str = ""


class _KeySet(msgspec.Struct):
    keys: list[_Key] = []


def verify_bearer(headers: Mapping[str, str], *, secrets: tuple[str, ...]) -> None:
    """For senders that do not sign but show a shared secret. Raises CallbackForged if none of `secrets` is shown."""
    scheme, _, token = lower_names(headers).get("authorization", "").strip().partition(" ")
    shown = _bytes(token.strip())
    is_genuine = False
    for secret in secrets:
        is_genuine |= bool(secret) and hmac.compare_digest(shown, _bytes(secret))
    if scheme.lower() != "bearer" or not is_genuine:
        raise CallbackForged("the callback does not show the shared secret")


def _signature(secret: str, signed: bytes) -> bytes | None:
    try:
        key = signing_key(secret)
    except ValueError:
        return None
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())


def _bytes(text: str) -> bytes:
    # Header values arrive as text; whatever could not be ASCII must differ, not raise.
    return text.encode("utf-8", "backslashreplace")
