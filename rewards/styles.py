"""Calling conventions of reward functions: which there are, how they are told apart, what each gets and gives back.

trl: `fn(prompts, completions, completion_ids, **columns)`. verifiers: `fn(prompt, completion, answer, state, info, task)`, of one
sample, or of a whole group with `states`. OpenRLHF: `fn(queries, prompts, labels)`. verl: `compute_score(data_source,
solution_str, ground_truth, extra_info)`, of one sample, or of a batch with `solution_strs`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from align.errors import RecipeError
from align.rewards.reward import gold_of
from align.types import Rollout

StyleName = Literal["trl", "verifiers", "verifiers_group", "openrlhf", "verl", "verl_batch"]
_OWN_COLUMNS = ("prompt", "completion", "completion_ids", "prompts", "completions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """A calling convention. `whole`: one call judges many samples; `marks` are parameters that no other convention has."""

    marks: frozenset[str]
    whole: bool
    arguments: Callable[[Sequence[Rollout]], Mapping[str, Any]]
    values: Callable[[Any], Any]  # of a whole call: one per sample


def style_of(function: Callable[..., Any], name: StyleName | None, place: str) -> StyleName:
    """The convention that a function's parameters show, or `name`. Raises RecipeError where they show none, or several."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise RecipeError("the function's parameters cannot be read", place=place, fix="wrap it in a def of your own") from None
    unnamed = [one.name for one in parameters if one.kind is one.POSITIONAL_ONLY and one.default is one.empty]
    if unnamed:
        fix = "arguments are given by name: remove the / from its parameters"
        raise RecipeError(f"parameters without a name: {', '.join(unnamed)}", place=place, fix=fix)
    if name is not None:
        return name
    named = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    found = [style for style in get_args(StyleName) if STYLES[style].marks & named]
    if "verifiers_group" in found and named & {"prompts", "completions"}:
        found.remove("trl")  # they are a group's as well
    if not found and "prompts" in named:
        return "trl"
    if not found and "prompt" in named:
        return "verifiers"
    if len(found) == 1 and not _mixed(found[0], named):
        sole: StyleName = found[0]
        return sole
    shown = ", ".join(sorted(named)) or "none by name"
    fix = f"say which convention is meant: params: {{style: ...}}, one of {', '.join(get_args(StyleName))}"
    kinds = f"of {' and '.join(found)}" if len(found) > 1 else "of no known convention"
    raise RecipeError(f"the function has parameters {kinds}: {shown}", place=place, fix=fix)


def _mixed(found: str, named: set[str]) -> bool:
    """Singular and plural at once: a list where one text is expected, or the reverse, would be judged as nonsense."""
    return (found == "trl" and "prompt" in named) or (found == "verifiers" and "prompts" in named)


def trl_arguments(rollouts: Sequence[Rollout]) -> dict[str, list[Any]]:
    """What trl hands to a reward function: prompts, completions, completion_ids, and each column of the rows as a list."""
    rows = [rollout.prompt.columns for rollout in rollouts]
    names = dict.fromkeys(name for row in rows for name in row if name not in _OWN_COLUMNS)
    columns = {name: [row.get(name) for row in rows] for name in names}
    if "answer" not in columns and any(rollout.prompt.answer is not None for rollout in rollouts):
        columns["answer"] = [rollout.prompt.answer for rollout in rollouts]
    return {
        **columns,
        "prompts": [_prompt(rollout) for rollout in rollouts],
        "completions": [_completion(rollout) for rollout in rollouts],
        "completion_ids": [list(rollout.completion.token_ids) for rollout in rollouts],
    }


def verifiers_arguments(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """What verifiers hands to a function of one sample: messages, the row's answer, info and task, and a state.

    The state is a dict with the same entries, which the functions of a Rubric share for this sample.
    """
    (rollout,) = rollouts
    columns = rollout.prompt.columns
    common = {
        "prompt": _messages(rollout),
        "completion": [{"role": "assistant", "content": rollout.completion.text}],
        "answer": _gold(rollout, ""),
        "info": columns.get("info") or {},
        "task": columns.get("task") or rollout.prompt.source or "default",
    }
    extra = {name: value for name, value in columns.items() if name not in (*_OWN_COLUMNS, *common)}
    return {**extra, **common, "state": {**extra, **common, "timing": {}, "trajectory": []}}


def group_arguments(single: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What verifiers hands to a function of a group, from what it hands to one of each sample."""
    plural = {"prompt": "prompts", "completion": "completions", "answer": "answers", "info": "infos", "task": "tasks"}
    return {many: [one[name] for one in single] for name, many in {**plural, "state": "states"}.items()}


def _openrlhf_arguments(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Prompts as text, queries: prompt and completion in one text, labels: the reference answers."""
    prompts = [_text(rollout) for rollout in rollouts]
    return {
        "queries": [prompt + rollout.completion.text for prompt, rollout in zip(prompts, rollouts, strict=True)],
        "prompts": prompts,
        "labels": [_gold(rollout) for rollout in rollouts],
    }


def _verl_arguments(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    (rollout,) = rollouts
    columns = rollout.prompt.columns
    return {
        "data_source": columns.get("data_source") or rollout.prompt.source,
        "solution_str": rollout.completion.text,
        "ground_truth": _gold(rollout),
        "extra_info": columns.get("extra_info") or {},
    }


def _verl_batch_arguments(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    single = [_verl_arguments([rollout]) for rollout in rollouts]
    names = {
        "data_source": "data_sources",
        "solution_str": "solution_strs",
        "ground_truth": "ground_truths",
        "extra_info": "extra_infos",
    }
    return {many: [one[name] for one in single] for name, many in names.items()}


def _openrlhf_values(result: Any) -> Any:
    """A list of rewards, or a dict: `rewards` are the values; `scores` and what is in `extra_logs` are told beside them."""
    if not isinstance(result, Mapping):
        return result
    if "rewards" not in result:
        raise TypeError(f"gave a dict without rewards: {', '.join(map(str, result))}")
    rewards = _listed(result["rewards"])
    beside = {"scores": result.get("scores"), **(result.get("extra_logs") or {})}
    logs = {name: _listed(value) for name, value in beside.items() if value is not None}
    kept = {name: values for name, values in logs.items() if isinstance(values, list) and len(values) == len(rewards)}
    return [{**{name: values[n] for name, values in kept.items()}, "score": reward} for n, reward in enumerate(rewards)]


def _listed(values: Any) -> Any:
    """Tensors and arrays as lists."""
    return values.tolist() if hasattr(values, "tolist") else values


def _prompt(rollout: Rollout) -> Any:
    column = rollout.prompt.columns.get("prompt", "")
    if not isinstance(column, str):
        return _messages(rollout)
    return rollout.prompt.columns.get("prompt", rollout.prompt.messages[-1]["content"])


def _completion(rollout: Rollout) -> Any:
    """A conversational row (its prompt is a list of messages) gets messages, any other text."""
    text = rollout.completion.text
    chat = not isinstance(rollout.prompt.columns.get("prompt", ""), str)
    return [{"role": "assistant", "content": text}] if chat else text


def _messages(rollout: Rollout) -> list[dict[str, Any]]:
    return [dict(message) for message in rollout.prompt.messages]


def _text(rollout: Rollout) -> str:
    prompt = _prompt(rollout)
    return prompt if isinstance(prompt, str) else "\n".join(str(message["content"]) for message in prompt)


def _gold(rollout: Rollout, absent: Any = None) -> Any:
    """The reference answer, also where verl keeps it: in the column reward_model."""
    gold = gold_of(rollout)
    if gold is None and isinstance(kept := rollout.prompt.columns.get("reward_model"), Mapping):
        gold = kept.get("ground_truth")
    return absent if gold is None else gold


STYLES: Mapping[StyleName, Style] = {
    "trl": Style(marks=frozenset({"completions", "completion_ids"}), whole=True, arguments=trl_arguments, values=_listed),
    "verifiers": Style(marks=frozenset({"completion", "state"}), whole=False, arguments=verifiers_arguments, values=_listed),
    "verifiers_group": Style(
        marks=frozenset({"states"}),
        whole=True,
        arguments=lambda rollouts: group_arguments([verifiers_arguments([rollout]) for rollout in rollouts]),
        values=_listed,
    ),
    "openrlhf": Style(
        marks=frozenset({"queries"}), whole=True, arguments=_openrlhf_arguments, values=lambda r: _listed(_openrlhf_values(r))
    ),
    "verl": Style(marks=frozenset({"solution_str"}), whole=False, arguments=_verl_arguments, values=_listed),
    "verl_batch": Style(marks=frozenset({"solution_strs"}), whole=True, arguments=_verl_batch_arguments, values=_listed),
}
