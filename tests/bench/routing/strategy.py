"""What others do, each as it is usually written, and an oracle that knows the truth. Ours is in `ours`."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence

from gateway.rehearsal.play import Ended, Pick
from tests.bench.routing.truth import Truth, Weather
from tests.bench.routing.world import House

FAILURE_PENALTY_SECONDS = 30.0  # what a failure counts beside its time, where only time is measured
GOAL_DEPTH = 3


class Simple:
    """Somebody who never waits and never tries the same offer twice for one prediction."""

    def __init__(self, weather: Weather, *, by: str, seed: int = 0) -> None:
        self.weather = weather
        self.by = by  # "cost" or "latency": what its measure is, where it has one
        self.drawn = random.Random(f"{seed} {type(self).__name__}")
        self.in_flight: Counter[str] = Counter()

    def choose(self, prediction: int, now: float, *, came: float, tried: tuple[str, ...]) -> Pick | None:
        left = [offer for offer in self.weather.listed if offer not in tried]
        return Pick(self.pick(left, now)) if left else None

    def pick(self, left: Sequence[str], now: float) -> str:
        raise NotImplementedError

    def begun(self, prediction: int, offer: str, now: float) -> None:
        self.in_flight[offer] += 1

    def ended(self, ended: Ended) -> None:
        self.in_flight[ended.offer] -= 1


class Random(Simple):
    def pick(self, left: Sequence[str], now: float) -> str:
        return self.drawn.choice(left)


class Weighted(Simple):
    """By the inverse square of the list price, or of the median that was true on the first day."""

    def pick(self, left: Sequence[str], now: float) -> str:
        first = self.weather.at(0.0)
        size = {
            offer: self.weather.listed[offer] if self.by == "cost" else first[offer].median_seconds for offer in left
        }
        return self.drawn.choices(left, [size[offer] ** -2 for offer in left])[0]


class RoundRobin(Simple):
    def __init__(self, weather: Weather, *, by: str, seed: int = 0) -> None:
        super().__init__(weather, by=by, seed=seed)
        self._turn = itertools.count()

    def pick(self, left: Sequence[str], now: float) -> str:
        return left[next(self._turn) % len(left)]


class LeastBusy(Simple):
    def pick(self, left: Sequence[str], now: float) -> str:
        least = min(self.in_flight[offer] for offer in left)
        return self.drawn.choice([offer for offer in left if self.in_flight[offer] == least])


class MeanOfTen(Simple):
    """The least mean of the last ten; a failure counts as a whole deadline of time, or for what it billed."""

    def __init__(self, weather: Weather, *, by: str, seed: int = 0) -> None:
        super().__init__(weather, by=by, seed=seed)
        self._last: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=10))

    def pick(self, left: Sequence[str], now: float) -> str:
        def mean(offer: str) -> float:
            last = self._last[offer]
            return sum(last) / len(last) if last else 0.0

        return min(left, key=mean)

    def ended(self, ended: Ended) -> None:
        super().ended(ended)
        seconds = ended.seconds if ended.is_good else self.weather.deadline_seconds
        self._last[ended.offer].append(ended.dollars if self.by == "cost" else seconds)


class PeakEwma(Simple):
    """Two at random, and of them the one with the less (peak-sensitive decayed latency) x (in flight + 1)."""

    DECAY_SECONDS = 30.0

    def __init__(self, weather: Weather, *, by: str, seed: int = 0) -> None:
        super().__init__(weather, by=by, seed=seed)
        self._mean: dict[str, float] = {}
        self._at: dict[str, float] = {}

    def pick(self, left: Sequence[str], now: float) -> str:
        two = self.drawn.sample(left, min(2, len(left)))
        return min(two, key=lambda offer: self._load(offer, now))

    def _load(self, offer: str, now: float) -> float:
        mean = self._mean.get(offer, 0.0)
        faded = mean * math.exp((self._at.get(offer, now) - now) / self.DECAY_SECONDS)
        size = self.weather.listed[offer] if self.by == "cost" else 1.0
        return faded * (self.in_flight[offer] + 1) * size

    def ended(self, ended: Ended) -> None:
        super().ended(ended)
        seconds = ended.seconds + (0.0 if ended.is_good else FAILURE_PENALTY_SECONDS)
        offer, mean = ended.offer, self._mean.get(ended.offer)
        if mean is None or seconds > mean:
            self._mean[offer] = seconds
        else:
            keep = math.exp((self._at[offer] - ended.now) / self.DECAY_SECONDS)
            self._mean[offer] = mean * keep + seconds * (1 - keep)
        self._at[offer] = ended.now


SIMPLE: dict[str, Callable[..., Simple]] = {
    "random": Random,
    "weighted": Weighted,
    "round robin": RoundRobin,
    "least busy": LeastBusy,
    "mean of ten": MeanOfTen,
    "peak EWMA": PeakEwma,
}


class Oracle(Simple):
    """Knows how every offer is at this moment, who sleeps and who is full; not how the dice will fall."""

    def __init__(
        self, weather: Weather, house: House, *, by: str, within: float, success: float, miss_dollars: float
    ) -> None:
        super().__init__(weather, by=by)
        self._house = house
        self._within = within
        self._success = success
        self._miss_dollars = miss_dollars

    def choose(self, prediction: int, now: float, *, came: float, tried: tuple[str, ...]) -> Pick | None:
        truths = self._house.truths(now)
        left = [offer for offer in truths if offer not in tried]
        free = [offer for offer in left if not self._house.is_full(offer, now)] or left
        if not free:
            return None
        if self.by == "goal":
            return Pick(self._cheapest_sequence(free, truths, now, self._within - (now - came)))
        return Pick(min(free, key=lambda offer: self._index(offer, truths[offer], now)))

    def _index(self, offer: str, truth: Truth, now: float) -> float:
        """What one success costs, or takes, if this one is tried first: the least of it is the best order."""
        if not truth.success:
            return math.inf
        if self.by == "cost":
            return truth.mean_dollars / truth.success
        cold = self._house.start_seconds(offer, now)
        good, bad = truth.mean_seconds + cold, truth.failure_seconds + cold
        return (truth.success * good + (1 - truth.success) * bad) / truth.success

    def _cheapest_sequence(self, free: Sequence[str], truths: dict[str, Truth], now: float, left: float) -> str:
        found: list[tuple[float, float, str]] = []
        for length in range(1, min(GOAL_DEPTH, len(free)) + 1):
            for row in itertools.permutations(free, length):
                done, open_share, spent, passed = 0.0, 1.0, 0.0, 0.0
                for offer in row:
                    truth = truths[offer]
                    cold = self._house.start_seconds(offer, now)
                    spent += open_share * truth.mean_dollars
                    done += open_share * truth.success * truth.share_within(left - passed - cold)
                    open_share *= 1 - truth.success
                    passed += cold + truth.failure_seconds
                found.append((self._miss_dollars * max(self._success - done, 0.0), spent, row[0]))
        return min(found, key=lambda entry: entry[0] + entry[1])[2]
