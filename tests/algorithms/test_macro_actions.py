"""Macro actions: where they end, and losses over them."""

from __future__ import annotations

from math import exp

import pytest
import torch

from align.algorithms.macro_actions import Chunks, ngram_ends
from align.algorithms.methods import resolve
from align.algorithms.objective import objective
from align.algorithms.policy_losses import POLICY_LOSSES
from align.algorithms.reduce import Totals

# sequence 0: five trained tokens with an untrained one between; sequence 1: none; sequence 2: two
SEGMENT_N = torch.tensor([0, 0, 0, 0, 0, 0, 1, 2, 2])
MASK_N = torch.tensor([1, 1, 0, 1, 1, 1, 0, 1, 1])


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(actual, expected):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=0, atol=1e-12)


def test_ngrams_count_trained_tokens():
    assert ngram_ends(SEGMENT_N, MASK_N, 2).int().tolist() == [0, 1, 0, 0, 1, 0, 0, 0, 1]
    assert ngram_ends(SEGMENT_N, MASK_N, 1).int().tolist() == MASK_N.tolist()
    with pytest.raises(ValueError, match="length"):
        ngram_ends(SEGMENT_N, MASK_N, 0)


def test_actions_end_with_their_sequence():
    chunks = Chunks.of(SEGMENT_N, MASK_N, ngram_ends(SEGMENT_N, MASK_N, 2))
    assert chunks.chunk_M.tolist() == [0, 0, 1, 1, 2, 3, 3]
    assert chunks.segment_C.tolist() == [0, 0, 0, 2]
    assert chunks.length_C.tolist() == [2, 2, 1, 2]
    x_N = numbers(1, 2, 99, 3, 4, 5, 99, 6, 7)
    close(chunks.sum(x_N), [3, 7, 5, 13])
    close(chunks.mean(x_N), [1.5, 3.5, 5, 6.5])
    close(chunks.first(x_N), [1, 3, 5, 6])
    close(chunks.spread(numbers(1, 2, 3, 4)), [1, 1, 0, 2, 2, 3, 0, 4, 4])
    close(chunks.share_out(numbers(1, 2, 3, 4)), [0.5, 0.5, 0, 1, 1, 3, 0, 2, 2])


def test_sentences_end_where_they_are_said_to():
    chunks = Chunks.of(SEGMENT_N, MASK_N, torch.tensor([0, 0, 1, 1, 0, 0, 1, 0, 0]))  # ends on untrained tokens say nothing
    assert chunks.chunk_M.tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_an_empty_batch_has_no_actions():
    chunks = Chunks.of(SEGMENT_N, torch.zeros(9), torch.zeros(9))
    assert chunks.sum(torch.ones(9)).shape == (0,)
    assert (chunks.spread(torch.ones(0)) == 0).all()


def compute(method, logp_N, old_N, advantage_N, **more):
    return objective(
        method, logp_N=logp_N, old_N=old_N, advantage_N=advantage_N, segment_N=SEGMENT_N, mask_N=MASK_N,
        totals=Totals.of(SEGMENT_N, MASK_N), **more,
    )  # fmt: skip


def test_the_clip_is_of_the_ratio_of_the_action():
    """Two tokens at ratio 1.15 each are one action at 1.32, which is clipped at 1.28 where one token would not be."""
    log_ratio_N = numbers(0.14, 0.14, 9, 0.14, -0.14, 0.0, 9, 0.0, 0.0)
    logp_N = log_ratio_N.clone().requires_grad_()
    advantage_N = torch.ones(9).double()
    loss, stats = compute(resolve("dapo", macro_actions={"length": 2}), logp_N, torch.zeros(9).double(), advantage_N)
    assert loss.item() == pytest.approx((-1.28 - 1 - 1 - 1) / 7)
    gradient_N = torch.autograd.grad(loss, logp_N)[0]
    close(gradient_N * 7, [0, 0, 0, -1, -1, -1, 0, -1, -1])
    assert float(stats["clip_ratio/high_mean"]) == pytest.approx(2 / 7)
    assert float(stats["ratio/mean"]) == pytest.approx((3 * exp(0.14) + exp(-0.14) + 3) / 7)


@pytest.mark.parametrize("name", ["clip", "importance", "cispo", "gspo", "sapo"])
def test_actions_of_one_token_change_nothing(name, make_step):
    step = make_step(spread=0.8)
    chunks = Chunks.of(step.segment_N, step.mask_N, torch.ones_like(step.mask_N))
    tokens = (step.logp_N, step.old_N, step.advantage_N, step.segment_N, step.mask_N)
    got_N = chunks.share_out(POLICY_LOSSES[name](*chunks.actions(*tokens[:3])))
    torch.testing.assert_close(got_N, POLICY_LOSSES[name](*tokens), rtol=0, atol=1e-12)


def test_a_whole_sequence_as_one_action_has_the_ratio_of_the_sequence():
    ends_N, mask_N = torch.zeros(4), torch.ones(4)
    chunks = Chunks.of(torch.tensor([0, 0, 0, 1]), mask_N, ends_N)
    loss_C = POLICY_LOSSES["importance"](*chunks.actions(numbers(0.1, 0.2, 0.3, 0.4), torch.zeros(4).double(), mask_N.double()))
    close(loss_C, [-exp(0.6), -exp(0.4)])


def test_at_ratio_one_the_gradient_within_an_action_is_shared(make_step):
    step = make_step().leaf()
    method = resolve("dapo", macro_actions={"length": 3})
    totals = Totals.of(step.segment_N, step.mask_N)
    loss, _ = objective(
        method, logp_N=step.logp_N, old_N=step.logp_N.detach(), advantage_N=step.advantage_N, segment_N=step.segment_N,
        mask_N=step.mask_N, totals=totals,
    )  # fmt: skip
    gradient_N = torch.autograd.grad(loss, step.logp_N)[0]
    torch.testing.assert_close(gradient_N, torch.where(step.mask_N, -step.advantage_N, 0.0) / totals.tokens)
