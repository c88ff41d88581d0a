"""What the operations API offers, put together: the overview, the list, the story of one, the feed, the acts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Protocol

import msgspec

from gateway.contract.budget import Rule
from gateway.contract.clock import Clock
from gateway.contract.prediction import Prediction
from gateway.dashboard.account import Account
from gateway.dashboard.act import Acts, line_of
from gateway.dashboard.budget import budgets_of
from gateway.dashboard.change import changes_between, listing_of
from gateway.dashboard.detail import detail_of, links_in
from gateway.dashboard.feed import Feed
from gateway.dashboard.journal import Journal
from gateway.dashboard.row import row_of
from gateway.dashboard.shape import Audit, Budgets, Detail, Ledger, Overview, Row, Rows
from gateway.dashboard.shown import About
from gateway.dashboard.view import View
from gateway.store.protocol import Backlog, Search, Store

REFILL = 5_000  # predictions that are read at the start, of the last hour
BACKLOG_SECONDS = 1.0
_MOST_OPENED = 50
_LISTING = "dashboard.offers"  # the setting that remembers them


class Opened(Protocol):
    @property
    def content_type(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...


class Files(Protocol):
    async def open(self, token: str) -> Opened | None: ...


class Draining(Protocol):
    @property
    def is_draining(self) -> bool: ...


class Operations:
    """
    `base` is our public URL without a slash at its end, `budgets` gives those of the policies as they are now.

    Every verb may raise StoreError.
    """

    def __init__(
        self,
        store: Store,
        view: View,
        journal: Journal,
        acts: Acts,
        files: Files,
        *,
        engine: Draining,
        clock: Clock,
        base: str,
        budgets: Callable[[], Sequence[Rule]] = tuple,
    ) -> None:
        self.acts = acts
        self._store = store
        self._journal = journal
        self._view = view
        self._files = files
        self._account = Account(store, clock)
        self._clock = clock
        self._base = base
        self._rules = budgets
        self._backlog: Sequence[Backlog] = ()
        self._backlog_at = -BACKLOG_SECONDS
        self._feed = Feed(
            journal, overview=self.overview, row=self._row, is_draining=lambda: engine.is_draining, clock=clock
        )

    async def refill(self) -> None:
        """The journal's last hour, as far as one bounded read finds it: a restart does not blank the page."""
        since = self._clock.now() - timedelta(hours=1)
        page = await self._store.search_predictions(Search(created_after=since), limit=REFILL)
        acts = [row for row in await self._store.audit(limit=100) if row.at >= since]
        self._journal.refill(page.predictions, acts)
        listing = listing_of(self._view.models())
        before = await self._store.swap_setting(_LISTING, msgspec.json.encode(listing).decode())
        changes = changes_between(msgspec.json.decode(before, type=dict[str, str]), listing) if before else []
        if changes:
            self._journal.catalog_changed(changes)

    async def overview(self) -> Overview:
        now = self._clock.monotonic()
        if now - self._backlog_at >= BACKLOG_SECONDS:
            self._backlog_at = now
            self._backlog = await self._store.backlog()
        return self._view.overview(self._backlog)

    async def search(self, search: Search, *, position: str | None, limit: int) -> Rows:
        """Raises NotFound for a position that we did not give."""
        page = await self._store.search_predictions(search, position=position, limit=limit)
        return Rows(predictions=tuple(self._row(prediction) for prediction in page.predictions), next=page.next)

    async def detail(self, id: str) -> Detail | None:
        prediction = await self._store.get(id)
        if prediction is None:
            return None
        return detail_of(
            prediction,
            ledger=await self._store.ledger(id),
            deliveries=await self._store.deliveries(id),
            files=await self._files_of(prediction),
            now=self._clock.now(),
            base=self._base,
        )

    async def ledger(self, *, hours: int, limit: int) -> Ledger:
        return await self._account.read(hours=hours, limit=limit)

    async def budgets(self, *, limit: int) -> Budgets:
        now = self._clock.now()
        rows = await self._store.spending(ends_after=now, limit=limit)
        return budgets_of(self._rules(), rows, now=now, is_all=len(rows) < limit)

    async def audit(self, *, before: int | None, limit: int) -> Audit:
        return Audit(lines=tuple(line_of(row) for row in await self._store.audit(before=before, limit=limit)))

    def listen(self) -> AsyncIterator[bytes]:
        """Raises Throttled if too many listen already."""
        return self._feed.listen()

    def _row(self, prediction: Prediction) -> Row:
        return row_of(prediction, now=self._clock.now(), base=self._base)

    async def _files_of(self, prediction: Prediction) -> dict[str, About]:
        """What our links lead to; a file that has expired is left to its name."""
        found: dict[str, About] = {}
        prefix = f"{self._base}/artifacts/"
        for link in links_in(prediction, base=self._base)[:_MOST_OPENED]:
            if link.startswith(prefix):
                opened = await self._files.open(link[len(prefix) :].partition("/")[0])
                if opened is not None:
                    found[link] = About(opened.content_type, opened.size_bytes)
        return found
