"""Models with fresh weights and a tokenizer of their own: for the quickstart, tests and trials. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from itertools import chain
from typing import TYPE_CHECKING, Any

from align.errors import RecipeError
from align.learner.config import last_sentence, read_config
from align.recipe.schema import Model

if TYPE_CHECKING:
    from align.learner.partition import Partition
    from align.recipe.schema import ModelInit, TokenizerInit

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train_tokenizer(init: TokenizerInit, texts: Iterable[str]) -> Any:
    """Train a byte-level BPE tokenizer with a ChatML template on `texts`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = [pre_tokenizers.Digits(individual_digits=True)] if init.split_digits else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=init.vocab_size,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    roles = ["system\nuser\nassistant\n"] * 50  # every conversation has them
    tokenizer.train_from_iterator(chain(roles, texts), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=TURN_END, pad_token=END_OF_TEXT)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(init: ModelInit, tokenizer: Any, seed: int, partition: Partition | None = None) -> Any:
    """A causal LM of `init.model_type` with weights drawn from `seed`, in float32.

    With a `partition` the first rank draws them and they are divided: which numbers a weight gets depends on all before it.
    Raises RecipeError where the settings make no configuration, or no model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = read_config(Model(init=init), "model.init.config", vocab_size=len(tokenizer))
    config.bos_token_id, config.eos_token_id, config.pad_token_id = None, tokenizer.eos_token_id, tokenizer.pad_token_id
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            with nullcontext() if partition is None or partition.ranks.is_first else torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise RecipeError(
            f"the configuration makes no model: {last_sentence(error)}",
            place="model.init.config",
            fix="give sizes that divide, such as hidden_size 128 with num_attention_heads 4",
        ) from error
    if partition is not None:
        partition.divide(model)
    return model
