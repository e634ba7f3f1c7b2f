"""The tree that makes one number of several rewards: by hand, three-valued, over groups, with what is wrong named."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from align.errors import RecipeError, RewardError
from align.recipe.schema import RewardBudget, RewardSpec
from align.rewards.combine import Samples, parse_node
from align.rewards.combine.constraints import Limit
from align.rewards.combine.parse import NODES
from align.rewards.compose import RewardStack
from align.rewards.verdict import Verdict
from align.types import Completion, Prompt, Rollout, Scored

NAN, ERROR = math.nan, Verdict.error("the judge is down")
Verdicts = Mapping[str, Verdict | float]


def rollout(text: str = "", prompt: str = "p", tokens: int = 3, source: str = "data", **columns: Any) -> Rollout:
    completion = Completion(
        prompt_index=0, sample_index=0, token_ids=(1,) * tokens, logprobs=(0.0,) * tokens, text=text, finish_reason="stop"
    )
    asked = Prompt(id=prompt, messages=({"role": "user", "content": "?"},), token_ids=(1,), source=source, columns=columns)
    return Rollout(prompt=asked, completion=completion)


def values(tree: Any, verdicts: Sequence[Verdicts], rollouts: Sequence[Rollout] | None = None, **multipliers: float) -> list[Any]:
    """What the tree makes of the samples, of one prompt unless said otherwise."""
    sound = [
        {
            name: one if isinstance(one, Verdict) else Verdict(value=one, status="pass" if one > 0.5 else "fail")
            for name, one in row.items()
        }
        for row in verdicts
    ]
    samples = Samples(rollouts=rollouts or [rollout()] * len(sound), verdicts=sound, multipliers=multipliers)
    return [part.value for part in parse_node(tree).evaluate(samples)]


def value(tree: Any, **verdicts: Verdict | float) -> Any:
    return values(tree, [verdicts])[0]


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ("a", 1.0),
        (2.5, 2.5),
        ({"sum": {"a": 1.0, "b": 2.0, "c": -0.5}}, 1.0 + 0.5 - 2.0),
        ({"sum": ["a", "b", {"scale": {"of": "c", "by": -0.5, "plus": 1}}]}, 1.0 + 0.25 - 2.0 + 1.0),
        ({"mean": ["a", "b", "c"]}, 1.75),
        ({"product": ["b", "c", 3]}, 3.0),
        ({"min": ["a", "b"]}, 0.25),
        ({"max": ["a", "c"]}, 4.0),
        ({"clip": {"of": "c", "high": 1.5}}, 1.5),
        ({"clip": {"of": {"scale": {"of": "c", "by": -1}}, "low": -2}}, -2.0),
        ({"gate": {"if": "a", "then": "c"}}, 4.0),
        ({"gate": {"if": ["a", "b"], "then": "c"}}, 0.0),
        ({"gate": {"if": "b", "then": "c", "else": -1}}, -1.0),
        ({"gate": {"if": "b", "at_least": 0.25, "then": "c"}}, 4.0),
        ({"reliable": {"of": "b", "drop": [0.3, 0.7]}}, 0.25),
        ({"relative": {"of": "a", "by": "rank"}}, 0.5),
    ],
)
def test_a_tree_by_hand(tree: Any, expected: float) -> None:
    assert value(tree, a=1.0, b=0.25, c=4.0) == expected


@pytest.mark.parametrize("operation", ["sum", "mean", "product", "min", "max"])
def test_an_error_is_no_number_and_what_does_not_apply_is_left_out(operation: str) -> None:
    tree = {operation: ["a", "b"]}
    assert math.isnan(value(tree, a=1.0, b=ERROR))
    assert value(tree, a=0.75) == 0.75
    assert value(tree) is None


def test_without_any_reward_nothing_applies() -> None:
    (one,) = scored(RewardStack([]), rollout())
    assert math.isnan(one.reward)
    assert one.verdicts == {}


def test_a_weight_of_zero_only_looks() -> None:
    assert value({"sum": {"a": 1.0, "b": 0.0}}, a=0.5, b=ERROR) == 0.5


def test_a_closed_gate_needs_no_verdict_behind_it_and_a_gate_without_verdict_gives_none() -> None:
    tree = {"gate": {"if": "tidy", "then": "judge"}}
    assert value(tree, tidy=0.0, judge=ERROR) == 0.0
    assert math.isnan(value(tree, tidy=1.0, judge=ERROR))
    assert math.isnan(value(tree, tidy=ERROR, judge=1.0))
    assert value(tree, judge=0.5) == 0.5, "a gate that does not apply holds nobody up"
    assert value({"gate": {"if": ["tidy", "other"], "then": "judge"}}, tidy=0.0, other=ERROR, judge=1.0) == 0.0


def test_a_route_goes_by_source_or_column_and_an_unknown_one_is_a_fault() -> None:
    tree = {"route": {"to": {"maths": "a", "code": "b"}}}
    rows = [{"a": 1.0, "b": 0.0}] * 3
    sources = [rollout(source="maths"), rollout(source="code"), rollout(source="poems")]
    first, second, third = values(tree, rows, sources)
    assert (first, second) == (1.0, 0.0)
    assert math.isnan(third)
    assert values({"route": {"by": "kind", "to": {"1": "a"}, "default": "b"}}, rows[:2], [rollout(kind=1), rollout(kind=2)]) == [
        1.0,
        0.0,
    ]
    parts = parse_node(tree).evaluate(Samples(rollouts=[sources[2]], verdicts=[{}]))
    assert list(parts[0].faults()) == ["no route for source 'poems': there are maths, code"]


def test_an_unreliable_range_is_left_out() -> None:
    found = values({"reliable": {"of": "a", "drop": [0.3, 0.7]}}, [{"a": 0.3}, {"a": 0.5}, {"a": 0.7}])
    assert (found[0], found[2]) == (0.3, 0.7)
    assert math.isnan(found[1])


def test_relative_values_by_hand_with_a_masked_sample() -> None:
    rows: list[Verdicts] = [{"a": 1.0}, {"a": 0.0}, {"a": ERROR}, {"a": 0.5}]
    mean = values({"relative": {"of": "a"}}, rows)
    assert [mean[0], mean[1], mean[3]] == [0.5, -0.5, 0.0]
    assert math.isnan(mean[2]), "a sample without verdict leaves the statistics and has none itself"
    std = values({"relative": {"of": "a", "by": "std"}}, rows)
    assert [std[0], std[1], std[3]] == [1.0, -1.0, 0.0]  # the deviation of 1, 0, 0.5 over n - 1 is 0.5
    assert values({"relative": {"of": "a", "by": "rank"}}, [{"a": 1.0}, {"a": 0.0}, {"a": 0.0}]) == [1.0, 0.25, 0.25]
    assert values({"relative": {"of": "a", "by": "std"}}, [{"a": 0.3}] * 3) == [0.0] * 3, "equal values: exactly 0"


def test_groups_are_those_of_a_prompt_in_whatever_order() -> None:
    rollouts = [rollout(prompt="x"), rollout(prompt="y"), rollout(prompt="x"), rollout(prompt="y")]
    rows: list[Verdicts] = [{"a": 1.0}, {"a": 4.0}, {"a": 0.0}, {"a": 2.0}]
    assert values({"relative": {"of": "a"}}, rows, rollouts) == [0.5, 1.0, -0.5, -1.0]


def test_length_shapes_by_hand() -> None:
    rollouts = [rollout(tokens=10), rollout(tokens=20), rollout(tokens=30), rollout(tokens=20)]
    rows: list[Verdicts] = [{"a": 1.0}, {"a": 1.0}, {"a": 1.0}, {"a": 0.0}]
    assert values({"length": {"of": "a", "weight": 1.0}}, rows, rollouts) == [1.5, 1.0, 0.5, 0.0]
    assert values({"length": {"of": "a", "weight": 1.0}}, [{"a": 0.0}] * 3, rollouts[:3]) == [0.0, 0.0, -0.5]
    deviation = values({"length": {"of": "a", "shape": "deviation", "weight": 0.5}}, rows, rollouts)
    spread = math.sqrt(200 / 3)
    assert deviation == pytest.approx([1 - 0.5 / (1 + math.exp(10 / spread)), 0.75, 1 - 0.5 / (1 + math.exp(-10 / spread)), 0.0])
    cosine = values({"length": {"of": "a", "shape": "cosine", "longest": 20}}, rows, rollouts)
    assert cosine == pytest.approx([1.5, 1.0, -10.0, 0.0])  # right: from 2 to 1, wrong: from -10 to 0, too long: -10


def test_diversity_by_hand() -> None:
    rollouts = [rollout("one two three"), rollout("one two three"), rollout("four five six")]
    tree = {"diversity": {"of": "a", "weight": 1.0, "ngram": 1}}
    assert values(tree, [{"a": 0.0}] * 3, rollouts) == [0.5, 0.5, 1.0]
    only = {"diversity": {"of": "a", "weight": 1.0, "ngram": 1, "at_least": 1.0}}
    assert values(only, [{"a": 1.0}, {"a": 0.0}, {"a": 1.0}], rollouts) == [1.5, 0.0, 2.0]
    assert values(tree, [{"a": 0.0}], rollouts[:1]) == [0.0]


@pytest.mark.parametrize(
    ("weights", "options", "expected"),
    [
        ({"helpful": 1.0, "brief": 0.5}, {}, 2.0 + 0.5),
        ({"helpful": 3, "brief": 1}, {"normalise": "sum"}, (6.0 + 1.0) / 4),
        ([3.0, 4.0], {"normalise": "length"}, (6.0 + 4.0) / 5),
        (90, {}, 1.0),
        ("ann", {"presets": {"ann": {"brief": 2.0}}}, 2.0),
    ],
)
def test_directions_weigh_by_the_row(weights: Any, options: dict[str, Any], expected: float) -> None:
    tree = {"directions": {"of": {"helpful": "h", "brief": "b"}, **options}}
    assert values(tree, [{"h": 2.0, "b": 1.0}], [rollout(weights=weights)])[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (None, "wanted are weights"),
        ("bob", "none of the presets"),
        ({"helpfull": 1}, "weighs helpfull"),
        ([1.0], "wanted are"),
        ([NAN, 1.0], "wanted are"),
        ([0.0, 0.0], "weight 0"),
    ],
)
def test_a_row_without_usable_weights_is_a_fault(weights: Any, said: str) -> None:
    node = parse_node({"directions": {"of": {"helpful": "h", "brief": "b"}, "normalise": "sum"}})
    (part,) = node.evaluate(Samples(rollouts=[rollout(weights=weights)], verdicts=[{}]))
    assert part.value is not None
    assert math.isnan(part.value)
    assert said in part.fault


def test_a_constraint_adds_multiplier_times_slack() -> None:
    tree = {"constrain": {"of": "a", "limits": {"brief": {"at_least": 0.8}, "rude": {"at_most": 0.1}}}}
    rows: list[Verdicts] = [{"a": 1.0, "brief": 0.5, "rude": 0.3}]
    assert values(tree, rows) == [1.0]
    assert values(tree, rows, brief=2.0, rude=1.0)[0] == pytest.approx((1.0 + 2.0 * (0.5 - 0.8) + 1.0 * (0.1 - 0.3)) / 4.0)
    assert math.isnan(values(tree, [{"a": 1.0, "brief": ERROR, "rude": 0.0}], brief=1.0)[0])


def test_a_multiplier_rises_while_its_limit_is_broken_and_falls_to_zero_when_it_is_kept() -> None:
    limit = Limit(at_least=0.8, rate=0.5, most=1.0)
    assert limit.moved(0.0, 0.4) == pytest.approx(0.2)
    assert limit.moved(0.9, 0.0) == 1.0, "never above `most`"
    assert limit.moved(0.05, 1.0) == 0.0
    assert Limit(at_most=0.1, rate=1.0).moved(0.0, 0.3) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"summ": ["a"]}, "did you mean 'sum'"),
        ({"gate": {"if": "a", "then": {"clp": {"of": "b"}}}}, "gate.then: there is no operation 'clp': did you mean 'clip'"),
        ({"gate": {"if": "a", "thn": "b", "then": "b"}}, "gate.thn: gate takes if, then, else, at_least"),
        ({"gate": {"if": "a"}}, "gate.then: Field required"),
        ({"sum": {"a": "x"}}, "the weight of 'a' is 'x'"),
        ({"sum": {}}, "sum: there is nothing to add up"),
        ({"sum": ["a"], "min": ["b"]}, "2 keys: sum, min"),
        ({"clip": {"of": "a", "low": 1, "high": 0}}, "low = 1.0 is above high = 0.0"),
        ({"constrain": {"of": "a", "limits": {"b": {}}}}, "limits.b: give either at_least or at_most"),
        ({"reliable": {"of": "a", "drop": [1, 0]}}, "the first number must be below the second"),
        ([1], "got [1]"),
        ({"route": {"to": {"x": {"max": [None]}}}}, "got None"),
    ],
)
def test_what_is_wrong_with_a_tree_is_said_with_its_place(tree: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_node(tree)


def test_every_operation_names_its_children() -> None:
    """A forgotten child would hide the rewards that it names."""
    written: dict[str, Any] = {
        "gate": {"if": "g", "then": "x", "else": "y"},
        "route": {"to": {"s": "x"}, "default": "y"},
        "directions": {"of": {"one": "x", "two": "y"}},
        "constrain": {"of": "x", "limits": {"y": {"at_least": 0}}},
        "reliable": {"of": "x", "drop": [0, 1]},
    }
    for operation in NODES:
        several = operation in ("sum", "mean", "product", "min", "max")
        tree = written.get(operation) or (["x", "y"] if several else {"of": {"sum": ["x", "y"]}})
        assert {"x"} <= set(parse_node({operation: tree}).names())
        assert operation == "reliable" or "y" in parse_node({operation: tree}).names()


SOURCE = """
calls = []
def number(completions, **kwargs):
    return [float(text) for text in completions]
def even(completions, **kwargs):
    return [float(float(text) % 2 == 0) for text in completions]
def counted(completions, **kwargs):
    calls.append(list(completions))
    return [10.0] * len(completions)
"""


@pytest.fixture
def stack(tmp_path: Path) -> Callable[..., RewardStack]:
    (tmp_path / "made.py").write_text(SOURCE)

    def make(*names: str, combine: Any = None, budget: RewardBudget | None = None, **only_if: str) -> RewardStack:
        specs = [RewardSpec(use=f"{tmp_path / 'made.py'}:{name}", only_if=only_if.get(name)) for name in names]
        return RewardStack(specs, budget, combine)

    return make


Stack = Callable[..., RewardStack]


def scored(stack: RewardStack, *rollouts: Rollout) -> list[Scored]:
    try:
        return asyncio.run(stack.score(rollouts))
    finally:
        stack.close()


def test_a_stack_combines_and_explains(stack: Stack) -> None:
    combined = stack("number", "even", combine={"gate": {"if": "even", "then": {"sum": {"number": 0.5}}}})
    found = scored(combined, rollout("4"), rollout("3"))
    assert [one.reward for one in found] == [2.0, 0.0]
    first, second = combined.explain(found)
    assert (first.text, second.text) == ("gate: open", "gate: closed by even")
    assert [part.text for part in first.parts] == ["even: pass", "sum: 0.5 x 4"]


def test_only_if_spares_the_second_reward_what_the_first_did_not_pass(stack: Stack) -> None:
    found = scored(stack("counted", "even", counted="even"), rollout("4"), rollout("3"), rollout("2"))
    assert [one.reward for one in found] == [11.0, 0.0, 11.0]
    assert ["counted" in one.verdicts for one in found] == [True, False, True]


def test_what_waits_for_a_failed_reward_is_an_error_and_not_left_out(stack: Stack) -> None:
    combined = stack("number", "counted", counted="number", combine="counted", budget=RewardBudget(max_error_rate=1.0))
    (one,) = scored(combined, rollout("no number"))
    assert (one.verdicts["number"].status, one.verdicts["counted"].status) == ("error", "error")
    assert "waits for number" in one.verdicts["counted"].detail
    assert math.isnan(one.reward)


@pytest.mark.parametrize(
    ("combine", "only_if", "said"),
    [
        ("numbr", {}, "combine: there is no reward called 'numbr': did you mean 'number'"),
        (None, {"number": "od"}, "number.only_if: there is no reward called 'od'"),
        (None, {"number": "even", "even": "number"}, "wait for each other"),
        ({"nothing": 1}, {}, "there is no operation 'nothing'"),
    ],
)
def test_a_stack_refuses_names_that_there_are_not(stack: Stack, combine: Any, only_if: dict[str, str], said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        stack("number", "even", combine=combine, **only_if)


def test_rows_that_cannot_be_combined_use_up_the_error_budget(stack: Stack) -> None:
    combined = stack("number", combine={"route": {"to": {"x": "number"}}}, budget=RewardBudget(max_error_rate=0.1, window=64))
    with pytest.raises(RewardError, match="reward 'combine' failed on 7"):
        scored(combined, *[rollout("1")] * 7)


def test_multipliers_move_once_a_step_and_are_saved(stack: Stack) -> None:
    tree = {"constrain": {"of": "number", "limits": {"even": {"at_least": 1.0, "rate": 0.5}}, "normalise": False}}
    first = stack("number", "even", combine=tree)
    found = scored(first, rollout("4"), rollout("3"))
    assert [one.reward for one in found] == [4.0, 3.0]
    assert first.after_step(found) == {"constraints/even/mean": 0.5, "constraints/even/multiplier": 0.0}
    second = stack("number", "even", combine=tree)
    second.load_state_dict(first.state_dict())
    assert [one.reward for one in scored(second, rollout("4"), rollout("3"))] == [4.0, 3.0 - 0.25]
