"""Agreement with trl's loss code, value and gradient, in float64.

trl keeps padded rectangles and divides by the counts of one micro-batch; with a single micro-batch that is the whole step
the two must be the same. Every remaining difference of convention is named in the test that meets it.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch

from align.algorithms.methods import resolve
from align.algorithms.mismatch import mismatch_weight
from align.algorithms.modifiers import entropy_mask
from align.algorithms.objective import objective
from align.algorithms.reduce import Totals

grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer", reason="trl is not installed")


def ours(method, padded, **extra):
    """(loss, d loss / d logp_BT, stats)"""
    segment_N, mask_N = padded.segment_N, padded.flat(padded.mask_BT)
    loss, stats = objective(
        method,
        logp_N=padded.flat(padded.logp_BT),
        old_N=padded.flat(padded.old_BT),
        advantage_N=padded.advantage_N,
        segment_N=segment_N,
        mask_N=mask_N,
        totals=Totals.of(segment_N, mask_N, norm_length=11),
        ref_N=padded.flat(padded.ref_BT),
        entropy_N=padded.flat(padded.entropy_BT),
        **extra,
    )
    return loss, torch.autograd.grad(loss, padded.logp_BT)[0], stats


def theirs(trainer, padded, inputs):
    """(loss, d loss / d logp_BT, metrics) of trl's own method."""
    loss = grpo_trainer.GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    return loss, torch.autograd.grad(loss, padded.logp_BT)[0], metrics


def assert_same(first, second):
    torch.testing.assert_close(first[0], second[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(first[1], second[1], rtol=0, atol=1e-6)
    assert second[1].abs().max() > 1e-3  # or the agreement would be an empty one


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (resolve("grpo", beta=0.04), {"loss_type": "grpo", "beta": 0.04}),
        (
            resolve("grpo", beta=0.0, epsilon=0.1, epsilon_high=0.3),
            {"loss_type": "grpo", "epsilon_low": 0.1, "epsilon_high": 0.3},
        ),
        (resolve("dr_grpo"), {"loss_type": "dr_grpo"}),
        (resolve("dapo"), {"loss_type": "dapo", "epsilon_high": 0.28}),
        (resolve("dapo", epsilon=0.2), {"loss_type": "bnpo"}),
        (resolve("cispo"), {"loss_type": "cispo", "epsilon_high": 5.0}),
        (resolve("cispo", knobs={"cap": 1.1}, beta=0.2), {"loss_type": "cispo", "epsilon_high": 1.1, "beta": 0.2}),
        (resolve("grpo", beta=0.0, loss="sapo"), {"loss_type": "sapo"}),
    ],
    ids=["grpo-kl", "grpo-bounds", "dr_grpo", "dapo", "bnpo", "cispo", "cispo-capped-kl", "sapo"],
)
def test_token_losses(padded, trl_trainer, trl_inputs, method, settings):
    assert_same(ours(method, padded), theirs(trl_trainer(padded, **settings), padded, trl_inputs))


@pytest.mark.parametrize(("low", "high"), [(3e-4, 4e-4), (0.05, 0.1), (9.0, 9.0)])
def test_gspo(padded, trl_trainer, trl_inputs, low, high):
    """trl lets the gradient run through the sequence's mean; we give each token s times its own: the same under sequence_mean."""
    method = resolve("gspo", epsilon=low, epsilon_high=high)
    settings = {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": low, "epsilon_high": high}
    first, second = ours(method, padded), theirs(trl_trainer(padded, **settings), padded, trl_inputs)
    torch.testing.assert_close(first[0], second[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(first[1], second[1], rtol=0, atol=1e-6)
    assert low < 1 or second[1].abs().max() > 1e-3  # tight bounds may clip every sequence


def test_gmpo(padded, trl_trainer, trl_inputs):
    trainer = pytest.importorskip("trl.experimental.gmpo.gmpo_trainer")
    stub = trl_trainer(padded, epsilon_low=0.1, epsilon_high=0.2)
    loss = trainer.GMPOTrainer._compute_loss(stub, stub.model, trl_inputs)
    second = loss, torch.autograd.grad(loss, padded.logp_BT)[0]
    method = resolve("grpo", beta=0.0, loss="gmpo", epsilon=0.1, epsilon_high=0.2)
    assert_same(ours(method, padded), second)


def test_dual_clip(padded, trl_trainer, trl_inputs):
    """trl's `delta` caps the ratio for either sign of A; above 1 + eps that can only bind for A < 0, where ours does."""
    method = resolve("dapo", epsilon=0.2, dual_clip=1.4)
    first = ours(method, padded)
    assert_same(first, theirs(trl_trainer(padded, loss_type="dapo", args={"delta": 1.4}), padded, trl_inputs))
    assert abs(first[0] - ours(resolve("dapo", epsilon=0.2), padded)[0]) > 1e-6


def test_entropy_bonus(padded, trl_trainer, trl_inputs):
    """trl always takes the token mean of the entropy; ours is reduced like the policy loss, so only token_mean is the same."""
    trainer = trl_trainer(padded, loss_type="dapo", _entropy_bonus_enabled=True, entropy_coef=0.3)
    assert_same(ours(resolve("dapo", epsilon=0.2, entropy_coefficient=0.3), padded), theirs(trainer, padded, trl_inputs))


def test_old_policy_equal_to_the_present_one(padded, trl_trainer, trl_inputs):
    """trl drops the old log-probs when sampling and training are aligned; for us they are the detached present ones."""
    del trl_inputs["old_per_token_logps"]
    second = theirs(trl_trainer(padded, beta=0.04), padded, trl_inputs)
    segment_N, mask_N = padded.segment_N, padded.flat(padded.mask_BT)
    logp_N = padded.flat(padded.logp_BT)
    loss, _ = objective(
        resolve("grpo"),
        logp_N=logp_N,
        old_N=logp_N.detach(),
        advantage_N=padded.advantage_N,
        segment_N=segment_N,
        mask_N=mask_N,
        totals=Totals.of(segment_N, mask_N),
        ref_N=padded.flat(padded.ref_BT),
    )
    assert_same((loss, torch.autograd.grad(loss, padded.logp_BT)[0]), second)


@pytest.mark.parametrize("mode", ["token_truncate", "sequence_mask"])
def test_mismatch_weights_multiply_the_policy_loss_and_not_the_kl(padded, trl_trainer, trl_inputs, mode):
    segment_N, mask_N = padded.segment_N, padded.flat(padded.mask_BT)
    weight_N = mismatch_weight(padded.flat(padded.old_BT), padded.flat(padded.sampler_BT), segment_N, mask_N, mode, 0.7, 1.2)
    inside_BT = torch.arange(padded.mask_BT.shape[1]) < padded.length_B[:, None]
    trl_inputs["importance_sampling_ratio"] = torch.zeros_like(padded.old_BT).masked_scatter(inside_BT, weight_N)
    trainer = trl_trainer(padded, beta=0.1, use_vllm=True, vllm_importance_sampling_correction=True)
    method = resolve("grpo", beta=0.1, mismatch={"mode": mode, "low": 0.7, "high": 1.2})
    assert_same(ours(method, padded, sampler_N=padded.flat(padded.sampler_BT)), theirs(trainer, padded, trl_inputs))


@pytest.mark.parametrize("name", ["grpo", "dapo"])
def test_metrics(padded, trl_trainer, trl_inputs, name):
    method = resolve(name, beta=0.04, epsilon=0.1, epsilon_high=0.15)
    _, _, stats = ours(method, padded)
    _, _, metrics = theirs(trl_trainer(padded, loss_type=name, beta=0.04, epsilon_low=0.1, epsilon_high=0.15), padded, trl_inputs)
    for key in ("clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean", "kl", "entropy"):
        assert float(stats[key]) == pytest.approx(metrics[key], abs=1e-6)
    assert metrics["clip_ratio/low_mean"] > 0
    assert metrics["clip_ratio/high_mean"] > 0


def test_entropy_mask_drops_the_policy_loss_and_not_the_kl(padded, trl_trainer, trl_inputs):
    """Dropped tokens stay in the denominator of both; trl decides within its micro-batch, we before the step."""
    trainer = trl_trainer(padded, loss_type="dapo", beta=0.1, top_entropy_quantile=0.4)
    trainer.accelerator.pad_across_processes = lambda x, **_: x
    entropy_BT = padded.entropy_BT.detach()
    trainer.get_high_entropy_mask = partial(grpo_trainer.GRPOTrainer.get_high_entropy_mask, trainer)
    kept = trainer.get_high_entropy_mask(entropy_BT, padded.mask_BT, 0.6)
    method = resolve("dapo", epsilon=0.2, beta=0.1, entropy_mask=int(kept.sum()) / int(padded.mask_BT.sum()))
    weight_N = entropy_mask(padded.flat(entropy_BT), padded.flat(padded.mask_BT), method.entropy_mask)
    first = ours(method, padded, weight_N=weight_N)
    assert_same(first, theirs(trainer, padded, trl_inputs))
    assert abs(first[0] - ours(resolve("dapo", epsilon=0.2, beta=0.1), padded)[0]) > 1e-4
