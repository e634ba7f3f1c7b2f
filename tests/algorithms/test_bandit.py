"""Every method on a bandit whose answer is known: two tokens out of three letters, no context."""

from __future__ import annotations

import pytest
import torch

from align.algorithms.kl import kl_estimate
from align.algorithms.methods import METHODS, resolve
from align.algorithms.objective import objective
from align.algorithms.reduce import Totals

LETTERS, LENGTH = 3, 2
# The reward of each word: [first letter, second letter]. The best is (2, 1); its letters alone are worth little.
REWARD = torch.tensor([[0.0, 0.2, 0.0], [0.4, 0.3, 0.0], [0.1, 1.0, 0.3]], dtype=torch.float64)
# The reward of each letter by itself, added up.
ADDED = torch.tensor([[0.0], [0.3], [0.5]], dtype=torch.float64) + torch.tensor([0.6, 0.0, 0.2], dtype=torch.float64)


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


def train(method, reward=REWARD, *, steps, prompts, samples, rate, epochs=2, decay=False):
    """The policy after `steps` of sampling, advantages and Adam, started from the uniform reference."""
    random, policy = torch.Generator().manual_seed(0), Policy()
    optimizer = torch.optim.Adam([policy.first, policy.second], lr=rate)
    segment_N = torch.arange(prompts * samples).repeat_interleave(LENGTH)
    mask_N = torch.ones(len(segment_N), dtype=torch.bool)
    group_B = torch.arange(prompts * samples) // samples
    totals = Totals.of(segment_N, mask_N, group_B, norm_length=LENGTH)
    ref_N = torch.full((len(segment_N),), 1 / LETTERS, dtype=torch.float64).log()
    for step in range(steps):
        words_BT = policy.sample(prompts * samples, random)
        old_N = policy.logp(words_BT).detach()
        rewards_PG = reward[words_BT[:, 0], words_BT[:, 1]].view(prompts, samples)
        advantage_N = method.advantages(rewards_PG, kl_estimate(old_N, ref_N, "k1"), segment_N, mask_N)
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps) if decay else rate
        for _ in range(epochs):
            logp_N = policy.logp(words_BT)
            loss, _ = objective(
                method,
                logp_N=logp_N,
                old_N=old_N,
                advantage_N=advantage_N,
                segment_N=segment_N,
                mask_N=mask_N,
                totals=totals,
                group_B=group_B,
                ref_N=ref_N,
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return policy.table()


@pytest.mark.parametrize("name", METHODS)
def test_each_method_finds_the_best_word(name):
    table = train(resolve(name), steps=150, prompts=8, samples=8, rate=0.05)
    assert float(table[2, 1]) > 0.9


@pytest.mark.parametrize("loss", ["gmpo", "sapo", "tapered", "dppo"])
def test_each_other_loss_finds_it_too(loss):
    table = train(resolve("dapo", loss=loss), steps=150, prompts=8, samples=8, rate=0.05)
    assert float(table[2, 1]) > 0.9


@pytest.mark.parametrize(
    ("name", "overrides", "reward"),
    [
        ("rloo", {}, REWARD),
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
    method = resolve(name, beta=beta, **overrides)
    table = train(method, reward, steps=300, prompts=1, samples=1024, rate=0.05, epochs=1, decay=True)
    expected = (reward / beta).exp() / (reward / beta).exp().sum()
    torch.testing.assert_close(table, expected, rtol=0, atol=0.02)
