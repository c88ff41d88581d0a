"""One of Runware's tasks, read out of an answer that may speak of several. Not how it was sent or asked for."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gateway.contract.errors import ModelFailed
from gateway.contract.fact import Fact, Phase
from gateway.contract.money import Cost
from providers._adapter import dollars, ended
from providers._content import inline_base64
from providers._job import urls_of
from providers._runware_error import kind_of_code, words_of_error

_MEDIA = {"image": "image/png", "video": "video/mp4", "audio": "audio/mpeg"}


def read_task(
    items: list[dict[str, Any]], errors: list[dict[str, Any]], *, handle: dict[str, str], wanted: int
) -> Fact:
    """
    One task out of its items and errors: over once nothing waits, and `wanted` results or an error are there.

    What was made is the output, even beside errors; only nothing is a failure.
    """
    made: list[tuple[dict[str, Any], Any]] = []
    failed, waits = list(errors), 0
    for item in items:
        value, status = _made(item), item.get("status")
        if status == "error":
            failed.append(item)
        elif status in ("success", None) and value is not None:
            made.append((item, value))
        elif status == "success":
            failed.append({"message": "the task succeeded, and there is no result"})
        else:
            waits += 1  # acknowledged, processing, or in a state that nobody knows yet
    if waits or (len(made) < wanted and not failed):
        running = made or any("status" in item for item in items)
        return Fact(phase=Phase.RUNNING if running else Phase.QUEUED, handle=handle)
    if not made:
        kind = kind_of_code(failed[0].get("code")) or ModelFailed
        return ended(kind, words_of_error(failed[0]), handle=handle)
    pictures = sum(any(key.startswith("image") for key in item) for item, _ in made)
    return Fact(
        phase=Phase.SUCCEEDED,
        handle=handle,
        output=[value for _, value in made],
        metrics={"image_count": pictures} if pictures else {},
        cost=_cost([item.get("cost") for item, _ in made]),
    )


def about(id: str, body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Items of task `id`, and errors that are of it, or of no task by name."""
    items = [item for item in _objects(body.get("data")) if item.get("taskUUID") == id]
    return items, [error for error in _objects(body.get("errors")) if error.get("taskUUID") in (id, None)]


def stranger_in(body: Mapping[str, Any]) -> str | None:
    """The first id of a task that the answer names."""
    ids = (entry.get("taskUUID") for key in ("data", "errors") for entry in _objects(body.get(key)))
    return next((id for id in ids if isinstance(id, str)), None)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def count_in(handle: Mapping[str, str]) -> int:
    count = handle.get("count", "1")
    return int(count) if count.isascii() and count.isdecimal() else 1


def _made(item: Mapping[str, Any]) -> Any:
    """What an item holds: an address, a file, a text or a set of files; None if it holds nothing yet."""
    for kind, content_type in _MEDIA.items():
        if urls := urls_of([item.get(f"{kind}URL")]):
            return urls[0]
        for form in ("DataURI", "Base64Data"):
            data = item.get(f"{kind}{form}")
            if isinstance(data, str) and (file := inline_base64(data, otherwise=content_type)):
                return file
    text = item.get("text")
    return text if isinstance(text, str) else item.get("outputs")


def _cost(costs: list[Any]) -> Cost | None:
    """The sum in dollars, if each item has told its own."""
    if not all(type(cost) in (int, float) for cost in costs):
        return None
    return dollars(str(sum((Decimal(str(cost)) for cost in costs), Decimal(0))))
