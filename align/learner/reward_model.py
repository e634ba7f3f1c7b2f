"""Reward models on disk and in memory: a causal LM's trunk with a head of scores, and what one must know to use them.

A reward model is a ...ForSequenceClassification model, or a ...ForTokenClassification one where it judges steps, in transformers'
own layout, with its tokenizer and a reward_model.json beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.errors import CheckpointError, RecipeError, first_line
from align.learner.config import last_sentence, read_config
from align.learner.model import load_pretrained, load_weights
from align.learner.packing import Batch
from align.learner.partition import Partition
from align.learner.scores import ScoreLearner
from align.learner.trained import CARD, model_folder

if TYPE_CHECKING:
    from align.recipe.schema import Model, RewardModelRecipe, RewardObjective


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModelCard:
    """How a reward model is to be asked. `mean` and `std` of each label are those of the answers it was trained on."""

    loss: str
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_length: int  # tokens of prompt and completion
    step_separator: str | None = None  # of a process model

    def write(self, folder: Path) -> None:
        (folder / CARD).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> RewardModelCard | None:
        """The card of a model folder, None where it has none, as models of other toolkits. CheckpointError for a broken one."""
        file = folder / CARD
        if not file.is_file():
            return None
        try:
            values = json.loads(file.read_text())
            return cls(**values | {name: tuple(values[name]) for name in ("labels", "mean", "std")})
        except (ValueError, TypeError, KeyError) as error:
            fix = "train the reward model again, or remove this file: scores are then not normalised"
            raise CheckpointError(f"cannot be read: {first_line(error)}", place=str(file), fix=fix) from None


def labels_of(algorithm: RewardObjective) -> tuple[str, ...]:
    """The names of the numbers that the model gives."""
    if algorithm.loss == "process":
        return ("bad", "good")
    if algorithm.loss == "regression":
        return tuple(algorithm.attributes)
    return ("reward",) if algorithm.heads == 1 else tuple(f"reward_{number}" for number in range(algorithm.heads))


def last_token(ids: Sequence[int], pad_id: int | None) -> int:
    """The place where a whole answer is scored: the last token that is no padding, which is where transformers looks for it."""
    return next((place for place in reversed(range(len(ids))) if ids[place] != pad_id), len(ids) - 1)


class RewardLearner(ScoreLearner):
    """A learner of scores whose model is saved with its card, the statistics taken of the scores of `sample`."""

    def __init__(self, model: Any, recipe: RewardModelRecipe, sample: Batch) -> None:
        super().__init__(model, recipe.train, total_updates=recipe.train.steps, at="token", dtype=recipe.model.dtype)
        self._recipe, self._sample = recipe, sample

    def save_model(self, folder: Path) -> None:
        super().save_model(folder)
        card = self.card()
        if self.stepper.ranks.is_first:
            card.write(folder)
        self.stepper.ranks.wait()

    def card(self) -> RewardModelCard:
        algorithm, labels = self._recipe.algorithm, labels_of(self._recipe.algorithm)
        is_process = algorithm.loss == "process"
        score_MK = self.marked_scores(self._sample)
        std_K = score_MK.std(0, correction=0).clamp(min=1e-6)
        return RewardModelCard(
            loss=algorithm.loss,
            labels=labels,
            mean=(0.0,) * 2 if is_process else tuple(score_MK.mean(0).tolist()),  # probabilities need no scale
            std=(1.0,) * 2 if is_process else tuple(std_K.tolist()),
            max_length=self._recipe.train.max_length,
            step_separator=algorithm.step_separator if is_process else None,
        )

    def marked_scores(self, batch: Batch) -> Tensor:
        """score_MK of the marked tokens of a batch, on the CPU."""
        score_MK = self.scores(batch)[batch.mask_N]
        return score_MK[:, None] if score_MK.ndim == 1 else score_MK


def build_reward_model(recipe: RewardModelRecipe, tokenizer: Any) -> Any:
    """The model that a recipe trains: the trunk of its causal LM, or an earlier reward model, and a head for its labels.

    A new head is drawn from the recipe's seed. Raises CheckpointError where the model cannot be loaded, RecipeError where `init`
    makes none.
    """
    model, labels = recipe.model, labels_of(recipe.algorithm)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(recipe.seed)
        factory, partition = _factory(recipe.algorithm.loss), Partition.of(recipe.train)
        if model.init is not None:
            built = _fresh(factory, model, len(tokenizer), names, partition)
        elif (Path(model_folder(str(model.path))) / "adapter_config.json").is_file():
            built = _on_trunk_of(model, factory, names, partition)
        else:
            arguments: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": model.attn_implementation, **names}
            built = load_pretrained(factory, model, num_labels=len(labels), partition=partition, **arguments)
        built.config.pad_token_id = tokenizer.pad_token_id
        return built if model.lora is None else _adapted(built, recipe)


def load_reward_model(folder: Path, card: RewardModelCard | None, *, dtype: torch.dtype, place: str) -> Any:
    """The stored reward model, adapters merged, without gradients. Raises CheckpointError where it cannot be loaded."""
    from safetensors import SafetensorError

    factory = _factory(card.loss if card else "bradley_terry")
    try:
        with _quiet():
            if (folder / "adapter_config.json").is_file():
                loaded = _merged(folder, factory, card)
            else:
                loaded = factory.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        fix = "name the folder of a reward model, a checkpoint or a run directory of `recipe: reward_model`"
        raise CheckpointError(f"cannot load a reward model: {first_line(error)}", place=place, fix=fix) from error
    return loaded.to(dtype).requires_grad_(False).eval()


def _factory(loss: str) -> Any:
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    return AutoModelForTokenClassification if loss == "process" else AutoModelForSequenceClassification


def _fresh(factory: Any, model: Model, vocab_size: int, names: Mapping[str, Any], partition: Partition | None) -> Any:
    config = read_config(model, "model.init.config", vocab_size=vocab_size)
    config.bos_token_id = None
    try:
        with nullcontext() if partition is None or partition.ranks.is_first else torch.device("meta"):
            built = factory.from_config(_labelled(config, names), dtype=torch.float32)
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise RecipeError(
            f"the configuration makes no reward model: {last_sentence(error)}",
            place="model.init.config",
            fix="give sizes that divide, and a model_type that transformers has a classification model for, such as llama",
        ) from error
    if partition is not None:
        partition.divide(built)
    return built


def _on_trunk_of(model: Model, factory: Any, names: Mapping[str, Any], partition: Partition | None) -> Any:
    """With adapters merged. With a `partition` the first rank makes the model, which is then divided."""
    if partition is None or partition.ranks.is_first:
        causal_lm = load_weights(model, torch.float32)
        built = factory.from_config(_labelled(causal_lm.config, names), dtype=torch.float32)
        built.base_model.load_state_dict(causal_lm.base_model.state_dict())
    if partition is None:
        return built
    config = partition.ranks.from_first(lambda: built.config)
    if not partition.ranks.is_first:
        with torch.device("meta"):
            built = factory.from_config(config, dtype=torch.float32)
    partition.divide(built)
    return built


def _labelled(config: Any, names: Mapping[str, Any]) -> Any:
    config.num_labels = len(names["id2label"])
    config.id2label, config.label2id = names["id2label"], names["label2id"]
    return config


def _adapted(built: Any, recipe: RewardModelRecipe) -> Any:
    from peft import LoraConfig, get_peft_model

    lora, heads = recipe.model.lora, ["score", "classifier"]
    assert lora is not None
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        exclude_modules=heads,  # the head is trained whole, beside the adapters
        task_type="TOKEN_CLS" if recipe.algorithm.loss == "process" else "SEQ_CLS",
    )
    return get_peft_model(built, config)


def _merged(folder: Path, factory: Any, card: RewardModelCard | None) -> Any:
    from peft import PeftConfig, PeftModel
    from transformers import AutoTokenizer

    base = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    labels = len(card.labels) if card else 1
    model = factory.from_pretrained(model_folder(str(base)), num_labels=labels, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    # Adapters are saved without a config; which token is read depends on what counts as padding.
    merged.config.pad_token_id = AutoTokenizer.from_pretrained(folder).pad_token_id
    return merged


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' remark that a head is new: here that is what is asked for."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would run through the console's display
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
