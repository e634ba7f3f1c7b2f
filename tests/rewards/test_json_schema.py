"""`json_schema`: what is read from a text, what a schema says of it, and schemas that cannot be used."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from align.errors import RecipeError
from align.recipe.schema import RewardSpec
from align.rewards.json_text import JSONTextError, equal_json, read_json
from align.rewards.registry import open_reward
from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}, "born": {"format": "date"}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ('{"name": "Ann", "age": 3}', "pass"),
        ('```json\n{"name": "Ann"}\n```', "pass"),
        ('Here it is: {"name": "Ann"} as you wished.', "pass"),
        ('First {"name": 1}, rather {"name": "Ann"}', "pass"),
        ('<think>{"name": 1}</think>{"name": "Ann"}', "pass"),
        ('<answer>{"name": "Ann"}</answer>', "pass"),
        ('{"name": "Ann", "born": "2020-02-30"}', "fail"),
        ('{"name": "Ann", "age": 3.5}', "fail"),
        ('{"name": "Ann", "age": true}', "fail"),
        ('{"name": "Ann", "x": 1}', "fail"),
        ('["Ann"]', "fail"),
        ('{"name": "Ann"', "unparsable"),
        ('{"name": "Ann", "name": "Bob"}', "unparsable"),
        ('{"name": NaN}', "unparsable"),
        ("{'name': 'Ann'}", "unparsable"),
        ("[" * 100_000, "unparsable"),
        ('{"a":' * 20_000, "unparsable"),
        ("9" * 100_000, "unparsable"),
        ("x" * 300_000, "unparsable"),
        ("", "unparsable"),
    ],
)
def test_verdicts(judge: Judge, rollout: Make, text: str, status: str) -> None:
    assert judge("json_schema", [rollout(text)], schema=PERSON)[0].status == status


def test_parts_and_equality(judge: Judge, rollout: Make) -> None:
    rows = [
        rollout(text, '{"name": "Ann", "age": 3}')
        for text in ('{"age": 3.0, "name": "Ann"}', '{"name": "Bob"}', '{"age": 3}', "no")
    ]
    verdicts = judge("json_schema", rows, schema=PERSON, equal=True, credit="parts")
    assert [one.value for one in verdicts] == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0])
    assert dict(verdicts[1].parts) == {"parsed": 1.0, "valid": 1.0, "equal": 0.0}


@pytest.mark.parametrize(
    "schema",
    ["{not json", {"type": "strnig"}, {"$ref": "http://127.0.0.1:9/x.json"}, {"$ref": "#/missing"}, '{"type": 5}', [1], None],
)
def test_a_row_whose_schema_cannot_be_used_is_an_error(judge: Judge, rollout: Make, schema: object) -> None:
    assert judge("json_schema", [rollout('{"a": 1}', schema=schema)])[0].status == "error"


def test_a_rows_schema_wins(judge: Judge, rollout: Make) -> None:
    rows = [rollout("[1]", schema={"type": "array"}), rollout("[1]", json_schema='{"type": "object"}')]
    assert [one.status for one in judge("json_schema", rows, schema=PERSON)] == ["pass", "fail"]


def test_a_bad_schema_of_the_recipe_is_refused_at_once() -> None:
    with pytest.raises(RecipeError, match="no JSON Schema"):
        open_reward(RewardSpec(use="json_schema", params={"schema": {"type": "strnig"}}))


def test_a_pattern_in_a_schema_that_never_ends_is_a_timeout(judge: Judge, rollout: Make) -> None:
    verdicts = judge("json_schema", [rollout(f'"{"a" * 40}!"'), rollout('"a"')], schema={"pattern": "^(a+)+$"}, timeout=0.5)
    assert [one.status for one in verdicts] == ["timeout", "pass"]


@pytest.mark.parametrize(
    ("format", "good", "bad"),
    [
        ("date-time", '"2024-01-02T03:04:05Z"', '"2024-13-02T03:04:05Z"'),
        ("time", '"03:04:05+01:00"', '"25:04:05Z"'),
        ("uri", '"https://example.org/a?b"', '"not a uri"'),
        ("email", '"a@b.org"', '"a.b.org"'),
        ("uuid", '"12345678-1234-5678-1234-567812345678"', '"1234"'),
        ("ipv4", '"10.0.0.1"', '"10.0.0.256"'),
    ],
)
def test_formats(judge: Judge, rollout: Make, format: str, good: str, bad: str) -> None:
    verdicts = judge("json_schema", [rollout(good), rollout(bad)], schema={"type": "string", "format": format})
    assert [one.status for one in verdicts] == ["pass", "fail"]
    assert judge("json_schema", [rollout(bad)], schema={"type": "string", "format": format}, formats=False)[0].status == "pass"


def test_equality_of_values() -> None:
    assert equal_json({"a": [1, 2.0]}, {"a": [1.0, 2]})
    assert not equal_json(True, 1)
    assert not equal_json([0], [False])
    assert not equal_json({"a": 1}, {"a": 1, "b": None})
    assert not equal_json("1", 1)


def test_where_a_value_is_read() -> None:
    assert read_json('a [1] b {"x": [2]} c') == {"x": [2]}
    with pytest.raises(JSONTextError):
        read_json("a [1] b", "whole")
    with pytest.raises(JSONTextError, match="fence"):
        read_json("[1]", "fenced")
