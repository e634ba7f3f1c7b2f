"""How a preference loss is written and registered: `@on_ratios` where it is a function of c and r, `@on_logps` otherwise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

from torch import Tensor

from align.algorithms.preference_names import PREFERENCE_TABLE

NAMED = ("__module__", "__name__", "__qualname__", "__doc__")  # what a registered loss takes over from the function it wraps

Function = TypeVar("Function", bound=Callable[..., Tensor])

# {name: fn(chosen_B, rejected_B, ref_chosen_B, ref_rejected_B, *, beta, chosen_length_B=None, rejected_length_B=None,
# **knobs) -> loss_B}
PREFERENCE_LOSSES: dict[str, Callable[..., Tensor]] = {}


def on_logps(function: Function) -> Function:
    """Register a loss of (chosen_B, rejected_B, ref_chosen_B, ref_rejected_B, *, beta), which may ask for lengths and knobs.

    The registered function also takes the lengths where the loss has no use for them, and checks what it is given: ValueError
    for a beta that is not positive, a missing reference or missing lengths, and tensors of different shapes.
    """
    name, entry = function.__name__, PREFERENCE_TABLE[function.__name__]
    wanted = inspect.signature(function).parameters

    @wraps(function, assigned=NAMED, updated=())
    def loss(
        chosen_B: Tensor,
        rejected_B: Tensor | None,
        ref_chosen_B: Tensor | None,
        ref_rejected_B: Tensor | None,
        *,
        beta: float,
        chosen_length_B: Tensor | None = None,
        rejected_length_B: Tensor | None = None,
        **knobs: Any,
    ) -> Tensor:
        if beta <= 0:
            raise ValueError(f"beta must be above 0, got {beta}")
        if rejected_B is None and entry.rows == "pair":
            raise ValueError(f"{name} compares pairs: it needs rejected_B")
        lengths = {"chosen_length_B": chosen_length_B, "rejected_length_B": rejected_length_B}
        lengths = {key: value for key, value in lengths.items() if key in wanted}
        if any(value is None for value in lengths.values()):
            raise ValueError(f"{name} divides by the completions' lengths: it needs {' and '.join(lengths)}")
        if not entry.reference:
            ref_chosen_B = ref_rejected_B = None
        _same_shape(name, chosen_B, ref_chosen_B, entry.reference)
        if rejected_B is not None:
            _same_shape(name, rejected_B, ref_rejected_B, entry.reference)
            if entry.rows == "pair" and rejected_B.shape != chosen_B.shape:
                raise ValueError(f"{name}: {tuple(chosen_B.shape)} chosen and {tuple(rejected_B.shape)} rejected make no pairs")
        return function(chosen_B, rejected_B, ref_chosen_B, ref_rejected_B, beta=beta, **lengths, **knobs)

    loss.__signature__ = _signature(loss, wanted.values())  # type: ignore[attr-defined]
    PREFERENCE_LOSSES[name] = loss
    return loss  # type: ignore[return-value]


def on_ratios(function: Function) -> Function:
    """Register a loss of (c_B, r_B, *, beta): the log-ratios of policy and reference, of the chosen and the rejected."""
    signature = inspect.signature(function)

    @wraps(function)
    def loss(
        chosen_B: Tensor, rejected_B: Tensor, ref_chosen_B: Tensor, ref_rejected_B: Tensor, *, beta: float, **others: Any
    ) -> Tensor:
        return function(chosen_B - ref_chosen_B, rejected_B - ref_rejected_B, beta=beta, **others)

    loss.__signature__ = signature  # type: ignore[attr-defined]
    return on_logps(loss)  # type: ignore[return-value]


def _signature(loss: Callable[..., Tensor], inner: Iterable[inspect.Parameter]) -> inspect.Signature:
    """The common parameters, and the loss's own knobs with their defaults in place of `**knobs`."""
    common = inspect.signature(loss, follow_wrapped=False).parameters
    knobs = [one for one in inner if one.kind is one.KEYWORD_ONLY and one.name not in common]
    return inspect.Signature([*(one for one in common.values() if one.kind is not one.VAR_KEYWORD), *knobs])


def _same_shape(name: str, logp_B: Tensor, ref_B: Tensor | None, reference: bool) -> None:
    if reference and ref_B is None:
        raise ValueError(f"{name} compares with a reference: it needs ref_chosen_B and ref_rejected_B")
    if ref_B is not None and ref_B.shape != logp_B.shape:
        raise ValueError(f"{name}: {tuple(logp_B.shape)} log-probs of the policy, {tuple(ref_B.shape)} of the reference")
