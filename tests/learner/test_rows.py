"""Rows in which common beginnings stand once: what they hold, and that no number depends on it."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForTokenClassification

from align.errors import RecipeError
from align.learner.learner import Learner
from align.learner.logprobs import LogprobModel
from align.learner.packing import Batch, model_inputs
from align.learner.rows import row_inputs, shares_beginnings, whole_sequence_attention
from align.learner.scores import ScoreModel
from align.recipe.schema import Optimization
from tests.learner.conftest import SIZES

MOE = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}
SHARING: dict[str, dict[str, Any]] = {
    "llama": {"num_attention_heads": 4},  # two heads for each key
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "qwen3_moe": MOE,
    "mistral": {"sliding_window": None},
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
}
NOT_SHARING: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 8},
    "gemma2": {"head_dim": 16},
    "falcon": {"alibi": True, "num_kv_heads": 2},
    "bloom": {"n_head": 2, "n_layer": 2},
    "mamba": {"state_size": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
}


def build(kind, **arguments):
    torch.manual_seed(3)
    options = {name: arguments.pop(name) for name in ("attn_implementation",) if name in arguments}
    config = AutoConfig.for_model(kind, vocab_size=200, **{**SIZES, "pad_token_id": 0, "initializer_range": 0.2, **arguments})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, **options).eval()


def make_groups(sequences) -> Batch:
    """(group, tokens, how many of them are the prompt) of each sequence."""
    ids = [tokens for _, tokens, _ in sequences]
    lengths = torch.tensor([len(tokens) for tokens in ids])
    return Batch(
        token_ids_N=torch.tensor([token for tokens in ids for token in tokens]),
        segment_N=torch.repeat_interleave(torch.arange(len(ids)), lengths),
        mask_N=torch.tensor([place >= prompt for _, tokens, prompt in sequences for place in range(len(tokens))]),
        group_B=torch.tensor([group for group, _, _ in sequences]),
    )


@pytest.fixture
def batch():
    """Two prompts with samples of uneven length, among them equal ones, one that another begins with, and a lone sequence."""
    generator = torch.Generator().manual_seed(0)

    def draw(count):
        return torch.randint(1, 200, (count,), generator=generator).tolist()

    one, other, sample = draw(9), draw(4), draw(30)
    group = [(0, one + answer, 9) for answer in (draw(3), sample, sample, sample[:7], draw(1))]
    return make_groups([*group, (1, other + draw(12), 4), (1, other + draw(2), 4), (2, draw(5), 1)])


def test_a_row_holds_each_beginning_once():
    batch = make_groups([(0, [7, 8, 1, 2], 2), (0, [7, 8, 3], 2), (1, [7, 8, 4], 2), (0, [7, 8, 1, 5, 6], 2)])
    inputs = row_inputs(batch)
    # the second and the last share with the first; the third is of another group
    assert inputs.input_ids.tolist() == [[7, 8, 1, 2, 3, 7, 8, 4, 5, 6]]
    assert inputs.position_ids.tolist() == [[0, 1, 2, 3, 2, 0, 1, 2, 3, 4]]
    assert inputs.target_M.tolist() == [1, 2, 3, 4, 1, 5, 6]
    assert inputs.token_M.tolist() == [2, 3, 4, 7, 2, 8, 9]
    assert inputs.predict_M.tolist() == [1, 2, 1, 6, 1, 2, 8]


@pytest.mark.parametrize("kind", SHARING)
def test_numbers_and_gradients_are_those_of_rectangles(kind, batch):
    model = build(kind, **SHARING[kind])
    assert shares_beginnings(model)
    module = LogprobModel(model, entropy_gradient=True)
    weight_M = torch.randn(int(batch.mask_N.sum()), generator=torch.Generator().manual_seed(1))

    def run(inputs):
        model.zero_grad()
        logp_M, entropy_M = module(inputs, entropy=True)
        (weight_M * (logp_M + 0.3 * entropy_M)).sum().backward()
        return logp_M.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    expected, gradients = run(model_inputs(batch, packed=False))
    with whole_sequence_attention(model):
        found, shared = run(row_inputs(batch))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert shared.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(shared[name], gradient, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("kind", SHARING)
def test_a_row_is_refused_by_attention_that_was_not_replaced(kind, batch):
    with pytest.raises(RuntimeError, match="mask"):
        LogprobModel(build(kind, **SHARING[kind]))(row_inputs(batch), entropy=False)


@pytest.mark.parametrize(
    "own",
    [{"attention_mask": torch.zeros(1, 1, 1, 9)}, {"attention_mask": None}, {"position_bias": torch.zeros(1, 2, 9, 9)}],
    ids=["another mask", "no mask", "a bias"],
)
def test_a_mask_or_bias_of_a_layer_is_not_dropped_silently(own, batch):
    model = build("llama")
    attention = model.model.layers[1].self_attn
    attention.register_forward_pre_hook(lambda _, given, named: (given, named | own), with_kwargs=True)
    with whole_sequence_attention(model), pytest.raises(RecipeError, match="mask or bias of its own") as error:
        LogprobModel(model)(row_inputs(batch), entropy=False)
    assert error.value.fix == "write packing: rectangles"


@pytest.mark.parametrize("kind", NOT_SHARING)
def test_windows_and_states_are_left_to_rectangles(kind):
    assert not shares_beginnings(build(kind, **NOT_SHARING[kind]))
    assert not shares_beginnings(build("llama", attn_implementation="eager"))


@pytest.mark.parametrize("at", ["before", "token"])
def test_scores_are_those_of_rectangles(at, batch):
    """Also where the layers were made for another model, and have its config, as those of a critic."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=200, num_labels=1, pad_token_id=0, **SIZES)
    model = AutoModelForTokenClassification.from_config(config).eval()
    model.model = build("llama").model
    module = ScoreModel(model, at=at)
    with torch.no_grad():
        expected = module(model_inputs(batch, packed=False))
        with whole_sequence_attention(model):
            found = module(row_inputs(batch))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.01


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}, {"micro_batch_tokens": 40}], ids=str)
def test_a_learner_takes_the_same_step_with_either_layout(options, batch):
    """Checkpointed layers compute forward during the backward pass: attention must be the same then."""
    batch = batch.replace(advantage_N=torch.randn(8, generator=torch.Generator().manual_seed(4))[batch.segment_N])
    steps = {}
    for packing in ("auto", "rectangles"):
        train = Optimization(packing=packing, learning_rate=1e-2, **options)
        learner: Any = Learner(build("llama"), train, total_updates=1, dropout=False)
        update = learner.update(batch, lambda micro, logp_N, _: (-(micro.advantage_N * logp_N).sum(), {}), index=0)
        steps[packing] = update.metrics["grad_norm"], update.logp_N, learner.logprobs(batch)
        assert learner.model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(steps["auto"], steps["rectangles"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(steps["auto"][1], steps["rectangles"][1], rtol=0, atol=2e-5)
