"""The numbers of a run, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from align.recipe.arithmetic import batch_arithmetic, largest_micro_batch, length_notes
from align.recipe.load import load_recipe
from align.recipe.schema import EvaluateRecipe, RLRecipe, SFTRecipe

Write = Callable[..., Path]
SFT = """\
recipe: sft
model: {path: gpt2}
data: {train: [{path: org/rows}], eval: [{task: chain_sum, seed: 1}]}
rewards: [{use: task}]
train: {steps: 30, sequences_per_step: 24, max_length: 100, micro_batch_tokens: 1000}
evaluate: {every: 10, num_generations: 4, k: [1], max_problems: 50, before: false}
"""


def test_reinforcement_learning(write: Write) -> None:
    overrides = [
        "train={steps: 10, prompts_per_step: 12, epochs: 2, minibatches: 3, micro_batch_tokens: 1000}",
        "rollout={num_generations: 4, max_completion_length: 150}",
        "data.max_prompt_length=50",
        "data.eval=[{task: chain_sum, seed: 1}]",
        "evaluate={every: 4, num_generations: 8}",
    ]
    recipe = load_recipe(write(), overrides).recipe
    assert isinstance(recipe, RLRecipe)
    assert {quantity.name: quantity.value for quantity in batch_arithmetic(recipe, {"train": 60, "eval": 7})} == {
        "completions a step": 48,
        "optimizer steps a step": 6,
        "optimizer steps": 60,
        "micro-batches an optimizer step, at most": 4,  # 16 sequences of at most 200 tokens, 5 at a time
        "tokens a step, at most": 48 * 200,
        "sampled tokens, at most": 48 * 150 * 10,
        "prompts drawn": 120,
        "passes over the data": 2.0,
        "samples an evaluation": 56,
        "evaluations": 4,  # before, after steps 4 and 8, after
    }


def test_more_is_sampled_than_trained_on(write: Write) -> None:
    overrides = [
        "train={steps: 10, prompts_per_step: 12, minibatches: 3, micro_batch_tokens: 1000}",
        "rollout={num_generations: 8, max_completion_length: 150}",
        "data.max_prompt_length=50",
        "algorithm={oversample: 1.3, train_on: {samples: 3}, demonstrations: {}}",
    ]
    recipe = load_recipe(write(), overrides).recipe
    assert isinstance(recipe, RLRecipe)
    found = {quantity.name: quantity.value for quantity in batch_arithmetic(recipe, {})}
    assert found["completions a step"] == 16 * 8  # 15.6 prompts are 16
    assert found["trained on"] == 12 * (3 + 1)
    assert found["tokens a step, at most"] == 48 * 200
    assert found["sampled tokens, at most"] == 128 * 150 * 10
    assert found["prompts drawn"] == 160
    assert largest_micro_batch(recipe) == (5, 200)


def test_the_steps_that_a_critic_learns_alone(write: Write) -> None:
    recipe = load_recipe(write(), ["algorithm={method: ppo, critic: {warmup_steps: 3}}"]).recipe
    found = {quantity.name: quantity for quantity in batch_arithmetic(recipe, {})}
    assert found["steps of the critic alone"].value == 3
    assert "the policy learns in 7" in found["steps of the critic alone"].how


def test_supervised_fine_tuning(write: Write) -> None:
    recipe = load_recipe(write(SFT)).recipe
    assert isinstance(recipe, SFTRecipe)
    assert {quantity.name: quantity.value for quantity in batch_arithmetic(recipe, {"train": 1440, "eval": 200})} == {
        "optimizer steps": 30,
        "micro-batches an optimizer step, at most": 3,
        "tokens a step, at most": 2400,
        "demonstrations drawn": 720,
        "passes over the data": 0.5,
        "samples an evaluation": 200,
        "evaluations": 3,  # after steps 10 and 20, and at the end
    }


def test_evaluation_alone(write: Write) -> None:
    text = "recipe: evaluate\nmodel: {path: gpt2}\ndata: {eval: [{task: chain_sum}]}\nrewards: [{use: task}]\n"
    recipe = load_recipe(write(text)).recipe
    assert isinstance(recipe, EvaluateRecipe)
    assert [(quantity.name, quantity.value) for quantity in batch_arithmetic(recipe, {"eval": 5})] == [
        ("samples an evaluation", 40)
    ]


def test_a_micro_batch_is_never_empty_nor_more_than_a_step(write: Write) -> None:
    for budget, rows in ((50, 1), (250, 2), (10_000, 24)):
        recipe = load_recipe(write(SFT), [f"train.micro_batch_tokens={budget}"]).recipe
        assert isinstance(recipe, SFTRecipe)
        assert largest_micro_batch(recipe) == (rows, 100)


def test_notes_on_lengths(write: Write) -> None:
    recipe = load_recipe(write(SFT), ["train.micro_batch_tokens=50", "data.max_prompt_length=20"]).recipe
    assert len(list(length_notes(recipe, positions=200))) == 2  # evaluation: 20 + 256 tokens
    assert len(list(length_notes(recipe, positions=276))) == 1
    recipe = load_recipe(write(SFT), ["data.max_prompt_length=20"]).recipe
    assert list(length_notes(recipe, positions=None)) == []
