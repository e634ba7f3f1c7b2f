"""How the pieces of a method are replaced one by one, and which of them go together."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

from align.algorithms.bundle import Method
from align.algorithms.names import (
    ADVANTAGE_NAMES,
    DEMONSTRATION_MODES,
    MACRO_KINDS,
    MISMATCH_MODES,
    REDUCTION_NAMES,
    SELECTIONS,
    Baseline,
    KLKind,
    KLPlace,
    Scale,
)
from align.algorithms.pieces import KL, Correction, Demonstrations, MacroActions, ReferenceSchedule
from align.algorithms.policy_losses import POLICY_LOSSES

Piece = TypeVar("Piece", Correction, Demonstrations, MacroActions, ReferenceSchedule)

_KNOB_KEYS = ("epsilon", "epsilon_high", "dual_clip", "knobs")
_KL_KEYS = {"kl": "kind", "kl_in": "where", "beta": "beta", "kl_target": "target", "kl_horizon": "horizon"}
# Keys that replace the field of the same name.
_FIELDS = (
    *("advantage", "baseline", "scale", "pass_k", "choose", "threshold"),
    *("gamma", "lam", "length_adaptive_lambda", "critic_lam", "bootstrap_truncated", "teacher_coefficient"),
    *("loss", "reduce", "norm_length", "entropy_mask", "entropy_coefficient", "entropy_target", "entropy_increment"),
    *("dynamic_sampling", "max_resamples", "mask_truncated"),
)
# Keys with settings of their own, as an object or a mapping.
_PIECES: dict[str, type] = {
    "mismatch": Correction,
    "macro_actions": MacroActions,
    "demonstrations": Demonstrations,
    "reference": ReferenceSchedule,
}
OVERRIDES = (*_FIELDS, *_PIECES, *_KNOB_KEYS, *_KL_KEYS, "overlong")


def default_knobs(loss: str) -> dict[str, float | None]:
    """The knobs of a loss at their defaults. Raises ValueError on an unknown loss."""
    if loss not in POLICY_LOSSES:
        raise ValueError(unknown("policy loss", loss, POLICY_LOSSES))
    parameters = inspect.signature(POLICY_LOSSES[loss]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "group_B"}


def override(method: Method, overrides: Mapping[str, Any]) -> Method:
    """`method` with some pieces replaced; None keeps a piece. See `methods.resolve`."""
    given = {key: value for key, value in overrides.items() if value is not None}
    for key in given:
        if key not in OVERRIDES:
            raise ValueError(unknown("override", key, OVERRIDES))
    changes = {key: given[key] for key in _FIELDS if key in given}
    changes |= {key: _piece(kind, given[key]) for key, kind in _PIECES.items() if key in given}
    if "overlong" in given:
        changes["overlong"] = given["overlong"] is not False
    if given.get("advantage", method.advantage) != method.advantage:  # another advantage brings its own baseline
        changes = {"baseline": "mean" if given["advantage"] in ("group", "min_form") else "none", "scale": "none", **changes}
    resolved = replace(method, knobs=_knobs(method, given), kl=_kl(method.kl, given), **changes)
    _check_names(resolved)
    _check_values(resolved)
    _check_fit(given, method, resolved)
    return resolved


def _piece(kind: type[Piece], value: Any) -> Piece:
    names = [field.name for field in fields(kind)]
    pieces = value if isinstance(value, Mapping) else {name: getattr(value, name) for name in names if hasattr(value, name)}
    for name in pieces:
        if name not in names:
            raise ValueError(unknown("setting", name, names))
    return kind(**pieces)


def _knobs(method: Method, given: Mapping[str, Any]) -> dict[str, float | None]:
    loss = given.get("loss", method.loss)
    knobs = dict(method.knobs) if loss == method.loss else default_knobs(loss)
    asked: dict[str, float] = dict(given.get("knobs", {}))
    named = {
        "eps_low": given.get("epsilon"),
        "eps_high": given.get("epsilon_high", given.get("epsilon")),
        "dual_clip": given.get("dual_clip"),
    }
    for knob, value in named.items():
        if value is not None and asked.setdefault(knob, value) != value:
            raise ValueError(f"{knob} is given twice, as {asked[knob]} in knobs and as {value} beside them")
    for knob, value in asked.items():
        if knob not in knobs:
            takes = ", ".join(knobs) or "none"
            raise ValueError(f"the loss {loss!r} has no knob {knob!r}; it takes: {takes}")
        least, inclusive = (1 if knob == "dual_clip" else 0), knob in ("eps_low", "eps_high", "share", "coefficient")
        if knob != "cov_low" and (value < least or (value == least and not inclusive)):
            raise ValueError(f"{knob} = {value} must be {'at least' if inclusive else 'above'} {least}")
    return {**knobs, **asked}


def _kl(own: KL | None, given: Mapping[str, Any]) -> KL | None:
    changes = {piece: given[key] for key, piece in _KL_KEYS.items() if key in given}
    if changes.get("beta") == 0:
        idle = [key for key in ("kl", "kl_in", "kl_target") if key in given]
        if idle:
            raise ValueError(f"beta 0 removes the KL term, so {idle[0]} has no effect: give beta a value above 0")
        return None
    if own is None and "beta" not in changes:
        for key in ("kl", "kl_in", "kl_target"):
            if key in given:
                raise ValueError(f"{key} is given, but the method has no KL term: give beta as well")
        return None
    kl = KL(**changes) if own is None else replace(own, **changes)
    if kl.beta < 0:
        raise ValueError(f"beta = {kl.beta} must not be negative")
    return kl


def _check_names(method: Method) -> None:
    _one_of("advantage", method.advantage, ADVANTAGE_NAMES)
    _one_of("baseline", method.baseline, get_args(Baseline))
    _one_of("scale", method.scale, get_args(Scale))
    _one_of("selection", method.choose, SELECTIONS)
    _one_of("reduction", method.reduce, REDUCTION_NAMES)
    if method.kl is not None:
        _one_of("KL estimate", method.kl.kind, get_args(KLKind))
        _one_of("place of the KL term", method.kl.where, get_args(KLPlace))
    if method.mismatch is not None:
        _one_of("mismatch mode", method.mismatch.mode, MISMATCH_MODES)
    if method.macro_actions is not None:
        _one_of("kind of macro action", method.macro_actions.by, MACRO_KINDS)
    if method.demonstrations is not None:
        _one_of("weight of demonstrations", method.demonstrations.mode, DEMONSTRATION_MODES)


def _check_values(method: Method) -> None:
    """Refuse numbers that mean nothing; the pieces with settings of their own refuse theirs."""
    above_0 = {"pass_k": method.pass_k, "length_adaptive_lambda": method.length_adaptive_lambda}
    above_0 |= {"entropy_target": method.entropy_target, "entropy_increment": method.entropy_increment}
    for key, value in above_0.items():
        if value is not None and value <= 0:
            raise ValueError(f"{key} = {value} must be above 0")
    for key, value in {"gamma": method.gamma, "lam": method.lam, "critic_lam": method.critic_lam}.items():
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{key} = {value} must be a share: at least 0 and at most 1")
    if not 0 < method.entropy_mask <= 1:
        raise ValueError(f"entropy_mask = {method.entropy_mask} must be a share of the tokens: above 0 and at most 1")
    if method.entropy_target is not None and method.entropy_coefficient < 0:
        raise ValueError(f"an entropy target needs an entropy_coefficient of at least 0, not {method.entropy_coefficient}")


def _check_fit(given: Mapping[str, Any], own: Method, method: Method) -> None:
    """Refuse pieces that would have no effect, or a ruinous one, together."""
    _check_advantage(own, method)
    if method.loss == "nft" and (method.advantage, method.scale) != ("group", "group_std"):
        raise ValueError("the loss nft reads the success rate from the advantage: it needs advantage group and scale group_std")
    if method.norm_length is not None and method.reduce != "sequence_sum_norm":
        raise ValueError(f"norm_length belongs to reduce sequence_sum_norm, not to {method.reduce}")
    if method.reference is not None and method.kl is None:
        raise ValueError("reference moves a model that no KL term looks at: give beta as well")
    if method.kl is not None and method.kl.where == "reward" and method.advantage in ("min_form", "distill"):
        raise ValueError(f"a KL term in the reward does not enter the advantage {method.advantage}: put it into the loss")
    belongs = {"pass_k": "pass@k", "choose": "selection", "threshold": "selection", "lam": "gae", "critic_lam": "gae"}
    belongs |= {"length_adaptive_lambda": "gae", "bootstrap_truncated": "gae"}
    for key, advantage in belongs.items():
        if key in given and method.advantage != advantage:
            raise ValueError(f"{key} has no effect on the advantage {method.advantage}: it belongs to {advantage}")


def _check_advantage(own: Method, method: Method) -> None:
    changed = method.baseline != own.baseline or method.scale != own.scale
    if method.advantage in ("reinforce++", "reinforce++_baseline") and own.advantage == method.advantage and changed:
        raise ValueError(f"{method.name} whitens its advantages over the batch: baseline and scale cannot be changed")
    if method.advantage not in ("group", "min_form") and own.advantage == method.advantage and changed:
        raise ValueError(f"baseline and scale have no effect on the advantage {method.advantage}: they belong to group")
    if method.advantage == "min_form" and method.scale != "none":
        raise ValueError("the advantage min_form has no scale: leave it at none")
    if method.baseline == "none" and method.scale != "none":
        raise ValueError(
            f"scale {method.scale} without a baseline divides by 0 where all rewards are equal: "
            "choose baseline mean or leave_one_out, or scale none"
        )
    if method.gamma != 1 and method.advantage not in ("reinforce++", "gae"):
        raise ValueError(
            f"gamma has no effect in {method.name}, which has one reward per completion: use ppo or reinforce++, or leave it at 1"
        )


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(unknown(what, value, known))


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Say that there is no such name, and the nearest that there are."""
    close = get_close_matches(name, list(known), n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
    return f"there is no {what} {name!r}; {advice}"
