"""Finds and removes every file that was kept for one prediction. Decides not when."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.artifact.collect import is_http_url
from gateway.artifact.folder import Artifacts
from gateway.artifact.slots import copy_with_slots
from gateway.contract.prediction import Prediction


class Eraser:
    """
    The engine's Eraser. A file's token derives from its prediction and its place there, so nothing has to be listed.

    Only such tokens are removed: an output that merely names a file of somebody else's prediction takes nothing away
    from it. Files that callers uploaded have a life of their own.
    """

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts

    async def erase(self, prediction: Prediction) -> int:
        """How many files went. Idempotent; raises OSError."""
        count = 0
        for token in dict.fromkeys(self._tokens(prediction)):
            if await self._artifacts.open(token) is not None:
                count += 1
            await self._artifacts.remove(token)
        return count

    async def remove(self, token: str) -> None:
        await self._artifacts.remove(token)

    def _tokens(self, prediction: Prediction) -> Iterator[str]:
        links = self._artifacts.links
        _, inputs = copy_with_slots(prediction.request.input, lambda text: text.startswith("data:"))
        for slot in inputs:
            for period in self._artifacts.periods():
                yield links.input_token(prediction.id, slot.text, period)
        # What an attempt had before its files could not all be had lies under its own number.
        for output in (prediction.output, *(attempt.output for attempt in prediction.attempts)):
            _, slots = copy_with_slots(output, _may_be_file)
            for slot in slots:
                for attempt in prediction.attempts:
                    yield links.output_token(prediction.id, attempt.number, slot.path)


def _may_be_file(text: str) -> bool:
    return text.startswith("data:") or is_http_url(text)
