"""A rubric: what an answer is judged by, and how the judge's levels become one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from align.errors import RecipeError
from align.recipe.yaml12 import Node, parse, plain_value

_MOST_LEVELS = 20


def _levels(scale: Any) -> Any:
    """`binary`, the highest level n of 0..n, the names of the levels from 0 up, or {level: name} with some of them named."""
    if scale == "binary":
        return ("", "")
    if isinstance(scale, int) and not isinstance(scale, bool):
        if not 1 <= scale < _MOST_LEVELS:
            raise ValueError(f"the highest level is {scale}; it may be 1 to {_MOST_LEVELS - 1}")
        return ("",) * (scale + 1)
    if isinstance(scale, Mapping):
        try:
            named = {int(level): str(name) for level, name in scale.items()}
        except (TypeError, ValueError):
            raise ValueError("levels are whole numbers: write {0: wrong, 1: partly right, 2: right}") from None
        if not named or min(named) < 0 or not 1 <= max(named) < _MOST_LEVELS:
            raise ValueError(f"levels go from 0 to at most {_MOST_LEVELS - 1}")
        return tuple(named.get(level, "") for level in range(max(named) + 1))
    return scale


@dataclass(frozen=True, slots=True)
class Outcome:
    """A value from 0 to 1, and in a line how it came about."""

    value: float
    why: str


class Criterion(BaseModel):
    """One thing to look at. A negative weight is that of a fault: the points are lost where it is found.

    The points of an answer at level l of 0..n are weight * l / n. A gate must pass before any other criterion counts; a veto that
    fails sets the value of the whole rubric to its floor. A merit passes from `passes_at` up (default: the highest level), a
    fault passes below it (default: level 1).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(min_length=1, max_length=200)
    description: str = Field("", description="What the judge is to look for; default: the name says it")
    weight: float = Field(1.0, allow_inf_nan=False)
    scale: Annotated[tuple[str, ...], BeforeValidator(_levels), Field(min_length=2, max_length=_MOST_LEVELS)] = ("", "")
    gate: bool = False
    veto: bool = False
    passes_at: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> Criterion:
        if self.passes_at is not None and self.passes_at > self.top:
            raise ValueError(f"passes_at = {self.passes_at} is above the highest level, {self.top}")
        if self.gate and self.veto:
            raise ValueError("a criterion is a gate or a veto, not both: a gate that fails already leaves nothing to count")
        return self

    @property
    def top(self) -> int:
        """The highest level."""
        return len(self.scale) - 1

    def points(self, level: int) -> float:
        return self.weight * level / self.top

    def passes(self, level: int) -> bool:
        threshold = self.passes_at or (self.top if self.weight >= 0 else 1)
        return level >= threshold if self.weight >= 0 else level < threshold


class Example(BaseModel):
    """An answer with the levels that it deserves (a rubric anchor), shown to the judge."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    prompt: str = Field("", description="The question that it answers; default: it is left open")
    answer: str
    levels: dict[str, int] = Field(min_length=1, description="Level by the name of the criterion")
    why: str = ""


class Rubric(BaseModel):
    """Criteria and how their points become a value from 0 to 1.

    clip (HealthBench, Arora et al. 2025): points / most points possible, cut to 0..1, so that faults take away what merits have
    earned. span: (points - fewest) / (most - fewest), so that an answer without merits and faults is above 0. A rubric of faults
    alone has no most points to divide by and is always taken as span.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    instructions: str = Field("", description="What the judge should know besides the criteria")
    criteria: tuple[Criterion, ...] = ()
    normalise: Literal["clip", "span"] = "clip"
    floor: float = Field(0.0, ge=0, le=1, description="The value where a veto fails")
    examples: tuple[Example, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Rubric:
        names = [criterion.name for criterion in self.criteria]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two criteria are called {twice!r}")
        tops = {criterion.name: criterion.top for criterion in self.criteria}
        for number, example in enumerate(self.examples):
            for name, level in example.levels.items():
                if name not in tops:
                    raise ValueError(f"examples.{number}.levels: there is no criterion {name!r}: there are {', '.join(names)}")
                if not 0 <= level <= tops[name]:
                    raise ValueError(f"examples.{number}.levels.{name}: {level} is not among the levels 0 to {tops[name]}")
        return self

    @property
    def gates(self) -> tuple[Criterion, ...]:
        return tuple(criterion for criterion in self.criteria if criterion.gate)

    def check_usable(self) -> None:
        """Raises ValueError where no answer could be told from another."""
        if not self.criteria:
            raise ValueError("there are no criteria")
        if all(criterion.weight == 0 for criterion in self.criteria):
            raise ValueError("every criterion has weight 0")

    def with_criteria(self, more: Sequence[Criterion]) -> Rubric:
        """This rubric with the criteria of a row after its own. Raises ValueError where a name stands twice."""
        known = {criterion.name for criterion in self.criteria}
        if twice := next((criterion.name for criterion in more if criterion.name in known), None):
            raise ValueError(f"the row has a criterion {twice!r}, and so has the rubric")
        whole = self.model_copy(update={"criteria": (*self.criteria, *more)})
        whole.check_usable()
        return whole

    def value(self, levels: Mapping[str, int]) -> Outcome:
        """What the levels, by name of criterion, come to. After a gate that fails, levels of other criteria may be absent."""
        failed = [gate.name for gate in self.gates if not gate.passes(levels[gate.name])]
        counted = self.gates if failed else self.criteria
        most = sum(max(0.0, criterion.weight) for criterion in self.criteria)
        fewest = sum(min(0.0, criterion.weight) for criterion in self.criteria)
        points = sum(criterion.points(levels[criterion.name]) for criterion in counted)
        low = fewest if self.normalise == "span" or most == 0 else 0.0
        if failed:
            # What was not looked at earns nothing, and a fault that nobody looked for does not make the answer better either.
            points += sum(min(0.0, criterion.weight) for criterion in self.criteria if not criterion.gate) if low < 0 else 0.0
        value = min(1.0, max(0.0, (points - low) / (most - low)))
        vetoed = [] if failed else [veto.name for veto in self.criteria if veto.veto and not veto.passes(levels[veto.name])]
        if vetoed:
            return Outcome(self.floor, f"veto: {', '.join(vetoed)}")
        return Outcome(value, f"gate: {', '.join(failed)}" if failed else f"{points:g} of {most:g} points")


def read_rubric(path: Path) -> Rubric:
    """The rubric of a YAML file. Raises RecipeError naming the file, the line and the key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the rubric cannot be read: {error}", place=str(path), fix="give the path of a YAML file") from None
    root = parse(text, lambda line: f"{path}:{line}")
    try:
        rubric = Rubric.model_validate(plain_value(root, {}))
    except ValidationError as error:
        first = error.errors()[0]
        place, key = _located(root, first["loc"])
        message = "there is no such key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        fix = "docs/judges.md says what a rubric may hold"
        raise RecipeError(f"{key}: {message}" if key else message, place=place, fix=fix) from None
    return rubric


def _located(root: Node, loc: Sequence[str | int]) -> tuple[str, str]:
    """The origin of the innermost node on the way to `loc` that the file has, and the dotted key."""
    node, steps = root, []
    for step in loc:
        children = node.value
        steps.append(str(step))
        if isinstance(children, dict) and step in children:
            node = children[str(step)]
        elif isinstance(children, list) and isinstance(step, int) and step < len(children):
            node = children[step]
        else:
            break
    return node.origin, ".".join(steps)
