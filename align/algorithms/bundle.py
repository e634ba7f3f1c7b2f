"""The pieces of a method, and what a bundle of them computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

from align.algorithms.advantages import Baseline, Scale, group_advantage, reinforce_plus_plus, reinforce_plus_plus_baseline
from align.algorithms.kl import AdaptiveKL, FixedKL, KLController, KLKind
from align.algorithms.names import MismatchMode, Reduction
from align.algorithms.segments import masked, sequence_sum, trained_mask

AdvantageName = Literal["group", "reinforce++", "reinforce++_baseline"]
KLPlace = Literal["loss", "reward"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KL:
    """A KL term: which estimate, in the loss or in the reward, and its coefficient, adapted where there is a target."""

    kind: KLKind = "k3"
    where: KLPlace = "loss"
    beta: float
    target: float | None = None
    horizon: int = 10_000

    def controller(self) -> KLController:
        return FixedKL(self.beta) if self.target is None else AdaptiveKL(self.beta, target=self.target, horizon=self.horizon)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Weights for a sampler that differs from the trainer, see `mismatch.mismatch_weight`."""

    mode: MismatchMode
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Everything that tells one method from another. `knobs` are the arguments of the loss, all of them."""

    name: str
    advantage: AdvantageName = "group"
    baseline: Baseline = "mean"  # of the group advantage
    scale: Scale = "none"
    loss: str
    knobs: Mapping[str, float | None]
    reduce: Reduction = "token_mean"
    norm_length: int | None = None  # of sequence_sum_norm; None: the longest completion allowed
    kl: KL | None = None
    gamma: float = 1.0  # of reinforce++
    entropy_coefficient: float = 0.0
    mismatch: Correction | None = None
    dynamic_sampling: bool = False
    max_resamples: int = 8
    overlong: bool = False  # DAPO's soft overlong penalty
    mask_truncated: bool = False

    def advantages(
        self, rewards_PG: Tensor, kl_N: Tensor | None, segment_N: Tensor, mask_N: Tensor, beta: float | None = None
    ) -> Tensor:
        """advantage_N of a whole step; sequence b is sample b % G of prompt b // G. 0 on untrained tokens and without a verdict.

        `kl_N` is the per-token KL of a method that has it in the reward, weighed with `beta` (default: the method's own);
        elsewhere it plays no part. Raises ValueError where it is needed and missing, or shapes do not fit.
        """
        mask_N = trained_mask(segment_N, mask_N, kl_N=kl_N)
        if rewards_PG.ndim != 2 or (len(segment_N) and int(segment_N.max()) >= rewards_PG.numel()):
            raise ValueError(f"rewards_PG of shape {tuple(rewards_PG.shape)} has no reward for some sequence of segment_N")
        beta = self.kl_coefficient("reward", beta)
        if beta and kl_N is None:
            raise ValueError(f"{self.name} has its KL in the reward: kl_N is needed")
        kl_N = kl_N if beta else None
        match self.advantage:
            case "group":
                advantage_PG = group_advantage(
                    self._with_kl(rewards_PG, kl_N, segment_N, mask_N, beta), baseline=self.baseline, scale=self.scale
                )
                return masked(advantage_PG.flatten()[segment_N], mask_N)
            case "reinforce++":
                return reinforce_plus_plus(rewards_PG.flatten(), kl_N, segment_N, mask_N, beta=beta, gamma=self.gamma)
            case "reinforce++_baseline":
                return reinforce_plus_plus_baseline(self._with_kl(rewards_PG, kl_N, segment_N, mask_N, beta), segment_N, mask_N)

    def describe(self) -> dict[str, Any]:
        """The bundle as plain data, for the record of a run."""
        return asdict(self)

    def kl_coefficient(self, place: KLPlace, beta: float | None) -> float:
        """The KL coefficient that is in effect at `place`."""
        if self.kl is None or self.kl.where != place:
            return 0.0
        return self.kl.beta if beta is None else beta

    @staticmethod
    def _with_kl(rewards_PG: Tensor, kl_N: Tensor | None, segment_N: Tensor, mask_N: Tensor, beta: float) -> Tensor:
        """Each sequence's reward minus beta times the sum of its trained tokens' KL."""
        if kl_N is None:
            return rewards_PG
        penalty_B = beta * sequence_sum(kl_N, segment_N, mask_N)
        penalty_PG = penalty_B.new_zeros(rewards_PG.numel())
        penalty_PG[: len(penalty_B)] = penalty_B
        return rewards_PG - penalty_PG.view(rewards_PG.shape)
