"""Judging by workers: the verdicts of judging in place, whatever the reward, and no group lost with a worker."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from align.errors import RecipeError, RewardError
from align.recipe.schema import RewardBudget, RewardSpec
from align.rewards.compose import RewardStack
from align.rewards.crew import Crew, HandedReward, can_hand_over
from align.rewards.crew_process import ProcessLink
from align.rewards.crew_wire import read_rollouts, read_verdicts, write_rollouts, write_verdicts
from align.rewards.scorer import Scorer
from align.rewards.verdict import Verdict
from align.types import Completion, Prompt, Rollout

TEXTS = ["The answer is \\boxed{4}.", "<think>2+2</think>4", "", "five", "4", "\ud800 lone", "x" * 3000, "The answer is 4"]
FUNCTIONS = '''
from align.rewards.verdict import Verdict


def relative(completions, **columns):
    """Looks at the whole group."""
    mean = sum(map(len, completions)) / len(completions)
    return [len(text) - mean for text in completions]


def shaky(completions, **columns):
    raise KeyError("no such key")


def nothing(completions, **columns):
    return [None for _ in completions]


class Fine:
    range = (0.0, 1.0)

    async def score(self, rollouts):
        texts = [rollout.completion.text for rollout in rollouts]
        return [
            Verdict(value=1.0, status="pass", parts={"a": 0.25}, detail="äö", steps=((3, 0.5),), spans=((0, 2, -1.0),))
            if text == "4"
            else Verdict(value=2.0, status="pass")  # outside the range
            if text == "five"
            else "no verdict"
            for text in texts
        ]


def deadly(completions, who, **columns):
    import os, pathlib, signal

    mark = pathlib.Path(who[0])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [1.0 for _ in completions]


def poison(completions, **columns):
    import os, signal

    if "five" in completions:
        os.kill(os.getpid(), signal.SIGKILL)
    return [1.0 for _ in completions]


def slow(completions, **columns):
    import time

    time.sleep(0.2)
    return [float(len(text)) for text in completions]
'''


def group(texts: Sequence[str], **columns: Any) -> list[Rollout]:
    prompt = Prompt(id="p", messages=({"role": "user", "content": "2+2?"},), token_ids=(1, 2), answer="4", columns=columns)
    return [
        Rollout(
            prompt=prompt,
            completion=Completion(
                prompt_index=0, sample_index=i, token_ids=(3, 4), logprobs=(-0.5, -0.25), text=text, finish_reason="stop"
            ),
        )
        for i, text in enumerate(texts)
    ]


@pytest.fixture
def functions(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    return str(tmp_path / "mine.py")


@pytest.fixture
def specs(functions: str) -> list[RewardSpec]:
    built_in: list[dict[str, Any]] = [
        {"use": "math"},
        {"use": "exact"},
        {"use": "format.think", "only_if": "math"},
        {"use": "f1"},
        {"use": "regex", "params": {"pattern": r"(\d)"}},
    ]
    own = [{"use": f"{functions}:{name}"} for name in ("relative", "shaky", "nothing", "Fine")]
    return [RewardSpec(**spec) for spec in (*built_in, *own)]


@pytest.fixture
def started() -> Iterator[list[ProcessLink]]:
    links: list[ProcessLink] = []
    yield links
    assert not any(psutil.pid_exists(link.pid) for link in links), "a worker is left"


def crew(specs: Sequence[RewardSpec], started: list[ProcessLink], workers: int = 2, said: list[str] | None = None) -> Crew:
    def start(number: int) -> ProcessLink:
        started.append(ProcessLink(number))
        return started[-1]

    return Crew(specs, workers, start, (said if said is not None else []).append)


ANY = RewardBudget(max_error_rate=1.0)


def test_workers_find_what_is_found_in_place(specs: list[RewardSpec], started: list[ProcessLink]) -> None:
    groups = [group(TEXTS[i:] + TEXTS[:i], who="x", nested={"a": [1, (2, None)]}) for i in range(6)]
    with Scorer(RewardStack(specs, ANY)) as place:
        expected = [place.submit(one).result() for one in groups]
        versions, layers = place.stack.versions, place.stack.layers
    with Scorer(RewardStack(specs, ANY, None, crew(specs, started))) as scorer:
        futures = [scorer.submit(one) for one in groups]
        found = [future.result(60) for future in futures]
        assert (scorer.stack.versions, scorer.stack.layers) == (versions, layers)
        assert all(isinstance(reward, HandedReward) for reward in scorer.stack._rewards.values())
    for ours, theirs in zip(found, expected, strict=True):
        assert [dict(one.verdicts) for one in ours] == [dict(one.verdicts) for one in theirs]
        assert [one.reward for one in ours] == pytest.approx([one.reward for one in theirs], nan_ok=True, abs=0)
    errors = {name for one in found[0] for name, verdict in one.verdicts.items() if verdict.status == "error"}
    assert errors == {"shaky", "Fine"}
    assert any(verdict.steps and verdict.spans for one in found[0] for verdict in one.verdicts.values())


def test_a_group_whose_worker_is_killed_is_judged_by_another(functions: str, started: list[ProcessLink], tmp_path: Path) -> None:
    said: list[str] = []
    specs = [RewardSpec(use=f"{functions}:deadly"), RewardSpec(use=f"{functions}:slow")]
    with Scorer(RewardStack(specs, None, None, crew(specs, started, said=said))) as scorer:
        futures = [scorer.submit(group(TEXTS, who=str(tmp_path / "mark"))) for _ in range(6)]
        for future in futures:
            assert [one.verdicts["deadly"].value for one in future.result(60)] == [1.0] * len(TEXTS)
        os.kill(next(link.pid for link in started if psutil.pid_exists(link.pid)), signal.SIGKILL)
        again = [scorer.submit(group(TEXTS, who=str(tmp_path / "mark"))) for _ in range(6)]
        assert all(one.verdicts["slow"].value is not None for future in again for one in future.result(60))
    assert len(started) == 4, "each that was lost is replaced"
    assert all("was killed by SIGKILL; its groups are judged again" in line for line in said)


def test_a_group_that_kills_worker_after_worker_is_an_error_of_its_own(functions: str, started: list[ProcessLink]) -> None:
    specs = [RewardSpec(use=f"{functions}:poison")]
    with Scorer(RewardStack(specs, ANY, None, crew(specs, started))) as scorer:
        futures = [scorer.submit(group(texts)) for texts in (["4"], ["five", "4"], ["", "4"])]
        found = [[one.verdicts["poison"] for one in future.result(120)] for future in futures]
    assert [[verdict.value for verdict in one] for one in found] == [[1.0], [None, None], [1.0, 1.0]]
    assert "was lost 3 times: reward worker" in found[1][0].detail


def test_a_reward_that_cannot_be_opened_is_refused_as_in_place(started: list[ProcessLink]) -> None:
    with pytest.raises(RecipeError, match="has no parameter 'patern'\n  fix: did you mean 'pattern'"):
        crew([RewardSpec(use="regex", params={"patern": "x"})], started)


def test_judges_stay_where_the_engine_is() -> None:
    assert [can_hand_over(RewardSpec(use=use)) for use in ("judge", "rubric", "math", "code", "some/model", "mine.py:f")] == [
        False, False, True, True, True, True,
    ]  # fmt: skip


def test_rows_come_over_as_they_are() -> None:
    row = {
        "text": "ä\ud800", "none": None, "tuple": (1, (2.5, True)), "bytes": b"\x00\xff", "day": date(2020, 1, 2),
        "moment": datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "price": Decimal("1.10"), "by_number": {1: "a", (2,): "b"},
        "dollar": {"$tuple": [1]}, "list": [{"a": []}, float("inf")],
    }  # fmt: skip
    rollouts = group(["a", "b"], **row)
    name, back = read_rollouts(write_rollouts("math", rollouts))
    assert (name, back) == ("math", rollouts)
    assert back[0].prompt is back[1].prompt
    assert type(back[0].prompt.columns["tuple"]) is tuple
    numbers = read_rollouts(write_rollouts("math", group(["a"], n=np.int64(3), x=np.float32(0.5))))[1][0].prompt.columns
    assert numbers == {"n": 3, "x": 0.5}


def test_a_row_that_cannot_be_sent_says_so() -> None:
    with pytest.raises(RewardError, match="row of prompt p cannot be sent to a reward worker: it holds a object"):
        write_rollouts("math", group(["a"], thing=object()))


def test_verdicts_come_over_as_they_are() -> None:
    verdicts = [
        None,
        Verdict.error("broke\nhere"),
        Verdict(value=-1.5, status="fail", parts={"a": float(np.float64(0.1))}, steps=((1, 0.0),), spans=((0, 1, 2.0),)),
    ]
    assert read_verdicts(write_verdicts(verdicts)) == verdicts


def test_without_any_worker_nobody_waits(functions: str) -> None:
    class Dying:
        name = "reward worker 0"

        def __init__(self) -> None:
            self.calls = 0

        def call(self, method: str, given: bytes) -> Future[bytes]:
            from align.rewards.crew import LostWorkerError

            future: Future[bytes] = Future()
            if method == "open" and not links[1:]:
                future.set_result(b'{"rewards": {"exact": {"version": "1", "range": null, "layer": null}}}')
            else:
                future.set_exception(LostWorkerError("reward worker 0 was killed"))
            return future

        def close(self) -> None:
            pass

    links: list[Dying] = []
    said: list[str] = []

    def start(number: int) -> Dying:
        links.append(Dying())
        return links[-1]

    lone = Crew([RewardSpec(use="exact")], 1, start, said.append)
    with pytest.raises(RewardError, match="no reward worker is left"):
        asyncio.run(lone.judge("exact", group(["a"])))
    assert "is not replaced: " in said[-1]
