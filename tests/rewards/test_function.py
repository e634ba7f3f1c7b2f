"""Reward functions of the user's own, with trl's signature."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from align.errors import RecipeError
from align.recipe.schema import RewardSpec
from align.rewards.registry import open_reward
from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]

SOURCE = """
import threading
from align.rewards.verdict import Verdict

def length(completions, **kwargs):
    return [float(len(text)) for text in completions]

def everything(prompts, completions, completion_ids, level, answer=None, **kwargs):
    assert set(kwargs) <= {"task", "other"}, kwargs
    return [Verdict.passed(repr((p, c, i, l, a))) for p, c, i, l, a in zip(prompts, completions, completion_ids, level, answer)]

def strict_names(completions, level):
    return level

async def slow(completions, **kwargs):
    import asyncio
    await asyncio.sleep(0.01)
    return [0.5] * len(completions)

def some(completions, **kwargs):
    return [None if text == "skip" else True for text in completions]

def bad_values(completions, **kwargs):
    return [float("nan"), float("inf"), "high", 10**400, [1], 0.0][: len(completions)]

def too_few(completions, **kwargs):
    return [1.0]

def nothing(completions, **kwargs):
    return None

def broken(completions, **kwargs):
    raise KeyError("no such thing")

def bounded(completions, **kwargs):
    return [0.5, 2.0]
bounded.range = (0, 1)

def scaled(completions, scale=1.0, **kwargs):
    return [scale] * len(completions)

def thread(completions, **kwargs):
    return [Verdict.passed(threading.current_thread().name)] * len(completions)

class Counter:
    def __init__(self, start=0):
        self.calls = start
    def __call__(self, completions, **kwargs):
        self.calls += 1
        return [float(self.calls)] * len(completions)

class Whole:
    range = (0.0, 1.0)
    async def score(self, rollouts):
        return [Verdict.passed(one.prompt.id) for one in rollouts]

not_callable = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(SOURCE)
    return str(tmp_path / "mine.py")


def values(verdicts: list[Verdict]) -> list[float | None]:
    return [verdict.value for verdict in verdicts]


def test_text_and_columns_arrive_as_lists(judge: Judge, rollout: Make, file: str) -> None:
    verdicts = judge(f"{file}:everything", [rollout("x", 7, prompt="q", level=3), rollout("yy", 8, prompt="r", other=1)])
    assert [one.detail for one in verdicts] == ["('q', 'x', [5, 6], 3, 7)", "('r', 'yy', [5, 6], None, 8)"]


def test_messages_arrive_as_messages(judge: Judge, rollout: Make, file: str) -> None:
    chat = [{"role": "user", "content": "q"}]
    verdict = judge(f"{file}:everything", [rollout("x", 7, prompt=chat, level=3)])[0]
    assert verdict.detail == repr((chat, [{"role": "assistant", "content": "x"}], [5, 6], 3, 7))


def test_only_named_columns_without_kwargs(judge: Judge, rollout: Make, file: str) -> None:
    assert values(judge(f"{file}:strict_names", [rollout("x", level=0.5, other=1)])) == [0.5]
    verdict = judge(f"{file}:strict_names", [rollout("x", other=1)])[0]
    assert verdict.status == "error"
    assert "needs level" in verdict.detail
    assert "other" in verdict.detail


def test_async_params_and_classes(judge: Judge, rollout: Make, file: str) -> None:
    assert values(judge(f"{file}:slow", [rollout("x")] * 2)) == [0.5, 0.5]
    assert values(judge(f"{file}:scaled", [rollout("x")], scale=3)) == [3.0]
    assert values(judge(f"{file}:Counter", [rollout("x")], start=10)) == [11.0]
    assert judge(f"{file}:Whole", [rollout("x")])[0].detail == "d:0"


def test_sync_functions_leave_the_event_loop(judge: Judge, rollout: Make, file: str) -> None:
    name = judge(f"{file}:thread", [rollout("x")])[0].detail
    assert name.startswith("align-reward-")
    assert name != threading.current_thread().name


def test_pass_is_above_zero(judge: Judge, rollout: Make, file: str) -> None:
    assert [one.status for one in judge(f"{file}:length", [rollout(""), rollout("ab")])] == ["fail", "pass"]


@pytest.mark.parametrize(
    ("name", "statuses", "said"),
    [
        ("bad_values", ["error"] * 5 + ["fail"], "gave nan"),
        ("too_few", ["error"] * 6, "gave 1 values for 6"),
        ("nothing", ["error"] * 6, "gave NoneType values for 6"),
        ("broken", ["error"] * 6, "KeyError: 'no such thing'"),
    ],
)
def test_what_is_no_number_is_an_error(judge: Judge, rollout: Make, file: str, name: str, statuses: list, said: str) -> None:
    verdicts = judge(f"{file}:{name}", [rollout("x")] * 6)
    assert [one.status for one in verdicts] == statuses
    assert said in verdicts[0].detail
    assert all(one.value is None for one in verdicts if one.status == "error")


def test_outside_the_declared_range_is_an_error(judge: Judge, rollout: Make, file: str) -> None:
    verdicts = judge(f"{file}:bounded", [rollout("x")] * 2)
    assert values(verdicts) == [0.5, None]
    assert "outside the declared range 0 to 1" in verdicts[1].detail


def test_dotted_paths(judge: Judge, rollout: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package_of_mine").mkdir()
    (tmp_path / "package_of_mine" / "rewards.py").write_text(
        "def one(completions, **kwargs):\n    return [1] * len(completions)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert values(judge("package_of_mine.rewards.one", [rollout("x")])) == [1.0]
    assert values(judge("package_of_mine.rewards:one", [rollout("x")])) == [1.0]


def test_the_version_follows_the_source_and_the_params(file: str) -> None:
    first = open_reward(RewardSpec(use=f"{file}:scaled")).version
    assert open_reward(RewardSpec(use=f"{file}:scaled")).version == first
    assert open_reward(RewardSpec(use=f"{file}:scaled", params={"scale": 2})).version != first
    Path(file).write_text(SOURCE + "\n# changed\n")
    assert open_reward(RewardSpec(use=f"{file}:scaled")).version != first


@pytest.mark.parametrize(
    ("use", "said"),
    [
        ("{file}:lenght", "has no 'lenght'"),
        ("{file}:not_callable", "not a function"),
        ("{folder}/absent.py:f", "there is no file"),
        ("{folder}/syntax.py:f", "SyntaxError"),
        ("{folder}/imports.py:f", "ModuleNotFoundError"),
        ("no.such.module.f", "cannot be imported"),
        ("{file}:Counter", "could not be made"),
    ],
)
def test_what_cannot_be_opened_is_refused_with_a_fix(file: str, tmp_path: Path, use: str, said: str) -> None:
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "imports.py").write_text("import no_such_module_anywhere\n")
    params = {"wrong": 1} if use.endswith("Counter") else {}
    with pytest.raises(RecipeError, match=said) as caught:
        open_reward(RewardSpec(use=use.format(file=file, folder=tmp_path), params=params))
    assert caught.value.place
    assert said == "not a function" or caught.value.fix
