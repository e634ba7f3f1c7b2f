"""The reinforcement learning loop, whole: methods, records, what is not trained on, what a cut of the step may not change."""

import json
import math
from typing import Any, cast

import pyarrow.parquet as pq
import pytest
import torch

from align.algorithms.methods import resolve
from align.algorithms.names import METHOD_NAMES
from align.errors import RewardError, RolloutError
from align.loops import rl
from align.loops.rollouts import Harvest
from align.rewards.verdict import Verdict
from align.types import Completion, Group, Prompt, Rollout, Scored
from tests.loops.conftest import RL


def metrics_of(resolved_recipe):
    file = rl_run(resolved_recipe) / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def rl_run(resolved_recipe):
    from pathlib import Path

    return Path(resolved_recipe.recipe.output_dir)


@pytest.mark.parametrize("method", [name for name in METHOD_NAMES if name != "distill"])  # which needs a teacher
def test_every_method_runs_and_reports_under_known_names(resolved, method):
    recipe = resolved(RL, algorithm={"method": method}, train={"steps": 2, "minibatches": 3, "epochs": 2})
    summary = rl.train(recipe)
    assert (summary["status"], summary["steps"]) == ("done", 2)
    rows = metrics_of(recipe)
    assert len(rows) == 2
    for key in (
        "reward", "reward_std", "loss", "entropy", "grad_norm", "learning_rate", "num_tokens", "step_time",
        "completions/mean_length", "completions/clipped_ratio", "clip_ratio/high_mean", "frac_reward_zero_std",
        "rewards/spread/mean", "mismatch/prob_diff_max", "time/generate", "time/update",
    ):  # fmt: skip
        assert math.isfinite(rows[1][key]), key
    assert ("kl" in rows[1]) == (resolve(method).kl is not None)
    assert rows[1]["num_tokens"] > rows[0]["num_tokens"] > 0


def test_the_reward_rises(resolved):
    recipe = resolved(RL, train={"steps": 25, "prompts_per_step": 8, "learning_rate": 5e-3}, algorithm={"beta": 0.0})
    rl.train(recipe)
    rewards = [row["reward"] for row in metrics_of(recipe)]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.2


def test_every_sample_is_recorded(resolved):
    recipe = resolved(RL, train={"steps": 1})
    rl.train(recipe)
    table = pq.read_table(rl_run(recipe) / "rollouts" / "step-000001.parquet").to_pylist()
    assert len(table) == 3 * 4
    for row in table:
        assert row["rewards/spread/value"] == pytest.approx(row["reward"])
        assert row["used_step"] == 1
        assert 0 < row["completion_tokens"] <= 8
    by_prompt: dict[str, list[float]] = {}
    for row in table:
        by_prompt.setdefault(row["prompt_id"], []).append(row["advantage"])
    for advantages in by_prompt.values():
        assert sum(advantages) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("method", ["dr_grpo", "rebel"])  # the second one looks at all samples at once
def test_how_a_step_is_cut_changes_nothing(resolved, tmp_path, method):
    """Same rollouts, same losses: the curves stay together to rounding."""
    curves = []
    for name, train in (("whole", {}), ("cut", {"micro_batch_tokens": 40})):
        recipe = resolved(RL, output_dir=str(tmp_path / name), train={"steps": 3, **train}, algorithm={"method": method})
        rl.train(recipe)
        curves.append([(row["reward"], row["loss"], row["grad_norm"]) for row in metrics_of(recipe)])
    for whole, cut in zip(*curves, strict=True):
        assert cut == pytest.approx(whole, rel=2e-3, abs=2e-6)


def scored(reward, tokens=2, finish="stop"):
    completion = Completion(
        prompt_index=0,
        sample_index=0,
        token_ids=tuple(range(tokens)),
        logprobs=(-1.0,) * tokens,
        text="",
        finish_reason=finish,
    )
    prompt = Prompt(id="p", messages=(), token_ids=(9,))
    verdict = Verdict.error("down") if math.isnan(reward) else Verdict.passed(value=reward)
    return Scored(rollout=Rollout(prompt=prompt, completion=completion), verdicts={"r": verdict}, reward=reward)


def group(*samples):
    return Group(prompt=samples[0].rollout.prompt, samples=samples)


def test_a_sample_without_a_verdict_leaves_the_batch():
    groups = [group(scored(1.0), scored(math.nan), scored(0.0))]
    rewards = torch.tensor([g.rewards_G for g in groups], dtype=torch.float64)
    batch = rl.pack(groups, rewards, resolve("grpo"))
    assert batch.mask_N.tolist() == [False, True, True, False, False, False, False, True, True]


def test_truncated_samples_leave_the_batch_where_the_method_says_so():
    groups = [group(scored(1.0, finish="length"), scored(0.0))]
    rewards = torch.tensor([[1.0, 0.0]])
    assert rl.pack(groups, rewards, resolve("grpo")).mask_N.sum() == 4
    assert rl.pack(groups, rewards, resolve("grpo", mask_truncated=True)).mask_N.tolist() == [False] * 4 + [True, True]


def test_the_overlong_penalty_of_dapo_by_hand(resolved):
    recipe = resolved(RL, algorithm={"method": "dapo", "overlong": {"buffer": 4, "penalty": 0.5}}).recipe
    groups = [group(scored(1.0, tokens=4), scored(1.0, tokens=6), scored(1.0, tokens=8))]
    assert rl.shaped_rewards(groups, recipe, resolve("dapo")).tolist() == [[1.0, 0.75, 0.5]]


def test_greedy_samples_bear_the_overlong_penalty_too(resolved):
    recipe = resolved(RL, algorithm={"method": "remax", "overlong": {"buffer": 4, "penalty": 0.5}}).recipe
    groups, greedy = [group(scored(1.0))], [group(scored(1.0, tokens=6))]
    harvest = Harvest(groups=groups, sampled=groups, unused=[], greedy=greedy)
    method, site = resolve("remax", overlong=True), cast(Any, None)
    batch = rl.pack(groups, torch.tensor([[1.0]]), method)
    greedy_P = rl.signals(harvest, batch, site, recipe, method)["greedy_P"]
    assert greedy_P is not None
    assert greedy_P.tolist() == [0.75]


def test_dynamic_sampling_replaces_groups_without_a_signal(resolved, tmp_path):
    reward = tmp_path / "parity.py"
    # Problems with an odd first digit say nothing; the others tell samples apart by their length.
    reward.write_text(
        "def odd(prompts, completion_ids, **_):\n"
        "    texts = [p if isinstance(p, str) else p[-1]['content'] for p in prompts]\n"
        "    return [0.5 if int(t[0]) % 2 else i % 2 + 0.0 for i, t in enumerate(texts)]\n"
    )
    recipe = resolved(
        RL, rewards=[{"use": f"{reward}:odd"}], algorithm={"method": "dapo"}, train={"steps": 2, "prompts_per_step": 4}
    )
    rl.train(recipe)
    table = pq.read_table(rl_run(recipe) / "rollouts" / "step-000001.parquet").to_pylist()
    used = {row["prompt_id"]: row for row in table if row["used_step"] == 1}
    unused = {row["prompt_id"]: row for row in table if row["used_step"] is None}
    assert len(used) == 4
    assert unused
    assert all(int(row["prompt"][0]) % 2 == 0 for row in used.values())
    assert all(int(row["prompt"][0]) % 2 == 1 for row in unused.values())
    row = metrics_of(recipe)[0]
    assert row["dynamic_sampling/dropped_groups"] == len(unused)
    assert row["frac_reward_zero_std"] == pytest.approx(len(unused) / (len(used) + len(unused)))  # of all that was sampled
    assert row["num_tokens"] == sum(one["prompt_tokens"] + one["completion_tokens"] for one in table)


def test_a_reward_that_keeps_failing_ends_the_run(resolved, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def down(completions, **_):\n    raise ConnectionError('judge is down')\n")
    recipe = resolved(RL, rewards=[{"use": f"{broken}:down"}], train={"steps": 50})
    with pytest.raises(RewardError, match="judge is down") as error:
        rl.train(recipe)
    assert error.value.exit_code == 6
    assert json.loads((rl_run(recipe) / "summary.json").read_text())["status"] == "failed"


def test_a_sampler_that_disagrees_with_the_trainer_stops_the_run(resolved, monkeypatch):
    from align.learner.learner import Learner

    honest = Learner.logprobs
    monkeypatch.setattr(Learner, "logprobs", lambda self, batch, which="policy": honest(self, batch, which) - 0.3)
    with pytest.raises(RolloutError):
        rl.train(resolved(RL))


def test_evaluation_before_and_after_with_intervals(resolved):
    recipe = resolved(RL, train={"steps": 2}, evaluate={"num_generations": 4, "k": [1, 4], "every": 1, "threshold": 0.1})
    summary = rl.train(recipe)
    for when in ("before", "after"):
        for k in ("1", "4"):
            estimate = summary["pass_at_k"][when][k]
            assert 0 <= estimate["low"] <= estimate["value"] <= estimate["high"] <= 1
    assert {path.name for path in (rl_run(recipe) / "eval").glob("*.json")} == {"before.json", "step-000001.json", "after.json"}


def test_a_kl_term_in_the_loss_holds_the_policy_near_the_reference(resolved, tmp_path):
    kl = {}
    for beta in (0.001, 5.0):
        recipe = resolved(
            RL,
            output_dir=str(tmp_path / str(beta)),
            train={"steps": 12, "learning_rate": 3e-3},
            algorithm={"method": "grpo", "beta": beta},
        )
        rl.train(recipe)
        kl[beta] = metrics_of(recipe)[-1]["kl"]
    assert kl[5.0] < 0.5 * kl[0.001]


def test_an_adaptive_kl_coefficient_moves_towards_its_target(resolved):
    recipe = resolved(RL, train={"steps": 6}, algorithm={"method": "rloo", "beta": 0.05, "kl_target": 10.0, "kl_horizon": 100})
    rl.train(recipe)
    betas = [row["beta"] for row in metrics_of(recipe)]
    assert betas == sorted(betas, reverse=True)
    assert betas[-1] < betas[0]


def test_the_kind_of_kl_in_the_reward_is_the_recipes(resolved):
    batch = rl.pack([group(scored(1.0), scored(0.0))], torch.tensor([[1.0, 0.0]]), resolve("rloo"))
    batch = batch.replace(old_N=batch.mask_N * -1.0, ref_N=batch.mask_N * -1.5)
    for kind, value in (("k1", 0.5), ("k2", 0.125), ("k3", math.exp(-0.5) - 0.5)):
        kl_N = rl.reward_kl(batch, resolve("rloo", kl=kind))
        assert kl_N is not None
        assert kl_N[batch.mask_N].tolist() == pytest.approx([value] * 4)
    assert rl.reward_kl(batch, resolve("grpo")) is None


def test_a_step_without_a_trained_token_is_survived(resolved):
    recipe = resolved(RL, algorithm={"mask_truncated": True}, rollout={"max_completion_length": 1}, train={"steps": 2})
    assert rl.train(recipe)["steps"] == 2


def test_bfloat16_samples_from_the_trained_weights(resolved):
    recipe = resolved(RL, model={"dtype": "bfloat16"}, train={"steps": 4, "learning_rate": 1e-2}, rollout={"parity_every": 1})
    rl.train(recipe)
    assert all(row["mismatch/correlation"] > 0.9 for row in metrics_of(recipe))


def test_a_step_without_verdicts_moves_nothing(resolved, tmp_path):
    """Momentum alone would move the weights; nothing is learned from nothing."""
    from safetensors.torch import load_file

    reward = tmp_path / "sometimes.py"
    reward.write_text(
        "calls = []\n\n\ndef sometimes(completions, **_):\n    calls.append(1)\n"
        "    return [float(i % 2) if len(calls) <= 3 else None for i, _ in enumerate(completions)]\n"
    )
    saved = {}
    recipe = resolved(RL, rewards=[{"use": f"{reward}:sometimes"}], train={"steps": 3, "save_steps": 1, "save_total_limit": 3})
    rl.train(recipe)
    for step in (1, 2, 3):
        saved[step] = load_file(rl_run(recipe) / "checkpoints" / f"step-{step:06d}" / "model.safetensors")
    assert all(torch.equal(saved[2][name], saved[1][name]) and torch.equal(saved[3][name], saved[1][name]) for name in saved[1])
    assert [row["skipped"] for row in metrics_of(recipe)] == [0, 1, 1]
