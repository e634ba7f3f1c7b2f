"""What a row of preferences says: a prompt, completions of it, and which of them is better.

Three kinds of rows are understood, told apart by their columns: a pair (`chosen`, `rejected`), a judged completion
(`completion` with a `label` or a score), a ranked list (`completions` with `scores` or `ranks`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from align.data.columns import BadRow, check_turns, text_or_turns

Kind = Literal["pair", "label", "ranking"]
Text = str | list[dict[str, Any]]  # text, or messages

# The columns of each kind, the one to look for first; the last may have any of several names.
KINDS: dict[Kind, tuple[str, ...]] = {
    "pair": ("chosen", "rejected"),
    "ranking": ("completions", "scores"),
    "label": ("completion", "label"),
}
SAME_MEANING = {"scores": ("scores", "ranks"), "label": ("label", "score", "reward")}

_DIALOGUE = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Completions of one prompt and their scores, the higher the better; those of a pair without scores are 1 and 0."""

    kind: Kind
    prompt: Text
    completions: tuple[Text, ...]
    scores: tuple[float, ...]
    margin: float | None = None  # of a pair, where the data says by how much one is better

    def texts(self) -> Iterator[str]:
        """All that was written, for a tokenizer to be trained on."""
        for one in (self.prompt, *self.completions):
            yield from [one] if isinstance(one, str) else [str(turn.get("content") or "") for turn in one]


def comparison_kind(names: Sequence[str] | Mapping[str, Any]) -> Kind | None:
    """The kind of rows with these columns, None where it is none of them."""
    for kind, (first, last) in KINDS.items():
        if first in names and any(name in names for name in SAME_MEANING.get(last, (last,))):
            return kind
    return None


def compared(row: Mapping[str, Any], mapping: Mapping[str, str]) -> dict[str, Any]:
    """The row with its `comparison`, and with the prompt that stands in it. Raises BadRow."""
    columns = {**row, **{ours: row.get(theirs) for ours, theirs in mapping.items()}}
    kind = comparison_kind(mapping)
    assert kind is not None, "map_columns looked for it"
    comparison = {"pair": _pair, "label": _label, "ranking": _ranking}[kind](columns)
    return columns | {"prompt": comparison.prompt, "comparison": comparison}


def _pair(columns: Mapping[str, Any]) -> Comparison:
    chosen, rejected = (text_or_turns(columns[name], name) for name in ("chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise BadRow("one of chosen and rejected is text, the other messages")
    if chosen == rejected:
        raise BadRow("chosen and rejected are the same")
    prompt, (chosen, rejected) = _divided(columns.get("prompt"), (chosen, rejected), ("chosen", "rejected"))
    if chosen == rejected:
        raise BadRow("chosen and rejected are the same")
    margin = _margin(columns)
    return Comparison(kind="pair", prompt=prompt, completions=(chosen, rejected), scores=(1.0, 0.0), margin=margin)


def _margin(columns: Mapping[str, Any]) -> float | None:
    """The column of that name, or the difference of the scores that some data sets give."""
    if columns.get("margin") is not None:
        return _number(columns["margin"], "margin")
    scores = [columns.get(f"score_{name}") for name in ("chosen", "rejected")]
    if any(score is None for score in scores):
        return None
    return _number(scores[0], "score_chosen") - _number(scores[1], "score_rejected")


def _label(columns: Mapping[str, Any]) -> Comparison:
    name = next(name for name in SAME_MEANING["label"] if name in columns)
    completion = text_or_turns(columns["completion"], "completion")
    prompt, completions = _divided(columns.get("prompt"), (completion,), ("completion",))
    return Comparison(kind="label", prompt=prompt, completions=completions, scores=(_number(columns[name], name),))


def _ranking(columns: Mapping[str, Any]) -> Comparison:
    found = columns["completions"]
    if not isinstance(found, list) or len(found) < 2:
        raise BadRow("completions is no list of at least two")
    names = tuple(f"completions[{number}]" for number in range(len(found)))
    texts = tuple(text_or_turns(one, name) for one, name in zip(found, names, strict=True))
    column = next(name for name in SAME_MEANING["scores"] if columns.get(name) is not None or name == "ranks")
    values = columns.get(column)
    if not isinstance(values, list) or len(values) != len(found):
        raise BadRow(f"{column} is no list of {len(found)} numbers, one for each completion")
    scores = tuple(_number(value, column) * (-1 if column == "ranks" else 1) for value in values)  # rank 1 is the best
    if len(set(scores)) == 1:
        raise BadRow(f"all {column} are equal: nothing is ranked")
    prompt, completions = _divided(columns.get("prompt"), texts, names)
    return Comparison(kind="ranking", prompt=prompt, completions=completions, scores=scores)


def _divided(prompt: Any, completions: Sequence[Text], names: Sequence[str]) -> tuple[Text, tuple[Text, ...]]:
    """The prompt and the completions without it; where no column holds the prompt it is what they begin with in common."""
    dialogues = [_dialogue(one) if isinstance(one, str) and prompt is None else None for one in completions]
    turns = [found or one for found, one in zip(dialogues, completions, strict=True)]
    if all(isinstance(one, list) for one in turns):
        if prompt is None or any(one[0]["role"] in ("system", "user") for one in turns):  # type: ignore[index]
            return _common_turns(turns, names)  # type: ignore[arg-type]
    elif prompt is None:
        return _common_text(completions, names)  # type: ignore[arg-type]
    return text_or_turns(prompt, "prompt"), tuple(completions)


def _dialogue(text: str) -> list[dict[str, Any]] | None:
    r"""The turns of a text such as "\n\nHuman: ...\n\nAssistant: ..."; None of any other text."""
    before, *parts = _DIALOGUE.split(text)
    if before.strip() or not parts:
        return None
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[role], "content": said.strip()} for role, said in zip(parts[::2], parts[1::2], strict=True)]


def _common_turns(
    conversations: Sequence[list[dict[str, Any]]], names: Sequence[str]
) -> tuple[Text, tuple[list[dict[str, Any]], ...]]:
    """The turns all have in common, and those that follow; of a single conversation its last turn is the completion."""
    shortest = min(map(len, conversations))
    shared = 0
    while shared < shortest and all(one[shared] == conversations[0][shared] for one in conversations):
        shared += 1
    if len(conversations) == 1:
        shared -= 1
    while shared and any(len(one) > shared and one[shared]["role"] != "assistant" for one in conversations):
        shared -= 1  # they part in a turn of the user: what is compared begins with the answer before it
    if shared == 0:
        raise BadRow(f"{' and '.join(names)} have no prompt in common, and there is no column for it")
    for one, name in zip(conversations, names, strict=True):
        answer = one[shared:]
        if not answer or not any(turn["role"] == "assistant" and str(turn.get("content") or "").strip() for turn in answer):
            raise BadRow(f"{name} adds no answer to the prompt they have in common")
    return check_turns(conversations[0][:shared], "prompt"), tuple(one[shared:] for one in conversations)


def _common_text(texts: Sequence[str], names: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """What all texts begin with, up to a border of words, and what follows."""
    shared = next((at for at, letters in enumerate(zip(*texts, strict=False)) if len(set(letters)) > 1), min(map(len, texts)))
    while (
        shared and any(len(text) > shared and not text[shared].isspace() for text in texts) and not texts[0][shared - 1].isspace()
    ):
        shared -= 1
    if len(texts) == 1 or not texts[0][:shared].strip():
        raise BadRow(f"{' and '.join(names)} have no prompt in common, and there is no column for it")
    for text, name in zip(texts, names, strict=True):
        if not text[shared:].strip():
            raise BadRow(f"{name} adds nothing to the prompt they have in common")
    return texts[0][:shared], tuple(text[shared:] for text in texts)


def _number(value: Any, name: str) -> float:
    """A finite number; a label may be true or false, in CSV files as text."""
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower(), value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadRow(f"{name} is {value!r}, not a number") from None
    if not math.isfinite(number):
        raise BadRow(f"{name} is {number}, not a finite number")
    return number
