"""
What attempts have shown of each offer lately, here and in other replicas: times, success, load, rate limits.

Decides nothing. How it comes from the others and goes to them is `bulletin`'s.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.contract.clock import Clock
from gateway.contract.errors import Blame
from gateway.contract.route import NO_SIGNALS, Signals

WINDOW_SECONDS = 300.0  # samples older than this are gone
MAX_SAMPLES = 128
LATENCY_HALF_LIFE_SECONDS = 120.0
# Shorter: a penalty that outlives its cause starves an offer, and the breaker is there for what lasts.
SUCCESS_HALF_LIFE_SECONDS = 30.0
# As many imagined successes, so that one failure out of one is no verdict.
SUCCESS_PRIOR = 4.0
FRESH_SECONDS = 0.1  # figures are not reckoned more often than this
PLANNED_HALF_LIFE_SECONDS = 0.25

MOST_OUTCOMES_KEPT = 512  # to be told to other replicas: of one process, not of one offer

FIRST_COOL_DOWN_SECONDS = 1.0
MAX_COOL_DOWN_SECONDS = 30.0
MAX_RETRY_AFTER_SECONDS = 3600.0


class Sample(NamedTuple):
    """One ended attempt. Times of failures are left out: a quick refusal is not a quick result."""

    at: float
    queue_seconds: float | None = None
    run_seconds: float | None = None
    total_seconds: float | None = None


class Outcome(NamedTuple):
    """One ended attempt of ours, for other replicas. `serial` counts them, so that none is learned twice."""

    serial: int
    at: float
    offer: str
    is_good: bool
    queue_seconds: float | None = None
    run_seconds: float | None = None
    total_seconds: float | None = None


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


class _Record:
    """What is known of one offer. `others_` is what other replicas told of it."""

    __slots__ = (
        "all",
        "changed",
        "cool_down_seconds",
        "decayed_at",
        "figures",
        "figures_at",
        "good",
        "in_flight",
        "limited_until",
        "others_in_flight",
        "others_limited_until",
        "planned",
        "samples",
        "signals",
        "signals_until",
    )

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)
        self.good = self.all = 0.0  # decayed counts
        self.decayed_at = 0.0
        self.in_flight = 0
        self.planned = _Planned()
        self.limited_until = -math.inf
        self.others_in_flight = 0
        self.others_limited_until = -math.inf
        self.cool_down_seconds = 0.0
        self.changed = False  # a sample has come that the figures do not know
        self.figures = NO_SIGNALS
        self.figures_at = -math.inf
        self.signals = NO_SIGNALS
        self.signals_until = -math.inf


class Board:
    """
    The signals of all offers, fed by the engine.

    Every `attempt_begun` is followed by one `attempt_ended`. After a restart the engine begins the attempts it adopts
    anew. Local to the process: a route is never decided by a remote read. What is learned from other replicas is kept
    apart from what is ours, and never told on.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: defaultdict[str, _Record] = defaultdict(_Record)
        self._in_flight: defaultdict[str, int] = defaultdict(int)  # by provider
        self._planned: defaultdict[str, _Planned] = defaultdict(_Planned)  # by provider
        self._others: dict[str, int] = {}  # in flight from other replicas, by offer
        self._others_in_flight: dict[str, int] = {}  # by provider
        self._others_until = -math.inf
        self._outcomes: deque[Outcome] = deque(maxlen=MOST_OUTCOMES_KEPT)
        self._serial = 0

    def attempt_planned(self, offer_id: str) -> None:
        """
        A plan puts this offer first: its attempt is about to begin.

        Counted as in flight for a moment, until it begins: many plans made at once must see each other.
        """
        record, now = self._records[offer_id], self._clock.monotonic()
        record.planned.add(now)
        self._planned[provider_of(offer_id)].add(now)
        record.signals_until = -math.inf

    def attempt_begun(self, offer_id: str) -> None:
        record, now, provider = self._records[offer_id], self._clock.monotonic(), provider_of(offer_id)
        record.planned.begin(now)
        self._planned[provider].begin(now)
        record.in_flight += 1
        record.signals_until = -math.inf
        self._in_flight[provider] += 1

    def attempt_ended(
        self,
        offer_id: str,
        *,
        queue_seconds: float | None = None,
        run_seconds: float | None = None,
        total_seconds: float | None = None,
        blame: Blame | None,
        retry_after_seconds: float | None = None,
    ) -> None:
        """
        An attempt is over. `blame` None means that it succeeded; times are None where they are not known.

        What is the caller's fault or our own says nothing of the offer.
        """
        record, now = self._records[offer_id], self._clock.monotonic()
        if record.in_flight > 0:
            record.in_flight -= 1
            self._in_flight[provider_of(offer_id)] -= 1
        record.signals_until = -math.inf
        if blame is Blame.CALLER or blame is Blame.LOCAL:
            return
        if blame is Blame.THROTTLE:
            _limit(record, now, retry_after_seconds)
        if blame is None:
            record.cool_down_seconds = 0.0
        self._serial += 1
        times = (_seconds(queue_seconds), _seconds(run_seconds), _seconds(total_seconds))
        outcome = Outcome(self._serial, now, offer_id, blame is None, *(times if blame is None else ()))
        self._outcomes.append(outcome)
        _count(record, outcome, now)

    # -- replicas ------------------------------------------------------------------------------------------------

    def loads(self) -> dict[str, int]:
        """Our own attempts in flight, by offer."""
        return {offer: record.in_flight for offer, record in self._records.items() if record.in_flight}

    def cool_downs(self) -> dict[str, float]:
        """Seconds for which an offer is rate limited, as we were told ourselves."""
        now = self._clock.monotonic()
        return {
            offer: record.limited_until - now for offer, record in self._records.items() if record.limited_until > now
        }

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
        for offer in self._others:
            self._records[offer].others_in_flight = 0
        self._others, self._others_in_flight = {}, {}
        for told in loads:
            for offer, count in told.items():
                self._others[offer] = self._others.get(offer, 0) + count
        for offer, count in self._others.items():
            provider = provider_of(offer)
            self._records[offer].others_in_flight = count
            self._others_in_flight[provider] = self._others_in_flight.get(provider, 0) + count
        self._others_until = self._clock.monotonic() + lifetime_seconds

    def learn_cool_down(self, offer_id: str, seconds: float) -> None:
        record, now = self._records[offer_id], self._clock.monotonic()
        until = now + min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
        record.others_limited_until = max(record.others_limited_until, until)
        record.signals_until = -math.inf

    def learn_outcome(self, outcome: Outcome) -> None:
        """How an attempt of another replica went; `at` by our own clock, `serial` is theirs."""
        _count(self._records[outcome.offer], outcome, self._clock.monotonic())

    def _fade(self, now: float) -> None:
        if now >= self._others_until and self._others:
            self.learn_loads((), lifetime_seconds=0.0)

    # -- asked ---------------------------------------------------------------------------------------------------

    def snapshot(self, offer_id: str) -> Signals:
        """
        The signals now; NO_SIGNALS for an offer nothing is known of. The breaker's part is the planner's to fill in.

        Load is always current, the figures are at most a tenth of a second old. Costs a look-up between changes.
        """
        record = self._records.get(offer_id)
        if record is None:
            return NO_SIGNALS
        now = self._clock.monotonic()
        self._fade(now)
        if now >= record.signals_until:
            _renew(record, now)
        return record.signals

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


def _count(record: _Record, outcome: Outcome, now: float) -> None:
    """An outcome among the samples and the decayed counts. One that is told late counts as much less as it is old."""
    past = now - record.decayed_at
    weight = _decayed(1.0, now - outcome.at, SUCCESS_HALF_LIFE_SECONDS)
    record.all = _decayed(record.all, past, SUCCESS_HALF_LIFE_SECONDS) + weight
    record.good = _decayed(record.good, past, SUCCESS_HALF_LIFE_SECONDS) + (weight if outcome.is_good else 0.0)
    record.decayed_at = now
    record.changed = True
    times = (outcome.queue_seconds, outcome.run_seconds, outcome.total_seconds)
    record.samples.append(Sample(outcome.at, *times))


def _renew(record: _Record, now: float) -> None:
    # Without a new sample only decay changes the figures, and that is slow.
    if now - record.figures_at >= (FRESH_SECONDS if record.changed else 10 * FRESH_SECONDS):
        record.figures = _figures(record, now)
        record.figures_at = now
        record.changed = False
    figures = record.figures
    limited_until = max(record.limited_until, record.others_limited_until)
    record.signals = Signals(
        samples=figures.samples,
        queue_p50=figures.queue_p50,
        run_p50=figures.run_p50,
        run_p95=figures.run_p95,
        total_p50=figures.total_p50,
        total_p95=figures.total_p95,
        success=figures.success,
        in_flight=record.in_flight + record.others_in_flight + round(record.planned.count(now)),
        limited_for_seconds=max(limited_until - now, 0.0),
    )
    record.signals_until = min(now + FRESH_SECONDS, limited_until if limited_until > now else math.inf)


def _figures(record: _Record, now: float) -> Signals:
    samples = record.samples
    while samples and now - samples[0].at > WINDOW_SECONDS:
        samples.popleft()
    if not samples:
        return NO_SIGNALS
    weights = [_decayed(1.0, now - sample.at, LATENCY_HALF_LIFE_SECONDS) for sample in samples]
    queue = sorted((s.queue_seconds, w) for s, w in zip(samples, weights, strict=True) if s.queue_seconds is not None)
    run = sorted((s.run_seconds, w) for s, w in zip(samples, weights, strict=True) if s.run_seconds is not None)
    total = sorted((s.total_seconds, w) for s, w in zip(samples, weights, strict=True) if s.total_seconds is not None)
    past = now - record.decayed_at
    good = _decayed(record.good, past, SUCCESS_HALF_LIFE_SECONDS)
    ended = _decayed(record.all, past, SUCCESS_HALF_LIFE_SECONDS)
    return Signals(
        samples=len(samples),
        queue_p50=quantile(queue, 0.5),
        run_p50=quantile(run, 0.5),
        run_p95=quantile(run, 0.95),
        total_p50=quantile(total, 0.5),
        total_p95=quantile(total, 0.95),
        success=(good + SUCCESS_PRIOR) / (ended + SUCCESS_PRIOR),
    )


def quantile(weighted: Sequence[tuple[float, float]], share: float) -> float | None:
    """The value below which `share` of the weight lies; `weighted` is sorted (value, weight). None without values."""
    whole = sum(weight for _, weight in weighted)
    left = share * whole
    for value, weight in weighted:
        left -= weight
        if left <= 1e-9 * whole:  # sums of floats miss their mark
            return value
    return weighted[-1][0] if weighted else None


def _limit(record: _Record, now: float, retry_after_seconds: float | None) -> None:
    """A longer limit replaces a shorter one, never the other way round; refusals of one rush count once."""
    if retry_after_seconds is not None and 0 <= retry_after_seconds < math.inf:
        seconds = min(retry_after_seconds, MAX_RETRY_AFTER_SECONDS)
    elif now < record.limited_until:
        return
    else:
        doubled = record.cool_down_seconds * 2 or FIRST_COOL_DOWN_SECONDS
        seconds = record.cool_down_seconds = min(doubled, MAX_COOL_DOWN_SECONDS)
    record.limited_until = max(record.limited_until, now + seconds)


def _decayed(value: float, seconds: float, half_life_seconds: float) -> float:
    return value * 2.0 ** (-seconds / half_life_seconds) if value else 0.0


def _seconds(value: float | None) -> float | None:
    return value if value is not None and 0 <= value < math.inf else None
