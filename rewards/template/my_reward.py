"""The reward my_reward: 1 where the last line of a completion is the row's answer. Replace that by what you want to reward."""

from __future__ import annotations

from typing import Any

from align.rewards.verdict import Verdict


def my_reward(completion: list[dict[str, str]], answer: Any, ignore_case: bool = False) -> Verdict | None:
    """Judge one completion, given as messages. `answer` is the row's, "" where it has none; `ignore_case` comes from `params`.

    A parameter with the name of a column gets what the row has there. None means that the reward does not apply to the row; what
    is raised is an error of this sample, which is left out of training and counted, and never a 0.
    """
    expected = str(answer).strip()
    if not expected:
        return None
    last = completion[-1]["content"].split("\n")[-1].strip()
    if not last:
        return Verdict.unparsable("the last line is empty")
    right = last.casefold() == expected.casefold() if ignore_case else last == expected
    return Verdict.passed() if right else Verdict.failed(f"the last line is {last[:80]!r}, not {expected[:80]!r}")
