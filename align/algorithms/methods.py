"""Named methods. A name is nothing but a bundle of an advantage, a policy loss, a reduction and a KL term.

`METHODS` holds the bundles, `resolve` changes pieces of one; `Method.credit` and `objective.objective` compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align.algorithms.bundle import Method
from align.algorithms.names import METHOD_ADVANTAGES, METHOD_LOSSES, METHOD_NAMES
from align.algorithms.overrides import default_knobs, override, unknown
from align.algorithms.pieces import KL, Correction

__all__ = ["KL", "METHODS", "Correction", "Method", "default_knobs", "resolve"]

# What a method has beside its loss and its advantage, which stand in `names`, and beside the defaults of `Method`.
_OWN_PIECES: dict[str, dict[str, Any]] = {
    # Schulman et al. 2017; Ziegler et al. 2019 for the KL term in the reward.
    "ppo": {"baseline": "none", "kl": KL(kind="k1", where="reward", beta=0.05)},
    # Shao et al. 2024; their coefficient of the KL term.
    "grpo": {"scale": "group_std", "reduce": "sequence_mean", "kl": KL(kind="k3", where="loss", beta=0.04)},
    # Liu et al. 2025, "Understanding R1-Zero-like training".
    "dr_grpo": {"reduce": "sequence_sum_norm"},
    # Yu et al. 2025.
    "dapo": {"scale": "group_std", "knobs": {"eps_high": 0.28}, "dynamic_sampling": True, "overlong": True},
    # Zheng et al. 2025.
    "gspo": {"scale": "group_std", "reduce": "sequence_mean"},
    # Zhao et al. 2025.
    "gmpo": {"scale": "group_std", "reduce": "sequence_mean"},
    # MiniMax 2025; the cap of Khatri et al. 2025, "The art of scaling RL compute".
    "cispo": {"scale": "group_std"},
    # Gao et al. 2025.
    "sapo": {"scale": "group_std", "reduce": "sequence_mean"},
    # Qi et al. 2026.
    "dppo": {"scale": "group_std"},
    # Cui et al. 2025, "The entropy mechanism"; a share for batches of some ten thousand tokens.
    "clip_cov": {"scale": "group_std"},
    "kl_cov": {"scale": "group_std"},
    # Ahmadian et al. 2024.
    "rloo": {"baseline": "leave_one_out", "reduce": "sequence_sum", "kl": KL(kind="k1", where="reward", beta=0.05)},
    # Li et al. 2023.
    "remax": {"baseline": "none", "reduce": "sequence_sum", "kl": KL(kind="k1", where="reward", beta=0.05)},
    # Hao et al. 2025.
    "opo": {"baseline": "none", "reduce": "sequence_sum"},
    # Williams 1992.
    "reinforce": {"baseline": "none", "kl": KL(kind="k1", where="reward", beta=0.05)},
    # Hu 2025.
    "reinforce++": {"baseline": "none", "kl": KL(kind="k1", where="reward", beta=0.01)},
    "reinforce++_baseline": {"kl": KL(kind="k2", where="loss", beta=0.01)},
    # Le Roux et al. 2025.
    "topr": {"reduce": "sequence_sum"},
    # Gao et al. 2024, "REBEL".
    "rebel": {"reduce": "sequence_sum"},
    # Flet-Berliac et al. 2024; the KL in the reward and the knob of the loss share one coefficient.
    "copg": {"reduce": "sequence_sum", "kl": KL(kind="k1", where="reward", beta=0.1)},
    # Kimi k1.5 2025.
    "opmd": {"reduce": "sequence_sum"},
    # Chen et al. 2025, "Pass@k training".
    "pass@k": {"baseline": "none", "knobs": {"eps_high": 0.28}},
    # Dong et al. 2023.
    "raft": {"baseline": "none"},
    # Anthony et al. 2017; Havrilla et al. 2024.
    "expert_iteration": {"baseline": "none", "choose": "correct"},
    # Chen et al. 2025, "Bridging supervised learning and reinforcement learning in math reasoning".
    "nft": {"scale": "group_std"},
    # Agarwal et al. 2024 (GKD); Lu et al. 2025, "On-policy distillation".
    "distill": {"baseline": "none", "teacher_coefficient": 1.0},
}


def _bundle(name: str, *, knobs: Mapping[str, float | None] | None = None, **pieces: Any) -> Method:
    loss, advantage = METHOD_LOSSES[name], METHOD_ADVANTAGES[name]
    return Method(name=name, advantage=advantage, loss=loss, knobs={**default_knobs(loss), **(knobs or {})}, **pieces)


METHODS: dict[str, Method] = {name: _bundle(name, **_OWN_PIECES.get(name, {})) for name in METHOD_NAMES}


def resolve(name: str, **overrides: Any) -> Method:
    """The method called `name` with some pieces replaced; the names are those of `recipe.schema.Algorithm`, None keeps a piece.

    `epsilon` sets eps_low, and eps_high unless `epsilon_high` is given; another loss brings its own knobs, another advantage its
    own baseline; `beta` 0 removes the KL term, and a beta for a method without one adds k3 in the loss. Raises ValueError on
    unknown names, saying the nearest, and on pieces that do not fit each other, saying what does.
    """
    if name not in METHODS:
        raise ValueError(unknown("method", name, METHODS))
    return override(METHODS[name], overrides)
