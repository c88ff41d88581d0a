"""What ops do by hand, each with its line in the audit: force a breaker, cancel, redeliver. Decides nobody's rights."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import ClassVar, Protocol

from msgspec.structs import replace

from gateway.contract.clock import Clock
from gateway.contract.errors import InputInvalid, InvalidField, NotFound, RequestRefused, StoreError
from gateway.contract.host import host_of
from gateway.contract.prediction import Prediction
from gateway.contract.wording import nearest, printable
from gateway.dashboard.journal import Journal
from gateway.dashboard.shape import AuditLine
from gateway.routing.breaker import Breakers
from gateway.store.protocol import AuditRow, Redelivery, Store

MOST_REASON_CHARACTERS = 500
ACTIONS = ("open", "close", "release")
BEGUN = "begun"  # stays where the process ended in between: nobody knows more
DONE = "done"
_FORCES = frozenset(f"breaker.{action}" for action in ACTIONS)
_MOST_OUTCOME_CHARACTERS = 300

_log = logging.getLogger("turnout.operations")


class NotNow(RequestRefused):
    """As things stand there is nothing to be done: the message says why."""

    status: ClassVar[int] = 409
    title: ClassVar[str] = "Not possible now"


class Cancels(Protocol):
    async def cancel(self, id: str, *, owner: str | None) -> Prediction | None: ...


class Receivers(Protocol):
    async def retry(self, owner: str, host: str) -> None: ...

    def wake(self) -> None: ...


class Acts:
    """
    Every act is in the audit before it is done, and again with its outcome; so are those that were refused.

    All raise InputInvalid for a reason that is missing or too long, and StoreError if the audit cannot be written:
    then nothing was done. `receivers` sees to it that what is redelivered is tried at once, by whichever process.
    """

    def __init__(
        self,
        store: Store,
        engine: Cancels,
        breakers: Breakers,
        journal: Journal,
        *,
        offers: Callable[[], Sequence[str]],
        receivers: Receivers,
        clock: Clock,
        forces: Forces | None = None,
    ) -> None:
        self._store = store
        self._engine = engine
        self._forces = forces or Forces(breakers)
        self._journal = journal
        self._offers = offers
        self._receivers = receivers
        self._clock = clock

    async def force(self, offer: str, action: str, *, reason: str, who: str) -> AuditLine:
        """Hold a breaker open or closed, or release it. Raises NotFound with the nearest name for an unknown offer."""
        if action not in ACTIONS:
            raise _invalid("enum", "action", f"action must be one of the following: {', '.join(ACTIONS)}")

        async def do(row: AuditRow) -> None:
            known = self._offers()
            if offer not in known:
                near = nearest(offer, known)
                hint = f'; did you mean "{near}"?' if near is not None else ""
                raise NotFound(f'there is no offer "{printable(offer)}"{hint}')
            with self._journal.forcing():
                self._forces.apply(row)
            self._journal.acted(row)

        return await self._do(f"breaker.{action}", offer, reason, who, do)

    async def cancel(self, id: str, *, reason: str, who: str) -> AuditLine:
        """Anybody's prediction. Raises NotFound, NotNow if it has ended."""

        async def do(row: AuditRow) -> None:
            prediction = await self._store.get(id)
            if prediction is None:
                raise NotFound("there is no prediction with this id")
            if prediction.is_terminal:
                raise NotNow(f"the prediction has ended already: it {_has(prediction)}")
            if prediction.cancel_requested_at is not None:
                raise NotNow("a cancel was asked for already; its attempts are being stopped")
            await self._engine.cancel(id, owner=None)
            self._journal.acted(row)

        return await self._do("prediction.cancel", id, reason, who, do)

    async def redeliver(self, id: str, *, reason: str, who: str) -> AuditLine:
        """Send the webhook of its end again: same id, same body. Raises NotFound, NotNow if there is none."""

        async def do(row: AuditRow) -> None:
            prediction = await self._store.get(id)
            if prediction is None:
                raise NotFound("there is no prediction with this id")
            if prediction.data_removed:
                raise NotNow("its data was removed: there is nothing left to send")
            if prediction.is_terminal and prediction.request.webhook is not None:
                await self._receivers.retry(prediction.owner, host_of(prediction.request.webhook))
            redelivery = await self._store.redeliver(id)
            self._receivers.wake()
            match redelivery:
                case Redelivery.NONE if prediction.request.webhook is None:
                    raise NotNow("its caller asked for no webhook")
                case Redelivery.NONE if not prediction.is_terminal:
                    raise NotNow("the prediction has not ended: there is nothing to tell yet")
                case Redelivery.NONE:
                    raise NotNow("its caller asked for no webhook of the end")
                case Redelivery.SENDING:
                    raise NotNow("the webhook is on its way at this moment; look again in a few seconds")
            self._journal.acted(row)

        return await self._do("prediction.redeliver", id, reason, who, do)

    # -- inside ----------------------------------------------------------------------------------------------------

    async def _do(
        self, action: str, target: str, reason: str, who: str, do: Callable[[AuditRow], Awaitable[None]]
    ) -> AuditLine:
        row = AuditRow(
            at=self._clock.now(),
            who=who,
            action=action,
            target=target[:200],
            reason=_checked(reason),
            outcome=BEGUN,
        )
        row = await self._store.put_audit(row)
        try:
            await do(row)
        except RequestRefused as refusal:
            await self._settle(row, str(refusal))
            raise
        except Exception as error:
            await self._settle(row, f"failed: {type(error).__name__}")
            raise
        return await self._settle(row, DONE)

    async def _settle(self, row: AuditRow, outcome: str) -> AuditLine:
        row = replace(row, outcome=outcome[:_MOST_OUTCOME_CHARACTERS])
        _log.info(
            "%s %s by %s: %s (%s)", row.action, printable(row.target), row.who, row.outcome, printable(row.reason)
        )
        try:
            await self._store.put_audit(row)
        except StoreError as error:
            # What was done is done, and has a line: it only goes on saying "begun".
            _log.warning("the outcome of audit line %d could not be written: %s", row.id, error)
        return line_of(row)


class Forces:
    """What ops hold the breakers at. Of two acts on one breaker the later row of the audit counts, whoever did it."""

    def __init__(self, breakers: Breakers) -> None:
        self._breakers = breakers
        self._applied: dict[str, int] = {}  # ids of rows, by offer

    def apply(self, row: AuditRow) -> bool:
        """False: this one or a later one was applied already."""
        if row.id <= self._applied.get(row.target, -1):
            return False
        self._applied[row.target] = row.id
        _hold(self._breakers, row)
        return True

    def pass_over(self, row: AuditRow) -> None:
        """It is done: there is nothing to apply."""
        self._applied[row.target] = max(row.id, self._applied.get(row.target, -1))

    async def catch_up(
        self,
        store: Store,
        *,
        offers: Collection[str],
        quietly: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> None:
        """Do here what was done by ops in other replicas, within `quietly`."""
        rows = await store.last_audit(_FORCES, outcomes=frozenset({BEGUN, DONE}))
        with quietly() if quietly is not None else contextlib.nullcontext():
            for row in rows:
                if row.target in offers and self.apply(row):
                    _log.warning(
                        "%s %s by %s in another replica: %s", row.action, row.target, row.who, printable(row.reason)
                    )


async def replay(store: Store, breakers: Breakers, *, offers: Collection[str], forces: Forces | None = None) -> int:
    """Hold the breakers again that were held before the process ended; how many. For the start."""
    held, forces = 0, forces or Forces(breakers)
    for row in await store.last_audit(_FORCES, outcomes=frozenset({BEGUN, DONE})):
        if row.action == "breaker.release":
            forces.pass_over(row)
            continue
        target, who, why = printable(row.target), printable(row.who), printable(row.reason)
        word = "open" if row.action == "breaker.open" else "closed"
        if row.target not in offers:
            _log.warning("%s was held %s by %s (%s), and is no longer configured", target, word, who, why)
            continue
        _log.warning("%s is still held %s by %s since %s: %s", target, word, who, _moment(row.at), why)
        forces.apply(row)
        held += 1
    return held


def _hold(breakers: Breakers, row: AuditRow) -> None:
    breaker = breakers.of(row.target)
    why = f"{row.reason} ({_moment(row.at)})"
    match row.action:
        case "breaker.open":
            breaker.force_open(who=row.who, why=why)
        case "breaker.close":
            breaker.force_closed(who=row.who, why=why)
        case _:
            breaker.release(who=row.who, why=why)


def line_of(row: AuditRow) -> AuditLine:
    return AuditLine(
        id=row.id,
        at=row.at,
        who=row.who,
        action=row.action,
        target=row.target,
        reason=row.reason,
        outcome=row.outcome,
    )


def _checked(reason: str) -> str:
    reason = reason.strip()
    if not reason:
        raise _invalid("required", "reason", "reason is required: say why, for those who will ask")
    if len(reason) > MOST_REASON_CHARACTERS:
        raise _invalid("string_lte", "reason", f"String length must be less than or equal to {MOST_REASON_CHARACTERS}")
    return reason


def _invalid(type: str, field: str, description: str) -> InputInvalid:
    return InputInvalid((InvalidField(type=type, field=field, description=description),))


def _has(prediction: Prediction) -> str:
    word = prediction.status.value
    return word if word in ("succeeded", "failed") else f"was {word}"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
