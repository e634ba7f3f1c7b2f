"""Named methods. A name is nothing but a bundle of an advantage, a policy loss, a reduction and a KL term.

`METHODS` holds the bundles, `resolve` changes pieces of one; `Method.advantages` and `objective.objective` compute.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, get_args

from align.algorithms.advantages import Baseline, Scale
from align.algorithms.bundle import KL, Correction, KLPlace, Method
from align.algorithms.kl import KLKind
from align.algorithms.names import MISMATCH_MODES, REDUCTION_NAMES
from align.algorithms.policy_losses import POLICY_LOSSES

__all__ = ["KL", "METHODS", "Correction", "Method", "default_knobs", "resolve"]


def default_knobs(loss: str) -> dict[str, float | None]:
    """The knobs of a loss at their defaults. Raises ValueError on an unknown loss."""
    if loss not in POLICY_LOSSES:
        raise ValueError(_unknown("policy loss", loss, POLICY_LOSSES))
    parameters = inspect.signature(POLICY_LOSSES[loss]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _bundle(name: str, *, loss: str = "clip", knobs: Mapping[str, float | None] | None = None, **pieces: Any) -> Method:
    return Method(name=name, loss=loss, knobs={**default_knobs(loss), **(knobs or {})}, **pieces)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        # Shao et al. 2024; their coefficient of the KL term.
        _bundle("grpo", scale="group_std", reduce="sequence_mean", kl=KL(kind="k3", where="loss", beta=0.04)),
        # Liu et al. 2025, "Understanding R1-Zero-like training".
        _bundle("dr_grpo", reduce="sequence_sum_norm"),
        # Yu et al. 2025.
        _bundle("dapo", scale="group_std", knobs={"eps_high": 0.28}, dynamic_sampling=True, overlong=True),
        # Zheng et al. 2025.
        _bundle("gspo", scale="group_std", loss="gspo", reduce="sequence_mean"),
        # MiniMax 2025; the cap of Khatri et al. 2025, "The art of scaling RL compute".
        _bundle("cispo", scale="group_std", loss="cispo"),
        # Ahmadian et al. 2024.
        _bundle(
            "rloo",
            baseline="leave_one_out",
            loss="importance",
            reduce="sequence_sum",
            kl=KL(kind="k1", where="reward", beta=0.05),
        ),
        # Williams 1992.
        _bundle("reinforce", baseline="none", loss="reinforce", kl=KL(kind="k1", where="reward", beta=0.05)),
        # Hu 2025.
        _bundle("reinforce++", advantage="reinforce++", baseline="none", kl=KL(kind="k1", where="reward", beta=0.01)),
        _bundle("reinforce++_baseline", advantage="reinforce++_baseline", kl=KL(kind="k2", where="loss", beta=0.01)),
    )
}

_KNOB_KEYS = ("epsilon", "epsilon_high", "dual_clip", "knobs")
_KL_KEYS = {"kl": "kind", "kl_in": "where", "beta": "beta", "kl_target": "target", "kl_horizon": "horizon"}
# Keys that replace the field of the same name.
_FIELDS = ("baseline", "scale", "loss", "reduce", "norm_length", "gamma", "entropy_coefficient")
_FLAGS = ("dynamic_sampling", "max_resamples", "mask_truncated")
_OVERRIDES = (*_FIELDS, *_FLAGS, *_KNOB_KEYS, *_KL_KEYS, "mismatch", "overlong")


def resolve(name: str, **overrides: Any) -> Method:
    """The method called `name` with some pieces replaced; the names are those of `recipe.schema.Algorithm`, None keeps a piece.

    `epsilon` sets eps_low, and eps_high unless `epsilon_high` is given; another loss brings its own knobs; `beta` 0 removes the
    KL term, and a beta for a method without one adds k3 in the loss. Raises ValueError on unknown names, saying the
    nearest, and on pieces that do not fit each other, saying what does.
    """
    if name not in METHODS:
        raise ValueError(_unknown("method", name, METHODS))
    given = {key: value for key, value in overrides.items() if value is not None}
    for key in given:
        if key not in _OVERRIDES:
            raise ValueError(_unknown("override", key, _OVERRIDES))
    method = METHODS[name]
    changes = {key: given[key] for key in (*_FIELDS, *_FLAGS) if key in given}
    if "mismatch" in given:
        changes["mismatch"] = _correction(given["mismatch"])
    if "overlong" in given:
        changes["overlong"] = given["overlong"] is not False
    resolved = replace(method, knobs=_knobs(method, given), kl=_kl(method.kl, given), **changes)
    _check_names(resolved)
    _check_fit(method, resolved)
    return resolved


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
        least, inclusive = (1 if knob == "dual_clip" else 0), knob in ("eps_low", "eps_high")
        if value < least or (value == least and not inclusive):
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


def _correction(mismatch: Any) -> Correction:
    pieces = mismatch if isinstance(mismatch, Mapping) else {key: getattr(mismatch, key) for key in ("mode", "low", "high")}
    correction = Correction(**pieces)
    _one_of("mismatch mode", correction.mode, MISMATCH_MODES)
    if correction.high <= 0 or (correction.mode.endswith("mask") and correction.low > correction.high):
        raise ValueError(f"mismatch keeps weights within low = {correction.low} and high = {correction.high}, which leaves none")
    return correction


def _check_names(method: Method) -> None:
    _one_of("baseline", method.baseline, get_args(Baseline))
    _one_of("scale", method.scale, get_args(Scale))
    _one_of("reduction", method.reduce, REDUCTION_NAMES)
    if method.kl is not None:
        _one_of("KL estimate", method.kl.kind, get_args(KLKind))
        _one_of("place of the KL term", method.kl.where, get_args(KLPlace))


def _check_fit(own: Method, method: Method) -> None:
    """Refuse pieces that would have no effect, or a ruinous one, together."""
    if method.advantage != "group" and (method.baseline, method.scale) != (own.baseline, own.scale):
        raise ValueError(f"{method.name} whitens its advantages over the batch: baseline and scale cannot be changed")
    if method.baseline == "none" and method.scale != "none":
        raise ValueError(
            f"scale {method.scale} without a baseline divides by 0 where all rewards are equal: "
            "choose baseline mean or leave_one_out, or scale none"
        )
    if method.gamma != 1 and method.advantage != "reinforce++":
        raise ValueError(
            f"gamma has no effect in {method.name}, which has one reward per completion: use reinforce++ or leave it at 1"
        )
    if method.norm_length is not None and method.reduce != "sequence_sum_norm":
        raise ValueError(f"norm_length belongs to reduce sequence_sum_norm, not to {method.reduce}")


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(_unknown(what, value, known))


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
    return f"there is no {what} {name!r}; {advice}"
