"""One prediction in the hands of the run that drives it: its newest state, and how it is changed. Decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from gateway.contract.attempt import Attempt
from gateway.contract.errors import LeaseLost, PredictionUnreadable, StoreError
from gateway.contract.fact import Begun, Fact, Happening, Learned, Source, SubmitFailed
from gateway.contract.prediction import Prediction
from gateway.contract.provider import Capabilities
from gateway.contract.route import Offer
from gateway.engine.agenda import Agenda
from gateway.engine.cost import cost_of
from gateway.engine.feedback import Feedback
from gateway.engine.parts import Parts
from gateway.engine.purse import Purse
from gateway.engine.seam import Link
from gateway.engine.search import Find

log = logging.getLogger("turnout.engine")

Commit = Callable[[str, Happening], Awaitable[Prediction]]


class Hand:
    """
    What all who work on one prediction share. `prediction` is the newest committed state that this process knows.

    A state that somebody else committed (a callback, a caller's cancel) comes by `update`, and wakes whoever sleeps.
    Our own commits do not: nobody would ever sleep.
    """

    def __init__(
        self,
        prediction: Prediction,
        parts: Parts,
        commit: Commit,
        *,
        purse: Purse,
        may_send: Callable[[], bool],
        find: Find,
    ) -> None:
        self.prediction = prediction
        self.parts = parts
        self.purse = purse
        self.may_send = may_send  # is the lease certainly ours, by this process's own clock?
        self.find = find
        self.agenda = Agenda(parts)
        self.feedback = Feedback(parts.board, parts.observer)
        self._commit_as_holder = commit
        self._woken = asyncio.Event()

    # -- what is so ------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        return self.parts.clock.now()

    def left_seconds(self) -> float:
        """Until the prediction's deadline."""
        return (self.prediction.deadline_at - self.now()).total_seconds()

    def grace_until(self) -> datetime:
        """Until when those that nobody waits for may still say how they ended; then they are let go."""
        asked_at = self.prediction.cancel_requested_at or self.prediction.completed_at or self.now()
        return asked_at + timedelta(seconds=self.parts.timing.cancel_grace)

    def attempt(self, number: int) -> Attempt:
        """As it stands now."""
        return self.prediction.attempts[number - 1]

    def offer(self, attempt: Attempt) -> Offer | None:
        return self.parts.offer(attempt.offer)

    def link(self, attempt: Attempt) -> Link | None:
        """None: its provider is configured no more."""
        return self.parts.links.get(attempt.provider)

    def capabilities(self, attempt: Attempt, link: Link) -> Capabilities:
        return link.capabilities_for(self.offer(attempt))

    # -- what changes it -------------------------------------------------------------------------------------------

    async def commit(self, happening: Happening) -> None:
        """
        Raises StoreError for a step that can be decided again.

        What a provider said once may never be said again: that waits for the store.
        """
        while True:
            try:
                self._take(await self._commit_as_holder(self.prediction.id, happening))
                return
            except (LeaseLost, PredictionUnreadable):
                raise  # whoever holds it, or can read it, finds what is true by himself
            except StoreError as error:
                if not isinstance(happening, (Learned, SubmitFailed)):
                    raise
                log.warning("a fact about prediction %s waits for the store: %s", self.prediction.id, error)
                await asyncio.sleep(self.parts.timing.store_pause)

    async def learn(self, number: int, fact: Fact, source: Source) -> None:
        cost = cost_of(self.prediction, number, fact, offer=self.parts.offer, now=self.now())
        await self.commit(Learned(attempt=number, fact=fact, source=source, cost=cost))

    async def prove(self, attempt: Attempt) -> None:
        """
        Let the store say whose the prediction is: raises LeaseLost, StoreError.

        The step was taken already: once more it changes nothing, and only its holder may take it.
        """
        await self._commit_as_holder(self.prediction.id, Begun(attempt=attempt, plan=self.prediction.plan))

    def update(self, prediction: Prediction) -> None:
        """Somebody else has committed this."""
        self._take(prediction)
        self.wake()

    def _take(self, prediction: Prediction) -> None:
        if prediction.revision > self.prediction.revision:
            self.prediction = prediction
            self.feedback.update(prediction)

    # -- waiting ---------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        self._woken.set()

    def hush(self) -> None:
        """What comes from now on wakes; what came is known."""
        self._woken.clear()

    async def sleep(self, seconds: float) -> None:
        """Until something was committed, a nudge or a drain came, or the time is over. By one at a time."""
        if not self._woken.is_set() and seconds > 0:
            await self.wait(seconds)
        self._woken.clear()

    async def wait(self, seconds: float) -> None:
        """Until it is woken, or the time is over; it stays awake."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()


async def break_off(*tasks: asyncio.Task[Any], seconds: float) -> None:
    """Cancel them, and wait until they have ended; for so long, should one not want to."""
    for task in tasks:
        task.cancel()
    done, _ = await asyncio.wait(tasks, timeout=seconds)
    for task in done:
        if not task.cancelled():
            task.exception()  # nobody waits for it any more, so that it is nobody's
