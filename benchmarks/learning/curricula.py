"""Which prompts come first: the curricula of align on problems from easy to nearly hopeless, from a policy that is halfway there.

`Translating`: a prompt is a row of 1 to 8 symbols, and the answer the letter of each and then the end; the policy is one table
for all prompts, so what is learned on a short row helps on a long one. It begins with about one half on each right letter: a row
of one symbol passes about every fourth time, and a row of eight hardly ever.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

import torch
from problems import draw, success
from torch import Tensor
from training import METHODS, Learner

from align.data.curriculum import Ease
from align.data.cursor import Cursor

SYMBOLS, LETTERS, LONGEST = 12, 5, 8
END = LETTERS - 1
SAMPLES = 8  # of a prompt, in a step and when its pass rate is measured
ARMS: dict[str, tuple[str, tuple[float, float]]] = {
    "shuffled": ("shuffled", (0.0, 1.0)),
    "band [0.1, 0.9]": ("shuffled", (0.1, 0.9)),
    "easy_to_hard": ("easy_to_hard", (0.0, 1.0)),
    "hard_to_easy": ("hard_to_easy", (0.0, 1.0)),
    "middle": ("middle", (0.0, 1.0)),
}


@dataclass(frozen=True, kw_only=True)
class Translating:
    rows: list[list[int]]
    right_S: list[int] = field(default_factory=list)  # of each symbol, and after the last one the end
    letters: int = LETTERS
    longest: int = LONGEST + 1
    states: int = SYMBOLS + 1

    @property
    def prompts(self) -> int:
        return len(self.rows)

    @cached_property
    def table(self) -> Tensor:
        """The symbol at each position of each prompt; behind the last one state SYMBOLS."""
        return torch.tensor([row + [SYMBOLS] * (self.longest - len(row)) for row in self.rows])

    def state(self, prompt_B: Tensor, position: int, last_B: Tensor) -> Tensor:  # noqa: ARG002
        return self.table[prompt_B, position]

    def reward(self, prompt_B: Tensor, letters_BT: Tensor, length_B: Tensor) -> Tensor:
        wanted_BT = torch.tensor(self.right_S)[self.table[prompt_B]]
        size_B = torch.tensor([len(row) for row in self.rows])[prompt_B]
        right_BT = (letters_BT == wanted_BT) | (torch.arange(self.longest) > size_B[:, None])
        return (right_BT.all(1) & (length_B == size_B + 1)).double()

    def ends(self, letters_B: Tensor) -> Tensor:
        return letters_B == END

    def answer(self, prompt: int) -> list[int]:
        return [self.right_S[symbol] for symbol in [*self.rows[prompt], SYMBOLS]]


@dataclass(frozen=True)
class Prompt:
    id: int


def arm(order: str, band: tuple[float, float], seed: int, *, steps: int, prompts: int = 240) -> tuple[float, float]:
    """The mean chance of a right answer over all prompts and over those of more than four symbols, after `steps` steps."""
    random, torch_random = Random(seed), torch.Generator().manual_seed(seed)
    rows = [[random.randrange(SYMBOLS) for _ in range(1 + number % LONGEST)] for number in range(prompts)]
    problem = Translating(rows=rows, right_S=[random.randrange(END) for _ in range(SYMBOLS)] + [END])
    learner = Learner(problem, METHODS["grpo"], 0.03)  # type: ignore[arg-type]
    with torch.no_grad():
        learner.logits_SV += 0.5 * torch.randn(problem.states, LETTERS, generator=torch_random, dtype=torch.float64)
        learner.logits_SV[torch.arange(problem.states), torch.tensor(problem.right_S)] += 1.3
    asked_B = torch.arange(prompts).repeat_interleave(SAMPLES)
    rates = draw(problem, learner.logits_SV.detach(), asked_B, torch_random).reward_B.view(prompts, SAMPLES).mean(1).tolist()  # type: ignore[arg-type]
    chosen = [Prompt(id=number) for number, rate in enumerate(rates) if band[0] <= rate <= band[1]]
    values = {item.id: rates[item.id] for item in chosen}
    cursor = Cursor([chosen], [1.0], seed=seed, ease=Ease(by="pass_rate", order=order, value_by_id=values))  # type: ignore[arg-type]
    for _ in range(steps):
        learner.step(torch.tensor([item.id for item in cursor.draw(8)]), SAMPLES, 1, torch_random)
    chance_P = success(problem, learner.logits_SV.detach())  # type: ignore[arg-type]
    long_P = torch.tensor([len(row) > LONGEST // 2 for row in rows])
    return float(chance_P.mean()), float(chance_P[long_P].mean())


def curricula(seeds: int, steps: int = 30) -> None:
    """Print the table: a pass over the data takes 30 steps of 8 prompts."""
    print(f"| curriculum, {steps} steps | all prompts | more than 4 symbols |\n|---|---|---|")
    for name, (order, band) in ARMS.items():
        reached = [arm(order, band, seed, steps=steps) for seed in range(seeds)]
        cells = (f"{statistics.mean(one):.3f} ({min(one):.3f} to {max(one):.3f})" for one in zip(*reached, strict=True))
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)
    print()
