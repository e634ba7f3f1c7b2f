"""When to ask again: waits between attempts, and a gate that spares a server which is down."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from align.rewards.judge.client import JudgeFailure

_TRIPS_AFTER = 8  # failures in a row, of whatever requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Bounds of waits in seconds."""

    first_wait: float
    longest_wait: float
    deadline: float
    start_deadline: float

    def wait(self, attempt: int, source: random.Random) -> float:
        """Before attempt number `attempt` (1 is the first retry): exponential, with full jitter, so that clients spread out."""
        return source.uniform(0, min(self.longest_wait, self.first_wait * 2 ** (attempt - 1)))


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number of them, or a date. None where it says nothing readable."""
    if value is None:
        return None
    if value.strip().isdecimal() and len(value.strip()) < 10:
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


class Gate:
    """Lets requests through while the judge answers (a circuit breaker); for one event loop.

    After eight failures in a row only one request at a time goes, a probe, at growing intervals; its success opens the gate.
    Once an outage has lasted longer than a request may wait, whoever comes between two probes fails at once.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._failures = 0
        self._interval = 0.0
        self._closed_until = 0.0  # in the loop's time
        self._down_since: float | None = None
        self._probing = False
        self._ever_alive = False
        self.trouble = "no request was sent"  # what the last failure was
        self._changed = asyncio.Event()

    @property
    def patience(self) -> float:
        """How long a request may wait. A server that has never answered is more likely misnamed than out of order."""
        return self._pace.deadline if self._ever_alive else min(self._pace.deadline, self._pace.start_deadline)

    async def enter(self) -> bool:
        """Wait until a request may go; whether it is a probe. Raises JudgeFailure where waiting would not help."""
        clock = asyncio.get_running_loop().time
        while True:
            now = clock()
            self._give_up(now)
            if now >= self._closed_until and (self._failures < _TRIPS_AFTER or not self._probing):
                self._probing = probe = self._failures >= _TRIPS_AFTER
                return probe
            try:
                async with asyncio.timeout(max(0.0, self._closed_until - now) or None):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def leave(self, *, probe: bool, alive: bool | None, trouble: str = "") -> None:
        """A request that entered has ended: the judge answered, or did not; None where the request says nothing of it."""
        self.trouble = trouble or self.trouble
        if probe:
            self._probing = False
        now = asyncio.get_running_loop().time()
        if alive:
            self._ever_alive = True
            self._failures, self._interval, self._down_since = 0, 0.0, None
        elif alive is False:
            self._failures += 1
            self._down_since = now if self._down_since is None else self._down_since
            if probe or self._failures == _TRIPS_AFTER:
                self._interval = min(self._pace.longest_wait, 2 * self._interval or self._pace.first_wait)
                self._closed_until = max(self._closed_until, now + self._interval)
        self._changed.set()
        self._changed = asyncio.Event()

    def hold(self, seconds: float) -> None:
        """The server asked everyone to wait."""
        now = asyncio.get_running_loop().time()
        self._closed_until = max(self._closed_until, now + seconds)

    def _give_up(self, now: float) -> None:
        """Raise where the wait is longer than any request may take."""
        if self._closed_until - now > self.patience:
            message = f"the judge is overloaded: it asked to wait for more than {self.patience:g} s"
            raise JudgeFailure(message, kind="overloaded")
        if self._down_since is None or now - self._down_since <= self.patience or self._failures < _TRIPS_AFTER:
            return
        if not self._probing and now < self._closed_until:  # a probe that is under way may bring good news
            message = f"the judge has not answered for more than {self.patience:g} s, {self.trouble}"
            raise JudgeFailure(message, kind="unreachable")
