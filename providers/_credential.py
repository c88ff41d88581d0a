"""The credentials of one configured provider: kept out of sight, renewed in time. Ways to use them are `_auth`'s."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from gateway.contract.clock import Clock
from gateway.contract.errors import ConfigurationError, ProviderFailure
from gateway.contract.provider import Auth, Grant, HttpRequest, HttpResponse, Message
from providers._auth import Headers, SigV4, choose

RENEW_SECONDS = 120.0  # before a grant ends, so that nothing is on its way with it when it does
RENEW_AGAIN_SECONDS = 10.0  # after a renewal that failed, while the old grant still holds
KEYS_SECONDS = 86_400.0  # published keys are believed for so long
KEYS_AGAIN_SECONDS = 60.0  # and asked for again no sooner, whatever strangers send us

Send = Callable[[HttpRequest], Awaitable[HttpResponse]]


class Credentials:
    """
    Adds them to requests. `send` carries the exchange for a short-lived one; many who need it wait for one exchange.

    Raises ConfigurationError for parts that make no whole, or that no header may hold.
    """

    def __init__(
        self, provider: str, ways: Sequence[Auth], secrets: Mapping[str, str], *, clock: Clock, send: Send
    ) -> None:
        self._secrets = {part: secret for part, secret in secrets.items() if secret}
        self._auth = choose(ways, self._secrets, provider=provider)
        self._clock = clock
        self._send = send
        self._grant: Grant | None = None
        self._granted_at = self._renewed_at = 0.0
        self._former = ""  # the token of the grant before: an answer that is late may still quote it
        self._failures = 0
        self._failure: ProviderFailure | None = None  # the last of them
        self._lock = asyncio.Lock()
        for part, secret in self._secrets.items() if isinstance(self._auth, Headers | SigV4) else ():
            if not secret.isascii() or not secret.isprintable() or secret != secret.strip():
                # The secret itself is never shown, not even its length.
                raise ConfigurationError(
                    f"provider {provider}: {part} has characters no header may hold; look for line breaks and "
                    "typographic quotes"
                )

    @property
    def is_known(self) -> bool:
        return self._auth is not None

    async def headers(self, message: Message) -> dict[str, str]:
        """What to add to `message`, names in lower case; nothing without credentials. Raises ProviderFailure."""
        if self._auth is None:
            return {}
        token = await self._granted(self._auth)
        secrets = self._secrets if token is None else {**self._secrets, "grant": token}
        added = self._auth.headers(message, secrets, now=self._clock.wall())
        return {name.lower(): value for name, value in added.items()}

    def forget_grant(self) -> None:
        """The provider does not take it any more: the next request asks for another."""
        if self._grant is not None:
            self._former, self._grant = self._grant.token, None

    async def _granted(self, auth: Auth) -> str | None:
        """A token that holds for a while, or None if `auth` needs none. Raises CredentialRefused, PollFailed."""
        if isinstance(auth, Headers | SigV4):
            return None
        if self._grant is not None and (not self._is_due() or (self._lock.locked() and self._holds(self._grant))):
            return self._grant.token
        failures = self._failures
        async with self._lock:
            if self._grant is not None and not self._is_due():
                return self._grant.token
            if self._failure is not None and self._failures > failures:
                # The exchange that was waited for failed: a hundred who waited do not each try again.
                last = self._failure
                raise type(last)(str(last), retry_after_seconds=last.retry_after_seconds, status=last.status)
            return await self._renew(auth)

    async def _renew(self, auth: Auth) -> str | None:
        began = self._clock.monotonic()
        try:
            request = auth.exchange(self._secrets, now=self._clock.wall())
            if request is None:
                return None
            grant = auth.read_exchange(await self._send(request))
        except ProviderFailure as error:
            self._renewed_at = self._clock.monotonic()
            if self._grant is not None and self._holds(self._grant):
                return self._grant.token
            self._failures, self._failure = self._failures + 1, error
            raise
        self.forget_grant()
        self._grant, self._granted_at, self._renewed_at = grant, began, float("-inf")
        return grant.token

    def _holds(self, grant: Grant) -> bool:
        return self._clock.monotonic() - self._granted_at < grant.lifetime_seconds

    def _is_due(self) -> bool:
        """Whether there is no grant, or it ends soon and the last try to renew it is a while ago."""
        if self._grant is None or not self._holds(self._grant):
            return True
        now, lifetime = self._clock.monotonic(), self._grant.lifetime_seconds
        # A grant of a minute is renewed at half its time, not at every request.
        ends_soon = self._granted_at + lifetime - now < min(RENEW_SECONDS, lifetime / 2)
        return ends_soon and now - self._renewed_at >= RENEW_AGAIN_SECONDS

    def is_in(self, text: str) -> bool:
        return any(secret in text for secret in self._shown())

    def scrub(self, text: str) -> str:
        for secret in self._shown():
            text = text.replace(secret, "***")
        return text

    def _shown(self) -> list[str]:
        grant = self._grant.token if self._grant is not None else ""
        # The longest first: one may hold another. A word of three letters is none, and stands everywhere.
        shown = (text for text in (*self._secrets.values(), grant, self._former) if len(text) > 3)
        return sorted(shown, key=len, reverse=True)


class PublishedKeys:
    """The set of keys a provider publishes, as it came: fetched when it is first needed, kept for a day."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._text: str | None = None
        self._at = float("-inf")
        self._lock = asyncio.Lock()

    async def get(self, fetch: Callable[[], Awaitable[HttpResponse]], *, other_than: str | None = None) -> str | None:
        """The keys, or None if they cannot be had now. `other_than`: these did not fit, perhaps there are newer."""
        async with self._lock:
            age = self._clock.monotonic() - self._at
            is_stale = self._text is None or age > KEYS_SECONDS or self._text == other_than
            if is_stale and age > KEYS_AGAIN_SECONDS:
                self._at = self._clock.monotonic()
                try:
                    answer = await fetch()
                except ProviderFailure:
                    return self._text
                if answer.status == 200:
                    self._text = answer.body.decode("utf-8", "replace")
            return self._text
