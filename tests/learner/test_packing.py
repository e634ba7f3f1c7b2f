"""Flat batches, their parts and their layout."""

import pytest
import torch

from align.learner.packing import layout, model_inputs, pack_demonstrations, pack_rollouts, padding_share
from align.types import Completion, Demonstration, Prompt, Rollout
from tests.learner.conftest import make_batch


def rollout(prompt_ids, answer_ids, logprobs, loss_mask=None):
    prompt = Prompt(id="p", messages=(), token_ids=prompt_ids)
    completion = Completion(
        prompt_index=0, sample_index=0, token_ids=answer_ids, logprobs=logprobs, text="", finish_reason="stop"
    )
    return Rollout(prompt=prompt, completion=completion, loss_mask=loss_mask)


def test_rollouts_are_flattened_with_prompts_masked():
    batch = pack_rollouts(
        [rollout((1, 2), (3, 4), (-0.5, -0.25)), rollout((5,), (6, 7, 8), (-1.0, -2.0, -3.0), loss_mask=(True, False, True))],
        group_B=[0, 0],
    )
    assert batch.token_ids_N.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert batch.segment_N.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert batch.mask_N.tolist() == [False, False, True, True, False, True, False, True]
    assert batch.sampler_N is not None
    assert batch.sampler_N.tolist() == [0, 0, -0.5, -0.25, 0, -1.0, 0, -3.0]


def test_the_first_token_is_never_trained_on():
    batch = pack_demonstrations([Demonstration(id="a", token_ids=(4, 5), loss_mask=(True, True))])
    assert batch.mask_N.tolist() == [False, True]


def test_select_renumbers_sequences_and_keeps_groups():
    batch = make_batch([2, 3, 4])
    part = batch.select([2, 0])
    assert part.segment_N.tolist() == [0] * 4 + [1] * 2
    assert part.group_B.tolist() == [2, 0]
    assert part.token_ids_N.tolist() == batch.token_ids_N[5:].tolist() + batch.token_ids_N[:2].tolist()


def test_rectangles_take_similar_lengths_together_within_the_budget():
    # longest first: 10 alone (10 + 10 > 16), then 5, 5, 5; a further pass counts as 16 / 32 tokens, less than 1 of padding
    assert layout([5, 10, 1, 5, 2, 5], 16, packed=False) == [[1], [0, 3, 5], [4], [2]]


def test_rectangles_are_cut_where_that_saves_more_than_a_pass_costs():
    # a pass costs 64 / 32 = 2 tokens: 21+20 has 1 of padding, 8+8+7 too, 8 beside 20 would have 12
    assert layout([7, 20, 8, 21, 8], 64, packed=False) == [[3, 1], [2, 4, 0]]
    # filled up from the longest on it would be 30+30, 5+5+5+5+5+5 with nothing to spare, and as good: nothing is padded
    assert layout([5, 30, 5, 5, 30, 5, 5, 5], 64, packed=False) == [[1, 4], [0, 2, 3, 5, 6, 7]]
    # one long sequence leaves the others alone: 64 + 60 tokens and two passes, instead of 5 x 64 in six passes
    assert layout([64, 12, 12, 12, 12, 12], 320, packed=False) == [[0], [1, 2, 3, 4, 5]]


def test_a_sequence_above_the_budget_stands_alone():
    assert layout([20, 3], 8, packed=False) == [[0], [1]]


def test_packed_rows_keep_the_order_and_count_tokens():
    assert layout([4, 4, 4, 9], 9, packed=True) == [[0, 1], [2], [3]]


@pytest.mark.parametrize("packed", [True, False])
def test_a_layout_holds_every_sequence_once_within_the_budget(packed):
    lengths = torch.randint(1, 40, (57,), generator=torch.Generator().manual_seed(1)).tolist()
    parts = layout(lengths, 64, packed=packed)
    assert sorted(b for part in parts for b in part) == list(range(57))
    for part in parts:
        assert (sum if packed else lambda x: max(x) * len(x))([lengths[b] for b in part]) <= 64


def test_padding_share_by_hand():
    assert padding_share([4, 2], [[0, 1]], packed=False) == pytest.approx(2 / 8)
    assert padding_share([4, 2], [[0, 1]], packed=True) == 0.0


def test_inputs_predict_each_trained_token_from_the_position_before():
    batch = make_batch([3, 5])
    for packed in (True, False):
        inputs = model_inputs(batch, packed=packed)
        flat = inputs.input_ids.flatten()
        assert inputs.target_M.tolist() == batch.token_ids_N[batch.mask_N].tolist()
        assert flat[inputs.predict_M + 1].tolist() == inputs.target_M.tolist()
    assert model_inputs(batch, packed=True).position_ids.tolist() == [[0, 1, 2, 0, 1, 2, 3, 4]]


def test_minibatches_keep_groups_whole_and_cover_each_epoch_once():
    batch = make_batch([3] * 12).replace(group_B=torch.arange(6).repeat_interleave(2))
    parts = list(batch.minibatches(epochs=2, count=3, seed=5))
    assert [part.size for part in parts] == [4] * 6
    for epoch in (parts[:3], parts[3:]):
        groups = [group for part in epoch for group in part.group_B.tolist()]
        assert sorted(groups) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    again = list(batch.minibatches(epochs=2, count=3, seed=5))
    assert [part.group_B.tolist() for part in parts] == [part.group_B.tolist() for part in again]
