"""The URLs under which files in our keeping are known, made, signed and read again. Touches no file."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from urllib.parse import parse_qs, quote, urlencode

import msgspec

from gateway.contract.clock import Clock

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}\Z", re.ASCII)
_FILE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z", re.ASCII)


class OwnLink(msgspec.Struct, kw_only=True, frozen=True):
    """What one of our own URLs points at; neither is set for one that leads to no file."""

    file_id: str | None = None
    artifact_token: str | None = None
    owner: str | None = None  # set for a signed link that is valid: then this owner's file is meant


def is_token(text: str) -> bool:
    return _TOKEN.match(text) is not None


class Links:
    def __init__(self, public_url: str, signing_secret: bytes, clock: Clock, *, link_seconds: float) -> None:
        self._base = public_url.rstrip("/")
        self._secret = signing_secret
        self._token_key = hmac.digest(signing_secret, b"turnout artifact token", hashlib.sha256)
        self._clock = clock
        self._link_seconds = link_seconds

    def artifact(self, token: str, name: str) -> str:
        """Good for whoever has it: the token is the key."""
        return f"{self._base}/artifacts/{token}/{name}"

    def download(self, file_id: str, owner: str) -> str:
        """A file of the files API, signed, for whoever has it until the link expires."""
        expiry = int(self._clock.now().timestamp() + self._link_seconds)
        query = {"owner": owner, "expiry": str(expiry), "signature": self.sign(file_id, owner, expiry)}
        return f"{self._base}/v1/files/{file_id}/download?{urlencode(query, quote_via=quote)}"

    def sign(self, file_id: str, owner: str, expiry: int) -> str:
        """Base64 of HMAC-SHA256 over `{owner} {id} {expiry}`, as Replicate documents it. `expiry` is unix seconds."""
        text = f"{owner} {file_id} {expiry}".encode("utf-8", "replace")
        return base64.b64encode(hmac.digest(self._secret, text, hashlib.sha256)).decode()

    def verify(self, file_id: str, owner: str, expiry: int, signature: str) -> bool:
        """True while the link lives. An id with a space in it would let owner and id be read in two ways."""
        expected = self.sign(file_id, owner, expiry)
        is_ours = _FILE_ID.match(file_id) is not None and hmac.compare_digest(
            expected.encode(), signature.encode("utf-8", "replace")
        )
        return is_ours and expiry > self._clock.now().timestamp()

    def derived_token(self, *parts: str) -> str:
        """43 characters that only we can derive, always the same for the same parts."""
        digest = hmac.digest(self._token_key, "\x00".join(parts).encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def output_token(self, prediction: str, attempt: int, path: str) -> str:
        """Of the output file at `path`, so that a repeat finds it, and whoever removes the prediction's data too."""
        return self.derived_token("output", prediction, str(attempt), path)

    def input_token(self, prediction: str, text: str, period: int) -> str:
        """Of an input file that came inline: one for all attempts of a period, so that a failover keeps no other."""
        return self.derived_token("input", prediction, str(period), text)

    def read(self, url: str) -> OwnLink | None:
        """What `url` points at, if it is one of ours; None for anybody else's."""
        if not url.startswith(self._base + "/"):
            return None
        path, _, query = url[len(self._base) :].partition("#")[0].partition("?")
        match path.split("/"):
            case ["", "artifacts", token, _] if is_token(token):
                return OwnLink(artifact_token=token)
            case ["", "v1", "files", id] if _FILE_ID.match(id):
                return OwnLink(file_id=id)
            case ["", "v1", "files", id, "download"] if _FILE_ID.match(id):
                return self._read_signed(id, query)
        return OwnLink()

    def _read_signed(self, file_id: str, query: str) -> OwnLink:
        fields = {name: values[0] for name, values in parse_qs(query).items()}
        owner, expiry, signature = (fields.get(name, "") for name in ("owner", "expiry", "signature"))
        if (
            expiry.isascii()
            and expiry.isdigit()
            and len(expiry) < 13
            and self.verify(file_id, owner, int(expiry), signature)
        ):
            return OwnLink(file_id=file_id, owner=owner)
        return OwnLink()
