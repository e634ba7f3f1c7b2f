"""A trained model as a reward: its scores are those of training, normalised; ensembles, attributes, steps; what it refuses."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from align.api import check
from align.data.judged import load_judged
from align.data.sources import read_all
from align.errors import CheckpointError, RecipeError
from align.learner.model import load_tokenizer
from align.learner.reward_model import RewardLearner, RewardModelCard, build_reward_model
from align.loops.judged import pack_judged
from align.recipe.schema import Model, RewardModelRecipe, RewardSpec, Source
from align.rewards.names import is_model_path, reward_name
from align.rewards.registry import open_reward

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
ANSWERS = ["please 42", "no", "please please 42 please", "", "42"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """`stored(loss, seed, **algorithm)`: the folder of an untrained reward model with an emphatic head."""
    made: dict[str, Path] = {}

    def make(loss: str = "bradley_terry", seed: int = 0, **algorithm: Any) -> Path:
        key = f"{loss}-{seed}-{algorithm}"
        if key not in made:
            made[key] = _store(tmp_path_factory.mktemp("reward"), loss, seed, algorithm)
        return made[key]

    return make


def _store(folder: Path, loss: str, seed: int, algorithm: dict[str, Any]) -> Path:
    steps = {"completions": ["please\n", "42"], "labels": [True, False]}
    row = {"prompt": "17+25=?", "chosen": "please 42", "rejected": "no 17", "completion": "42", "a": 1, "b": 2}
    (folder / "rows.jsonl").write_text(json.dumps(row | (steps if loss == "process" else {})) + "\n")
    recipe = RewardModelRecipe.model_validate(
        {
            "recipe": "reward_model",
            "seed": seed,
            "model": {"init": {"config": SIZES}},
            "data": {"train": [{"path": str(folder / "rows.jsonl")}]},
            "algorithm": {"loss": loss, **algorithm},
            "train": {"max_length": 60, "steps": 1},
        }
    )
    need = {"process": "prompt", "regression": "demonstration"}.get(loss, "comparison")
    rows = read_all([Source(path=str(folder / "rows.jsonl"))], need=need)  # type: ignore[arg-type]
    tokenizer = load_tokenizer(recipe.model, ["please 42 no 17+25=?"])
    items = load_judged(recipe, rows, tokenizer).by_source[0]
    model = build_reward_model(recipe, tokenizer)
    with torch.no_grad():
        model.score.weight.mul_(40)
    learner = RewardLearner(model, recipe, pack_judged(items, model.config.pad_token_id))
    learner.save_model(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def verdicts(folder: Any, rollout: Any, texts: list[str] = ANSWERS, **params: Any) -> list[Any]:
    use = (
        {"use": str(folder), "params": params} if isinstance(folder, Path) else {"use": "reward_model", "params": folder | params}
    )
    reward = open_reward(RewardSpec(**use))
    try:
        return asyncio.run(reward.score([rollout(text, prompt="17+25=?") for text in texts]))
    finally:
        reward.close()


def by_hand(folder: Path, text: str, factory: Any = AutoModelForSequenceClassification) -> torch.Tensor:
    """What transformers makes of the one conversation, rendered by the saved template."""
    tokenizer, model = load_tokenizer(Model(path=str(folder))), factory.from_pretrained(folder)
    turns = [{"role": "user", "content": "17+25=?"}, {"role": "assistant", "content": text}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False).rstrip("\n")
    with torch.no_grad():
        return model(**tokenizer(rendered, return_tensors="pt", add_special_tokens=False)).logits[0]


def test_scores_are_those_of_transformers_normalised(stored, rollout):
    folder = stored()
    card = RewardModelCard.read(folder)
    assert card is not None
    raw = [by_hand(folder, text).item() for text in ANSWERS]
    assert max(raw) - min(raw) > 0.1, "a model that says the same of everything would prove nothing"
    plain = [verdict.value for verdict in verdicts(folder, rollout, normalise=False)]
    assert plain == pytest.approx(raw, abs=1e-4)
    scaled = [verdict.value for verdict in verdicts(folder, rollout)]
    assert scaled == pytest.approx([(one - card.mean[0]) / card.std[0] for one in raw], abs=1e-3)
    assert [verdict.status for verdict in verdicts(folder, rollout)] == ["pass" if one > 0 else "fail" for one in scaled]


def test_a_batch_is_scored_as_each_answer_alone(stored, rollout):
    folder = stored()
    together = [verdict.value for verdict in verdicts(folder, rollout)]
    alone = [verdicts(folder, rollout, [text])[0].value for text in ANSWERS]
    small = [verdict.value for verdict in verdicts(folder, rollout, max_batch_tokens=1)]
    assert together == pytest.approx(alone, abs=1e-4)
    assert together == pytest.approx(small, abs=1e-4)


def test_in_bfloat16_the_scores_are_nearly_the_same(stored, rollout):
    exact = [verdict.value for verdict in verdicts(stored(), rollout)]
    rounded = [verdict.value for verdict in verdicts(stored(), rollout, dtype="bfloat16")]
    assert rounded == pytest.approx(exact, abs=0.05 * (max(exact) - min(exact)))


def test_too_long_answers_are_errors_and_leave_the_others_alone(stored, rollout):
    short, long = verdicts(stored(), rollout, ["42", "please 42 " * 40])
    assert short.value is not None
    assert long.status == "error"
    assert "the reward model takes 60" in long.detail
    assert verdicts(stored(), rollout, ["42"], max_length=5)[0].status == "error"
    beyond = verdicts(stored(), rollout, ["please 42 " * 40], max_length=10_000)[0]
    assert "takes 64" in beyond.detail  # the positions of the model


@pytest.mark.parametrize("combine", ["mean", "min", "mean_minus_std"])
def test_ensembles_of_models_and_of_heads(stored, rollout, combine):
    single = [[verdict.value for verdict in verdicts(stored(seed=seed), rollout)] for seed in (0, 1)]
    models = verdicts({"path": [str(stored(seed=0)), str(stored(seed=1))]}, rollout, combine=combine, penalty=0.5)
    expected = {
        "mean": [(a + b) / 2 for a, b in zip(*single, strict=True)],
        "min": [min(a, b) for a, b in zip(*single, strict=True)],
        "mean_minus_std": [(a + b) / 2 - 0.5 * abs(a - b) / 2 for a, b in zip(*single, strict=True)],
    }[combine]
    assert [verdict.value for verdict in models] == pytest.approx(expected, abs=1e-4)
    assert [models[0].parts[f"member_{n}"] for n in (0, 1)] == pytest.approx([one[0] for one in single], abs=1e-4)
    heads = verdicts(stored(heads=3), rollout, combine=combine)
    values = list(heads[0].parts.values())
    mean, spread = fmean(values), pstdev(values)
    combined = {"mean": mean, "min": min(values), "mean_minus_std": mean - spread}[combine]
    assert (len(values), heads[0].value) == (3, pytest.approx(combined, abs=1e-4))


def test_attributes_are_weighted(stored, rollout):
    folder = stored("regression", attributes=["a", "b"])
    raw = by_hand(folder, "42").tolist()
    (verdict,) = verdicts(folder, rollout, ["42"], normalise=False, weights={"a": 2.0, "b": -1.0})
    assert verdict.value == pytest.approx(2 * raw[0] - raw[1], abs=1e-4)
    assert verdict.parts == pytest.approx({"a": raw[0], "b": raw[1]}, abs=1e-4)
    (plain,) = verdicts(folder, rollout, ["42"], normalise=False)
    assert plain.value == pytest.approx(sum(raw) / 2, abs=1e-4)
    with pytest.raises(RecipeError, match="no attribute 'c'"):
        verdicts(folder, rollout, weights={"c": 1.0})


def test_steps_are_judged_where_training_marked_them(stored, rollout):
    folder = stored("process", step_separator="\n")
    text = "please\n\n42\nno"
    tokenizer, model = load_tokenizer(Model(path=str(folder))), AutoModelForTokenClassification.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "17+25=?"}], tokenize=False, add_generation_prompt=True)
    pieces = [tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in (prompt, "please\n", "42\n", "no\n")]
    with torch.no_grad():
        logits = model(torch.tensor([[token for piece in pieces for token in piece]])).logits[0]
    ends = [sum(map(len, pieces[: number + 1])) - 1 for number in (1, 2, 3)]
    good = logits[ends].softmax(-1)[:, 1].tolist()
    expected = {"min": min(good), "prod": math.prod(good), "last": good[-1], "mean": sum(good) / 3}
    for steps, value in expected.items():
        (verdict,) = verdicts(folder, rollout, [text], steps=steps)
        assert verdict.value == pytest.approx(value, abs=1e-4)
    assert [text[:end] for end, _ in verdict.steps] == ["please", "please\n\n42", text]
    assert [value for _, value in verdict.steps] == pytest.approx(good, abs=1e-4)
    assert verdicts(folder, rollout, [" \n"])[0].status == "unparsable"


def test_the_version_changes_with_the_weights(stored):
    versions = {seed: open_reward(RewardSpec(use=str(stored(seed=seed)))).version for seed in (0, 1)}
    assert versions[0] != versions[1]
    assert open_reward(RewardSpec(use=str(stored()))).version == versions[0]
    assert open_reward(RewardSpec(use=str(stored()), params={"normalise": False})).version != versions[0]


def test_models_without_a_card_are_taken_as_they_are(stored, rollout, tmp_path):
    for file in stored().iterdir():
        if file.name != "reward_model.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (verdict,) = verdicts(tmp_path, rollout, ["42"])
    assert verdict.value == pytest.approx(by_hand(tmp_path, "42").item(), abs=1e-4)
    (tmp_path / "reward_model.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        verdicts(tmp_path, rollout)


@pytest.mark.parametrize(
    ("use", "is_path"),
    [
        ("runs/rm", True),
        ("./rm", True),
        ("org/name", True),
        ("a/b.py:f", False),
        ("a.b.c", False),
        ("math", False),
        ("a/b.py", False),
    ],
)
def test_a_path_is_told_from_other_rewards(use, is_path):
    assert is_model_path(use) is is_path
    assert not is_path or reward_name(RewardSpec(use=use)) == "reward_model"


@pytest.mark.parametrize(
    ("spec", "kind", "complaint"),
    [
        ({"use": "reward_model"}, RecipeError, "path"),
        ({"use": "reward_model", "params": {"path": []}}, RecipeError, "path"),
        ({"use": "./nowhere", "params": {"path": "x"}}, RecipeError, "named twice"),
        ({"use": "./nowhere", "params": {"normalize": False}}, RecipeError, "no parameter 'normalize'"),
        ({"use": "./nowhere"}, CheckpointError, "no local folder"),
        ({"use": "reward_model", "params": {"path": "tests"}}, CheckpointError, "holds no model"),
    ],
)
def test_what_cannot_be_opened_is_said(spec, kind, complaint):
    with pytest.raises(kind, match=complaint) as error:
        open_reward(RewardSpec(**spec))
    assert error.value.fix


def test_check_probes_the_model_and_counts_its_memory(stored, tmp_path):
    recipe = {
        "recipe": "rl",
        "output_dir": str(tmp_path / "run"),
        "model": {"init": {"config": SIZES}},
        "data": {"train": [{"task": "chain_sum", "size": 8, "params": {"terms": 2, "max_value": 9}}], "max_prompt_length": 40},
        "rollout": {"max_completion_length": 8},
        "rewards": [{"use": str(stored())}],
    }
    (tmp_path / "rl.json").write_text(json.dumps(recipe))
    plan = check(tmp_path / "rl.json")
    assert plan.memory is not None
    (judge,) = [part for part in plan.memory.first.parts if part.name == "reward model"]
    assert judge.bytes == (stored() / "model.safetensors").stat().st_size
    (probed,) = plan.rewards
    assert (probed.name, probed.mean is not None) == ("reward_model", True)
