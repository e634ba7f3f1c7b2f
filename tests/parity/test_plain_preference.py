"""Preference and reward-model losses that trl and OpenRLHF do not have, against loops over pairs written from the papers.

`test_trl_preference` and `test_openrlhf` hold the others.
"""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from align.algorithms.preference import PREFERENCE_LOSSES
from align.algorithms.reward_model import bradley_terry, listwise, process, regression
from tests.parity.padded import assert_same

BETA = 0.3


def log_sigmoid(x: Tensor) -> Tensor:
    return -(1 + (-x).exp()).log()


class Pairs:
    """Six random pairs, as leaves for gradients: chosen, rejected, and what the losses want beside them."""

    def __init__(self, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)

        def normal() -> Tensor:
            return torch.randn(6, generator=random, dtype=torch.float64)

        self.chosen_B, self.rejected_B = (normal() - 4).requires_grad_(), (normal() - 4).requires_grad_()
        self.ref_chosen_B, self.ref_rejected_B = normal() - 4, normal() - 4
        self.old_chosen_B, self.old_rejected_B = normal() - 4, normal() - 4
        self.margin_B = normal()
        self.lengths = torch.randint(2, 9, (2, 6), generator=random).double()

    @property
    def rows(self):
        """(c, r) of each pair, scalars with a graph."""
        return list(zip(self.chosen_B - self.ref_chosen_B, self.rejected_B - self.ref_rejected_B, strict=True))

    def ours(self, name: str, **knobs) -> Tensor:
        return PREFERENCE_LOSSES[name](
            self.chosen_B,
            self.rejected_B,
            self.ref_chosen_B,
            self.ref_rejected_B,
            beta=BETA,
            chosen_length_B=self.lengths[0],
            rejected_length_B=self.lengths[1],
            **knobs,
        )

    def check(self, ours_B: Tensor, loop: list[Tensor]) -> None:
        """Value by value, and the gradients of a sum with different weights."""
        loop_B = torch.stack(loop)
        weight_B = torch.arange(1, len(loop) + 1, dtype=torch.float64)

        def gradients(loss_B: Tensor) -> list[Tensor]:
            leaves = [self.chosen_B, self.rejected_B]
            found = torch.autograd.grad((loss_B * weight_B).sum(), leaves, retain_graph=True, allow_unused=True)
            return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]

        assert_same([ours_B], [loop_B], atol=1e-9)
        assert_same(gradients(ours_B), gradients(loop_B), atol=1e-9)


@pytest.fixture(params=[0, 1, 2])
def pairs(request: pytest.FixtureRequest) -> Pairs:
    return Pairs(request.param)


def test_dpo_with_margins(pairs):
    """ODPO's offset, which trl and OpenRLHF leave out."""
    loop = [-log_sigmoid(BETA * (c - r) - m) for (c, r), m in zip(pairs.rows, pairs.margin_B, strict=True)]
    pairs.check(pairs.ours("dpo", margin_B=pairs.margin_B), loop)


def test_ipo_sum(pairs):
    pairs.check(pairs.ours("ipo_sum"), [(c - r - 1 / (2 * BETA)) ** 2 for c, r in pairs.rows])


def test_bco_pair_with_a_shift(pairs):
    loop = [-log_sigmoid(BETA * c - 0.2) - log_sigmoid(-(BETA * r - 0.2)) for c, r in pairs.rows]
    pairs.check(pairs.ours("bco_pair", shift=0.2), loop)


def test_sft(pairs):
    pairs.check(pairs.ours("sft"), [-logp / n for logp, n in zip(pairs.chosen_B, pairs.lengths[0], strict=True)])


def test_cpo_with_imitation(pairs):
    rows = zip(pairs.chosen_B, pairs.rejected_B, pairs.lengths[0], strict=True)
    loop = [-log_sigmoid(BETA * (chosen - rejected)) - 0.7 * chosen / n for chosen, rejected, n in rows]
    pairs.check(pairs.ours("cpo", alpha=0.7), loop)


def test_kto_of_its_own_batch(pairs):
    """Without log-ratios of mismatched completions, which trl always has, the reference point is the batch's mean log-ratio."""
    ratios = [c for c, _ in pairs.rows] + [r for _, r in pairs.rows]
    z = max(sum(float(ratio.detach()) for ratio in ratios) / len(ratios), 0.0)
    loop = [1.3 * (1 - torch.sigmoid(BETA * (c - z))) for c, _ in pairs.rows]
    loop += [0.6 * (1 - torch.sigmoid(BETA * (z - r))) for _, r in pairs.rows]
    pairs.check(pairs.ours("kto", desirable_weight=1.3, undesirable_weight=0.6), loop)


@pytest.mark.parametrize("value", [None, 0.4])
def test_dro(pairs, value):
    """verl's `dro` is a policy loss of each token, see `test_plain_losses`; this is the one of whole completions with a value."""
    rewards = torch.cat([pairs.margin_B + 1, pairs.margin_B - 1])
    baseline = float(rewards.mean()) if value is None else value
    ratios = [c for c, _ in pairs.rows] + [r for _, r in pairs.rows]
    loop = [0.5 * (float(reward) - baseline - BETA * ratio) ** 2 for reward, ratio in zip(rewards, ratios, strict=True)]
    pairs.check(pairs.ours("dro", reward_B=rewards, value=value), loop)


def test_rebel(pairs):
    loop = [(BETA * (c - r) - float(m)) ** 2 for (c, r), m in zip(pairs.rows, pairs.margin_B, strict=True)]
    pairs.check(pairs.ours("rebel", margin_B=pairs.margin_B), loop)


def test_dno(pairs):
    loop = []
    for (c, r), margin in zip(pairs.rows, pairs.margin_B, strict=True):
        wins = 1 / (1 + math.exp(-float(margin)))
        loop.append(-wins * log_sigmoid(BETA * (c - r)) - (1 - wins) * log_sigmoid(BETA * (r - c)))
    pairs.check(pairs.ours("dno", margin_B=pairs.margin_B), loop)


def test_inpo(pairs):
    """eta = beta and tau = anchor * eta, as the paper writes it."""
    eta, tau, loop = BETA, 0.4 * BETA, []
    references = pairs.ref_chosen_B - pairs.ref_rejected_B
    earlier = pairs.old_chosen_B - pairs.old_rejected_B
    for own, reference, old in zip(pairs.chosen_B - pairs.rejected_B, references, earlier, strict=True):
        loop.append((own - tau / eta * reference - (eta - tau) / eta * old - 1 / (2 * eta)) ** 2)
    old = {"old_chosen_B": pairs.old_chosen_B, "old_rejected_B": pairs.old_rejected_B}
    pairs.check(pairs.ours("inpo", anchor=0.4, **old), loop)


def test_xpo(pairs):
    """The term of exploration is the log-prob of the reference's own sample, whichever of the two it is."""
    reference_won = [True, False, True, True, False, False]
    loop = []
    for place, (c, r) in enumerate(pairs.rows):
        sampled = pairs.chosen_B[place] if reference_won[place] else pairs.rejected_B[place]
        loop.append(-log_sigmoid(BETA * (c - r)) + 0.05 * sampled)
    pairs.check(pairs.ours("xpo", alpha=0.05, reference_chosen_B=torch.tensor(reference_won)), loop)


def test_hypo(pairs):
    """The KL of samples that stand beside the pairs; here they are the policy's chosen ones, to have a gradient."""
    terms = [float(c.detach()) * logp for (c, _), logp in zip(pairs.rows, pairs.chosen_B, strict=True)]
    kl = sum(terms) / len(terms)
    loop = [-log_sigmoid(BETA * (c - r)) + 0.2 * kl for c, r in pairs.rows]
    online = {"online_B": pairs.chosen_B, "ref_online_B": pairs.ref_chosen_B}
    pairs.check(pairs.ours("hypo", kl_weight=0.2, **online), loop)


def test_lipo_lambda(pairs):
    """Two lists of three: every ordered pair, with the gain and the discount of the ranks that the policy gives now."""
    lists, scores = [0, 1, 0, 1, 1, 0], [2.0, 0.5, 1.0, 1.5, 0.5, 0.0]
    logits = [BETA * c for c, _ in pairs.rows]
    loop = []
    for own in (0, 1):
        inside = [place for place in range(6) if lists[place] == own]
        ranked = sorted(inside, key=lambda place: -float(logits[place].detach()))
        discount = {place: 1 / math.log(1 + rank) for rank, place in enumerate(ranked, start=1)}
        total = torch.tensor(0.0, dtype=torch.float64)
        for i, j in itertools.permutations(inside, 2):
            if scores[i] > scores[j]:
                weight = abs(2 ** scores[i] - 2 ** scores[j]) * abs(discount[i] - discount[j])
                total = total - weight * log_sigmoid(logits[i] - logits[j])
        loop.append(total)
    ours_B = PREFERENCE_LOSSES["lipo_lambda"](
        pairs.chosen_B, None, pairs.ref_chosen_B, None, beta=BETA, score_B=torch.tensor(scores), group_B=torch.tensor(lists)
    )
    pairs.check(ours_B, loop)


@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize("centering", [None, 0.2])
def test_bradley_terry_in_trl_s_reward_trainer(pairs, trl_trainer, margin, centering):
    """trl takes means over the pairs, of the likelihood and of the centering term alike."""
    trainer = pytest.importorskip("trl.trainer.reward_trainer")
    logits = torch.cat([pairs.chosen_B, pairs.rejected_B])[:, None]
    inputs = {"attention_mask": torch.ones(12, 2), **({"margin": pairs.margin_B} if margin else {})}
    stub = trl_trainer(args={"center_rewards_coefficient": centering}, _total_train_tokens=0, _tp_size=1)
    stub.accelerator.gather_for_metrics = stub.accelerator.gather
    theirs = trainer.RewardTrainer.compute_loss(stub, lambda **_: SimpleNamespace(logits=logits), inputs)
    ours_B = bradley_terry(pairs.chosen_B, pairs.rejected_B, pairs.margin_B if margin else None, centering or 0.0)
    pairs.check(ours_B.mean()[None], [theirs])


def test_listwise(pairs):
    """A ranking is a sequence of choices among what is left; items of one rank do not compete with each other."""
    scores, ranks, lists = pairs.chosen_B, [1, 2, 2, 1, 3, 2], [0, 0, 1, 1, 0, 1]
    loop = []
    for own in (0, 1):
        inside = [place for place in range(6) if lists[place] == own]
        total = torch.tensor(0.0, dtype=torch.float64)
        for place in inside:
            rivals = [other for other in inside if other == place or ranks[other] > ranks[place]]
            total = total - (scores[place].exp() / sum(scores[other].exp() for other in rivals)).log()
        loop.append(total)
    pairs.check(listwise(scores, torch.tensor(ranks), torch.tensor(lists)), loop)


def test_listwise_of_two_is_bradley_terry(pairs):
    scores_B = torch.stack([pairs.chosen_B, pairs.rejected_B], 1).flatten()
    ours_B = listwise(scores_B, torch.tensor([1, 2]).repeat(6), torch.arange(6).repeat_interleave(2))
    pairs.check(ours_B, list(bradley_terry(pairs.chosen_B, pairs.rejected_B)))


@pytest.mark.parametrize("soft", [False, True])
def test_process(pairs, soft):
    """torch's cross entropy, of classes and of probabilities."""
    logits_M2 = torch.stack([pairs.chosen_B, pairs.rejected_B], 1)
    good_M = pairs.margin_B.sigmoid() if soft else (pairs.margin_B > 0).double()
    target = torch.stack([1 - good_M, good_M], 1) if soft else good_M.long()
    theirs_M = torch.nn.functional.cross_entropy(logits_M2, target, reduction="none")
    pairs.check(process(logits_M2, good_M), list(theirs_M))


def test_regression(pairs):
    """Attributes that nobody scored are left out of the mean."""
    scores_BK = torch.stack([pairs.chosen_B, pairs.rejected_B], 1)
    target_BK = torch.stack([pairs.ref_chosen_B, pairs.ref_rejected_B], 1)
    target_BK[1, 0] = target_BK[4, 1] = target_BK[5] = math.nan
    loop = []
    for scores, targets in zip(scores_BK, target_BK, strict=True):
        given = [(score - target) ** 2 for score, target in zip(scores, targets, strict=True) if not math.isnan(target)]
        loop.append(sum(given, start=torch.tensor(0.0, dtype=torch.float64)) / max(len(given), 1))
    pairs.check(regression(scores_BK, target_BK), loop)
