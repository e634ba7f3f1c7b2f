"""One method trains a table on one problem, with the project's own advantages, losses and reductions."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from problems import Problem, Samples, draw, success, teacher
from torch import Tensor

from align.algorithms.kl import kl_estimate
from align.algorithms.methods import METHODS, Method, resolve
from align.algorithms.objective import objective
from align.algorithms.reduce import Totals

# What a method needs to be told here: an answer worth more than a half is a correct one; of 8 samples the best of 2 counts.
SETTINGS: dict[str, dict[str, Any]] = {"expert_iteration": {"threshold": 0.5}, "pass@k": {"pass_k": 2}}


class Learner:
    """A table of logits and, for methods with a critic, one of values; the reference knows nothing."""

    def __init__(self, problem: Problem, method: Method, rate: float) -> None:
        self.problem, self.method = problem, method
        self.logits_SV = torch.zeros(problem.states, problem.letters, dtype=torch.float64, requires_grad=True)
        self.value_S = torch.zeros(problem.states, dtype=torch.float64)
        self.optimizer = torch.optim.Adam([self.logits_SV], lr=rate)
        self.teacher_SV = teacher(problem)

    def signals(self, samples: Samples, prompt_P: Tensor, old_N: Tensor) -> dict[str, Tensor]:
        """What the method's advantage needs beside rewards."""
        given: dict[str, Tensor] = {}
        if "critic" in self.method.needs:
            given["values_N"] = self.value_S[samples.state_N]
        if "greedy" in self.method.needs:
            given["greedy_P"] = draw(self.problem, self.logits_SV.detach(), prompt_P, None).reward_B
        if "teacher" in self.method.needs:
            given |= {"teacher_N": samples.of(self.teacher_SV), "old_N": old_N}
        return given

    def step(self, prompt_P: Tensor, samples_each: int, epochs: int, random: torch.Generator) -> None:
        """Draw, credit, and take `epochs` optimizer steps."""
        group_B = torch.arange(len(prompt_P)).repeat_interleave(samples_each)
        samples = draw(self.problem, self.logits_SV.detach(), prompt_P[group_B], random)
        old_N = samples.of(self.logits_SV.detach().log_softmax(-1))
        ref_N = torch.full_like(old_N, 1 / self.problem.letters).log()
        credit = self.method.credit(
            samples.reward_B.view(len(prompt_P), samples_each),
            kl_estimate(old_N, ref_N, "k1"),
            samples.segment_N,
            torch.ones_like(old_N, dtype=torch.bool),
            **self.signals(samples, prompt_P, old_N),
        )
        if not credit.mask_N.any():
            return
        flat = {"old_N": old_N, "ref_N": ref_N, "advantage_N": credit.advantage_N}
        flat |= {"segment_N": samples.segment_N, "mask_N": credit.mask_N, "group_B": group_B}
        totals = Totals.of(samples.segment_N, credit.mask_N, group_B, norm_length=self.problem.longest)
        for _ in range(epochs):
            logp_N = samples.of(self.logits_SV.log_softmax(-1))
            loss, _ = objective(self.method, logp_N=logp_N, totals=totals, **flat)  # type: ignore[arg-type]
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        if credit.returns_N is not None:
            self._fit(samples.state_N, credit.returns_N)

    def _fit(self, state_N: Tensor, returns_N: Tensor, rate: float = 0.3) -> None:
        """Move the value of each state seen towards the mean of its returns."""
        seen_S = torch.bincount(state_N, minlength=len(self.value_S))
        mean_S = torch.zeros_like(self.value_S).index_add(0, state_N, returns_N) / seen_S.clamp(min=1)
        self.value_S = torch.where(seen_S > 0, self.value_S + rate * (mean_S - self.value_S), self.value_S)


class Steps(Protocol):
    """What learns step by step, on a table of logits."""

    problem: Problem
    logits_SV: Tensor

    def step(self, prompt_P: Tensor, samples_each: int, epochs: int, random: torch.Generator) -> None: ...


def climb(learner: Steps, seed: int, *, steps: int, stop: float, tries: int = 1) -> list[float]:
    """How likely one of `tries` answers is the best one after each step, the mean over prompts.

    A step is 8 prompts x 8 samples, seen twice. It ends with the first one that reaches `stop`.
    """
    random, prompt_P = torch.Generator().manual_seed(seed), torch.arange(8) % learner.problem.prompts
    reached: list[float] = []
    while len(reached) < steps and max(reached, default=0.0) < stop:
        learner.step(prompt_P, 8, 2, random)
        chance_P = success(learner.problem, learner.logits_SV.detach())
        reached.append(float((1 - (1 - chance_P) ** tries).mean()))
    return reached


def curve(
    name: str, problem: Problem, seed: int, *, steps: int = 150, rate: float = 0.05, stop: float = 1.0, **overrides: Any
) -> list[float]:
    """How likely the best answer is after each step, see `climb`, up to the first step that reaches `stop`.

    For pass@k it is how likely one of k answers is the best one: that is all this method asks for.
    """
    method = resolve(name, **(SETTINGS.get(name, {}) | overrides))
    tries = method.pass_k if method.advantage == "pass@k" else 1
    return climb(Learner(problem, method, rate), seed, steps=steps, stop=stop, tries=tries)


__all__ = ["METHODS", "SETTINGS", "Learner", "climb", "curve"]
