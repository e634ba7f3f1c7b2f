"""When the judge is asked again, when it is spared, and when a request gives up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from align.rewards.judge.client import JudgeFailure
from align.rewards.judge.retry import Gate, Pace, retry_after

PACE = Pace(first_wait=0.5, longest_wait=3.0, deadline=60.0, start_deadline=20.0)


def test_waits_double_up_to_a_bound_with_full_jitter() -> None:
    source = random.Random(0)
    bounds = [0.5, 1.0, 2.0, 3.0, 3.0]
    for attempt, bound in enumerate(bounds, start=1):
        waits = [PACE.wait(attempt, source) for _ in range(2000)]
        assert max(waits) <= bound
        assert min(waits) < 0.02 * bound
        assert sum(waits) / len(waits) == pytest.approx(bound / 2, rel=0.05)


def test_retry_after_is_seconds_or_a_date() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=30)
    assert retry_after(format_datetime(soon, usegmt=True)) == pytest.approx(30, abs=5)
    assert retry_after(format_datetime(soon - timedelta(days=1), usegmt=True)) == 0.0
    read = {text: retry_after(text) for text in ("7", " 7 ", "-7", "soon", "", "9" * 40, "nan", "inf")}
    assert read == {"7": 7.0, " 7 ": 7.0, "-7": None, "soon": None, "": None, "9" * 40: None, "nan": None, "inf": None}
    assert retry_after(None) is None


class Clock:
    """A loop whose time is moved by hand: what sleeps is woken at once, and the time is then later."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = 1000.0
        loop.time = lambda: self.now  # type: ignore[method-assign]


def with_clock(test: Callable[[Clock, Gate], Awaitable[None]]) -> None:
    async def main() -> None:
        clock, gate = Clock(asyncio.get_running_loop()), Gate(PACE)
        gate.leave(probe=await gate.enter(), alive=True)
        await test(clock, gate)

    asyncio.run(main())


async def broken(gate: Gate, times: int = 8) -> None:
    for _ in range(times):
        gate.leave(probe=await gate.enter(), alive=False)


async def waits(gate: Gate) -> bool:
    """Whether a request would have to wait now."""
    asked = asyncio.ensure_future(gate.enter())
    for _ in range(5):
        await asyncio.sleep(0)
    if asked.done():
        gate.leave(probe=asked.result(), alive=None)
        return False
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    return True


def test_eight_failures_in_a_row_close_the_gate_and_a_success_between_does_not() -> None:
    async def test(clock: Clock, gate: Gate) -> None:
        await broken(gate, 7)
        assert not await waits(gate)
        gate.leave(probe=False, alive=True)
        await broken(gate, 7)
        assert not await waits(gate)
        await broken(gate, 1)
        assert await waits(gate)

    with_clock(test)


def test_one_probe_at_a_time_at_growing_intervals_and_its_success_opens_the_gate() -> None:
    async def test(clock: Clock, gate: Gate) -> None:
        await broken(gate)
        for interval in (0.5, 1.0, 2.0, 3.0, 3.0):
            clock.now += interval - 0.01
            assert await waits(gate)
            clock.now += 0.02
            assert await gate.enter() is True
            assert await waits(gate)  # others wait for the probe
            gate.leave(probe=True, alive=False)
        clock.now += 3.1
        probe = await gate.enter()
        waiting = [asyncio.ensure_future(gate.enter()) for _ in range(5)]
        await asyncio.sleep(0)
        gate.leave(probe=probe, alive=True)
        assert await asyncio.gather(*waiting) == [False] * 5

    with_clock(test)


def test_a_probe_that_was_cancelled_leaves_its_place_to_another() -> None:
    async def test(clock: Clock, gate: Gate) -> None:
        await broken(gate)
        clock.now += 0.6
        assert await gate.enter() is True
        waiting = asyncio.ensure_future(gate.enter())
        await asyncio.sleep(0)
        gate.leave(probe=True, alive=None)
        assert await waiting is True

    with_clock(test)


def test_an_outage_longer_than_a_request_may_wait_fails_requests_with_the_next_probe() -> None:
    async def test(clock: Clock, gate: Gate) -> None:
        await broken(gate)
        clock.now += 61.0
        assert await gate.enter() is True
        waiting = [asyncio.ensure_future(gate.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        gate.leave(probe=True, alive=False, trouble="status 502")
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [getattr(outcome, "kind", None) for outcome in outcomes] == ["unreachable"] * 3
        assert "not answered for more than 60 s, status 502" in str(outcomes[0])
        clock.now += 3.1
        assert await gate.enter() is True
        gate.leave(probe=True, alive=True)
        assert await gate.enter() is False

    with_clock(test)


def test_a_server_that_has_never_answered_is_waited_for_less_long() -> None:
    async def test(clock: Clock, _: Gate) -> None:
        gate = Gate(PACE)
        assert gate.patience == 20.0
        await broken(gate)
        clock.now += 21.0
        gate.leave(probe=await gate.enter(), alive=False)
        with pytest.raises(JudgeFailure, match="not answered"):
            await gate.enter()

    with_clock(test)


def test_everyone_waits_as_long_as_the_server_asks_unless_that_is_longer_than_any_request_may() -> None:
    async def test(clock: Clock, gate: Gate) -> None:
        gate.hold(5.0)
        gate.hold(2.0)
        clock.now += 4.9
        assert await waits(gate)
        clock.now += 0.2
        assert not await waits(gate)
        gate.hold(3600.0)
        with pytest.raises(JudgeFailure, match="asked to wait") as caught:
            await gate.enter()
        assert caught.value.kind == "overloaded"

    with_clock(test)
