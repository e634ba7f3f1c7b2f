"""Rubrics: files, criteria of rows, points worked out by hand, gates and vetoes, one call or many."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from align.errors import RecipeError
from align.recipe.schema import RewardSpec
from align.rewards.judge.client import JudgeRequest
from align.rewards.judge.params import RubricParams
from align.rewards.judge.reward import RubricReward
from align.rewards.judge.row_rubric import criteria_of
from align.rewards.judge.rubric import Criterion, Rubric, read_rubric
from align.rewards.registry import open_reward
from align.rewards.verdict import Verdict
from align.types import Rollout
from tests.rewards.judge.fakes import Brain, FakeClient, block, down, user_text

CLIENT = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
RIGHT, CLEAR, RUDE = {"name": "right", "weight": 3}, {"name": "clear", "scale": 4}, {"name": "rude", "weight": -2}


def judged(brain: Brain, rollouts: list[Rollout], **params: Any) -> tuple[list[Verdict | None], FakeClient]:
    client = FakeClient(brain)
    reward = RubricReward("it", RubricParams.model_validate({"client": CLIENT, **params}), client)
    return asyncio.run(reward.score(rollouts)), client


def levels(**by_name: int) -> Brain:
    """A judge that gives these levels, whatever it is shown, to whichever of the criteria it is asked about."""

    def brain(request: JudgeRequest) -> Mapping[str, Any]:
        asked = dict(re.findall(r"^(c\d+): (\w+)", user_text(request), re.MULTILINE))
        return {key: {"reason": "...", "level": by_name[name]} for key, name in asked.items()}

    return brain


@pytest.mark.parametrize(
    ("given", "normalise", "value"),
    [
        ({"right": 1, "clear": 4, "rude": 0}, "clip", 1.0),
        ({"right": 1, "clear": 1, "rude": 0}, "clip", 3.25 / 4),
        ({"right": 1, "clear": 0, "rude": 1}, "clip", 1 / 4),
        ({"right": 0, "clear": 0, "rude": 1}, "clip", 0.0),
        ({"right": 0, "clear": 0, "rude": 0}, "span", 2 / 6),
        ({"right": 0, "clear": 0, "rude": 1}, "span", 0.0),
        ({"right": 1, "clear": 2, "rude": 1}, "span", 3.5 / 6),
    ],
)
@pytest.mark.parametrize("calls", ["one", "each"])
def test_points_become_a_value(
    rollout: Callable[..., Rollout], given: dict[str, int], normalise: str, value: float, calls: str
) -> None:
    (verdict,), client = judged(levels(**given), [rollout("x")], criteria=[RIGHT, CLEAR, RUDE], normalise=normalise, calls=calls)
    assert verdict is not None
    assert verdict.value == pytest.approx(value)
    assert verdict.parts == given
    assert len(client.requests) == (1 if calls == "one" else 3)
    assert len({request.id for request in client.requests}) == len(client.requests), (
        "replies to each criterion must not be swapped"
    )


def test_faults_alone_are_counted_down_from_one() -> None:
    rubric = Rubric(criteria=(Criterion(name="rude", weight=-1), Criterion(name="wrong", weight=-3)))
    assert [rubric.value({"rude": rude, "wrong": wrong}).value for rude, wrong in [(0, 0), (1, 0), (0, 1), (1, 1)]] == [
        1,
        0.75,
        0.25,
        0,
    ]


GATED = [{"name": "topic", "gate": True, "weight": 1}, RIGHT, RUDE]


@pytest.mark.parametrize(("calls", "asked"), [("one", 1), ("each", 1)])
def test_after_a_gate_that_fails_nothing_else_counts(rollout: Callable[..., Rollout], calls: str, asked: int) -> None:
    (verdict,), client = judged(levels(topic=0, right=1, rude=0), [rollout("x")], criteria=GATED, calls=calls)
    assert verdict is not None
    assert (verdict.value, verdict.status, verdict.detail) == (0.0, "fail", "gate: topic")
    assert len(client.requests) == asked
    (passed,), _ = judged(levels(topic=1, right=1, rude=0), [rollout("x")], criteria=GATED, calls=calls)
    assert passed is not None
    assert passed.value == 1.0


@pytest.mark.parametrize(
    ("veto", "level", "vetoed"),
    [
        ({"name": "v", "veto": True, "weight": 0}, 0, True),
        ({"name": "v", "veto": True, "weight": 0}, 1, False),
        ({"name": "v", "veto": True, "weight": -1}, 1, True),
        ({"name": "v", "veto": True, "weight": -1}, 0, False),
        ({"name": "v", "veto": True, "scale": 3, "weight": 0, "passes_at": 2}, 1, True),
        ({"name": "v", "veto": True, "scale": 3, "weight": 0, "passes_at": 2}, 2, False),
        ({"name": "v", "veto": True, "scale": 3, "weight": -0.0001, "passes_at": 2}, 1, False),
    ],
)
def test_a_veto_sets_the_floor(rollout: Callable[..., Rollout], veto: dict[str, Any], level: int, vetoed: bool) -> None:
    (verdict,), _ = judged(levels(right=1, v=level), [rollout("x")], criteria=[RIGHT, veto], floor=0.1)
    assert verdict is not None
    assert verdict.value == (0.1 if vetoed else pytest.approx(1.0, abs=1e-3))


@pytest.mark.parametrize("calls", ["one", "each"])
@pytest.mark.parametrize("said", [down(), {}, {"c1": {"reason": "", "level": 5}}, {"c1": {"level": 1}}, "no json"], ids=str)
def test_a_level_that_the_judge_does_not_say_is_an_error(rollout: Callable[..., Rollout], said: Any, calls: str) -> None:
    good = levels(right=1, rude=0)
    verdicts, _ = judged(
        lambda request: said if block(request) == "bad" else good(request),
        [rollout("bad"), rollout("good")],
        criteria=[RIGHT, RUDE],
        calls=calls,
    )
    assert [(verdict.status, verdict.value) for verdict in verdicts if verdict] == [("error", None), ("pass", 1.0)]


def test_the_judge_sees_levels_and_anchors(rollout: Callable[..., Rollout]) -> None:
    criteria = [{"name": "depth", "description": "Goes into causes.", "scale": ["none", "some", "all"]}]
    examples = [{"answer": "Because.", "levels": {"depth": 0}, "why": "it names none"}]
    _, client = judged(levels(depth=1), [rollout("x")], criteria=criteria, examples=examples, instructions="Be strict.")
    after = user_text(client.requests[0]).rpartition("⟧")[2]
    for said in (
        "Be strict.",
        "c1: depth. Goes into causes.",
        "0 = none, 1 = some, 2 = all",
        "| Because.",
        "c1 = 0",
        "it names none",
    ):
        assert said in after


HEALTHBENCH = [{"criterion": "Names the drug.", "points": 5, "tags": ["x"]}, {"criterion": "Invents a dose.", "points": -3}]
RAR = [
    {"title": "Answer", "description": "Essential: says 4.", "weight": 5},
    {"title": "Answer", "description": "Says why.", "weight": 1},
]


@pytest.mark.parametrize(
    ("column", "weights", "names"),
    [
        (["says 4", "says why"], [1, 1], ["criterion 1", "criterion 2"]),
        (HEALTHBENCH, [5, -3], ["criterion 1", "criterion 2"]),
        (RAR, [5, 1], ["Answer", "Answer (2)"]),
        ({"rubrics": RAR}, [5, 1], ["Answer", "Answer (2)"]),
        ({"correct": "says 4", "brief": {"description": "one line", "weight": 2}}, [1, 2], ["correct", "brief"]),
        (json.dumps(HEALTHBENCH), [5, -3], ["criterion 1", "criterion 2"]),
        (json.dumps({"criteria": ["a"]}), [1], ["criterion 1"]),
        ([{"name": "depth", "scale": 4, "gate": True}], [1], ["depth"]),
    ],
)
def test_criteria_are_read_from_rows_as_data_sets_have_them(column: Any, weights: list[float], names: list[str]) -> None:
    found = criteria_of(column)
    assert [criterion.weight for criterion in found] == weights
    assert [criterion.name for criterion in found] == names


BAD_COLUMNS: list[Any] = [
    None,
    7,
    "",
    "be nice",
    [],
    {},
    [7],
    [{"points": 3}],
    [{"criterion": "x", "points": "many"}],
    [[]],
    ["x"] * 101,
    "[" * 9999,
]


@pytest.mark.parametrize("column", BAD_COLUMNS, ids=lambda column: repr(column)[:30])
def test_a_row_without_a_usable_rubric_is_an_error_and_costs_no_call(rollout: Callable[..., Rollout], column: Any) -> None:
    verdicts, client = judged(levels(), [rollout("x", rubric=column), rollout("x")], column="rubric")
    assert [verdict.status for verdict in verdicts if verdict] == ["error", "error"]
    assert not client.requests


def test_criteria_of_the_row_come_after_the_common_ones(rollout: Callable[..., Rollout]) -> None:
    (verdict,), client = judged(
        levels(right=1, kind=0), [rollout("x", rubric=[{"name": "kind"}])], criteria=[RIGHT], column="rubric"
    )
    assert verdict is not None
    assert verdict.value == 0.75
    assert "c2: kind" in user_text(client.requests[0])


RUBRIC = """\
instructions: Be strict.
criteria:
  - name: right
    weight: 3
  - name: rude
    weight: -2
    scale: {0: no, 2: very}
floor: 0.05
"""


def test_a_file_is_read_and_what_stands_beside_it_replaces_its_own(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RUBRIC)
    rubric = read_rubric(tmp_path / "r.yaml")
    assert [(criterion.name, criterion.weight, criterion.scale) for criterion in rubric.criteria] == [
        ("right", 3, ("", "")),
        ("rude", -2, ("no", "", "very")),
    ]
    params = RubricParams.model_validate({"client": CLIENT, "rubric": tmp_path / "r.yaml", "floor": 0.5})
    assert (params.common_rubric().floor, params.common_rubric().instructions) == (0.5, "Be strict.")


def test_the_version_follows_the_file(tmp_path: Path) -> None:
    path, versions = tmp_path / "r.yaml", set()
    for text in (RUBRIC, RUBRIC, RUBRIC.replace("3", "4")):
        path.write_text(text)
        versions.add(
            RubricReward(
                "it", RubricParams.model_validate({"client": CLIENT, "rubric": path}), FakeClient(lambda _: down())
            ).version
        )
    assert len(versions) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("weight: 3", "wieght: 3"), "r.yaml:4: criteria.0.wieght: there is no such key"),
        (("weight: 3", "weight: heavy"), "r.yaml:4: criteria.0.weight: "),
        (("scale: {0: no, 2: very}", "scale: 40"), "r.yaml:7: criteria.1.scale: the highest level is 40"),
        (("name: rude", "name: right"), "two criteria are called 'right'"),
        (("floor: 0.05", "floor: 2"), "r.yaml:8: floor: "),
        (("criteria:", "criteria: ["), "r.yaml:3: not valid YAML"),
        (("- name: right\n    weight: 3", "- weight: 3"), "criteria.0.name: Field required"),
        (("weight: 3", "weight: 3\n    passes_at: 2"), "passes_at = 2 is above the highest level, 1"),
        (("floor", "examples: [{answer: x, levels: {kind: 1}}]\nfloor"), "there is no criterion 'kind'"),
    ],
)
def test_an_error_in_the_file_names_its_line_and_key_before_any_call(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RUBRIC.replace(*change))
    with pytest.raises(RecipeError) as caught:
        open_reward(RewardSpec(use="rubric", params={"client": CLIENT, "rubric": str(path)}))
    assert said in caught.value.message
    assert caught.value.place == "rewards: rubric: params"


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "there are no criteria"),
        ({"criteria": [{"name": "x", "weight": 0}]}, "every criterion has weight 0"),
        ({"rubric": "nowhere.yaml"}, "cannot be read"),
        ({"criteria": [{"name": "x", "gate": True, "veto": True}]}, "a gate or a veto"),
    ],
)
def test_a_rubric_that_cannot_be_used_is_refused(params: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        open_reward(RewardSpec(use="rubric", params={"client": CLIENT, **params}))
    assert said in caught.value.message


def test_the_rubric_of_the_documentation_is_one(checkout: Path, tmp_path: Path) -> None:
    page = (checkout / "docs" / "judges.md").read_text()
    (text,) = re.findall(r"^```yaml\n(# explains\.yaml\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "explains.yaml").write_text(text)
    rubric = read_rubric(tmp_path / "explains.yaml")
    assert rubric.value({"right": 1, "steps": 3, "insults": 0, "padding": 0}).value == 1.0
    assert rubric.value({"right": 1, "steps": 3, "insults": 1, "padding": 0}).value == 0.0
    assert rubric.value({"right": 0}).why == "gate: right"
