"""Preferences between the policy's own samples: which pairs are made, every online loss whole, rounds, resuming."""

import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from align.errors import DataError, Preempted
from align.loops import preference
from align.loops.online_pairs import Drawn, crossed_pairs, demonstrated_pairs, ranked_pairs, rankings
from align.loops.session import Session
from align.recipe.schema import Online
from align.types import Completion, Group, Prompt, Rollout, Scored
from tests.loops.conftest import MODEL, PROBLEMS, kept, merged

ONLINE = {
    "recipe": "preference",
    "model": MODEL,
    "data": {"train": [PROBLEMS]},
    "online": {},
    "rollout": {"num_generations": 4, "max_completion_length": 8},
    "rewards": [{"use": "tests/loops/length_reward.py:spread"}],
    "algorithm": {"loss": "online_dpo"},
    "train": {"steps": 3, "prompts_per_step": 3, "learning_rate": 1e-3, "save_steps": 0, "micro_batch_tokens": 400},
    "log": {"tensorboard": False},
}
JUDGED = ["online_dpo", "rebel", "dno", "inpo", "xpo", "lipo_lambda"]


def group(*rewards, name="p", demonstration=()):
    """A prompt whose samples are the tokens 10, 11, ..."""
    prompt = Prompt(id=name, messages=(), token_ids=(1, 2), demonstration=demonstration)
    samples = []
    for index, reward in enumerate(rewards):
        completion = Completion(
            prompt_index=0, sample_index=index, token_ids=(10 + index,), logprobs=(0.0,), text="", finish_reason="stop"
        )
        samples.append(Scored(rollout=Rollout(prompt=prompt, completion=completion), verdicts={}, reward=reward))
    return Group(prompt=prompt, samples=tuple(samples))


def outcomes(pairs):
    return [(pair.chosen_ids[0] - 10, pair.rejected_ids[0] - 10, pair.margin) for pair in pairs]


def test_the_best_against_the_worst():
    groups = [group(0.5, 2.0, 1.0), group(1.0, 1.0), group(math.nan, 3.0, 1.0), group(math.nan, 1.0)]
    assert outcomes(ranked_pairs(groups, Online())) == [(1, 0, 1.5), (1, 2, 2.0)]
    assert outcomes(ranked_pairs(groups, Online(min_margin=2.0))) == [(1, 2, 2.0)]


def test_all_pairs_that_differ():
    assert outcomes(ranked_pairs([group(0.0, 2.0, 0.0)], Online(pairs="all"))) == [(1, 0, 2.0), (1, 2, 2.0)]


def test_the_policy_against_the_reference():
    pairs, by_reference = crossed_pairs([group(1.0, 0.0, 5.0, math.nan)], [group(0.0, 2.0, 5.0, 1.0)], Online())
    assert (outcomes(pairs), by_reference) == ([(0, 0, 1.0), (1, 1, 2.0)], [False, True])
    batch = Drawn(groups=[], items=list(pairs), by_reference=by_reference).pack(None)
    assert batch.by_reference_B is not None
    assert batch.by_reference_B.tolist() == [False, True, True, False]  # chosen, rejected of each pair


def test_the_demonstration_against_each_other_answer():
    pairs = demonstrated_pairs([group(math.nan, math.nan, demonstration=(11,))])
    assert [(pair.chosen_ids, pair.rejected_ids) for pair in pairs] == [((11,), (10,))]


def test_lists_of_what_was_judged():
    (ranking,) = rankings([group(1.0, math.nan, 0.0), group(1.0, 1.0)])
    assert (ranking.completions_G, ranking.scores_G) == (((10,), (12,)), (1.0, 0.0))


def test_the_record_tells_who_won():
    groups = [group(0.0, 2.0, 1.0)]
    drawn = Drawn(groups=groups, items=list(ranked_pairs(groups, Online(pairs="all"))))
    assert drawn.choices() == [[-2.0, 2.0, 0.0]]


@pytest.mark.parametrize("loss", ["online_dpo", "xpo"])
def test_a_run(resolved, loss):
    _run(resolved, loss)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [*JUDGED, "dpo", "kto", "simpo", "aot"])
def test_every_loss_raises_the_reward(resolved, loss):
    """What is rewarded is the share of digits."""
    rows = _run(
        resolved,
        loss,
        train={"steps": 30, "prompts_per_step": 8, "learning_rate": 4e-3},
        rollout={"num_generations": 8},
        online={} if loss in ("xpo", "lipo_lambda") else {"pairs": "all"},
        algorithm={"beta": 2.0 if loss == "simpo" else 0.1, "knobs": {"alpha": 1e-4} if loss == "xpo" else {}},
    )
    assert sum(row["reward"] for row in rows[-5:]) / 5 > 0.05 + sum(row["reward"] for row in rows[:5]) / 5


def _run(resolved, loss, **changes):
    recipe = resolved(merged(ONLINE, {"algorithm": {"loss": loss}}), **changes)
    preference.train(recipe)
    rows = kept(Path(recipe.recipe.output_dir))
    assert all(row["pairs"] == 0 or math.isfinite(row["loss"]) for row in rows)
    assert {"reward", "rewards/spread/mean", "completions/mean_length"} <= rows[0].keys()
    return rows


def test_what_was_drawn_is_recorded(resolved):
    recipe = resolved(ONLINE, train={"steps": 1}, rollout={"num_generations": 8})
    preference.train(recipe)
    table = pq.read_table(Path(recipe.recipe.output_dir) / "rollouts" / "step-000001.parquet").to_pylist()
    assert len(table) == 3 * 8
    by_prompt: dict[str, list] = {}
    for row in table:
        by_prompt.setdefault(row["prompt_id"], []).append(row)
    for rows in by_prompt.values():
        if len({row["reward"] for row in rows}) > 1:
            won = [row["reward"] for row in rows if row["advantage"] > 0]
            lost = [row["reward"] for row in rows if row["advantage"] < 0]
            assert won == [max(row["reward"] for row in rows)]
            assert lost == [min(row["reward"] for row in rows)]


def test_self_play_against_demonstrations_in_rounds(resolved):
    recipe = resolved(
        ONLINE,
        online={"pairs": "demonstrated", "new_reference_every": 2},
        rewards=[],
        rollout={"num_generations": 2, "max_completion_length": 24},
        train={"steps": 6, "learning_rate": 5e-3},
    )
    preference.train(recipe)
    rows = kept(Path(recipe.recipe.output_dir))
    assert [row["loss"] == pytest.approx(math.log(2), abs=1e-4) for row in rows] == [
        True,
        False,
    ] * 3  # a round begins at margin 0
    assert rows[-1]["logps/chosen"] > rows[0]["logps/chosen"]
    assert "reward" not in rows[0]


def test_rebel_takes_demonstrations_to_be_better_by_one(resolved):
    """Nothing judges them, so that there is no difference of rewards to regress."""
    recipe = resolved(
        ONLINE,
        online={"pairs": "demonstrated"},
        rewards=[],
        algorithm={"loss": "rebel"},
        rollout={"num_generations": 1, "max_completion_length": 24},
        train={"steps": 1},
    )
    preference.train(recipe)
    (row,) = kept(Path(recipe.recipe.output_dir))
    assert row["pairs"] == 3
    assert row["loss"] == pytest.approx(1.0, abs=1e-4)  # (0 - 1)^2: the policy is the reference


def test_margins_that_are_asked_for_must_be_in_the_stored_pairs(resolved, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": "1+1", "chosen": "2", "rejected": "x"}))
    recipe = resolved(
        ONLINE,
        data={"train": [{"path": str(file)}]},
        rewards=[],
        algorithm={"loss": None, "losses": [{"loss": "hypo"}, {"loss": "dpo"}], "margin_scale": 1.0},
        train={"prompts_per_step": 1},
    )
    with pytest.raises(DataError, match="margin_scale needs margins, and pairs:0 has none"):
        preference.train(recipe)


def test_stored_pairs_with_a_kl_on_the_policys_samples(resolved, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": f"{n}+1", "chosen": str(n + 1), "rejected": "x"}) for n in range(1, 9)))
    recipe = resolved(
        ONLINE,
        data={"train": [{"path": str(file)}]},
        rewards=[],
        algorithm={"loss": "hypo", "knobs": {"kl_weight": 0.1}},
        train={"micro_batch_tokens": 60, "learning_rate": 1e-2, "steps": 4},
    )
    preference.train(recipe)
    rows = kept(Path(recipe.recipe.output_dir))
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-5)
    assert rows[-1]["kl"] != 0.0
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[0]["micro_batches"] > 1


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": {"loss": "inpo"}, "online": {"new_reference_every": 2}, "train": {"epochs": 2, "minibatches": 3}},
        {"algorithm": {"loss": "xpo"}},
    ],
)
def test_an_interrupted_run_goes_on_bit_for_bit(resolved, tmp_path, monkeypatch, changes):
    base = merged(ONLINE, merged({"train": {"steps": 5, "save_steps": 2}}, changes))
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
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole")
    one, other = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name / "checkpoints" / "step-000005").state_dict()
        for name in ("cut", "whole")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
