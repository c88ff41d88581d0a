"""What the API is given to work with, and the Protocols of it. Builds none of it: that is the composition root's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from gateway.api.repeat import Repeats
from gateway.api.store_check import StoreCheck
from gateway.config.model import Server
from gateway.contract.clock import Clock, Ids
from gateway.contract.key import KeyRecord, KeyRing
from gateway.contract.model import Model
from gateway.contract.observer import Observer
from gateway.contract.prediction import Prediction, Request
from gateway.dashboard.shape import Audit, AuditLine, Budgets, Detail, Ledger, Overview, Rows
from gateway.store.protocol import CreateResult, Search, Store


class Changes(Protocol):
    async def wait(self, seconds: float) -> bool:
        """True: something was committed since the last wait, or a drain began. False: nothing in so many seconds."""
        ...


class Engine(Protocol):
    """The part of `engine.Engine` that callers reach. Every verb may raise StoreUnavailable or StoreOverloaded."""

    @property
    def is_draining(self) -> bool: ...

    @property
    def open_count(self) -> int: ...

    async def create(
        self,
        request: Request,
        *,
        owner: str,
        cancel_after_seconds: float | None = None,
        idempotency_key: str | None = None,
        body_hash: str = "",
    ) -> CreateResult:
        """Durable on return."""
        ...

    async def wait(self, id: str, *, seconds: float) -> Prediction: ...

    async def cancel(self, id: str, *, owner: str) -> Prediction | None: ...

    async def callback(self, token: str, headers: Mapping[str, str], body: bytes) -> str:
        """Raises NotFound, CallbackForged."""
        ...

    def changes(self, id: str) -> AbstractContextManager[Changes]: ...


class Models(Protocol):
    """The catalog, as callers see it."""

    def models(self) -> Sequence[Model]: ...

    def get(self, slug: str) -> Model | None: ...

    def by_version(self, version: str) -> Model | None: ...


class Kept(Protocol):
    """A file that was taken into our keeping."""

    @property
    def token(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def sha256(self) -> str: ...

    @property
    def md5(self) -> str: ...


class Opened(Protocol):
    """A file in our keeping, ready to be read."""

    @property
    def path(self) -> Path: ...

    @property
    def name(self) -> str: ...

    @property
    def content_type(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def etag(self) -> str: ...


class Files(Protocol):
    """The artifacts."""

    async def keep(self, chunks: AsyncIterator[bytes] | bytes, *, owner: str, name: str, content_type: str) -> Kept:
        """Raises TooLarge."""
        ...

    async def open(self, token: str) -> Opened | None: ...

    async def remove(self, token: str) -> None: ...

    def verify_download(self, file_id: str, owner: str, expiry: int, signature: str) -> bool: ...


class Acts(Protocol):
    """
    What ops do by hand; `who` is the name of the key. Each leaves a line in the audit, and comes back as it.

    All raise InputInvalid, NotFound, and a refusal of status 409 where as things stand there is nothing to be done.
    """

    async def force(self, offer: str, action: str, *, reason: str, who: str) -> AuditLine: ...

    async def cancel(self, id: str, *, reason: str, who: str) -> AuditLine: ...

    async def redeliver(self, id: str, *, reason: str, who: str) -> AuditLine: ...


class Receivers(Protocol):
    """The part of the outbox that can be asked about, and nudged."""

    def standings(self) -> Sequence[object]:
        """Those that something is known against, as they are shown."""
        ...

    async def retry(self, owner: str, host: str) -> None:
        """What any process knows against it is forgotten: what is made due after this is tried. Raises StoreError."""
        ...

    def wake(self) -> None:
        """Look for what is due."""
        ...


class Operations(Protocol):
    """What ops look at and do: `gateway.dashboard`."""

    @property
    def acts(self) -> Acts: ...

    async def overview(self) -> Overview: ...

    async def search(self, search: Search, *, position: str | None, limit: int) -> Rows:
        """Raises NotFound for a position that we did not give."""
        ...

    async def detail(self, id: str) -> Detail | None: ...

    async def ledger(self, *, hours: int, limit: int) -> Ledger: ...

    async def budgets(self, *, limit: int) -> Budgets: ...

    async def audit(self, *, before: int | None, limit: int) -> Audit: ...

    def listen(self) -> AsyncIterator[bytes]:
        """Server-sent events. Raises Throttled if too many listen already."""
        ...


class ShellFile(Protocol):
    @property
    def content(self) -> bytes: ...

    @property
    def content_type(self) -> str: ...

    @property
    def etag(self) -> str:
        """Without quotes."""
        ...


class Shell(Protocol):
    """The page's own files."""

    @property
    def policy(self) -> str:
        """The Content-Security-Policy to serve them with."""
        ...

    def file(self, name: str) -> ShellFile | None:
        """ "" is the page itself; None for a name that is none of theirs."""
        ...


async def _always_ready() -> Sequence[str]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Context:
    """`public_url` wins over `server.public_url`: the composition root knows the port that was bound."""

    engine: Engine
    store: Store
    models: Models
    files: Files
    keys: Mapping[str, KeyRecord]
    server: Server
    webhook_secret: str  # whsec_…
    clock: Clock
    ids: Ids
    check_url: Callable[[str], None]  # raises AddressForbidden
    check_input_url: Callable[[str], None] | None = None  # of files in inputs; raises AddressForbidden
    observer: Observer = field(default_factory=Observer)
    metrics: Callable[[], Awaitable[bytes]] | None = None  # None: they are turned off
    readiness: Callable[[], Awaitable[Sequence[str]]] = _always_ready  # what is amiss, beside store and drain
    policies: Callable[[], Collection[str]] | None = None  # names that Turnout-Policy may ask for; None: any
    public_url: str = ""
    allow_http_webhooks: bool = False
    metrics_key: bool = False
    max_file_bytes: int = 100_000_000
    file_seconds: float = 86_400
    repeats: Repeats = field(default_factory=Repeats)
    is_shared: bool = False  # other processes serve from the same store
    receivers: Receivers | None = None  # None: nothing is sent from this process
    operations: Operations | None = None  # None: the dashboard is turned off
    shell: Shell | None = None
    ring: KeyRing = field(init=False)
    store_check: StoreCheck = field(init=False)
    base: str = field(init=False)  # of every URL we hand out, without a slash at its end

    def __post_init__(self) -> None:
        url = self.public_url or self.server.public_url or f"http://{self.server.host}:{self.server.port}"
        object.__setattr__(self, "base", url.rstrip("/"))
        object.__setattr__(self, "store_check", StoreCheck(self.store, self.clock))
        object.__setattr__(self, "ring", KeyRing(self.keys.values()))

    def now(self) -> datetime:
        return self.clock.now()
