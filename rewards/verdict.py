"""The verdict of a reward on one rollout: three-valued, so that our own failure is never scored 0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Status = Literal["pass", "fail", "unparsable", "timeout", "error"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a reward says of one rollout.

    `value` is None exactly when `status` is "error": our machinery failed, the sample is masked and counted.
    `parts` are named sub-scores; `detail` explains the verdict in a line. A process reward judges `steps`: (end, value) of each,
    where `end` counts the characters of the completion's text up to the step's end. A fine-grained reward judges `spans` of the
    text: (begin, end, value) of each, which may overlap.
    """

    value: float | None
    status: Status
    parts: Mapping[str, float] = field(default_factory=dict)
    detail: str = ""
    steps: tuple[tuple[int, float], ...] = ()
    spans: tuple[tuple[int, int, float], ...] = ()

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is none of {', '.join(STATUSES)}")
        if (self.value is None) != (self.status == "error"):
            raise ValueError(f"value {self.value!r} does not go with status {self.status!r}: None means error and only error")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"value {self.value!r} is not finite: report it as an error")
        ends = [end for end, _ in self.steps]
        if ends != sorted(set(ends)) or any(end < 1 or not math.isfinite(value) for end, value in self.steps):
            raise ValueError(f"steps {self.steps!r} need ends above 0 that rise from one to the next, and finite values")
        if any(not 0 <= begin < end or not math.isfinite(value) for begin, end, value in self.spans):
            raise ValueError(f"spans {self.spans!r} need a begin below their end, and finite values")

    @classmethod
    def passed(cls, detail: str = "", value: float = 1.0) -> Verdict:
        return cls(value=value, status="pass", detail=detail)

    @classmethod
    def failed(cls, detail: str = "", value: float = 0.0) -> Verdict:
        return cls(value=value, status="fail", detail=detail)

    @classmethod
    def unparsable(cls, detail: str = "", value: float = 0.0) -> Verdict:
        return cls(value=value, status="unparsable", detail=detail)

    @classmethod
    def timeout(cls, detail: str = "", value: float = 0.0) -> Verdict:
        """The completion, not our machinery, used up its time."""
        return cls(value=value, status="timeout", detail=detail)

    @classmethod
    def error(cls, detail: str) -> Verdict:
        return cls(value=None, status="error", detail=detail)
