"""The arguments of compare, power and convert-samples, checked before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from align.errors import RecipeError
from align.evaluate.formats import FORMATS, FormatName, ReadChoice, evalplus, read_samples
from align.evaluate.power_plan import spread_of
from align.evaluate.statistics import INTERVAL_METHODS, IntervalMethod, Spread, assumed_spread


def read_choice(*, metric: str | None, filter: str | None, threshold: float | None, tests: str, text: bool = True) -> ReadChoice:
    """Raises RecipeError for unknown tests."""
    if tests not in ("plus", "base"):
        raise RecipeError(f"there are no tests {tests!r}", place="--tests", fix="write plus or base")
    kind = "plus" if tests == "plus" else "base"
    return ReadChoice(metric=metric, filter=filter, threshold=threshold, tests=kind, text=text)  # type: ignore[arg-type]


def interval_method(name: str) -> IntervalMethod:
    """Raises RecipeError for another name."""
    if name not in INTERVAL_METHODS:
        raise RecipeError(f"there is no interval {name!r}", place="--interval", fix=f"write {', '.join(INTERVAL_METHODS)}")
    return name


def format_name(name: str) -> FormatName:
    """Raises RecipeError for another name."""
    if name not in FORMATS:
        raise RecipeError(f"there is no format {name!r}", place="--format", fix=f"write one of {', '.join(FORMATS)}")
    return name


def free_target(out: Path, format: FormatName, *, overwrite: bool) -> None:
    """Raises RecipeError where writing would replace something. lm-eval's files carry a date and stand beside older ones."""
    inside = {"align": "samples.jsonl.gz", "evalplus": evalplus.FILE}.get(format)
    target = out / inside if inside and not out.suffix else out
    if format != "lm-eval" and target.is_file() and not overwrite:
        raise RecipeError(
            "there is something already", place=str(target), fix="name another one, or add --overwrite to replace it"
        )
    if format == "lm-eval" and out.is_file():
        raise RecipeError("lm-eval has a folder, this is a file", place=str(out), fix="name a folder")


def power_spread(pilot: Sequence[Path], *, accuracy: float, between: float, correlation: float) -> tuple[Spread, str]:
    """The spread and where it comes from. Raises RecipeError for numbers out of range or another number of pilots than two."""
    if pilot:
        if len(pilot) != 2:
            raise RecipeError(f"--pilot stands {len(pilot)} times", fix="give the two models that are to be compared, or none")
        first, second = (read_samples(path, ReadChoice(text=False)) for path in pilot)
        return spread_of(first, second), f"measured on {first.name} and {second.name}"
    try:
        spread = assumed_spread(accuracy, between=between, correlation=correlation)
    except ValueError as error:
        raise RecipeError(str(error), fix="accuracy, between and correlation are shares") from error
    basis = f"assumed accuracy {accuracy:g}, {between:.0%} of a sample's variance from the problems, correlation {correlation:g}"
    return spread, basis
