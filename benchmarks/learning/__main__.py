"""How many steps each online method takes to a known answer, over several seeds: medians and ranges, as a table.

    python benchmarks/learning --seeds 5

A step is 8 prompts x 8 samples and two passes of Adam over them, on a policy that is a table (`problems.py`), with every method's
own advantage, loss, reduction and KL term at their defaults.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from problems import PROBLEMS
from training import METHODS, curve

REACHED = 0.9  # the probability of the best answer that counts as having found it


def cell(lengths: list[int], last: list[float]) -> str:
    """Median and range of the steps taken, or how far a method that ran out of them has come."""
    if min(last) < REACHED:
        return f"not reached: {min(last):.2f}"
    return f"{statistics.median(lengths):g} ({min(lengths)} to {max(lengths)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="the budget of a run")
    parser.add_argument("--methods", default=",".join(METHODS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| method | {' | '.join(PROBLEMS)} |")
    print(f"|---|{'---|' * len(PROBLEMS)}")
    for name in options.methods.split(","):
        cells = []
        for problem in PROBLEMS.values():
            curves = [curve(name, problem, seed, steps=options.steps, stop=REACHED) for seed in range(options.seeds)]
            cells.append(cell([len(one) for one in curves], [one[-1] for one in curves]))
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
