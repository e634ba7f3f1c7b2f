"""What a run in the sandbox costs, and whether thousands of them leave anything behind. README.md beside this folder explains."""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

from align.rewards.sandbox import LayerName, Program, Sandbox, SandboxError
from align.rewards.sandbox.layers import LAYERS

PASS = Program(source="pass")


def bare(times: int) -> list[float]:
    """Milliseconds of the start and end of an interpreter without a sandbox."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
        taken.append((time.perf_counter() - begin) * 1e3)
    return taken


async def one_by_one(sandbox: Sandbox, times: int) -> list[float]:
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        ended = await sandbox.run(PASS)
        taken.append((time.perf_counter() - begin) * 1e3)
        assert (ended.cause, ended.code) == ("exit", 0), ended
    return taken


async def side_by_side(sandbox: Sandbox, times: int) -> float:
    """Runs a second."""
    begin = time.perf_counter()
    await asyncio.gather(*(sandbox.run(PASS) for _ in range(times)))
    return times / (time.perf_counter() - begin)


def counters() -> dict[str, float]:
    """What must not grow: of this process, of the zygotes below it, and of the machine."""
    here = psutil.Process()
    below = here.children(recursive=True)
    return {
        "host MiB": here.memory_info().rss / 2**20,
        "zygote MiB": sum(process.memory_info().rss for process in below) / 2**20,
        "host files": here.num_fds(),
        "zygote files": sum(process.num_fds() for process in below),
        "processes": len(below),
        "mounts": len(Path("/proc/self/mounts").read_text().splitlines()),
        "cgroups": sum(int(line.split()[2]) for line in Path("/proc/cgroups").read_text().splitlines()[1:]),
    }


def measure(layer: LayerName, times: int) -> None:
    sandbox = Sandbox(layer=layer, weaker=True)
    try:
        asyncio.run(one_by_one(sandbox, 50))
        before = counters()
        taken = sorted(asyncio.run(one_by_one(sandbox, times)))
        rate = asyncio.run(side_by_side(sandbox, max(100, times // 4)))
        after = counters()
    finally:
        sandbox.close()
    print(
        f"{layer:12} median {statistics.median(taken):5.1f} ms, 99th percentile {taken[len(taken) * 99 // 100]:6.1f} ms, "
        f"fastest {taken[0]:5.1f} ms, {rate:5.1f} runs/s with {sandbox.concurrency} at a time"
    )
    print("             " + ", ".join(f"{name} {before[name]:.4g} -> {after[name]:.4g}" for name in before))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="runs back to back in each layer")
    parser.add_argument("--layers", nargs="*", choices=LAYERS, default=LAYERS)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    taken = sorted(bare(100))
    print(
        f"{'no sandbox':12} median {statistics.median(taken):5.1f} ms, 99th percentile {taken[-2]:6.1f} ms: python -I -S -c pass"
    )
    for layer in arguments.layers:
        try:
            measure(layer, arguments.runs)
        except SandboxError as error:
            print(f"{layer:12} {error.message}")
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
