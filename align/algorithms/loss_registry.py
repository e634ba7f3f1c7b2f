"""The registry of policy losses, and the shield around each of them.

All have the signature fn(logp_N, old_N, advantage_N, segment_N, mask_N, *, group_B=None, **knobs) -> loss_N. logp is the policy
being trained, old the policy at the start of the step (no gradient flows into it), and only trained tokens count: the others
give 0 and no gradient, whatever they hold. `group_B` is the prompt of each sequence, for losses that compare samples; without
it all sequences are one group. Half precision is computed, and returned, in float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TypeVar, cast

from torch import Tensor

from align.algorithms.segments import masked, trained_mask

PolicyLoss = Callable[..., Tensor]
Loss = TypeVar("Loss", bound=PolicyLoss)
POLICY_LOSSES: dict[str, PolicyLoss] = {}


def policy_loss(fn: Loss) -> Loss:
    """Register a loss under its name and shield it from untrained tokens. Raises ValueError on tensors that do not fit.

    A loss that compares the samples of a prompt names `group_B` among its arguments; the others never see it.
    """
    compares = "group_B" in inspect.signature(fn).parameters

    @wraps(fn)
    def shielded(
        logp_N: Tensor,
        old_N: Tensor,
        advantage_N: Tensor,
        segment_N: Tensor,
        mask_N: Tensor,
        *,
        group_B: Tensor | None = None,
        **knobs: float,
    ) -> Tensor:
        mask_N = trained_mask(segment_N, mask_N, logp_N=logp_N, old_N=old_N, advantage_N=advantage_N)
        logp_N, old_N, advantage_N = masked(logp_N, mask_N), masked(old_N.detach(), mask_N), masked(advantage_N, mask_N)
        groups = {"group_B": group_B} if compares else {}
        return masked(fn(logp_N, old_N, advantage_N, segment_N, mask_N, **groups, **knobs), mask_N)

    POLICY_LOSSES[fn.__name__] = shielded
    return cast(Loss, shielded)
