"""What a gateway says when it is up, and the keys it opens to: the configured ones, or one that is made now."""

from __future__ import annotations

import sys

from gateway import __version__
from gateway.config.load import Loaded
from gateway.contract.errors import ConfigurationError
from gateway.contract.host import is_loopback
from gateway.contract.key import KeyRecord, new_key

_ALL_SCOPES = frozenset({"predictions", "models", "files", "admin"})


def keys_of(loaded: Loaded, host: str) -> tuple[dict[str, KeyRecord], str | None]:
    """The configured keys, or one that is made now; then only this machine may reach us. Raises ConfigurationError."""
    if loaded.config.keys:
        keys = {}
        for name, section in loaded.config.keys.items():
            secret = loaded.secrets.get(f"keys.{name}.hash")
            hash = secret.reveal() if secret is not None else section.hash
            keys[name] = KeyRecord(
                name=name, hash=hash, scopes=frozenset(section.scopes), policy=section.policy or None
            )
        return keys, None
    if not is_loopback(host):
        raise ConfigurationError(
            f"{loaded.place}: keys: none is configured, so only loopback may be served, not {host}; "
            "make one with `turnout keys new`, or leave the host at 127.0.0.1"
        )
    made = new_key()
    return made_key(made.hash), made.text


def made_key(hash: str) -> dict[str, KeyRecord]:
    """The one key of a gateway for which none is configured."""
    return {"default": KeyRecord(name="default", hash=hash, scopes=_ALL_SCOPES)}


def address_of(host: str, port: int) -> str:
    return f"http://{'localhost' if host == '::1' else host}:{port}"


def greet(address: str, public_url: str, made: str | None, *, dashboard: bool, workers: int = 1) -> None:
    by = f", by {workers} workers" if workers > 1 else ""
    lines = [f"Turnout {__version__} serves at {address}/v1{by}"]
    if public_url != address:
        lines.append(f"Callers see {public_url}/v1")
    if made is not None:
        lines.append(
            f"No key is configured; this one is good until the next start:\n  export REPLICATE_API_TOKEN={made}"
        )
        lines.append(f"  export REPLICATE_BASE_URL={public_url}")
    if dashboard:
        lines.append(f"Dashboard, for keys with the scope admin: {address}/dashboard")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
