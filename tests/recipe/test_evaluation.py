"""How an evaluation samples where its recipe leaves something open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from align.recipe.evaluation import EvaluationSampling, evaluation_sampling
from align.recipe.load import load_recipe
from align.recipe.schema import RLRecipe, SFTRecipe

Write = Callable[..., Path]
ROLLOUT = ["rollout={max_completion_length: 48, stop: [END], stop_token_ids: [7]}", "data.eval=[{task: chain_sum, seed: 1}]"]
SFT = "recipe: sft\nmodel: {path: gpt2}\ndata: {train: [{path: a/b}], eval: [{path: a/c}]}\nrewards: [{use: math}]\n"


@pytest.mark.parametrize(
    ("evaluate", "wanted"),
    [
        ("{}", (48, ("END",), (7,))),
        ("{max_completion_length: 9}", (9, ("END",), (7,))),
        ("{stop: [STOP, HALT]}", (48, ("STOP", "HALT"), (7,))),
        ("{stop: [], stop_token_ids: []}", (48, (), ())),  # none is not the same as nothing said
    ],
)
def test_an_evaluation_ends_its_completions_as_the_rollouts_do(write: Write, evaluate: str, wanted: tuple) -> None:
    recipe = load_recipe(write(), [*ROLLOUT, f"evaluate={evaluate}"]).recipe
    assert isinstance(recipe, RLRecipe)
    length, stop, stop_token_ids = wanted
    expected = EvaluationSampling(max_tokens=length, stop=stop, stop_token_ids=stop_token_ids)
    assert evaluation_sampling(recipe, recipe.evaluate) == expected


def test_without_rollouts(write: Write) -> None:
    recipe = load_recipe(write(SFT), ["evaluate={}"]).recipe
    assert isinstance(recipe, SFTRecipe)
    assert evaluation_sampling(recipe, recipe.evaluate) == EvaluationSampling(max_tokens=256, stop=(), stop_token_ids=())
    recipe = load_recipe(write(SFT), ["evaluate={max_completion_length: 5, stop: [x], stop_token_ids: [1]}"]).recipe
    assert isinstance(recipe, SFTRecipe)
    assert evaluation_sampling(recipe, recipe.evaluate) == EvaluationSampling(max_tokens=5, stop=("x",), stop_token_ids=(1,))
    assert evaluation_sampling(recipe, None).max_tokens == 256
