"""Policy losses: numbers by hand, what untrained tokens may hold, extremes."""

from __future__ import annotations

import inspect
import math
from math import exp, log

import pytest
import torch

from align.algorithms.clipping import clipped_tokens
from align.algorithms.methods import default_knobs
from align.algorithms.names import LOSS_KNOBS, LOSS_NAMES, LOSS_SCOPE
from align.algorithms.policy_losses import POLICY_LOSSES


def close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=0, atol=tolerance)


def run(name, logp, old, advantage, segment=None, mask=None, **knobs):
    """(loss_N, d sum(loss) / d logp)"""
    logp_N = torch.tensor(logp, dtype=torch.float64, requires_grad=True)
    segment_N = torch.tensor(segment or [0] * len(logp))
    mask_N = torch.tensor(mask or [1] * len(logp))
    old_N, advantage_N = torch.tensor(old, dtype=torch.float64), torch.tensor(advantage, dtype=torch.float64)
    loss_N = POLICY_LOSSES[name](logp_N, old_N, advantage_N, segment_N, mask_N, **knobs)
    (gradient_N,) = torch.autograd.grad(loss_N.sum(), logp_N)
    return loss_N.detach(), gradient_N


def test_names_and_knobs_without_torch_are_those_of_the_registry():
    assert set(POLICY_LOSSES) == set(LOSS_NAMES) == set(LOSS_SCOPE)
    assert {name: tuple(default_knobs(name)) for name in POLICY_LOSSES} == LOSS_KNOBS
    for fn in POLICY_LOSSES.values():
        assert list(inspect.signature(fn).parameters)[:5] == ["logp_N", "old_N", "advantage_N", "segment_N", "mask_N"]


def test_clip_by_hand():
    ratios, advantages = [0.5, 0.5, 1.1, 1.5, 1.5], [2.0, -2.0, 2.0, 2.0, -2.0]
    loss_N, gradient_N = run("clip", [log(r) - 1 for r in ratios], [-1] * 5, advantages, eps_low=0.2, eps_high=0.28)
    close(loss_N, [-1.0, 1.6, -2.2, -2.56, 3.0])
    close(gradient_N, [-1.0, 0.0, -2.2, 0.0, 3.0])  # no gradient below 0.8 with A < 0, nor above 1.28 with A > 0


def test_dual_clip_bounds_the_loss_of_bad_tokens_only():
    loss_N, gradient_N = run("clip", [log(5.0), log(2.0), log(5.0)], [0.0] * 3, [-1.0, -1.0, 1.0], dual_clip=3.0)
    close(loss_N, [3.0, 2.0, -1.2])
    close(gradient_N, [0.0, 2.0, 0.0])


def test_reinforce_and_importance_by_hand():
    loss_N, gradient_N = run("reinforce", [-0.5, -2.0], [-1.0, -1.0], [2.0, -3.0])
    close(loss_N, [1.0, -6.0])
    close(gradient_N, [-2.0, 3.0])
    loss_N, gradient_N = run("importance", [log(0.5), log(3.0)], [0.0, 0.0], [2.0, -3.0])
    close(loss_N, [-1.0, 9.0])
    close(gradient_N, [-1.0, 9.0])


def test_gspo_by_hand():
    # log-ratios 0.3 and -0.1 (and an untrained token): s = e^0.1; the other sequence: s = e^0.5, clipped with A > 0
    loss_N, gradient_N = run(
        "gspo",
        [0.3, 9.0, -0.1, 0.5, 0.5],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [-1.0, -1.0, -1.0, 1.0, -1.0],
        segment=[0, 0, 0, 1, 2],
        mask=[1, 0, 1, 1, 1],
        eps_low=0.2,
        eps_high=0.2,
    )
    close(loss_N, [exp(0.1), 0, exp(0.1), -1.2, exp(0.5)])
    close(gradient_N, [exp(0.1), 0, exp(0.1), 0, exp(0.5)])


def test_gmpo_by_hand():
    # A > 0: log-ratios 1.0 and -1.0 become 0.4 and -1.0, mean -0.3; A < 0: 1.0 and -0.2, mean 0.4
    loss_N, gradient_N = run(
        "gmpo", [1.0, -1.0, 1.0, -1.0], [0.0] * 4, [2.0, 2.0, -2.0, -2.0], segment=[0, 0, 1, 1], eps_low=0.2, eps_high=0.4
    )
    close(loss_N, [-2 * exp(-0.3)] * 2 + [2 * exp(0.4)] * 2)
    # both tokens of a sequence hold the same value, so each one's gradient is twice a half; the clipped ones have none
    close(gradient_N, [0, -2 * exp(-0.3), 2 * exp(0.4), 0])


def test_cispo_by_hand():
    loss_N, gradient_N = run(
        "cispo", [-1.0, -1.0, -1.0], [-1 - log(2.0), -1 - log(9.0), -1 - log(9.0)], [2.0, 2.0, -2.0], cap=5.0
    )
    close(loss_N, [4.0, 10.0, -10.0])
    close(gradient_N, [-4.0, -10.0, 10.0])


def test_sapo_by_hand():
    loss_N, gradient_N = run("sapo", [0.0, log(2.0), log(2.0)], [0.0] * 3, [3.0, 3.0, -3.0], tau_pos=1.0, tau_neg=2.0)
    up, down = 1 / (1 + exp(-1.0)), 1 / (1 + exp(-2.0))
    close(loss_N, [-3 * 0.5 * 4, -3 * up * 4, 3 * down * 2])
    # d/dlogp of sigmoid(tau (rho - 1)) 4 / tau = 4 g (1 - g) rho
    close(gradient_N, [-3.0, -3 * 4 * up * (1 - up) * 2, 3 * 4 * down * (1 - down) * 2])


def test_tapered_by_hand():
    # sequence ratios e^-0.5, e^0.5 and e^-0.5
    loss_N, gradient_N = run(
        "tapered",
        [-1.0, -2.0, -1.0, -2.0, -1.0],
        [-1.2, -1.3, -1.2, -2.3, -0.5],
        [-1.0, -1.0, -1.0, -1.0, 1.0],
        segment=[0, 0, 1, 1, 2],
    )
    close(loss_N, [-exp(-0.5), -2 * exp(-0.5), -1.0, -2.0, 1.0])
    close(gradient_N, [exp(-0.5), exp(-0.5), 1.0, 1.0, -1.0])


def test_dppo_by_hand():
    # probabilities 0.5 -> 0.7 and 0.5 -> 0.3: moves of 0.2; 0.01 -> 0.05 is a large ratio but a small move
    p, q, advantage = [0.7, 0.7, 0.3, 0.3, 0.05], [0.5, 0.5, 0.5, 0.5, 0.01], [1.0, -1.0, 1.0, -1.0, 1.0]
    loss_N, gradient_N = run("dppo", [log(x) for x in p], [log(x) for x in q], advantage, delta=0.15)
    close(loss_N, [0.0, 1.4, -0.6, 0.0, -5.0])
    close(gradient_N, [0.0, 1.4, -0.6, 0.0, -5.0])


def test_raft_by_hand():
    loss_N, gradient_N = run("raft", [-0.5, -2.0, -3.0], [-1.0, -1.0, -1.0], [1.0, 0.0, -2.0])
    close(loss_N, [0.5, 0.0, 0.0])
    close(gradient_N, [-1.0, 0.0, 0.0])


def test_nft_by_hand():
    # success rates 1/5 of the wrong answer's prompt: its A is -sqrt(0.2 / 0.8) = -1/2, the right one's sqrt(0.8 / 0.2) = 2
    r, rho = 0.2, [0.5, 1.5, 0.5]
    loss_N, gradient_N = run("nft", [log(x) for x in rho], [0.0] * 3, [-0.5, -0.5, 2.0], floor=0.5)
    left = [(1 - r * x) / (1 - r) for x in rho[:2]]
    close(loss_N, [-2 * log(left[0]), -2 * log(left[1]), -2 * log(0.5)])
    close(gradient_N, [2 * (r * rho[0] / (1 - r)) / left[0], 2 * (r * rho[1] / (1 - r)) / left[1], -2.0])
    # the floor holds the value and the denominator of the gradient, not its numerator
    loss_N, gradient_N = run("nft", [log(1.5)], [0.0], [-0.5], floor=1.0)
    close(loss_N, [0.0])
    close(gradient_N, [2 * (r * 1.5 / (1 - r))])


def test_nft_is_grpo_s_gradient_on_policy():
    """With the spread that the paper uses (biased), right and wrong answers get sqrt((1-r)/r) and -sqrt(r/(1-r))."""
    right, wrong = 3, 5
    r = right / (right + wrong)
    a, b = math.sqrt((1 - r) / r), -math.sqrt(r / (1 - r))
    _, gradient_N = run("nft", [-1.0] * 8, [-1.0] * 8, [a] * right + [b] * wrong)
    close(gradient_N, [-a] * right + [-b] * wrong)


def test_regress_by_hand():
    # sequence 0: log-ratio 0.3 - 0.1 (an untrained token between), A 0.5, beta 0.5: 0.25 (0.2 - 1)^2 = 0.16 on two tokens
    loss_N, gradient_N = run(
        "regress", [0.3, 9.0, -0.1, 0.7], [0.0] * 4, [0.5, 9.0, 0.5, 0.0], segment=[0, 0, 0, 1], mask=[1, 0, 1, 1], beta=0.5
    )
    close(loss_N, [0.08, 0, 0.08, 0])
    close(gradient_N, [0.5 * (0.2 - 1), 0, 0.5 * (0.2 - 1), 0])


def expected_at_ratio_one(name, advantage):
    """Minus the gradient at ratio 1 of single-token sequences that are one group."""
    n, total = len(advantage), sum(advantage)
    if name in ("rebel", "copg"):  # the mean of the others is the baseline
        return [a - (total - a) / (n - 1) for a in advantage]
    if name == "opmd":  # tau = 1: the log of the mean exp(A) is the baseline
        return [a - log(sum(map(exp, advantage)) / n) for a in advantage]
    return [max(a, 0.0) for a in advantage] if name == "raft" else advantage


@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_at_ratio_one_the_gradient_is_the_policy_gradient(name):
    logp, advantage = [-0.1, -1.0, -3.0, -0.7], [1.5, -2.0, 0.5, 0.0]
    segments = [0, 1, 2, 3]  # one token each, where sequence and token losses coincide
    knobs = {"share": 0.0} if name == "clip_cov" else {}  # it drops tokens at any ratio
    _, gradient_N = run(name, logp, logp, advantage, segment=segments, **knobs)
    close(gradient_N, [-a for a in expected_at_ratio_one(name, advantage)])


@pytest.mark.parametrize(
    "name", ["clip", "importance", "gspo", "cispo", "sapo", "tapered", "dppo", "reinforce", "nft", "regress", "kl_cov"]
)
def test_at_ratio_one_every_token_of_a_sequence_carries_its_own_gradient(name):
    logp, advantage = [-0.1, -1.0, -3.0], [-1.5, -1.5, -1.5]
    _, gradient_N = run(name, logp, logp, advantage)
    close(gradient_N, [1.5, 1.5, 1.5])


@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_without_an_advantage_there_is_exactly_nothing(name, make_step):
    step = make_step(spread=2.0).leaf()
    loss_N = POLICY_LOSSES[name](step.logp_N, step.old_N, torch.zeros_like(step.advantage_N), step.segment_N, step.mask_N)
    assert (loss_N == 0).all()
    assert (torch.autograd.grad(loss_N.sum(), step.logp_N)[0] == 0).all()


@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_a_group_without_an_advantage_has_no_gradient_beside_others(name, make_step):
    step = make_step(spread=2.0).leaf()
    silent_N = step.group_B[step.segment_N] == 1
    advantage_N = torch.where(silent_N, 0.0, step.advantage_N)
    loss_N = POLICY_LOSSES[name](step.logp_N, step.old_N, advantage_N, step.segment_N, step.mask_N, group_B=step.group_B)
    gradient_N = torch.autograd.grad(loss_N.sum(), step.logp_N)[0]
    assert (gradient_N[silent_N] == 0).all()
    assert gradient_N[~silent_N].abs().sum() > 0


@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_untrained_tokens_may_hold_anything(name, make_step):
    step = make_step()
    values = {key: getattr(step, key).clone() for key in ("logp_N", "old_N", "advantage_N")}
    for fill in values.values():
        fill[~step.mask_N] = math.nan
    values["logp_N"].requires_grad_()
    clean_N = step.logp_N.clone().requires_grad_()
    got_N = POLICY_LOSSES[name](values["logp_N"], values["old_N"], values["advantage_N"], step.segment_N, step.mask_N)
    expected_N = POLICY_LOSSES[name](clean_N, step.old_N, step.advantage_N, step.segment_N, step.mask_N)
    close(got_N.detach(), expected_N.detach())
    assert (got_N[~step.mask_N] == 0).all()
    gradient_N = torch.autograd.grad(got_N.sum(), values["logp_N"])[0]
    close(gradient_N, torch.autograd.grad(expected_N.sum(), clean_N)[0])
    assert (gradient_N[~step.mask_N] == 0).all()


@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_no_gradient_reaches_the_old_policy(name, make_step):
    step = make_step().leaf()
    old_N = step.old_N.clone().requires_grad_()
    loss_N = POLICY_LOSSES[name](step.logp_N, old_N, step.advantage_N, step.segment_N, step.mask_N)
    assert torch.autograd.grad(loss_N.sum(), old_N, allow_unused=True)[0] is None


@pytest.mark.parametrize("name", POLICY_LOSSES)
@pytest.mark.parametrize("log_ratio", [-500.0, 500.0])
def test_extreme_ratios_stay_finite(name, log_ratio):
    loss_N, gradient_N = run(name, [min(log_ratio, 0.0)] * 2, [min(-log_ratio, 0.0)] * 2, [1.0, -1.0], segment=[0, 1])
    assert loss_N.isfinite().all()
    assert gradient_N.isfinite().all()


def test_log_ratios_are_clamped_at_20():
    loss_N, _ = run("importance", [0.0, -30.0], [-30.0, 0.0], [1.0, 1.0])
    close(loss_N, [-exp(20.0), -exp(-20.0)], 1e-6)


@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_a_numerical_failure_of_the_policy_is_not_hidden(name):
    assert run(name, [math.nan, -1.0], [-1.0, -1.0], [1.0, 2.0], segment=[0, 1])[0][0].isnan()


def test_half_precision_is_computed_in_float32():
    logp_N, old_N = torch.tensor([-1.0], dtype=torch.bfloat16), torch.tensor([-1.0078125], dtype=torch.bfloat16)
    loss_N = POLICY_LOSSES["importance"](logp_N, old_N, torch.ones(1), torch.zeros(1).long(), torch.ones(1))
    close(loss_N, [-exp(0.0078125)], 1e-6)  # bfloat16 itself would round to 1.0078125


def test_tensors_that_do_not_fit_are_named():
    flat, wrong = torch.zeros(3), torch.zeros(1, 3)
    with pytest.raises(ValueError, match="advantage_N"):
        POLICY_LOSSES["clip"](flat, flat, torch.zeros(2), flat.long(), flat)
    with pytest.raises(ValueError, match="logp_N"):
        POLICY_LOSSES["clip"](wrong, flat, flat, flat.long(), flat)


@pytest.mark.parametrize(
    ("name", "knobs", "low", "high"),
    [
        ("clip", {"eps_low": 0.2, "eps_high": 0.28, "dual_clip": None}, [0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]),
        ("clip", {"eps_low": 0.2, "eps_high": 0.28, "dual_clip": 1.4}, [0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0]),
        ("gspo", {"eps_low": 0.2, "eps_high": 0.28, "dual_clip": None}, [0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]),
        ("gmpo", {"eps_low": 0.2, "eps_high": 0.4}, [0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]),
        ("cispo", {"cap": 1.4}, [0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0]),
        ("tapered", {}, [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]),
        ("dppo", {"delta": 0.05}, [0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]),
        ("sapo", {"tau_pos": 1.0, "tau_neg": 1.0}, [0] * 6, [0] * 6),
        ("reinforce", {}, [0] * 6, [0] * 6),
        ("clip_cov", {"eps_low": 0.2, "eps_high": 0.28, "share": 0.0}, [0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]),
    ],
)
def test_clipped_tokens_by_hand(name, knobs, low, high):
    # ratios 0.5, 0.5, 1.1, 1.5, 1.5 around probability 0.2, and an untrained token
    logp_N = torch.tensor([0.1, 0.1, 0.22, 0.3, 0.3, 0.9]).double().log()
    advantage_N = torch.tensor([2.0, -2.0, 2.0, 2.0, -2.0, 2.0]).double()
    old_N, mask_N = torch.full((6,), 0.2).double().log(), torch.tensor([1, 1, 1, 1, 1, 0]).bool()
    low_N, high_N = clipped_tokens(name, logp_N, old_N, advantage_N, torch.arange(6), mask_N, **knobs)
    assert low_N.int().tolist() == low
    assert high_N.int().tolist() == high


@pytest.mark.parametrize("name", ["clip", "gspo", "gmpo", "dppo"])
def test_clipped_tokens_are_those_without_gradient(name, make_step):
    step = make_step(spread=0.8).leaf()
    knobs = {**default_knobs(name), **({"dual_clip": 1.3} if "dual_clip" in LOSS_KNOBS[name] else {})}
    loss_N = POLICY_LOSSES[name](step.logp_N, step.old_N, step.advantage_N, step.segment_N, step.mask_N, **knobs)
    gradient_N = torch.autograd.grad(loss_N.sum(), step.logp_N)[0]
    low_N, high_N = clipped_tokens(name, step.logp_N, step.old_N, step.advantage_N, step.segment_N, step.mask_N, **knobs)
    assert low_N.any()
    assert high_N.any()
    assert torch.equal((low_N | high_N)[step.mask_N], (gradient_N == 0)[step.mask_N])
