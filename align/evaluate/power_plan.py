"""What a comparison needs, for several numbers of samples a problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from align.errors import DataError, RecipeError
from align.evaluate.samples import SampleTable
from align.evaluate.statistics import Spread, counted, detectable_difference, measured_spread, power, problems_needed
from align.evaluate.statistics.power import expected_half_width


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """`samples` a problem of each model. `needed`: problems for the wanted difference; `detectable`: the smallest difference that
    the given problems find; `power`: how likely they find the wanted one; `half_width`: of one model's 95 % interval.
    """

    samples: int
    needed: int | None = None
    detectable: float | None = None
    power: float | None = None
    half_width: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerPlan:
    """Designs with the spread that they rest on, and where that comes from."""

    spread: Spread
    basis: str
    difference: float | None
    problems: int | None
    target: float
    alpha: float
    designs: tuple[Design, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def plan_power(
    spread: Spread,
    basis: str,
    *,
    difference: float | None,
    problems: int | None,
    samples: Sequence[int],
    target: float = 0.8,
    alpha: float = 0.05,
) -> PowerPlan:
    """The arithmetic of `statistics.power` for each number of samples. Raises RecipeError where there is nothing to work out."""
    if difference is None and problems is None:
        raise RecipeError(
            "give a difference, a number of problems, or both",
            fix="align power --difference 0.03 says how many problems it needs, align power --problems 500 what they find",
        )
    if difference is not None and not 0 < difference < 1:
        raise RecipeError(f"a difference of {difference} cannot be found", fix="write a share such as 0.03 for three points")
    if not (0 < target < 1 and 0 < alpha < 1):
        raise RecipeError(f"power {target} and alpha {alpha} lie between 0 and 1", fix="the usual ones are 0.8 and 0.05")
    designs = []
    for k in samples:
        designs.append(
            Design(
                samples=k,
                needed=None if difference is None else problems_needed(difference, spread, samples=k, power=target, alpha=alpha),
                detectable=None
                if problems is None
                else detectable_difference(problems, spread, samples=k, power=target, alpha=alpha),
                power=None
                if problems is None or difference is None
                else power(difference, problems, spread, samples=k, alpha=alpha),
                half_width=None if problems is None else expected_half_width(problems, spread, samples=k),
            )
        )
    return PowerPlan(
        spread=spread,
        basis=basis,
        difference=difference,
        problems=problems,
        target=target,
        alpha=alpha,
        designs=tuple(designs),
    )


def spread_of(first: SampleTable, second: SampleTable) -> Spread:
    """The spread of two tables over the problems of which both have a verdict. Raises DataError for fewer than two of them."""
    counts = [
        {problem: counted([one.correct for one in samples]) for problem, samples in table.problems.items()}
        for table in (first, second)
    ]
    shared = [problem for problem in counts[0] if counts[0][problem][0] and counts[1].get(problem, (0, 0))[0]]
    if len(shared) < 2:
        raise DataError(
            f"{len(shared)} problems have verdicts in both",
            place=f"{first.name}, {second.name}",
            fix="give evaluations of the same problems, two at least",
        )
    return measured_spread([counts[0][problem] for problem in shared], [counts[1][problem] for problem in shared])


def power_table(plan: PowerPlan) -> RenderableType:
    """A row for each number of samples, and what the numbers rest on."""
    table = Table("samples a problem")
    shown = (
        ("needed", f"problems to find {plan.difference}", "{:,}"),
        ("detectable", f"smallest difference with {plan.problems} problems", "{:.4f}"),
        ("power", f"power for {plan.difference}", "{:.3f}"),
        ("half_width", "one model's interval", "+- {:.4f}"),
    )
    columns = [(field, form) for field, _, form in shown if getattr(plan.designs[0], field) is not None]
    for field, title, _ in shown:
        if field in dict(columns):
            table.add_column(title, justify="right")
    for design in plan.designs:
        table.add_row(str(design.samples), *(form.format(getattr(design, field)) for field, form in columns))
    one = plan.spread
    facts = [
        f"two-sided test at {plan.alpha:g}, power {plan.target:g}, the same problems for both models",
        f"{plan.basis}: variance of the difference over problems {one.difference:.4f}, of a sample {one.first:.4f} and "
        f"{one.second:.4f}",
    ]
    return Group(table, *map(Text, facts))
