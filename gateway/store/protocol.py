"""
The store's verbs. The store is the truth: each verb is one transaction and idempotent; what it returns is committed.

A store is built with the two pure functions it runs inside its transactions: `reduce` (the lifecycle) and `snapshot`
(what a delivery's body says of a prediction). It owns neither, and knows no provider.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from gateway.contract.budget import Refusal, Reservation, Reserved, Spending
from gateway.contract.fact import Effect, Happening
from gateway.contract.prediction import Prediction


class Reduction(msgspec.Struct, kw_only=True, frozen=True):
    """What the lifecycle makes of a happening: nothing, if `prediction` is the very one that went in."""

    prediction: Prediction
    effects: tuple[Effect, ...] = ()
    # False: nobody has to do anything for this prediction any more; it is never claimed again.
    is_open: bool = True
    # When somebody who does not hold it already should look at it; None while open means at once.
    due_at: datetime | None = None


Reduce = Callable[[Prediction, Happening, datetime], Reduction]
Snapshot = Callable[[Prediction], bytes]


class Created(enum.StrEnum):
    CREATED = "created"
    SAME = "same"  # the idempotency key was seen with this body: the first prediction is returned
    CONFLICT = "conflict"  # it was seen with another body


class Lease(msgspec.Struct, kw_only=True, frozen=True):
    """
    A worker's right to advance one prediction, and the number that proves it.

    The fence grows each time the prediction changes hands, so that whoever held it before, the same worker included,
    writes nothing any more.
    """

    worker: str
    fence: int


class Held(msgspec.Struct, kw_only=True, frozen=True):
    """A prediction that was claimed, as it was at that moment."""

    prediction: Prediction
    lease: Lease


class CreateResult(msgspec.Struct, kw_only=True, frozen=True):
    outcome: Created
    prediction: Prediction
    lease: Lease | None = None  # with CREATED, if it was created as held


class Applied(msgspec.Struct, kw_only=True, frozen=True):
    """`changed` is False when the happening said nothing new: then nothing was written."""

    prediction: Prediction
    changed: bool
    effects: tuple[Effect, ...] = ()


class Page(msgspec.Struct, kw_only=True, frozen=True):
    """Newest first. `next` and `previous` are positions for `list_predictions`, None at an end."""

    predictions: tuple[Prediction, ...]
    next: str | None = None
    previous: str | None = None


class StoredEvent(msgspec.Struct, kw_only=True, frozen=True):
    """One server-sent event of a prediction; `sequence` counts from 0 without gaps."""

    sequence: int
    event: str
    data: str
    at: datetime


class Try(msgspec.Struct, kw_only=True, frozen=True):
    """One try to deliver a webhook, as it was recorded."""

    at: datetime
    status: int | None = None  # HTTP; None: nobody answered
    error: str | None = None


MOST_TRIES_KEPT = 20
# What a claim that was given back has added to its delivery's fence, in place of its own 1: so the fence only grows,
# and what is below still counts the claims that may have been sent.
GIVEN_BACK = 1_000_000


class Delivery(msgspec.Struct, kw_only=True, frozen=True):
    """One webhook on its way. `id` is deterministic: the same event has the same id for ever."""

    id: str  # msg_…
    prediction: str
    owner: str
    url: str
    event: str
    sequence: int
    body: bytes
    created_at: datetime
    due_at: datetime
    tries: int = 0
    is_final: bool = False  # of a terminal state: the only kind that is retried
    ended: str | None = None  # delivered, gone, exhausted, superseded; None while on its way
    last_status: int | None = None
    last_error: str | None = None
    fence: int = 0
    history: tuple[Try, ...] = ()  # the newest MOST_TRIES_KEPT, oldest first; kept over a redelivery

    @property
    def may_have_been_sent(self) -> bool:
        """Of one just claimed that has no tries: another claim of it was neither recorded nor given back."""
        return self.fence % GIVEN_BACK > 1


class LedgerRow(msgspec.Struct, kw_only=True, frozen=True):
    """The money row of one attempt; `nanos` None is unknown."""

    prediction: str
    attempt: int
    owner: str
    offer: str
    provider: str
    state: str  # reserved, settled, released, maybe
    nanos: int | None
    basis: str
    at: datetime


class FileRow(msgspec.Struct, kw_only=True, frozen=True):
    """A file a caller uploaded; its bytes lie in the artifacts under `artifact`."""

    id: str
    owner: str
    artifact: str
    name: str
    content_type: str
    size_bytes: int
    sha256: str
    md5: str
    metadata: dict[str, object]
    created_at: datetime
    expires_at: datetime


class Search(msgspec.Struct, kw_only=True, frozen=True):
    """Which predictions are looked for; what is left at its default is not asked."""

    statuses: frozenset[str] = frozenset()
    model: str | None = None
    provider: str | None = None  # one of those that were tried
    owner: str | None = None
    prefix: str | None = None  # of the id
    is_rescued: bool = False  # only those that succeeded after a failed attempt
    created_after: datetime | None = None  # inclusive


AGES_SECONDS = (10.0, 60.0, 600.0)


class Backlog(msgspec.Struct, kw_only=True, frozen=True):
    """Deliveries to one host that have not ended."""

    host: str
    waiting: int
    failing: int  # of them, tried at least once
    ages: tuple[int, int, int, int]  # of them, younger than each of AGES_SECONDS, and older than the last
    oldest_at: datetime
    last_error: str | None  # of the oldest; `HTTP 500` where that was the answer


class Redelivery(enum.StrEnum):
    DUE = "due"
    NONE = "none"  # there is no delivery of its end
    SENDING = "sending"  # it is on its way at this moment


class AuditRow(msgspec.Struct, kw_only=True, frozen=True):
    """What somebody did by hand, or tried to."""

    at: datetime
    who: str  # name of the key
    action: str  # e.g. "breaker.open"
    target: str
    reason: str
    outcome: str
    id: int = 0  # ascending; 0: not yet kept


class Setting(msgspec.Struct, kw_only=True, frozen=True, tag="setting"):
    """A kept setting, for `dump`."""

    name: str
    value: str


class IdempotencyRow(msgspec.Struct, kw_only=True, frozen=True):
    """That `key` of the owner stands for a prediction."""

    key: str
    body_hash: str
    expires_at: datetime


class Whole(msgspec.Struct, kw_only=True, frozen=True, tag="prediction"):
    """Everything a store keeps of one prediction, for `dump`. Who holds it is not moved: nobody does there."""

    prediction: Prediction
    is_open: bool
    due_at: datetime | None
    events: tuple[StoredEvent, ...] = ()
    ledger: tuple[LedgerRow, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    idempotency: tuple[IdempotencyRow, ...] = ()


class KeptFile(msgspec.Struct, kw_only=True, frozen=True, tag="file"):
    row: FileRow


class KeptAudit(msgspec.Struct, kw_only=True, frozen=True, tag="audit"):
    row: AuditRow


class KeptSpending(msgspec.Struct, kw_only=True, frozen=True, tag="spending"):
    row: Spending


class KeptReservation(msgspec.Struct, kw_only=True, frozen=True, tag="reservation"):
    row: Reserved


Record = Whole | Setting | KeptFile | KeptAudit | KeptSpending | KeptReservation

# An id of something that has changed; None: news may have been missed, so everything is to be looked at anew.
Heard = Callable[[str | None], None]


class Store(Protocol):
    """
    Raises StoreUnavailable when it cannot say that it committed, StoreOverloaded when its queue is full.

    An unavailable store may have committed all the same (its answer was lost on the way); it never commits later than
    it would have answered. Whoever must know repeats the verb: each is idempotent.

    Reads that serve a caller take `owner`: a foreign id is as good as none. `owner=None` is for the engine only.
    """

    # -- predictions -------------------------------------------------------------------------------------------

    async def create(
        self,
        prediction: Prediction,
        *,
        idempotency_key: str | None = None,
        body_hash: str = "",
        worker: str | None = None,
        effects: Sequence[Effect] = (),
    ) -> CreateResult:
        """
        Accept a prediction. Durable when this returns. With `worker` it is created as held by that worker; but by
        nobody where its key stands for an id whose first creator never came to an end.

        An idempotency key is scoped to the owner and kept 24 h. The same prediction once more (a repeat after a commit
        nobody heard of) is SAME; an id that another prediction has is a ValueError.
        """
        ...

    async def apply(self, id: str, happening: Happening, *, lease: Lease | None = None) -> Applied:
        """
        The one door: reduce and commit state, events, ledger and deliveries in one transaction.

        With `lease` set, raises LeaseLost if it is not the one the prediction is held by (steps of the engine).
        Without it (facts from providers, wishes of callers) it always goes through: a fact is true whoever learned it.
        A change to `data_removed` also erases the input, the stream events but for `done`, and what deliveries that
        have ended carried. Raises KeyError for an id that does not exist.
        """
        ...

    async def get(self, id: str, *, owner: str | None = None) -> Prediction | None: ...

    async def list_predictions(
        self,
        *,
        owner: str,
        position: str | None = None,
        limit: int = 100,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Page:
        """
        Newest first, by `created_at` and id. `created_after` is inclusive, `created_before` exclusive; whoever goes on
        by a position gives the same bounds again. Raises NotFound for a position that is none of ours.
        """
        ...

    async def search_predictions(self, search: Search, *, position: str | None = None, limit: int = 100) -> Page:
        """
        Everybody's, for ops: newest first, `request.input` left out. There is no `previous`.

        One call looks at a bounded number of predictions: a page may be short, or empty, and still have a `next`.
        Raises NotFound for a position that is none of ours.
        """
        ...

    async def find_attempt(self, token_hash: str) -> tuple[str, int] | None:
        """(prediction id, attempt number) of a callback token."""
        ...

    async def find_stream(self, stream_token: str) -> str | None:
        """Prediction id behind a stream's token."""
        ...

    async def events(self, id: str, *, after: int = -1, limit: int = 1000) -> list[StoredEvent]:
        """Stream events with a sequence greater than `after`, in order."""
        ...

    async def ledger(self, id: str) -> list[LedgerRow]: ...

    async def maybes(self, *, created_after: datetime | None = None, limit: int = 1_000) -> list[str]:
        """Ids of predictions with a `maybe` row in their ledger, newest first."""
        ...

    # -- leases ------------------------------------------------------------------------------------------------

    async def beat(self, worker: str, *, lease_seconds: float) -> None:
        """Announce or renew a worker. Its predictions are its own until `lease_seconds` from now (store time)."""
        ...

    async def claim_due(self, worker: str, *, limit: int) -> list[Held]:
        """
        Take open predictions that are due and held by no living worker; they are held by `worker` now.

        Whoever asks is alive: what `worker` holds already is not handed to it again.
        """
        ...

    async def release(self, worker: str, ids: Sequence[str] | None = None) -> None:
        """Let go of these (None: of all): others may claim them when they are due."""
        ...

    # -- outbox ------------------------------------------------------------------------------------------------

    async def claim_deliveries(
        self, worker: str, *, limit: int, lease_seconds: float, exclude_lanes: frozenset[tuple[str, str]] = frozenset()
    ) -> list[Delivery]:
        """
        Take deliveries that are due, oldest first; each comes with a fence, and comes back after the lease.

        `exclude_lanes` are owners with the URL's host as `contract.host.host_of` reads it. One call passes over a
        bounded number of their deliveries, and the next goes on from there: it may bring less than is due, or nothing.
        """
        ...

    async def release_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        """
        Give claims back of which nothing was sent: others may have them at once, due as before, no try counted.

        One whose fence is stale is left as it is.
        """
        ...

    async def finish_delivery(
        self,
        delivery: Delivery,
        *,
        ended: str | None,
        due_at: datetime | None = None,
        status: int | None = None,
        error: str | None = None,
    ) -> bool:
        """
        Record one try of a claimed delivery. `ended=None` means try again at `due_at`.

        False: its fence was stale, nothing was written. A fence is good for one record. A delivery that was superseded
        meanwhile stays so, unless it is `ended` now.
        """
        ...

    async def deliveries(self, id: str) -> list[Delivery]:
        """All deliveries of a prediction, in order of their sequence."""
        ...

    async def next_delivery_at(self) -> datetime | None: ...

    async def backlog(self, *, limit: int = 100) -> list[Backlog]:
        """What waits, by host, the oldest first. Of very many deliveries only the first due are counted."""
        ...

    async def redeliver(self, id: str) -> Redelivery:
        """Make the delivery of a prediction's end due now, as if it had never been tried: same id, same body."""
        ...

    # -- budgets -----------------------------------------------------------------------------------------------

    async def reserve(self, reservation: Reservation) -> Refusal | None:
        """
        Put its money aside under all of its holds, or under none: then the first that has not enough left is told.

        Idempotent by id: the same once more is reserved once, other money or other holds take its place. What is
        expected to cost nothing always fits. One that was settled with a cost, or that a younger lease has asked for,
        stays as it is: whoever asks has lost the prediction.
        """
        ...

    async def settle(self, id: str, nanos: int | None, *, revision: int, reserved_at: datetime | None = None) -> None:
        """
        It came to so much (None: nobody knows, so what was reserved counts), in the windows of its reservation.

        Told again it is corrected, but never by the word of an older `revision` of its prediction. With `reserved_at`
        only if it was not reserved anew since. Of one that nobody knows (any more) there is nothing to settle.
        """
        ...

    async def reservations(
        self, *, before: datetime, position: str | None = None, limit: int = 500
    ) -> tuple[list[Reserved], str | None]:
        """Open ones that were reserved before then, the oldest first, and where to go on."""
        ...

    async def spending(self, *, ends_after: datetime, limit: int = 1_000) -> list[Spending]:
        """Of windows that end after then, the first to end first."""
        ...

    async def forget_spending(self, *, before: datetime, limit: int = 1_000) -> int:
        """
        Forget windows that ended before then, but for those with an open reservation, and reservations that were
        settled before then. How many of both: as many as `limit` of one kind, and there may be more.
        """
        ...

    # -- files -------------------------------------------------------------------------------------------------

    async def put_file(self, row: FileRow) -> None: ...

    async def get_file(self, id: str, *, owner: str | None) -> FileRow | None: ...

    async def list_files(
        self, *, owner: str, position: str | None = None, limit: int = 100
    ) -> tuple[list[FileRow], str | None, str | None]:
        """(rows, next, previous), newest first."""
        ...

    async def delete_file(self, id: str, *, owner: str) -> FileRow | None: ...

    async def expire_files(self, *, limit: int = 100) -> list[FileRow]:
        """Forget files whose time is over, and say which: their artifacts may go. Oldest first."""
        ...

    # -- retention ---------------------------------------------------------------------------------------------

    async def aged(self, *, before: datetime, limit: int = 100) -> list[str]:
        """
        Ids of predictions that ended before `before` and still have their data, the oldest first.

        Only those that are closed, and owed nothing: no delivery of theirs is under way.
        """
        ...

    # -- replicas ----------------------------------------------------------------------------------------------

    async def follow(self, worker: str, heard: Heard) -> None:
        """
        Until it is cancelled, call `heard` with the id of each prediction that somebody else has changed, if `worker`
        holds it or it is watched. Survives every trouble of the store, and then says None.

        A store that only one process can open has nothing to say.
        """
        ...

    def watch(self, id: str) -> None:
        """Hear of this prediction too, whoever holds it. Counted; heard of once as soon as it holds."""
        ...

    def unwatch(self, id: str) -> None: ...

    async def exchange(self, topic: str, worker: str, body: bytes, *, lifetime_seconds: float) -> list[bytes]:
        """Leave a note for the other replicas in place of one's last, and read theirs that are still alive."""
        ...

    # -- moving ------------------------------------------------------------------------------------------------

    def dump(self) -> AsyncIterator[Record]:
        """Everything, bit by bit; of what changes meanwhile either state. Nothing is held in memory whole."""
        ...

    async def load(self, records: Sequence[Record]) -> None:
        """Keep these as they are, in place of those with the same ids; idempotent. For a store nobody serves from."""
        ...

    # -- what people did -----------------------------------------------------------------------------------------

    async def put_audit(self, row: AuditRow) -> AuditRow:
        """Keep a new row (`id` 0), as it comes back; or, of a kept one, the outcome."""
        ...

    async def audit(self, *, before: int | None = None, limit: int = 100) -> list[AuditRow]:
        """Newest first; with `before` only rows with smaller ids."""
        ...

    async def last_audit(self, actions: frozenset[str], *, outcomes: frozenset[str]) -> list[AuditRow]:
        """For each target the newest row with one of `actions` and one of `outcomes`, in order of ids."""
        ...

    # -- itself ------------------------------------------------------------------------------------------------

    async def setting(self, name: str, default: str) -> str:
        """A value kept for ever: the first caller's `default` wins (webhook secret, signing keys)."""
        ...

    async def swap_setting(self, name: str, value: str) -> str | None:
        """A value that changes: keep `value`, and give what was kept before; None for the first one."""
        ...

    async def check(self) -> None:
        """Writable now? Raises StoreUnavailable."""
        ...

    async def aclose(self) -> None: ...
