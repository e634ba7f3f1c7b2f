"""Worker processes: limits that hold, failures that stay with their input, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from align.errors import RewardError
from align.rewards.pool import WorkerPool

FUNCTIONS = """
import ctypes, os, signal, sys, time

def act(what, value=None):
    if what == "double":
        print("a library prints")
        return value * 2
    if what == "pids":
        return [os.getpid(), os.getppid()]
    if what == "modules":
        return sorted(sys.modules)
    if what == "raise":
        raise ValueError("no " + value)
    if what == "loop":
        while True:
            pass
    if what == "stubborn":
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
    if what == "c_loop":
        return len(str(9 ** 9 ** 9))
    if what == "memory":
        return len(bytearray(1 << 33))
    if what == "segfault":
        ctypes.string_at(0)
    if what == "suicide":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "wait":
        time.sleep(value)
        return "waited"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "pool_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "pool_functions:act"


@pytest.fixture
def pool(module: str) -> Iterator[WorkerPool]:
    with WorkerPool(module, cpu_seconds=0.5, workers=2, memory_bytes=1 << 30) as made:
        yield made


def alive(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text().partition("State:")[2].partition("\n")[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def outcomes(pool: WorkerPool, *calls: list) -> list[tuple]:
    return [(one.kind, one.value) for one in (future.result(timeout=60) for future in pool.submit(calls))]


def test_answers_come_in_order_whatever_is_printed(pool: WorkerPool) -> None:
    assert outcomes(pool, *[["double", i] for i in range(200)]) == [("done", 2 * i) for i in range(200)]


def test_large_inputs_and_answers_do_not_block(pool: WorkerPool) -> None:
    text = "ä\ud800" * 200_000
    assert outcomes(pool, *[["double", text]] * 6) == [("done", text * 2)] * 6


def test_an_exception_is_a_failure_of_its_own_call(pool: WorkerPool) -> None:
    assert outcomes(pool, ["double", 1], ["raise", "luck"], ["double", 2]) == [
        ("done", 2),
        ("failed", "ValueError: no luck"),
        ("done", 4),
    ]


@pytest.mark.parametrize("what", ["loop", "stubborn", "c_loop"])
def test_too_long_costs_its_own_limit_only(pool: WorkerPool, what: str) -> None:
    outcomes(pool, ["double", 0])
    calls = [["double", i] for i in range(20)]
    calls[3] = [what]
    got = outcomes(pool, *calls)
    assert got[3][0] == "timeout"
    assert got[:3] + got[4:] == [("done", 2 * i) for i in range(20) if i != 3]


def test_waiting_is_no_cpu_time(pool: WorkerPool) -> None:
    """On a busy machine a call may wait long: only what it uses counts."""
    assert outcomes(pool, ["wait", 0.8]) == [("done", "waited")]


def test_replacing_a_killed_process_is_cheap(module: str) -> None:
    """With one worker, so that it is the one that was killed which answers again."""
    with WorkerPool(module, cpu_seconds=0.5, workers=1) as pool:
        child, keeper = outcomes(pool, ["pids"])[0][1]
        assert [kind for kind, _ in outcomes(pool, ["loop"], ["loop"])] == ["timeout", "timeout"]
        child_after, keeper_after = outcomes(pool, ["pids"])[0][1]
    assert keeper_after == keeper, "the keeper that imported the function forks again"
    assert child_after != child


def test_too_much_memory(pool: WorkerPool) -> None:
    assert [kind for kind, _ in outcomes(pool, ["double", 1], ["memory"], ["double", 1])] == ["done", "memory", "done"]


@pytest.mark.parametrize("what", ["segfault", "suicide"])
def test_a_crash_is_tried_twice_and_reported(pool: WorkerPool, what: str) -> None:
    got = outcomes(pool, ["double", 1], [what], ["double", 3])
    assert [kind for kind, _ in got] == ["done", "crashed", "done"]


def test_a_worker_lost_from_outside_loses_no_answer(pool: WorkerPool) -> None:
    pids = outcomes(pool, ["pids"])[0][1]
    waiting = pool.submit([["wait", 0.4], ["wait", 0.4]])
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert [future.result(timeout=60).value for future in waiting] == ["waited", "waited"]


def test_a_stopped_worker_is_replaced(module: str) -> None:
    with WorkerPool(module, cpu_seconds=0.5, workers=1) as pool:
        pool._wall_seconds = 1.0
        child, _ = outcomes(pool, ["pids"])[0][1]
        os.kill(child, signal.SIGSTOP)
        assert outcomes(pool, ["double", 4]) == [("done", 8)]
        assert not alive(child)


def test_a_function_that_cannot_be_imported(module: str) -> None:
    with WorkerPool("pool_functions:missing", cpu_seconds=1, workers=1) as pool, pytest.raises(RewardError, match="missing"):
        pool.submit([["double", 1]])[0].result(timeout=60)


def test_from_many_threads_and_event_loops(pool: WorkerPool) -> None:
    got: list[list] = []

    def use() -> None:
        got.append([one.value for one in asyncio.run(pool.map([["double", i] for i in range(30)]))])

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == [[2 * i for i in range(30)]] * 4


def test_close_ends_busy_workers_at_once(module: str) -> None:
    pool = WorkerPool(module, cpu_seconds=60, workers=2)
    pids = outcomes(pool, ["pids"])[0][1]
    busy = pool.submit([["loop"]] * 4)
    until(lambda: busy[0].running() and busy[1].running(), 5)
    started = time.monotonic()
    pool.close()
    pool.close()
    assert time.monotonic() - started < 3
    assert until(lambda: not any(map(alive, pids)), 3)
    assert all(future.done() for future in busy)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit([["double", 1]])


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_no_process_outlives_a_killed_parent(module: str, busy: bool) -> None:
    program = f"""
import sys; sys.path[:] = {sys.path!r}
from align.rewards.pool import WorkerPool
pool = WorkerPool({module!r}, cpu_seconds=1.0, workers=1)
print(*pool.submit([["pids"]])[0].result().value, flush=True)
if {busy}: pool.submit([["stubborn"]])
import time; time.sleep(100)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(alive, pids))
        time.sleep(0.2)
        parent.kill()
    assert until(lambda: not any(map(alive, pids)), 20)


def test_workers_of_the_math_reward_import_no_torch() -> None:
    program = """
import sys
import align.rewards.math_check, align.rewards.worker
heavy = {"torch", "transformers", "numpy", "datasets", "pyarrow"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
