"""Step time of the modes sync, overlap and async, on completions whose lengths have a long tail, against what is possible.

    python benchmarks/modes --steps 30

The engine and the learner are devices that take time and no processor: a decode step takes as long for one row as for all, an
update as long as its tokens. Everything between them is what a run uses: harvests, the engine pool, the scorer, the cursor. The
ideal is the longer of the two times, of an engine whose rows are all taken and of the updates.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import mean, median
from types import SimpleNamespace
from typing import Any

from align.data.cursor import Cursor
from align.loops.harvests import Phase, open_harvests
from align.recipe.schema import RewardSpec, Rollout
from align.rewards.compose import RewardStack
from align.rewards.scorer import Scorer
from align.rollout.engine import completed
from align.rollout.groups import sample_groups, scored_groups
from align.rollout.noise import sample_key
from align.rollout.pool import EnginePool
from align.rollout.turns import TakingTurns
from align.types import Completion, Prompt, Request, Sampling, Written

LONGEST = 2000


def length_of(request: Request) -> int:
    """Tokens of a sample: log-normal, half of them below 150, cut at 2,000."""
    key = sample_key(request.sampling.seed, request.prompt.id, request.sample_index)
    return min(LONGEST, max(1, round(random.Random(key).lognormvariate(5.0, 1.0))))


class SimulatedEngine:
    """Decodes up to `rows` samples at a time; ten tokens of each take ten times `seconds`."""

    STRIDE = 10  # tokens of a step: sleeping is not exact for less

    def __init__(self, seconds: float, rows: int) -> None:
        self._seconds, self._rows, self._version = seconds, rows, 0
        self._waiting: list[Request] = []
        self._running: dict[str, list[Any]] = {}  # the request, tokens it has, tokens it will have

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Any:
        from align.rollout.engine import generate_by_steps

        return generate_by_steps(self, prompts, sampling)

    def add(self, requests: Sequence[Request]) -> None:
        self._waiting += requests

    def step(self) -> list[tuple[str, Completion]]:
        while self._waiting and len(self._running) < self._rows:
            request = self._waiting.pop(0)
            self._running[request.name] = [request, len(request.written.token_ids) if request.written else 0, length_of(request)]
        time.sleep(self._seconds * self.STRIDE)
        finished = []
        for name, one in list(self._running.items()):
            one[1] = min(one[1] + self.STRIDE, one[2])
            if one[1] == one[2]:
                del self._running[name]
                finished.append((name, completed(one[0], self._written(one), "", "stop")))
        return finished

    def interrupt(self, names: Iterable[str] | None = None) -> list[Request]:
        chosen = set(names) if names is not None else {one.name for one in self._waiting} | self._running.keys()
        stopped = [replace(one[0], written=self._written(one)) for name, one in self._running.items() if name in chosen]
        stopped += [one for one in self._waiting if one.name in chosen]
        self._waiting = [one for one in self._waiting if one.name not in chosen]
        self._running = {name: one for name, one in self._running.items() if name not in chosen}
        return stopped

    def publish(self, weights: Any, version: int) -> None:  # noqa: ARG002
        running = self.interrupt()
        self._version = version
        self.add(running)

    def sleep(self) -> None: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...

    def _written(self, one: list[Any]) -> Written:
        before = one[0].written.versions if one[0].written else ()
        versions = before + (self._version,) * (one[1] - len(before))
        return Written(token_ids=(5,) * one[1], logprobs=(-1.0,) * one[1], versions=versions)


def run(mode: str, staleness: int, options: argparse.Namespace, token_seconds: float) -> dict[str, float]:
    """A run of one mode: seconds a step, and how much of them each side had nothing to do."""
    rollout = Rollout(mode=mode, max_staleness=staleness)  # type: ignore[arg-type]
    engine = SimulatedEngine(options.seconds, options.rows)
    shared: Any = TakingTurns(engine) if mode == "sync" else EnginePool(lambda _: engine)
    prompts = [
        Prompt(id=f"p:{number}", messages=({"role": "user", "content": "?"},), token_ids=(1, 2, 3)) for number in range(1000)
    ]
    waits: list[float] = []

    @contextmanager
    def phase(name: str) -> Any:
        begin = time.perf_counter()
        yield
        waits.append(time.perf_counter() - begin if name != "publish" else 0.0)

    with Scorer(RewardStack([RewardSpec(use=f"{__file__}:nothing")])) as scorer:
        site: Any = SimpleNamespace(engine=shared, cursor=Cursor([prompts], [1.0], seed=0))
        site.publish = lambda version: shared.publish((), version)
        train = SimpleNamespace(steps=options.steps)
        session: Any = SimpleNamespace(
            step=0, phase=phase, recipe=SimpleNamespace(train=train), ranks=SimpleNamespace(is_first=True)
        )

        def collect(step: int, phase: Phase) -> tuple[int, float]:
            sampling = Sampling(n=options.samples, max_tokens=LONGEST, seed=step)
            with phase("generate"):
                pending = sample_groups(shared, scorer, site.cursor.draw(options.prompts, lent_to=step), sampling)
            with phase("score"):
                groups = scored_groups(pending)
            versions = [version for group in groups for sample in group.samples for version in sample.rollout.completion.versions]
            return len(versions), step - 1 - mean(versions)

        seconds, trained, idle, behind = [], [], [], []
        with open_harvests(session, site, rollout, collect) as harvests:
            harvests.publish(0)
            for step in range(1, options.steps + 1):
                waits.clear()
                begin = time.perf_counter()
                tokens, staleness = harvests.take(step)
                time.sleep(token_seconds * tokens)
                harvests.publish(step)
                seconds.append(time.perf_counter() - begin)
                trained.append(sum(waits) / seconds[-1])
                idle.append(harvests.metrics().get("engine/idle", 1 - sum(waits) / seconds[-1]))
                behind.append(staleness)
    shared.close()
    steady = slice(5, None)
    return {
        "step": median(seconds[steady]),
        "mean": mean(seconds[steady]),
        "learner idle": mean(trained[steady]),
        "engine idle": mean(idle[steady]),
        "staleness": mean(behind[steady]),
    }


def nothing(completions: Sequence[str], **_: Any) -> list[float]:
    return [0.0] * len(completions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--rows", type=int, default=128, help="samples that the engine decodes at a time")
    parser.add_argument("--seconds", type=float, default=0.0005, help="of a decode step")
    parser.add_argument("--staleness", type=int, nargs="*", default=[2, 8], help="of mode async")
    options = parser.parse_args()
    number = options.prompts * options.samples
    lengths = [
        length_of(Request(name="", prompt=Prompt(id=f"p:{p}", messages=(), token_ids=(1,)), sampling=Sampling(), sample_index=s))
        for p in range(1000)
        for s in range(8)
    ]
    generate = mean(lengths) * number / options.rows * options.seconds
    print(f"lengths: median {median(lengths):.0f}, mean {mean(lengths):.0f}, longest {max(lengths)}")
    print(
        "| the learner needs | ideal | mode | a step | over the ideal | learner idle | engine idle | staleness |\n|" + "---|" * 8
    )
    for share in (0.5, 1.0, 4.0):  # of the time that a fully taken engine needs
        ideal = max(generate, share * generate)
        for mode, staleness in [("sync", 1), ("overlap", 1), *(("async", steps) for steps in options.staleness)]:
            found = run(mode, staleness, options, share * generate / (mean(lengths) * number))
            name = f"{mode}, at most {staleness}" if mode == "async" else mode
            cells = [
                f"{share:g} of the engine's time",
                f"{ideal:.3f} s",
                name,
                f"{found['mean']:.3f} s",
                f"{found['mean'] / ideal:.2f}x",
            ]
            cells += [f"{100 * found['learner idle']:.0f} %", f"{100 * found['engine idle']:.0f} %", f"{found['staleness']:.2f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
