"""PPO, whole: the critic learns, is saved, resumed and used again; settings that make no sense are refused."""

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForTokenClassification

import align
from align.errors import AlignError, CheckpointError, Preempted, RecipeError
from align.learner.fresh import build_model, train_tokenizer
from align.loops import rl
from align.loops.preflight import preflight
from align.recipe.load import load_recipe
from align.recipe.schema import ModelInit, RLRecipe
from tests.loops.conftest import MODEL, PROBLEMS, RL

CRITICS: dict[str, dict[str, Any]] = {
    "separate": {"learning_rate": 3e-3},
    "alone": {"learning_rate": 3e-3, "warmup_steps": 2},
    "shared": {"trunk": "shared", "learning_rate": 3e-3, "warmup_steps": 1},
}
THEIRS = (
    "objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward", "objective/scores",
    "policy/approxkl_avg", "policy/clipfrac_avg", "policy/entropy_avg", "loss/policy_avg", "loss/value_avg", "val/clipfrac_avg",
    "val/ratio", "eps", "lr", "episode",
)  # fmt: skip


def run_of(recipe) -> Path:
    return Path(recipe.recipe.output_dir)


def rows_of(recipe) -> list[dict]:
    return [json.loads(line) for line in (run_of(recipe) / "metrics.jsonl").read_text().splitlines()]


def timeless_rows(recipe) -> list[dict]:
    clocks = ("time", "elapsed", "second", "eps")
    return [{key: value for key, value in row.items() if not any(word in key for word in clocks)} for row in rows_of(recipe)]


def ppo(resolved, critic=None, **changes):
    """A tiny PPO recipe; `algorithm` may change more of the method."""
    algorithm = {"method": "ppo", "critic": critic or {}, **changes.pop("algorithm", {})}
    train = {"steps": 3, "minibatches": 3, "epochs": 2, **changes.pop("train", {})}
    return resolved(RL, algorithm=algorithm, train=train, **changes)


def weights_of(recipe, step: int) -> dict[str, torch.Tensor]:
    folder = run_of(recipe) / "checkpoints" / f"step-{step:06d}"
    found: dict[str, torch.Tensor] = {}
    for part in ("", "critic"):
        found |= {f"{part}/{name}": weight for name, weight in load_file(folder / part / "model.safetensors").items()}
    return found


@pytest.fixture
def base(tmp_path):
    """A stored model with its tokenizer."""
    init = ModelInit(**MODEL["init"])
    tokenizer = train_tokenizer(init.tokenizer, ["1+2=3 so 3"])
    build_model(init, tokenizer, 0).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("kind", CRITICS)
def test_it_runs_and_reports_under_trls_names(resolved, kind):
    recipe = ppo(resolved, CRITICS[kind])
    assert rl.train(recipe)["status"] == "done"
    row = rows_of(recipe)[-1]
    for key in (*THEIRS, "explained_variance", "critic/loss", "critic/value_mean", "critic/return_mean", "kl", "beta"):
        assert math.isfinite(row[key]), key
    assert row["episode"] == 3 * 12
    assert row["objective/rlhf_reward"] == pytest.approx(row["objective/scores"] - 0.05 * row["objective/kl"], abs=1e-6)


def test_a_critic_that_learns_alone_leaves_the_policy_where_it_was(resolved, tmp_path):
    for kind in ("alone", "shared"):
        train = {"save_steps": 1, "save_total_limit": 9}
        recipe = ppo(resolved, CRITICS[kind] | {"warmup_steps": 2}, train=train, output_dir=str(tmp_path / kind))
        rl.train(recipe)
        first, second, third = (weights_of(recipe, step) for step in (1, 2, 3))
        policy = [name for name in first if name.startswith("/")]
        head = [name for name in first if name.startswith("critic/score")]
        assert all(torch.equal(first[name], second[name]) for name in policy)
        assert not all(torch.equal(second[name], third[name]) for name in policy)
        assert not any(torch.equal(first[name], second[name]) for name in head)
        assert "loss/policy_avg" not in rows_of(recipe)[1]


def test_the_saved_critic_is_a_token_classifier_with_the_policys_layers_where_they_are_shared(resolved):
    recipe = ppo(resolved, CRITICS["shared"])
    rl.train(recipe)
    folder = run_of(recipe) / "checkpoints" / "step-000003"
    critic = AutoModelForTokenClassification.from_pretrained(folder / "critic")
    assert critic(torch.arange(5)[None]).logits.shape == (1, 5, 1)
    policy = load_file(folder / "model.safetensors")
    assert torch.equal(critic.model.norm.weight, policy["model.norm.weight"])
    assert float(critic.score.weight.detach().abs().sum()) > 0


@pytest.mark.parametrize("kind", ["alone", "shared"])
def test_a_stopped_run_resumes_bit_for_bit(resolved, monkeypatch, tmp_path, kind):
    def recipe(name):
        algorithm = {"kl_target": 0.05, "kl_horizon": 40}
        return ppo(resolved, CRITICS[kind], algorithm=algorithm, train={"steps": 4}, output_dir=str(tmp_path / name))

    rl.train(recipe("whole"))
    honest = rl.Session.end_step

    def stopping(self, step, *arguments, **named):
        self._stop.requested = "SIGTERM" if step == 2 else None
        honest(self, step, *arguments, **named)

    monkeypatch.setattr(rl.Session, "end_step", stopping)
    with pytest.raises(Preempted):
        rl.train(recipe("stopped"))
    monkeypatch.setattr(rl.Session, "end_step", honest)
    rl.train(recipe("stopped"), resume=True)
    whole, stopped = weights_of(recipe("whole"), 4), weights_of(recipe("stopped"), 4)
    assert whole.keys() == stopped.keys()
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    assert timeless_rows(recipe("whole")) == timeless_rows(recipe("stopped"))


def test_how_a_step_is_cut_changes_nothing(resolved, tmp_path):
    for kind in ("separate", "shared"):
        curves = []
        for name, budget in (("whole", 8192), ("cut", 60)):
            train = {"micro_batch_tokens": budget, "epochs": 1, "steps": 2}
            recipe = ppo(resolved, CRITICS[kind], train=train, output_dir=str(tmp_path / kind / name))
            rl.train(recipe)
            keys = ("reward", "critic/loss", "explained_variance")
            curves.append([[row[key] for key in keys] + [row.get("loss", 0)] for row in rows_of(recipe)])
        for whole, cut in zip(*curves, strict=True):
            assert cut == pytest.approx(whole, rel=5e-3, abs=1e-5)


def test_the_critic_finds_a_known_value_function(resolved):
    """The reward is decided by the prompt, so it is the value of every state, and with lambda 1 the return of every token."""
    recipe = ppo(
        resolved,
        {"learning_rate": 3e-3, "value_clip": None, "warmup_steps": 17},
        data={"train": [PROBLEMS | {"size": 400, "params": {"terms": 2, "max_value": 99}}]},
        rewards=[{"use": "tests/loops/prompt_reward.py:first_digit"}],
        rollout={"num_generations": 1, "max_completion_length": 2},
        algorithm={"beta": 0.0, "lam": 1.0},
        train={"steps": 18, "prompts_per_step": 48, "minibatches": 2, "epochs": 4},
    )
    rl.train(recipe)
    found = [row["explained_variance"] for row in rows_of(recipe)]
    assert found[0] == 0.0  # a critic that says 0 of everything
    assert min(found[-3:]) > 0.5


@pytest.mark.slow
def test_the_reward_rises_and_kl_stays_at_its_target(resolved):
    """With a coefficient of 0.001 that stays, the reward of these fifty steps goes to 1 and the KL to 4 nats a token."""
    recipe = ppo(
        resolved,
        {"learning_rate": 5e-3},
        algorithm={"beta": 0.1, "kl_target": 0.05, "kl_horizon": 64},
        train={"steps": 50, "prompts_per_step": 8, "learning_rate": 3e-3, "minibatches": 2},
    )
    rl.train(recipe)
    rows = rows_of(recipe)
    assert fmean(row["reward"] for row in rows[-20:]) > fmean(row["reward"] for row in rows[:5]) + 0.03
    assert 0.025 < fmean(row["kl"] for row in rows[-20:]) < 0.075
    assert max(row["beta"] for row in rows) > 2 * min(row["beta"] for row in rows)  # it had to move for that


def test_a_trained_critic_can_be_frozen_or_go_on_learning(resolved, tmp_path):
    first = ppo(resolved, CRITICS["alone"], output_dir=str(tmp_path / "first"))
    rl.train(first)
    trained = load_file(run_of(first) / "checkpoints" / "step-000003" / "critic" / "model.safetensors")
    for frozen in (True, False):
        critic = {"path": str(tmp_path / "first"), "frozen": frozen}
        second = ppo(resolved, critic, output_dir=str(tmp_path / f"second-{frozen}"), train={"steps": 1})
        rl.train(second)
        found = load_file(run_of(second) / "checkpoints" / "step-000001" / "critic" / "model.safetensors")
        assert all(torch.equal(found[name], trained[name]) for name in trained) is frozen
        row = rows_of(second)[0]
        assert row["critic/value_mean"] != 0
        assert ("critic/loss" in row) is not frozen


def test_a_reward_model_is_the_start_of_a_critic(resolved, base, tmp_path):
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model.save_pretrained(tmp_path / "judge")
    critic = {"path": str(tmp_path / "judge"), "frozen": True}
    recipe = ppo(resolved, critic, model={"init": None, "path": str(base)}, train={"steps": 1})
    rl.train(recipe)
    saved = AutoModelForTokenClassification.from_pretrained(run_of(recipe) / "checkpoints" / "step-000001" / "critic")
    assert torch.equal(saved.score.weight, model.score.weight)
    assert float(saved.score.bias.detach().abs().sum()) == 0


def test_adapters_in_bfloat16_have_a_critic_of_their_own(resolved, base):
    model = {"init": None, "path": str(base), "dtype": "bfloat16", "lora": {"r": 4, "alpha": 8}}
    recipe = ppo(resolved, CRITICS["separate"], model=model, train={"steps": 2})
    rl.train(recipe)
    folder = run_of(recipe) / "checkpoints" / "step-000002"
    critic = load_file(folder / "critic" / "model.safetensors")
    start = load_file(base / "model.safetensors")
    assert not torch.equal(critic["model.layers.0.mlp.up_proj.weight"], start["model.layers.0.mlp.up_proj.weight"])
    assert (folder / "adapter_model.safetensors").exists()


def test_a_step_without_verdicts_moves_neither_policy_nor_critic(resolved, tmp_path):
    reward = tmp_path / "never.py"
    reward.write_text("def never(completions, **_):\n    return [None for _ in completions]\n")
    recipe = ppo(resolved, CRITICS["separate"], rewards=[{"use": f"{reward}:never"}], train={"steps": 1})
    rl.train(recipe)
    assert rows_of(recipe)[0]["critic/skipped"] == 6
    assert float(weights_of(recipe, 1)["critic/score.weight"].abs().sum()) == 0


REFUSED: dict[str, tuple[dict, dict]] = {
    "grpo has no critic": ({"method": "grpo", "critic": {}}, {}),
    "no effect: the critic is frozen": ({"critic": {"path": "org/x", "frozen": True, "learning_rate": 1e-3}}, {}),
    "must have been trained before": ({"critic": {"frozen": True}}, {}),
    "names another model": ({"critic": {"trunk": "shared", "path": "org/x"}}, {}),
    "cannot be frozen": ({"critic": {"trunk": "shared", "frozen": True}}, {}),
    "share its adapters": ({"critic": {"trunk": "shared"}}, {"model": {"init": None, "path": "org/x", "lora": {}}}),
    "weighs two losses": ({"critic": {"coefficient": 0.5}}, {}),
    "learns alone for 4 steps": ({"critic": {"warmup_steps": 4}}, {}),
    "more than the 18 updates": ({"critic": {"lr_warmup_steps": 19}}, {}),
    "has no warm-up": ({"critic": {"lr_warmup_steps": 2, "lr_scheduler_type": "constant"}}, {}),
    "value_clip": ({"critic": {"value_clip": 0.0}}, {}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_settings_that_make_no_sense_are_refused(resolved, message):
    algorithm, changes = REFUSED[message]
    with pytest.raises(RecipeError, match=message) as caught:
        ppo(resolved, algorithm=algorithm, **changes)
    assert caught.value.exit_code == 2
    assert "recipe.yaml:1" in str(caught.value.place)


def test_critics_that_cannot_be_used_are_refused(resolved, base, tmp_path):
    init = ModelInit(**MODEL["init"])
    other = train_tokenizer(init.tokenizer, ["other words than sums"] * 9)
    build_model(init, other, 0).save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    stored = {"init": None, "path": str(base)}
    cases: list[tuple[str, type[AlignError], dict, str]] = [
        ("nowhere/near", CheckpointError, MODEL, "cannot load|no local folder"),
        (str(tmp_path / "adapter"), CheckpointError, stored, "LoRA adapters"),
        (str(tmp_path / "other"), CheckpointError, MODEL, "another vocabulary"),
    ]
    for path, kind, model, message in cases:
        with pytest.raises(kind, match=message) as caught:
            rl.train(ppo(resolved, {"path": path}, model=model), overwrite=True)
        assert caught.value.place == "algorithm.critic.path"


def test_an_architecture_without_value_models_is_refused(resolved):
    model = {"init": {"model_type": "cohere", "config": {**MODEL["init"]["config"], "num_key_value_heads": 2}}}
    with pytest.raises(RecipeError, match=r"no value model .* cohere"):
        rl.train(ppo(resolved, model=model))


def test_a_run_is_not_written_over_the_critic_it_starts_from(resolved):
    recipe = ppo(resolved, CRITICS["separate"], train={"steps": 1})
    rl.train(recipe)
    again = ppo(resolved, {"path": str(run_of(recipe) / "checkpoints" / "step-000001" / "critic")})
    with pytest.raises(RecipeError, match="over the model it starts from"):
        preflight(again, overwrite=True)


RECIPES = ["methods/ppo", "ppo/shared", "ppo/vapo", "ppo/value_model", "ppo/guided"]  # the last one needs the one before it


@pytest.mark.slow
def test_the_recipes_run_on_a_cpu(tmp_path, monkeypatch):
    """Each from the command line's side, shortened; the model they start from is one that has learned little."""
    monkeypatch.chdir(tmp_path)
    align.train("methods/start", ["train.steps=20"])
    for name in RECIPES:
        steps = ["train.steps=2", "train.prompts_per_step=8", "train.warmup_steps=0", "rollout.parity_every=1"]
        alone = {"ppo/value_model": ["algorithm.critic.warmup_steps=2"], "ppo/guided": []}
        summary = align.train(name, [*steps, *alone.get(name, ["algorithm.critic.warmup_steps=1"])])
        assert (summary["status"], summary["steps"]) == ("done", 2), name


def test_the_recipe_for_a_gpu_is_a_whole_one():
    recipe = load_recipe("ppo/gsm8k", check_files=False).recipe
    assert isinstance(recipe, RLRecipe)
    assert recipe.algorithm.method == "ppo"
    assert recipe.model.dtype == "bfloat16"
