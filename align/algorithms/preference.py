"""Preference losses by name.

`PREFERENCE_LOSSES[name](chosen_B, rejected_B, ref_chosen_B, ref_rejected_B, *, beta, chosen_length_B=None,
rejected_length_B=None, **knobs) -> loss_B`, with log-probs summed over completions, lengths in tokens, and losses to be
minimised. Losses without a
reference take None for it. What each wants beside is `PREFERENCE_TABLE[name]`.
"""

from __future__ import annotations

from align.algorithms import preference_free, preference_online, preference_pairs, preference_unpaired
from align.algorithms.preference_loss import PREFERENCE_LOSSES
from align.algorithms.preference_names import PREFERENCE_NAMES, PREFERENCE_TABLE

__all__ = [
    "PREFERENCE_LOSSES",
    "PREFERENCE_NAMES",
    "PREFERENCE_TABLE",
    "preference_free",
    "preference_online",
    "preference_pairs",
    "preference_unpaired",
]
