"""Reward models through the real loop: every loss learns what it is shown, runs resume exactly, and what is saved loads."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from align.api import check, evaluate, export, score
from align.errors import DataError, RecipeError
from align.learner.fresh import build_model, train_tokenizer
from align.learner.reward_model import RewardModelCard, load_reward_model
from align.loops import reward_model
from align.loops.judged import pack_judged, resampling
from align.recipe.load import load_recipe
from align.recipe.schema import ModelInit
from align.types import GradedSteps, PreferencePair
from tests.loops.conftest import MODEL, merged

PAIRS: dict[str, Any] = {
    "recipe": "reward_model",
    "model": MODEL,
    "train": {"steps": 12, "rows_per_step": 16, "learning_rate": 3e-3, "save_steps": 6, "max_length": 96},
    "evaluate": {},
    "log": {"tensorboard": False},
}


def sums(count: int, seed: int):
    """Polite answers are preferred; each has a politeness of 0 to 3."""
    draw = random.Random(seed)
    for _ in range(count):
        a, b = draw.randint(1, 9), draw.randint(1, 9)
        yield f"{a}+{b}=?", [f"{'please ' * level}{a + b}{' no' * (3 - level)}" for level in range(4)]


def rows_of(loss: str, count: int, seed: int):
    for prompt, answers in sums(count, seed):
        if loss == "bradley_terry":
            yield {"prompt": prompt, "chosen": answers[3], "rejected": answers[1], "margin": 2.0}
        elif loss == "listwise":
            yield {"prompt": prompt, "completions": answers, "scores": [0, 1, 2, 3]}
        elif loss == "process":
            yield {"prompt": prompt, "completions": ["please", "no no", "please 1"], "labels": [True, False, True]}
        else:
            level = random.Random(prompt).randint(0, 3)
            yield {"prompt": prompt, "completion": answers[level], "polite": level, "plain": 3 - level if level else None}


@pytest.fixture
def recipe(tmp_path):
    """Write data and a recipe of a loss; returns what load_recipe makes of it."""

    def make(loss: str = "bradley_terry", name: str = "run", **changes: Any):
        for split, count, seed in (("train", 160, 0), ("eval", 40, 1)):
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(loss, count, seed)))
        data = {split: [{"path": str(tmp_path / f"{split}.jsonl")}] for split in ("train", "eval")}
        algorithm = {"loss": loss} | ({"attributes": ["polite", "plain"]} if loss == "regression" else {})
        tree = merged(PAIRS, {"data": data, "algorithm": algorithm, "output_dir": str(tmp_path / name)})
        file = tmp_path / f"{name}.yaml"
        file.write_text(json.dumps(merged(tree, changes)))
        return load_recipe(file)

    return make


def last_model(run: Path) -> Path:
    return max((run / "checkpoints").iterdir())


@pytest.mark.parametrize("head", ["score", "linear"])
@pytest.mark.parametrize("loss", ["bradley_terry", "listwise", "process", "regression"])
def test_every_loss_learns_what_it_is_shown(recipe, tmp_path, loss, head):
    changes: dict[str, Any] = {}
    if head == "linear":
        changes = {"algorithm": {"head": "linear"}, "train": {"steps": 1, "save_steps": 0}}
        if loss != "bradley_terry":  # without cross-validation, which takes seconds
            changes["algorithm"]["l2"] = 1e-3
    if loss == "regression" and head == "score":
        changes = {"train": {"steps": 40, "save_steps": 0, "learning_rate": 1e-2}}
    summary = reward_model.train(recipe(loss, **changes))
    for name, estimate in summary["estimates"]["after"].items():
        assert estimate["low"] > (0.5 if loss == "regression" else 0.8), (name, estimate)  # of few pairs of ratings
    stored = json.loads((tmp_path / "run" / "eval" / "after.json").read_text())["metrics"]
    if loss == "regression":
        assert stored["explained_variance/polite"] > 0.5
    else:
        assert stored["ece"] < 0.3
        assert stored["nll"] < 0.4 < math.log(2)
    card = RewardModelCard.read(last_model(tmp_path / "run"))
    assert card is not None
    assert card.loss == loss
    factory = AutoModelForTokenClassification if loss == "process" else AutoModelForSequenceClassification
    loaded = factory.from_pretrained(last_model(tmp_path / "run"))
    assert tuple(loaded.config.id2label[number] for number in range(loaded.config.num_labels)) == card.labels


def test_transformers_reads_the_same_scores_in_a_padded_batch(recipe, tmp_path):
    resolved = recipe()
    reward_model.train(resolved)
    folder = last_model(tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    rows = [json.loads(line) for line in (tmp_path / "run/eval/after.jsonl").read_text().splitlines()]
    shown = [json.loads(line) for line in (tmp_path / "eval.jsonl").read_text().splitlines()]
    texts = [
        str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["chosen"]}], tokenize=False
            )
        ).rstrip("\n")
        for row in shown[:6]
    ]
    inputs = tokenizer(texts, padding=True, return_tensors="pt", padding_side="right")
    with torch.no_grad():
        scores = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0]
    assert scores.tolist() == pytest.approx([row["chosen"] for row in rows[:6]], abs=1e-5)


@pytest.mark.parametrize("loss", ["bradley_terry", "process"])
def test_a_resumed_run_is_the_same_bit_for_bit(recipe, tmp_path, loss):
    reward_model.train(recipe(loss))
    halfway = recipe(loss, "parted", train={"steps": 6})
    reward_model.train(halfway)
    reward_model.train(recipe(loss, "parted"), resume=True, allow_changes=True)
    weights = [(last_model(tmp_path / name) / "model.safetensors").read_bytes() for name in ("run", "parted")]
    assert weights[0] == weights[1]
    cards = [RewardModelCard.read(last_model(tmp_path / name)) for name in ("run", "parted")]
    assert cards[0] == cards[1]


def test_micro_batches_do_not_change_the_step(recipe, tmp_path):
    for name, budget in (("run", 8192), ("small", 64)):
        reward_model.train(recipe("listwise", name, train={"steps": 3, "save_steps": 0, "micro_batch_tokens": budget}))
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines() if "loss" in line]
        for name in ("run", "small")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_lora_trains_adapters_and_the_head(recipe, tmp_path):
    reward_model.train(recipe(name="base", train={"steps": 1, "save_steps": 0}))
    base = last_model(tmp_path / "base")
    model = {"init": None, "path": str(base), "lora": {"r": 4, "alpha": 8}}
    summary = reward_model.train(recipe(model=model, train={"learning_rate": 1e-2, "steps": 24, "save_steps": 12}))
    assert summary["estimates"]["after"]["accuracy"]["low"] > 0.8
    folder = last_model(tmp_path / "run")
    assert (folder / "adapter_config.json").is_file()
    assert not (folder / "model.safetensors").exists()
    weights = (last_model(tmp_path / "run") / "adapter_model.safetensors").read_bytes()
    reward_model.train(recipe(name="parted", model=model, train={"learning_rate": 1e-2, "steps": 12, "save_steps": 12}))
    changes = {"model": model, "train": {"learning_rate": 1e-2, "steps": 24, "save_steps": 12}}
    reward_model.train(recipe(name="parted", **changes), resume=True, allow_changes=True)
    assert (last_model(tmp_path / "parted") / "adapter_model.safetensors").read_bytes() == weights


def test_with_lora_padding_is_what_the_saved_tokenizer_says(recipe, tmp_path):
    """The base model's config names no padding token, as those of many models; the tokenizer pads with its end of the turn."""
    init = ModelInit(**MODEL["init"])
    tokenizer = train_tokenizer(init.tokenizer, ["please 42 no 17+25=?"])
    tokenizer.pad_token = tokenizer.eos_token
    base = build_model(init, tokenizer, seed=0)
    base.config.pad_token_id = base.generation_config.pad_token_id = None
    for part in (base, tokenizer):
        part.save_pretrained(tmp_path / "base")
    model = {"init": None, "path": str(tmp_path / "base"), "lora": {"r": 4}}
    reward_model.train(recipe(model=model, train={"steps": 1, "save_steps": 0}))
    folder = last_model(tmp_path / "run")
    stored = load_reward_model(folder, RewardModelCard.read(folder), dtype=torch.float32, place="here")
    assert stored.config.pad_token_id == tokenizer.eos_token_id


def test_heads_of_an_ensemble_differ_and_agree_on_what_they_learned(recipe, tmp_path):
    reward_model.train(recipe(algorithm={"heads": 3}))
    stored = json.loads((tmp_path / "run" / "eval" / "after.json").read_text())["metrics"]
    assert stored["accuracy"] > 0.9
    assert stored["disagreement"] > 0
    head = AutoModelForSequenceClassification.from_pretrained(last_model(tmp_path / "run")).score.weight
    assert head.shape[0] == 3
    assert not torch.allclose(head[0], head[1])


def test_resampling_is_poisson_and_belongs_to_the_item():
    ids = [f"rows:{number}" for number in range(4000)]
    weight_PK = resampling(ids, 2, seed=0)
    assert weight_PK.mean().item() == pytest.approx(1, abs=0.04)
    assert (weight_PK == 0).double().mean().item() == pytest.approx(math.exp(-1), abs=0.02)
    assert weight_PK.var().item() == pytest.approx(1, abs=0.08)
    assert torch.equal(resampling(ids[::-1], 2, seed=0), weight_PK.flip(0))
    assert resampling(ids[:3], 1, seed=0).tolist() == [[1.0]] * 3


def test_a_sequence_is_marked_where_transformers_pools():
    pair = PreferencePair(id="a", prompt_ids=(5, 6), chosen_ids=(7, 8), rejected_ids=(7, 0))
    batch = pack_judged([pair], pad_id=0)
    assert batch.mask_N.nonzero().flatten().tolist() == [3, 6]  # the padding token at the end of the second is passed over
    steps = GradedSteps(id="b", prompt_ids=(5,), steps=((1, 2), (3,)), good=(1.0, 0.0))
    assert pack_judged([steps], pad_id=0).mask_N.tolist() == [False, False, True, True]


def test_margins_must_be_in_the_data(recipe, tmp_path):
    reward_model.train(recipe(algorithm={"margin": 0.5}, train={"steps": 1, "save_steps": 0}))
    resolved = recipe(name="other", algorithm={"margin": 0.5})
    plain = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({**row, "margin": None}) + "\n" for row in plain))
    with pytest.raises(DataError, match="this pair has none"):
        reward_model.train(resolved)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"algorithm": {"loss": "regression", "attributes": []}}, "needs to know which columns"),
        ({"algorithm": {"attributes": ["a"]}}, "attributes has no effect on the loss bradley_terry"),
        ({"algorithm": {"loss": "listwise", "margin": 1.0}}, "margin has no effect"),
        ({"algorithm": {"loss": "process", "heads": 2}}, "heads has no effect"),
        ({"algorithm": {"loss": "process", "step_separator": ""}}, "empty step_separator"),
        ({"algorithm": {"head": "linear"}}, "fitted at once"),
        ({"algorithm": {"l2": 0.1}}, "for head: linear"),
        ({"data": {"train": [{"task": "chain_sum"}]}}, "nothing that somebody judged"),
        ({"data": {"eval": []}}, "data.eval names none"),
        ({"rewards": [{"use": "math"}]}, "unknown key rewards"),
    ],
)
def test_recipes_that_cannot_work_are_refused(recipe, changes, complaint):
    with pytest.raises(RecipeError, match=complaint) as error:
        recipe(**changes)
    assert error.value.fix


def test_check_shows_what_a_run_would_do(recipe, tmp_path):
    recipe(**{"evaluate": {"max_rows": 8}})
    plan = check(tmp_path / "run.yaml")
    assert {probe.split: probe.rows for probe in plan.data} == {"train": 160, "eval": 40}
    assert "please" in plan.data[0].examples[0]
    assert plan.memory is not None
    assert plan.memory.first.peak("update") > 0
    assert any(quantity.name == "optimizer steps" for quantity in plan.quantities)


def test_export_writes_a_reward_model_that_judges_the_same(recipe, tmp_path):
    reward_model.train(recipe(name="base", train={"steps": 1, "save_steps": 0}))
    model = {"init": None, "path": str(last_model(tmp_path / "base")), "lora": {"r": 4, "alpha": 8}}
    reward_model.train(recipe(model=model, train={"steps": 2, "save_steps": 0, "learning_rate": 0.01}))
    exported = export(tmp_path / "run", tmp_path / "plain")
    assert RewardModelCard.read(exported) == RewardModelCard.read(last_model(tmp_path / "run"))
    merged_model = AutoModelForSequenceClassification.from_pretrained(exported)
    card = RewardModelCard.read(exported)
    stored = load_reward_model(last_model(tmp_path / "run"), card, dtype=torch.float32, place="here")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(merged_model(input_ids=ids).logits, stored(input_ids=ids).logits, atol=1e-5)


def test_scoring_a_file_and_evaluating_between_steps(recipe, tmp_path):
    resolved = recipe(evaluate={"every": 6, "max_rows": 10})
    summary = reward_model.train(resolved)
    assert summary["estimates"]["after"]["accuracy"]["problems"] == 10
    assert json.loads((tmp_path / "run" / "eval" / "step-000006.json").read_text())["step"] == 6
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"accuracy", "margin", "mean_reward", "grad_norm"} <= rows[1].keys()
    assert [row["step"] for row in rows if "eval/accuracy" in row] == [0, 6, 12]
    scores = []
    for column in ("chosen", "rejected"):
        out = tmp_path / f"{column}.jsonl"
        score([str(tmp_path / "run")], tmp_path / "eval.jsonl", out, columns={"completion": column})
        scores.append([json.loads(line)["value"] for line in out.read_text().splitlines()])
    assert sum(better > worse for better, worse in zip(*scores, strict=True)) >= 36  # of 40
    with pytest.raises(RecipeError, match="writes no answers"):
        evaluate(tmp_path / "run.yaml")
