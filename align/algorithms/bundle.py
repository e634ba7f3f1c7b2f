"""A method: the bundle of its pieces, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from align.algorithms.credit import Credit, Signals, assign
from align.algorithms.entropy import AdaptiveEntropy, EntropyController, FixedEntropy
from align.algorithms.names import (
    ADVANTAGE_NEEDS,
    LOSS_SCOPE,
    AdvantageName,
    Baseline,
    KLPlace,
    Reduction,
    Scale,
    Scope,
    Selection,
)
from align.algorithms.pieces import KL, Correction, Demonstrations, MacroActions, ReferenceSchedule
from align.algorithms.segments import count_sequences

__all__ = ["KL", "Correction", "Credit", "Demonstrations", "KLPlace", "MacroActions", "Method", "ReferenceSchedule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Everything that tells one method from another. `knobs` are the arguments of the loss, all of them."""

    name: str
    advantage: AdvantageName = "group"
    baseline: Baseline = "mean"  # of the advantages group and min_form
    scale: Scale = "none"  # of the advantage group
    pass_k: int = 4  # of pass@k: the best of how many samples counts
    choose: Selection = "best"  # of selection
    threshold: float = 0.0  # of selection: a reward above it is correct
    gamma: float = 1.0  # of gae and reinforce++
    lam: float = 0.95  # of gae
    length_adaptive_lambda: float | None = None  # of gae: alpha, in place of lam
    critic_lam: float | None = None  # of gae: lambda of the critic's returns; None: that of the advantages
    bootstrap_truncated: bool = False  # of gae
    teacher_coefficient: float = 0.0  # of the teacher's log-ratio, added to any advantage
    macro_actions: MacroActions | None = None
    loss: str
    knobs: Mapping[str, float | None]
    demonstrations: Demonstrations | None = None
    reduce: Reduction = "token_mean"
    norm_length: int | None = None  # of sequence_sum_norm; None: the longest completion allowed
    entropy_mask: float = 1.0  # share of the tokens, by entropy, that have a policy loss
    mismatch: Correction | None = None
    kl: KL | None = None
    reference: ReferenceSchedule | None = None
    entropy_coefficient: float = 0.0
    entropy_target: float | None = None  # nats per token, below which the bonus grows
    entropy_increment: float = 0.005
    dynamic_sampling: bool = False
    max_resamples: int = 8
    overlong: bool = False  # DAPO's soft overlong penalty
    mask_truncated: bool = False

    def credit(
        self,
        rewards_PG: Tensor,
        kl_N: Tensor | None,
        segment_N: Tensor,
        mask_N: Tensor,
        *,
        beta: float | None = None,
        **signals: Tensor | None,
    ) -> Credit:
        """Advantages, trained tokens and returns of a whole step; sequence b is sample b % G of prompt b // G.

        `kl_N` is the per-token KL of a method that has it in the reward, weighed with `beta` (default: the method's own);
        elsewhere it plays no part. `signals` are those of `credit.Signals` that the method needs. Raises ValueError where one
        is needed and missing, or shapes do not fit.
        """
        return assign(self, rewards_PG, kl_N, segment_N, mask_N, self.kl_coefficient("reward", beta), Signals(**signals))

    def advantages(
        self,
        rewards_PG: Tensor,
        kl_N: Tensor | None,
        segment_N: Tensor,
        mask_N: Tensor,
        beta: float | None = None,
        **signals: Tensor | None,
    ) -> Tensor:
        """The advantages of `credit` alone: advantage_N, 0 on untrained tokens and without a verdict."""
        return self.credit(rewards_PG, kl_N, segment_N, mask_N, beta=beta, **signals).advantage_N

    def needs_gradient(self, advantage_N: Tensor, segment_N: Tensor, beta: float | None = None) -> Tensor | None:
        """keep_B: which sequences can have a gradient at all; None where all can.

        No loss has one where the advantage is 0, so without a KL term in the loss and an entropy bonus only sequences with an
        advantage do. For a loss that looks at several sequences at once this says nothing about one of them: None.
        """
        if self.kl_coefficient("loss", beta) or self.entropy_gradient or self.scope == "batch":
            return None
        kept_B = torch.zeros(count_sequences(segment_N), device=segment_N.device)
        return kept_B.index_add(0, segment_N, (advantage_N != 0).to(kept_B.dtype)) > 0

    @property
    def scope(self) -> Scope:
        """What the loss must be given at once; a loss that is none of ours may look at everything."""
        scope = LOSS_SCOPE.get(self.loss, "batch")
        return "sequence" if scope == "token" and self.macro_actions is not None else scope

    @property
    def needs(self) -> frozenset[str]:
        """What a step must provide beside samples and rewards: critic, greedy, teacher, entropy, sentences, old.

        `old` are log-probs of the policy before the update's own forward pass, `entropy` its entropies.
        """
        wanted = {
            ADVANTAGE_NEEDS.get(self.advantage, ""): True,
            "teacher": self.teacher_coefficient != 0,
            "entropy": self.entropy_mask < 1,
            "sentences": self.macro_actions is not None and self.macro_actions.by == "sentence",
            "old": self.teacher_coefficient != 0 or (self.kl is not None and self.kl.where == "reward"),
        }
        return frozenset(name for name, needed in wanted.items() if name and needed)

    @property
    def entropy_gradient(self) -> bool:
        """Whether the loss has an entropy bonus, now or later in the run."""
        return self.entropy_coefficient != 0 or self.entropy_target is not None

    def entropy_controller(self) -> EntropyController:
        """The coefficient of the entropy bonus over the run."""
        if self.entropy_target is None:
            return FixedEntropy(self.entropy_coefficient)
        return AdaptiveEntropy(self.entropy_coefficient, target=self.entropy_target, increment=self.entropy_increment)

    def describe(self) -> dict[str, Any]:
        """The bundle as plain data, for the record of a run."""
        return asdict(self)

    def kl_coefficient(self, place: KLPlace, beta: float | None) -> float:
        """The KL coefficient that is in effect at `place`."""
        if self.kl is None or self.kl.where != place:
            return 0.0
        return self.kl.beta if beta is None else beta
