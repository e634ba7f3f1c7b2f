"""What a recipe's numbers multiply to: sequences, optimizer steps, tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from align.recipe.evaluation import evaluation_sampling
from align.recipe.schema import (
    EvaluateRecipe,
    Evaluation,
    OnlinePreferenceRecipe,
    PreferenceRecipe,
    Recipe,
    RewardModelRecipe,
    RLRecipe,
    SFTRecipe,
    TrainRecipe,
)
from align.recipe.validate import longest_sequence

SEQUENCES_OF_A_ROW = 2  # of a pair; what a list has is not known before the data is read


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A number of the run, and how it comes about."""

    name: str
    value: float
    how: str


def batch_arithmetic(recipe: Recipe, rows: Mapping[str, int]) -> list[Quantity]:
    """The quantities of a run; `rows` are the usable rows of "train" and "eval", where they are known."""
    if isinstance(recipe, RLRecipe | OnlinePreferenceRecipe):
        return [*_rl(recipe, rows), *_evaluation(recipe, rows)]
    if isinstance(recipe, RewardModelRecipe | PreferenceRecipe):
        return list(_stored(recipe, rows))
    if isinstance(recipe, SFTRecipe):
        return [*_sft(recipe, rows), *_evaluation(recipe, rows)]
    return list(_evaluation(recipe, rows))


def largest_micro_batch(recipe: TrainRecipe) -> tuple[int, int]:
    """(sequences, tokens of each) of a rank's micro-batch of the longest sequences; one above the budget stands alone."""
    if isinstance(recipe, SFTRecipe):
        sequences, longest = recipe.train.sequences_per_step, recipe.train.max_length
    elif isinstance(recipe, RewardModelRecipe | PreferenceRecipe):
        sequences, longest = SEQUENCES_OF_A_ROW * recipe.train.rows_per_step, recipe.train.max_length
    else:
        sequences = recipe.train.prompts_per_step * _trained_samples(recipe) // recipe.train.minibatches
        longest = recipe.data.max_prompt_length + recipe.rollout.max_completion_length
    return min(-(-sequences // recipe.launch.learners), max(1, recipe.train.micro_batch_tokens // longest)), longest


def _rl(recipe: RLRecipe | OnlinePreferenceRecipe, rows: Mapping[str, int]) -> Iterator[Quantity]:
    train, samples = recipe.train, recipe.rollout.num_generations
    prompts, trained = train.prompts_per_step, _trained_samples(recipe)
    drawn, sequences = math.ceil(prompts * _oversampling(recipe)), prompts * trained
    prompt, completion = recipe.data.max_prompt_length, recipe.rollout.max_completion_length
    yield Quantity(name="completions a step", value=drawn * samples, how=f"{drawn} prompts x {samples} generations")
    if sequences != drawn * samples:
        yield Quantity(name="trained on", value=sequences, how=f"{prompts} prompts x {trained} completions")
    updates = train.epochs * train.minibatches
    how = f"{train.epochs} epochs x {train.minibatches} mini-batches of {sequences // train.minibatches} completions"
    yield Quantity(name="optimizer steps a step", value=updates, how=how)
    yield Quantity(name="optimizer steps", value=updates * train.steps, how=f"{updates} x {train.steps} steps")
    critic = recipe.algorithm.critic if isinstance(recipe, RLRecipe) else None
    if critic is not None and (alone := critic.warmup_steps):
        how = f"the first of {train.steps}; the policy learns in {train.steps - alone}"
        yield Quantity(name="steps of the critic alone", value=alone, how=how)
    yield _micro_batches(recipe, sequences // train.minibatches)
    how = f"{sequences} x ({prompt} prompt + {completion} completion)"
    yield Quantity(name="tokens a step, at most", value=sequences * (prompt + completion), how=how)
    how = f"{drawn * samples} x {completion} x {train.steps} steps"
    yield Quantity(name="sampled tokens, at most", value=drawn * samples * completion * train.steps, how=how)
    yield from _passes("prompts", drawn * train.steps, f"{drawn} x {train.steps} steps", rows.get("train"))


def _trained_samples(recipe: RLRecipe | OnlinePreferenceRecipe) -> int:
    """Completions of a prompt that are trained on: those that were drawn, some of them, or a demonstration more."""
    if not isinstance(recipe, RLRecipe):
        return recipe.rollout.num_generations
    chosen = recipe.algorithm.train_on
    return (chosen.samples if chosen else recipe.rollout.num_generations) + (recipe.algorithm.demonstrations is not None)


def _oversampling(recipe: RLRecipe | OnlinePreferenceRecipe) -> float:
    return (recipe.algorithm.oversample or 1.0) if isinstance(recipe, RLRecipe) else 1.0


def _sft(recipe: SFTRecipe, rows: Mapping[str, int]) -> Iterator[Quantity]:
    train = recipe.train
    yield Quantity(name="optimizer steps", value=train.steps, how="one a step")
    yield _micro_batches(recipe, train.sequences_per_step)
    how = f"{train.sequences_per_step} x {train.max_length}"
    yield Quantity(name="tokens a step, at most", value=train.sequences_per_step * train.max_length, how=how)
    drawn, how = train.sequences_per_step * train.steps, f"{train.sequences_per_step} x {train.steps} steps"
    yield from _passes("demonstrations", drawn, how, rows.get("train"))


def _stored(recipe: RewardModelRecipe | PreferenceRecipe, rows: Mapping[str, int]) -> Iterator[Quantity]:
    train = recipe.train
    sequences = SEQUENCES_OF_A_ROW * train.rows_per_step
    yield Quantity(name="optimizer steps", value=train.steps, how="one a step")
    yield _micro_batches(recipe, sequences)
    how = f"{train.rows_per_step} rows x {SEQUENCES_OF_A_ROW} completions x {train.max_length}, if rows are pairs"
    yield Quantity(name="tokens a step, at most", value=sequences * train.max_length, how=how)
    drawn, how = train.rows_per_step * train.steps, f"{train.rows_per_step} x {train.steps} steps"
    yield from _passes("rows", drawn, how, rows.get("train"))
    if recipe.evaluate is not None and "eval" in rows:
        how = "all of data.eval" if recipe.evaluate.max_rows is None else f"at most {recipe.evaluate.max_rows}"
        yield Quantity(name="rows an evaluation", value=min(rows["eval"], recipe.evaluate.max_rows or rows["eval"]), how=how)


def _micro_batches(recipe: TrainRecipe, sequences: int) -> Quantity:
    rows, longest = largest_micro_batch(recipe)
    ranks = recipe.launch.learners
    how = f"{sequences} sequences{f' on {ranks} ranks' if ranks > 1 else ''}, {rows} of {longest} tokens at a time"
    return Quantity(
        name="micro-batches an optimizer step, at most", value=math.ceil(math.ceil(sequences / ranks) / rows), how=how
    )


def _passes(what: str, drawn: int, how: str, rows: int | None) -> Iterator[Quantity]:
    yield Quantity(name=f"{what} drawn", value=drawn, how=how)
    if rows:
        yield Quantity(name="passes over the data", value=drawn / rows, how=f"{drawn} of {rows} rows")


def _evaluation(recipe: Recipe, rows: Mapping[str, int]) -> Iterator[Quantity]:
    evaluation, problems = recipe.evaluate, rows.get("eval")
    if not isinstance(evaluation, Evaluation) or problems is None:
        return
    problems = min(problems, evaluation.max_problems or problems)
    samples = problems * evaluation.num_generations
    longest = evaluation_sampling(recipe, evaluation).max_tokens
    how = f"{problems} problems x {evaluation.num_generations} generations, each up to {longest} tokens"
    yield Quantity(name="samples an evaluation", value=samples, how=how)
    if not isinstance(recipe, EvaluateRecipe):
        between = max(0, -(-recipe.train.steps // evaluation.every) - 1) if evaluation.every else 0
        count = evaluation.before + between + evaluation.after
        yield Quantity(
            name="evaluations", value=count, how=f"{evaluation.before:d} before, {between} between, {evaluation.after:d} after"
        )


def expected_tokens(recipe: TrainRecipe, lengths: Sequence[int]) -> Iterator[Quantity]:
    """Tokens of a step if rows are as long as those that were looked at, `lengths`; completions to come as long as they may."""
    if not lengths:
        return
    mean = fmean(lengths)
    if isinstance(recipe, RLRecipe | OnlinePreferenceRecipe):
        sequences, longest = recipe.train.prompts_per_step * _trained_samples(recipe), recipe.rollout.max_completion_length
        how = f"{sequences} x ({mean:.0f} prompt, the mean of those looked at + at most {longest} completion)"
        yield Quantity(name="tokens a step, expected", value=round(sequences * (mean + longest)), how=how)
        return
    one = isinstance(recipe, SFTRecipe)
    sequences = recipe.train.sequences_per_step if isinstance(recipe, SFTRecipe) else recipe.train.rows_per_step
    what = "sequences" if one else "rows, with all their completions"
    how = f"{sequences} {what}, x {mean:.0f}, the mean of those looked at"
    yield Quantity(name="tokens a step, expected", value=round(sequences * mean), how=how)


def work_of_a_step(recipe: TrainRecipe, parameters: int, tokens: float) -> Iterator[Quantity]:
    """PFLOP of a step with so many tokens: 2 FLOP a parameter and token forward, 4 backward (Kaplan et al. 2020, section 2.1).

    Attention itself, a few per cent at these lengths, is left out.
    """
    passes = 8 if recipe.train.gradient_checkpointing else 6
    epochs = 1
    if isinstance(recipe, RLRecipe | OnlinePreferenceRecipe):
        epochs = recipe.train.epochs
        how = f"2 x {parameters:,} parameters x {tokens:,.0f} tokens"
        yield Quantity(name="PFLOP of sampling a step", value=2 * parameters * tokens / 1e15, how=how)
    again = ", forward twice for gradient checkpointing" if passes == 8 else ""
    how = f"{passes} x {parameters:,} parameters x {tokens:,.0f} tokens{f' x {epochs} epochs' if epochs > 1 else ''}{again}"
    yield Quantity(name="PFLOP of training a step", value=passes * parameters * tokens * epochs / 1e15, how=how)


def length_notes(recipe: Recipe, positions: int | None) -> Iterator[str]:
    """What to know of the longest sequences; `positions` is the model's max_position_embeddings."""
    longest = longest_sequence(recipe)
    if not isinstance(recipe, EvaluateRecipe) and longest > recipe.train.micro_batch_tokens:
        yield f"a sequence of {longest} tokens is larger than train.micro_batch_tokens and will go through the model alone"
    if positions is not None and longest > positions:
        yield f"sequences may get {longest} tokens long, but the model has {positions} positions: lower the length limits"


def unmet_rows(recipe: TrainRecipe, rows: int) -> Iterator[str]:
    """A note where an ordered run ends before it has met all of its `rows`: a part of the difficulties is then never seen."""
    asked = recipe.data.curriculum
    if asked is None or asked.order == "shuffled":
        return
    if isinstance(recipe, SFTRecipe):
        drawn = recipe.train.sequences_per_step * recipe.train.steps
    elif isinstance(recipe, RLRecipe | OnlinePreferenceRecipe):
        drawn = math.ceil(_oversampling(recipe) * recipe.train.prompts_per_step) * recipe.train.steps
    else:
        return
    if drawn < rows:
        yield (
            f"data.curriculum: {recipe.train.steps} steps draw {drawn} of {rows} rows, in the order {asked.order}: the others "
            "are never met; take more steps, fewer rows, or a band without an order"
        )
