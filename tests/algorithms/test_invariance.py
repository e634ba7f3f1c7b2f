"""Cutting a step into micro-batches, dealing it to ranks and ordering it differently changes neither loss nor gradient."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from align.algorithms.advantages import scored_mask
from align.algorithms.methods import METHODS, resolve
from align.algorithms.names import LOSS_NAMES, LOSS_SCOPE, REDUCTION_NAMES
from align.algorithms.objective import objective
from align.algorithms.policy_losses import POLICY_LOSSES
from align.algorithms.reduce import Totals, reduce

SEQUENCES = 12
EDGES = {2: (0, 5, 12), 3: (0, 2, 6, 12)}  # where a shuffled step is cut into the uneven shares of so many ranks
TOGETHER = [name for name in LOSS_NAMES if LOSS_SCOPE[name] == "batch"]


def cuts(seed):
    """All at once in another order; one by one; and random pieces that split the samples of a prompt."""
    order = random.Random(seed).sample(range(SEQUENCES), SEQUENCES)
    yield [order]
    yield [[b] for b in order]
    yield [order[:5], order[5:6], order[6:]]


def accumulate(step, pieces, loss_of):
    """Loss, gradient in the order of the whole step, and summed stats, over micro-batches."""
    step = replace(step, index_N=torch.arange(len(step.segment_N)))
    total, gradient_N = 0.0, torch.zeros_like(step.logp_N)
    sums: dict[str, float] = {}
    for piece in pieces:
        part = step.select(piece).leaf()
        loss, stats = loss_of(part)
        total += float(loss.detach())
        gradient_N[part.index_N] += torch.autograd.grad(loss, part.logp_N)[0]
        for name, value in stats.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return total, gradient_N, sums


def loss_of_tokens(loss, part):
    knobs = {"clip_cov": {"share": 0.2, "cov_low": 0.01}, "kl_cov": {"share": 0.2}}.get(loss, {})  # more than one token
    tensors = (part.logp_N, part.old_N, part.advantage_N, part.segment_N, part.mask_N)
    return POLICY_LOSSES[loss](*tensors, group_B=part.group_B, **knobs)


def whole(pieces):
    """A loss that looks at several sequences at once gets the step whole; only its order changes."""
    return [[b for piece in pieces for b in piece]]


def assert_invariant(step, loss_of, scope="sequence"):
    loss, gradient_N, stats = accumulate(step, [list(range(SEQUENCES))], loss_of)
    assert gradient_N.abs().sum() > 0
    for seed in range(3):
        for pieces in cuts(seed):
            pieces = whole(pieces) if scope == "batch" else pieces
            other_loss, other_gradient_N, other_stats = accumulate(step, pieces, loss_of)
            assert other_loss == pytest.approx(loss, abs=1e-12)
            torch.testing.assert_close(other_gradient_N, gradient_N, rtol=0, atol=1e-12)
            assert other_stats == {name: pytest.approx(value, abs=1e-12) for name, value in stats.items()}


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("mode", REDUCTION_NAMES)
def test_every_loss_with_every_reduction(make_step, loss, mode):
    step = make_step()
    totals = Totals.of(step.segment_N, step.mask_N, step.group_B, norm_length=8)

    def loss_of(part):
        loss_N = loss_of_tokens(loss, part)
        return reduce(loss_N, part.segment_N, part.mask_N, mode, totals, part.group_B), {}

    assert_invariant(step, loss_of, LOSS_SCOPE[loss])


def dealt(ranks, seed):
    """The micro-batches of each rank, made of the sequences it was dealt: samples of a prompt are on different ranks."""
    order = random.Random(seed).sample(range(SEQUENCES), SEQUENCES)
    shares = [order[start:end] for start, end in pairwise(EDGES[ranks])]
    return [[share[: rank + 1], share[rank + 1 :]] for rank, share in enumerate(shares)]


def added_counts(step, dealing, **norm_length):
    """The totals of a step whose ranks count their own sequences and add up what they found."""
    shares = [step.select([b for piece in pieces for b in piece]) for pieces in dealing]
    counts = [Totals.of(share.segment_N, share.mask_N, share.group_B, **norm_length) for share in shares]
    prompt_tokens = torch.zeros(len(step.group_B.unique()), dtype=torch.int64)
    for count in counts:
        assert count.prompt_tokens is not None
        prompt_tokens[: len(count.prompt_tokens)] += count.prompt_tokens
    tokens, sequences = (sum(getattr(count, name) for count in counts) for name in ("tokens", "sequences"))
    return Totals(tokens, sequences, int((prompt_tokens > 0).sum()), prompt_tokens=prompt_tokens, **norm_length)


def over_ranks(step, dealing, loss_of):
    """Loss, gradient and statistics, summed over ranks that each accumulate their own micro-batches."""
    found = [accumulate(step, pieces, loss_of) for pieces in dealing]
    sums = {name: sum(stats[name] for _, _, stats in found) for name in found[0][2]}
    return sum(loss for loss, _, _ in found), sum(gradient_N for _, gradient_N, _ in found), sums


def assert_ranks_add_up(step, loss_with, scope):
    """`loss_with(totals)` is the loss of a micro-batch; a loss that looks at the whole step adds up to first order."""
    known = Totals.of(step.segment_N, step.mask_N, step.group_B, norm_length=8)
    loss, gradient_N, stats = accumulate(step, [list(range(SEQUENCES))], loss_with(known))
    assert gradient_N.abs().sum() > 0
    for ranks in EDGES:
        dealing = dealt(ranks, seed=ranks)
        totals = added_counts(step, dealing, norm_length=8)
        assert totals == known
        assert totals.prompt_tokens.equal(known.prompt_tokens)
        if scope == "batch":
            assert_slopes_add_up(step, dealing, loss_with(totals), gradient_N)
            continue
        other_loss, other_gradient_N, other_stats = over_ranks(step, dealing, loss_with(totals))
        assert other_loss == pytest.approx(loss, abs=1e-12)
        torch.testing.assert_close(other_gradient_N, gradient_N, rtol=0, atol=1e-12)
        assert other_stats == {name: pytest.approx(value, abs=1e-12) for name, value in stats.items()}


def assert_slopes_add_up(step, dealing, loss_of, slope_N):
    """With the loss's slope at every log-prob of the step, found in one piece, ranks get the gradient of shared weights."""
    weights_K = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    features_NK = torch.randn(len(slope_N), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def logp(index_N):
        return step.logp_N[index_N] + (features_NK[index_N] @ weights_K).tanh()

    exact_K = torch.autograd.grad(loss_of(replace(step, logp_N=logp(step.index_N)))[0], weights_K)[0]
    parts = [step.select(piece).index_N for pieces in dealing for piece in pieces]
    shares = [torch.autograd.grad((slope_N[index_N] * logp(index_N)).sum(), weights_K)[0] for index_N in parts]
    assert exact_K.abs().sum() > 0
    torch.testing.assert_close(sum(shares), exact_K, rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("mode", REDUCTION_NAMES)
def test_ranks_add_up_to_the_step(make_step, loss, mode):
    def loss_with(totals):
        def loss_of(part):
            loss_N = loss_of_tokens(loss, part)
            return reduce(loss_N, part.segment_N, part.mask_N, mode, totals, part.group_B), {}

        return loss_of

    assert_ranks_add_up(make_step(), loss_with, LOSS_SCOPE[loss])


@pytest.mark.parametrize("loss", TOGETHER)
def test_a_loss_of_the_whole_step_is_another_one_for_ranks_that_see_their_share(make_step, loss):
    step = make_step()
    totals = Totals.of(step.segment_N, step.mask_N, step.group_B)

    def loss_of(part):
        return reduce(loss_of_tokens(loss, part), part.segment_N, part.mask_N, "sequence_sum", totals), {}

    _, gradient_N, _ = accumulate(step, [list(range(SEQUENCES))], loss_of)
    for ranks in EDGES:
        _, other_gradient_N, _ = over_ranks(step, dealt(ranks, seed=ranks), loss_of)
        assert (other_gradient_N - gradient_N).abs().max() > 1e-3


@pytest.mark.parametrize("loss", ["rebel", "copg", "opmd"])
def test_losses_that_compare_the_samples_of_a_prompt_may_be_cut_between_prompts(make_step, loss):
    step = make_step()
    totals = Totals.of(step.segment_N, step.mask_N, step.group_B)

    def loss_of(part):
        loss_N = loss_of_tokens(loss, part)
        return reduce(loss_N, part.segment_N, part.mask_N, "sequence_sum", totals), {}

    value, gradient_N, _ = accumulate(step, [list(range(SEQUENCES))], loss_of)
    other, other_gradient_N, _ = accumulate(step, [[9, 8, 11, 10], [*range(4), *range(4, 8)]], loss_of)
    assert other == pytest.approx(value, abs=1e-12)
    torch.testing.assert_close(other_gradient_N, gradient_N, rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("mode", REDUCTION_NAMES)
def test_untrained_tokens_and_the_padding_of_them_change_nothing(make_step, loss, mode):
    """The same step without its untrained tokens: loss, gradient and totals are those of the trained ones alone."""
    step = make_step()
    totals = Totals.of(step.segment_N, step.mask_N, step.group_B, norm_length=8)

    def loss_of(part):
        loss_N = loss_of_tokens(loss, part)
        return reduce(loss_N, part.segment_N, part.mask_N, mode, totals, part.group_B)

    names = ("logp_N", "old_N", "advantage_N", "segment_N", "mask_N")
    bare = replace(step, **{name: getattr(step, name)[step.mask_N] for name in names})
    full_step, bare_step = step.leaf(), bare.leaf()
    full, alone = loss_of(full_step), loss_of(bare_step)
    assert full.item() == pytest.approx(alone.item(), abs=1e-12)
    gradient_N = torch.autograd.grad(full, full_step.logp_N)[0]
    torch.testing.assert_close(gradient_N[step.mask_N], torch.autograd.grad(alone, bare_step.logp_N)[0], rtol=0, atol=1e-12)
    assert (gradient_N[~step.mask_N] == 0).all()


def signals(method, step):
    """What the method's advantage needs beside rewards, made of the step's numbers."""
    prompts = len(step.group_B.unique())
    greedy_P = torch.linspace(-0.5, 0.5, 3, dtype=torch.float64)[step.group_B.unique_consecutive()][:prompts]
    given = {"critic": {"values_N": step.entropy_N}, "greedy": {"greedy_P": greedy_P}}
    given |= {"teacher": {"teacher_N": step.ref_N, "old_N": step.old_N}}
    return {name: value for need in method.needs if need in given for name, value in given[need].items()}


def with_advantages(step, method, rewards_PG):
    """The step as a training loop would make it: samples without a verdict leave the mask."""
    step = replace(step, mask_N=scored_mask(rewards_PG, step.segment_N, step.mask_N))
    credit = method.credit(rewards_PG, step.old_N - step.ref_N, step.segment_N, step.mask_N, **signals(method, step))
    return replace(step, mask_N=credit.mask_N, advantage_N=credit.advantage_N)


def method_loss(method, step, totals):
    return objective(
        method,
        logp_N=step.logp_N,
        old_N=step.old_N,
        advantage_N=step.advantage_N,
        segment_N=step.segment_N,
        mask_N=step.mask_N,
        totals=totals,
        group_B=step.group_B,
        sampler_N=step.sampler_N,
        ref_N=step.ref_N,
        entropy_N=step.entropy_N,
    )


def rewards_with_holes():
    rewards_PG = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    rewards_PG[0, 2] = rewards_PG[1, 0] = math.nan
    rewards_PG[2, :3] = math.nan  # a lone verdict, and its sequence has no trained token either
    return rewards_PG


@pytest.mark.parametrize("mismatch", [None, "token_mask", "sequence_truncate", "geometric_mask"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method(make_step, name, mismatch):
    correction = mismatch and {"mode": mismatch, "low": 0.5, "high": 2.0}
    method = resolve(name, entropy_coefficient=0.01, mismatch=correction, **({"pass_k": 2} if name == "pass@k" else {}))
    step = with_advantages(make_step(), method, rewards_with_holes())
    totals = Totals.of(step.segment_N, step.mask_N, step.group_B, norm_length=8)
    if method.advantage != "selection":
        assert (totals.sequences, totals.prompts) == (6, 2)
    assert_invariant(step, lambda part: method_loss(method, part, totals), method.scope)


@pytest.mark.parametrize("name", METHODS)
def test_ranks_add_up_to_the_step_of_every_method(make_step, name):
    """The credit is that of the whole step, as methods that normalise over it need; then the sequences are dealt."""
    correction = {"mode": "sequence_truncate", "low": 0.5, "high": 2.0}
    method = resolve(name, entropy_coefficient=0.01, mismatch=correction, **({"pass_k": 2} if name == "pass@k" else {}))
    step = with_advantages(make_step(), method, rewards_with_holes())
    assert_ranks_add_up(step, lambda totals: lambda part: method_loss(method, part, totals), method.scope)


@pytest.mark.parametrize("name", METHODS)
def test_a_sample_without_a_verdict_is_as_if_it_were_not_there(make_step, name):
    method, rewards_PG = resolve(name, **({"pass_k": 2} if name == "pass@k" else {})), rewards_with_holes()[:2]
    whole = with_advantages(make_step().select(range(8)), method, rewards_PG)
    totals = Totals.of(whole.segment_N, whole.mask_N, whole.group_B, norm_length=8)
    keep = [b for b in range(8) if b not in (2, 4)]
    part = make_step().select(keep)  # three samples of each prompt, all with a verdict
    part = with_advantages(part, method, rewards_PG[~rewards_PG.isnan()].view(2, 3))
    part_totals = Totals.of(part.segment_N, part.mask_N, part.group_B, norm_length=8)
    assert totals == part_totals
    loss, gradient_N, _ = accumulate(whole, [list(range(8))], lambda step: method_loss(method, step, totals))
    alone, part_gradient_N, _ = accumulate(part, [list(range(6))], lambda step: method_loss(method, step, part_totals))
    assert loss == pytest.approx(alone, abs=1e-12)
    index = torch.cat([(whole.segment_N == b).nonzero().flatten() for b in keep])
    torch.testing.assert_close(gradient_N[index], part_gradient_N, rtol=0, atol=1e-12)
    assert gradient_N[(whole.segment_N == 2) | (whole.segment_N == 4)].abs().sum() == 0


@pytest.mark.parametrize("name", METHODS)
def test_advantages_follow_the_order_of_the_prompts(make_step, name):
    method, rewards_PG = resolve(name), rewards_with_holes()
    step = with_advantages(make_step(), method, rewards_PG)
    turned = [*range(8, 12), *range(4), *range(4, 8)]
    other = with_advantages(make_step().select(turned), method, rewards_PG[[2, 0, 1]])
    torch.testing.assert_close(other.advantage_N, step.select(turned).advantage_N, rtol=0, atol=1e-12)
