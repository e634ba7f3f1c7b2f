"""What data looks like: rows as a model will see them, and what is odd about them. `align data show` and `align data stats`."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from align.data.chat import Chat, prompt_messages
from align.data.columns import BadRow, check_template, map_columns, usable
from align.data.files import RawRow
from align.data.named import ProblemText, named_source, readable_rows, texts_of
from align.data.shingles import text_number
from align.data.sources import Row
from align.data.words import normal_words
from align.errors import DataError
from align.types import Message

_CHUNK = 1024  # texts tokenized together
_MOJIBAKE = re.compile(r"[ÃÂ][\u0080-\u00bf]|â€|ï»¿")  # UTF-8 that was read as Latin-1 or Windows-1252
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_INVISIBLE = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_MARKUP = re.compile(r"</?(?:p|br|div|span|b|i|a|sub|sup)\b[^>]*>|&(?:lt|gt|amp|quot|nbsp);", re.I)
_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRow:
    """A row as the model will see it. `tokens` only with a tokenizer."""

    place: str
    text: str
    answer: Any
    tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The columns of a source, which of ours they are, and its first rows."""

    name: str
    columns: tuple[str, ...]
    mapping: Mapping[str, str]  # our column: the data's
    rows: tuple[ShownRow, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "source": self.name,
            "columns": list(self.columns),
            "mapping": dict(self.mapping),
            "rows": [asdict(row) for row in self.rows],
        }


def show_rows(
    name: str,
    *,
    rows: int = 3,
    tokenizer: Any = None,
    columns: Mapping[str, str] | None = None,
    prompt_template: str | None = None,
    system_prompt: str | None = None,
) -> Shown:
    """The first rows of a named source, rendered with the tokenizer's chat template where there is one.

    Raises DataError naming the first row that cannot be used.
    """
    first = list(islice(readable_rows(name), rows))
    names = list(dict.fromkeys(column for row in first for column in row.columns or ()))
    mapping = map_columns(names, columns or {}, "prompt", name)
    check_template(prompt_template, mapping, names, name)
    settings = {"prompt_template": prompt_template, "system_prompt": system_prompt}
    source = named_source(name).model_copy(update=settings)
    chat = None if tokenizer is None else Chat(tokenizer)
    shown = []
    for row in first:
        assert row.columns is not None
        try:
            used = Row(id=row.place, place=row.place, columns=usable(row.columns, mapping, "prompt"))
            messages = prompt_messages(used, source)
            text = _plain(messages) if chat is None else chat.text(messages, generation_prompt=True)
        except BadRow as error:
            raise DataError(f"the row cannot be used: {error}", place=row.place, fix="mend it, or take it out") from error
        tokens = None if chat is None else len(chat.encode([text])[0])
        shown.append(ShownRow(place=row.place, text=text, answer=used.columns.get("answer"), tokens=tokens))
    return Shown(name=name, columns=tuple(names), mapping=mapping, rows=tuple(shown))


def _plain(messages: Sequence[Message]) -> str:
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


@dataclass(slots=True, kw_only=True)
class Stats:
    """Counts over all rows of a source; `odd` counts rows by what is odd, with the places of the first ones."""

    name: str
    rows: int = 0
    no_prompt: int = 0
    no_answer: int = 0
    copies: int = 0  # rows whose prompt stood before, word for word
    unit: str = "words"  # of the lengths
    lengths: list[int] = field(default_factory=list)
    columns: Counter[str] = field(default_factory=Counter)  # rows that have a value there
    scripts: Counter[str] = field(default_factory=Counter)  # rows by their most frequent script
    odd: dict[str, list[str]] = field(default_factory=dict)
    odd_counts: Counter[str] = field(default_factory=Counter)

    def quantiles(self) -> dict[str, int]:
        """Of the lengths of prompts."""
        ordered = sorted(self.lengths)
        if not ordered:
            return {}
        at = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "99 %": 0.99, "most": 1.0}
        return {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in at.items()}

    def histogram(self) -> list[tuple[int, int]]:
        """(length below which, rows), in powers of two."""
        counts = Counter(1 << length.bit_length() for length in self.lengths)
        return sorted(counts.items())

    def to_dict(self) -> dict[str, Any]:
        return {
            "source": self.name,
            "rows": self.rows,
            "no_prompt": self.no_prompt,
            "no_answer": self.no_answer,
            "copies": self.copies,
            "unit": self.unit,
            "lengths": self.quantiles(),
            "histogram": [{"below": below, "rows": rows} for below, rows in self.histogram()],
            "columns": dict(self.columns),
            "scripts": dict(self.scripts),
            "odd": {what: {"rows": self.odd_counts[what], "places": places} for what, places in self.odd.items()},
        }


def survey(
    name: str,
    *,
    tokenizer: Any = None,
    columns: Mapping[str, str] | None = None,
    max_bad_rows: int = 0,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Stats:
    """Count what a source holds and what of it is odd; lengths are in tokens of the prompt, or in words without a tokenizer.

    Raises DataError naming the row that cannot be read or has no column for the prompt.
    """
    stats = Stats(name=name, unit="words" if tokenizer is None else "tokens")
    problem, seen = ProblemText(columns or {}), set[int]()
    rows = readable_rows(name, max_bad_rows=max_bad_rows)
    while chunk := list(islice(rows, _CHUNK)):
        texts = [problem.asked(row) for row in chunk]
        for row, text in zip(chunk, texts, strict=True):
            _look(stats, problem, row, text, seen)
        if tokenizer is None:
            stats.lengths += [len(text.split()) for text in texts]
        else:
            stats.lengths += [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        on_progress(len(chunk))
    return stats


def _look(stats: Stats, problem: ProblemText, row: RawRow, text: str, seen: set[int]) -> None:
    assert row.columns is not None
    stats.rows += 1
    stats.no_prompt += not text.strip()
    answer = problem.answer(row)
    stats.no_answer += answer is None or not str(answer).strip()
    stats.columns.update(str(column) for column, value in row.columns.items() if value not in (None, "", []))
    if words := normal_words(text):
        number = text_number(words)
        stats.copies += number in seen
        seen.add(number)
    stats.scripts[_script(text)] += 1
    for what in _oddities(row, text):
        stats.odd_counts[what] += 1
        if len(places := stats.odd.setdefault(what, [])) < _EXAMPLES:
            places.append(row.place)


def _oddities(row: RawRow, text: str) -> Iterator[str]:
    whole = "\n".join(texts_of(row.columns))
    if not whole.isascii():
        if "\ufffd" in whole:
            yield "replacement characters: some text was not UTF-8"
        if _MOJIBAKE.search(whole):
            yield "text decoded with the wrong charset (Ã© for é)"
        if _INVISIBLE.search(whole):
            yield "invisible characters"
        if any("\ud800" <= character <= "\udfff" for character in whole):
            yield "half a surrogate pair"
    if _CONTROL.search(whole):
        yield "control characters"
    if _MARKUP.search(text):
        yield "HTML in the prompt"
    if text != text.strip():
        yield "spaces around the prompt"


def _script(text: str) -> str:
    """The script of most letters: LATIN, CYRILLIC, CJK and so on; none where there is no letter."""
    if text.isascii():
        return "LATIN" if any(character.isalpha() for character in text) else "none"
    counts = Counter(unicodedata.name(character, "OTHER").split()[0] for character in text[:2000] if character.isalpha())
    return counts.most_common(1)[0][0] if counts else "none"
