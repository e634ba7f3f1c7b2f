"""The sampler-trainer check: numbers by hand, and the cause it names for each way to be wrong."""

import math

import pytest
import torch

from align.errors import RolloutError
from align.rollout.parity import check_parity, parity


def test_numbers_by_hand():
    report = parity([-1.0, -2.0, -3.0], [-1.5, -2.0, -4.0])
    assert report.tokens == 3
    assert report.mean == pytest.approx(0.5)
    assert report.max == pytest.approx(1.0)
    assert report.kl == pytest.approx(0.5)
    # Centred: (1, 0, -1) and (1, 0.5, -1.5): common 2.5, spreads 2 and 3.5.
    assert report.correlation == pytest.approx(2.5 / math.sqrt(7))
    assert report.slope == pytest.approx(1.25)
    assert report.metrics() == pytest.approx({f"parity/{k}": getattr(report, k) for k in ("mean", "max", "kl", "correlation")})


def test_equal_sides_pass_also_when_constant():
    for values in ([-1.0, -2.5], [0.0, 0.0, 0.0], [-0.7]):
        report = parity(values, torch.tensor(values))
        assert report.correlation == pytest.approx(1.0)
        check_parity(report, 1e-6)


def test_the_mean_is_what_the_tolerance_bounds():
    report = parity([0.0] * 99 + [-1.0], [0.0] * 100)
    check_parity(report, 0.011)
    with pytest.raises(RolloutError, match=r"mean difference 0\.01 "):
        check_parity(report, 0.009)


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda logits, token: (logits / 0.5, token), "temperature"),
        (lambda logits, token: (logits, token.roll(1)), "tokenizer"),
        (lambda logits, token: (logits + 0.02 * torch.randn_like(logits), token), "rounding"),
        (lambda logits, token: (logits + 0.6 * torch.randn_like(logits), token), "stale"),
        (lambda logits, token: (logits * math.nan, token), "not finite"),
    ],
    ids=["temperature", "tokens", "dtype", "weights", "nan"],
)
def test_the_likely_cause_is_named(spoil, cause):
    torch.manual_seed(0)
    logits = torch.randn(4000, 50) * 3
    token = torch.distributions.Categorical(logits=logits).sample()
    sampler = logits.log_softmax(-1).gather(1, token[:, None])
    other, shifted = spoil(logits, token)
    trainer = other.log_softmax(-1).gather(1, shifted[:, None])
    with pytest.raises(RolloutError, match=cause) as caught:
        check_parity(parity(sampler, trainer), 0.005)
    assert caught.value.fix


@pytest.mark.parametrize(("sampler", "trainer"), [([], []), ([-1.0], [-1.0, -2.0])])
def test_other_tokens_are_the_callers_mistake(sampler, trainer):
    with pytest.raises(ValueError, match="same tokens"):
        parity(sampler, trainer)
