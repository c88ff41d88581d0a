"""What happened, line by line, the newest thousand: rare events are not washed away by a storm of common ones."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

from gateway.dashboard.shape import Happened

MOST_RARE = 400
MOST_COMMON = 600
COMMON = frozenset({"failover", "rescued"})
MOST_OF_A_KIND = 5  # told one by one within ten seconds; the rest is counted
WINDOW_SECONDS = 10.0
_MOST_KINDS = 500

Kind = tuple[str, str | None, str | None]  # kind, model, provider


class Timeline:
    """Two rings, one for what is rare, one for what comes with traffic. Of equal common events a few are told."""

    def __init__(self) -> None:
        self._rare: deque[Happened] = deque(maxlen=MOST_RARE)
        self._common: deque[Happened] = deque(maxlen=MOST_COMMON)
        self._last = 0
        self._window_until: datetime | None = None
        self._told: dict[Kind, int] = {}

    def add(
        self,
        kind: str,
        at: datetime,
        title: str,
        *,
        text: str = "",
        model: str | None = None,
        provider: str | None = None,
        offer: str | None = None,
        prediction: str | None = None,
        who: str | None = None,
    ) -> None:
        is_common = kind in COMMON
        if is_common and not self._may_tell((kind, model, provider), at):
            return
        self._last += 1
        (self._common if is_common else self._rare).append(
            Happened(
                id=self._last,
                at=at,
                kind=kind,
                title=title,
                text=text,
                model=model,
                provider=provider,
                offer=offer,
                prediction=prediction,
                who=who,
            )
        )

    def newest(self, limit: int, *, after: int = 0) -> tuple[Happened, ...]:
        """Newest first, with ids greater than `after`. Rare ones have half of the places, if they need them."""
        rare = [one for one in self._rare if one.id > after][-limit:]
        common = [one for one in self._common if one.id > after][-limit:]
        places = max(limit - len(common), limit // 2)
        kept = rare[-places:]
        kept += common[-(limit - len(kept)) :] if limit > len(kept) else []
        return tuple(sorted(kept, key=lambda one: one.id, reverse=True))

    @property
    def last(self) -> int:
        """The id of the newest."""
        return self._last

    def __len__(self) -> int:
        return len(self._rare) + len(self._common)

    def _may_tell(self, kind: Kind, at: datetime) -> bool:
        if self._window_until is None or at >= self._window_until:
            self._close_window(at)
        count = self._told.get(kind, 0)
        if count == 0 and len(self._told) >= _MOST_KINDS:
            return False
        self._told[kind] = count + 1
        return count < MOST_OF_A_KIND

    def _close_window(self, at: datetime) -> None:
        """Say how many were not told."""
        ended, told = self._window_until, self._told
        self._window_until, self._told = at + timedelta(seconds=WINDOW_SECONDS), {}
        for (kind, model, provider), count in told.items():
            if count > MOST_OF_A_KIND and ended is not None:
                self._last += 1
                title = _untold(kind, provider, count - MOST_OF_A_KIND)
                self._common.append(
                    Happened(id=self._last, at=ended, kind=kind, title=title, model=model, provider=provider)
                )


def _untold(kind: str, provider: str | None, count: int) -> str:
    """`75 more failovers from north within 10 s`."""
    noun, place = {"failover": ("failover", "from"), "rescued": ("rescue", "by")}.get(kind, (kind, "of"))
    what = f"{count} more {noun}{'' if count == 1 else 's'}"
    return f"{what}{f' {place} {provider}' if provider else ''} within {WINDOW_SECONDS:.0f} s"
