"""The preference losses: numbers worked out by hand, gradients, and what each has to refuse."""

from math import exp, log

import pytest
import torch

from align.algorithms.preference import PREFERENCE_LOSSES, PREFERENCE_NAMES, PREFERENCE_TABLE

# Two pairs. c = (1, -1), r = (-1, 2): the first pair is ordered rightly by 2, the second wrongly by 3. Lengths 2, 4 and 5, 2.
CHOSEN, REJECTED = [-3.0, -6.0], [-5.0, -2.0]
REF_CHOSEN, REF_REJECTED = [-4.0, -5.0], [-4.0, -4.0]
BETA = 0.5


def s(x):
    return 1 / (1 + exp(-x))


def tensor(values, **how):
    return torch.tensor(values, dtype=torch.float64, **how)


def arguments():
    return [tensor(values) for values in (CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED)]


def lengths():
    return {"chosen_length_B": tensor([2.0, 5.0]), "rejected_length_B": tensor([4.0, 2.0])}


def dpo_of(logit):
    return -log(s(logit))


HAND = {
    "dpo": ({}, [dpo_of(1.0), dpo_of(-1.5)]),
    "dpo smoothed": ({"label_smoothing": 0.2}, [0.8 * dpo_of(1.0) + 0.2 * dpo_of(-1.0), 0.8 * dpo_of(-1.5) + 0.2 * dpo_of(1.5)]),
    "dpo margin": ({"margin_B": tensor([0.25, 1.0])}, [dpo_of(0.75), dpo_of(-2.5)]),
    "dpo_norm": ({}, [dpo_of(0.5 * (1 / 2 + 1 / 4)), dpo_of(0.5 * (-1 / 5 - 1))]),
    "robust": (
        {"label_smoothing": 0.2},
        [(0.8 * dpo_of(1.0) - 0.2 * dpo_of(-1.0)) / 0.6, (0.8 * dpo_of(-1.5) - 0.2 * dpo_of(1.5)) / 0.6],
    ),
    "ipo": ({}, [(1 / 2 + 1 / 4 - 1) ** 2, (-1 / 5 - 2 / 2 - 1) ** 2]),
    "ipo_sum": ({}, [(2 - 1) ** 2, (-3 - 1) ** 2]),
    "hinge": ({}, [0.0, 2.5]),
    "exo_pair": (
        {"label_smoothing": 0.1},
        [
            s(1.0) * (log(s(1.0)) - log(0.9)) + s(-1.0) * (log(s(-1.0)) - log(0.1)),
            s(-1.5) * (log(s(-1.5)) - log(0.9)) + s(1.5) * (log(s(1.5)) - log(0.1)),
        ],
    ),
    "nca_pair": (
        {},
        [-log(s(0.5)) - (log(s(-0.5)) + log(s(0.5))) / 2, -log(s(-0.5)) - (log(s(0.5)) + log(s(-1.0))) / 2],
    ),
    "bco_pair": ({"shift": 0.1}, [-log(s(0.4)) - log(s(0.6)), -log(s(-0.6)) - log(s(-0.9))]),
    "apo_zero": ({}, [1 - s(0.5) + s(-0.5), 1 - s(-0.5) + s(1.0)]),
    "apo_down": ({}, [s(0.5) + 1 - s(1.0), s(-0.5) + 1 - s(-1.5)]),
    "sppo_hard": ({}, [(1 - 1) ** 2 + (-1 + 1) ** 2, (-1 - 1) ** 2 + (2 + 1) ** 2]),
    "discopop": (
        {"tau": 0.5},
        [(1 - s(2.0)) * dpo_of(1.0) + s(2.0) * exp(-1.0), (1 - s(-3.0)) * dpo_of(-1.5) + s(-3.0) * exp(1.5)],
    ),
    # margins of the policy (2, -4) and the reference (0, -1), sorted: (-4, 2) and (-1, 0)
    "aot": ({}, [dpo_of(0.5 * -3), dpo_of(0.5 * 2)]),
    # c sorted (-1, 1), r sorted (-1, 2)
    "aot_unpaired": ({}, [dpo_of(0.0), dpo_of(-0.5)]),
    "rpo": ({"alpha": 2.0}, [dpo_of(1.0) + 2 * 3 / 2, dpo_of(-1.5) + 2 * 6 / 5]),
    # mean of (1, -1, -1, 2) is 1/4
    "kto": (
        {"undesirable_weight": 2.0},
        [1 - s(0.5 * 0.75), 1 - s(0.5 * -1.25), 2 * (1 - s(0.5 * 1.25)), 2 * (1 - s(0.5 * -1.75))],
    ),
    "kto clamped": ({"kl_B": tensor([-3.0, 1.0])}, [1 - s(0.5), 1 - s(-0.5), 1 - s(0.5), 1 - s(-1.0)]),
    "dro": ({}, [(1 - 0.5 - 0.5) ** 2 / 2, (1 - 0.5 + 0.5) ** 2 / 2, (-0.5 + 0.5) ** 2 / 2, (-0.5 - 1) ** 2 / 2]),
    "dro rewards": (
        {"reward_B": tensor([3.0, 1.0, 0.0, 2.0]), "value": 1.0},
        [(2 - 0.5) ** 2 / 2, (0 + 0.5) ** 2 / 2, (-1 + 0.5) ** 2 / 2, (1 - 1) ** 2 / 2],
    ),
    # a token's log-probs: chosen -1.5, -1.2; rejected -1.25, -1
    "orpo": (
        {},
        [
            1.5 + 0.5 * dpo_of(log(exp(-1.5) / (1 - exp(-1.5))) - log(exp(-1.25) / (1 - exp(-1.25)))),
            1.2 + 0.5 * dpo_of(log(exp(-1.2) / (1 - exp(-1.2))) - log(exp(-1.0) / (1 - exp(-1.0)))),
        ],
    ),
    "simpo": ({"gamma": 0.3}, [dpo_of(0.5 * -0.25 - 0.3), dpo_of(0.5 * -0.2 - 0.3)]),
    "cpo": ({"alpha": 1.0}, [dpo_of(0.5 * 2) + 1.5, dpo_of(0.5 * -4) + 1.2]),
    "sft": ({}, [1.5, 1.2]),
    # two lists of two, gains 2 and 1, discounts 1/log 2 and 1/log 3
    "lipo_lambda": ({}, [(1 / log(2) - 1 / log(3)) * dpo_of(1.0), (1 / log(2) - 1 / log(3)) * dpo_of(-1.5)]),
    "online_dpo": ({}, [dpo_of(1.0), dpo_of(-1.5)]),
    "rebel": ({"margin_B": tensor([2.0, 0.5])}, [(1.0 - 2.0) ** 2, (-1.5 - 0.5) ** 2]),
    "rebel unjudged": ({}, [0.0, 2.5**2]),
    "dno": ({}, [dpo_of(1.0), dpo_of(-1.5)]),
    "dno margin": (
        {"margin_B": tensor([0.0, 2.0])},
        [(dpo_of(1.0) + dpo_of(-1.0)) / 2, s(2.0) * dpo_of(-1.5) + s(-2.0) * dpo_of(1.5)],
    ),
    # policy differences (2, -4), the reference's (0, -1), the last round's (1, 1)
    "inpo": (
        {"old_chosen_B": tensor([0.0, 0.0]), "old_rejected_B": tensor([-1.0, -1.0]), "anchor": 0.25},
        [(2 - 0.75 - 1) ** 2, (-4 + 0.25 - 0.75 - 1) ** 2],
    ),
    "inpo first round": ({}, [(2 - 1) ** 2, (-3 - 1) ** 2]),
    "xpo": ({"alpha": 0.1}, [dpo_of(1.0) - 0.5, dpo_of(-1.5) - 0.2]),
    "xpo marked": (
        {"alpha": 0.1, "reference_chosen_B": torch.tensor([True, False])},
        [dpo_of(1.0) - 0.3, dpo_of(-1.5) - 0.2],
    ),
    # samples with log-ratios 1 and -2 and log-probs -1 and -4: mean(-1, 8) = 3.5
    "hypo": (
        {"online_B": tensor([-1.0, -4.0]), "ref_online_B": tensor([-2.0, -2.0]), "kl_weight": 0.1},
        [dpo_of(1.0) + 0.35, dpo_of(-1.5) + 0.35],
    ),
}


@pytest.mark.parametrize("case", HAND)
def test_by_hand(case):
    knobs, expected = HAND[case]
    loss_B = PREFERENCE_LOSSES[case.split()[0]](*arguments(), beta=BETA, **lengths(), **knobs)
    assert loss_B.tolist() == pytest.approx(expected, abs=1e-12)


def test_every_loss_has_a_number_by_hand_and_an_entry():
    assert {case.split()[0] for case in HAND} == set(PREFERENCE_LOSSES) == set(PREFERENCE_NAMES)


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_gradients_against_finite_differences(name):
    policy = [tensor(values, requires_grad=True) for values in ([-3.0, -6.0, -1.1], [-5.0, -2.0, -1.7])]
    reference = [tensor(values) for values in ([-4.0, -5.3, -1.0], [-4.4, -4.0, -2.0])]
    how = {"chosen_length_B": tensor([2.0, 5.0, 3.0]), "rejected_length_B": tensor([4.0, 2.0, 3.0])}
    if name == "kto":  # whose reference point has no gradient: held at the value it has
        how["kl_B"] = tensor([0.7])

    def loss(chosen_B, rejected_B):
        return PREFERENCE_LOSSES[name](chosen_B, rejected_B, *reference, beta=0.7, **how).sum()

    assert torch.autograd.gradcheck(loss, policy)


def test_the_reference_point_of_kto_and_the_ranks_of_lipo_have_no_gradient():
    chosen_B, rejected_B = (tensor(values, requires_grad=True) for values in ([-1.0, -2.0], [-3.0, -1.0]))
    free = PREFERENCE_LOSSES["kto"](chosen_B, rejected_B, *arguments()[2:], beta=BETA).sum()
    z = torch.cat([chosen_B - tensor(REF_CHOSEN), rejected_B - tensor(REF_REJECTED)]).detach().mean()
    held = PREFERENCE_LOSSES["kto"](chosen_B, rejected_B, *arguments()[2:], beta=BETA, kl_B=z[None]).sum()
    for a, b in zip(
        torch.autograd.grad(free, [chosen_B, rejected_B]), torch.autograd.grad(held, [chosen_B, rejected_B]), strict=True
    ):
        assert torch.equal(a, b)


def test_the_kl_of_hypo_has_the_gradient_of_the_kl():
    """Summed over all answers with their probabilities it is the derivative of KL(policy, reference) by the logits."""
    logits_V, ref_V = tensor([0.3, -0.4, 0.9], requires_grad=True), tensor([0.5, 0.2, -0.1]).log_softmax(0)
    logp_V = logits_V.log_softmax(0)
    exact = torch.autograd.grad((logp_V.exp() * (logp_V - ref_V)).sum(), logits_V, retain_graph=True)[0]
    estimate = torch.zeros(3, dtype=torch.float64)
    for answer in range(3):
        loss_B = PREFERENCE_LOSSES["hypo"](
            *[tensor([0.0])] * 4,
            beta=1.0,
            online_B=logp_V[answer : answer + 1],
            ref_online_B=ref_V[answer : answer + 1],
            kl_weight=1.0,
        )
        share = logp_V[answer].exp().detach()
        estimate += share * torch.autograd.grad(loss_B.sum(), logits_V, retain_graph=True)[0]
    assert torch.allclose(estimate, exact)


def test_ranked_lists_of_different_lengths():
    """A list of three and one of two, given in any order of their completions."""
    logp_B = tensor([-1.0, -2.0, -3.0, -1.0, -4.0])
    zeros_B, score_B, group_B = torch.zeros_like(logp_B), tensor([1.0, 2.0, 0.0, 0.0, 1.0]), torch.tensor([7, 7, 7, 9, 9])
    loss_L = PREFERENCE_LOSSES["lipo_lambda"](logp_B, None, zeros_B, None, beta=1.0, score_B=score_B, group_B=group_B)
    d = [1 / log(2), 1 / log(3), 1 / log(4)]  # ranks by log-prob: as given
    first = (4 - 2) * (d[0] - d[1]) * dpo_of(-1.0) + (4 - 1) * (d[1] - d[2]) * dpo_of(1.0) + (2 - 1) * (d[0] - d[2]) * dpo_of(2.0)
    assert loss_L.tolist() == pytest.approx([first, (2 - 1) * (d[0] - d[1]) * dpo_of(-3.0)])
    order = torch.tensor([4, 2, 0, 3, 1])
    mixed_L = PREFERENCE_LOSSES["lipo_lambda"](
        logp_B[order], None, zeros_B, None, beta=1.0, score_B=score_B[order], group_B=group_B[order]
    )
    assert torch.allclose(mixed_L, loss_L)


@pytest.mark.parametrize("name", ["kto", "dro"])
def test_only_good_or_only_bad_completions(name):
    none_B = torch.zeros(0, dtype=torch.float64)
    good = PREFERENCE_LOSSES[name](tensor([1.0]), none_B, tensor([0.0]), none_B, beta=1.0)
    assert good.shape == (1,)
    assert torch.equal(good, PREFERENCE_LOSSES[name](tensor([1.0]), None, tensor([0.0]), None, beta=1.0))
    assert PREFERENCE_LOSSES[name](none_B, tensor([1.0]), none_B, tensor([0.0]), beta=1.0).shape == (1,)


@pytest.mark.parametrize("name", [name for name, entry in PREFERENCE_TABLE.items() if not entry.reference])
def test_losses_without_a_reference_ignore_it(name):
    chosen_B, rejected_B, *reference = arguments()
    alone = PREFERENCE_LOSSES[name](chosen_B, rejected_B, None, None, beta=BETA, **lengths())
    assert torch.equal(alone, PREFERENCE_LOSSES[name](chosen_B, rejected_B, *reference, beta=BETA, **lengths()))


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_extreme_log_probs_stay_finite(name):
    chosen_B = tensor([-1e-9, -2e3], requires_grad=True)
    loss_B = PREFERENCE_LOSSES[name](
        chosen_B, tensor([-2e3, -1e-9]), tensor([-30.0, -30.0]), tensor([-30.0, -30.0]), beta=1.0, **lengths()
    )
    loss_B.sum().backward()
    assert loss_B.isfinite().all()
    assert chosen_B.grad is not None
    assert chosen_B.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "changes", "complaint"),
    [
        ("dpo", {"beta": 0.0}, "beta"),
        ("dpo", {"label_smoothing": 0.5}, "label_smoothing"),
        ("exo_pair", {"label_smoothing": 0.0}, "infinite"),
        ("ipo", {"chosen_length_B": None}, "lengths"),
        ("lipo_lambda", {"rejected": None}, "score_B"),
        ("dpo", {"rejected": None}, "pairs"),
        ("dpo", {"reference": None}, "reference"),
        ("dpo", {"rejected": tensor([1.0])}, "no pairs|log-probs"),
    ],
)
def test_refuses(name, changes, complaint):
    chosen_B, rejected_B, ref_chosen_B, ref_rejected_B = arguments()
    how = {"beta": BETA, **lengths(), **{key: value for key, value in changes.items() if key not in ("rejected", "reference")}}
    rejected_B = changes.get("rejected", rejected_B)
    reference = (None, None) if "reference" in changes else (ref_chosen_B, ref_rejected_B)
    with pytest.raises(ValueError, match=complaint):
        PREFERENCE_LOSSES[name](chosen_B, rejected_B, *reference, **how)
