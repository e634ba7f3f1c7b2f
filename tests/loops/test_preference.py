"""Learning from stored preferences, whole: every loss through its recipe, what is reported, resuming, the reference."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from align.algorithms.preference_names import PREFERENCE_TABLE
from align.errors import DataError, Preempted, RecipeError
from align.loops import preference, preference_site
from align.loops.session import Session
from tests.loops.conftest import MODEL, kept, merged
from tests.loops.test_relatives import stored_model

OFFLINE = [name for name, entry in PREFERENCE_TABLE.items() if not entry.online]
TRAINED = {"steps": 3, "rows_per_step": 4, "learning_rate": 1e-3, "save_steps": 0, "max_length": 64, "micro_batch_tokens": 64}


@pytest.fixture
def pairs(tmp_path):
    """Sums with a right and a wrong answer; the wrong one is a letter."""
    rows = [
        {"prompt": f"{a}+{b}", "chosen": str(a + b), "rejected": "x" * (1 + a % 3), "margin": 1.0 + a}
        for a in range(1, 6)
        for b in range(1, 5)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return {"path": str(file)}


@pytest.fixture
def base(pairs):
    return {
        "recipe": "preference",
        "model": MODEL,
        "data": {"train": [pairs], "eval": [pairs]},
        "train": TRAINED,
        "log": {"tensorboard": False},
    }


def metrics(recipe):
    return kept(Path(recipe.recipe.output_dir))


def test_the_policy_learns_to_prefer(resolved, base):
    recipe = resolved(base, train={"steps": 20, "rows_per_step": 10, "learning_rate": 1e-2}, evaluate={"every": 15})
    summary = preference.train(recipe)
    accuracy = {name: found["accuracy"]["value"] for name, found in summary["estimates"].items()}
    assert accuracy["before"] == 0.5  # the policy is the reference: every implicit reward is 0
    assert accuracy["after"] > 0.95
    rows = metrics(recipe)
    first, last = (next(row for row in rows if row["step"] == step) for step in (1, 20))
    assert first["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-4)
    assert last["rewards/accuracies"] == pytest.approx(1.0)
    assert last["rewards/chosen"] - last["rewards/rejected"] == pytest.approx(last["rewards/margins"], abs=1e-5)
    assert last["logps/chosen"] > first["logps/chosen"]
    assert any("eval/accuracy" in row and row["step"] == 15 for row in rows)
    checkpoint = Path(recipe.recipe.output_dir) / "checkpoints" / "step-000020"
    AutoTokenizer.from_pretrained(checkpoint)
    AutoModelForCausalLM.from_pretrained(checkpoint)


@pytest.mark.parametrize("loss", ["kto", "lipo_lambda", "simpo", "aot"])
def test_each_kind_of_loss(resolved, base, loss):
    _run(resolved, base, loss)


@pytest.mark.slow
@pytest.mark.parametrize("loss", OFFLINE)
def test_every_loss(resolved, base, loss):
    _run(resolved, base, loss)


def _run(resolved, base, loss):
    """The policy learns what its loss wants: the reported loss of the same pairs falls."""
    train = {"steps": 12, "rows_per_step": 20, "learning_rate": 5e-3, "micro_batch_tokens": 400}
    beta = 2.0 if PREFERENCE_TABLE[loss].per_token else 0.5
    knobs = {"discopop": {"tau": 1.0}}.get(loss, {})  # at the paper's 0.05 the loss falls to a margin of -0.12 first
    recipe = resolved(base, train=train, algorithm={"loss": loss, "beta": beta, "knobs": knobs})
    preference.train(recipe)
    rows = metrics(recipe)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["rewards/margins"] > rows[0]["rewards/margins"] + 0.05


def test_a_mixture_is_the_sum_of_its_losses(resolved, base):
    losses = [{"loss": "dpo", "beta": 0.2}, {"loss": "sft", "weight": 0.5}]
    recipe = resolved(base, algorithm={"losses": losses})
    preference.train(recipe)
    row = metrics(recipe)[0]
    assert row["loss"] == pytest.approx(row["loss/dpo"] + 0.5 * row["loss/sft"], abs=1e-5)


def test_margins_of_the_data(resolved, base, tmp_path, pairs):
    algorithm = {"loss": "rebel", "margin_scale": 2.0}
    recipe = resolved(base, algorithm=algorithm, train={"steps": 1, "rows_per_step": 20})
    preference.train(recipe)
    expected = sum((2.0 * (1 + a)) ** 2 for a in range(1, 6)) / 5  # all log-ratios are 0
    assert metrics(recipe)[0]["loss"] == pytest.approx(expected, rel=1e-4)
    rows = [json.loads(line) for line in Path(pairs["path"]).read_text().splitlines()]
    del rows[3]["margin"]
    Path(pairs["path"]).write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="margin_scale needs margins, and pairs:3 has none"):
        preference.train(resolved(base, algorithm=algorithm, output_dir=str(tmp_path / "other")))


def test_held_out_pairs_need_no_margins(resolved, base, tmp_path):
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(json.dumps({"prompt": "1+1", "chosen": "2", "rejected": "x"}))
    data = {"eval": [{"path": str(held_out)}]}
    recipe = resolved(base, data=data, evaluate={}, algorithm={"loss": "rebel", "margin_scale": 2.0}, train={"steps": 1})
    assert preference.train(recipe)["estimates"]["before"]["accuracy"]["value"] == 0.5


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_how_a_step_is_cut_does_not_matter(resolved, base, tmp_path, loss):
    rows = []
    for budget in (30, 4000):
        recipe = resolved(
            base, algorithm={"loss": loss}, train={"micro_batch_tokens": budget}, output_dir=str(tmp_path / str(budget))
        )
        preference.train(recipe)
        rows.append(metrics(recipe)[-1])
    assert rows[0]["micro_batches"] > rows[1]["micro_batches"] == 1
    for name in ("loss", "grad_norm", "rewards/margins", "entropy"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("changes", [{}, {"algorithm": {"loss": "kto"}}])
def test_an_interrupted_run_goes_on_bit_for_bit(resolved, base, tmp_path, monkeypatch, changes):
    base = merged(base, {"train": {"steps": 6, "save_steps": 2}, "evaluate": {"every": 3}, **changes})
    whole = resolved(base, output_dir=str(tmp_path / "whole"))
    preference.train(whole)
    cut = resolved(base, output_dir=str(tmp_path / "cut"))
    end_step = Session.end_step

    def stopped(self, step, *args, **kwargs):
        end_step(self, step, *args, **kwargs)
        if step == 3:  # after the checkpoint of step 2
            raise Preempted("enough", place="here", fix="go on")

    monkeypatch.setattr(Session, "end_step", stopped)
    with pytest.raises(Preempted):
        preference.train(cut)
    monkeypatch.setattr(Session, "end_step", end_step)
    preference.train(cut, resume=True)
    assert metrics(cut) == metrics(whole)
    for name, weight in _weights(whole, 6).items():
        assert torch.equal(weight, _weights(cut, 6)[name])


def test_the_reference_is_asked_once_for_all_runs_that_share_a_folder(resolved, base, tmp_path):
    cache = tmp_path / "cache"
    for name in ("one", "two"):
        recipe = resolved(base, output_dir=str(tmp_path / name), train={"reference_cache": str(cache)})
        preference.train(recipe)
        (file,) = cache.iterdir()
        lines = [line for line in file.read_text().splitlines() if line]
        assert len(lines) == 2 * 12  # 3 steps of 4 pairs; nothing more, and nothing twice
    assert metrics(recipe) == kept(tmp_path / "one")


def test_another_model_as_reference(resolved, base, tmp_path):
    start = resolved(base, output_dir=str(tmp_path / "start"))
    preference.train(start)
    path = str(tmp_path / "start" / "checkpoints" / "step-000003")
    recipe = resolved(base, model={"init": None, "path": path}, algorithm={"reference": path})
    preference.train(recipe)
    assert metrics(recipe)[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    other = resolved(base, model={"init": None, "path": path}, output_dir=str(tmp_path / "other"))
    assert preference.train(other)["steps"] == 3


def test_a_reference_that_reads_other_tokens_is_refused(resolved, base, tmp_path):
    policy, other = stored_model(tmp_path / "policy", 0), stored_model(tmp_path / "other", 0, texts=("abc abc abc",) * 9)
    recipe = resolved(base, model={"init": None, "path": str(policy)}, algorithm={"reference": str(other)})
    with pytest.raises(RecipeError, match="another tokenizer than the policy") as error:
        preference.train(recipe)
    assert error.value.place == "algorithm.reference"


def test_a_revision_is_that_of_its_own_model(resolved, base, tmp_path, monkeypatch):
    asked = []
    honest = preference_site.load_model

    def loaded(model, *args, **named):
        asked.append(model)
        return honest(model, *args, **named)

    monkeypatch.setattr(preference_site, "load_model", loaded)
    policy, other = (str(stored_model(tmp_path / name, 0)) for name in ("policy", "other"))
    for reference in (policy, other):
        model = {"init": None, "path": policy, "revision": "v2"}
        output = str(tmp_path / f"by-{Path(reference).name}")
        preference.train(resolved(base, model=model, output_dir=output, algorithm={"reference": reference}, train={"steps": 1}))
    assert [(one.path, one.revision) for one in asked] == [(policy, "v2")] * 3 + [(other, None)]


def test_with_adapters_the_reference_is_the_model_without_them(resolved, base, tmp_path):
    start = resolved(base, output_dir=str(tmp_path / "start"))
    preference.train(start)
    path = str(tmp_path / "start" / "checkpoints" / "step-000003")
    recipe = resolved(base, model={"init": None, "path": path, "lora": {"r": 4}}, train={"steps": 4, "learning_rate": 1e-2})
    preference.train(recipe)
    rows = metrics(recipe)
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert rows[-1]["rewards/margins"] > 0


def _weights(recipe, step):
    folder = Path(recipe.recipe.output_dir) / "checkpoints" / f"step-{step:06d}"
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()
