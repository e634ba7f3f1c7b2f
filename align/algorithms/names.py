"""Names of methods, losses and reductions, without torch, so that a recipe can be checked within a moment.

The registries themselves are `methods.METHODS` and `policy_losses.POLICY_LOSSES`; a test keeps the names equal to theirs.
"""

from __future__ import annotations

from typing import Literal, get_args

# Each method with the policy loss it has unless told otherwise.
METHOD_LOSSES: dict[str, str] = {
    "grpo": "clip",
    "dr_grpo": "clip",
    "dapo": "clip",
    "gspo": "gspo",
    "cispo": "cispo",
    "rloo": "importance",
    "reinforce": "reinforce",
    "reinforce++": "clip",
    "reinforce++_baseline": "clip",
}
METHOD_NAMES: tuple[str, ...] = tuple(METHOD_LOSSES)

# Each policy loss with the knobs it takes.
LOSS_KNOBS: dict[str, tuple[str, ...]] = {
    "clip": ("eps_low", "eps_high", "dual_clip"),
    "reinforce": (),
    "importance": (),
    "gspo": ("eps_low", "eps_high", "dual_clip"),
    "gmpo": ("eps_low", "eps_high"),
    "cispo": ("cap",),
    "sapo": ("tau_pos", "tau_neg"),
    "tapered": (),
    "dppo": ("delta",),
}
LOSS_NAMES: tuple[str, ...] = tuple(LOSS_KNOBS)

Reduction = Literal["token_mean", "sequence_mean", "sequence_sum", "sequence_sum_norm", "prompt_mean"]
REDUCTION_NAMES: tuple[Reduction, ...] = get_args(Reduction)

MismatchMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geometric_mask"]
MISMATCH_MODES: tuple[MismatchMode, ...] = get_args(MismatchMode)
