"""What prompts and demonstrations have in common: items by source, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from align.types import GradedSteps, LabelledCompletion, PreferencePair, Ranking, RatedCompletion

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSet(Generic[T]):
    """The items of every source, with what was left out."""

    by_source: list[list[T]]
    weights: list[float]
    dropped_long: dict[str, int]  # source label -> items above the length limit, sources in order
    bad: list[tuple[str, str]]  # (place, why) of unusable rows
    notes: list[str]  # of the tokenizer

    def remarks(self) -> Iterator[str]:
        """What a user should know of the data that was taken."""
        yield from self.notes
        for (label, count), kept in zip(self.dropped_long.items(), self.by_source, strict=True):
            if count:
                yield f"{label}: {count} of {count + len(kept)} rows are above the length limit and left out"
        if self.bad:
            place, why = self.bad[0]
            yield f"{len(self.bad)} unusable rows are left out, the first: {place}: {why}"


def token_sequences(item: Any) -> list[tuple[int, ...]]:
    """What a model is given of an item: the tokens of each of its sequences, prompt and completion."""
    match item:
        case PreferencePair():
            return [item.prompt_ids + item.chosen_ids, item.prompt_ids + item.rejected_ids]
        case Ranking():
            return [item.prompt_ids + completion for completion in item.completions_G]
        case RatedCompletion() | LabelledCompletion():
            return [item.prompt_ids + item.completion_ids]
        case GradedSteps():
            return [sum(item.steps, item.prompt_ids)]
        case _:
            return [item.token_ids]
