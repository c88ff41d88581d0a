"""What the engine asks of rooms it may not import; the composition root hands them in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
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
        until: datetime,
    ) -> Any:
        """
        Copy every file in `output` into our keeping; `output` comes back with our links in their places.

        What fails for the moment is tried again until `until`; of those that wait, the first to expire goes first.
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
        prediction: str = "",
    ) -> dict[str, Any]:
        """Bring the files in `input` (under `file_keys`, if they are known) into a form the provider takes.

        What is kept for that is kept for `prediction`, and erased with its data. Raises InputRefused, InputUnfit.
        """
        ...


class Eraser(Protocol):
    """The part of the artifacts that retention needs."""

    async def erase(self, prediction: Prediction) -> int:
        """Remove every file that was kept for it; how many there were. Idempotent. Raises OSError."""
        ...

    async def remove(self, token: str) -> None: ...


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
        submit_seconds: float | None = None,
        hold_seconds: float = 20.0,
    ) -> None:
        self.driver = driver
        self.reaches_us = reaches_us  # it can fetch from, and call back to, our public URL
        self.callbacks = callbacks and reaches_us
        self.trusted_hosts = trusted_hosts  # its files may lie there
        self.submit_seconds = submit_seconds  # most it may take to answer a submit that is not held; None: not known
        self.hold_seconds = hold_seconds  # an unknown outcome may report for so long before another attempt starts
        self.direct_hosts = direct_hosts  # … and there they may be fetched from a private address: ops wrote it

    @property
    def capabilities(self) -> Capabilities:
        return self.driver.capabilities

    def capabilities_for(self, offer: Offer | None) -> Capabilities:
        """What holds for an attempt on `offer`; an offer that is configured no more had what its provider has."""
        return self.driver.capabilities if offer is None else self.driver.capabilities_for(offer.options)
