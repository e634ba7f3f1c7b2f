"""`instructions`: does an answer keep the constraints that its row lists?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from align.errors import AlignError
from align.rewards.answers import visible_part
from align.rewards.instructions import ifbench_count, ifbench_custom, ifbench_format, ifbench_words, ifeval
from align.rewards.instructions.families import FAMILIES, Family
from align.rewards.reward import Params, TextReward, fingerprint
from align.rewards.verdict import Verdict
from align.types import Rollout

MODULES = (ifeval, ifbench_count, ifbench_words, ifbench_format, ifbench_custom)  # importing them fills FAMILIES


class InstructionsParams(Params):
    mode: Literal["strict", "loose"] = Field(
        "strict",
        description="loose: the answer without its first line, last line or asterisks may pass too (IFEval's loose accuracy)",
    )
    reward: Literal["all", "fraction"] = Field(
        "all", description="all: 1 where every constraint is kept; fraction: the share that is"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A constraint of a row: its family and the arguments it is checked with."""

    family: Family
    arguments: Mapping[str, Any]


class InstructionsReward(TextReward):
    """IFEval's and IFBench's rows: `instruction_id_list`, and `kwargs`, a list of the arguments of each.

    `parts` holds 1 or 0 by id ("id#2" where an id occurs again). A row that lists none, an unknown one or wrong arguments is an
    error. Source: Zhou et al. 2023 (arXiv:2311.07911); Pyatkin et al. 2025 (arXiv:2507.02833).
    """

    params_type = InstructionsParams

    def __init__(self, name: str, params: InstructionsParams) -> None:
        super().__init__(name, params)
        self._params = params
        folder = Path(__file__).parent
        sources = [path.read_text(encoding="utf-8") for path in (*sorted(folder.glob("*.py")), folder.parent / "language.py")]
        self.version = fingerprint(*sources, params.model_dump(mode="json"))

    def judge(self, rollout: Rollout) -> Verdict:
        try:
            constraints = constraints_of(rollout.prompt.columns)
        except ValueError as error:
            return Verdict.error(str(error))
        text = visible_part(rollout.completion.text)
        if text is None:
            return Verdict.unparsable("the thinking part never ends")
        if not text.strip():
            return Verdict.unparsable("the answer is empty")
        variants = loosened(text) if self._params.mode == "loose" else [text]
        broken: dict[str, str] = {}
        parts: dict[str, float] = {}
        for constraint in constraints:
            name = _unused(constraint.family.id, parts)
            try:
                why = _checked(constraint, variants)
            except (ValueError, AlignError) as error:
                return Verdict.error(f"{constraint.family.id}: {error}")
            parts[name] = float(why is None)
            if why is not None:
                broken[name] = why
        value = sum(parts.values()) / len(parts) if self._params.reward == "fraction" else float(not broken)
        detail = "; ".join(f"{name}: {why}" for name, why in broken.items())
        return Verdict(value=value, status="fail" if broken else "pass", parts=parts, detail=detail)


def constraints_of(columns: Mapping[str, Any]) -> list[Constraint]:
    """The constraints that a row lists. Raises ValueError that names the id that is unknown or wrongly set."""
    ids, kwargs = columns.get("instruction_id_list"), _structure(columns.get("kwargs"))
    if not isinstance(ids, Sequence) or isinstance(ids, str) or not ids:
        raise ValueError("the row lists no constraints (column instruction_id_list)")
    if kwargs is None:
        kwargs = [None] * len(ids)
    if not isinstance(kwargs, Sequence) or isinstance(kwargs, str) or len(kwargs) != len(ids):
        raise ValueError(f"column kwargs must be a list of {len(ids)} entries, one for each of instruction_id_list")
    return [_constraint(id, _structure(own)) for id, own in zip(ids, kwargs, strict=True)]


def loosened(text: str) -> list[str]:
    """A text, and what is left of it without its first line, its last line, both, and each of these without asterisks."""
    rows = text.strip().split("\n")
    cuts = [text, *("\n".join(part).strip() for part in (rows[1:], rows[:-1], rows[1:-1]))]
    return [variant for variant in (*cuts, *(cut.replace("*", "") for cut in cuts)) if variant.strip()]


def _constraint(id: Any, kwargs: Any) -> Constraint:
    if not isinstance(id, str) or id not in FAMILIES:
        raise ValueError(f"there is no constraint family {id!r}: see docs/instructions.md for those there are")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise ValueError(f"{id}: its kwargs are no mapping but {kwargs!r}")
    try:
        return Constraint(family=FAMILIES[id], arguments=FAMILIES[id].read(kwargs or {}))
    except ValueError as error:
        raise ValueError(f"{id}: {error}") from None


def _checked(constraint: Constraint, variants: Sequence[str]) -> str | None:
    """Why the first variant breaks the constraint, None where any variant keeps it."""
    reasons = []
    for variant in variants:
        why = constraint.family.check(variant, **constraint.arguments)
        if why is None:
            return None
        reasons.append(why)
    return reasons[0]


def _structure(value: Any) -> Any:
    """A column that is JSON text, as what it says."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("column kwargs is text but not JSON") from None


def _unused(id: str, parts: Mapping[str, float]) -> str:
    """The id, or id#2, id#3 ... where it has been used."""
    name, count = id, 1
    while name in parts:
        count += 1
        name = f"{id}#{count}"
    return name
