"""A step's worth of random sequences, and ways of cutting and ordering it that must not matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A flat batch; `index_N` remembers where each token stood in the batch this one was cut from."""

    logp_N: Tensor
    old_N: Tensor
    ref_N: Tensor
    sampler_N: Tensor
    entropy_N: Tensor
    advantage_N: Tensor
    segment_N: Tensor
    mask_N: Tensor
    group_B: Tensor
    index_N: Tensor

    def select(self, sequences: Sequence[int]) -> Step:
        """These sequences, in this order, numbered anew: a micro-batch, or another order."""
        index = torch.cat([(self.segment_N == b).nonzero().flatten() for b in sequences])
        numbers = torch.cat([torch.full_like((self.segment_N == b).nonzero().flatten(), i) for i, b in enumerate(sequences)])
        names = ("logp_N", "old_N", "ref_N", "sampler_N", "entropy_N", "advantage_N", "mask_N", "index_N")
        tokens = {name: getattr(self, name)[index] for name in names}
        return replace(self, segment_N=numbers, group_B=self.group_B[list(sequences)], **tokens)

    def leaf(self) -> Step:
        """The same with a `logp_N` to take gradients of."""
        return replace(self, logp_N=self.logp_N.detach().clone().requires_grad_())


@pytest.fixture
def make_step() -> Callable[..., Step]:
    def make(prompts: int = 3, samples: int = 4, *, seed: int = 0, spread: float = 0.3) -> Step:
        """Uneven sequences with untrained tokens before and between trained ones; the last one has none trained."""
        random = torch.Generator().manual_seed(seed)

        def normal(n: int) -> Tensor:
            return torch.randn(n, generator=random, dtype=torch.float64)

        sequences = prompts * samples
        lengths = torch.randint(2, 9, (sequences,), generator=random)
        segment_N = torch.repeat_interleave(torch.arange(sequences), lengths)
        n = len(segment_N)
        mask_N = torch.rand(n, generator=random) < 0.7
        first = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)[:-1]])
        mask_N[first + 1] = True
        mask_N[segment_N == sequences - 1] = False
        old_N = -normal(n).abs() - 0.1
        return Step(
            logp_N=old_N + spread * normal(n),
            old_N=old_N,
            ref_N=old_N + spread * normal(n),
            sampler_N=old_N + spread * normal(n),
            entropy_N=normal(n).abs(),
            advantage_N=normal(sequences)[segment_N],
            segment_N=segment_N,
            mask_N=mask_N,
            group_B=torch.arange(sequences) // samples,
            index_N=torch.arange(n),
        )

    return make
