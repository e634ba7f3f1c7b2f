"""Preferences as tokens: pairs, judged completions and ranked lists, all with the prompt's tokens apart from the completion's.

Whatever the kind of row, the loader of the wanted kind makes what follows from it: a pair is also a ranking of two and two judged
completions, a ranking is also the pair of its best and its worst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from align.data.chat import Chat, prompt_messages
from align.data.collect import Taken, collect
from align.data.columns import BadRow
from align.data.comparisons import Comparison
from align.data.items import ItemSet
from align.data.sources import Row, RowSet
from align.data.turns import answer_text, end_of_turn, tokenize_answers
from align.errors import DataError
from align.types import LabelledCompletion, PreferencePair, Ranking

if TYPE_CHECKING:
    from align.recipe.schema.sections import Truncation

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tokens:
    """A row in tokens."""

    row: Row
    source: str
    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    @property
    def comparison(self) -> Comparison:
        return self.row.columns["comparison"]

    @property
    def longest(self) -> int:
        return len(self.prompt) + max(map(len, self.completions))


def load_pairs(
    rowsets: Sequence[RowSet], tokenizer: Any, *, max_length: int, truncation: Truncation = "drop", max_bad_rows: int = 0
) -> ItemSet[PreferencePair]:
    """The pairs of rows read with need="comparison"; of a ranking its best and its worst, the margin the scores' difference.

    No completion is ever cut. A row whose prompt and longer completion have more than `max_length` tokens together is dropped and
    counted; with `truncation` keep_end or keep_start its prompt is cut instead, so that it fits, wherever a token of it remains.
    Raises DataError where more than `max_bad_rows` rows cannot be used (with those found in reading), or a source has none left.
    """
    return _load(rowsets, tokenizer, _pairs, max_length, truncation, max_bad_rows)


def load_labelled(
    rowsets: Sequence[RowSet], tokenizer: Any, *, max_length: int, truncation: Truncation = "drop", max_bad_rows: int = 0
) -> ItemSet[LabelledCompletion]:
    """Judged completions; a pair is two of them, with the scores 1 and 0. Otherwise as `load_pairs`."""
    return _load(rowsets, tokenizer, _labelled, max_length, truncation, max_bad_rows)


def load_rankings(
    rowsets: Sequence[RowSet], tokenizer: Any, *, max_length: int, truncation: Truncation = "drop", max_bad_rows: int = 0
) -> ItemSet[Ranking]:
    """Ranked lists; a pair is a list of two. Otherwise as `load_pairs`."""
    return _load(rowsets, tokenizer, _rankings, max_length, truncation, max_bad_rows)


# By the rows that a loss wants.
LOADERS: dict[str, Callable[..., ItemSet[Any]]] = {"pair": load_pairs, "label": load_labelled, "ranking": load_rankings}


def _pairs(tokens: _Tokens) -> Iterator[PreferencePair]:
    comparison = tokens.comparison
    if comparison.kind == "label":
        raise BadRow("a judged completion is no pair: a loss such as kto learns from it, an evaluation needs chosen and rejected")
    best, worst = (comparison.scores.index(score) for score in (max(comparison.scores), min(comparison.scores)))
    spread = comparison.scores[best] - comparison.scores[worst] if comparison.kind == "ranking" else None
    yield PreferencePair(
        id=tokens.row.id,
        prompt_ids=tokens.prompt,
        chosen_ids=tokens.completions[best],
        rejected_ids=tokens.completions[worst],
        margin=comparison.margin if spread is None else spread,
        source=tokens.source,
    )


def _labelled(tokens: _Tokens) -> Iterator[LabelledCompletion]:
    if tokens.comparison.kind == "ranking":
        raise BadRow("a ranked list says which completion is better, not which is good: use a loss for pairs or rankings")
    names = ("chosen", "rejected") if tokens.comparison.kind == "pair" else ("",)
    for name, completion, score in zip(names, tokens.completions, tokens.comparison.scores, strict=True):
        yield LabelledCompletion(
            id=f"{tokens.row.id}:{name}".rstrip(":"),
            prompt_ids=tokens.prompt,
            completion_ids=completion,
            score=score,
            source=tokens.source,
        )


def _rankings(tokens: _Tokens) -> Iterator[Ranking]:
    if tokens.comparison.kind == "label":
        raise BadRow("a completion with a label is not ranked: use a loss for judged completions, such as kto")
    yield Ranking(
        id=tokens.row.id,
        prompt_ids=tokens.prompt,
        completions_G=tokens.completions,
        scores_G=tokens.comparison.scores,
        source=tokens.source,
    )


def _load(
    rowsets: Sequence[RowSet],
    tokenizer: Any,
    make: Callable[[_Tokens], Iterator[Item]],
    max_length: int,
    truncation: Truncation,
    max_bad_rows: int,
) -> ItemSet[Item]:
    chat = Chat(tokenizer)

    def take(rowset: RowSet) -> Taken:
        found, refused = _tokenized(rowset, chat)
        fitting = [_shortened(tokens, max_length, truncation, chat) for tokens in found]
        items: list[Item] = []
        for tokens in fitting:
            try:
                items += [] if tokens is None else make(tokens)
            except BadRow as error:
                refused.append((tokens.row.place, str(error)))  # type: ignore[union-attr]
        shortest = min(one.longest for one in found) if found and not any(fitting) else None
        return Taken(items=items, refused=refused, too_long=fitting.count(None), shortest=shortest)

    return collect(ItemSet, rowsets, chat, take, what="row", key="train.max_length", limit=max_length, max_bad_rows=max_bad_rows)


def _tokenized(rowset: RowSet, chat: Chat) -> tuple[list[_Tokens], list[tuple[str, str]]]:
    """The rows in tokens, and those that the chat template refuses."""
    rows: list[tuple[Row, str, list[str]]] = []
    refused = []
    turn_end = end_of_turn(chat)
    for row in rowset.rows:
        try:
            messages = prompt_messages(row, rowset.source)
            rendered = [answer_text(chat, messages, one, turn_end) for one in row.columns["comparison"].completions]
            if len({prompt for prompt, _ in rendered}) > 1:
                raise BadRow("the chat template writes the prompt differently before each of its completions")
            rows.append((row, rendered[0][0], [completion for _, completion in rendered]))
        except BadRow as error:
            refused.append((row.place, str(error)))
    tokens = iter(tokenize_answers(chat, [(prompt, one) for _, prompt, completions in rows for one in completions]))
    found = []
    for row, _, completions in rows:
        halves = [next(tokens) for _ in completions]
        found.append(
            _Tokens(row=row, source=rowset.label, prompt=halves[0][0], completions=tuple(completion for _, completion in halves))
        )
    return found, refused


def _shortened(tokens: _Tokens, max_length: int, truncation: Truncation, chat: Chat) -> _Tokens | None:
    """The row with its prompt cut to fit, or None where it does not. A beginning-of-sequence token stays where it is."""
    room = max_length - max(map(len, tokens.completions))
    if len(tokens.prompt) <= room:
        return tokens
    head = tokens.prompt[: 1 if chat.begins(tokens.prompt) else 0]
    if truncation == "drop" or room <= len(head):
        return None
    body, left = tokens.prompt[len(head) :], room - len(head)
    kept = body[-left:] if truncation == "keep_end" else body[:left]
    return _Tokens(row=tokens.row, source=tokens.source, prompt=head + kept, completions=tokens.completions)


def require_margins(items: ItemSet[Any]) -> None:
    """Raise DataError, naming the first pair that has no margin, where there is one."""
    pairs = (item for found in items.by_source for item in found if isinstance(item, PreferencePair))
    without = next((pair for pair in pairs if pair.margin is None), None)
    if without is not None:
        fix = "give the rows a column margin (or score_chosen and score_rejected), or remove algorithm.margin_scale"
        raise DataError(f"algorithm.margin_scale needs margins, and {without.id} has none", place=without.source, fix=fix)
