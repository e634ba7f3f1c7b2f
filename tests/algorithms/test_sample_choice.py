"""Which samples are trained on, by hand."""

import math

import pytest
import torch

from align.algorithms.names import SAMPLE_CHOICES
from align.algorithms.sample_choice import choose_samples, most_varied

NAN = math.nan


@pytest.mark.parametrize(
    ("by", "keep", "rewards", "chosen"),
    [
        ("best", 2, [0.1, 0.9, 0.4, 0.8], [1, 3]),
        ("best_worst", 2, [0.1, 0.9, 0.4, 0.8], [0, 1]),
        ("best_worst", 3, [0.1, 0.9, 0.4, 0.8], [0, 1, 3]),  # the odd one is of the best
        ("best_worst", 2, [1.0, 0.0, 0.0, 1.0], [0, 2]),  # equals in the order of the samples: the first best, the last worst
        ("best", 2, [NAN, 0.2, NAN, 0.1], [1, 3]),
        ("best", 3, [NAN, 0.2, NAN, 0.1], [0, 1, 3]),  # nothing else is left
        ("best_worst", 2, [0.5, NAN, 0.7, 0.6], [0, 2]),
        ("max_variance", 3, [0.0, 1.0, 1.0, 1.0], [0, 1, 2]),
        ("max_variance", 2, [0.0, 1.0, 0.9, 0.5], [0, 1]),
        ("max_variance", 4, [0.0, 0.1, 0.2, 5.0, 5.1, 0.3], [0, 1, 3, 4]),
        ("max_variance", 3, [0.0, 0.0, 0.0, 9.0, 9.0], [1, 2, 3]),  # 2 of 3 at either end: as much; 1 and 2 is no worse
    ],
)
def test_choices_by_hand(by, keep, rewards, chosen):
    found = choose_samples(torch.tensor([rewards]), keep=keep, by=by).tolist()[0]
    if by == "max_variance" and found != chosen:  # a tie: the variance decides, not the samples
        of = [torch.tensor([rewards[g] for g in group]).var().item() for group in (found, chosen)]
        assert of[0] == pytest.approx(of[1])
    else:
        assert found == chosen


def test_max_variance_beats_every_other_choice():
    from itertools import combinations

    rewards = torch.rand(1, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for keep in (2, 3, 4, 5):
        chosen = choose_samples(rewards, keep=keep, by="max_variance")[0]
        best = max(rewards[0, list(group)].var(unbiased=False).item() for group in combinations(range(7), keep))
        assert rewards[0, chosen].var(unbiased=False).item() == pytest.approx(best)


def test_chance_is_the_seeds():
    rewards = torch.tensor([[0.0, 0.1, 0.2, 0.9, 0.3, 0.4]] * 20)

    def draw(by, seed):
        return choose_samples(rewards, keep=2, by=by, generator=torch.Generator().manual_seed(seed))

    for by in ("best_random", "random"):
        assert torch.equal(draw(by, 1), draw(by, 1))
        assert not torch.equal(draw(by, 1), draw(by, 2))
    assert (draw("best_random", 1) == 3).any(1).all()
    assert not (draw("random", 1) == 3).any(1).all()


@pytest.mark.parametrize("by", SAMPLE_CHOICES)
def test_keeping_all_keeps_all(by):
    rewards = torch.tensor([[0.3, NAN, 0.1], [NAN, NAN, NAN]])
    generator = torch.Generator().manual_seed(0)
    assert choose_samples(rewards, keep=3, by=by, generator=generator).tolist() == [[0, 1, 2]] * 2


def test_impossible_choices():
    with pytest.raises(ValueError, match="none of best"):
        choose_samples(torch.zeros(1, 2), keep=1, by="worst")  # type: ignore[arg-type]
    for keep in (0, 3):
        with pytest.raises(ValueError, match="cannot be kept"):
            choose_samples(torch.zeros(1, 2), keep=keep, by="best")


def test_the_prompts_that_say_most():
    assert most_varied([[0, 0], [0, 1], [1, 1], [0.4, 0.6]], 2) == [1, 3]
    assert most_varied([[0, 0], [1, 1], [NAN, NAN]], 2) == [0, 1]  # equals: the earlier ones
    assert most_varied([[0, 1], [1, 1]], 5) == [0, 1]
