"""
API keys: how one is made, how its hash is written down, how one that is shown to us is checked. Not what it may do.

A key reads `to_<id>_<secret>_<checksum>`: the prefix lets scanners find leaked ones, the checksum lets a typo be told
from a wrong key. Only the hash is kept; a plain SHA-256 is right for 256 random bits, slow hashes are for passwords.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from gateway.contract.clock import ID_ALPHABET

HASH_PREFIX = "sha256:"
_SECRET_CHARACTERS = 52  # 260 bits
_MOST_CHARACTERS = 512
_SHAPE = re.compile(r"to_[a-z0-9-]{1,64}_[0-9a-z]{52}_[0-9a-f]{8}")


class NewKey(NamedTuple):
    """`text` is shown once and never kept; `hash` goes into the configuration."""

    text: str
    id: str
    hash: str


class KeyRecord(msgspec.Struct, kw_only=True, frozen=True):
    """A key as configured. `name` is the owner of everything made with it; `hash` is `sha256:<64 hex>`."""

    name: str
    hash: str
    scopes: frozenset[str] = frozenset({"predictions", "models", "files"})
    policy: str | None = None  # used where the caller names none

    @property
    def is_admin(self) -> bool:
        return "admin" in self.scopes

    def allows(self, scope: str) -> bool:
        return scope in self.scopes


class KeyRing:
    """The configured keys, found by hash: two keys may be valid at once, one of them on its way out."""

    def __init__(self, records: Iterable[KeyRecord]) -> None:
        self._records = {record.hash.lower(): record for record in records}

    def find(self, text: str) -> KeyRecord | None:
        """The record of the key that reads `text`, or None."""
        if not text or len(text) > _MOST_CHARACTERS:
            return None
        digest = hash_key(text)
        record = self._records.get(digest)
        if record is None or not hmac.compare_digest(record.hash.lower(), digest):
            return None
        return record


def new_key(id: str | None = None) -> NewKey:
    """A fresh key with 260 random bits. `id` is 1 to 64 of a-z, 0-9 and "-"; ValueError for anything else."""
    id = id if id is not None else _random_text(8)
    body = f"to_{id}_{_random_text(_SECRET_CHARACTERS)}"
    text = f"{body}_{_checksum(body)}"
    if _SHAPE.fullmatch(text) is None:
        raise ValueError(f"{id!r} is no id of a key: 1 to 64 of a-z, 0-9 and -")
    return NewKey(text, id, hash_key(text))


def hash_key(text: str) -> str:
    """What is written down of a key: `sha256:<64 hex>`."""
    return HASH_PREFIX + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def looks_mistyped(text: str) -> bool:
    """It begins like a key of ours, and its shape or checksum does not fit: it was mistyped or cut."""
    if not is_ours(text):
        return False
    body, _, checksum = text.rpartition("_")
    return _SHAPE.fullmatch(text) is None or _checksum(body) != checksum


def is_ours(text: str) -> bool:
    """It begins as our keys do, and as no provider's."""
    return text.startswith("to_")


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"


def _random_text(characters: int) -> str:
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(characters))
