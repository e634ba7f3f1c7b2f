"""Tiny models and a real tokenizer for the rollout tests, handed out as fixtures."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from align.types import Completion, Prompt

END = 256
TINY: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 257,
    "eos_token_id": END,
    "pad_token_id": 257,
    "initializer_range": 0.2,
}


def tiny_model(model_type: str = "llama", seed: int = 0, **changes: Any) -> Any:
    """A model with fresh weights, wide enough apart that its next-token distributions are far from uniform."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **{**TINY, **changes})
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = config.eos_token_id
    model.generation_config.pad_token_id = 257
    return model


def make_prompts(lengths: Sequence[int], seed: int = 0) -> list[Prompt]:
    """Prompts of printable bytes; equal calls give equal prompts."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Prompt(id=f"test:{index}", messages=(), token_ids=tuple(torch.randint(32, 127, (length,), generator=generator).tolist()))
        for index, length in enumerate(lengths)
    ]


def by_sample(completions: Sequence[Completion]) -> dict[tuple[int, int], Completion]:
    return {(completion.prompt_index, completion.sample_index): completion for completion in completions}


def full_logprobs(model: Any, prompt: Prompt, completion: Completion, temperature: float = 1.0) -> torch.Tensor:
    """The completion's log-probs from one forward pass over the whole sequence, without a cache."""
    ids = torch.tensor([prompt.token_ids + completion.token_ids])
    with torch.no_grad():
        logits_NV = model(ids, use_cache=False).logits[0].double() / temperature
    begin = len(prompt.token_ids)
    return logits_NV[begin - 1 : -1].log_softmax(-1).gather(1, ids[0, begin:, None]).squeeze(1)


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The functions of this file that tests call with arguments of their own."""
    return SimpleNamespace(
        END=END,
        model=tiny_model,
        prompts=make_prompts,
        by_sample=by_sample,
        full_logprobs=full_logprobs,
        scripted=ScriptedModel,
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Ids 0-255 are the bytes, 256 and 257 the special tokens <end> and <pad>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), key=_byte_of)
    core = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<end>")


def _byte_of(symbol: str) -> int:
    """The byte that a symbol of the byte-level alphabet stands for (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}
    return table[symbol]


class ScriptedModel(torch.nn.Module):
    """Continues every prompt with the bytes of a text, for tests of what ends a completion.

    A llama-like shell around a script: the token after position t of the completion is the script's t-th byte.
    """

    def __init__(self, script: bytes, prompt_length: int) -> None:
        super().__init__()
        self.model = tiny_model()
        self.script = [*script, END]
        self.prompt_length = prompt_length
        self.config, self.generation_config = self.model.config, self.model.generation_config

    def forward(self, input_ids, attention_mask, position_ids, past_key_values, use_cache, logits_to_keep):
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
        )
        place_R = (position_ids[:, -1] - self.prompt_length + 1).clamp(max=len(self.script) - 1)
        chosen_R = torch.tensor(self.script)[place_R]
        output.logits = torch.nn.functional.one_hot(chosen_R, TINY["vocab_size"])[:, None].float() * 100.0
        return output
