"""What a row's columns mean: trl's names and the common ones of question sets, made into prompt, completion, messages, answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal

from align.errors import DataError

Need = Literal["prompt", "demonstration", "comparison"]  # to answer (rl, evaluate), to imitate (sft), judged completions

_ALIASES = {"prompt": ("question", "problem", "input"), "answer": ("solution", "ground_truth")}
_LIKELY = {**_ALIASES, "completion": ("response", "output", "answer", "solution")}  # what an error proposes
_GIVEAWAYS = ("answer", "solution", "ground_truth", "completion")
# What may stand beside prompt and completion in rows that compare; see align.data.comparisons.
_COMPARED = (
    *("chosen", "rejected", "margin", "score_chosen", "score_rejected"),
    *("label", "score", "reward"),
    *("completions", "scores", "ranks"),
)
_FIELD = re.compile(r"\{\{|\}\}|\{(\w+)\}")
_FINAL = re.compile(r"####\s*(.+?)\s*$")
_NUMBER_WITH_COMMAS = re.compile(r"-?\$?\d{1,3}(,\d{3})+(\.\d+)?")


class BadRow(ValueError):
    """This row cannot be used; the text says why."""


def map_columns(names: Sequence[str], given: Mapping[str, str], need: Need, place: str) -> dict[str, str]:
    """Our column -> the data's column. `given` wins, then our own names, then the common ones for prompt and answer.

    Raises DataError where a column is missing, with the names that are there and how to map them.
    """
    for ours, theirs in given.items():
        if theirs not in names:
            raise _missing(f"there is no column {theirs!r}, which columns.{ours} names", theirs, ours, names, place)
    known = ("prompt", "completion", "messages", "answer", *(_COMPARED if need == "comparison" else ()))
    mapping = {name: name for name in known if name in names} | dict(given)
    for ours, blockers in (("answer", {"answer"}), ("prompt", {"prompt", "messages"})):
        alias = next((alias for alias in _ALIASES[ours] if alias in names), None)
        if alias is not None and not blockers & mapping.keys():
            mapping[ours] = alias
    if need == "comparison":
        _check_compared(mapping, names, place)
        return mapping
    if "prompt" not in mapping and "messages" not in mapping:
        raise _missing("there is no column for the prompt", "prompt", "prompt", names, place)
    if need == "demonstration" and "messages" not in mapping and "completion" not in mapping:
        raise _missing("there is no column for the completion", "completion", "completion", names, place)
    return mapping


def check_template(template: str | None, mapping: Mapping[str, str], names: Iterable[str], place: str) -> None:
    """Refuse a prompt template with fields that are no columns, or that would show the answer. Raises DataError."""
    if template is None:
        return
    columns = {*mapping, *names}
    fields = [match[1] for match in _FIELD.finditer(template) if match[1]]
    for field in fields:
        if field not in columns:
            raise DataError(
                f"prompt_template speaks of {{{field}}}, which is no column",
                place=place,
                fix=f"its columns are {', '.join(sorted(columns))}; for braces in the text write {{{{{field}}}}}",
            )
        if field in (*_GIVEAWAYS, mapping.get("answer"), mapping.get("completion")):
            raise DataError(
                f"prompt_template would show the model the column {{{field}}}",
                place=place,
                fix=f"for braces in the text write {{{{{field}}}}}",
            )
    if "prompt" in mapping and fields == []:
        raise DataError("prompt_template has no {prompt}: every prompt would be the same", place=place, fix="put {prompt} in it")


def fill_template(template: str, columns: Mapping[str, Any]) -> str:
    """The template with each {column} filled in; {{ and }} are braces, other braces stay. Raises BadRow for an empty column."""

    def fill(match: re.Match[str]) -> str:
        if match[1] and columns.get(match[1]) is None:
            raise BadRow(f"no {match[1]!r} for prompt_template")
        return _written(columns[match[1]]) if match[1] else match[0][0]

    return _FIELD.sub(fill, template)


def _written(value: Any) -> str:
    """Texts of a list stand on lines of their own."""
    is_texts = isinstance(value, list | tuple) and bool(value) and all(isinstance(one, str) for one in value)
    return "\n".join(value) if is_texts else str(value)


def usable(row: Mapping[str, Any], mapping: Mapping[str, str], need: Need) -> dict[str, Any]:
    """The row with our columns beside its own, checked. Raises BadRow.

    A row of messages is a demonstration as it is; where prompts are needed, the turns of the assistant at its end are left off.
    """
    used = ["prompt" if "prompt" in mapping else "messages"]
    if need == "demonstration":
        used = ["messages"] if _is_conversation(mapping) else ["prompt", "completion"]
    absent = next((mapping[ours] for ours in used if mapping[ours] not in row), None)
    if absent is not None:
        raise BadRow(f"no {absent!r}")
    columns = {**row, **{ours: row.get(theirs) for ours, theirs in mapping.items()}}
    if need == "demonstration":
        columns["messages" if _is_conversation(mapping) else "completion"] = _demonstrated(columns, mapping)
    elif "prompt" not in mapping:
        turns = check_turns(columns["messages"], "messages")
        while turns and turns[-1]["role"] == "assistant":
            turns = turns[:-1]
        columns["prompt"] = turns
    if need == "prompt" and _are_numbers(columns["prompt"]):
        columns["prompt"] = str(columns["prompt"])  # of countdown: the template around it says what to do with them
    if need == "prompt" or not _is_conversation(mapping):
        columns["prompt"] = text_or_turns(columns["prompt"], "prompt")
    return columns


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(type(one) in (int, float) for one in value)


def reference_answer(value: Any) -> Any:
    """The answer itself: of a GSM8K solution what follows ####, without commas in numbers; anything else as it is."""
    if not isinstance(value, str) or (match := _FINAL.search(value)) is None:
        return value
    return match[1].replace(",", "") if _NUMBER_WITH_COMMAS.fullmatch(match[1]) else match[1]


def _is_conversation(mapping: Mapping[str, str]) -> bool:
    """Whether demonstrations come from `messages` rather than from prompt and completion."""
    return "messages" in mapping and not ("prompt" in mapping and "completion" in mapping)


def _demonstrated(columns: Mapping[str, Any], mapping: Mapping[str, str]) -> Any:
    if not _is_conversation(mapping):
        return text_or_turns(columns["completion"], "completion")
    turns = check_turns(columns["messages"], "messages")
    if not any(turn["role"] == "assistant" for turn in turns):
        raise BadRow("messages has no turn of the assistant to learn from")
    if turns[0]["role"] == "assistant":
        raise BadRow("messages begins with the assistant: there is nothing to answer")
    return turns


def text_or_turns(value: Any, column: str) -> Any:
    """Text or messages as they are. Raises BadRow where they are empty or neither."""
    if isinstance(value, str):
        if not value.strip():
            raise BadRow(f"{column} is empty")
        return value
    return check_turns(value, column)


def check_turns(value: Any, column: str) -> list[dict[str, Any]]:
    """Messages as they are. Raises BadRow where one has no role or no content."""
    if not isinstance(value, list):
        raise BadRow(f"{column} is {'missing' if value is None else type(value).__name__}, not text and not messages")
    if not value:
        raise BadRow(f"{column} is empty")
    for number, turn in enumerate(value):
        if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
            raise BadRow(f"{column}[{number}] has no role")
        if not isinstance(turn.get("content"), str) and not turn.get("tool_calls"):
            raise BadRow(f"{column}[{number}] has no text in content")
    return value


def _check_compared(mapping: Mapping[str, str], names: Sequence[str], place: str) -> None:
    """Raise DataError where the columns make neither pairs nor judged completions nor ranked lists."""
    judged = mapping.keys() & {"label", "score", "reward"}
    ranked = mapping.keys() & {"scores", "ranks"}
    if {"chosen", "rejected"} <= mapping.keys() or ("completions" in mapping and ranked) or ("completion" in mapping and judged):
        return
    first = next((name for name in ("chosen", "rejected", "completions", "completion") if name in mapping), None)
    lacking = {"chosen": "rejected", "rejected": "chosen", "completions": "scores", "completion": "label", None: "chosen"}[first]
    with_it = f" beside {first!r}" if first else ""
    raise _missing(f"there is no column {lacking!r}{with_it}: nothing is compared", lacking, lacking, names, place)


def _missing(message: str, wanted: str, ours: str, names: Sequence[str], place: str) -> DataError:
    lowered = {name.lower(): name for name in names}
    near = next((lowered[alias] for alias in _LIKELY.get(ours, ()) if alias in lowered), None)
    close = [near] if near else [lowered[name] for name in get_close_matches(wanted.lower(), lowered, n=1)]
    example = close[0] if close else "THE_COLUMN"
    return DataError(
        f"{message}; there are: {', '.join(names) or 'none'}",
        place=place,
        fix=f"map it in the recipe, columns: {{{ours}: {example}}}",
    )
