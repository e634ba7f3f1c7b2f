"""Rules of `recipe: rl`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from align.algorithms.names import LOSS_KNOBS, LOSS_NAMES, METHOD_LOSSES, METHOD_NAMES
from align.recipe.schema import Algorithm, RLRecipe
from align.recipe.validate.common import stops
from align.recipe.validate.findings import Finding, unknown_name

UNGROUPED = ("reinforce", "reinforce++")  # methods that can do with one sample of a prompt


def algorithm(recipe: RLRecipe) -> Iterator[Finding]:
    algorithm, size = recipe.algorithm, recipe.rollout.num_generations
    if algorithm.method not in METHOD_NAMES:
        yield unknown_name("algorithm.method", "method", algorithm.method, METHOD_NAMES)
    if algorithm.loss is not None and algorithm.loss not in LOSS_NAMES:
        yield unknown_name("algorithm.loss", "policy loss", algorithm.loss, LOSS_NAMES)
    yield from _knobs(algorithm)
    yield from _idle_kl(algorithm)
    grouped = algorithm.method not in UNGROUPED if algorithm.baseline is None else algorithm.baseline != "none"
    if size < 2 and grouped:
        yield Finding(
            key="rollout.num_generations",
            message=f"{algorithm.method} compares the samples of a prompt, and rollout.num_generations is {size}",
            fix="write num_generations: 8 (at least 2), or algorithm: {method: reinforce, baseline: none}",
        )
    dynamic = algorithm.method == "dapo" if algorithm.dynamic_sampling is None else algorithm.dynamic_sampling
    if size < 2 and dynamic:
        yield Finding(
            key="algorithm.dynamic_sampling",
            message="dynamic sampling keeps groups whose rewards differ: with one sample a group none ever does",
            fix="write rollout: {num_generations: 8}, or dynamic_sampling: false",
        )
    if algorithm.overlong is not None and algorithm.overlong.buffer > recipe.rollout.max_completion_length:
        limit = recipe.rollout.max_completion_length
        message = f"algorithm.overlong.buffer = {algorithm.overlong.buffer} is longer than a completion may be ({limit} tokens)"
        yield Finding(
            key="algorithm.overlong.buffer",
            message=message,
            fix=f"write a buffer of at most {limit}, such as {max(1, limit // 4)}",
        )


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
