"""What the engine asks of rooms it may not import; the composition root hands them in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol

from gateway.contract.attempt import Attempt
from gateway.contract.prediction import Prediction
from gateway.contract.provider import Capabilities, Driver
from gateway.contract.route import Offer

CredentialsFor = Callable[[str], Awaitable[dict[str, str]]]


async def no_credentials(url: str) -> dict[str, str]:
    return {}


class Collector(Protocol):
    async def collect(
        self,
        prediction: Prediction,
        attempt: Attempt,
        output: Any,
        *,
        trusted_hosts: tuple[str, ...],
        direct_hosts: tuple[str, ...],
        credentials_for: CredentialsFor,
    ) -> Any:
        """
        Copy every file in `output` into our keeping; `output` comes back with our links in their places.

        `credentials_for` gives the headers a URL is to be fetched with: none for any that is not the provider's own.
        Repeated for the same attempt it gives the same links. Raises ResultLost.
        """
        ...


class Intake(Protocol):
    async def fit(
        self,
        input: dict[str, Any],
        *,
        owner: str,
        capabilities: Capabilities,
        reaches_us: bool,
        file_keys: Collection[str] | None = None,
    ) -> dict[str, Any]:
        """Bring the files in `input` (under `file_keys`, if they are known) into a form the provider takes.

        Raises InputRefused, InputUnfit.
        """
        ...


class Link:
    """A configured provider as the engine holds it."""

    def __init__(
        self,
        driver: Driver,
        *,
        reaches_us: bool,
        callbacks: bool,
        trusted_hosts: tuple[str, ...] = (),
        direct_hosts: tuple[str, ...] = (),
    ) -> None:
        self.driver = driver
        self.reaches_us = reaches_us  # it can fetch from, and call back to, our public URL
        self.callbacks = callbacks and reaches_us
        self.trusted_hosts = trusted_hosts  # its files may lie there
        self.direct_hosts = direct_hosts  # … and there they may be fetched from a private address: ops wrote it

    @property
    def capabilities(self) -> Capabilities:
        return self.driver.capabilities

    def capabilities_for(self, offer: Offer | None) -> Capabilities:
        """What holds for an attempt on `offer`; an offer that is configured no more had what its provider has."""
        return self.driver.capabilities if offer is None else self.driver.capabilities_for(offer.options)
