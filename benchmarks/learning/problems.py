"""Two problems with a known answer, and a policy for them that is a table: no model stands between a method and its score.

`words` is a bandit: words of two letters out of three, a reward for each word, one of them the best. `counting` is a small
sequence task: the prompt is a number, the answer as many letters 0 and then the end, and nothing else is worth anything.
"""

# ruff: noqa: ARG002  (the problems share their methods' arguments: not each needs every one)

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

END = 2  # of the letters of `counting`
WORTH = torch.tensor([[0.0, 0.2, 0.0], [0.4, 0.3, 0.0], [0.1, 1.0, 0.3]], dtype=torch.float64)  # of [first, second] letter


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The best word is (2, 1), and its letters are worth little in other words."""

    prompts: int = 1
    letters: int = 3
    longest: int = 2
    states: int = 4

    def state(self, prompt_B: Tensor, position: int, last_B: Tensor) -> Tensor:
        """The row of the policy's table: the first letter, and the second one after each first."""
        return torch.zeros_like(last_B) if position == 0 else 1 + last_B

    def reward(self, prompt_B: Tensor, letters_BT: Tensor, length_B: Tensor) -> Tensor:
        return WORTH[letters_BT[:, 0], letters_BT[:, 1]]

    def ends(self, letters_B: Tensor) -> Tensor:
        return torch.zeros_like(letters_B, dtype=torch.bool)

    def answer(self, prompt: int) -> list[int]:
        return [2, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """The answer to prompt n is n letters 0 and the end: one in 3, 9, 27 and 81 answers of a policy that knows nothing."""

    prompts: int = 4
    letters: int = 3
    longest: int = 5
    states: int = 20

    def state(self, prompt_B: Tensor, position: int, last_B: Tensor) -> Tensor:
        return prompt_B * self.longest + position

    def reward(self, prompt_B: Tensor, letters_BT: Tensor, length_B: Tensor) -> Tensor:
        position_T = torch.arange(self.longest)
        wanted_BT = torch.where(position_T < prompt_B[:, None], 0, END)
        right_BT = (letters_BT == wanted_BT) | (position_T > prompt_B[:, None])
        return (right_BT.all(1) & (length_B == prompt_B + 1)).double()

    def ends(self, letters_B: Tensor) -> Tensor:
        return letters_B == END

    def answer(self, prompt: int) -> list[int]:
        return [0] * prompt + [END]


Problem = Words | Counting
PROBLEMS: dict[str, Problem] = {"words": Words(), "counting": Counting()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Answers as a flat batch: the letter and the state of each token."""

    letter_N: Tensor
    state_N: Tensor
    segment_N: Tensor
    reward_B: Tensor

    def of(self, table_SV: Tensor) -> Tensor:
        """What a table of log-probs says of each token."""
        return table_SV[self.state_N, self.letter_N]


def draw(problem: Problem, logits_SV: Tensor, prompt_B: Tensor, random: torch.Generator | None) -> Samples:
    """One answer to each prompt; without a generator the likeliest letter every time."""
    last_B, alive_B = torch.zeros_like(prompt_B), torch.ones_like(prompt_B, dtype=torch.bool)
    letters, states, alive = [], [], []
    for position in range(problem.longest):
        state_B = problem.state(prompt_B, position, last_B)
        row_BV = logits_SV[state_B].softmax(-1)
        last_B = row_BV.argmax(-1) if random is None else torch.multinomial(row_BV, 1, generator=random)[:, 0]
        letters, states, alive = [*letters, last_B], [*states, state_B], [*alive, alive_B]
        alive_B = alive_B & ~problem.ends(last_B)
    letters_BT, mask_BT = torch.stack(letters, 1), torch.stack(alive, 1)
    return Samples(
        letter_N=letters_BT[mask_BT],
        state_N=torch.stack(states, 1)[mask_BT],
        segment_N=torch.arange(len(prompt_B)).repeat_interleave(mask_BT.sum(1)),
        reward_B=problem.reward(prompt_B, letters_BT, mask_BT.sum(1)),
    )


def success(problem: Problem, logits_SV: Tensor) -> Tensor:
    """The probability of the best answer to each prompt."""
    logp_SV, chances = logits_SV.log_softmax(-1), []
    for prompt in range(problem.prompts):
        total, last = torch.zeros((), dtype=logp_SV.dtype), torch.zeros(1, dtype=torch.int64)
        for position, letter in enumerate(problem.answer(prompt)):
            total = total + logp_SV[problem.state(torch.tensor([prompt]), position, last)[0], letter]
            last = torch.tensor([letter])
        chances.append(total.exp())
    return torch.stack(chances)


def teacher(problem: Problem, sure: float = 0.99) -> Tensor:
    """Log-probs of a policy that gives each letter of the best answers the probability `sure`."""
    table_SV = torch.full((problem.states, problem.letters), 1 / problem.letters, dtype=torch.float64)
    for prompt in range(problem.prompts):
        last = torch.zeros(1, dtype=torch.int64)
        for position, letter in enumerate(problem.answer(prompt)):
            row = int(problem.state(torch.tensor([prompt]), position, last)[0])
            table_SV[row] = (1 - sure) / (problem.letters - 1)
            table_SV[row, letter] = sure
            last = torch.tensor([letter])
    return table_SV.log()
