"""The weighted sum of preference losses: independent of the cut and the order, and it finds the best answers."""

from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Any

import pytest
import torch

from align.algorithms.preference import PREFERENCE_LOSSES, PREFERENCE_TABLE
from align.algorithms.preference_objective import Compared, Counts, Term, implicit_rewards, preference_objective


def drawn(rows, groups=5, seed=0):
    """Random completions: pairs, judged ones, or lists of two to four."""
    random = torch.Generator().manual_seed(seed)
    sizes = {"pair": [2] * groups, "label": [1] * groups, "ranking": [2 + number % 3 for number in range(groups)]}[rows]
    group_B = torch.repeat_interleave(torch.arange(groups), torch.tensor(sizes))
    score_B = torch.rand(len(group_B), generator=random, dtype=torch.float64)
    if rows == "pair":
        score_B = torch.tensor([1.0, 0.0] * groups, dtype=torch.float64)
    logp_B, ref_B, old_B = -4 * torch.rand(3, len(group_B), generator=random, dtype=torch.float64)
    margin_B = torch.rand(groups, generator=random, dtype=torch.float64)[group_B]
    length_B = torch.randint(1, 6, group_B.shape, generator=random)
    return Compared(
        logp_B=logp_B.requires_grad_(),
        length_B=length_B,
        score_B=score_B,
        group_B=group_B,
        ref_B=ref_B,
        old_B=old_B,
        margin_B=margin_B,
        by_reference_B=(group_B % 2 == 0) == (score_B == 1),
    )


def part(compared, index):
    columns: dict[str, Any] = {field.name: getattr(compared, field.name) for field in fields(compared)}
    chosen: dict[str, Any] = {name: None if column is None else column[index] for name, column in columns.items()}
    return Compared(**chosen)


def term(name, **how):
    knobs = {"label_smoothing": 0.1} if name == "exo_pair" else {}
    return Term(loss=name, beta=0.4, knobs=knobs, **how)


@pytest.mark.parametrize("name", [name for name, entry in PREFERENCE_TABLE.items() if not entry.whole])
def test_micro_batches_add_up_in_any_order(name):
    rows = PREFERENCE_TABLE[name].rows
    compared = drawn(rows)
    counts = Counts.of(rows, compared.score_B, compared.group_B, 0.5)
    loss, statistics = preference_objective([term(name)], compared, rows=rows, counts=counts)
    (whole_B,) = torch.autograd.grad(loss, compared.logp_B)
    total, summed = torch.zeros((), dtype=torch.float64), dict.fromkeys(statistics, 0.0)
    for groups in ([3, 1], [4], [0, 2]):
        index = torch.cat([(compared.group_B == group).nonzero().flatten().flip(0) for group in groups])
        loss, shares = preference_objective([term(name)], part(compared, index), rows=rows, counts=counts)
        total = total + loss
        summed = {key: summed[key] + float(share) for key, share in shares.items()}
    (cut_B,) = torch.autograd.grad(total, compared.logp_B)
    assert torch.allclose(cut_B, whole_B)
    assert whole_B.abs().sum() > 0
    assert summed == pytest.approx({key: float(value) for key, value in statistics.items()})


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_the_order_of_the_sequences_does_not_matter(name):
    rows = PREFERENCE_TABLE[name].rows
    compared = drawn(rows)
    counts = Counts.of(rows, compared.score_B, compared.group_B, 0.5)
    loss, _ = preference_objective([term(name)], compared, rows=rows, counts=counts)
    order = torch.randperm(len(compared.group_B), generator=torch.Generator().manual_seed(1))
    shuffled, _ = preference_objective([term(name)], part(compared, order), rows=rows, counts=counts)
    assert torch.allclose(*(torch.autograd.grad(value, compared.logp_B)[0] for value in (loss, shuffled)))


def test_pairs_serve_as_good_and_bad_completions():
    """As judged completions, one by one, they have the same loss, and the same mean."""
    compared = drawn("pair")
    for name in ("kto", "dro"):
        counts = Counts.of("pair", compared.score_B, compared.group_B, 0.5)
        as_pairs, _ = preference_objective([term(name)], compared, rows="pair", counts=counts)
        single = replace(compared, group_B=torch.arange(len(compared.group_B)))
        counts = Counts.of("label", single.score_B, single.group_B, 0.5)
        one_by_one, _ = preference_objective([term(name)], single, rows="label", counts=counts)
        assert torch.allclose(as_pairs, one_by_one)


def test_weights_and_mixtures():
    compared = drawn("pair")
    counts = Counts.of("pair", compared.score_B, compared.group_B, 0.5)

    def loss(*terms):
        return preference_objective(terms, compared, rows="pair", counts=counts)

    mixed, statistics = loss(term("dpo"), term("sft", weight=0.3), term("kto", weight=2.0))
    parts = [loss(term(name))[0] for name in ("dpo", "sft", "kto")]
    assert torch.allclose(mixed, parts[0] + 0.3 * parts[1] + 2.0 * parts[2])
    assert [float(statistics[f"loss/{name}"]) for name in ("dpo", "sft", "kto")] == pytest.approx([one.item() for one in parts])


def test_statistics_by_hand():
    compared = Compared(
        logp_B=torch.tensor([-1.0, -2.0, -3.0, -1.0]),
        ref_B=torch.tensor([-2.0, -2.0, -1.0, -2.0]),
        length_B=torch.tensor([1, 2, 2, 1]),
        score_B=torch.tensor([1.0, 0.0, 0.0, 1.0]),
        group_B=torch.tensor([0, 0, 1, 1]),
    )
    counts = Counts.of("pair", compared.score_B, compared.group_B, 0.5)
    _, statistics = preference_objective([Term(loss="dpo", beta=0.5)], compared, rows="pair", counts=counts)
    assert {name: round(float(value), 6) for name, value in statistics.items()} == {
        "rewards/chosen": 0.5,  # 0.5 (1 + 1)/2
        "rewards/rejected": -0.5,  # 0.5 (0 - 2)/2
        "rewards/margins": 1.0,
        "rewards/accuracies": 1.0,
        "logps/chosen": -1.0,
        "logps/rejected": -2.5,
    }
    per_token = implicit_rewards(Term(loss="simpo", beta=2.0), compared)
    assert per_token.tolist() == [-2.0, -2.0, -3.0, -2.0]


def test_samples_that_belong_to_no_pair_reach_hypo_alone():
    compared = drawn("pair")
    score_B = compared.score_B.clone()
    score_B[-2:] = float("nan")
    compared = replace(compared, score_B=score_B, margin_B=None)
    counts = Counts.of("pair", score_B[:-2], compared.group_B[:-2], 0.5)
    loss, statistics = preference_objective([term("hypo")], compared, rows="pair", counts=counts)
    dpo, _ = preference_objective([term("dpo")], part(compared, slice(-2)), rows="pair", counts=counts)
    ratio_B = (compared.logp_B - compared.ref_B)[-2:].detach()
    assert torch.allclose(loss, dpo + 0.05 * (compared.logp_B[-2:] * ratio_B).mean())
    assert float(statistics["kl"]) == pytest.approx(float(ratio_B.mean()))


# (beta, learning rate) where 0.1 and 0.05 do not do. apo_down lowers the chosen too, and further where their margin is large
# already: the order settles late. discopop falls from margin 0 down to -0.12: only steps that are long, compared with its tau,
# get away from there. hypo's KL term is as strong as its pairs with 0.1, and the reference's favourites stay ahead.
SETTINGS = {"apo_down": (0.5, 0.05), "discopop": (4.0, 0.5), "hypo": (0.5, 0.05)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A policy over five answers to each of six questions, after comparisons of four of them whose utilities are known."""

    utility_PV: torch.Tensor
    start_PV: torch.Tensor
    drew_PV: torch.Tensor
    logits_PV: torch.Tensor
    statistics: dict[str, torch.Tensor]

    @property
    def kl(self):
        """From the reference, the mean over questions."""
        logp_PV, ref_PV = self.logits_PV.log_softmax(-1), self.start_PV.log_softmax(-1)
        return float((logp_PV.exp() * (logp_PV - ref_PV)).sum(-1).mean())


def learned(name, **knobs):
    """With all that is known of samples: who drew them, with which log-probs, and for hypo fresh ones beside the pairs.

    The reference is said to have drawn the better answer of each pair of the first three questions, the worse of the others.
    """
    random = torch.Generator().manual_seed(3)
    utility_PV = torch.rand(6, 4, generator=random)
    start_PV = 0.5 * torch.randn(6, 5, generator=random)
    drew_PV = torch.randn(6, 5, generator=random)
    logits_PV = start_PV.clone().requires_grad_()
    rows = PREFERENCE_TABLE[name].rows
    question_B, answer_B, score_B, group_B = comparisons(utility_PV, rows)
    counts = Counts.of(rows, score_B, group_B, 0.5)
    fresh = 192 if "online_B" in PREFERENCE_TABLE[name].takes else 0
    question_B = torch.cat([question_B, torch.arange(6).repeat_interleave(fresh // 6)])
    score_B, group_B = torch.cat([score_B, torch.full((fresh,), torch.nan)]), torch.cat([group_B, torch.zeros(fresh).long()])
    beta, learning_rate = SETTINGS.get(name, (0.1, 0.05))
    optimizer = torch.optim.Adam([logits_PV], lr=learning_rate)
    for _ in range(200):
        drawn_B = torch.multinomial(logits_PV.detach().softmax(-1), 32, replacement=True, generator=random).flatten()[:fresh]
        index = question_B, torch.cat([answer_B, drawn_B])
        compared = Compared(
            logp_B=logits_PV.log_softmax(-1)[index],
            ref_B=start_PV.log_softmax(-1)[index],
            old_B=drew_PV.log_softmax(-1)[index],
            length_B=torch.ones_like(group_B),
            score_B=score_B,
            group_B=group_B,
            by_reference_B=(question_B < 3) == (score_B == 1),
        )
        loss, statistics = preference_objective([Term(loss=name, beta=beta, knobs=knobs)], compared, rows=rows, counts=counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Learned(utility_PV=utility_PV, start_PV=start_PV, drew_PV=drew_PV, logits_PV=logits_PV.detach(), statistics=statistics)


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_every_loss_finds_the_best_answers(name):
    found = learned(name)
    assert found.logits_PV[:, :4].argmax(-1).tolist() == found.utility_PV.argmax(-1).tolist()
    assert PREFERENCE_TABLE[name].rows == "label" or float(found.statistics["rewards/accuracies"]) > 0.8


@pytest.mark.parametrize("anchor", [0.0, 1 / 3, 1.0])
def test_inpo_goes_on_from_the_reference_and_the_policy_that_drew(anchor):
    """Least squares over all pairs: an answer's log-prob is the mixture's + (wins - losses)/4 x 1/(2 beta), up to a constant."""
    found = learned("inpo", anchor=anchor)
    won_PV = (found.utility_PV[:, :, None] - found.utility_PV[:, None]).sign().sum(-1)
    expected_PV = (anchor * found.start_PV + (1 - anchor) * found.drew_PV)[:, :4] + won_PV / 4 / (2 * 0.1)
    logits_PV = found.logits_PV[:, :4]
    centred = (rows_PV - rows_PV.mean(-1, keepdim=True) for rows_PV in (logits_PV, expected_PV))
    torch.testing.assert_close(*centred, rtol=0, atol=0.1)


def test_xpo_leaves_what_the_reference_wrote():
    """With a weight far above beta even where that was the better answer; where it was the worse one both terms agree."""
    found = learned("xpo", alpha=1.0)
    best_P, worst_P = (
        found.logits_PV.gather(1, ends_P[:, None])[:, 0] for ends_P in (found.utility_PV.argmax(-1), found.utility_PV.argmin(-1))
    )
    assert (best_P > worst_P).tolist() == [False, False, False, True, True, True]


def test_hypo_is_held_near_the_reference_by_its_own_samples():
    assert learned("hypo", kl_weight=0.0).kl > 0.5
    assert learned("hypo", kl_weight=3.0).kl < 0.02


def comparisons(utility_PV, rows):
    """All pairs of answers; of all answers only the best judged good; all answers ranked."""
    found: list[tuple[int, Any, Any]] = []
    for question, utility_V in enumerate(utility_PV):
        order = utility_V.argsort(descending=True).tolist()
        if rows == "pair":
            found += [(question, ids, (1.0, 0.0)) for ids in combinations(order, 2)]
        elif rows == "label":
            found += [(question, (answer,), (float(answer == order[0]),)) for answer in order]
        else:
            found.append((question, order, [3.0, 2.0, 1.0, 0.0]))
    flat = [
        (question, answer, score, number)
        for number, (question, ids, scores) in enumerate(found)
        for answer, score in zip(ids, scores, strict=True)
    ]
    question_B, answer_B, score_B, group_B = (torch.tensor(column) for column in zip(*flat, strict=True))
    return question_B, answer_B, score_B, group_B
