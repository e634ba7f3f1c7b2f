"""One batch in two layouts: the padded rectangles of other toolkits and our flat run of tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from align.algorithms.policy_losses import POLICY_LOSSES
from align.algorithms.reduce import Reduction, Totals, reduce

NORM_LENGTH = 11  # the width of the rectangles, as the constant of sequence_sum_norm
# Ours on the left, verl's names on the right.
AGGREGATIONS: dict[Reduction, str] = {
    "token_mean": "token-mean",
    "sequence_mean": "seq-mean-token-mean",
    "sequence_sum": "seq-mean-token-sum",
    "sequence_sum_norm": "seq-mean-token-sum-norm",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Padded:
    """Sequences as other toolkits lay them out, [B, T] with `mask_BT`, and `flat` to bring any of their tensors into our layout.

    Trained tokens stand anywhere: between untrained ones, and behind them. What the policy is to have a gradient of comes
    from `logp_BT`, the only tensor that asks for one.
    """

    logp_BT: Tensor
    old_BT: Tensor
    ref_BT: Tensor
    sampler_BT: Tensor
    advantage_B: Tensor
    advantage_BT: Tensor
    reward_B: Tensor
    value_BT: Tensor
    mask_BT: Tensor

    @classmethod
    def draw(cls, seed: int, shape: tuple[int, int] = (8, NORM_LENGTH), *, holes: bool = True) -> Padded:
        """Random sequences of up to T tokens; the policies differ by about 0.3 a token. Without holes all tokens are trained."""
        random = torch.Generator().manual_seed(seed)

        def normal(*of: int) -> Tensor:
            return torch.randn(of or shape, generator=random, dtype=torch.float64)

        length_B = torch.randint(2, shape[1] + 1, (shape[0],), generator=random)
        mask_BT = torch.arange(shape[1]) < length_B[:, None]
        if holes:
            mask_BT &= torch.rand(shape, generator=random) < 0.8
        mask_BT[:, 0] = True
        old_BT = -normal().abs() - 0.05
        return cls(
            logp_BT=(old_BT + 0.3 * normal()).requires_grad_(),
            old_BT=old_BT,
            ref_BT=old_BT + 0.3 * normal(),
            sampler_BT=old_BT + 0.3 * normal(),
            advantage_B=normal(shape[0]),
            advantage_BT=normal(),
            reward_B=normal(shape[0]),
            value_BT=normal(),
            mask_BT=mask_BT.long(),
        )

    def flat(self, x_BT: Tensor) -> Tensor:
        """Padding goes; untrained tokens inside a sequence stay, as they do in our batches."""
        inside_BT = torch.arange(self.mask_BT.shape[1]) < self.length_B[:, None]
        return x_BT[inside_BT]

    def rectangle(self, x_N: Tensor) -> Tensor:
        """What `flat` takes apart, put together again, with zeros for padding."""
        inside_BT = torch.arange(self.mask_BT.shape[1]) < self.length_B[:, None]
        return x_N.new_zeros(inside_BT.shape).masked_scatter(inside_BT, x_N)

    def last_BT(self, x_B: Tensor) -> Tensor:
        """`x_B` on the last trained token of each sequence, where other toolkits keep a sequence's reward."""
        return torch.zeros_like(self.old_BT).scatter(1, (self.length_B - 1)[:, None], x_B[:, None])

    @property
    def entropy_BT(self) -> Tensor:
        """Any function of the policy, to have a gradient."""
        return -self.logp_BT * self.logp_BT.exp()

    @property
    def length_B(self) -> Tensor:
        position_T = torch.arange(1, self.mask_BT.shape[1] + 1)
        return (position_T * self.mask_BT).amax(1)

    @property
    def segment_N(self) -> Tensor:
        return torch.repeat_interleave(torch.arange(len(self.mask_BT)), self.length_B)

    @property
    def mask_N(self) -> Tensor:
        return self.flat(self.mask_BT).bool()

    @property
    def advantage_N(self) -> Tensor:
        return self.advantage_B[self.segment_N]

    @property
    def repeated_BT(self) -> Tensor:
        """`advantage_B` on every token."""
        return self.advantage_B[:, None].expand_as(self.old_BT)

    def reduced(self, loss_N: Tensor, mode: Reduction, group_B: Tensor | None = None) -> Tensor:
        """`loss_N` of the whole step as a scalar."""
        totals = Totals.of(self.segment_N, self.mask_N, group_B, NORM_LENGTH)
        return reduce(loss_N, self.segment_N, self.mask_N, mode, totals, group_B)

    def policy_loss(self, name: str, advantage_BT: Tensor, mode: Reduction = "token_mean", **knobs: Any) -> tuple[Tensor, Tensor]:
        """(loss, gradient) of one of our policy losses."""
        loss_N = POLICY_LOSSES[name](
            self.flat(self.logp_BT), self.flat(self.old_BT), self.flat(advantage_BT), self.segment_N, self.mask_N, **knobs
        )
        return self.with_gradient(self.reduced(loss_N, mode))

    def with_gradient(self, loss: Tensor) -> tuple[Tensor, Tensor]:
        """(loss, gradient by `logp_BT`)"""
        return loss.detach(), torch.autograd.grad(loss, self.logp_BT, retain_graph=True)[0]


def assert_same(ours: Iterable[Tensor], theirs: Iterable[Tensor], atol: float = 1e-6) -> None:
    """Equal to `atol`, and not zeros throughout: an agreement of nothing with nothing would be an empty one."""
    largest = 0.0
    for first, second in zip(ours, theirs, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=atol, check_dtype=False)
        largest = max(largest, float(second.detach().abs().max()))
    assert largest > 1e-3
