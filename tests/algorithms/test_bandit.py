"""Every method on problems whose answer is known, see `benchmarks/learning`; with a KL term the answer is known exactly."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from align.algorithms.kl import kl_estimate
from align.algorithms.methods import METHODS, resolve
from align.algorithms.objective import objective
from align.algorithms.reduce import Totals

SEEDS = range(5)
FRESH = ("online_dpo", "iterative_dpo", "rebel", "dno", "inpo", "xpo")  # preference methods whose pairs the policy draws
STORED = ("hypo", "dpo")
LETTERS, LENGTH = 3, 2
# The reward of each word: [first letter, second letter].
REWARD = torch.tensor([[0.0, 0.2, 0.0], [0.4, 0.3, 0.0], [0.1, 1.0, 0.3]], dtype=torch.float64)
# The reward of each letter by itself, added up.
ADDED = torch.tensor([[0.0], [0.3], [0.5]], dtype=torch.float64) + torch.tensor([0.6, 0.0, 0.2], dtype=torch.float64)


@pytest.fixture(scope="module")
def learning():
    """What the benchmark is made of, whose folder is a script and no package."""
    folder = str(Path(__file__).parents[2] / "benchmarks" / "learning")
    sys.path.insert(0, folder)
    try:
        from preferences import PREFERENCES, preference_curve
        from problems import PROBLEMS
        from training import curve
    finally:
        sys.path.remove(folder)
    return SimpleNamespace(curve=curve, preference_curve=preference_curve, preferences=PREFERENCES, problems=PROBLEMS)


@pytest.mark.parametrize("name", METHODS)
def test_each_method_finds_the_best_word(name, learning):
    """Within 25 steps of 64 samples, over five seeds."""
    reached = [learning.curve(name, learning.problems["words"], seed, steps=25, rate=0.1, stop=0.9) for seed in SEEDS]
    assert all(one[0] < 0.4 for one in reached)  # from one in nine
    assert min(one[-1] for one in reached) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_each_method_learns_to_count(name, learning):
    """Within 60 steps, from answers that are right once in 3, 9, 27 and 81 times."""
    assert min(learning.curve(name, learning.problems["counting"], seed, steps=60, stop=0.9)[-1] for seed in SEEDS) >= 0.9


@pytest.mark.parametrize("name", FRESH)
def test_each_preference_method_finds_the_best_word(name, learning):
    """From which of two samples is better, within the same 25 steps."""
    reached = [learning.preference_curve(name, learning.problems["words"], seed, steps=25, rate=0.1, stop=0.9) for seed in SEEDS]
    assert all(one[0] < 0.4 for one in reached)
    assert min(one[-1] for one in reached) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", FRESH)
def test_each_preference_method_learns_to_count(name, learning):
    reached = [learning.preference_curve(name, learning.problems["counting"], seed, steps=60, stop=0.9) for seed in SEEDS]
    assert min(one[-1] for one in reached) >= 0.9


def test_of_stored_pairs_hypo_learns_what_its_kl_term_allows(learning):
    """dpo, which is hypo without it, goes all the way on the same pairs."""
    assert {*FRESH, *STORED} == set(learning.preferences)
    reached = {
        name: [
            learning.preference_curve(name, learning.problems["words"], seed, steps=60, rate=0.1, stop=0.9)[-1] for seed in SEEDS
        ]
        for name in STORED
    }
    assert min(reached["dpo"]) >= 0.9
    assert min(reached["hypo"]) > 0.25  # from one in nine
    assert max(reached["hypo"]) < 0.5


@pytest.mark.parametrize(
    "overrides",
    [
        {"advantage": "gae", "beta": 0.01},
        {"advantage": "min_form"},
        {"advantage": "selection", "loss": "raft"},
        {"loss": "regress"},
        {"macro_actions": {"length": 2}},
        {"entropy_coefficient": 0.0, "entropy_target": None, "baseline": "leave_one_out"},
    ],
)
def test_pieces_can_be_exchanged(overrides, learning):
    assert learning.curve("dapo", learning.problems["words"], 0, steps=25, rate=0.1, stop=0.9, **overrides)[-1] >= 0.9


def test_nothing_is_learned_from_the_wrong_sign(learning):
    """The problems can tell: a policy that is pushed away from rewards does not find them."""
    assert learning.curve("distill", learning.problems["words"], 0, steps=25, rate=0.1, teacher_coefficient=-1.0)[-1] < 0.2


class Policy:
    """A distribution over two-letter words: p(first) p(second | first)."""

    def __init__(self) -> None:
        self.first = torch.zeros(LETTERS, dtype=torch.float64, requires_grad=True)
        self.second = torch.zeros(LETTERS, LETTERS, dtype=torch.float64, requires_grad=True)

    def logp(self, words_BT):
        """logp_N, flat: two tokens a word."""
        first_B = self.first.log_softmax(-1)[words_BT[:, 0]]
        second_B = self.second.log_softmax(-1)[words_BT[:, 0], words_BT[:, 1]]
        return torch.stack([first_B, second_B], 1).flatten()

    def table(self):
        """The probability of each word."""
        with torch.no_grad():
            return self.first.softmax(-1)[:, None] * self.second.softmax(-1)

    def sample(self, n, random):
        index_B = torch.multinomial(self.table().flatten(), n, replacement=True, generator=random)
        return torch.stack([index_B // LETTERS, index_B % LETTERS], 1)


def train(method, reward, *, steps=300, samples=1024, rate=0.05):
    """The policy after `steps` on-policy steps of Adam with a falling rate, started from the uniform reference."""
    random, policy = torch.Generator().manual_seed(0), Policy()
    optimizer = torch.optim.Adam([policy.first, policy.second], lr=rate)
    segment_N = torch.arange(samples).repeat_interleave(LENGTH)
    mask_N = torch.ones(len(segment_N), dtype=torch.bool)
    totals = Totals.of(segment_N, mask_N, torch.zeros(samples).long(), norm_length=LENGTH)
    ref_N = torch.full((len(segment_N),), 1 / LETTERS, dtype=torch.float64).log()
    for step in range(steps):
        words_BT = policy.sample(samples, random)
        logp_N = policy.logp(words_BT)
        old_N = logp_N.detach()
        rewards_PG = reward[words_BT[:, 0], words_BT[:, 1]].view(1, samples)
        advantage_N = method.advantages(rewards_PG, kl_estimate(old_N, ref_N, "k1"), segment_N, mask_N)
        flat = {"old_N": old_N, "advantage_N": advantage_N, "segment_N": segment_N, "mask_N": mask_N, "ref_N": ref_N}
        loss, _ = objective(method, logp_N=logp_N, totals=totals, **flat)
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy.table()


@pytest.mark.parametrize(
    ("name", "overrides", "reward"),
    [
        ("rloo", {}, REWARD),
        ("copg", {}, REWARD),
        ("reinforce", {"baseline": "mean"}, REWARD),
        ("reinforce", {"baseline": "mean", "reduce": "sequence_sum", "kl": "k2", "kl_in": "loss"}, ADDED),
        ("dr_grpo", {"kl": "k2", "kl_in": "loss", "norm_length": LENGTH}, ADDED),
    ],
)
def test_with_a_kl_term_the_answer_is_the_tilted_reference(name, overrides, reward):
    """max E[r] - beta KL(policy || reference) is solved by reference * exp(r / beta), here with a uniform reference.

    Dividing by a constant length leaves the answer. A KL term in the loss pulls each token by its own KL alone, not by what
    follows from it, so there the answer is the same only where the letters' rewards add up.
    """
    beta = 0.4
    table = train(resolve(name, beta=beta, **overrides), reward)
    expected = (reward / beta).exp() / (reward / beta).exp().sum()
    torch.testing.assert_close(table, expected, rtol=0, atol=0.02)
