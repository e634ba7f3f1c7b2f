"""Prompts with a demonstration: the tokens that the policy would have had to write."""

from __future__ import annotations

import pytest

from align.data.cursor import Cursor
from align.data.demonstrated_prompts import load_demonstrated_prompts
from align.data.sources import read_all
from align.errors import DataError
from align.recipe.schema import Source
from tests.data.test_demonstrations import CHATML, LLAMA2, OPEN_THINKING, THINKING

ROWS = [
    {"prompt": "1+1", "completion": "1+1=2 so 2", "answer": "2"},
    {"prompt": "1+2", "completion": "so 3", "answer": "3"},
]


def load(path, tokenizer, *, longest=50, **options):
    rowsets = read_all([Source(path=str(path))], need="demonstration")
    return load_demonstrated_prompts(rowsets, tokenizer, max_prompt_length=60, max_completion_length=longest, **options)


@pytest.mark.parametrize(
    ("template", "end"), [(CHATML, "<|im_end|>"), (LLAMA2, " <|im_end|>"), (THINKING, "<|im_end|>"), (None, "<|im_end|>")]
)
def test_prompt_and_demonstration_are_the_conversation(jsonl, tokenizer, template, end):
    tokenizer.chat_template = template
    first, second = load(jsonl(ROWS), tokenizer).prompts
    start = {LLAMA2: " ", THINKING: "<think>\n\n</think>\n\n"}.get(template, "")
    assert tokenizer.decode(first.demonstration) == f"{start}1+1=2 so 2{end}"
    assert tokenizer.decode(second.demonstration) == f"{start}so 3{end}"
    assert (first.answer, first.columns["prompt"]) == ("2", "1+1")


def test_conversations_give_their_last_turn(jsonl, tokenizer):
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    (prompt,) = load(jsonl([row]), tokenizer).prompts
    assert [message["content"] for message in prompt.messages] == ["a", "b", "c"]
    assert tokenizer.decode(prompt.demonstration) == "d<|im_end|>"


def test_demonstrations_that_are_too_long_are_left_out_and_counted(jsonl, tokenizer):
    shown = load(jsonl(ROWS), tokenizer, longest=5)
    assert [prompt.columns["prompt"] for prompt in shown.prompts] == ["1+2"]
    assert shown.dropped_long == {"rows": 1}
    with pytest.raises(DataError, match=r"at most rollout\.max_completion_length = 2"):
        load(jsonl(ROWS), tokenizer, longest=2)


def test_demonstrations_that_do_not_go_on_from_the_prompt_are_bad_rows(jsonl, tokenizer):
    """The template opens the answer to the second prompt with a thinking block that its conversation does not have."""
    tokenizer.chat_template = OPEN_THINKING.replace("<think>\n", "{% if '2' in messages[0].content %}<think>\n{% endif %}")
    with pytest.raises(DataError, match="only 1 of 2 rows can be used"):
        load(jsonl(ROWS), tokenizer)
    shown = load(jsonl(ROWS), tokenizer, max_bad_rows=1)
    assert [prompt.columns["prompt"] for prompt in shown.prompts] == ["1+1"]
    ((place, why),) = shown.bad
    assert place.endswith("rows.jsonl:2")
    assert "opens the answer to a prompt otherwise" in why
    tokenizer.chat_template = OPEN_THINKING
    with pytest.raises(DataError, match="only 0 of 2 rows can be used"):
        load(jsonl(ROWS), tokenizer, max_bad_rows=2)


def test_rows_without_a_completion_are_refused(jsonl, tokenizer):
    with pytest.raises(DataError, match="completion"):
        load(jsonl([{"prompt": "1+1", "answer": "2"}]), tokenizer)


def test_a_cursor_notices_other_demonstrations(jsonl, tokenizer):
    changed = [ROWS[0], ROWS[1] | {"completion": "so 4"}]
    states = [
        Cursor(load(jsonl(rows), tokenizer).by_source, [1.0], seed=0).state_dict()["contents"] for rows in (ROWS, ROWS, changed)
    ]
    assert states[0] == states[1] != states[2]
