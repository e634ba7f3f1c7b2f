"""The preference losses by name, without torch, so that a recipe can be checked within a moment.

The functions are `preference.PREFERENCE_LOSSES`; a test keeps the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Rows = Literal["pair", "label", "ranking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceEntry:
    """What a loss wants to be given.

    `whole`: its value for one pair depends on the others of the step. `takes`: tensors beside the log-probs, by keyword.
    `per_token`: what it raises and lowers are log-probs a token. `online`: it needs samples that are drawn during training; the
    losses that are merely meant for such pairs accept stored ones too.
    """

    knobs: tuple[str, ...] = ()
    rows: Rows = "pair"
    reference: bool = True
    whole: bool = False
    lengths: bool = False
    takes: tuple[str, ...] = ()
    per_token: bool = False
    online: bool = False


PREFERENCE_TABLE: dict[str, PreferenceEntry] = {
    "dpo": PreferenceEntry(knobs=("label_smoothing",), takes=("margin_B",)),
    "dpo_norm": PreferenceEntry(lengths=True),
    "robust": PreferenceEntry(knobs=("label_smoothing",)),
    "ipo": PreferenceEntry(lengths=True),
    "ipo_sum": PreferenceEntry(),
    "hinge": PreferenceEntry(),
    "exo_pair": PreferenceEntry(knobs=("label_smoothing",)),
    "nca_pair": PreferenceEntry(),
    "bco_pair": PreferenceEntry(knobs=("shift",)),
    "apo_zero": PreferenceEntry(),
    "apo_down": PreferenceEntry(),
    "sppo_hard": PreferenceEntry(),
    "discopop": PreferenceEntry(knobs=("tau",)),
    "aot": PreferenceEntry(knobs=("label_smoothing",), whole=True),
    "aot_unpaired": PreferenceEntry(knobs=("label_smoothing",), whole=True),
    "rpo": PreferenceEntry(knobs=("alpha", "label_smoothing"), lengths=True),
    "kto": PreferenceEntry(knobs=("desirable_weight", "undesirable_weight"), rows="label", whole=True, takes=("kl_B",)),
    "dro": PreferenceEntry(knobs=("value",), rows="label", whole=True, takes=("reward_B",)),
    "orpo": PreferenceEntry(reference=False, lengths=True, per_token=True),
    "simpo": PreferenceEntry(knobs=("gamma", "label_smoothing"), reference=False, lengths=True, per_token=True),
    "cpo": PreferenceEntry(knobs=("alpha", "label_smoothing"), reference=False, lengths=True),
    "sft": PreferenceEntry(reference=False, lengths=True, per_token=True),
    "lipo_lambda": PreferenceEntry(rows="ranking", takes=("score_B", "group_B")),
    "online_dpo": PreferenceEntry(knobs=("label_smoothing",)),
    "rebel": PreferenceEntry(takes=("margin_B",)),
    "dno": PreferenceEntry(takes=("margin_B",)),
    "inpo": PreferenceEntry(knobs=("anchor",), takes=("old_chosen_B", "old_rejected_B")),
    "xpo": PreferenceEntry(knobs=("alpha",), takes=("reference_chosen_B",), online=True),
    "hypo": PreferenceEntry(knobs=("kl_weight",), whole=True, takes=("online_B", "ref_online_B"), online=True),
}
PREFERENCE_NAMES: tuple[str, ...] = tuple(PREFERENCE_TABLE)
