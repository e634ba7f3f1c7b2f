"""The parts of a run on stored preferences: model, learner, data, and the reference's log-probs. Nothing is sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.algorithms.preference_objective import Term, implicit_rewards
from align.data.cursor import Cursor
from align.data.items import ItemSet
from align.data.pairs import LOADERS, require_margins
from align.data.sources import RowSet, row_texts
from align.errors import RecipeError
from align.evaluate.generate import spread
from align.evaluate.pairs import HeldOutResult, JudgedPair, judge_pairs
from align.learner.frozen import FrozenPolicy
from align.learner.learner import Learner, Which
from align.learner.model import load_model, load_tokenizer
from align.learner.partition import Partition
from align.learner.preference_batch import Item, PreferenceBatch, completions, pack_preferences
from align.learner.reference import Reference, fingerprint
from align.loops.preference_loss import compared, recipe_terms
from align.loops.preflight import Rows
from align.recipe.preference import needs_reference, row_kind
from align.types import PreferencePair

if TYPE_CHECKING:
    from align.recipe.schema import PreferenceRecipe
    from align.run.console import RunConsole

_JUDGED_AT_ONCE = 64  # pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceSite:
    """What the loop works with; `reference` is None where no loss has one."""

    recipe: PreferenceRecipe
    tokenizer: Any
    learner: Learner
    cursor: Cursor[Item]
    held_out: Sequence[PreferencePair]
    reference: Reference | None
    terms: Sequence[Term]

    def pack(self, items: Sequence[Item], *, margin_scale: float | None = None) -> PreferenceBatch:
        """The items as a batch, with what the reference says of them; with `margin_scale`, their margins as well."""
        batch = pack_preferences(items, margin_scale=margin_scale)
        if self.reference is None:
            return batch
        return batch.replace(ref_B=self.reference.sums([one for item in items for one in completions(item)]))

    def judge(self, on_progress: Callable[[int], None]) -> HeldOutResult:
        """How the policy's implicit rewards order the held-out pairs."""
        judged: list[JudgedPair] = []
        for start in range(0, len(self.held_out), _JUDGED_AT_ONCE):
            pairs = self.held_out[start : start + _JUDGED_AT_ONCE]
            batch = self.pack(pairs)
            reward_B = implicit_rewards(self.terms[0], compared(batch, self.learner.logprobs(batch)))
            judged += [
                JudgedPair(
                    id=pair.id,
                    source=pair.source,
                    chosen=chosen,
                    rejected=rejected,
                    chosen_length=len(pair.chosen_ids),
                    rejected_length=len(pair.rejected_ids),
                )
                for pair, (chosen, rejected) in zip(pairs, reward_B.view(-1, 2).tolist(), strict=True)
            ]
            on_progress(len(pairs))
        return judge_pairs(judged, seed=self.recipe.seed)


@contextmanager
def open_preference_site(recipe: PreferenceRecipe, rows: Rows, console: RunConsole) -> Iterator[PreferenceSite]:
    """Load the model and the data."""
    with console.activity(f"loading the model {recipe.model.path or '(fresh weights)'}"):
        tokenizer = load_tokenizer(recipe.model, row_texts(rows.train))
        partition = Partition.of(recipe.train)
        causal_lm = load_model(recipe.model, tokenizer, seed=recipe.seed, partition=partition)
    with console.activity("preparing the data"):
        train = _items(recipe, rows.train, tokenizer, row_kind(recipe.algorithm))
        held_out = _items(recipe, rows.eval, tokenizer, "pair") if rows.eval else None
    for items in (train, held_out) if held_out else (train,):
        for note in items.remarks():
            console.show(note)
    if recipe.algorithm.margin_scale is not None:
        require_margins(train)
    pairs = [pair for found in held_out.by_source for pair in found] if held_out else []
    mark = fingerprint(causal_lm, recipe.model.dtype)  # before the learner takes the weights over
    learner = Learner(causal_lm, recipe.train, total_updates=recipe.train.steps, dtype=recipe.model.dtype, dropout=False)
    yield PreferenceSite(
        recipe=recipe,
        tokenizer=tokenizer,
        learner=learner,
        cursor=Cursor(train.by_source, train.weights, seed=recipe.seed, shuffle=recipe.data.shuffle),
        held_out=spread(pairs, recipe.evaluate.max_rows if recipe.evaluate else None),
        reference=_reference(recipe, learner, tokenizer, mark) if needs_reference(recipe.algorithm) else None,
        terms=recipe_terms(recipe.algorithm),
    )


def _items(recipe: PreferenceRecipe, rows: Sequence[RowSet], tokenizer: Any, kind: str) -> ItemSet[Any]:
    return LOADERS[kind](
        rows,
        tokenizer,
        max_length=recipe.train.max_length,
        truncation=recipe.train.truncation,
        max_bad_rows=recipe.data.max_bad_rows,
    )


def _reference(recipe: PreferenceRecipe, learner: Learner, tokenizer: Any, mark: str) -> Reference:
    """The model as it starts (with adapters: without them), or another that the recipe names."""
    folder = Path(recipe.train.reference_cache or f"{recipe.output_dir}/reference")
    dtype, path = recipe.model.dtype, recipe.algorithm.reference
    first = learner.stepper.ranks.is_first
    if path is None:
        which: Which = "reference" if learner.adapter else "policy"
        return Reference(folder, mark, lambda batch: learner.logprobs(batch, which), writes=first)
    revision = recipe.model.revision if path == recipe.model.path else None
    model = recipe.model.model_copy(update={"path": path, "revision": revision, "init": None, "lora": None})
    if load_tokenizer(model).get_vocab() != tokenizer.get_vocab():
        raise RecipeError(
            f"the reference {path} has another tokenizer than the policy: it cannot judge the policy's tokens",
            place="algorithm.reference",
            fix="take a reference of the same model family, with the same vocabulary",
        )
    causal_lm = load_model(model, tokenizer, partition=Partition.of(recipe.train))
    mark = fingerprint(causal_lm, dtype)
    frozen = FrozenPolicy(causal_lm, recipe.train, device=learner.stepper.passes.device, dtype=dtype)
    return Reference(folder, mark, frozen.logprobs, writes=first)
