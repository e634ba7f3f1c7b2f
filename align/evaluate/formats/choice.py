"""What a reader has to be told where a file holds more than one thing that could be meant."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from align.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadChoice:
    """`metric` and `filter` choose among those of an lm-eval file, `tests` among evalplus's verdicts: `plus` asks for both.

    `threshold` is the value from which a metric counts as right. Without `text` completions and further columns are not kept.
    """

    metric: str | None = None
    filter: str | None = None
    threshold: float | None = None
    tests: Literal["plus", "base"] = "plus"
    text: bool = True


def chosen(kind: str, wanted: str | None, there: Collection[str], path: Path) -> str:
    """The one that is wanted, or the only one there is; DataError where that leaves a choice."""
    names = ", ".join(there) or "none"
    if wanted is not None and wanted not in there:
        raise DataError(f"has no {kind} {wanted!r}", place=str(path), fix=f"choose one that it has: {names}")
    if wanted is None and len(there) != 1:
        raise DataError(f"has {len(there)} {kind}s: {names}", place=str(path), fix=f"say which one counts: --{kind} NAME")
    return wanted if wanted is not None else next(iter(there))


def as_correct(value: float | bool | None, choice: ReadChoice, place: str, what: str) -> bool | None:
    """A metric of one sample as right or wrong. Raises DataError for a value between 0 and 1 without a threshold."""
    if value is None or value != value:
        return None
    if choice.threshold is not None:
        return value >= choice.threshold
    if value not in (0, 1):
        raise DataError(
            f"{what} is {value}, neither right (1) nor wrong (0)",
            place=place,
            fix="say from which value on it counts: --threshold X",
        )
    return bool(value)
