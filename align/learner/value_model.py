"""Value models: a causal LM's layers under a head with one number, as transformers' ...ForTokenClassification."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from align.errors import CheckpointError
from align.learner.config import no_value_model
from align.learner.model import load_pretrained, load_tokenizer
from align.learner.partition import Partition, changing, shape_of
from align.learner.scores import HEADS, score_head
from align.learner.trained import critic_folder

if TYPE_CHECKING:
    from align.recipe.schema import Model

PLACE = "algorithm.critic.path"


def value_model_of(causal_lm: Any) -> Any:
    """A value model with a copy of a causal LM's layers, and a head that says 0 of everything.

    Raises RecipeError where transformers has no such model for its architecture.
    """
    return value_model_on(copy.deepcopy(causal_lm), None)


def value_model_on(causal_lm: Any, head: Mapping[str, Tensor] | None) -> Any:
    """A value model that shares the layers of a causal LM and, where they are given, the weights of a head."""
    from transformers import AutoModelForTokenClassification

    config = copy.deepcopy(causal_lm.config)
    config.num_labels, config.tie_word_embeddings = 1, False
    try:
        with torch.device("meta"):
            model = AutoModelForTokenClassification.from_config(config)
    except ValueError:
        raise no_value_model(config, "algorithm.critic") from None
    setattr(model, model.base_model_prefix, causal_lm.get_decoder())
    own = score_head(model)
    assert isinstance(own, nn.Linear)
    weights = {name: torch.zeros(own.get_parameter(name).shape) for name, _ in own.named_parameters()}
    own.load_state_dict(weights if head is None else {name: head[name] for name in weights}, assign=True)
    return model


def load_value_model(model: Model, path: str, tokenizer: Any, place: str = PLACE, partition: Partition | None = None) -> Any:
    """The value model at `path`: a causal LM's or a reward model's folder or hub id, an earlier critic, or a run with one.

    A head with one number is taken over; where there is none it says 0 of everything. `model` gives the attention kernel,
    and with a `partition` the ranks divide it.
    Raises CheckpointError where it cannot be loaded, or reads other tokens than `tokenizer` gives.
    """
    from transformers import AutoModelForTokenClassification

    folder = critic_folder(path)
    if (Path(folder) / "adapter_config.json").is_file():
        fix = f"merge them with `align export {path} FOLDER`, and name that folder"
        raise CheckpointError(f"{path} holds LoRA adapters, not a whole model", place=place, fix=fix)
    where = model.model_copy(update={"path": folder, "init": None, "lora": None})
    if path != model.path:
        where = where.model_copy(update={"revision": None})
    with _silence():  # transformers reports a head that is missing, which here is nothing unusual
        loaded, report = load_pretrained(
            AutoModelForTokenClassification,
            where,
            place=place,
            partition=partition,
            dtype=torch.float32,
            attn_implementation=model.attn_implementation,
            num_labels=1,
            output_loading_info=True,
        )
    _check_vocabulary(loaded, where, tokenizer, path, place)
    for name in sorted(report["missing_keys"]):  # a set, and ranks have to gather in one order
        if name.split(".")[0] in HEADS:
            with changing(loaded.get_parameter(name)) as weight:
                nn.init.zeros_(weight)
    return loaded


@contextmanager
def _silence() -> Iterator[None]:
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _check_vocabulary(loaded: Any, where: Model, tokenizer: Any, path: str, place: str) -> None:
    """Refuse a critic that was trained on other tokens than those that the policy writes."""
    rows = int(shape_of(loaded.get_input_embeddings().weight)[0])
    known = not Path(str(where.path)).is_dir() or any(Path(str(where.path)).glob("tokenizer*"))
    if rows < len(tokenizer) or (known and load_tokenizer(where).get_vocab() != tokenizer.get_vocab()):
        raise CheckpointError(
            f"the critic {path} has another vocabulary than the policy: it could not read the policy's tokens",
            place=place,
            fix="take a critic with the tokenizer of the policy, or leave path out",
        )
