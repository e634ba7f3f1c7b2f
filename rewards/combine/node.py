"""What a node of the tree gets and gives. Values are three-valued: a number, NaN (no verdict), None (does not apply)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from align.rewards.verdict import Verdict
from align.types import Rollout


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The judged samples of one call, whole groups. `multipliers` are those of constraints, by reward name."""

    rollouts: Sequence[Rollout]
    verdicts: Sequence[Mapping[str, Verdict]]
    multipliers: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def groups(self) -> list[list[int]]:
        """The numbers of the samples of each prompt."""
        by_prompt: dict[str, list[int]] = {}
        for number, rollout in enumerate(self.rollouts):
            by_prompt.setdefault(rollout.prompt.id, []).append(number)
        return list(by_prompt.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a node came to for one sample: NaN means that there is no verdict, None that the node does not apply.

    `fault` says what is wrong with the data where the combination itself could not be made; it counts as an error.
    """

    value: float | None
    text: str
    parts: tuple[Part, ...] = ()
    fault: str = ""

    @property
    def known(self) -> bool:
        return self.value is not None and not math.isnan(self.value)

    def faults(self) -> Iterator[str]:
        if self.fault:
            yield self.fault
        for part in self.parts:
            yield from part.faults()


class Node(BaseModel):
    """One operation of the tree. In a recipe it is a mapping with the operation as its only key."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, populate_by_name=True)
    operation: ClassVar[str] = ""

    @property
    def children(self) -> Sequence[Node]:
        raise NotImplementedError

    @property
    def own_names(self) -> Sequence[str]:
        """The rewards that this node itself names."""
        return ()

    def evaluate(self, samples: Samples) -> list[Part]:
        """One part for each sample, in order."""
        raise NotImplementedError

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def names(self) -> list[str]:
        """The rewards that the tree names, each once."""
        return list(dict.fromkeys(name for node in self.walk() for name in node.own_names))

    def columns(self, samples: Samples) -> list[tuple[Part, ...]]:
        """The children's parts of each sample."""
        columns = [child.evaluate(samples) for child in self.children]
        return list(zip(*columns, strict=True)) if columns else [()] * len(samples.rollouts)


class Reward(Node):
    """The value of a reward, by its name."""

    operation: ClassVar[str] = "reward"
    name: str

    @property
    def children(self) -> Sequence[Node]:
        return ()

    @property
    def own_names(self) -> Sequence[str]:
        return (self.name,)

    def evaluate(self, samples: Samples) -> list[Part]:
        return [reward_part(self.name, verdicts) for verdicts in samples.verdicts]


class Constant(Node):
    """A number."""

    operation: ClassVar[str] = "number"
    value: float

    @property
    def children(self) -> Sequence[Node]:
        return ()

    def evaluate(self, samples: Samples) -> list[Part]:
        return [Part(value=self.value, text="constant")] * len(samples.rollouts)


def reward_part(name: str, verdicts: Mapping[str, Verdict]) -> Part:
    verdict = verdicts.get(name)
    if verdict is None:
        return Part(value=None, text=f"{name}: does not apply")
    said = f"{name}: {verdict.status}" + (f" ({verdict.detail})" if verdict.detail else "")
    return Part(value=math.nan if verdict.value is None else verdict.value, text=said)


def changed(part: Part, text: str, value: float | None = None) -> Part:
    """A node of one child: the child's part below, and the value that became of it (where there was one)."""
    return Part(value=value if part.known else part.value, text=text, parts=(part,))


def parse_children(value: Any) -> Node:
    """For pydantic: a child, as the recipe writes it, becomes a node."""
    from align.rewards.combine.parse import parse_node

    return parse_node(value)
