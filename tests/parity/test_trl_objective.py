"""The loss of a step of preferences is trl's, with several weighted losses, and so are the statistics under trl's names."""

from __future__ import annotations

import pytest
import torch

from align.algorithms.preference_objective import Compared, Counts, Term, implicit_rewards, preference_objective
from tests.parity.test_trl_preference import PAIRS, Drawn, assert_equal, trl_self

dpo_trainer = pytest.importorskip("trl.trainer.dpo_trainer", reason="trl is not installed")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_weighted_losses_and_their_statistics(seed):
    """trl wants all chosen first; here a pair is what has a group in common, in any order, and may be cut off from the others."""
    drawn = Drawn(seed)
    trainer = trl_self(loss_types=["sigmoid", "hinge"], loss_weights=[1.0, 0.5])
    theirs = dpo_trainer.DPOTrainer._compute_loss(trainer, drawn.model, drawn.inputs(), False)
    order = torch.randperm(2 * PAIRS, generator=torch.Generator().manual_seed(seed))
    group_B, score_B = torch.arange(PAIRS).repeat(2), torch.tensor([1.0, 0.0]).repeat_interleave(PAIRS)
    terms = [Term(loss="dpo", beta=0.3), Term(loss="hinge", beta=0.3, weight=0.5)]
    counts = Counts.of("pair", score_B, group_B, 0.5)
    assert (counts.groups, counts.good, counts.bad) == (PAIRS, PAIRS, PAIRS)

    def share(pairs: set[int]):
        mine = torch.tensor([place for place in order.tolist() if int(group_B[place]) in pairs])
        compared = Compared(
            logp_B=drawn.logp_BT.sum(1)[mine],
            length_B=drawn.mask_BT.sum(1).double()[mine],
            score_B=score_B[mine],
            group_B=group_B[mine],
            ref_B=drawn.ref_B[mine],
        )
        return preference_objective(terms, compared, rows="pair", counts=counts)

    parts = [share({0, 3}), share({1, 2, 4, 5})]
    assert_equal(parts[0][0] + parts[1][0], theirs, drawn)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected"):
        assert sum(float(part[1][name]) for part in parts) == pytest.approx(trainer._metrics["train"][name][-1], abs=1e-6)


@pytest.mark.parametrize("name", ["cpo", "simpo", "orpo"])
def test_implicit_rewards_without_a_reference(name):
    """Of whole completions for cpo; of a token for the losses about those, which trl is given as such. Its orpo is in float32."""
    drawn = Drawn(0)
    logp_B, length_B = drawn.logp_BT.sum(1), drawn.mask_BT.sum(1).double()
    given_B = logp_B if name == "cpo" else logp_B / length_B
    if name == "orpo":
        orpo = pytest.importorskip("trl.experimental.orpo.orpo_trainer")
        _, chosen_B, rejected_B, *_ = orpo.ORPOTrainer.odds_ratio_loss(trl_self(), *given_B.chunk(2))
    else:
        cpo = pytest.importorskip("trl.experimental.cpo.cpo_trainer")
        stub = trl_self(loss_type={"cpo": "sigmoid"}.get(name, name), simpo_gamma=0.4, alpha=0.0)
        _, chosen_B, rejected_B = cpo.CPOTrainer.cpo_loss(stub, *given_B.chunk(2))
    compared = Compared(logp_B=logp_B, length_B=length_B, score_B=torch.ones(2 * PAIRS), group_B=torch.arange(2 * PAIRS))
    ours_B = implicit_rewards(Term(loss=name, beta=0.3), compared)
    torch.testing.assert_close(ours_B, torch.cat([chosen_B, rejected_B]), rtol=0, atol=1e-6, check_dtype=False)


def test_judged_completions_and_ranked_lists():
    """Means over what a loss has one value for: completions, or lists; the statistics are of the good and of the best."""
    logp_B, ref_B = torch.tensor([-3.0, -5.0, -4.0, -2.0], dtype=torch.float64), torch.full((4,), -4.0, dtype=torch.float64)
    score_B, list_B = torch.tensor([0.9, 0.1, 0.6, 0.2]), torch.tensor([0, 0, 1, 1])
    compared = Compared(logp_B=logp_B, length_B=torch.ones(4), score_B=score_B, group_B=list_B, ref_B=ref_B)
    singles = Compared(logp_B=logp_B, length_B=torch.ones(4), score_B=score_B, group_B=torch.arange(4), ref_B=ref_B)
    labels = Counts.of("label", score_B, torch.arange(4), 0.5)
    assert (labels.groups, labels.good, labels.bad) == (4, 2, 2)
    z = 0.5  # the mean log-ratio of (1, -1, 0, 2)
    ratios = {0: 1.0, 2: 0.0, 1: -1.0, 3: 2.0}
    kto = [torch.tensor(0.3 * ((z - ratios[b]) if b in (0, 2) else (ratios[b] - z))).sigmoid() for b in ratios]
    loss, statistics = preference_objective([Term(loss="kto", beta=0.3)], singles, rows="label", counts=labels)
    assert float(loss) == pytest.approx(float(sum(kto)) / 4, abs=1e-6)
    assert float(statistics["rewards/chosen"]) == pytest.approx(0.3 * (1 + 0) / 2)
    ranked = Counts.of("ranking", score_B, list_B, 0.5)
    loss, statistics = preference_objective([Term(loss="lipo_lambda", beta=0.3)], compared, rows="ranking", counts=ranked)
    discounts = 1 / torch.tensor(2.0).log() - 1 / torch.tensor(3.0).log()
    gains = [2**0.9 - 2**0.1, 2**0.6 - 2**0.2]
    lists = [gain * discounts * (1 + torch.tensor(-0.3 * gap).exp()).log() for gain, gap in zip(gains, (2.0, -2.0), strict=True)]
    assert float(loss) == pytest.approx(float(sum(lists)) / 2, abs=1e-6)
    assert float(statistics["rewards/accuracies"]) == 0.5
