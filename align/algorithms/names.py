"""Names of methods, losses, advantages and reductions, without torch, so that a recipe can be checked within a moment.

The registries themselves are `methods.METHODS` and `policy_losses.POLICY_LOSSES`; a test keeps the names equal to theirs.
"""

from __future__ import annotations

from typing import Literal, get_args

# Each method with the policy loss it has unless told otherwise.
METHOD_LOSSES: dict[str, str] = {
    "ppo": "clip",
    "grpo": "clip",
    "dr_grpo": "clip",
    "dapo": "clip",
    "gspo": "gspo",
    "gmpo": "gmpo",
    "cispo": "cispo",
    "sapo": "sapo",
    "dppo": "dppo",
    "clip_cov": "clip_cov",
    "kl_cov": "kl_cov",
    "rloo": "importance",
    "remax": "reinforce",
    "opo": "reinforce",
    "reinforce": "reinforce",
    "reinforce++": "clip",
    "reinforce++_baseline": "clip",
    "topr": "tapered",
    "rebel": "rebel",
    "copg": "copg",
    "opmd": "opmd",
    "pass@k": "clip",
    "raft": "raft",
    "expert_iteration": "raft",
    "nft": "nft",
    "distill": "importance",
}
METHOD_NAMES: tuple[str, ...] = tuple(METHOD_LOSSES)

AdvantageName = Literal[
    "group",
    "remax",
    "opo",
    "pass@k",
    "selection",
    "min_form",
    "gae",
    "reinforce++",
    "reinforce++_baseline",
    "distill",
]
ADVANTAGE_NAMES: tuple[AdvantageName, ...] = get_args(AdvantageName)

# The advantage of each method; those that are not named here have "group".
_OWN_ADVANTAGES: dict[str, AdvantageName] = {
    "ppo": "gae",
    "remax": "remax",
    "opo": "opo",
    "reinforce++": "reinforce++",
    "reinforce++_baseline": "reinforce++_baseline",
    "pass@k": "pass@k",
    "raft": "selection",
    "expert_iteration": "selection",
    "distill": "distill",
}
METHOD_ADVANTAGES: dict[str, AdvantageName] = {name: _OWN_ADVANTAGES.get(name, "group") for name in METHOD_NAMES}

# What an advantage needs beside the rewards of the samples: a value model, a greedy sample of each prompt, a teacher.
ADVANTAGE_NEEDS: dict[AdvantageName, str] = {"gae": "critic", "remax": "greedy", "distill": "teacher"}
# Advantages that make sense of a prompt's only sample; "group" does too with baseline none.
UNGROUPED_ADVANTAGES: tuple[AdvantageName, ...] = ("gae", "remax", "reinforce++", "selection", "distill")

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
    "raft": (),
    "nft": ("floor",),
    "regress": ("beta",),
    "rebel": ("beta",),
    "copg": ("beta",),
    "opmd": ("tau",),
    "clip_cov": ("eps_low", "eps_high", "share", "cov_low", "cov_high"),
    "kl_cov": ("share", "coefficient"),
}
LOSS_NAMES: tuple[str, ...] = tuple(LOSS_KNOBS)

# What a loss must be given at once: any tokens, whole sequences, or all sequences of the step.
Scope = Literal["token", "sequence", "batch"]
LOSS_SCOPE: dict[str, Scope] = {
    "clip": "token",
    "reinforce": "token",
    "importance": "token",
    "gspo": "sequence",
    "gmpo": "sequence",
    "cispo": "token",
    "sapo": "token",
    "tapered": "sequence",
    "dppo": "token",
    "raft": "token",
    "nft": "token",
    "regress": "sequence",
    "rebel": "batch",
    "copg": "batch",
    "opmd": "batch",
    "clip_cov": "batch",
    "kl_cov": "batch",
}

Baseline = Literal["mean", "leave_one_out", "none"]  # of the advantages group and min_form
Scale = Literal["group_std", "batch_std", "none"]  # of the advantage group
KLKind = Literal["k1", "k2", "k3"]
KLPlace = Literal["loss", "reward"]

Reduction = Literal["token_mean", "sequence_mean", "sequence_sum", "sequence_sum_norm", "prompt_mean"]
REDUCTION_NAMES: tuple[Reduction, ...] = get_args(Reduction)

MismatchMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geometric_mask"]
MISMATCH_MODES: tuple[MismatchMode, ...] = get_args(MismatchMode)

Selection = Literal["best", "correct"]  # of the selection advantage
SELECTIONS: tuple[Selection, ...] = get_args(Selection)
MacroKind = Literal["ngram", "sentence"]  # where macro actions end
MACRO_KINDS: tuple[MacroKind, ...] = get_args(MacroKind)
DemonstrationMode = Literal["shaped", "mixture"]  # how demonstrations in a group are weighed
DEMONSTRATION_MODES: tuple[DemonstrationMode, ...] = get_args(DemonstrationMode)
SampleChoice = Literal["best", "best_worst", "best_random", "max_variance", "random"]  # of a prompt's samples, to train on
SAMPLE_CHOICES: tuple[SampleChoice, ...] = get_args(SampleChoice)
