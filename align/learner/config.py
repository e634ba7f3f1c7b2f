"""The transformers configuration of the model that a recipe names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from align.errors import CheckpointError, RecipeError, first_line
from align.learner.trained import model_folder

if TYPE_CHECKING:
    from align.recipe.schema import Model

EARLIER_NAMES = {"rope_theta", "rope_scaling"}  # that configurations still accept


def read_config(model: Model, place: str, vocab_size: int | None = None) -> Any:
    """The transformers configuration of a recipe's model.

    Raises RecipeError where `init` makes none, CheckpointError where that of `path` cannot be read.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, AutoConfig

    if model.init is None:
        folder, revision = model_folder(str(model.path)), model.revision or "main"
        try:
            return AutoConfig.from_pretrained(folder, revision=revision, trust_remote_code=model.trust_remote_code)
        except (OSError, ValueError) as error:
            fix = "give a model folder or hub id that transformers can read"
            raise CheckpointError(f"no configuration of {folder}: {last_sentence(error)}", place=place, fix=fix) from None
    _known_name("there is no model type", model.init.model_type, CONFIG_MAPPING, place)
    settings = {"vocab_size": vocab_size or model.init.tokenizer.vocab_size, **model.init.config}
    try:
        config = AutoConfig.for_model(model.init.model_type, **settings)
    except (ValueError, TypeError, KeyError, AttributeError, StrictDataclassError) as error:
        raise RecipeError(
            f"no configuration of a {model.init.model_type!r} model: {last_sentence(error)}",
            place=place,
            fix=f"see {CONFIG_MAPPING[model.init.model_type].__name__} in the transformers documentation",
        ) from None
    names = {field.name for field in fields(config)} | set(config.attribute_map) | EARLIER_NAMES
    for name in model.init.config:
        _known_name(f"a {model.init.model_type} configuration has no", name, names, place)
    return config


def no_value_model(config: Any, place: str) -> RecipeError:
    """The error of a critic whose architecture has none."""
    return RecipeError(
        f"transformers has no value model (...ForTokenClassification) of the architecture {config.model_type}",
        place=place,
        fix="take a model of another architecture, such as llama, qwen2 or qwen3, or a method without a critic",
    )


def _known_name(complaint: str, name: str, known: Iterable[str], place: str) -> None:
    known = list(known)
    if name not in known:
        close = get_close_matches(name, known, n=1)
        fix = f"did you mean {close[0]}?" if close else "take the names from the transformers documentation"
        raise RecipeError(f"{complaint} {name!r}", place=place, fix=fix)


def last_sentence(error: Exception) -> str:
    """The last sentence of an error of transformers: the others say which validator found it."""
    lines = str(error).strip().splitlines() or [first_line(error)]
    return lines[-1].strip().removeprefix("ValueError: ")[:300]
