"""Modes overlap and async: the prompts of sync in the order of sync, samples that are at most so old, and runs that resume."""

import json
import signal
from itertools import count
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from align.errors import Preempted, RecipeError, RewardError
from align.loops import rl
from align.loops.preference import train as train_preference
from align.loops.session import Session
from align.recipe.method import recipe_method
from tests.loops.conftest import RL, kept

LONG = {"rollout": {"max_completion_length": 40, "parity_every": 2}, "train": {"steps": 6, "save_steps": 2}}


def samples(recipe, steps):
    """The records, without the values of single tokens."""
    folder = Path(recipe.recipe.output_dir) / "rollouts"
    rows = [pq.read_table(folder / f"step-{step:06d}.parquet").to_pylist() for step in range(1, steps + 1)]
    return [[{key: row[key] for key in row if not key.startswith("tokens/")} for row in step] for step in rows]


def prompts_of(recipe, steps):
    return [list(dict.fromkeys(row["prompt_id"] for row in rows)) for rows in samples(recipe, steps)]


@pytest.fixture
def run(resolved, tmp_path):
    """Train in a mode, in a folder of its own."""
    numbers = count()

    def train(mode, **changes):
        changes = {"output_dir": str(tmp_path / f"{mode}-{next(numbers)}"), **changes}
        changes["rollout"] = {**LONG["rollout"], "mode": mode, **changes.get("rollout", {})}
        recipe = resolved(RL, **{"train": LONG["train"], **changes})
        rl.train(recipe)
        return recipe

    return train


@pytest.mark.parametrize(("mode", "behind"), [("overlap", 1), ("async", 3)])
def test_every_step_trains_on_its_own_prompts_with_all_their_samples(run, mode, behind):
    plain, ahead = run("sync"), run(mode, rollout={"max_staleness": 3})
    assert prompts_of(ahead, 6) == prompts_of(plain, 6)
    assert samples(ahead, 1)[0] == samples(plain, 1)[0]  # the first step's are of the first weights in any mode
    rows = kept(Path(ahead.recipe.output_dir))
    for step, (row, recorded) in enumerate(zip(rows, samples(ahead, 6), strict=True), start=1):
        assert len(recorded) == 3 * 4
        assert {sample["sample_index"] for sample in recorded} == set(range(4))
        assert row["staleness/max"] <= min(behind, step - 1)
        assert all(step - 1 - behind <= sample["weights_version"] <= step - 1 for sample in recorded)
        assert ("parity/mean" in row) == (step in (1, 2, 4, 6))
    assert max(row["staleness/max"] for row in rows) >= 1
    assert all(row["parity/mean"] < 1e-5 for row in rows if "parity/mean" in row)
    assert max(row["mismatch/prob_diff_mean"] for row in rows) > 1e-5  # older weights are others: the samples are weighed
    timed = [json.loads(line) for line in (Path(ahead.recipe.output_dir) / "metrics.jsonl").read_text().splitlines()]
    assert all({"time/wait", "time/generate", "time/score", "engine/idle"} <= row.keys() for row in timed)


def test_overlap_trains_on_whole_samples_of_the_weights_before(run):
    recipe = run("overlap")
    for step, recorded in enumerate(samples(recipe, 6), start=1):
        assert {sample["weights_version"] for sample in recorded} == {max(0, step - 2)}
    again = run("overlap")  # what is written when, and beside what, changes nothing but the rounding
    texts = [[[row["completion"] for row in rows] for rows in samples(one, 6)] for one in (recipe, again)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("mode", ["overlap", "async"])
def test_a_stopped_run_goes_on_with_the_prompts_that_were_not_used(run, resolved, monkeypatch, mode):
    plain = run("sync")
    changes = {"output_dir": str(Path(plain.recipe.output_dir).parent / "stopped"), "train": LONG["train"]}
    recipe = resolved(RL, rollout={**LONG["rollout"], "mode": mode}, **changes)
    end = Session.end_step

    def stopping(session, step, *arguments, **options):
        if step == 3:
            signal.raise_signal(signal.SIGTERM)
        end(session, step, *arguments, **options)

    monkeypatch.setattr(Session, "end_step", stopping)
    with pytest.raises(Preempted):
        rl.train(recipe)
    monkeypatch.undo()
    rl.train(recipe, resume=True)
    assert prompts_of(recipe, 6) == prompts_of(plain, 6)
    assert kept(Path(recipe.recipe.output_dir))[3]["staleness/max"] == 0  # sampled anew, from the weights of the checkpoint


def test_a_step_that_draws_again_uses_no_prompt_twice(run):
    """Dynamic sampling beside training: which step a prompt comes to may vary, that it comes once may not."""
    recipe = run("async", algorithm={"method": "dapo"})
    drawn = [prompt for step in prompts_of(recipe, 6) for prompt in step]
    state = json.loads((Path(recipe.recipe.output_dir) / "checkpoints/step-000006/trainer/state.json").read_text())
    assert state["parts"]["cursor"]["returned"] == []
    assert len(drawn) == sum(state["parts"]["cursor"]["given"])
    first = drawn[: min(40, len(drawn))]  # an epoch
    assert len(set(first)) == len(first)


def test_a_broken_reward_stops_the_run_though_it_fails_beside_it(run):
    with pytest.raises(RewardError, match="broken"):
        run("async", rewards=[{"use": "tests/loops/prompt_reward.py:broken"}])


def test_samples_of_older_weights_are_weighed_unless_the_recipe_says_how(resolved):
    assert recipe_method(resolved(RL)).mismatch is None
    weighed = recipe_method(resolved(RL, rollout={"mode": "async"})).mismatch
    assert weighed is not None
    assert (weighed.mode, weighed.high) == ("token_truncate", 2.0)
    own = resolved(RL, rollout={"mode": "async"}, algorithm={"mismatch": {"mode": "geometric_mask", "low": 0.9, "high": 1.1}})
    chosen = recipe_method(own).mismatch
    assert chosen is not None
    assert chosen.mode == "geometric_mask"


def test_online_preferences_have_the_same_modes(resolved):
    base = {key: RL[key] for key in ("model", "data", "rollout", "rewards", "train", "log")}
    online = {"recipe": "preference", "online": {}, **base}
    recipe = resolved(online, rollout={"mode": "overlap"}, train={"steps": 3})
    train_preference(recipe)
    rows = kept(Path(recipe.recipe.output_dir))
    assert len(rows) == 3
    versions = [{sample["weights_version"] for sample in recorded} for recorded in samples(recipe, 3)]
    assert versions == [{0}, {0}, {1}]
    with pytest.raises(RecipeError, match="xpo samples from the reference"):
        resolved(online, rollout={"mode": "async"}, algorithm={"loss": "xpo"})


def test_an_engine_cannot_sleep_while_it_writes_beside_training(resolved):
    with pytest.raises(RecipeError, match="cannot sleep meanwhile"):
        resolved(RL, rollout={"mode": "overlap", "vllm": {"sleep": True}})
