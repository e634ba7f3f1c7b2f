"""What a step costs the first rank besides generating and training, by the number of engines and samples.

    python benchmarks/driver --samples 1000 10000 --engines 1 100

Engines answer at once, so that what is measured is the loop's own work: sharing out requests and collecting answers, judging with
a reward that costs nothing, packing, advantages, metrics, the record of the samples, and the message that brings them to ranks.
"""

from __future__ import annotations

import argparse
import pickle
import resource
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from align.algorithms.methods import resolve
from align.loops.batches import credited, pack
from align.loops.rollouts import Harvest
from align.recipe.schema import RewardSpec
from align.rewards.compose import RewardStack, reward_metrics
from align.rewards.scorer import Scorer
from align.rollout.engine import completed
from align.rollout.groups import sample_groups, scored_groups
from align.rollout.pool import EnginePool
from align.run.metrics import rollout_metrics
from align.run.rollouts import encode_rollouts
from align.types import Completion, Prompt, Request, Sampling, Written


class InstantEngine:
    """Everything that it is asked for is finished in the next step."""

    def __init__(self, tokens: int) -> None:
        self._tokens, self._count = tokens, 0
        self._waiting: list[Request] = []

    def add(self, requests: Sequence[Request]) -> None:
        self._waiting += requests

    def step(self) -> list[tuple[str, Completion]]:
        finished = [(one.name, completed(one, self._sample(), "some text " * 20, "stop")) for one in self._waiting]
        self._waiting = []
        return finished

    def _sample(self) -> Written:
        """Objects of its own, as from a process: what is shared would travel once."""
        self._count += 1
        drawn = tuple(range(1000 + self._count % 1000, 1000 + self._count % 1000 + self._tokens))
        return Written(token_ids=drawn, logprobs=tuple(-1.0 / token for token in drawn), versions=(0,) * self._tokens)

    def interrupt(self, names: Iterable[str] | None = None) -> list[Request]:  # noqa: ARG002
        return []

    def close(self) -> None: ...


def length(completions: Sequence[Any], **_: Any) -> list[float]:
    return [float(index % 2) for index in range(len(completions))]


def measured(engines: int, samples: int, tokens: int) -> dict[str, float]:
    """Seconds of each part of one step."""
    seconds: dict[str, float] = {}

    def took(name: str, begin: float) -> None:
        seconds[name] = time.perf_counter() - begin

    number = samples // 8
    message = ({"role": "user", "content": "How many apples does Tom have?"},)
    prompts = [Prompt(id=f"p:{index}", messages=message, token_ids=tuple(range(5, 70))) for index in range(number)]
    method = resolve("grpo", beta=0.0)
    pool: Any = EnginePool(lambda _: InstantEngine(tokens), engines)  # type: ignore[arg-type, return-value]
    with Scorer(RewardStack([RewardSpec(use=f"{__file__}:length")])) as scorer, nullcontext():
        begin = time.perf_counter()
        pending = sample_groups(pool, scorer, prompts, Sampling(n=8, max_tokens=tokens))
        took("share out, collect", begin)
        begin = time.perf_counter()
        groups = scored_groups(pending)
        took("judge (the rest)", begin)
    pool.close()
    begin = time.perf_counter()
    rewards_PG = torch.tensor([group.rewards_G for group in groups], dtype=torch.float64)
    batch = pack(groups, rewards_PG, method)
    took("pack", begin)
    begin = time.perf_counter()
    batch = credited(batch, method.credit(rewards_PG, None, batch.segment_N, batch.mask_N, beta=0.0), method)
    took("advantages", begin)
    begin = time.perf_counter()
    rollout_metrics(groups)
    reward_metrics([sample for group in groups for sample in group.samples])
    took("metrics", begin)
    begin = time.perf_counter()
    encode_rollouts(1, groups, rewards_PG.tolist())
    took("record", begin)
    begin = time.perf_counter()
    sent = pickle.dumps(Harvest(groups=groups, sampled=groups, unused=[], greedy=[]))
    took("message to ranks", begin)
    seconds["message MiB"] = len(sent) / 2**20
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--engines", type=int, nargs="*", default=[1, 100, 1_000])
    parser.add_argument("--tokens", type=int, default=256)
    options = parser.parse_args()
    measured(1, 80, options.tokens)  # what is done once is not counted
    header = False
    for samples in options.samples:
        for engines in options.engines:
            found = measured(engines, samples, options.tokens)
            if not header:
                print("| samples | engines | " + " | ".join(found) + " | in all |\n|" + "---|" * (len(found) + 3))
                header = True
            whole = sum(value for name, value in found.items() if not name.endswith("MiB"))
            cells = [f"{value:,.0f}" if name.endswith("MiB") else f"{value:.3f} s" for name, value in found.items()]
            print(f"| {samples:,} | {engines:,} | {' | '.join(cells)} | {whole:.2f} s |", flush=True)
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
