"""
What attempts have shown of all offers lately, here and in other replicas: times, success, bills, load, rate limits.

Decides nothing. What is known of one offer is `record`'s; how it comes from the others and goes to them `bulletin`'s.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from gateway.contract.clock import Clock
from gateway.contract.errors import Blame
from gateway.contract.route import NO_SIGNALS, Signals
from gateway.routing.record import MOST_SIZES, Flight, Outcome, Record

FRESH_SECONDS = 0.25  # figures are not reckoned more often than this
PLANNED_HALF_LIFE_SECONDS = 0.25

MOST_OUTCOMES_KEPT = 512  # to be told to other replicas: of one process, not of one offer

FIRST_COOL_DOWN_SECONDS = 1.0
MAX_COOL_DOWN_SECONDS = 30.0
MAX_RETRY_AFTER_SECONDS = 3600.0


class _Planned:
    """Attempts that are about to begin. Those that do not after all are soon forgotten."""

    __slots__ = ("_at", "_count")

    def __init__(self) -> None:
        self._count = 0.0
        self._at = 0.0

    def count(self, now: float) -> float:
        return _decayed(self._count, now - self._at, PLANNED_HALF_LIFE_SECONDS)

    def add(self, now: float) -> None:
        self._count, self._at = self.count(now) + 1, now

    def begin(self, now: float) -> None:
        self._count, self._at = max(self.count(now) - 1, 0.0), now


class _Entry:
    """An offer on the board. `others_` is what other replicas told of it."""

    __slots__ = (
        "changed",
        "cool_down_seconds",
        "figures",
        "limited_until",
        "others_in_flight",
        "others_limited_until",
        "planned",
        "record",
        "signals",
    )

    def __init__(self) -> None:
        self.record = Record()
        self.planned = _Planned()
        self.limited_until = -math.inf
        self.others_in_flight = 0
        self.others_limited_until = -math.inf
        self.cool_down_seconds = 0.0
        self.changed = False  # something has come that the figures do not know
        self.figures: dict[int, tuple[float, int, Signals]] = {}  # by size: when reckoned, after which gap, and what
        self.signals: dict[int, tuple[float, Signals]] = {}  # by size: until when they hold, and what


class Board:
    """
    The signals of all offers, fed by the engine.

    Every `attempt_begun` is followed by one `attempt_ended`. After a restart the engine begins the attempts it adopts
    anew. Local to the process: a route is never decided by a remote read. What is learned from other replicas is kept
    apart from what is ours, and never told on.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: defaultdict[str, _Entry] = defaultdict(_Entry)
        self._in_flight: defaultdict[str, int] = defaultdict(int)  # by provider
        self._planned: defaultdict[str, _Planned] = defaultdict(_Planned)  # by provider
        self._others: dict[str, int] = {}  # in flight from other replicas, by offer
        self._others_in_flight: dict[str, int] = {}  # by provider
        self._others_until = -math.inf
        self._outcomes: deque[Outcome] = deque(maxlen=MOST_OUTCOMES_KEPT)
        self._serial = 0

    @property
    def clock(self) -> Clock:
        return self._clock

    def attempt_planned(self, offer_id: str) -> None:
        """
        A plan puts this offer first: its attempt is about to begin.

        Counted as in flight for a moment, until it begins: many plans made at once must see each other.
        """
        entry, now = self._entries[offer_id], self._clock.monotonic()
        entry.planned.add(now)
        self._planned[provider_of(offer_id)].add(now)
        entry.signals.clear()

    def attempt_begun(self, offer_id: str, *, size: int = 0) -> Flight:
        """`size`: the class of its work (`unit.size_of`). What comes back is handed in when it has ended."""
        entry, now, provider = self._entries[offer_id], self._clock.monotonic(), provider_of(offer_id)
        entry.planned.begin(now)
        self._planned[provider].begin(now)
        record = entry.record
        flight = Flight(offer_id, size=size, begun=now, gap=record.gap(now, others_busy=entry.others_in_flight > 0))
        record.flights[flight] = None
        record.pace.admitted(now)
        entry.signals.clear()
        self._in_flight[provider] += 1
        return flight

    def attempt_ended(
        self,
        flight: Flight,
        *,
        queue_seconds: float | None = None,
        run_seconds: float | None = None,
        total_seconds: float | None = None,
        bill: float | None = None,
        blame: Blame | None,
        retry_after_seconds: float | None = None,
        is_cut: bool = False,
    ) -> None:
        """
        An attempt is over. `blame` None means that it succeeded; times are None where they are not known.

        `bill` is what was billed as a share of what was expected. `is_cut`: it took too long, and was stopped so that
        another be tried. What is the caller's fault or our own says nothing of the offer, and a refusal for its rate
        says nothing but that.
        """
        entry, now = self._entries[flight.offer], self._clock.monotonic()
        record = entry.record
        if flight in record.flights:
            del record.flights[flight]
            record.last_at = now
            self._in_flight[provider_of(flight.offer)] -= 1
        entry.signals.clear()
        if is_cut and total_seconds is not None:
            record.learn_cut(total_seconds, size=flight.size, now=now)
            entry.changed = True
        if blame is Blame.CALLER or blame is Blame.LOCAL:
            return
        if blame is Blame.THROTTLE:
            record.pace.refused(now, begun=flight.begun)
            _limit(entry, now, retry_after_seconds)
            return
        if blame is None:
            entry.cool_down_seconds = 0.0
        self._serial += 1
        outcome = Outcome(
            self._serial,
            now,
            flight.offer,
            blame is None,
            _seconds(queue_seconds),
            _seconds(run_seconds),
            _seconds(total_seconds),
            flight.size,
            flight.gap,
            _seconds(bill),
        )
        self._outcomes.append(outcome)
        record.learn(outcome, now)
        entry.changed = True

    # -- replicas ------------------------------------------------------------------------------------------------

    def loads(self) -> dict[str, int]:
        """Our own attempts in flight, by offer."""
        return {offer: len(entry.record.flights) for offer, entry in self._entries.items() if entry.record.flights}

    def cool_downs(self) -> dict[str, float]:
        """Seconds for which an offer is rate limited, as we were told ourselves."""
        now = self._clock.monotonic()
        return {offer: entry.limited_until - now for offer, entry in self._entries.items() if entry.limited_until > now}

    def outcomes(self, *, since: float) -> list[Outcome]:
        """Our own, of the time after `since`, the oldest first; of very many the newest."""
        found = []
        for outcome in reversed(self._outcomes):
            if outcome.at < since:
                break
            found.append(outcome)
        return found[::-1]

    def learn_loads(self, loads: Sequence[Mapping[str, int]], *, lifetime_seconds: float) -> None:
        """What the others have in flight, one mapping each, in place of what they had. Fades if it is not renewed."""
        now = self._clock.monotonic()
        for offer in self._others:
            entry = self._entries[offer]
            if entry.others_in_flight:
                entry.record.last_at = max(entry.record.last_at, now)
            entry.others_in_flight = 0
        self._others, self._others_in_flight = {}, {}
        for told in loads:
            for offer, count in told.items():
                self._others[offer] = self._others.get(offer, 0) + count
        for offer, count in self._others.items():
            provider = provider_of(offer)
            self._entries[offer].others_in_flight = count
            self._others_in_flight[provider] = self._others_in_flight.get(provider, 0) + count
        self._others_until = now + lifetime_seconds

    def learn_cool_down(self, offer_id: str, seconds: float) -> None:
        entry, now = self._entries[offer_id], self._clock.monotonic()
        until = now + min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
        entry.others_limited_until = max(entry.others_limited_until, until)
        entry.signals.clear()

    def learn_outcome(self, outcome: Outcome) -> None:
        """How an attempt of another replica went; `at` by our own clock, `serial` is theirs."""
        entry = self._entries[outcome.offer]
        entry.record.learn(outcome, self._clock.monotonic())
        entry.changed = True

    def _fade(self, now: float) -> None:
        if now >= self._others_until and self._others:
            self.learn_loads((), lifetime_seconds=0.0)

    # -- asked ---------------------------------------------------------------------------------------------------

    def snapshot(self, offer_id: str, *, size: int = 0) -> Signals:
        """
        The signals now, for work of this size; NO_SIGNALS for an offer nothing is known of.

        The breaker's part is the planner's to fill in. Load is always current, figures are at most FRESH_SECONDS old.
        Costs a look-up between changes.
        """
        return self.snapshots((offer_id,), size=size)[0]

    def snapshots(self, offer_ids: Iterable[str], *, size: int = 0) -> list[Signals]:
        """Of several offers at one moment."""
        now, entries = self._clock.monotonic(), self._entries
        self._fade(now)
        found: list[Signals] = []
        for offer_id in offer_ids:
            entry = entries.get(offer_id)
            if entry is None:
                found.append(NO_SIGNALS)
                continue
            known = entry.signals.get(size)
            if known is None or now >= known[0]:
                known = entry.signals[size] = _renewed(entry, now, size)
            found.append(known[1])
        return found

    def in_flight(self, provider: str) -> int:
        """Attempts in flight with a provider, or about to be, over all its offers and all replicas heard of."""
        now = self._clock.monotonic()
        self._fade(now)
        planned = self._planned.get(provider)
        soon = round(planned.count(now)) if planned is not None else 0
        return self._in_flight.get(provider, 0) + self._others_in_flight.get(provider, 0) + soon


def provider_of(offer_id: str) -> str:
    """`"owner/name@provider#2"` → `"provider"`."""
    return offer_id.rpartition("@")[2].partition("#")[0]


def _renewed(entry: _Entry, now: float, size: int) -> tuple[float, Signals]:
    record = entry.record
    gap = record.gap(now, others_busy=entry.others_in_flight > 0)
    reckoned_at, of_gap, figures = entry.figures.get(size, (-math.inf, gap, NO_SIGNALS))
    # Without a new outcome only decay and those under way change the figures, and that is slow.
    fresh = FRESH_SECONDS if entry.changed else 4 * FRESH_SECONDS
    if now - reckoned_at >= fresh or gap != of_gap:
        figures = record.figures(now, size=size, gap=gap)
        if len(entry.figures) >= MOST_SIZES:
            entry.figures.clear()
        entry.figures[size] = (now, gap, figures)
        entry.changed = False
    limited_until = max(entry.limited_until, entry.others_limited_until)
    limited, pace = max(limited_until - now, 0.0), record.pace.wait_seconds(now)
    signals = replace(
        figures,
        in_flight=len(record.flights) + entry.others_in_flight + round(entry.planned.count(now)),
        limited_for_seconds=limited,
        pace_seconds=pace,
        unheard_seconds=now - record.heard_at if record.heard_at != -math.inf else None,
    )
    passing = [seconds for seconds in (limited, pace) if seconds > 0]
    return now + min(FRESH_SECONDS, *passing, FRESH_SECONDS), signals


def _limit(entry: _Entry, now: float, retry_after_seconds: float | None) -> None:
    """A longer limit replaces a shorter one, never the other way round; refusals of one rush count once."""
    if retry_after_seconds is not None and 0 <= retry_after_seconds < math.inf:
        seconds = min(retry_after_seconds, MAX_RETRY_AFTER_SECONDS)
    elif now < entry.limited_until:
        return
    else:
        doubled = entry.cool_down_seconds * 2 or FIRST_COOL_DOWN_SECONDS
        seconds = entry.cool_down_seconds = min(doubled, MAX_COOL_DOWN_SECONDS)
    entry.limited_until = max(entry.limited_until, now + seconds)


def _decayed(value: float, seconds: float, half_life_seconds: float) -> float:
    return value * 2.0 ** (-seconds / half_life_seconds) if value else 0.0


def _seconds(value: float | None) -> float | None:
    return value if value is not None and 0 <= value < math.inf else None
