"""What fits together and what does not, beyond the types of single keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from align.algorithms.methods import KL, METHODS
from align.algorithms.names import METHOD_ADVANTAGES, METHOD_NAMES
from align.errors import CheckpointError, RecipeError
from align.recipe.files import looks_like_path
from align.recipe.load import load_recipe
from align.recipe.method import recipe_method, with_vocabulary
from align.recipe.validate import UNGROUPED, longest_sequence

Write = Callable[..., Path]
EVAL = "data.eval=[{task: chain_sum, seed: 1, size: 8}]"


@pytest.mark.parametrize(
    "overrides",
    [
        ["rollout.num_generations=1", "algorithm.method=reinforce"],
        ["rollout.num_generations=1", "algorithm.method=reinforce++"],
        ["rollout.num_generations=1", "algorithm.method=ppo"],
        ["rollout.num_generations=1", "algorithm.method=remax"],
        ["rollout.num_generations=1", "algorithm.method=expert_iteration"],
        ["rollout.num_generations=1", "algorithm={method: raft, choose: correct, threshold: 0.5}"],
        ["rollout.num_generations=1", "algorithm={method: grpo, demonstrations: {}}"],
        ["rollout.num_generations=1", "algorithm={method: grpo, advantage: remax}"],
        ["algorithm={method: grpo, train_on: {samples: 4, by: random}}"],
        ["algorithm={method: pass@k, pass_k: 2}"],
        ["algorithm={method: distill, teacher: {path: org/name}}"],
        ["algorithm={method: grpo, advantage: min_form, baseline: leave_one_out}"],
        ["algorithm={macro_actions: {by: sentence}, entropy_target: 0.3, entropy_increment: 0.01}"],
        ["algorithm={reference: {every: 10, mix: 0.5}, oversample: 1.25}"],
        ["algorithm.method=dapo"],
        ["algorithm.method=dapo", "algorithm.dynamic_sampling=false"],
        ["algorithm.epsilon_high=.inf"],
        ["train.prompts_per_step=12", "train.minibatches=4"],
        ["train.warmup_steps=10"],
        ["train.warmup_steps=64", "train.epochs=2", "train.minibatches=4", "train.steps=8"],
        ["model={path: org/name, lora: {}, attn_implementation: org/flash-attn, dtype: bfloat16}"],
        ["rollout.num_generations=2", "algorithm.method=rloo"],
        [EVAL, "evaluate={}"],
        [EVAL, "evaluate={temperature: 0, num_generations: 1, k: [1]}"],
        ["rewards=[{use: task}, {use: task, name: again, weight: 0}]"],
        ["rewards=[{use: math}]"],
        ["algorithm={overlong: {buffer: 32}}"],
        ["data.train.0.params={terms: 3}"],
        ["seed=4294967295"],
    ],
)
def test_what_is_accepted(write: Write, overrides: list[str]) -> None:
    assert load_recipe(write(), overrides).recipe.recipe == "rl"


def test_the_methods_that_do_without_groups() -> None:
    """The list in validate mirrors the registry, which it may not import."""
    ungrouped = {name for name, method in METHODS.items() if method.advantage == "group" and method.baseline == "none"}
    assert ungrouped == set(UNGROUPED)
    assert [name for name, method in METHODS.items() if method.dynamic_sampling] == ["dapo"]


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_every_method_resolves_from_a_recipe(write: Write, name: str) -> None:
    needed = ["algorithm.teacher={path: org/name}"] if METHODS[name].teacher_coefficient else []
    assert recipe_method(load_recipe(write(), [f"algorithm.method={name}", *needed])) == METHODS[name]


def test_what_validation_knows_of_methods_is_true() -> None:
    """It may not import torch, and so not look at the methods themselves."""
    for method in METHODS.values():
        assert method.advantage == METHOD_ADVANTAGES[method.name]
    assert METHODS["expert_iteration"].choose == "correct"
    assert {method.choose for method in METHODS.values()} - {"correct"} == {"best"}
    assert [name for name, method in METHODS.items() if method.choose == "correct"] == ["expert_iteration"]
    assert {method.pass_k for method in METHODS.values()} == {4}


def test_what_a_recipe_chooses_for_the_loop_is_no_piece_of_the_method(write: Write) -> None:
    loop = "algorithm={method: grpo, train_on: {samples: 2}, oversample: 1.5}"
    assert recipe_method(load_recipe(write(), [loop])) == METHODS["grpo"]
    taught = recipe_method(load_recipe(write(), ["algorithm={method: grpo, teacher: {path: org/name, coefficient: 0.25}}"]))
    assert taught == replace(METHODS["grpo"], teacher_coefficient=0.25)
    assert recipe_method(load_recipe(write(), ["algorithm.teacher={path: org/name}"])).teacher_coefficient == 1.0


def test_the_vocabulary_is_the_models(write: Write) -> None:
    class Config:
        vocab_size = 77

        def get_text_config(self) -> Config:
            return self

    method = recipe_method(load_recipe(write(), ["algorithm.demonstrations={mode: mixture}"]))
    found = with_vocabulary(method, SimpleNamespace(config=Config())).demonstrations
    assert found is not None
    assert found.vocabulary == 77
    assert with_vocabulary(METHODS["grpo"], None) == METHODS["grpo"]


def test_what_a_recipe_leaves_out_is_the_methods_own(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(
        METHODS["reinforce++"], gamma=0.9, entropy_coefficient=0.1, max_resamples=3, mask_truncated=True,
        kl=KL(beta=0.1, target=0.5, horizon=77),
    )  # fmt: skip
    monkeypatch.setitem(METHODS, "reinforce++", own)
    assert recipe_method(load_recipe(write(), ["algorithm.method=reinforce++"])) == own
    changes = ["algorithm.gamma=1.0", "algorithm.entropy_coefficient=0.0", "algorithm.mask_truncated=false"]
    changed = recipe_method(load_recipe(write(), ["algorithm.method=reinforce++", *changes]))
    assert changed == replace(own, gamma=1.0, entropy_coefficient=0.0, mask_truncated=False)


def test_pieces_that_do_not_fit_are_refused_with_the_line(write: Write) -> None:
    resolved = load_recipe(write(), ["algorithm={method: dr_grpo, kl: k1}"])
    with pytest.raises(RecipeError, match="command line: method dr_grpo: kl is given, but the method has no KL term") as error:
        recipe_method(resolved)
    assert error.value.fix


@pytest.mark.parametrize(
    "pieces", ["reinforce, advantage: opo", "ppo, advantage: group", "reinforce, loss: rebel", "reinforce++_baseline"]
)
def test_what_compares_samples_needs_several(write: Write, pieces: str) -> None:
    with pytest.raises(RecipeError, match="compares the samples of a prompt"):
        load_recipe(write(), ["rollout.num_generations=1", f"algorithm={{method: {pieces}}}"])


def test_the_reference_of_adapters_cannot_move(write: Write) -> None:
    with pytest.raises(RecipeError, match="the reference of LoRA adapters is the model without them") as error:
        load_recipe(write(), ["model={path: org/name, lora: {}}", "algorithm.reference={every: 2}"])
    assert "model.lora" in str(error.value.fix)


@pytest.mark.parametrize(
    ("settings", "there", "message", "fix"),
    [
        ("{zero_stage: 2}", False, "needs DeepSpeed, which is not installed", "pip install 'align[deepspeed]'"),
        ("{offload_optimizer: true}", True, "zero_stage 0 goes without it", "write zero_stage: 1, 2 or 3 too"),
        ("{zero_stage: 4}", True, "less than or equal to 3", ""),
    ],
)
def test_what_is_sharded_needs_deepspeed(
    write: Write, monkeypatch: pytest.MonkeyPatch, settings: str, there: bool, message: str, fix: str
) -> None:
    monkeypatch.setattr("align.recipe.validate.common.installed", lambda *packages: there)
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(write(), [f"train={settings}"])
    assert fix in str(error.value.fix)
    monkeypatch.setattr("align.recipe.validate.common.installed", lambda *packages: True)
    train = load_recipe(write(), ["train={zero_stage: 3, offload_optimizer: true}"]).recipe.train  # type: ignore[union-attr]
    assert (train.zero_stage, train.offload_optimizer) == (3, True)


def test_lengths(write: Write) -> None:
    recipe = load_recipe(write(), ["data.max_prompt_length=100"]).recipe
    assert longest_sequence(recipe) == 132
    recipe = load_recipe(write(), ["data.max_prompt_length=100", EVAL, "evaluate.max_completion_length=50"]).recipe
    assert longest_sequence(recipe) == 150
    sft = "recipe: sft\nmodel: {path: gpt2}\ndata: {train: [{path: a/b}]}\ntrain: {max_length: 77}\n"
    assert longest_sequence(load_recipe(write(sft)).recipe) == 77


@pytest.mark.parametrize(
    "name", ["./a", "../a", "/a", "~/a", "a/b/c", "x.jsonl", "x.jsonl.gz", "a/x.csv", ".", "x.parquet", "x.json"]
)
def test_paths(name: str) -> None:
    assert looks_like_path(name)


@pytest.mark.parametrize("name", ["gpt2", "openai/gsm8k", "Qwen/Qwen2.5-0.5B-Instruct", "a.b/c.d"])
def test_hub_ids(name: str) -> None:
    assert not looks_like_path(name)


def test_files_that_are_there_are_accepted(write: Write) -> None:
    write('{"prompt": "1+1", "answer": "2"}\n', "rows.jsonl")
    write("{}", "model/config.json")
    write("def mine(completions, **kwargs):\n    return [1.0 for _ in completions]\n", "judge.py")
    overrides = ["model={path: model}", "data.train=[{path: rows.jsonl}]", "rewards=[{use: 'judge.py:mine'}, {use: json.dumps}]"]
    assert load_recipe(write(), overrides).recipe.model.path == "model"


def test_files_can_be_left_unchecked(write: Write) -> None:
    overrides = ["model={path: ./later}", "data.train=[{path: later.jsonl}]", "rewards.0.use=math"]
    with pytest.raises(CheckpointError, match="no model folder later"):
        load_recipe(write(), overrides)
    assert load_recipe(write(), overrides, check_files=False).recipe.model.path == "./later"


def test_xpo_with_adapters_needs_whole_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("align.recipe.validate.common.installed", lambda *packages: True)
    with pytest.raises(RecipeError, match="xpo samples from the policy without its adapters"):
        load_recipe("preference/xpo", ["model.lora={r: 4}", "train.zero_stage=3"])
