"""Answers that are meant to hang or break the verifier: each ends in its limit, earns nothing, and harms no other answer."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from align.rewards.math import MathParams, MathReward
from align.rewards.verdict import Verdict
from align.types import Rollout

Make = Callable[..., Rollout]

SECONDS = 0.5
HOSTILE = {
    "power tower": "9^9^9^9",
    "braced power tower": "9^{9^{9^{9^{9}}}}",
    "factorial": "10000000!",
    "factorials": "((((9!)!)!)!)!",
    "binomial": "\\binom{10^{12}}{10^{11}}",
    "roots": "\\sqrt{" * 140 + "2" + "}" * 140,
    "fractions": "\\frac{1}{1+" * 80 + "1" + "}" * 80,
    "twofold fractions": "\\frac{" * 70 + "1" + "}{2}" * 70,
    "braces": "{" * 200_000 + "}" * 200_000,
    "open braces": "{" * 900,
    "left brackets": "\\left(" * 130 + "1" + "\\right)" * 130,
    "a megabyte of digits": "9" * 1_000_000,
    "a megabyte of words": "so " * 330_000,
    "a megabyte of dollars": "$1" * 500_000,
    "a megabyte of commas": "1," * 500_000,
    "a megabyte of left": "\\left(" * 170_000,
    "null bytes": "5\x00" * 300,
    "digits of other scripts": "\u0665\u06f5\u096b\uff15",
    "one digit of another script": "\u0666",
    "superscripts": "5\u00b2\u00b2",
    "half characters": "\ud800\udfff",
    "directions": "\u202e5\u202c1",
    "matrix": "\\begin{pmatrix}" + "&".join("9" for _ in range(400)) + "\\end{pmatrix}",
    "power of a matrix": "\\begin{pmatrix}1&x\\\\x&1\\end{pmatrix}^{10000}",
    "determinant": "\\det\\begin{pmatrix}" + "\\\\".join("&".join("abcdefgh"[:8]) for _ in range(8)) + "\\end{pmatrix}",
    "polynomial": "(x+y+z)^{100000}",
    "integral": "\\int_0^1 \\sin(\\sin(\\sin(\\sin(x^x))))^{99} dx",
    "limit": "\\lim_{x\\to 0} (\\sin x)^{(\\tan x)^{(\\cos x)^x}}",
    "sum": "\\sum_{k=1}^{10^{15}} k^k",
    "product": "\\prod_{k=1}^{10^9} k!",
    "exponent": "1e9999",
    "huge exponent": "1e999999999999",
    "ten to a thousand": "10^{9999999999}",
    "unclosed commands": "\\frac" * 190,
    "code": "__import__('os').kill(1,9)",
}


@pytest.fixture(scope="module")
def reward() -> Iterator[MathReward]:
    reward = MathReward("math", MathParams(timeout=SECONDS, workers=2))
    yield reward
    reward.close()


def score(reward: MathReward, rollouts: list[Rollout]) -> list[Verdict]:
    return [one for one in asyncio.run(reward.score(rollouts)) if one is not None]


@pytest.mark.parametrize("boxed", [True, False], ids=["boxed", "bare"])
def test_each_ends_in_its_limit_and_the_next_honest_answer_passes(reward: MathReward, rollout: Make, boxed: bool) -> None:
    texts = [f"\\boxed{{{text}}}" if boxed else f"The answer is {text}" for text in HOSTILE.values()]
    mixed = [text for hostile in texts for text in (hostile, "\\boxed{\\frac{10}{2}}")]
    begin = time.monotonic()
    verdicts = score(reward, [rollout(text, "5") for text in mixed])
    assert time.monotonic() - begin < 10 * SECONDS * len(HOSTILE)
    assert [one.status for one in verdicts[1::2]] == ["pass"] * len(HOSTILE)
    earned = {name: (one.value, one.status) for name, one in zip(HOSTILE, verdicts[::2], strict=True) if one.value != 0.0}
    assert earned == {}


@pytest.mark.parametrize("gold", ["\\sqrt{5}", "\\{1,2\\}", "(0,1]", "y=2x", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"])
def test_whatever_the_reference_is(reward: MathReward, rollout: Make, gold: str) -> None:
    texts = [f"\\boxed{{{HOSTILE[name]}}}" for name in ("power tower", "left brackets", "matrix", "null bytes", "exponent")]
    verdicts = score(reward, [rollout(text, gold) for text in (*texts, f"\\boxed{{{gold}}}")])
    assert [one.value for one in verdicts] == [0.0] * len(texts) + [1.0]


@pytest.mark.parametrize("options", [{"order": "unordered"}, {"gold_type": "set"}, {"tolerance": 0.1}], ids=str)
def test_under_options_that_compare_part_by_part(rollout: Make, options: dict[str, object]) -> None:
    reward = MathReward("math", MathParams(timeout=SECONDS, workers=1, **options))
    texts = ["9^9^9^9, 9^9^9^8", ",".join(["x"] * 400), "(" * 400 + "," + ")" * 400, "10000000!, 1", "{" * 400]
    try:
        verdicts = score(reward, [rollout(f"\\boxed{{{text}}}", "2, 1") for text in (*texts, "1, 2")])
    finally:
        reward.close()
    assert [one.value for one in verdicts] == [0.0] * len(texts) + [1.0]


def test_threads_and_event_loops_share_one_reward(reward: MathReward, rollout: Make) -> None:
    pair = [rollout("\\boxed{9^9^9^9}", "5"), rollout("\\boxed{5}", "5")]
    found: list[list[float | None]] = []

    async def at_once() -> None:
        several = await asyncio.gather(*(reward.score(pair) for _ in range(2)))
        found.extend([one.value for one in verdicts if one is not None] for verdicts in several)

    threads = [threading.Thread(target=lambda: asyncio.run(at_once())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [[0.0, 1.0]] * 6


def test_a_killed_worker_costs_no_answer_and_closing_leaves_no_process(rollout: Make) -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    reward = MathReward("math", MathParams(timeout=2, workers=1))
    try:
        assert [one.value for one in score(reward, [rollout("5", "5")])] == [1.0]
        waiting: list[Verdict] = []
        texts = ["\\boxed{\\sum_{k=1}^{10^{15}} k^k}", "\\boxed{5}", "\\boxed{6}"]
        thread = threading.Thread(target=lambda: waiting.extend(score(reward, [rollout(text, "5") for text in texts])))
        thread.start()
        time.sleep(0.5)
        busy = [one for one in psutil.Process().children(recursive=True) if one.pid not in before and not one.children()]
        for process in busy:
            os.kill(process.pid, signal.SIGKILL)
        thread.join(90)
        assert busy
        assert [one.status for one in waiting] == ["timeout", "pass", "fail"]
        mine = [one for one in psutil.Process().children(recursive=True) if one.pid not in before]
        assert mine
    finally:
        reward.close()
    _, alive = psutil.wait_procs(mine, timeout=10)
    assert alive == []
