"""verl's and OpenRLHF's files of formulas, read one by one: their packages want ray, deepspeed or a GPU, these files only torch.

`make test` puts both into the folder `oracles` of the virtual environment, without their dependencies and off the import path,
since each of them also brings a top-level package `tests`. What such a file imports and does not need is replaced by a stand-in.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ORACLES = Path(sys.prefix) / "oracles"


class StandIn(ModuleType):
    """A module that has every name: what it was not told to hold is an empty class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class Settings(SimpleNamespace):
    """A section of a configuration that is read by attribute and by `get`."""

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)


@contextmanager
def importable(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """`modules` and their parent packages can be imported inside; whatever else gets imported meanwhile stays."""
    parents = {name[:end] for name in modules for end, letter in enumerate(name) if letter == "."}
    added: dict[str, ModuleType] = {**{name: StandIn(name) for name in parents - set(modules)}, **modules}
    for name, module in added.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(added[parent], child, module)
    before = {name: sys.modules[name] for name in added if name in sys.modules}
    sys.modules.update(added)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]
        sys.modules.update(before)


def load(name: str, **provided: Mapping[str, Any] | ModuleType) -> ModuleType:
    """The module `name` of a toolkit, from its file alone.

    `provided` holds what it imports, "." written as "__": modules, or the names that a stand-in shall have. Skips the test
    where the toolkit is not installed.
    """
    file = ORACLES / Path(*name.split(".")).with_suffix(".py")
    if not file.exists():
        pytest.skip(f"{file} is missing: `make test` installs it, see tests/parity/oracles.txt")
    modules: dict[str, ModuleType] = {}
    for key, content in provided.items():
        path = key.replace("__", ".")
        modules[path] = content if isinstance(content, ModuleType) else StandIn(path)
        if isinstance(content, Mapping):
            vars(modules[path]).update(content)
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with importable(modules):
        spec.loader.exec_module(module)
    return module


@cache
def verl_functional() -> ModuleType:
    return load("verl.utils.torch_functional", tensordict={}, transformers={}, verl__utils__device={})


@cache
def verl_algorithms() -> ModuleType:
    """verl's advantages, policy losses, value loss, KL and aggregation."""
    return load(
        "verl.trainer.ppo.core_algos",
        omegaconf={},
        verl__utils={},
        verl__utils__torch_functional=verl_functional(),
        verl__utils__import_utils={"deprecated": lambda *_: lambda function: function},
        verl__trainer__config={},
        verl__workers__config={"ActorConfig": Settings},
    )


@cache
def verl_correction() -> ModuleType:
    """verl's weights and masks for a sampler that differs from the trainer."""
    return load(
        "verl.trainer.ppo.rollout_corr_helper",
        verl__utils__torch_functional=verl_functional(),
        verl__protocol={},
        verl__trainer__config__algorithm={},
        verl__workers__config__actor={},
    )


@cache
def openrlhf_numbers() -> ModuleType:
    """OpenRLHF's KL estimates, token rewards and masked means."""
    return load("openrlhf.models.utils", deepspeed={})


@cache
def openrlhf_losses() -> ModuleType:
    return load("openrlhf.models.loss", openrlhf__models__utils=openrlhf_numbers())


@cache
def openrlhf_lengths() -> ModuleType:
    """OpenRLHF's penalties on long answers."""
    return load("openrlhf.trainer.ppo_utils.length_penalty", openrlhf__utils__logging_utils={"init_logger": lambda _: None})


@cache
def openrlhf_experience() -> ModuleType:
    """OpenRLHF's advantages and returns."""
    return load(
        "openrlhf.trainer.ppo_utils.experience_maker",
        ray={},
        openrlhf__models__utils=openrlhf_numbers(),
        openrlhf__trainer__ppo_utils__experience={},
        openrlhf__trainer__ppo_utils__length_penalty={"apply_length_penalties": lambda *_: None},
        openrlhf__trainer__ray__launcher={},
        openrlhf__utils__logging_utils={"init_logger": lambda _: None},
        openrlhf__utils__seqlen_balancing={},
    )


@cache
def openrlhf_controllers() -> ModuleType:
    return load("openrlhf.trainer.ppo_utils.kl_controller")
