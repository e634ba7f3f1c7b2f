"""The reference's log-probs: asked once, found again by content, computed again where the file is damaged."""

import pytest
import torch

from align.learner.fresh import build_model
from align.learner.learner import Learner
from align.learner.preference_batch import pack_sequences, sequence_sums
from align.learner.reference import Reference, fingerprint
from align.recipe.schema import ModelInit, PreferenceTrain
from tests.learner.conftest import SIZES

SEQUENCES = [((1, 2, 3), (4, 5)), ((1, 2, 3), (6,)), ((7,), (8, 9, 10, 11))]


class Counted:
    """Log-probs that depend on the tokens alone, and how many sequences were asked for."""

    def __init__(self):
        self.asked = 0

    def __call__(self, batch):
        self.asked += batch.size
        return -(batch.token_ids_N / 8) * batch.mask_N


EXPECTED = [-9 / 8, -6 / 8, -38 / 8]


def test_every_sequence_is_asked_for_once(tmp_path):
    ask = Counted()
    reference = Reference(tmp_path, "model", ask)
    assert reference.missing(SEQUENCES) == 3
    heard: list[int] = []
    reference.ask([*SEQUENCES, SEQUENCES[0]], on_progress=heard.append)
    assert reference.sums(SEQUENCES).tolist() == EXPECTED
    assert (ask.asked, sum(heard), reference.missing(SEQUENCES)) == (3, 3, 0)
    reference.ask(SEQUENCES)
    again = Reference(tmp_path, "model", ask)
    assert again.sums(SEQUENCES).tolist() == EXPECTED
    assert ask.asked == 3
    assert Reference(tmp_path, "another", ask).missing(SEQUENCES) == 3


def test_prompt_and_completion_are_told_apart(tmp_path):
    reference = Reference(tmp_path, "model", Counted())
    reference.ask([((1, 2), (3, 4))])
    assert reference.missing([((1, 2, 3), (4,))]) == 1


def test_a_killed_writer_and_a_damaged_line_cost_only_themselves(tmp_path):
    reference = Reference(tmp_path, "model", Counted())
    reference.ask(SEQUENCES)
    lines = reference.path.read_text().splitlines()
    digit = lines[1].split()[1][1]
    lines[1] = lines[1].replace(f"-{digit}", f"-{(int(digit) + 1) % 10}", 1)
    reference.path.write_text("\n".join(lines)[:-6])  # and the last line was cut off
    ask = Counted()
    again = Reference(tmp_path, "model", ask)
    assert again.missing(SEQUENCES) == 2
    again.ask(SEQUENCES)
    assert again.sums(SEQUENCES).tolist() == EXPECTED
    assert Reference(tmp_path, "model", ask).missing(SEQUENCES) == 0


def test_values_that_do_not_agree_are_forgotten(tmp_path):
    reference = Reference(tmp_path, "model", Counted())
    reference.ask(SEQUENCES)
    assert reference.verify(SEQUENCES)
    other = Reference(tmp_path, "model", lambda batch: batch.mask_N * -3.0)
    assert not other.verify(SEQUENCES)
    assert other.missing(SEQUENCES) == 3
    other.ask(SEQUENCES)
    assert other.sums(SEQUENCES).tolist() == [-6.0, -3.0, -12.0]


def test_the_fingerprint_is_that_of_the_weights(tokenizer):
    init = ModelInit(model_type="llama", config=SIZES)
    one, same, other = (build_model(init, tokenizer, seed=seed) for seed in (0, 0, 1))
    assert fingerprint(one, "float32") == fingerprint(same, "float32")
    assert len({fingerprint(one, "float32"), fingerprint(other, "float32"), fingerprint(one, "bfloat16")}) == 3


@pytest.mark.parametrize("micro_batch_tokens", [8, 1000])
def test_sums_are_those_of_a_plain_forward_pass(tokenizer, tiny_model, micro_batch_tokens, tmp_path):
    learner = Learner(tiny_model, PreferenceTrain(micro_batch_tokens=micro_batch_tokens), total_updates=1, dropout=False)
    reference = Reference(tmp_path, "model", learner.logprobs)
    reference.ask(SEQUENCES)
    for (prompt, completion), value in zip(SEQUENCES, reference.sums(SEQUENCES).tolist(), strict=True):
        ids = torch.tensor([[*prompt, *completion]])
        with torch.no_grad():
            logp_TV = tiny_model(ids).logits[0].log_softmax(-1)
        picked = [logp_TV[len(prompt) - 1 + place, token] for place, token in enumerate(completion)]
        assert value == pytest.approx(float(sum(picked)), abs=1e-4)
    batch = pack_sequences(SEQUENCES, range(3))
    assert torch.allclose(sequence_sums(learner.logprobs(batch), batch), reference.sums(SEQUENCES), atol=1e-4)
