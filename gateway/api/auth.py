"""Who calls, and may they: `Authorization` to key, key to scopes. Not how keys are made or kept."""

from __future__ import annotations

from gateway.api.exchange import Exchange
from gateway.contract.errors import Forbidden, Unauthenticated
from gateway.contract.key import KeyRecord, looks_mistyped

NO_TOKEN = "You did not pass an authentication token"  # noqa: S105 - a sentence
BAD_TOKEN = "You did not pass a valid authentication token"  # noqa: S105 - a sentence
_SCHEMES = frozenset({"bearer", "token"})  # Python's clients before 0.26 said Token


class TokenMissing(Unauthenticated):
    def __init__(self) -> None:
        super().__init__(NO_TOKEN)


class TokenWrong(Unauthenticated):
    """`challenge` tells a typo from a wrong key; the body is the same, as the clients know it."""

    def __init__(self, token: str) -> None:
        super().__init__(BAD_TOKEN)
        self.challenge = b'Bearer error="invalid_token"'
        if looks_mistyped(token):
            self.challenge += b', error_description="its checksum does not fit: mistyped, or cut"'


def authenticate(exchange: Exchange, scope: str) -> KeyRecord:
    """Sets and returns the caller's key. Raises Unauthenticated, Forbidden."""
    header = exchange.header(b"authorization")
    if not header:
        raise TokenMissing
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() not in _SCHEMES or not token:
        raise TokenWrong(token)
    key = exchange.context.ring.find(token)
    if key is None:
        raise TokenWrong(token)
    if not key.allows(scope):
        raise Forbidden(f'This key has no scope "{scope}"')
    exchange.key = key
    exchange.token = token
    return key
