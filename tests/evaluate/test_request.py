from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.errors import CheckpointError, DataError, RecipeError
from align.evaluate.request import evaluation_request, evaluation_settings
from align.recipe.schema import EvaluateRecipe

TRAINING = """
recipe: rl
seed: 11
model:
  init: {model_type: llama, config: {hidden_size: 64}}
data:
  train: [{path: not_here.jsonl}]
  eval: [{task: chain_sum, size: 20, seed: 1}]
  max_prompt_length: 99
rollout: {max_completion_length: 48, stop: [END], stop_token_ids: [5]}
rewards: [{use: exact, weight: 2.0}]
evaluate: {num_generations: 6, k: [1, 3]}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    path.write_text('{"question": "1+1", "answer": "2"}\n')
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(TRAINING)
    return path


def settings(**flags: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {"data": (), "rewards": (), "columns": {}, "k": ()}
    unset = dict.fromkeys(["model", "limit", "num_generations", "temperature", "max_completion_length", "seed"])
    return evaluation_settings(**{**unset, **nothing, **flags})


def test_flags_alone_make_a_recipe(model: Path, problems: Path) -> None:
    flags = settings(
        model=model,
        data=[str(problems), "task:countdown"],
        rewards=["math", "format.boxed"],
        columns={"prompt": "question"},
        limit=5,
        num_generations=4,
        temperature=0.5,
        seed=3,
    )
    made = evaluation_request(None, (), flags).recipe
    assert isinstance(made, EvaluateRecipe)
    assert made.model.path == str(model)
    first, second = made.data.eval
    assert (first.path, first.columns, first.limit) == (str(problems), {"prompt": "question"}, 5)
    assert (second.task, second.size) == ("countdown", 5)
    assert [reward.use for reward in made.rewards] == ["math", "format.boxed"]
    assert (made.evaluate.num_generations, made.evaluate.k, made.evaluate.temperature, made.seed) == (4, [1, 4], 0.5, 3)
    assert made.output_dir is None  # nothing is written unless asked for


def test_greedy_means_one_sample(model: Path) -> None:
    made = evaluation_request(None, (), settings(model=model, data=["task:countdown"], rewards=["task"], temperature=0.0)).recipe
    assert (made.evaluate.num_generations, made.evaluate.k, made.evaluate.temperature) == (1, [1], 0.0)


def test_a_training_recipe_lends_its_evaluation(recipe: Path, model: Path) -> None:
    made = evaluation_request(recipe, ["evaluate.num_generations=9"], settings(model=model)).recipe
    assert (made.model.path, made.model.init) == (str(model), None)
    assert (made.seed, made.data.max_prompt_length, made.data.eval[0].task) == (11, 99, "chain_sum")
    assert (made.evaluate.num_generations, made.evaluate.k) == (9, [1, 3])
    ends = (made.evaluate.max_completion_length, made.evaluate.stop, made.evaluate.stop_token_ids)
    assert ends == (48, ["END"], [5])  # as in the rollouts it was trained with
    assert made.rewards[0].weight == 2.0
    assert made.output_dir is None  # the training's directory is not the evaluation's


def test_flags_win_over_the_recipe(recipe: Path, model: Path, problems: Path) -> None:
    flags = settings(model=model, data=[str(problems)], rewards=["math"], num_generations=2, k=[2])
    made = evaluation_request(recipe, (), flags).recipe
    assert evaluation_request(recipe, (), settings(model=model, limit=7)).recipe.evaluate.max_problems == 7
    assert made.data.eval[0].path == str(problems)
    assert [reward.use for reward in made.rewards] == ["math"]
    assert (made.evaluate.num_generations, made.evaluate.k) == (2, [2])


def test_stops_of_the_evaluation_win_over_those_of_the_rollouts(recipe: Path, model: Path) -> None:
    made = evaluation_request(recipe, ["evaluate.stop=[]", "evaluate.stop_token_ids=[6]"], settings(model=model)).recipe
    assert (made.evaluate.stop, made.evaluate.stop_token_ids) == ([], [6])


def test_an_evaluate_recipe_keeps_its_output_dir(tmp_path: Path, model: Path, problems: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"recipe: evaluate\noutput_dir: results\nmodel: {{path: {model}}}\n"
        f"data: {{eval: [{{path: {problems}}}]}}\nrewards: [{{use: math}}]\n"
    )
    assert evaluation_request(path, (), {}).recipe.output_dir == "results"


def test_untrained_weights_are_refused(recipe: Path) -> None:
    with pytest.raises(RecipeError, match="untrained") as caught:
        evaluation_request(recipe, (), {})
    assert "--model runs/recipe" in str(caught.value.fix)
    assert "recipe.yaml:5" in str(caught.value.place)


def test_missing_files_of_the_evaluation_are_refused(recipe: Path, model: Path) -> None:
    with pytest.raises(DataError, match=r"data\.eval\.0\.path.*nowhere\.jsonl"):
        evaluation_request(recipe, (), settings(model=model, data=["./nowhere.jsonl"]))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"data": ["task:countdown"], "rewards": ["task"]}, "needs --model"),
        ({"model": "some/model"}, "needs --data, --reward"),
        ({"model": "some/model", "columns": {"answer": "solution"}}, "missing"),
        ({"model": "some/model", "data": ["task:countdown@x"], "rewards": ["task"]}, "the seed 'x' is not a whole number"),
        ({"model": "some/model", "data": ["task:countdwn"], "rewards": ["task"]}, "countdwn"),
        ({"model": "some/model", "data": ["task:countdown"], "rewards": ["maths"]}, "maths"),
        ({"model": "some/model", "data": ["task:countdown"], "rewards": ["task"], "num_generations": 2, "k": [3]}, "k = 3"),
    ],
)
def test_bad_flags_are_refused_with_a_fix(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        evaluation_request(None, (), settings(**flags))
    assert caught.value.fix


@pytest.mark.parametrize(("name", "seed"), [("task:countdown", 1), ("task:countdown@7", 7), ("task:countdown@0", 0)])
def test_generated_problems_are_not_those_of_the_training_unless_asked_for(model: Path, name: str, seed: int) -> None:
    (source,) = evaluation_request(None, (), settings(model=model, data=[name], rewards=["task"])).recipe.data.eval
    assert (source.task, source.seed) == ("countdown", seed)


def test_the_place_of_a_key_is_known_after_the_recipe_was_cut_down(recipe: Path, model: Path) -> None:
    request = evaluation_request(recipe, (), settings(model=model))
    assert request.place("rewards.0.use").endswith("recipe.yaml:11")
    assert request.place("model.path") == "command line"


def test_overrides_need_a_recipe() -> None:
    with pytest.raises(RecipeError, match=r"evaluate\.k=\[1\]"):
        evaluation_request(None, ["evaluate.k=[1]"], settings(model="some/model", data=["task:countdown"], rewards=["task"]))


def test_a_run_directory_means_its_last_checkpoint(tmp_path: Path) -> None:
    from align.learner.checkpoint import write_checkpoint

    def write(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps({}))

    run = tmp_path / "run"
    for step in (3, 7):
        write_checkpoint(run / "checkpoints", step, write, keep=2)
    assert settings(model=run)["model.path"] == str(run / "checkpoints" / "step-000007")
    with pytest.raises(CheckpointError, match="no model"):
        settings(model=tmp_path)
