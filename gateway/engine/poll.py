"""When a job is asked about: as rarely as it can wait, most often when it should end. Asks nobody by itself."""

from __future__ import annotations

from collections.abc import Callable

from gateway.contract.provider import Capabilities
from gateway.engine.attempt import Timing

JITTER = 0.2
_FIRST_SHARE = 0.95  # of the expected time: what ends a little sooner is not kept waiting for the whole of it
_NEAR_SHARE = 0.2  # … and the step from then on
_LATE_SHARE = 0.5  # of the time over it: what is late already is asked about ever more rarely
_BLIND_SHARE = 0.35  # of the time passed, where nothing is known of the offer
_LEAST_STEP = 2.0  # seconds; for callbacks that are only doubtful
_SPARSE_SHARE = 0.6

_MISSED_WEIGHT = 0.2
_CAME_WEIGHT = 0.05
_DOUBTFUL = 0.1
_FORGET_SECONDS = 300.0  # a doubt halves in so long


class CallbackRecord:
    """
    How far each provider's callbacks can be counted on, as this process has seen it of late.

    One that a poll had to make up for is enough to doubt; a dozen and more that came take the doubt away. `now` is in
    monotonic seconds.
    """

    def __init__(self) -> None:
        self._doubts: dict[str, tuple[float, float]] = {}  # share that is thought lost, and when that was

    def missed(self, provider: str, now: float) -> None:
        """A poll found an end that a callback should have told."""
        doubt = self._doubt(provider, now)
        self._doubts[provider] = (doubt + _MISSED_WEIGHT * (1 - doubt), now)

    def came(self, provider: str, now: float) -> None:
        if provider in self._doubts:
            self._doubts[provider] = (self._doubt(provider, now) * (1 - _CAME_WEIGHT), now)

    def is_doubtful(self, provider: str, now: float) -> bool:
        return self._doubt(provider, now) >= _DOUBTFUL

    def _doubt(self, provider: str, now: float) -> float:
        doubt, at = self._doubts.get(provider, (0.0, 0.0))
        return doubt * 0.5 ** (max(0.0, now - at) / _FORGET_SECONDS) if doubt else 0.0


class PollSchedule:
    """
    The polls of one attempt. `expected_seconds` is how long its like took lately, from the submit to the end.

    Never closer than the provider allows, never sparser than a third of the time it keeps a result, jitter included.
    """

    def __init__(
        self, capabilities: Capabilities, timing: Timing, *, is_called_back: bool, expected_seconds: float | None
    ) -> None:
        self._least = capabilities.min_poll_seconds
        self._most = timing.longest_poll if is_called_back else timing.longest_poll_alone
        if capabilities.result_lifetime_seconds is not None:
            self._most = min(self._most, capabilities.result_lifetime_seconds / 3)
        self._first = timing.first_poll
        self._longest_wait = timing.longest_wait
        self._is_called_back = is_called_back
        self._expected = expected_seconds

    def next_seconds(self, passed_seconds: float, draw: Callable[[], float], *, is_doubtful: bool = False) -> float:
        """Seconds until the next poll of a job that was submitted `passed_seconds` ago, +-20 %."""
        if not self._is_called_back:
            seconds = self._closely(passed_seconds)
        elif is_doubtful:
            # As if nobody called, but for jobs that are short of what is usual: they wait no longer than they must.
            seconds = min(
                max(self._closely(passed_seconds), _LEAST_STEP), max(self._longest_wait, 1.3 * passed_seconds)
            )
        else:
            seconds = self._sparsely(passed_seconds)
        seconds *= 1 - JITTER + 2 * JITTER * draw()
        return max(self._least, min(seconds, self._most))

    def _closely(self, passed: float) -> float:
        if self._expected is None:
            return max(self._least, _BLIND_SHARE * passed)
        ahead = _FIRST_SHARE * self._expected - passed
        step = max(_NEAR_SHARE * self._expected, _LATE_SHARE * (passed - self._expected))
        return max(self._least, ahead, step)

    def _sparsely(self, passed: float) -> float:
        """The callback is the fast path: the poll is only there in case it is lost."""
        return max(self._first, 2 * (self._expected or 0.0) - passed, _SPARSE_SHARE * passed)
