"""Several models on the same problems: pass@k side by side, and whether training widens what a model can or only sharpens it."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from align.errors import DataError
from align.evaluate.figures import values_at
from align.evaluate.generate import EvaluationResult
from align.evaluate.statistics import Estimate, mean_with_interval
from align.storage import write_atomically

_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """The results of models by name, the first one being the base of the comparison.

    `differences[name][k]` is what `name` solves more than the first in k samples, paired by problem: 0 means no difference.
    """

    results: Mapping[str, EvaluationResult]
    differences: Mapping[str, Mapping[int, Estimate]]
    sentences: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        return {
            "models": {name: result.to_dict() for name, result in self.results.items()},
            "differences": {
                name: {str(k): one.to_dict() for k, one in found.items()} for name, found in self.differences.items()
            },
            "sentences": dict(self.sentences),
        }


def compare_curves(results: Mapping[str, EvaluationResult], *, seed: int = 0) -> Curves:
    """Compare every model with the first. Raises DataError where they were not evaluated on the same problems."""
    base, *others = results
    differences = {name: _differences(results[base], results[name], name, seed) for name in others}
    sentences = {name: describe(base, name, found) for name, found in differences.items()}
    return Curves(results=results, differences=differences, sentences=sentences)


def _differences(base: EvaluationResult, other: EvaluationResult, name: str, seed: int) -> dict[int, Estimate]:
    """At every k the mean over problems of the difference, with the interval of a paired bootstrap over problems."""
    ids = [[problem.prompt.id for problem in result.problems] for result in (base, other)]
    if ids[0] != ids[1]:
        raise DataError(
            f"{name} was evaluated on other problems than the first model",
            place="data",
            fix="where tokenizers differ, raise data.max_prompt_length so that no model loses long prompts",
        )
    found = {}
    for k in base.pass_at_k:
        both = [values_at("pass", result.problems, result.correct_PG, k) for result in (base, other)]
        pairs = [(a, b) for a, b in zip(*both, strict=True) if a is not None and b is not None]
        if pairs:
            # The mean of values in [0, 1] is what has an interval: differences, from -1 to 1, are brought there and back.
            one = mean_with_interval([(1 + b - a) / 2 for a, b in pairs], seed=seed)
            found[k] = Estimate(value=2 * one.value - 1, low=2 * one.low - 1, high=2 * one.high - 1, problems=one.problems)
    return found


def describe(base: str, name: str, differences: Mapping[int, Estimate]) -> str:
    """One sentence on what training did: it widens, it only sharpens, or neither can be said.

    Sharpening makes answers likelier that the base gives too, so the gain at small k vanishes at large k (Yue et al. 2025,
    arXiv:2504.13837); widening leaves a gain at the largest k. What an interval allows to be 0 is not called a difference.
    """
    ks = sorted(differences)
    if len(ks) < 2:
        return f"{name}: pass@k at several k, such as --k 1,2,4,...,{max(4, *ks)}, would show whether training widens or sharpens"
    first, last = differences[ks[0]], differences[ks[-1]]
    gain, end = _signed(first), _signed(last)
    if first.low > 0 and last.low > 0:
        return f"{name} widens: it solves more than {base} at k = {ks[0]} ({gain}) and still at k = {ks[-1]} ({end})"
    if first.low > 0 and last.high < 0:
        at = crossing({k: one.value for k, one in differences.items()})
        return (
            f"{name} only sharpens: better than {base} at k = {ks[0]} ({gain}), worse at k = {ks[-1]} ({end}); "
            f"the curves cross at about k = {at:.3g}"
        )
    if first.low > 0:
        at = crossing({k: one.value for k, one in differences.items()})
        where = f"the curves cross at about k = {at:.3g}" if at is not None else "the curves do not cross"
        return (
            f"{name} sharpens, and whether it widens is open: the gain over {base} at k = {ks[0]} ({gain}) "
            f"cannot be told from none at k = {ks[-1]} ({end}); {where}"
        )
    if first.high < 0:
        return f"{name} is worse than {base} at k = {ks[0]} ({gain}); at k = {ks[-1]} the difference is {end}"
    return f"{name} cannot be told from {base} at k = {ks[0]} ({gain}); at k = {ks[-1]} the difference is {end}"


def crossing(differences: Mapping[int, float]) -> float | None:
    """The k at which a difference above 0 first reaches it, along straight lines over log k; None where it does not."""
    ks = sorted(differences)
    for left, right in pairwise(ks):
        above, below = differences[left], differences[right]
        if above > 0 >= below:
            share = above / (above - below)
            return math.exp(math.log(left) + share * (math.log(right) - math.log(left)))
    return None


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f}, {estimate.low:+.3f} to {estimate.high:+.3f}"


def write_plot(path: Path, curves: Curves, *, title: str) -> None:
    """A PNG of pass@k over k, with the 95 % intervals as bands. Raises StorageError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # without pyplot: no global state, no display
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ks: Sequence[int] = []
    for number, (name, result) in enumerate(curves.results.items()):
        found, colour = result.pass_at_k, _COLOURS[number % len(_COLOURS)]
        ks = sorted(found)
        axes.plot(ks, [found[k].value for k in ks], color=colour, linewidth=2, marker="o", markersize=4, label=name)
        axes.fill_between(ks, [found[k].low for k in ks], [found[k].high for k in ks], color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set(xlabel="k (samples of a problem)", ylabel="pass@k", title=title, ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    write_atomically(path, png.getvalue())
