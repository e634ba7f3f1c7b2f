"""A tiny model and batches for the learner's tests."""

import pytest
import torch

from align.learner.fresh import build_model, train_tokenizer
from align.learner.packing import Batch, pack_demonstrations
from align.recipe.schema import ModelInit
from align.types import Demonstration

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(ModelInit().tokenizer, ["17+25=42 42+38=80", "user assistant system"])


@pytest.fixture
def tiny_model(tokenizer):
    return build_model(ModelInit(model_type="llama", config=SIZES), tokenizer, seed=0)


def make_batch(lengths, seed=0, vocabulary=200) -> Batch:
    """Random tokens; the first third of each sequence is a prompt."""
    generator = torch.Generator().manual_seed(seed)
    demonstrations = []
    for index, length in enumerate(lengths):
        ids = torch.randint(vocabulary, (length,), generator=generator).tolist()
        mask = [position >= max(1, length // 3) for position in range(length)]
        demonstrations.append(Demonstration(id=str(index), token_ids=tuple(ids), loss_mask=tuple(mask)))
    return pack_demonstrations(demonstrations)
