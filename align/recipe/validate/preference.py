"""Rules of `recipe: preference`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from align.algorithms.preference_names import PREFERENCE_NAMES, PREFERENCE_TABLE
from align.recipe.preference import is_judged, loss_entries, needs_reference, online_need, row_kind, uses, weighted_losses
from align.recipe.schema import OnlinePreferenceRecipe, PreferenceRecipe
from align.recipe.validate.common import stops, stored_judgements
from align.recipe.validate.findings import Finding, unknown_name

AnyPreference = PreferenceRecipe | OnlinePreferenceRecipe


def preference_losses(recipe: AnyPreference) -> Iterator[Finding]:
    """Losses and knobs that exist, and that go together."""
    algorithm = recipe.algorithm
    if algorithm.losses and (algorithm.loss or algorithm.knobs):
        key = "algorithm.loss" if algorithm.loss else "algorithm.knobs"
        yield Finding(key=key, message=f"{key} and algorithm.losses exclude each other", fix="put everything into losses")
    asked = [(f"algorithm.losses.{number}.", one.loss, one.knobs) for number, one in enumerate(algorithm.losses)]
    for key, loss, knobs in asked or [("algorithm.", algorithm.loss or "dpo", algorithm.knobs)]:
        if loss not in PREFERENCE_NAMES:
            yield unknown_name(f"{key}loss", "preference loss", loss, PREFERENCE_NAMES)
        yield from _knobs(key, loss, knobs)
    names = [loss for _, loss, _ in asked]
    if len(set(names)) < len(names):
        yield Finding(key="algorithm.losses", message="a loss stands twice in algorithm.losses", fix="write each loss once")
    if len({entry.rows == "ranking" for entry in loss_entries(algorithm)}) > 1:
        message = "lipo_lambda is a loss of ranked lists and cannot be mixed with losses of pairs or judged completions"
        yield Finding(key="algorithm.losses", message=message, fix="train with one of them")


def _knobs(key: str, loss: str, knobs: Mapping[str, float]) -> Iterator[Finding]:
    known = PREFERENCE_TABLE[loss].knobs
    for knob, value in knobs.items():
        place = f"{key}knobs.{knob}"
        if knob not in known:
            unknown = unknown_name(place, f"knob of the loss {loss}", knob, known)
            yield unknown if known else Finding(key=place, message=unknown.message, fix=f"remove it: {loss} has no knobs")
        lowest = 0.0 if loss != "exo_pair" else 1e-9
        if knob == "label_smoothing" and not lowest <= value < 0.5:
            message = f"{place} = {value}: it is the share of labels that are wrong"
            yield Finding(key=place, message=message, fix="write a share below 0.5, such as 0.1 (for exo_pair above 0)")
        if knob == "anchor" and not 0 <= value <= 1:
            fix = "write a share from 0 (the last policy) to 1 (the reference), such as 0.33"
            yield Finding(key=place, message=f"{place} = {value} is no share", fix=fix)
        if knob == "tau" and value <= 0:
            yield Finding(key=place, message=f"{place} = {value} must be above 0", fix="write a temperature such as 0.05")


def idle_keys(recipe: AnyPreference) -> Iterator[Finding]:
    """What is written and would change nothing."""
    algorithm = recipe.algorithm
    if algorithm.margin_scale is not None and not any("margin_B" in entry.takes for entry in loss_entries(algorithm)):
        takers = ", ".join(name for name, entry in PREFERENCE_TABLE.items() if "margin_B" in entry.takes)
        message = "algorithm.margin_scale has no effect on this loss"
        yield Finding(key="algorithm.margin_scale", message=message, fix=f"remove it; margins are for {takers}")
    if not needs_reference(algorithm):
        idle = {"algorithm.reference": algorithm.reference}
        idle |= {"train.reference_cache": recipe.train.reference_cache} if isinstance(recipe, PreferenceRecipe) else {}
        for key in (key for key, value in idle.items() if value is not None):
            yield Finding(key=key, message=f"{key} has no effect: the loss has no reference", fix="remove it")


def stored_preferences(recipe: PreferenceRecipe) -> Iterator[Finding]:
    """Losses and data that need no sampling."""
    for one, entry in zip(weighted_losses(recipe.algorithm), loss_entries(recipe.algorithm), strict=True):
        if entry.online:
            message = f"{one.loss} needs samples that are drawn during training"
            yield Finding(key="algorithm", message=message, fix="add a section `online: {}`, with rollout, or take loss: dpo")
    yield from stored_judgements(recipe, "pairs", or_else=", or train with `online: {}` and rewards")


def online(recipe: OnlinePreferenceRecipe) -> Iterator[Finding]:
    """What is drawn, and who judges it."""
    yield from _judge(recipe)
    algorithm, section, size = recipe.algorithm, recipe.online, recipe.rollout.num_generations
    if is_judged(recipe) and size < 2:
        message = f"pairs are made of the samples of a prompt, and rollout.num_generations is {size}"
        yield Finding(key="rollout.num_generations", message=message, fix="write num_generations: 4 (at least 2)")
    if uses(algorithm, "xpo") and size % 2:
        message = f"xpo draws half of the samples from the reference, and rollout.num_generations is {size}"
        yield Finding(key="rollout.num_generations", message=message, fix=f"write num_generations: {size + 1}")
    if uses(algorithm, "xpo", "hypo") and section.pairs != "best_worst":
        message = f"online.pairs: {section.pairs} has no effect on {' and '.join(one.loss for one in weighted_losses(algorithm))}"
        yield Finding(key="online.pairs", message=message, fix="remove it: this loss makes pairs of its own")
    if not is_judged(recipe) and not uses(algorithm, "hypo") and algorithm.margin_scale is not None:
        message = "algorithm.margin_scale needs rewards that differ, and a demonstration is preferred without any"
        yield Finding(key="algorithm.margin_scale", message=message, fix="remove it, or let rewards judge the pairs")
    if not is_judged(recipe) and section.min_margin:
        yield Finding(key="online.min_margin", message="online.min_margin has no effect: nothing is judged", fix="remove it")
    if row_kind(algorithm) == "ranking" and (section.pairs != "best_worst" or section.min_margin):
        key = "online.min_margin" if section.min_margin else "online.pairs"
        yield Finding(key=key, message=f"{key} is for pairs, and the loss is one of ranked lists", fix="remove it")
    if algorithm.reference is not None:
        message = "online training compares with the policy as it starts, or as it was a round ago"
        yield Finding(key="algorithm.reference", message=message, fix="remove it, or train on stored pairs")
    if section.new_reference_every and not needs_reference(algorithm):
        message = "online.new_reference_every has no effect: the loss has no reference"
        yield Finding(key="online.new_reference_every", message=message, fix="remove it")
    if section.new_reference_every and recipe.model.lora is not None:
        message = "with adapters the reference is the model without them, which stands still"
        fix = "remove new_reference_every, or model.lora"
        yield Finding(key="online.new_reference_every", message=message, fix=fix)


def _judge(recipe: OnlinePreferenceRecipe) -> Iterator[Finding]:
    if is_judged(recipe) and not recipe.rewards:
        message = "the pairs are ranked by rewards, and the recipe names none"
        yield Finding(key="online", message=message, fix="write `rewards: [{use: math}]`, or online: {pairs: demonstrated}")
    if not is_judged(recipe) and recipe.rewards and recipe.evaluate is None:
        why = (
            "hypo learns from stored pairs" if online_need(recipe) == "comparison" else "the row's own completion wins every pair"
        )
        yield Finding(key="rewards", message=f"rewards have no effect: {why}", fix="remove them, or add evaluate")


def online_rollout(recipe: OnlinePreferenceRecipe) -> Iterator[Finding]:
    if recipe.rollout.temperature == 0:
        message = "temperature 0 draws the same completion every time: there is nothing to compare"
        yield Finding(key="rollout.temperature", message=message, fix="write temperature: 1.0")
    yield from stops("rollout.stop", recipe.rollout.stop)
