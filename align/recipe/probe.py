"""A look at a few rows, and at what the rewards say of them, before a run spends hours on either."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from align.data.curriculum import in_band
from align.data.demonstrated_prompts import training_prompts
from align.data.demonstrations import load_demonstrations
from align.data.items import ItemSet, token_sequences
from align.data.judged import load_judged
from align.data.online_items import load_online_items
from align.data.pairs import LOADERS
from align.data.prompts import load_prompts
from align.data.sources import RowSet, read_all
from align.recipe.needs import row_need
from align.recipe.preference import row_kind
from align.recipe.schema import (
    OnlinePreferenceRecipe,
    PreferenceRecipe,
    Recipe,
    RewardBudget,
    RewardModelRecipe,
    RLRecipe,
    SFTRecipe,
)
from align.rewards.compose import RewardStack
from align.rewards.names import built_in_name
from align.types import Completion, Prompt, Rollout

if TYPE_CHECKING:
    from align.rewards.verdict import Verdict

PROBED_ROWS = 256  # rows of a source that are tokenized
PROBED_PROMPTS = 16  # prompts whose reference answer is scored
SHOWN = 2  # examples of a source that are printed


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceProbe:
    """One source: how many rows it has, and the first of them as the model will see them."""

    split: str  # train or eval
    label: str
    rows: int
    bad: list[tuple[str, str]]  # (place, why) of unusable rows
    looked_at: int  # rows that were tokenized
    dropped: int  # of these, above the length limit
    lengths: list[int]  # tokens of the others
    examples: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardProbe:
    """One reward: its verdicts on the reference answers, which should pass, and on empty completions, which should not."""

    name: str
    judges_answers: bool  # False for rewards of the format alone, which references need not have
    reference: Mapping[str, int]  # status -> count
    empty: Mapping[str, int]
    mean: float | None  # value of the reference answers
    detail: str  # of the first reference answer that did not pass


def read_sources(recipe: Recipe) -> dict[str, list[RowSet]]:
    """All rows by split, read as a run reads them. Raises DataError where a run would."""
    bad = recipe.data.max_bad_rows
    train = read_all(recipe.data.train, max_bad_rows=bad, need=row_need(recipe, "train"))
    sources = {"train": in_band(train, recipe.data.curriculum)}
    if recipe.evaluate is not None:
        sources["eval"] = read_all(recipe.data.eval, max_bad_rows=bad, need=row_need(recipe, "eval"))
    return {split: rowsets for split, rowsets in sources.items() if rowsets}


def probe_data(
    recipe: Recipe, sources: Mapping[str, Sequence[RowSet]], tokenizer: Any
) -> tuple[list[SourceProbe], dict[str, ItemSet[Any]]]:
    """The first rows of each source, tokenized; and the items made of them, by split. Without a tokenizer only the counts."""
    probes: list[SourceProbe] = []
    taken: dict[str, ItemSet[Any]] = {}
    for split, rowsets in sources.items():
        few = [replace(rowset, rows=rowset.rows[:PROBED_ROWS]) for rowset in rowsets]
        taken[split] = items = _items(recipe, split, few, tokenizer)
        for rowset, probed, found in zip(rowsets, few, items.by_source, strict=True):
            probes.append(
                SourceProbe(
                    split=split,
                    label=rowset.label,
                    rows=len(rowset.rows),
                    bad=rowset.bad,
                    looked_at=len(probed.rows) if tokenizer is not None else 0,
                    dropped=items.dropped_long[rowset.label],
                    lengths=[max(map(len, token_sequences(item))) for item in found],
                    examples=[tokenizer.decode(token_sequences(item)[0]) for item in found[:SHOWN]],
                )
            )
    return probes, taken


def _items(recipe: Recipe, split: str, rowsets: Sequence[RowSet], tokenizer: Any) -> ItemSet[Any]:
    bad = recipe.data.max_bad_rows
    if tokenizer is None:
        return ItemSet(
            by_source=[[] for _ in rowsets],
            weights=[rowset.source.weight for rowset in rowsets],
            dropped_long=dict.fromkeys((rowset.label for rowset in rowsets), 0),
            bad=[entry for rowset in rowsets for entry in rowset.bad],
            notes=[],
        )
    if isinstance(recipe, RewardModelRecipe):
        return load_judged(recipe, rowsets, tokenizer)
    if isinstance(recipe, PreferenceRecipe):
        train = recipe.train
        return LOADERS["pair" if split == "eval" else row_kind(recipe.algorithm)](
            rowsets, tokenizer, max_length=train.max_length, truncation=train.truncation, max_bad_rows=bad
        )
    if split == "train" and isinstance(recipe, OnlinePreferenceRecipe):
        return load_online_items(recipe, rowsets, tokenizer)
    if split == "train" and isinstance(recipe, SFTRecipe):
        length, loss_on = recipe.train.max_length, recipe.train.loss_on
        return load_demonstrations(rowsets, tokenizer, loss_on=loss_on, max_length=length, max_bad_rows=bad)
    if split == "train" and isinstance(recipe, RLRecipe):
        return training_prompts(recipe, rowsets, tokenizer)
    return load_prompts(rowsets, tokenizer, max_prompt_length=recipe.data.max_prompt_length, max_bad_rows=bad)


def shared_prompts(sources: Mapping[str, Sequence[RowSet]]) -> int:
    """How many evaluation prompts are training prompts too."""
    seen, held_out = (
        [repr(row.columns.get("prompt")) for rowset in sources.get(split, ()) for row in rowset.rows]
        for split in ("train", "eval")
    )
    known = set(seen) - {"None"}
    return sum(prompt in known for prompt in held_out)


def probe_rewards(recipe: Recipe, prompts: Sequence[Prompt], tokenizer: Any) -> list[RewardProbe]:
    """What each reward says of reference answers and of empty completions. Nothing it says is fatal here."""
    if not recipe.reward_specs:
        return []
    answered = [prompt for prompt in prompts if reference_text(prompt) is not None][:PROBED_PROMPTS]
    stack = RewardStack(recipe.reward_specs, RewardBudget(max_error_rate=1.0), recipe.combination)
    try:
        reference = asyncio.run(stack.score([_rollout(prompt, str(reference_text(prompt)), tokenizer) for prompt in answered]))
        empty = asyncio.run(stack.score([_rollout(prompt, "", tokenizer) for prompt in prompts[:PROBED_PROMPTS]]))
    finally:
        stack.close()
    return [
        _reward_probe(
            name,
            not spec.use.startswith("format.") and built_in_name(spec.use) != "reward_model",
            [scored.verdicts[name] for scored in reference if name in scored.verdicts],
            [scored.verdicts[name] for scored in empty if name in scored.verdicts],
        )
        for spec, name in zip(recipe.reward_specs, stack.names, strict=True)
    ]


def reference_text(prompt: Prompt) -> str | None:
    """The reference as a model might have written it: the whole of the answer column, with GSM8K's reasoning, say."""
    answer = prompt.columns.get("answer", prompt.answer)
    return None if answer is None else str(answer)


def _rollout(prompt: Prompt, text: str, tokenizer: Any) -> Rollout:
    ids = tuple(tokenizer.encode(text, add_special_tokens=False))
    completion = Completion(
        prompt_index=0, sample_index=0, token_ids=ids, logprobs=(0.0,) * len(ids), text=text, finish_reason="stop"
    )
    return Rollout(prompt=prompt, completion=completion)


def _reward_probe(name: str, judges_answers: bool, reference: Sequence[Verdict], empty: Sequence[Verdict]) -> RewardProbe:
    values = [verdict.value for verdict in reference if verdict.value is not None]
    return RewardProbe(
        name=name,
        judges_answers=judges_answers,
        reference=Counter(verdict.status for verdict in reference),
        empty=Counter(verdict.status for verdict in empty),
        mean=fmean(values) if values else None,
        detail=next((verdict.detail or verdict.status for verdict in reference if verdict.status != "pass"), ""),
    )


def probe_notes(taken: Mapping[str, ItemSet[Any]], rewards: Sequence[RewardProbe], shared: int) -> Iterator[str]:
    """What deserves a second look."""
    for split, items in taken.items():
        yield from (f"data.{split}: {remark}" for remark in items.remarks())
    if shared:
        yield f"{shared} prompts of data.eval are in data.train too: the evaluation will look better than it is"
    for reward in rewards:
        tried = sum(reward.reference.values())
        if reward.judges_answers and (failures := tried - reward.reference.get("pass", 0)):
            yield f"reward {reward.name}: {failures} of {tried} reference answers do not pass ({reward.detail})"
        if not tried:
            yield f"reward {reward.name}: not tried, no row has a reference answer that it applies to"
        if reward.judges_answers and (passed := reward.empty.get("pass", 0)):
            yield f"reward {reward.name}: {passed} of {sum(reward.empty.values())} empty completions pass"
