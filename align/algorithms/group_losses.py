"""Losses that compare the samples of a prompt: regressions whose answer does not depend on the reward's offset.

The log-ratio lr of a sequence is the sum of logp - old over its trained tokens, its A the mean of theirs; A / beta is what the
log-ratio should be, up to a constant of the prompt. Sequences without a trained token are no members of their group, and a
group whose advantages are all 0 says nothing: its loss is 0, where the papers would still pull it towards the old policy.
Each sequence's loss is spread evenly over its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from align.algorithms.loss_registry import policy_loss
from align.algorithms.segments import sequence_length, sequence_mean, sequence_sum


@dataclass(frozen=True, slots=True, kw_only=True)
class _Samples:
    """Sequences and the groups they are compared in."""

    log_ratio_B: Tensor
    advantage_B: Tensor
    length_B: Tensor
    member_B: Tensor  # has trained tokens, in a group with a signal
    group_B: Tensor  # numbered from 0

    def sums(self, x_B: Tensor) -> Tensor:
        """The sum over the members of each sequence's group, for each sequence."""
        totals = x_B.new_zeros(int(self.group_B.max()) + 1 if len(self.group_B) else 0)
        return totals.index_add(0, self.group_B, torch.where(self.member_B, x_B, 0))[self.group_B]

    def others(self, x_B: Tensor) -> Tensor:
        """The mean over the other members of each sequence's group, 0 where there are none."""
        others_B = self.sums(torch.ones_like(x_B)) - 1
        return torch.where(self.member_B & (others_B > 0), (self.sums(x_B) - x_B) / others_B.clamp(min=1), 0.0)

    def compared(self, x_B: Tensor) -> Tensor:
        """`x_B`, but 0 for sequences that have no other member to be compared with."""
        return torch.where(self.member_B & (self.sums(torch.ones_like(x_B)) > 1), x_B, 0.0)

    def spread(self, loss_B: Tensor, segment_N: Tensor) -> Tensor:
        """loss_N that sums to each sequence's loss, 0 where there is nothing to compare."""
        return (self.compared(loss_B) / self.length_B.clamp(min=1))[segment_N]


def _samples(
    logp_N: Tensor, old_N: Tensor, advantage_N: Tensor, segment_N: Tensor, mask_N: Tensor, group_B: Tensor | None
) -> _Samples:
    advantage_B = sequence_mean(advantage_N, segment_N, mask_N)
    length_B = sequence_length(segment_N, mask_N)
    if group_B is None:
        group_B = torch.zeros_like(length_B)
    elif len(group_B) < len(length_B):
        raise ValueError(f"group_B has shape {tuple(group_B.shape)}; expected one prompt per sequence: ({len(length_B)},)")
    _, group_B = group_B[: len(length_B)].unique(return_inverse=True)
    signal = torch.zeros_like(length_B).index_add(0, group_B, (advantage_B != 0).long()) > 0
    return _Samples(
        log_ratio_B=sequence_sum(logp_N - old_N, segment_N, mask_N),
        advantage_B=advantage_B,
        length_B=length_B,
        member_B=(length_B > 0) & signal[group_B],
        group_B=group_B,
    )


@policy_loss
def rebel(
    logp_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    segment_N: Tensor,
    mask_N: Tensor,
    *,
    group_B: Tensor | None = None,
    beta: float = 0.1,
) -> Tensor:
    """beta / 4 mean over the group's other samples j of (lr_i - lr_j - (A_i - A_j) / beta)^2 (REBEL, Gao et al. 2024).

    `beta` is 1 / eta of the paper. The factor makes the gradient at ratio 1 that of a policy gradient with the mean of the
    others as baseline, where the reduction weighs the samples of a prompt alike.
    """
    samples = _samples(logp_N, old_N, advantage_N, segment_N, mask_N, group_B)
    error_B = samples.log_ratio_B - samples.advantage_B / beta
    # the mean over j of (e_i - e_j)^2
    squares_B = error_B.square() - 2 * error_B * samples.others(error_B) + samples.others(error_B.square())
    return samples.spread(beta / 4 * squares_B, segment_N)


@policy_loss
def copg(
    logp_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    segment_N: Tensor,
    mask_N: Tensor,
    *,
    group_B: Tensor | None = None,
    beta: float = 0.1,
) -> Tensor:
    """-stop(c_i - mean of the other samples' c) logp, c = A - beta lr (contrastive policy gradient, Flet-Berliac et al. 2024).

    With the KL in the reward (k1) at the same beta, c is the paper's regularised reward R - beta log(policy / reference).
    """
    samples = _samples(logp_N, old_N, advantage_N, segment_N, mask_N, group_B)
    regularised_B = (samples.advantage_B - beta * samples.log_ratio_B).detach()
    contrast_B = samples.compared(regularised_B - samples.others(regularised_B))
    return -contrast_B[segment_N] * logp_N


@policy_loss
def opmd(
    logp_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    segment_N: Tensor,
    mask_N: Tensor,
    *,
    group_B: Tensor | None = None,
    tau: float = 1.0,
) -> Tensor:
    """(A - tau log Z - tau lr)^2 / (2 tau), log Z the log of the group's mean of exp(A / tau) (online policy mirror descent).

    Kimi k1.5 (2025), sec. 2.3.2: the squared error of the policy that tilts the old one by exp(A / tau), its partition estimated
    from the group. At ratio 1 the gradient is the policy gradient of A - tau log Z.
    """
    samples = _samples(logp_N, old_N, advantage_N, segment_N, mask_N, group_B)
    tilted_B = samples.advantage_B / tau
    log_z_B = _log_mean_exp(tilted_B, samples)
    return samples.spread(tau / 2 * (tilted_B - log_z_B - samples.log_ratio_B).square(), segment_N)


def _log_mean_exp(x_B: Tensor, samples: _Samples) -> Tensor:
    """The log of the mean of exp(x) over the members of each sequence's group; 0 in a group without members."""
    highest = x_B.new_full((len(x_B),), -torch.inf).scatter_reduce(0, samples.group_B, x_B, "amax")
    highest_B = highest[samples.group_B]
    sums_B, count_B = samples.sums((x_B - highest_B).exp()), samples.sums(torch.ones_like(x_B))
    return torch.where(count_B > 0, highest_B + (sums_B / count_B.clamp(min=1)).clamp(min=torch.finfo(x_B.dtype).tiny).log(), 0.0)
