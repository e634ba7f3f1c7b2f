"""One online preference method trains a table on one problem, with the project's own objective of preferences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from problems import Problem, Samples, draw
from torch import Tensor
from training import climb

from align.algorithms.preference_objective import Compared, Counts, Term, preference_objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """How pairs come about, and what is made of them.

    Pairs are the best and the worst sample of a prompt, or all that differ; of a sample of the policy and one of the reference
    (`crossed`); or all of stored answers that differ, the policy's samples standing beside them (`stored`).
    """

    loss: str
    beta: float = 0.1
    knobs: dict[str, float] = field(default_factory=dict)
    pairs: Literal["best_worst", "all", "crossed", "stored"] = "best_worst"
    min_margin: float = 0.0
    new_reference_every: int = 0  # steps of a round; 0: the reference stays
    margins: bool = False  # the loss is told the differences of the rewards


# As in recipes/preference, but for shorter rounds; dpo beside hypo shows what its KL term does.
PREFERENCES: dict[str, Preference] = {
    "online_dpo": Preference(loss="online_dpo"),
    "iterative_dpo": Preference(loss="online_dpo", new_reference_every=5),
    "rebel": Preference(loss="rebel", beta=0.3, pairs="all", new_reference_every=1, margins=True),
    "dno": Preference(loss="dno", min_margin=0.5, new_reference_every=5),
    "inpo": Preference(loss="inpo"),
    "xpo": Preference(loss="xpo", knobs={"alpha": 1e-4}, pairs="crossed"),
    "hypo": Preference(loss="hypo", pairs="stored"),
    "dpo": Preference(loss="dpo", pairs="stored"),
}


class PairLearner:
    """A table of logits; the reference knows nothing, or is the policy of the round before."""

    def __init__(self, problem: Problem, how: Preference, rate: float) -> None:
        self.problem, self.how, self.steps = problem, how, 0
        self.logits_SV = torch.zeros(problem.states, problem.letters, dtype=torch.float64, requires_grad=True)
        self.reference_SV = self.logits_SV.detach().clone()
        self.optimizer = torch.optim.Adam([self.logits_SV], lr=rate)

    def step(self, prompt_P: Tensor, samples_each: int, epochs: int, random: torch.Generator) -> None:
        """Draw, rank by the known reward, and take `epochs` optimizer steps."""
        samples, pair_K2 = self._draw(prompt_P, samples_each, random)
        pair_K2 = ranked(pair_K2, samples.reward_B, self.how.min_margin)
        if len(pair_K2):
            self._update(samples, pair_K2, epochs)
        self.steps += 1
        if self.how.new_reference_every and self.steps % self.how.new_reference_every == 0:
            self.reference_SV = self.logits_SV.detach().clone()

    def _draw(self, prompt_P: Tensor, samples_each: int, random: torch.Generator) -> tuple[Samples, Tensor]:
        """The samples, the policy's before the reference's, and the pairs that are to be ranked."""
        own_SV, prompts = self.logits_SV.detach(), len(prompt_P)
        if self.how.pairs in ("best_worst", "all"):
            own = draw(self.problem, own_SV, prompt_P.repeat_interleave(samples_each), random)
            return own, candidates(own.reward_B.view(prompts, -1), every=self.how.pairs == "all")
        # xpo divides the samples between both; of hypo's only the stored ones are judged, so each step may have as many of them.
        each = samples_each // 2 if self.how.pairs == "crossed" else samples_each
        prompt_B = prompt_P.repeat_interleave(each)
        own = draw(self.problem, own_SV, prompt_B, random)
        other = draw(self.problem, self.reference_SV, prompt_B, random)
        if self.how.pairs == "crossed":
            pair_K2 = torch.arange(len(prompt_B))[:, None] + torch.tensor([0, len(prompt_B)])
        else:
            pair_K2 = len(prompt_B) + candidates(other.reward_B.view(prompts, -1), every=True)
        return joined(own, other), pair_K2

    def _update(self, samples: Samples, pair_K2: Tensor, epochs: int) -> None:
        """Optimizer steps on the pairs, with what each loss may want to know of them."""
        index_B, pairs = pair_K2.flatten(), len(pair_K2)
        score_B, group_B = torch.tensor([1.0, 0.0]).repeat(pairs), torch.arange(pairs).repeat_interleave(2)
        own = len(samples.reward_B) // 2  # where there are others
        by_reference_B = index_B >= own if self.how.pairs == "crossed" else None
        reward_K2 = samples.reward_B[pair_K2]
        margin_B = (reward_K2[:, 0] - reward_K2[:, 1]).repeat_interleave(2)
        if self.how.pairs == "stored":
            index_B = torch.cat([index_B, torch.arange(own)])
            score_B = torch.cat([score_B, torch.full((own,), torch.nan)])
            group_B = torch.cat([group_B, torch.arange(own) % pairs])
        counts = Counts.of("pair", score_B, group_B, 0.5)
        old_B, ref_B = (summed(samples, table_SV)[index_B] for table_SV in (self.logits_SV.detach(), self.reference_SV))
        for _ in range(epochs):
            compared = Compared(
                logp_B=summed(samples, self.logits_SV)[index_B],
                length_B=torch.bincount(samples.segment_N)[index_B],
                score_B=score_B,
                group_B=group_B,
                ref_B=ref_B,
                old_B=old_B,
                margin_B=margin_B if self.how.margins else None,
                by_reference_B=by_reference_B,
            )
            term = Term(loss=self.how.loss, beta=self.how.beta, knobs=self.how.knobs)
            loss, _ = preference_objective([term], compared, rows="pair", counts=counts)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def candidates(reward_PG: Tensor, *, every: bool) -> Tensor:
    """Pairs of samples of the same prompt, as indices of the flat batch: all, or only the best with the worst."""
    offset_P = torch.arange(len(reward_PG)) * reward_PG.shape[1]
    if every:
        return (offset_P[:, None, None] + torch.combinations(torch.arange(reward_PG.shape[1]))).flatten(0, 1)
    return torch.stack([offset_P + reward_PG.argmax(1), offset_P + reward_PG.argmin(1)], 1)


def ranked(pair_K2: Tensor, reward_B: Tensor, min_margin: float) -> Tensor:
    """The pairs that differ, and by enough, the better one first."""
    difference_K = reward_B[pair_K2[:, 0]] - reward_B[pair_K2[:, 1]]
    pair_K2 = torch.where(difference_K[:, None] > 0, pair_K2, pair_K2.flip(1))
    return pair_K2[(difference_K != 0) & (difference_K.abs() >= min_margin)]


def joined(first: Samples, second: Samples) -> Samples:
    """One batch of both."""
    return Samples(
        letter_N=torch.cat([first.letter_N, second.letter_N]),
        state_N=torch.cat([first.state_N, second.state_N]),
        segment_N=torch.cat([first.segment_N, len(first.reward_B) + second.segment_N]),
        reward_B=torch.cat([first.reward_B, second.reward_B]),
    )


def summed(samples: Samples, logits_SV: Tensor) -> Tensor:
    """Log-probs of whole answers."""
    logp_N = samples.of(logits_SV.log_softmax(-1))
    return logp_N.new_zeros(len(samples.reward_B)).index_add(0, samples.segment_N, logp_N)


def preference_curve(
    name: str, problem: Problem, seed: int, *, steps: int = 150, rate: float = 0.05, stop: float = 1.0
) -> list[float]:
    """How likely the best answer is after each step, as `training.curve` says of the other methods."""
    return climb(PairLearner(problem, PREFERENCES[name], rate), seed, steps=steps, stop=stop)


__all__ = ["PREFERENCES", "PairLearner", "Preference", "preference_curve"]
