"""What a stream has yet to say, and what counts as more. Pure; knows no attempt and no prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.contract.fact import StreamEvent


def output_events(shown: Any, output: Any) -> tuple[StreamEvent, ...]:
    """What a stream has yet to say to get from `shown` to `output`. Text chunks travel together, files one by one."""
    if output is None or output == shown:
        return ()
    if isinstance(output, list):
        seen = len(shown) if isinstance(shown, list) and output[: len(shown)] == shown else 0
        rest = output[seen:]
        if not rest:
            return ()
        if all(isinstance(item, str) for item in rest):
            if any(item.startswith(("https://", "http://", "data:")) for item in rest):
                return tuple(StreamEvent(event="output", data=item) for item in rest)
            return (StreamEvent(event="output", data="".join(rest)),)
        return tuple(StreamEvent(event="output", data=_text(item)) for item in rest)
    if isinstance(output, str) and isinstance(shown, str) and output.startswith(shown):
        return (StreamEvent(event="output", data=output[len(shown) :]),)
    return (StreamEvent(event="output", data=_text(output)),)


def is_longer(new: Any, old: Any) -> bool:
    """Whether `new` says more than `old`: outputs of a running attempt are cumulative and only grow."""
    if new is None or new == old:
        return False
    if isinstance(new, (list, str)) and isinstance(old, type(new)):
        return len(new) > len(old)
    return old is None


def any_text(value: Any, test: Callable[[str], bool]) -> bool:
    if isinstance(value, str):
        return test(value)
    if isinstance(value, list):
        return any(any_text(item, test) for item in value)
    if isinstance(value, dict):
        return any(any_text(item, test) for item in value.values())
    return False


def as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else as_json(value)
