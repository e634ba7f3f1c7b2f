"""Rules of `recipe: rl`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from align.algorithms.names import LOSS_KNOBS, LOSS_NAMES, METHOD_ADVANTAGES, METHOD_LOSSES, METHOD_NAMES, AdvantageName
from align.recipe.schema import Algorithm, RLRecipe
from align.recipe.validate.common import stops
from align.recipe.validate.findings import Finding, unknown_name

# Keys that matter to some advantages only.
OF_ADVANTAGE: dict[str, tuple[AdvantageName, ...]] = {
    "pass_k": ("pass@k",),
    "choose": ("selection",),
    "threshold": ("selection",),
    "gamma": ("gae", "reinforce++"),
    "lam": ("gae",),
    "length_adaptive_lambda": ("gae",),
    "critic_lam": ("gae",),
    "bootstrap_truncated": ("gae",),
    "dense": ("gae",),
}


def algorithm(recipe: RLRecipe) -> Iterator[Finding]:
    algorithm = recipe.algorithm
    if algorithm.method not in METHOD_NAMES:
        yield unknown_name("algorithm.method", "method", algorithm.method, METHOD_NAMES)
    if algorithm.loss is not None and algorithm.loss not in LOSS_NAMES:
        yield unknown_name("algorithm.loss", "policy loss", algorithm.loss, LOSS_NAMES)
    yield from _knobs(algorithm)
    yield from _idle_kl(algorithm)
    yield from _of_other_advantages(algorithm)
    if algorithm.overlong is not None and algorithm.overlong.buffer > recipe.rollout.max_completion_length:
        limit = recipe.rollout.max_completion_length
        message = f"algorithm.overlong.buffer = {algorithm.overlong.buffer} is longer than a completion may be ({limit} tokens)"
        yield Finding(
            key="algorithm.overlong.buffer",
            message=message,
            fix=f"write a buffer of at most {limit}, such as {max(1, limit // 4)}",
        )


def advantage_of(algorithm: Algorithm) -> AdvantageName:
    """The advantage that is in effect, the method's own or the recipe's."""
    return algorithm.advantage or METHOD_ADVANTAGES[algorithm.method]


def _of_other_advantages(algorithm: Algorithm) -> Iterator[Finding]:
    advantage = advantage_of(algorithm)
    for key, owners in OF_ADVANTAGE.items():
        if getattr(algorithm, key) is not None and advantage not in owners:
            message = f"algorithm.{key} has no effect on the advantage {advantage}: it belongs to {' and '.join(owners)}"
            yield Finding(key=f"algorithm.{key}", message=message, fix=f"remove {key}, or write advantage: {owners[0]}")


def _knobs(algorithm: Algorithm) -> Iterator[Finding]:
    """Knobs that the loss does not take, also those with a key of their own."""
    loss = algorithm.loss or METHOD_LOSSES[algorithm.method]
    named = {"epsilon": "eps_low", "epsilon_high": "eps_high", "dual_clip": "dual_clip"}
    asked = {f"knobs.{knob}": knob for knob in algorithm.knobs}
    asked |= {key: knob for key, knob in named.items() if getattr(algorithm, key) is not None}
    for key, knob in asked.items():
        if knob not in LOSS_KNOBS[loss]:
            unknown = unknown_name(f"algorithm.{key}", f"knob of the loss {loss}", knob, LOSS_KNOBS[loss])
            yield unknown if LOSS_KNOBS[loss] else replace(unknown, fix=f"remove it: the loss {loss} has no knobs")


def _idle_kl(algorithm: Algorithm) -> Iterator[Finding]:
    for key in ("kl", "kl_in", "kl_target"):
        if algorithm.beta == 0 and getattr(algorithm, key) is not None:
            message = f"algorithm.{key} has no effect: beta is 0, which removes the KL term"
            yield Finding(key=f"algorithm.{key}", message=message, fix=f"write a beta such as 0.04, or remove {key}")


def mismatch(recipe: RLRecipe) -> Iterator[Finding]:
    mismatch = recipe.algorithm.mismatch
    if mismatch is not None and mismatch.mode.endswith("mask") and mismatch.low > mismatch.high:
        message = f"algorithm.mismatch: low {mismatch.low} is above high {mismatch.high}"
        yield Finding(key="algorithm.mismatch", message=message, fix="write bounds around 1, such as low: 0.5 and high: 2.0")


def rollout(recipe: RLRecipe) -> Iterator[Finding]:
    if recipe.rollout.temperature == 0:
        message = "temperature 0 draws the same completion every time: there is nothing to learn from"
        yield Finding(key="rollout.temperature", message=message, fix="write temperature: 1.0")
    yield from stops("rollout.stop", recipe.rollout.stop)


def minibatches(recipe: RLRecipe) -> Iterator[Finding]:
    prompts, parts = recipe.train.prompts_per_step, recipe.train.minibatches
    if prompts % parts:
        divisors = [str(number) for number in range(1, prompts + 1) if prompts % number == 0]
        message = f"{prompts} prompts a step cannot be cut into {parts} equal mini-batches"
        yield Finding(key="train.minibatches", message=message, fix=f"minibatches can be {', '.join(divisors[:12])}")
