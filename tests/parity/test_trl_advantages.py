"""Agreement with trl's advantages, mismatch weights and RLOO objective, in float64.

trl computes advantages and weights in the method that also generates; it is run as it stands, with generation, rewards and
log-probs replaced by ours. Differences of convention are named in the test that meets them.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from align.algorithms.advantages import group_advantage
from align.algorithms.kl import kl_estimate
from align.algorithms.methods import resolve
from align.algorithms.mismatch import mismatch_weight
from align.algorithms.objective import objective
from align.algorithms.reduce import Totals

grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer", reason="trl is not installed")
rloo_trainer = pytest.importorskip("trl.trainer.rloo_trainer", reason="trl is not installed")

TRL_EPS = 1e-4  # added to the spread; ours is 1e-6 unless told otherwise
POLICY, REFERENCE = SimpleNamespace(training=True), object()
NAN = math.nan

REWARDS = {
    "plain": [[1, 0, 0, 1], [0.5, 0.25, 0, 1]],
    "holes": [[1, NAN, 0, 0.5], [NAN, 0.25, 0, 1]],
    "lone verdict": [[NAN, NAN, 0.3, NAN], [0.5, 0.25, 0, 1]],
    "no verdict": [[NAN, NAN, NAN, NAN], [1, 0, 0, NAN]],
    "constant": [[1, 1, 1, 1], [0.5, 0.5, 0.25, 1]],
}


@pytest.fixture(autouse=True)
def float64(monkeypatch):
    """trl makes tensors of the sampler's log-probs in the default type."""
    torch.set_default_dtype(torch.float64)
    for module in (grpo_trainer, rloo_trainer):
        monkeypatch.setattr(module, "disable_gradient_checkpointing", lambda *_: nullcontext())
    yield
    torch.set_default_dtype(torch.float32)


def rollout(module, trainer, padded, rewards_PG, **settings):
    """The batch that trl makes of our completions, rewards and log-probs."""
    width, length_B = int(padded.length_B.max()), padded.length_B.tolist()
    ids = [[1] * length for length in length_B]
    prompts = [[1]] * len(ids)
    masks = [row[:length].tolist() for row, length in zip(padded.mask_BT, length_B, strict=True)]
    sampled = [row[:length].tolist() for row, length in zip(padded.sampler_BT, length_B, strict=True)]
    generated: tuple = (
        (prompts, ids, masks, prompts, sampled, {}, None, None) if module is grpo_trainer else (prompts, ids, prompts)
    )
    stub = trainer(
        model=POLICY,
        ref_model=REFERENCE,
        _generate=lambda _: generated,
        _calculate_rewards=lambda *_: rewards_PG.reshape(-1, 1),
        _get_per_token_logps_and_entropies=lambda model, *_, **__: (
            (padded.old_BT if model is POLICY else padded.ref_BT)[:, :width],
            None,
            None,
        ),
        num_generations=rewards_PG.shape[1],
        num_iterations=1,
        reward_weights=torch.ones(1),
        reward_func_names=["reward"],
        reward_clip_range=None,
        multi_objective_aggregation="sum_then_normalize",
        normalize_advantages=False,
        scale_rewards="group",
        environment_factories=None,
        environments=[],
        tools=[],
        mask_truncated_completions=False,
        pad_to_multiple_of=None,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        log_multimodal=False,
        _pending_extra_logs={},
        _pending_metrics={},
        _logs={"prompt": deque(), "completion": deque(), "rewards": defaultdict(deque), "advantages": deque()},
    )
    stub.args.gradient_accumulation_steps = 1
    vars(stub).update(settings)
    cls = module.GRPOTrainer if module is grpo_trainer else module.RLOOTrainer
    return cls._generate_and_score_completions(stub, [{"prompt": "a"}] * len(ids)), stub


@pytest.mark.parametrize("rewards", REWARDS.values(), ids=REWARDS)
@pytest.mark.parametrize(("theirs", "ours"), [("group", "group_std"), ("batch", "batch_std"), ("none", "none")])
def test_group_advantages(padded, trl_trainer, rewards, theirs, ours):
    """Only the constant added to the spread differs, 1e-4 there: it is an argument here."""
    rewards_PG = torch.tensor(rewards)
    batch, _ = rollout(grpo_trainer, trl_trainer, padded, rewards_PG, scale_rewards=theirs)
    got_PG = group_advantage(rewards_PG, baseline="mean", scale=ours, eps=TRL_EPS)
    torch.testing.assert_close(got_PG.flatten(), batch["advantages"], rtol=0, atol=1e-12)
    assert got_PG.abs().max() > 0.1


@pytest.mark.parametrize("rewards", REWARDS.values(), ids=REWARDS)
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_rloo_advantages(padded, trl_trainer, rewards, beta):
    """KL of the policy that sampled, summed over a completion and taken from its reward before the baseline."""
    padded = replace(padded, mask_BT=(torch.arange(11) < padded.length_B[:, None]).long())  # trl's RLOO trains on all tokens
    rewards_PG = torch.tensor(rewards)
    batch, _ = rollout(rloo_trainer, trl_trainer, padded, rewards_PG, beta=beta)
    kl_N = kl_estimate(padded.flat(padded.old_BT), padded.flat(padded.ref_BT), "k1")
    mask_N = padded.flat(padded.mask_BT)
    got_N = resolve("rloo", beta=beta).advantages(rewards_PG, kl_N, padded.segment_N, mask_N)
    expected_B = batch["advantages"]
    if beta and rewards == REWARDS["constant"]:
        assert got_N[padded.segment_N < 4].abs().min() > 0  # the KL tells equal rewards apart
    torch.testing.assert_close(got_N, expected_B[padded.segment_N], rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_mismatch_weights(padded, trl_trainer, mode):
    """trl keeps one weight a sequence, and a weight on untrained tokens, which do not count; it has no geometric mode."""
    low, high = (None if mode.endswith("truncate") else 0.7), 1.2
    batch, _ = rollout(
        grpo_trainer,
        trl_trainer,
        padded,
        torch.tensor(REWARDS["plain"]),
        use_vllm=True,
        vllm_importance_sampling_correction=True,
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=low,
        vllm_importance_sampling_clip_max=high,
    )
    mask_N = padded.flat(padded.mask_BT)
    got_N = mismatch_weight(
        padded.flat(padded.old_BT), padded.flat(padded.sampler_BT), padded.segment_N, mask_N, mode, low or 0.0, high
    )
    theirs_BT = batch["importance_sampling_ratio"].expand(-1, batch["completion_mask"].shape[1])
    expected_N = padded.flat(torch.nn.functional.pad(theirs_BT, (0, 11 - theirs_BT.shape[1]))) * mask_N
    torch.testing.assert_close(got_N, expected_N, rtol=0, atol=1e-12)
    assert ((got_N == high) | (got_N == 0))[mask_N.bool()].any()


def test_rloo_objective(padded, trl_trainer, trl_inputs):
    """trl weighs a whole completion with its clipped ratio; we weigh each token with its own, unclipped.

    On the policy that sampled all ratios are 1 and the gradients are the same; the loss counts an advantage once a completion
    there, once a token here.
    """
    trl_inputs["old_logps"] = (padded.logp_BT.detach() * padded.mask_BT).sum(1)
    trainer = trl_trainer(padded)
    theirs = rloo_trainer.RLOOTrainer._compute_loss(trainer, POLICY, trl_inputs)
    segment_N, mask_N, logp_N = padded.segment_N, padded.flat(padded.mask_BT), padded.flat(padded.logp_BT)
    ours, _ = objective(
        resolve("rloo"),
        logp_N=logp_N,
        old_N=logp_N.detach(),
        advantage_N=padded.advantage_N,
        segment_N=segment_N,
        mask_N=mask_N,
        totals=Totals.of(segment_N, mask_N),
    )
    gradient = torch.autograd.grad(ours, padded.logp_BT, retain_graph=True)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(theirs, padded.logp_BT)[0], rtol=0, atol=1e-12)
    assert gradient.abs().max() > 1e-3
    torch.testing.assert_close(theirs, -padded.advantage_B.mean())
    torch.testing.assert_close(ours, -(padded.advantage_B * padded.mask_BT.sum(1)).mean())


def test_a_completion_without_a_verdict_stays_in_trl_s_denominators_and_leaves_ours(padded, trl_trainer, trl_inputs):
    """Both give it advantage 0. trl still divides by its tokens; here they leave the totals, as if it had not been sampled."""
    rewards_PG = torch.tensor(REWARDS["holes"])
    batch, _ = rollout(grpo_trainer, trl_trainer, padded, rewards_PG)
    trl_inputs["advantages"] = batch["advantages"]
    trainer = trl_trainer(padded, loss_type="dapo", epsilon_high=0.28)
    theirs = grpo_trainer.GRPOTrainer._compute_loss(trainer, POLICY, trl_inputs)
    all_mask_N = padded.flat(padded.mask_BT)
    mask_N = all_mask_N.bool() & ~rewards_PG.flatten().isnan()[padded.segment_N]
    ours, _ = objective(
        resolve("dapo"),
        logp_N=padded.flat(padded.logp_BT),
        old_N=padded.flat(padded.old_BT),
        advantage_N=batch["advantages"][padded.segment_N],
        segment_N=padded.segment_N,
        mask_N=mask_N,
        totals=Totals.of(padded.segment_N, mask_N),
    )
    torch.testing.assert_close(ours * mask_N.sum(), theirs * all_mask_N.sum(), rtol=0, atol=1e-10)
    assert mask_N.sum() < all_mask_N.sum()
