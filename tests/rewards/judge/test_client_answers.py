"""What of a server's words counts as an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from align.rewards.judge.answer import Answer, Usage, read_completion, sound_value, summed
from align.rewards.judge.client import JudgeFailure
from tests.rewards.judge.scripted import GRADE, completion, question

SOUND = {"id": "q1", "score": 7}


def value(text: str, schema: Any = GRADE) -> Any:
    return sound_value(question(schema=schema), Answer(text=text, logprobs={}, usage=None))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(SOUND),
        f"  \n{json.dumps(SOUND, indent=2)}\n",
        f"```json\n{json.dumps(SOUND)}\n```",
        f"```\n{json.dumps(SOUND)}\n```",
        f'<think>{{"id": "q1", "score": 0}} or so</think>\n{json.dumps(SOUND)}',
    ],
)
def test_an_answer_may_stand_behind_thinking_and_in_a_fence(text: str) -> None:
    assert value(text) == SOUND


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "garbage"),
        ("7", "schema"),
        ("null", "schema"),
        ("[7]", "schema"),
        ("Score: 7", "garbage"),
        (f"Sure! {json.dumps(SOUND)}", "garbage"),
        (f"{json.dumps(SOUND)} {json.dumps(SOUND)}", "garbage"),
        (f"<think>never ends {json.dumps(SOUND)}", "garbage"),
        ('{"id": "q1", "score": 7, "score": 10}', "garbage"),  # says two things
        ('{"id": "q1", "score": NaN}', "garbage"),
        ('{"id": "q1", "score": Infinity}', "garbage"),
        ('{"id": "q1", "score": 1e999}', "garbage"),
        ('{"id": "q1", "score": ' + "9" * 5000 + "}", "garbage"),
        ("[" * 100_000, "garbage"),
        *((f"{'[' * depth}{']' * depth}", None) for depth in range(100, 1000, 50)),  # which of two limits is met first varies
        (f'{{"id": "q1", "score": {"9" * 4000}}}', "schema"),
        ('{"id": "q1", "score": 11}', "schema"),
        ('{"id": "q1", "score": -1}', "schema"),
        ('{"id": "q1", "score": 7.5}', "schema"),
        ('{"id": "q1", "score": true}', "schema"),
        ('{"id": "q1", "score": "7"}', "schema"),
        ('{"id": "q1", "score": null}', "schema"),
        ('{"id": "q1"}', "schema"),
        ('{"score": 7}', "schema"),
        ('{"id": "q1", "score": 7, "more": 1}', "schema"),
        ('{"id": "q2", "score": 7}', "wrong_id"),
        ('{"id": null, "score": 7}', "wrong_id"),
        ('{"id": ["q1"], "score": 7}', "wrong_id"),
    ],
)
def test_nothing_else_is_an_answer(text: str, kind: str | None) -> None:
    with pytest.raises(JudgeFailure) as caught:
        value(text)
    assert caught.value.kind == kind or (kind is None and caught.value.kind in ("garbage", "schema"))
    assert len(str(caught.value)) < 400


def test_too_many_or_too_few_entries_of_a_list_are_unsound() -> None:
    scores = {"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 3}
    schema = {"type": "object", "properties": {"id": {"type": "string"}, "scores": scores}, "required": ["id", "scores"]}
    assert value('{"id": "q1", "scores": [1, 2, 3]}', schema)["scores"] == [1, 2, 3]
    for wrong in ([1, 2], [1, 2, 3, 4]):
        with pytest.raises(JudgeFailure, match="at scores"):
            value(json.dumps({"id": "q1", "scores": wrong}), schema)


def test_free_text_has_no_value() -> None:
    assert value('{"score": 3}', schema=None) is None


def test_an_answer_that_was_cut_says_what_to_do() -> None:
    with pytest.raises(JudgeFailure, match="max_tokens"):
        sound_value(question(), Answer(text='{"id": "q', logprobs={}, usage=None, cut=True))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b'{"score": 9}',
        b'{"choices": []}',
        b'{"choices": {"0": 1}}',
        b'{"choices": [7]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": null}}]}',
        b'{"choices": [{"message": {"content": [{"text": "7"}]}}]}',
        b'{"choices": [{"message": {"content": null, "refusal": "I will not"}}]}',
        completion(SOUND, count=2).body,
        completion(SOUND, count=0).body,
    ],
)
def test_a_body_that_is_no_completion_is_garbage(body: bytes) -> None:
    with pytest.raises(JudgeFailure) as caught:
        read_completion(body)
    assert caught.value.kind == "garbage"


def test_usage_that_makes_no_sense_is_unknown() -> None:
    assert read_completion(completion("x", usage=(7, 3)).body).usage == Usage(prompt=7, completion=3)
    for usage in (None, (-1, 3), (True, 3), (7.5, 3), ("7", 3)):
        assert read_completion(completion("x", usage=usage).body).usage is None  # type: ignore[arg-type]


def test_candidates_are_read_where_they_are_numbers_and_equal_ones_are_summed() -> None:
    assert summed([("a", -1.0), ("b", -2.0), ("a", -1.0)]) == {"a": pytest.approx(-0.30685282), "b": -2.0}
    body = completion("a", candidates={"a": -1.0, "b": float("-inf"), "c": "no", "d": True, "e": 3.0}).body  # type: ignore[dict-item]
    assert read_completion(body).logprobs == {"a": -1.0}
