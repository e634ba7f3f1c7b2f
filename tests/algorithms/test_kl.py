"""KL estimates and the controllers of their coefficient."""

from __future__ import annotations

import math

import pytest
import torch

from align.algorithms.kl import AdaptiveKL, FixedKL, kl_estimate


def test_estimates_by_hand():
    logp_N, ref_N = torch.tensor([0.0, -1.0]).double(), torch.tensor([-0.5, 0.0]).double()
    torch.testing.assert_close(kl_estimate(logp_N, ref_N, "k1"), torch.tensor([0.5, -1.0]).double())
    torch.testing.assert_close(kl_estimate(logp_N, ref_N, "k2"), torch.tensor([0.125, 0.5]).double())
    expected = torch.tensor([math.exp(-0.5) - 0.5, math.e - 2]).double()
    torch.testing.assert_close(kl_estimate(logp_N, ref_N, "k3"), expected)
    with pytest.raises(ValueError, match="k4"):
        kl_estimate(logp_N, ref_N, "k4")  # type: ignore[arg-type]


def test_k1_and_k3_are_unbiased_and_k2_has_the_gradient_of_the_kl():
    logits = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    policy = logits[0].log_softmax(0)
    ref = logits[1].log_softmax(0)
    exact = (policy.exp() * (policy - ref)).sum()
    for kind in ("k1", "k3"):
        assert float((policy.exp() * kl_estimate(policy, ref, kind)).sum()) == pytest.approx(float(exact), abs=1e-12)
    theta = logits[0].clone().requires_grad_()
    logp = theta.log_softmax(0)
    (true,) = torch.autograd.grad((logp.exp() * (logp - ref)).sum(), theta, retain_graph=True)
    (estimated,) = torch.autograd.grad((logp.exp().detach() * kl_estimate(logp, ref, "k2")).sum(), theta)
    torch.testing.assert_close(estimated, true)


def test_k3_keeps_its_digits_near_zero_and_stays_finite_far_away():
    tiny = kl_estimate(torch.tensor([1e-4]), torch.tensor([0.0]), "k3")
    assert float(tiny) == pytest.approx(0.5e-8, rel=1e-2)
    far = kl_estimate(torch.tensor([-500.0, 500.0]), torch.tensor([0.0, 0.0]), "k3")
    assert far.tolist() == pytest.approx([math.exp(20) - 1 - 500, 499], rel=1e-6)


def test_gradients_of_the_estimates():
    logp_N = torch.tensor([0.3, -0.7]).double().requires_grad_()
    ref_N = torch.zeros(2).double()
    for kind in ("k1", "k2", "k3"):
        assert torch.autograd.gradcheck(lambda x, kind=kind: kl_estimate(x, ref_N, kind), (logp_N,))


def test_fixed_coefficient_does_not_move():
    controller = FixedKL(0.1)
    controller.update(100.0, 64)
    assert controller.beta == 0.1
    other = FixedKL(0.5)
    other.load_state_dict(controller.state_dict())
    assert other.beta == 0.5  # a constant is the recipe's, also on resume


def test_adaptive_coefficient_by_hand():
    controller = AdaptiveKL(0.1, target=6.0, horizon=500)
    controller.update(6.6, 100)  # error 0.1
    assert controller.beta == pytest.approx(0.1 * (1 + 0.1 * 0.2))
    controller.update(600.0, 100)  # error clipped to 0.2
    assert controller.beta == pytest.approx(0.102 * 1.04)
    controller.update(0.0, 100)  # clipped to -0.2
    assert controller.beta == pytest.approx(0.102 * 1.04 * 0.96)


def test_adaptive_coefficient_resumes_and_stays_positive():
    controller, other = AdaptiveKL(0.1, target=1.0, horizon=10), AdaptiveKL(0.7, target=1.0, horizon=10)
    controller.update(-5.0, 10_000)
    assert controller.beta == pytest.approx(0.08)
    other.load_state_dict(controller.state_dict())
    other.update(2.0, 5)
    controller.update(2.0, 5)
    assert other.beta == controller.beta


def test_adaptive_coefficient_refuses_what_would_poison_it():
    controller = AdaptiveKL(0.1, target=1.0, horizon=10)
    with pytest.raises(ValueError, match="nan"):
        controller.update(math.nan, 8)
    assert controller.beta == 0.1
    with pytest.raises(ValueError, match="above 0"):
        AdaptiveKL(0.0, target=1.0, horizon=10)
