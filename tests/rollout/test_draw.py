"""Drawing tokens: the distribution is exact, the reported log-probs are those of the whole vocabulary."""

import math

import pytest
import torch
from transformers import LogitsProcessor, MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from align.rollout.draw import draw
from align.types import Sampling


def shares(logits_V: torch.Tensor, sampling: Sampling, points: int = 20_000) -> torch.Tensor:
    """How often each token is drawn over evenly spaced uniform numbers: its probability, to 1 / points."""
    uniform_R = (torch.arange(points) + 0.5) / points
    token_R, _ = draw(logits_V.expand(points, -1), uniform_R, sampling)
    return torch.bincount(token_R, minlength=len(logits_V)) / points


def test_hand_worked_distributions():
    logits = torch.tensor([0.5, 0.2, 0.2, 0.1]).log()
    assert shares(logits, Sampling()).tolist() == pytest.approx([0.5, 0.2, 0.2, 0.1], abs=1e-4)
    # Temperature 1/2 squares: 25, 4, 4, 1 of 34.
    assert shares(logits, Sampling(temperature=0.5)).tolist() == pytest.approx([25 / 34, 4 / 34, 4 / 34, 1 / 34], abs=1e-4)
    # 0.5 + 0.2 reach 0.7 and what is before the third is not below it.
    assert sorted(shares(logits, Sampling(top_p=0.69)).tolist()) == pytest.approx([0, 0, 2 / 7, 5 / 7], abs=1e-4)
    assert shares(logits, Sampling(top_p=1e-6)).tolist() == [1, 0, 0, 0]
    assert shares(logits, Sampling(top_k=1)).tolist() == [1, 0, 0, 0]
    assert shares(logits, Sampling(top_k=3)).tolist() == pytest.approx([5 / 9, 2 / 9, 2 / 9, 0], abs=1e-4)
    assert shares(logits, Sampling(min_p=0.3)).tolist() == pytest.approx([5 / 9, 2 / 9, 2 / 9, 0], abs=1e-4)
    # top_p counts the mass of what top_k left: 5/9 alone is not enough for 0.6.
    assert sorted(shares(logits, Sampling(top_k=3, top_p=0.6)).tolist()) == pytest.approx([0, 0, 2 / 7, 5 / 7], abs=1e-4)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7),
        Sampling(temperature=1.3, top_k=9),
        Sampling(top_p=0.8),
        Sampling(min_p=0.1),
        Sampling(temperature=0.8, top_k=20, top_p=0.9, min_p=0.05),
        Sampling(top_k=10_000),
    ],
    ids=str,
)
def test_filters_agree_with_transformers(sampling):
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(5)) * 2
    warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(sampling.temperature)] if sampling.temperature != 1 else []
    warpers += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    warpers += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    warpers += [MinPLogitsWarper(sampling.min_p)] if sampling.min_p else []
    expected = logits
    for warper in warpers:
        expected = warper(None, expected)
    torch.testing.assert_close(shares(logits[0], sampling), expected.softmax(-1)[0], atol=2e-4, rtol=0)


def test_logprobs_are_those_of_the_whole_vocabulary_at_the_temperature():
    logits = torch.randn(64, 40, generator=torch.Generator().manual_seed(1)) * 3
    uniform = torch.rand(64, generator=torch.Generator().manual_seed(2))
    token, logprob = draw(logits, uniform, Sampling(temperature=0.5, top_k=3, top_p=0.9))
    expected = (logits.double() / 0.5).log_softmax(-1).gather(1, token[:, None]).squeeze(1)
    torch.testing.assert_close(logprob.double(), expected, atol=1e-5, rtol=0)
    assert logprob.dtype == torch.float32


def test_greedy_takes_the_most_likely_and_reports_temperature_one():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    token, logprob = draw(logits, torch.tensor([0.99]), Sampling(temperature=0.0, top_p=0.5))
    assert token.tolist() == [1]
    assert logprob.item() == pytest.approx(3 - math.log(math.e + math.e**2 + math.e**3), abs=1e-6)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_the_ends_of_the_uniform_range_never_draw_an_impossible_token(uniform):
    logits = torch.randn(200, 50, generator=torch.Generator().manual_seed(3))
    logits[:, [0, 1, -2, -1]] = -math.inf
    for sampling in (Sampling(), Sampling(top_p=0.9), Sampling(top_k=4), Sampling(min_p=0.2)):
        token, logprob = draw(logits, torch.full((200,), uniform), sampling)
        assert token.min() >= 2
        assert token.max() <= 47
        assert logprob.isfinite().all()


def test_low_precision_logits_are_normalised_in_float32():
    logits = torch.randn(8, 1000, generator=torch.Generator().manual_seed(4)).bfloat16()
    token, logprob = draw(logits, torch.rand(8), Sampling())
    expected = logits.double().log_softmax(-1).gather(1, token[:, None]).squeeze(1)
    torch.testing.assert_close(logprob.double(), expected, atol=1e-5, rtol=0)
