"""Rewards from elsewhere: of installed packages, from the template, as Rubric objects."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import align
from align.errors import RecipeError
from align.recipe.load import load_recipe
from align.recipe.new_reward import new_reward
from align.recipe.schema import RewardSpec
from align.rewards.function import FunctionParams
from align.rewards.names import plugins, reward_name
from align.rewards.registry import open_reward
from align.rewards.rubric_object import RubricObject, is_rubric
from align.rewards.verdict import Verdict
from align.types import Rollout
from tests.loops.conftest import RL, write_recipe

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]


def install(folder: Path, package: str, source: str, **points: str) -> None:
    """What pip leaves behind of a package with entry points."""
    (folder / f"{package}.py").write_text(source)
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[align.rewards]\n" + "".join(f"{name} = {place}\n" for name, place in points.items())
    )


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = "raise_on_import = 1\ndef please(completion, word='please'):\n    return float(word in completion[-1]['content'])\n"
    install(tmp_path, "acme_manners", source, polite="acme_manners:please", math="acme_manners:please", gone="acme_manners:gone")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "acme_manners", raising=False)
    return tmp_path


def test_an_installed_package_gives_rewards_by_name(installed: Path, tmp_path: Path) -> None:
    assert plugins()["polite"] == "acme_manners:please"
    data, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    data.write_text("".join(json.dumps({"prompt": "?", "completion": text}) + "\n" for text in ("yes please", "danke")))
    report = align.score("polite", data, out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["value"], row["reward"]) for row in rows] == [(1.0, "polite"), (0.0, "polite")]
    assert report.statuses == {"polite": {"pass": 1, "fail": 1}}
    align.score("polite", data, out, params={"word": "danke"})
    assert [json.loads(line)["value"] for line in out.read_text().splitlines()] == [0.0, 1.0]


def test_a_built_in_keeps_its_name(installed: Path) -> None:
    assert "math" not in plugins()
    assert type(open_reward(RewardSpec(use="math"))).__name__ == "MathReward"


def test_of_two_packages_the_same_one_always_has_the_name(installed: Path) -> None:
    install(installed, "abc_manners", "def other(completion): return 1.0", polite="abc_manners:other")
    assert plugins()["polite"] == "abc_manners:other"
    findings = {finding.subject: finding for finding in align.doctor() if finding.text.startswith("acme_manners:")}
    assert findings["reward: polite"].status == "note"
    assert "the name is that of abc_manners:other" in findings["reward: polite"].text
    assert "the name is built in" in findings["reward: math"].text


def test_a_recipe_is_checked_without_importing_the_package(installed: Path, tmp_path: Path) -> None:
    assert load_recipe(write_recipe(tmp_path, RL, rewards=[{"use": "polite"}])).recipe.reward_specs[0].use == "polite"
    assert "acme_manners" not in sys.modules
    assert reward_name(RewardSpec(use="polite")) == "polite"
    with pytest.raises(RecipeError, match="defines no 'gone'"):
        load_recipe(write_recipe(tmp_path, RL, rewards=[{"use": "gone"}]))
    with pytest.raises(RecipeError) as caught:
        load_recipe(write_recipe(tmp_path, RL, rewards=[{"use": "polit"}]))
    assert "did you mean polite?" in (caught.value.fix or "")


def test_the_template_passes_its_own_test(tmp_path: Path) -> None:
    reward, test = new_reward("short_answers", tmp_path / "mine")
    assert "my_reward" not in reward.read_text() + test.read_text()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "mine"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "7 passed" in done.stdout
    reward.write_text(reward.read_text().replace("last == expected", "True"))
    again = subprocess.run([sys.executable, "-m", "pytest", "-q", "mine"], cwd=tmp_path, capture_output=True, text=True)
    assert "failed" in again.stdout, "its test notices a reward that is broken"


@pytest.mark.parametrize("name", ["Short", "9lives", "lambda", "a-b", "", "../up"])
def test_a_name_that_python_cannot_use_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be the name"):
        new_reward(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_stays(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("mine")
    with pytest.raises(RecipeError, match="a file already"):
        new_reward("mine", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]


class Parser:
    def parse_answer(self, completion: list[dict[str, str]]) -> str:
        return completion[-1]["content"].split()[-1]


def right(completion: Any, answer: str, parser: Parser, state: dict[str, Any]) -> float:
    state["found"] = parser.parse_answer(completion)
    return float(state["found"] == answer)


async def short(state: dict[str, Any], **kwargs: Any) -> float:
    if state["found"] == "broken":
        raise KeyError("nobody home")
    return 1.0 / len(state["found"])


def among(completions: list[Any], states: list[dict[str, Any]]) -> list[float]:
    """The rank of each sample in its group by what `right` left in the state."""
    found = [state["found"] for state in states]
    return [float(sorted(found).index(one)) for one in found]


def rubric(functions: list[Any], weights: list[float], **more: Any) -> Any:
    """What Rubric of verifiers 0.1 holds."""
    return SimpleNamespace(funcs=functions, weights=weights, class_objects={"parser": Parser()}, **more)


def judged(thing: Any, rollouts: list[Rollout]) -> list[Verdict | None]:
    reward = RubricObject("rubric", thing, "v", FunctionParams(), "rewards: use: it")
    try:
        return asyncio.run(reward.score(rollouts))
    finally:
        reward.close()


def test_a_rubric_object_is_the_weighted_sum_of_its_functions(rollout: Make) -> None:
    thing = rubric([right, short, among], [1.0, 0.5, 0.0])
    assert is_rubric(thing)
    samples = [rollout("so it is 42", answer="42"), rollout("no: 123", answer="42")]
    first, second = judged(thing, samples)
    assert first is not None
    assert second is not None
    assert (first.value, first.status) == (1.0 + 0.5 / 2, "pass")
    assert second.value == pytest.approx(0.5 / 3)
    assert dict(first.parts) == {"right": 1.0, "short": 0.5, "among": 1.0}
    assert dict(second.parts) == {"right": 0.0, "short": pytest.approx(1 / 3), "among": 0.0}


def test_a_function_that_fails_masks_its_sample_and_no_other(rollout: Make) -> None:
    """verifiers itself counts it as 0."""
    samples = [rollout("it is broken", answer="broken"), rollout("42", answer="42")]
    first, second = judged(rubric([right, short], [1.0, 0.5]), samples)
    assert first is not None
    assert (first.value, first.status) == (None, "error")
    assert "short: KeyError" in first.detail
    assert second is not None
    assert second.value == 1.25
    reported, _ = judged(rubric([right, short], [1.0, 0.0]), samples)
    assert reported is not None
    assert reported.value == 1.0, "a function of weight 0 is only reported"
    assert "short: KeyError" in reported.detail


def test_rubrics_of_older_versions_and_groups(rollout: Make) -> None:
    old = SimpleNamespace(reward_funcs=[right], reward_weights=[2.0], class_objects={"parser": Parser()})
    assert is_rubric(old)
    group = SimpleNamespace(rubrics=[old, rubric([short], [1.0])], funcs=[], weights=[])
    (verdict,) = judged(group, [rollout("42", answer="42")])
    assert verdict is not None
    assert verdict.value == 2.5


def test_rubrics_that_cannot_be_used_are_refused() -> None:
    for thing, said in (
        (rubric([], []), "no functions"),
        (rubric([right, right], [1, 1]), "the same name"),
        (rubric([right], [1, 2]), "1 functions and 2 weights"),
    ):
        with pytest.raises(RecipeError, match=said):
            judged(thing, [])


def test_a_rubric_in_a_file(judge: Judge, rollout: Make, tmp_path: Path) -> None:
    file = tmp_path / "grading.py"
    file.write_text(
        "from types import SimpleNamespace\n"
        "def right(completion, answer): return float(answer in completion[-1]['content'])\n"
        "mine = SimpleNamespace(funcs=[right], weights=[3.0])\n"
    )
    assert [one.value for one in judge(f"{file}:mine", [rollout("42!", answer="42"), rollout("", answer="42")])] == [3.0, 0.0]
    with pytest.raises(RecipeError, match="is an object, and takes no scale"):
        open_reward(RewardSpec(use=f"{file}:mine", params={"scale": 2}))
