"""Several rewards as one: sums, masks and the error budget; and scoring in the background."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from align.errors import RecipeError, RewardError
from align.recipe.schema import RewardBudget, RewardSpec
from align.rewards.compose import RewardStack, reward_metrics
from align.rewards.scorer import Scorer
from align.types import Rollout, Scored

Make = Callable[..., Rollout]

SOURCE = """
import time
def number(completions, **kwargs):
    return [None if text == "none" else float(text) if text != "fail" else float("nan") for text in completions]
def always(completions, value=1.0, **kwargs):
    return [value] * len(completions)
def broken(completions, **kwargs):
    raise RuntimeError("the judge is down")
def seldom(completions, on="x", **kwargs):
    return [1.0 if text == on else None for text in completions]
def sleepy(completions, seconds=0.3, **kwargs):
    time.sleep(seconds)
    return [1.0] * len(completions)
"""


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., RewardSpec]:
    (tmp_path / "made.py").write_text(SOURCE)

    def make(name: str, weight: float = 1.0, label: str | None = None, **params: object) -> RewardSpec:
        return RewardSpec(use=f"{tmp_path / 'made.py'}:{name}", weight=weight, name=label, params=params)

    return make


Spec = Callable[..., RewardSpec]


def score(specs: Sequence[RewardSpec], rollouts: Sequence[Rollout], budget: RewardBudget | None = None) -> list[Scored]:
    stack = RewardStack(specs, budget or RewardBudget(max_error_rate=1.0))
    try:
        return asyncio.run(stack.score(rollouts))
    finally:
        stack.close()


def test_an_error_masks_and_not_applicable_leaves_out(spec: Spec, rollout: Make) -> None:
    scored = score([spec("number", 2.0), spec("always", 0.5)], [rollout("3"), rollout("none"), rollout("fail")])
    assert [one.reward for one in scored[:2]] == [6.5, 0.5]
    assert math.isnan(scored[2].reward)
    assert [sorted(one.verdicts) for one in scored] == [["always", "number"], ["always"], ["always", "number"]]


def test_no_reward_applies_is_no_zero(spec: Spec, rollout: Make) -> None:
    scored = score([spec("seldom")], [rollout("x"), rollout("y")])
    assert scored[0].reward == 1.0
    assert math.isnan(scored[1].reward)


def test_weight_zero_only_observes(spec: Spec, rollout: Make) -> None:
    scored = score([spec("broken", 0.0), spec("always")], [rollout("x")])
    assert scored[0].reward == 1.0
    assert scored[0].verdicts["broken"].status == "error"
    with pytest.raises(RecipeError, match="weight 0"):
        RewardStack([spec("always", 0.0)])


def test_names_must_differ(spec: Spec) -> None:
    with pytest.raises(RecipeError, match="two rewards are called 'always'") as caught:
        RewardStack([spec("always"), spec("always", value=2.0)])
    assert caught.value.place == "rewards.1"
    stack = RewardStack([spec("always"), spec("always", label="twice", value=2.0)])
    assert stack.names == ("always", "twice")
    assert stack.versions.keys() == {"always", "twice"}
    assert stack.versions["always"] != stack.versions["twice"]
    stack.close()


def test_metrics_by_hand(spec: Spec, rollout: Make) -> None:
    scored = score([spec("number")], [rollout("1"), rollout("0"), rollout("2"), rollout("fail"), rollout("none")])
    metrics = reward_metrics(scored)
    assert metrics["reward"] == 1.0
    assert metrics["rewards/number/mean"] == 1.0
    assert metrics["rewards/number/std"] == pytest.approx(math.sqrt(2 / 3))
    assert metrics["rewards/number/error_rate"] == 1 / 4
    assert {key: value for key, value in metrics.items() if "status" in key} == {
        "rewards/number/status/pass": 2,
        "rewards/number/status/fail": 1,
        "rewards/number/status/error": 1,
    }


def test_metrics_of_nothing_are_nan(spec: Spec, rollout: Make) -> None:
    metrics = reward_metrics(score([spec("broken")], [rollout("x")]))
    assert math.isnan(metrics["reward"])
    assert math.isnan(metrics["rewards/broken/mean"])
    assert metrics["rewards/broken/error_rate"] == 1


def test_the_budget_names_the_reward_and_its_reasons(spec: Spec, rollout: Make) -> None:
    with pytest.raises(
        RewardError, match=r"'broken' failed on 20 of its last 20 .*20x RuntimeError: the judge is down"
    ) as caught:
        score([spec("always"), spec("broken")], [rollout("x")] * 20, RewardBudget(max_error_rate=0.1))
    assert caught.value.exit_code == 6
    assert caught.value.fix


def test_the_budget_looks_at_a_window(spec: Spec, rollout: Make) -> None:
    async def run(share: float) -> None:
        stack = RewardStack([spec("number")], RewardBudget(max_error_rate=share, window=100))
        try:
            for _ in range(10):  # 9 good ones to each bad one: exactly 10 % of any full window
                await stack.score([rollout("1")] * 9 + [rollout("fail")])
        finally:
            stack.close()

    asyncio.run(run(0.10))
    with pytest.raises(RewardError):
        asyncio.run(run(0.09))


def test_a_few_errors_at_the_start_are_no_rate(spec: Spec, rollout: Make) -> None:
    assert len(score([spec("number")], [rollout("fail")] * 3, RewardBudget(max_error_rate=0.05))) == 3
    with pytest.raises(RewardError):
        score([spec("number")], [rollout("fail")] * 4, RewardBudget(max_error_rate=0.05))
    with pytest.raises(RewardError):
        score([spec("number")], [rollout("fail")], RewardBudget(max_error_rate=0.0))


def test_a_reward_that_answers_nonsense_is_an_error(rollout: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = RewardStack([RewardSpec(use="exact")], RewardBudget(max_error_rate=1.0))
    cases: list[tuple[object, str]] = [([1.0, 2.0], "float instead of"), ([], "0 verdicts for 2"), ("no", "str verdicts for 2")]
    for answer, said in cases:

        async def nonsense(rollouts: Sequence[Rollout], answer: object = answer) -> object:
            return answer

        monkeypatch.setattr(stack._rewards["exact"], "score", nonsense)
        scored = asyncio.run(stack.score([rollout("x"), rollout("y")]))
        assert all(said in one.verdicts["exact"].detail and math.isnan(one.reward) for one in scored)


def test_scoring_goes_on_in_the_background(spec: Spec, rollout: Make) -> None:
    with Scorer(RewardStack([spec("sleepy", seconds=0.3), spec("sleepy", label="other", seconds=0.3)])) as scorer:
        started = time.monotonic()
        future = scorer.submit([rollout("x")])
        assert time.monotonic() - started < 0.2
        assert not future.done()
        assert future.result(timeout=10)[0].reward == 2.0
        assert time.monotonic() - started < 0.55, "rewards work at the same time"


def test_a_future_carries_the_budget_error(spec: Spec, rollout: Make) -> None:
    with (
        Scorer(RewardStack([spec("broken")], RewardBudget(max_error_rate=0.0))) as scorer,
        pytest.raises(RewardError, match="the judge is down"),
    ):
        scorer.submit([rollout("x")]).result(timeout=10)


def test_closing_cancels_what_waits_and_leaves_no_thread(spec: Spec, rollout: Make) -> None:
    before = set(threading.enumerate())
    scorer = Scorer(RewardStack([RewardSpec(use="math", params={"workers": 1, "timeout": 60}), RewardSpec(use="task")]))
    assert scorer.submit([rollout("\\boxed{1}", "1")]).result(timeout=60)[0].reward == 1.0
    future = scorer.submit([rollout("\\boxed{99999999!}", "5")])
    time.sleep(0.2)
    started = time.monotonic()
    scorer.close()
    scorer.close()
    assert time.monotonic() - started < 5
    assert future.cancelled()
    assert not set(threading.enumerate()) - before
    with pytest.raises(RuntimeError, match="closed"):
        scorer.submit([rollout("x")])
