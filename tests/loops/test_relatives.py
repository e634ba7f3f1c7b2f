"""What a step trains on beyond plain groups: greedy baselines, chosen samples, demonstrations, a teacher, a moving reference."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from align.algorithms.methods import resolve
from align.errors import DataError, RecipeError
from align.learner.fresh import build_model, train_tokenizer
from align.loops import rl
from align.loops.batches import credited, dense_rewards, pack, step_rewards
from align.recipe.schema import ModelInit
from align.rewards.verdict import Verdict
from align.types import Completion, Group, Prompt, Rollout, Scored
from tests.loops.conftest import MODEL, PROBLEMS, RL

SHORT = {"steps": 2, "prompts_per_step": 3}
OF_DIGITS = "tests/loops/length_reward.py:spread"


def run_of(recipe) -> Path:
    return Path(recipe.recipe.output_dir)


def metrics_of(recipe) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_of(recipe) / "metrics.jsonl").read_text().splitlines()]


def samples_of(recipe, step=1) -> list[dict[str, Any]]:
    return pq.read_table(run_of(recipe) / "rollouts" / f"step-{step:06d}.parquet").to_pylist()


def by_prompt(rows) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["prompt_id"], []).append(row)
    return groups


def test_remax_compares_with_the_greedy_sample(resolved):
    recipe = resolved(RL, algorithm={"method": "remax", "beta": 0.0}, train=SHORT)
    rl.train(recipe)
    greedy_rewards = []
    for rows in by_prompt(samples_of(recipe)).values():
        (greedy,) = (row for row in rows if row["used_step"] is None)
        used = [row for row in rows if row["used_step"] == 1]
        assert len(used) == 4
        assert greedy["sample_index"] == 5
        greedy_rewards.append(greedy["reward"])
        for row in used:
            assert row["advantage"] == pytest.approx(row["reward"] - greedy["reward"], abs=1e-6)
    row = metrics_of(recipe)[0]
    assert row["greedy/reward"] == pytest.approx(sum(greedy_rewards) / 3)
    assert row["reward"] == pytest.approx(sum(r["reward"] for r in samples_of(recipe) if r["used_step"] == 1) / 12)
    assert row["num_tokens"] == sum(one["prompt_tokens"] + one["completion_tokens"] for one in samples_of(recipe))


def test_one_sample_is_enough_for_remax(resolved):
    recipe = resolved(RL, algorithm={"method": "remax"}, rollout={"num_generations": 1}, train=SHORT)
    assert rl.train(recipe)["steps"] == 2


def test_the_best_and_the_worst_are_trained_on(resolved):
    algorithm = {"method": "grpo", "beta": 0.0, "train_on": {"samples": 2, "by": "best_worst"}}
    recipe = resolved(RL, algorithm=algorithm, rollout={"num_generations": 6}, train=SHORT)
    rl.train(recipe)
    rows = samples_of(recipe)
    for group in by_prompt(rows).values():
        used = sorted(row["reward"] for row in group if row["used_step"] == 1)
        rewards = [row["reward"] for row in group]
        assert used == [min(rewards), max(rewards)]
        assert len(group) == 6
        assert sum(row["advantage"] for row in group if row["used_step"] == 1) == pytest.approx(0, abs=1e-5)
    assert metrics_of(recipe)[0]["reward"] == pytest.approx(sum(row["reward"] for row in rows) / 18)  # of all that was sampled


def test_oversampling_keeps_the_prompts_that_say_most(resolved):
    algorithm = {"method": "dr_grpo", "oversample": 1.9}
    recipe = resolved(RL, algorithm=algorithm, train=SHORT)
    rl.train(recipe)
    groups = by_prompt(samples_of(recipe))
    assert len(groups) == math.ceil(1.9 * 3)

    def spread(rows):
        return torch.tensor([row["reward"] for row in rows], dtype=torch.float64).var(unbiased=False).item()

    used = [spread(rows) for rows in groups.values() if rows[0]["used_step"] == 1]
    others = [spread(rows) for rows in groups.values() if rows[0]["used_step"] is None]
    assert len(used) == 3
    assert min(used) >= max(others)


JUDGED = {"rewards": [{"use": "task"}]}  # a fresh model is never right, so that a group has no signal of its own


@pytest.mark.parametrize("mode", ["shaped", pytest.param("mixture", marks=pytest.mark.slow)])
def test_demonstrations_are_judged_recorded_and_learned(resolved, mode):
    """Nobody but the demonstration is ever right: what is learned is learned from it."""
    algorithm = {"method": "dr_grpo", "demonstrations": {"mode": mode}, "mismatch": {"mode": "token_truncate"}}
    train = {"steps": 40, "prompts_per_step": 8, "learning_rate": 8e-3}
    recipe = resolved(RL, **JUDGED, rollout={"max_completion_length": 14}, algorithm=algorithm, train=train)
    rl.train(recipe)
    for rows in by_prompt(samples_of(recipe)).values():
        assert len(rows) == 5
        (shown,) = (row for row in rows if row["weights_version"] == -1)
        assert shown["reward"] == 1.0
        assert shown["completion"].endswith("so " + str(eval(shown["prompt"])))
        assert shown["advantage"] > 0 > min(row["advantage"] for row in rows)
    first = metrics_of(recipe)[0]
    assert first["demonstrations/reward"] == 1.0
    assert first["reward"] == 0.0  # demonstrations are not the policy's doing
    assert first["mismatch/prob_diff_max"] < 1e-3  # and were not drawn by the sampler
    text = [row["completion"] for row in samples_of(recipe, 40) if row["weights_version"] != -1]
    assert sum("so" in one for one in text) > len(text) / 4  # what random weights never write


def test_demonstrations_that_do_not_fit_end_the_run_before_it_starts(resolved):
    algorithm = {"method": "dr_grpo", "demonstrations": {}}
    with pytest.raises(DataError, match="no row has a demonstration of at most"):
        rl.train(resolved(RL, **JUDGED, algorithm=algorithm, rollout={"max_completion_length": 3}))


def test_raft_learns_from_the_best_sample_alone(resolved):
    recipe = resolved(RL, algorithm={"method": "raft"}, train=SHORT)
    rl.train(recipe)
    for rows in by_prompt(samples_of(recipe)).values():
        rewards = [row["reward"] for row in rows]
        best = rewards.index(max(rewards))
        assert [row["advantage"] for row in rows] == [
            float(place == best and len(set(rewards)) > 1) for place in range(len(rows))
        ]


def stored_model(folder: Path, seed: int, texts=("1+2=3 so 3",), certainty: float = 1.0) -> Path:
    """A model of random weights, whose logits are `certainty` times as large."""
    init = ModelInit(**MODEL["init"])
    tokenizer = train_tokenizer(init.tokenizer, texts)
    model = build_model(init, tokenizer, seed)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(certainty)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def from_stored(path: Path) -> dict[str, Any]:
    return {"init": None, "path": str(path)}


def test_a_teacher_is_approached_whatever_the_rewards(resolved, tmp_path):
    student, teacher = stored_model(tmp_path / "student", 0), stored_model(tmp_path / "teacher", 0, certainty=5)
    reward = tmp_path / "none.py"
    reward.write_text("def none(completions, **_):\n    return [None for _ in completions]\n")  # no verdict at all
    recipe = resolved(
        RL,
        model=from_stored(student),
        algorithm={"method": "distill", "teacher": {"path": str(teacher)}},
        rewards=[{"use": f"{reward}:none"}],
        rollout={"num_generations": 8},
        train={"steps": 20, "prompts_per_step": 32, "learning_rate": 1e-2},
    )
    rl.train(recipe)
    gaps = [row["teacher/kl"] for row in metrics_of(recipe)]
    assert 0 < sum(gaps[-3:]) < 0.7 * sum(gaps[:3])


def test_a_teacher_beside_the_rewards_changes_the_advantages(resolved, tmp_path):
    student, teacher = stored_model(tmp_path / "student", 0), stored_model(tmp_path / "teacher", 1)
    advantages = []
    for name, pieces in (("alone", {}), ("taught", {"teacher": {"path": str(teacher), "coefficient": 0.5}})):
        recipe = resolved(
            RL, model=from_stored(student), output_dir=str(tmp_path / name), train={"steps": 1},
            algorithm={"method": "dr_grpo", **pieces},
        )  # fmt: skip
        rl.train(recipe)
        advantages.append(torch.tensor([row["advantage"] for row in samples_of(recipe)]))
    assert (advantages[0] - advantages[1]).abs().max() > 1e-3


def test_a_teacher_that_reads_other_tokens_is_refused(resolved, tmp_path):
    student, teacher = stored_model(tmp_path / "student", 0), stored_model(tmp_path / "teacher", 0, texts=("abc abc abc",) * 9)
    recipe = resolved(RL, model=from_stored(student), algorithm={"method": "distill", "teacher": {"path": str(teacher)}})
    with pytest.raises(RecipeError, match="another tokenizer than the policy") as error:
        rl.train(recipe)
    assert error.value.place == "algorithm.teacher.path"


def test_a_reference_that_is_replaced_is_the_policy_again(resolved):
    algorithm = {"method": "grpo", "beta": 0.001, "reference": {"every": 3, "mix": 1.0}}
    recipe = resolved(RL, algorithm=algorithm, train={"steps": 8, "learning_rate": 3e-3})
    rl.train(recipe)
    kl = [row["kl"] for row in metrics_of(recipe)]
    for fresh in (0, 3, 6):
        assert kl[fresh] == pytest.approx(0, abs=1e-6)
    for moved in (2, 5):
        assert kl[moved] > 1e-5


def test_a_reference_that_follows_stays_nearer(resolved, tmp_path):
    kl = {}
    for name, pieces in (("frozen", {}), ("following", {"reference": {"every": 1, "mix": 0.5}})):
        recipe = resolved(
            RL, output_dir=str(tmp_path / name), algorithm={"method": "grpo", "beta": 0.001, **pieces},
            train={"steps": 8, "learning_rate": 3e-3},
        )  # fmt: skip
        rl.train(recipe)
        kl[name] = metrics_of(recipe)[-1]["kl"]
    assert 0 < kl["following"] < 0.7 * kl["frozen"]


def test_an_entropy_target_raises_the_bonus_while_entropy_is_below(resolved):
    algorithm = {"method": "grpo", "beta": 0.0, "entropy_target": 9.0, "entropy_increment": 0.25}
    recipe = resolved(RL, algorithm=algorithm, train={"steps": 3})
    rl.train(recipe)
    assert [row["entropy_coefficient"] for row in metrics_of(recipe)] == [0.0, 0.25, 0.5]


def test_an_entropy_that_is_not_finite_moves_no_bonus(resolved, monkeypatch):
    honest = rl.step_metrics

    def broken(*args, step, **named):
        return honest(*args, step=step, **named) | ({"entropy": math.nan} if step == 1 else {})

    monkeypatch.setattr(rl, "step_metrics", broken)
    algorithm = {"method": "grpo", "beta": 0.0, "entropy_target": 9.0, "entropy_increment": 0.25}
    recipe = resolved(RL, algorithm=algorithm, train={"steps": 3})
    rl.train(recipe)
    assert [row["entropy_coefficient"] for row in metrics_of(recipe)] == [0.0, 0.0, 0.25]


INTERRUPTED: dict[str, dict[str, Any]] = {
    "reference replaced": {"method": "grpo", "beta": 0.01, "reference": {"every": 2, "reset_optimizer": True}},
    "reference mixed": {"method": "rloo", "reference": {"every": 1, "mix": 0.3}},
    "chosen by chance": {"method": "grpo", "train_on": {"samples": 2, "by": "best_random"}},
    "demonstrations, entropy, greedy": {
        "method": "remax", "demonstrations": {}, "entropy_target": 3.0, "entropy_mask": 0.5, "oversample": 1.3,
    },
    "sentences": {"method": "grpo", "macro_actions": {"by": "sentence"}},
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [name if name.startswith(("reference r", "demon")) else pytest.param(name, marks=pytest.mark.slow) for name in INTERRUPTED],
)
def test_an_interrupted_run_resumes_bit_for_bit(resolved, tmp_path, monkeypatch, name):
    class Stopped(Exception):
        pass

    found = []
    honest = rl.collect
    for stop in (0, 4):
        folder = tmp_path / str(stop)
        recipe = resolved(
            RL, output_dir=str(folder), algorithm=INTERRUPTED[name], rollout={"max_completion_length": 16},
            train={"steps": 5, "save_steps": 3, "learning_rate": 3e-3},
        )  # fmt: skip
        if stop:

            def interrupted(recipe, site, method, step, phase):
                if step == 4:
                    raise Stopped
                return honest(recipe, site, method, step, phase)

            monkeypatch.setattr(rl, "collect", interrupted)
            with pytest.raises(Stopped):
                rl.train(recipe)
            monkeypatch.setattr(rl, "collect", honest)
        rl.train(recipe, resume=bool(stop))
        clocks = ("time", "elapsed", "per_second")
        rows = [
            {key: value for key, value in row.items() if not any(word in key for word in clocks)} for row in metrics_of(recipe)
        ]
        weights = load_file(folder / "checkpoints" / "step-000005" / "model.safetensors")
        found.append((rows, weights, [samples_of(recipe, step) for step in range(1, 6)]))
    (rows, weights, samples), (rows_again, weights_again, samples_again) = found
    assert rows == rows_again
    assert samples == samples_again
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)


def scored(tokenizer, text: str, reward: float, *, steps=(), demonstrated=False) -> Scored:
    ids = (*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id)
    completion = Completion(
        prompt_index=0, sample_index=0, token_ids=ids, logprobs=(-1.0,) * len(ids), text=text, finish_reason="stop"
    )
    verdict = Verdict(value=reward, status="pass", steps=steps)
    rollout = Rollout(prompt=Prompt(id="p", messages=(), token_ids=(7, 8)), completion=completion, demonstrated=demonstrated)
    return Scored(rollout=rollout, verdicts={"task": verdict}, reward=reward)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(ModelInit(**MODEL["init"]).tokenizer, ["one two. three"])


def group(*samples) -> Group:
    return Group(prompt=samples[0].rollout.prompt, samples=samples)


def test_the_least_step_to_come_is_what_a_token_is_worth(resolved, tokenizer):
    """Process rewards at the tokens where the steps end; the end of the turn belongs to the last one."""
    from types import SimpleNamespace

    good, bad = "1+1=2 so 2", "1+1=3 so 3"
    groups = [
        group(scored(tokenizer, good, 1.0, steps=((5, 1.0), (10, 1.0))), scored(tokenizer, bad, 0.0, steps=((5, 0.0), (10, 1.0))))
    ]
    method = resolve("dr_grpo", advantage="min_form", baseline="mean")
    rewards = torch.tensor([[1.0, 0.0]])
    batch = pack(groups, rewards, method)
    site: Any = SimpleNamespace(tokenizer=tokenizer)
    found = step_rewards(groups, batch, site, resolved(RL, rewards=[{"use": OF_DIGITS, "name": "task", "weight": 2.0}]).recipe)
    assert found is not None
    at = (~found.isnan()).nonzero().flatten().tolist()
    length = len(tokenizer.encode(good, add_special_tokens=False)) + 1 + 2
    assert [float(found[place]) for place in at] == [2.0, 2.0, 0.0, 2.0]
    assert (at[1], at[3]) == (length - 1, 2 * length - 1)
    assert tokenizer.decode(batch.token_ids_N[2 : at[0] + 1]) == "1+1=2"
    credit = method.credit(rewards, None, batch.segment_N, batch.mask_N, step_rewards_N=found)
    first, second = credit.advantage_N[2:length], credit.advantage_N[length + 2 :]
    assert first.unique().tolist() == [1.0]  # 2, above the mean of the worst steps, 1
    wrong = at[2] - length - 2
    assert second[: wrong + 1].unique().tolist() == [-1.0]
    assert second[wrong + 1 :].unique().tolist() == [1.0]  # right from there on


def test_steps_that_end_in_one_token_are_worth_the_least_of_them(resolved, tokenizer):
    from types import SimpleNamespace

    text = "one two. three"
    first, *_ = tokenizer.encode(text, add_special_tokens=False)
    assert len(tokenizer.decode([first])) > 2
    groups = [group(scored(tokenizer, text, 1.0, steps=((1, 0.75), (2, 0.25), (len(text), 1.0))))]
    batch = pack(groups, torch.tensor([[1.0]]), resolve("grpo"))
    site: Any = SimpleNamespace(tokenizer=tokenizer)
    found = step_rewards(groups, batch, site, resolved(RL, rewards=[{"use": OF_DIGITS, "name": "task", "weight": 2.0}]).recipe)
    assert found is not None
    assert found[~found.isnan()].tolist() == [0.5, 2.0]
    assert float(found[2]) == 0.5  # the first token of the completion


def test_dense_rewards_stand_where_steps_and_spans_end(resolved, tokenizer):
    from types import SimpleNamespace

    text = "1+1=2 so 2"
    judged = scored(tokenizer, text, 1.0, steps=((5, 1.0), (10, 0.5)))
    spans = Verdict(value=1.0, status="pass", spans=((0, 5, -1.0), (4, 5, 0.25)))
    sample = replace(judged, verdicts={**judged.verdicts, "spans": spans, "other": spans})
    groups = [group(sample)]
    batch = pack(groups, torch.tensor([[1.0]]), resolve("grpo"))
    site: Any = SimpleNamespace(tokenizer=tokenizer)
    (name,) = judged.verdicts
    found = dense_rewards(groups, batch, site, {name: 2.0, "spans": 4.0})
    at = found.nonzero().flatten().tolist()
    assert [float(found[place]) for place in at] == [2.0 * 1.0 + 4.0 * (-1.0 + 0.25), 2.0 * 0.5]
    assert tokenizer.decode(batch.token_ids_N[2 : at[0] + 1]) == "1+1=2"
    assert (dense_rewards(groups, batch, site, {"absent": 1.0}) == 0).all()


def test_without_process_rewards_there_are_no_steps(resolved, tokenizer):
    from types import SimpleNamespace

    groups = [group(scored(tokenizer, "so 2", 1.0), scored(tokenizer, "so 3", 0.0))]
    batch = pack(groups, torch.tensor([[1.0, 0.0]]), resolve("grpo"))
    site: Any = SimpleNamespace(tokenizer=tokenizer)
    assert step_rewards(groups, batch, site, resolved(RL).recipe) is None


def test_sentences_end_at_their_last_token(tokenizer):
    method = resolve("grpo", macro_actions={"by": "sentence"})
    groups = [group(scored(tokenizer, "one two. three", 1.0), scored(tokenizer, "one", 0.0))]
    batch = pack(groups, torch.tensor([[1.0, 0.0]]), method, tokenizer)
    assert batch.ends_N is not None
    (end,) = batch.ends_N.nonzero().flatten().tolist()
    assert tokenizer.decode(batch.token_ids_N[2 : end + 1]) == "one two."


def test_the_entropy_mask_takes_its_share_of_the_whole_step(tokenizer):
    method = resolve("grpo", entropy_mask=0.25)
    groups = [group(scored(tokenizer, "one two. three", 1.0), scored(tokenizer, "one two. three", 0.0))]
    rewards = torch.tensor([[1.0, 0.0]])
    batch = pack(groups, rewards, method)
    entropy_N = torch.arange(len(batch.mask_N)).float() * batch.mask_N
    batch = credited(batch.replace(entropy_N=entropy_N), method.credit(rewards, None, batch.segment_N, batch.mask_N), method)
    trained = int(batch.mask_N.sum())
    assert batch.weight_N is not None
    assert batch.weight_N.sum() == round(0.25 * trained)
    assert batch.weight_N[-1] == 1
    assert batch.mask_N.sum() == trained  # the others stay in the denominator


def test_demonstrations_are_marked_and_no_sample_of_the_policy(tokenizer):
    method = resolve("dr_grpo", demonstrations={"mode": "shaped"})
    groups = [group(scored(tokenizer, "one", 0.0), scored(tokenizer, "two", 1.0, demonstrated=True))]
    batch = pack(groups, torch.tensor([[0.0, 1.0]]), method)
    assert batch.demonstrated_B is not None
    assert batch.demonstrated_B.tolist() == [False, True]
    assert torch.equal(batch.drawn_N, batch.mask_N & (batch.segment_N == 0))


def test_no_verdict_is_no_obstacle_to_distillation(tokenizer):
    groups = [group(scored(tokenizer, "one", 0.0), scored(tokenizer, "two", 0.0))]
    none = torch.full((1, 2), torch.nan)
    assert pack(groups, none, resolve("distill")).mask_N.any()
    assert not pack(groups, none, resolve("grpo")).mask_N.any()


def test_truncated_answers_of_methods_are_still_sampled_anew(resolved):
    """Dynamic sampling with oversampling draws more at once and keeps no more than it needs."""
    recipe = resolved(RL, algorithm={"method": "dapo", "oversample": 2.0, "max_resamples": 2}, train=SHORT)
    rl.train(recipe)
    used = {row["prompt_id"] for row in samples_of(recipe) if row["used_step"] == 1}
    assert len(used) == 3
    assert len({row["prompt_id"] for row in samples_of(recipe)}) >= 6
    assert PROBLEMS["size"] >= 6
