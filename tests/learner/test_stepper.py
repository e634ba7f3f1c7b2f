"""What a step of the optimizer is made of: losses that see whole groups or the whole batch, and sequences without a gradient."""

import pytest
import torch

from align.learner.packing import layout
from tests.learner.conftest import make_batch
from tests.learner.test_learner import make_learner, weights_after

LENGTHS = [5, 12, 3, 9, 9, 2]


def grouped(lengths=LENGTHS):
    return make_batch(lengths).replace(group_B=torch.arange(len(lengths)) // 2)


def contrast(micro, logp_N, entropy_N):
    """Looks at all sequences of its micro-batch at once: the log of their mean probability per token."""
    sums_B = torch.zeros(micro.size).index_add(0, micro.segment_N, logp_N)
    return -(sums_B / 10).logsumexp(0) - 0.1 * entropy_N.sum() / len(entropy_N), {"sequences": torch.tensor(float(micro.size))}


def weights(learner):
    return {name: weight.detach().clone() for name, weight in learner.weights()}


def assert_close(found, expected):
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=2e-5, rtol=0)


def test_a_loss_of_the_whole_batch_does_not_depend_on_the_cut(tokenizer):
    batch, results = grouped(), []
    for budget, whole in ((8192, False), (16, True), (16, False)):
        learner = make_learner(tokenizer, micro_batch_tokens=budget, entropy_gradient=True)
        logp_N = learner.logprobs(batch)
        updates = [learner.update(batch, contrast, index=index, whole=whole) for index in range(3)]
        torch.testing.assert_close(updates[0].logp_N, logp_N)
        results.append((weights(learner), updates))
    (expected, updates), (cut, cut_updates), (wrong, _) = results
    assert_close(cut, expected)
    for one, other in zip(updates, cut_updates, strict=True):
        assert other.metrics["micro_batches"] > 1
        for key in ("loss", "grad_norm", "sequences"):
            assert other.metrics[key] == pytest.approx(one.metrics[key], rel=1e-4)
    assert max(float((wrong[name] - weight).abs().max()) for name, weight in expected.items()) > 1e-3


def test_a_whole_loss_that_is_not_finite_is_skipped(tokenizer):
    learner = make_learner(tokenizer, micro_batch_tokens=16)
    before = weights(learner)
    update = learner.update(grouped(), lambda micro, logp_N, entropy_N: (logp_N.sum() * torch.nan, {}), index=0, whole=True)
    assert not update.applied
    assert all(torch.equal(before[name], weight) for name, weight in learner.weights())


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_leaving_out_sequences_without_a_gradient_changes_nothing(tokenizer, together, whole):
    batch = grouped()
    wanted_B = torch.tensor([False, False, True, True, False, False])

    def loss(micro, logp_N, entropy_N):
        wanted_N = torch.isin(micro.group_B, batch.group_B[wanted_B])[micro.segment_N]
        return -(logp_N * wanted_N).sum() / 20, {"entropy": entropy_N.sum(), "tokens": micro.mask_N.sum()}

    results = []
    for gradient_B in (None, wanted_B):
        learner = make_learner(tokenizer, micro_batch_tokens=24)
        how = {"together": together, "whole": whole, "gradient_B": gradient_B}
        updates = [learner.update(batch, loss, index=index, **how) for index in range(2)]
        results.append((weights(learner), updates))
    (expected, updates), (found, found_updates) = results
    assert_close(found, expected)
    torch.testing.assert_close(found_updates[1].logp_N, updates[1].logp_N)
    for key in ("loss", "grad_norm", "entropy", "tokens"):
        assert found_updates[1].metrics[key] == pytest.approx(updates[1].metrics[key], rel=1e-4)


def test_only_sequences_with_a_gradient_are_kept_for_the_backward_pass(tokenizer):
    batch = grouped()
    learner = make_learner(tokenizer)
    seen = []

    def loss(micro, logp_N, entropy_N):
        seen.append((micro.size, logp_N.requires_grad))
        return -logp_N.sum(), {}

    learner.update(batch, loss, index=0, gradient_B=torch.tensor([True, False, False, False, False, True]))
    assert seen == [(2, True), (4, False)]


@pytest.mark.parametrize("gradient_B", [None, torch.zeros(6, dtype=torch.bool)])
def test_a_step_without_any_gradient_leaves_the_weights_alone(tokenizer, gradient_B):
    batch = grouped()
    learner = make_learner(tokenizer, max_skipped_steps=0)
    weights_after(learner, batch)  # there is momentum now
    before = weights(learner)
    update = learner.update(batch, lambda micro, logp_N, entropy_N: (0.0 * logp_N.sum(), {}), index=2, gradient_B=gradient_B)
    assert (update.applied, update.metrics["grad_norm"]) == (False, 0.0)
    torch.testing.assert_close(update.logp_N, learner.logprobs(batch))
    assert all(torch.equal(before[name], weight) for name, weight in learner.weights())


@pytest.mark.parametrize("packed", [True, False])
def test_groups_stay_together_in_a_layout(packed):
    lengths, groups = [2, 9, 3, 4, 9, 1, 3, 3], [0, 1, 0, 2, 1, 2, 3, 3]
    parts = layout(lengths, 16, packed=packed, groups=groups)
    assert sorted(b for part in parts for b in part) == list(range(8))
    where = {group: {place for place, part in enumerate(parts) for b in part if groups[b] == group} for group in groups}
    assert all(len(places) == 1 for places in where.values())
    assert [1, 4] in parts  # 18 tokens: above the budget, alone
