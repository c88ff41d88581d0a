"""What is known of one offer, learned from its attempts one by one, and what that makes its signals. Knows no other."""

from __future__ import annotations

import bisect
import math
from collections import deque
from typing import NamedTuple

from gateway.contract.route import Signals
from gateway.routing.pace import Pace
from gateway.routing.sketch import Bins, Sketch, mean, mixture, quantiles, spread, with_overdue
from gateway.routing.trust import Trust

RECENT_SECONDS = 60.0  # half-lives
LASTING_SECONDS = 1_800.0
# As many durations of the wider distribution as stand beside those of the narrower one.
PRIOR_DURATIONS = 4.0
# An attempt that is so much later than the slowest of its kind hardly ends well.
OVERDUE = 1.5
SLOWEST = 0.98
MOST_OVERDUE = 12
HOPED = 0.2  # of all durations of the last hour: as fast as it was in better times
# Seconds without work, after which an offer may have gone to sleep.
GAPS = (15.0, 60.0, 180.0, 600.0, 1_800.0)
LEAST_OUTCOMES = 0.05  # with less it is as if nobody had ever tried
MOST_SIZES = 32  # of work that are told apart
BILLS = 5.0  # bills that the mean of them reaches back


class Outcome(NamedTuple):
    """
    One ended attempt, for this replica and the others. `serial` counts one's own, so that none is learned twice.

    Times of failures are known only as `total_seconds`: a quick refusal is not a quick result. `bill` is what was
    billed, as a share of what was expected; None where either is unknown. `gap` is the place among GAPS of the idleness
    before it.
    """

    serial: int
    at: float
    offer: str
    is_good: bool
    queue_seconds: float | None = None
    run_seconds: float | None = None
    total_seconds: float | None = None
    size: int = 0
    gap: int = 0
    bill: float | None = None


class Flight:
    """One attempt under way, as it was when it began."""

    __slots__ = ("begun", "gap", "offer", "size")

    def __init__(self, offer: str, *, size: int, begun: float, gap: int) -> None:
        self.offer = offer
        self.size = size
        self.begun = begun
        self.gap = gap


class _Cut(NamedTuple):
    """An attempt that was stopped on the way, for no fault of its own."""

    at: float
    seconds: float
    size: int


class _Mean:
    """Of the last few, the newest most."""

    __slots__ = ("_at", "_half_life", "_sum", "_weight")

    def __init__(self, half_life_seconds: float) -> None:
        self._half_life = half_life_seconds
        self._sum = self._weight = self._at = 0.0

    def add(self, value: float, now: float) -> None:
        self._fade(now)
        keep = 1 - 1 / BILLS
        self._sum, self._weight = self._sum * keep + value, self._weight * keep + 1.0

    def leaning_on(self, prior: float, now: float) -> float:
        self._fade(now)
        return (self._sum + prior) / (self._weight + 1.0)

    def _fade(self, now: float) -> None:
        keep = 2.0 ** (min(self._at - now, 0.0) / self._half_life)
        self._sum, self._weight, self._at = self._sum * keep, self._weight * keep, max(self._at, now)


class _Times:
    """Durations of one kind, at two memories."""

    __slots__ = ("lasting", "recent")

    def __init__(self) -> None:
        self.recent = Sketch(RECENT_SECONDS)
        self.lasting = Sketch(LASTING_SECONDS)

    def add(self, seconds: float, at: float) -> None:
        self.recent.add(seconds, at=at)
        self.lasting.add(seconds, at=at)

    def weight(self, now: float) -> float:
        return self.lasting.weight(now)

    def bins(self, now: float, wider: Bins | None = None) -> Bins:
        """The recent ones, and as far as they are few the lasting ones, and as far as those are few `wider`."""
        own, kept, rest = self._shares(now, leans=bool(wider))
        return mixture([(self.recent.bins, own), (self.lasting.bins, kept), (wider or {}, rest)])

    def mean(self, now: float, wider: float | None = None) -> float | None:
        recent, lasting = self.recent.mean, self.lasting.mean
        if recent is None or lasting is None:
            return wider
        own, kept, rest = self._shares(now, leans=wider is not None)
        return own * recent + kept * lasting + rest * (wider or 0.0)

    def _shares(self, now: float, *, leans: bool) -> tuple[float, float, float]:
        recent, lasting = self.recent.weight(now), self.lasting.weight(now)
        own = recent / (recent + PRIOR_DURATIONS)
        kept = (1 - own) * (lasting / (lasting + PRIOR_DURATIONS) if leans else 1.0)
        return own, kept, 1 - own - kept


class _Work:
    """What work of one size takes: from when it runs to its result, and as its provider counts it."""

    __slots__ = ("results", "runs")

    def __init__(self) -> None:
        self.results = _Times()
        self.runs = _Times()

    def learn(self, outcome: Outcome) -> None:
        result = outcome.run_seconds
        if outcome.total_seconds is not None:
            result = max(outcome.total_seconds - (outcome.queue_seconds or 0.0), 0.0)
        if result is not None:
            self.results.add(result, outcome.at)
        if outcome.run_seconds is not None:
            self.runs.add(outcome.run_seconds, outcome.at)


class Record:
    """One offer's. Times are the monotonic clock's."""

    def __init__(self) -> None:
        self.flights: dict[Flight, None] = {}  # in the order in which they began
        self.pace = Pace()
        self.last_at = -math.inf  # when something was last under way here
        self.heard_at = -math.inf  # when the last outcome came
        self._cuts: deque[_Cut] = deque(maxlen=MOST_OVERDUE)
        self._trust = Trust()
        self._all = _Work()
        self._by_size: dict[int, _Work] = {}
        self._starts: dict[int, Sketch] = {}  # by gap
        self._queues = Sketch(RECENT_SECONDS)
        self._totals = _Times()
        self._failures = Sketch(LASTING_SECONDS)
        self._bill = _Mean(LASTING_SECONDS)
        self._failure_bill = _Mean(LASTING_SECONDS)

    # -- learned -------------------------------------------------------------------------------------------------

    def gap(self, now: float, *, others_busy: bool) -> int:
        """How long it has had nothing to do, as a place among GAPS; 0: it is busy, or has just been."""
        if self.flights or others_busy:
            return 0
        return bisect.bisect_right(GAPS, now - self.last_at)

    def learn(self, outcome: Outcome, now: float) -> None:
        self._trust.add(is_good=outcome.is_good, at=outcome.at, now=now)
        self.heard_at = max(self.heard_at, outcome.at)
        if outcome.bill is not None:
            (self._bill if outcome.is_good else self._failure_bill).add(outcome.bill, now)
        if not outcome.is_good:
            if outcome.total_seconds is not None:
                self._failures.add(outcome.total_seconds, at=outcome.at)
            return
        if outcome.queue_seconds is not None:
            self._queues.add(outcome.queue_seconds, at=outcome.at)
            self._starts.setdefault(outcome.gap, Sketch(LASTING_SECONDS)).add(outcome.queue_seconds, at=outcome.at)
        if outcome.total_seconds is not None:
            self._totals.add(outcome.total_seconds, outcome.at)
        self._all.learn(outcome)
        work = self._by_size.get(outcome.size)
        if work is None:
            if len(self._by_size) >= MOST_SIZES:
                del self._by_size[next(iter(self._by_size))]  # the one that was learned of first
            work = self._by_size[outcome.size] = _Work()
        work.learn(outcome)

    def learn_cut(self, seconds: float, *, size: int, now: float) -> None:
        """It takes longer than so long, and nobody will ever know how long."""
        self._cuts.append(_Cut(now, seconds, size))

    # -- told ----------------------------------------------------------------------------------------------------

    def figures(self, now: float, *, size: int, gap: int) -> Signals:
        """What attempts have shown; the load, and whatever else stands beside them, is the board's to fill in."""
        work = self._by_size.get(size)
        starts = self._start_bins(gap)
        bins = self._of(now, work.results if work else None, self._all.results)
        overdue = self._overdue(now, size, bins, starts)
        ages = [now - flight.begun for flight in overdue]
        ages += [cut.seconds for cut in self._cuts if cut.size == size and now - cut.at < RECENT_SECONDS]
        if ages and bins:
            weight = work.results.recent.weight(now) if work is not None else 0.0
            bins = with_overdue(bins, max(weight, 1.0), ages)
        outcomes = self._trust.outcomes(now)
        has_data = outcomes >= LEAST_OUTCOMES or bool(overdue)
        run = quantiles(self._of(now, work.runs if work else None, self._all.runs), (0.5, 0.95))
        total = quantiles(self._totals.bins(now), (0.5, 0.95))
        queue, hoped = quantiles(self._queues.bins, (0.5,)), quantiles(self._all.results.lasting.bins, (HOPED,))
        return Signals(
            samples=max(round(outcomes), 1) if has_data else 0,
            queue_p50=queue[0] if queue else None,
            run_mean=work.runs.mean(now, self._all.runs.mean(now)) if work else self._all.runs.mean(now),
            run_p50=run[0] if run else None,
            run_p95=run[1] if run else None,
            total_p50=total[0] if total else None,
            total_p95=total[1] if total else None,
            seconds=_added(spread(bins), spread(starts)),
            hoped_seconds=hoped[0] + (mean(starts) or 0.0) if hoped else None,
            failure_seconds=mean(self._failures.bins),
            success=self._trust.estimate(now, pending_failures=len(overdue)) if has_data else None,
            bill=self._bill.leaning_on(1.0, now),
            failure_bill=self._failure_bill.leaning_on(0.0, now),
            overdue=len(overdue),
        )

    def _of(self, now: float, narrow: _Times | None, wide: _Times) -> Bins:
        """Of this size, and where that is little, of all sizes."""
        wider = wide.bins(now)
        return narrow.bins(now, wider) if narrow is not None else wider

    def _start_bins(self, gap: int) -> Bins:
        """How long a job waits there after so much idleness: as seen, or as after the next shorter one seen."""
        for place in range(gap, -1, -1):
            sketch = self._starts.get(place)
            if sketch is not None:
                return sketch.bins
        return {}

    def _overdue(self, now: float, size: int, bins: Bins, starts: Bins) -> list[Flight]:
        """Under way for much longer than their kind takes, those first that began first."""
        if not self.flights or not bins:
            return []
        slowest = quantiles(bins, (SLOWEST,))
        late = OVERDUE * ((slowest or [math.inf])[0] + (mean(starts) or 0.0))
        found: list[Flight] = []
        for flight in self.flights:
            if now - flight.begun <= late or len(found) >= MOST_OVERDUE:
                break
            if flight.size == size or flight.size not in self._by_size:
                found.append(flight)
        return found


def _added(ones: tuple[float, ...], others: tuple[float, ...]) -> tuple[float, ...]:
    """The slow with the slow: a sum that is rather too wide than too narrow."""
    if not ones or not others:
        return ones
    return tuple(one + other for one, other in zip(ones, others, strict=True))
