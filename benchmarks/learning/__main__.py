"""How many steps each online method takes to a known answer, over several seeds: medians and ranges, as a table.

    python benchmarks/learning --seeds 5

A step is 8 prompts x 8 samples and two passes of Adam over them, on a policy that is a table (`problems.py`). The methods of
`training.py` are at their defaults but for its `SETTINGS`; those of `preferences.py` learn from pairs that the reward ranks.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from curricula import curricula
from preferences import PREFERENCES, preference_curve
from problems import PROBLEMS
from training import METHODS, curve

REACHED = 0.9  # the probability of the best answer, the mean over prompts, that counts as having found it


def cell(lengths: list[int], last: list[float]) -> str:
    """Median and range of the steps taken, or how far the seeds have come by the end where some ran out of steps."""
    if min(last) < REACHED:
        return f"not reached: {statistics.median(last):.2f} ({min(last):.2f} to {max(last):.2f})"
    return f"{statistics.median(lengths):g} ({min(lengths)} to {max(lengths)})"


def table(kind: str, names: list[str], run: Callable[..., list[float]], seeds: int, steps: int) -> None:
    print(f"| {kind} | {' | '.join(PROBLEMS)} |")
    print(f"|---|{'---|' * len(PROBLEMS)}")
    for name in names:
        cells = []
        for problem in PROBLEMS.values():
            curves = [run(name, problem, seed, steps=steps, stop=REACHED) for seed in range(seeds)]
            cells.append(cell([len(one) for one in curves], [one[-1] for one in curves]))
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="the budget of a run")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--preferences", nargs="*", default=list(PREFERENCES))
    parser.add_argument("--curricula", type=int, default=0, metavar="STEPS", help="compare the orders of data.curriculum instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.curricula:
        curricula(options.seeds, options.curricula)
        return
    if options.methods:
        table("method", options.methods, curve, options.seeds, options.steps)
    if options.preferences:
        table("preference method", options.preferences, preference_curve, options.seeds, options.steps)


if __name__ == "__main__":
    main()
