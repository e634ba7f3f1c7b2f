"""Demonstrations: which tokens are trained on, under templates of the main families."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.data.demonstrations import DemonstrationSet, LossOn, load_demonstrations
from align.data.prompts import load_prompts
from align.data.sources import read_all
from align.errors import DataError
from align.recipe.schema import Source
from align.types import Demonstration

Jsonl = Callable[..., Path]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} <|im_end|>{% endif %}{% endfor %}"
)
# drops the thinking of earlier turns and opens an empty thinking block in the last one, as Qwen3 does
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}"
    "{% if '</think>' not in m.content %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
    "{% elif m.role == 'assistant' %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# opens a thinking block for generation that is not in the finished conversation, as DeepSeek-R1 does
OPEN_THINKING = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
# marks no end of a turn and no header
BARE = "{% for m in messages %}{{ m.role[0] | upper }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}A: {% endif %}"

TURNS = [
    ("system", "S"),
    ("user", "one?"),
    ("assistant", "<think>t</think>1"),
    ("user", "two?"),
    ("assistant", "<think>u</think>2"),
]
MESSAGES = [{"role": role, "content": content} for role, content in TURNS]


def load(tokenizer: Any, path: Path, *, loss_on: LossOn = "assistant", max_length: int = 500, **source: Any) -> DemonstrationSet:
    rowsets = read_all([Source(path=str(path), **source)], need="demonstration")
    return load_demonstrations(rowsets, tokenizer, loss_on=loss_on, max_length=max_length)


def trained(tokenizer: Any, demonstration: Demonstration) -> list[str]:
    """The texts of the runs of trained tokens."""
    runs: list[list[int]] = []
    previous = False
    for token, mask in zip(demonstration.token_ids, demonstration.loss_mask, strict=True):
        if mask and not previous:
            runs.append([])
        if mask:
            runs[-1].append(token)
        previous = mask
    return [tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, ["<think>t</think>1<|im_end|>", "<think>u</think>2<|im_end|>"]),  # the tokenizer's own, with generation marks
        (CHATML, ["<think>t</think>1<|im_end|>", "<think>u</think>2<|im_end|>"]),
        (LLAMA2, [" <think>t</think>1 <|im_end|>", " <think>u</think>2 <|im_end|>"]),
        (THINKING, ["1<|im_end|>", "<think>u</think>2<|im_end|>"]),
        (BARE, ["<think>t</think>1\n", "<think>u</think>2\n"]),
    ],
)
def test_assistant_turns_with_their_ends(tokenizer: Any, jsonl: Jsonl, template: str | None, expected: list[str]) -> None:
    tokenizer.chat_template = template or tokenizer.chat_template
    path = jsonl([{"messages": MESSAGES}])
    (found,) = load(tokenizer, path).demonstrations
    assert trained(tokenizer, found) == expected
    (last,) = load(tokenizer, path, loss_on="completion").demonstrations
    assert trained(tokenizer, last) == expected[-1:]
    (everything,) = load(tokenizer, path, loss_on="all").demonstrations
    assert all(everything.loss_mask)
    assert everything.token_ids == found.token_ids == last.token_ids


def test_agrees_with_a_template_that_marks_generations(tokenizer: Any, jsonl: Jsonl) -> None:
    (found,) = load(tokenizer, jsonl([{"messages": MESSAGES}])).demonstrations
    marked = tokenizer.apply_chat_template(MESSAGES, return_dict=True, return_assistant_tokens_mask=True)
    length = len(found.token_ids)
    assert list(found.token_ids) == marked["input_ids"][:length]
    assert list(map(int, found.loss_mask)) == marked["assistant_masks"][:length]
    assert tokenizer.decode(marked["input_ids"][length:]) == "\n"  # nothing after the last end mark is kept


def test_an_empty_thinking_block_is_trained_where_the_model_has_to_write_it(tokenizer: Any, jsonl: Jsonl) -> None:
    tokenizer.chat_template = THINKING
    (found,) = load(tokenizer, jsonl([{"prompt": "1+1", "completion": "2"}])).demonstrations
    assert trained(tokenizer, found) == ["<think>\n\n</think>\n\n2<|im_end|>"]


def test_a_thinking_block_opened_for_generation_only(tokenizer: Any, jsonl: Jsonl) -> None:
    tokenizer.chat_template = OPEN_THINKING
    (found,) = load(tokenizer, jsonl([{"prompt": "1+1", "completion": "2"}])).demonstrations
    assert trained(tokenizer, found) == ["2<|im_end|>"]


def test_a_template_that_rewrites_the_past_is_refused(tokenizer: Any, jsonl: Jsonl) -> None:
    tokenizer.chat_template = "{{ messages | length }}" + CHATML
    path = jsonl([{"prompt": "1+1", "completion": "2"}])
    with pytest.raises(DataError, match=r"rewrites what stands before messages\[1\]") as caught:
        load(tokenizer, path)
    assert caught.value.place == f"{path}:1"


@pytest.mark.parametrize("template", [CHATML, LLAMA2, BARE, None])
@pytest.mark.parametrize("prompt", ["1+1", "ends with a space ", "What is the capital", "\u00e9\u4e2d\U0001f600"])
def test_what_comes_before_the_answer_is_what_will_be_generated_from(
    tokenizer: Any, jsonl: Jsonl, template: str | None, prompt: str
) -> None:
    """To the token: also where a token of the whole text would reach over the border between prompt and answer."""
    tokenizer.chat_template = template
    path = jsonl([{"prompt": prompt, "completion": " of France? Paris"}])
    (found,) = load(tokenizer, path, system_prompt="Short.").demonstrations
    (asked,) = load_prompts(read_all([Source(path=str(path), system_prompt="Short.")]), tokenizer, max_prompt_length=500).prompts
    length = len(asked.token_ids)
    assert found.token_ids[:length] == asked.token_ids
    assert found.loss_mask == (False,) * length + (True,) * (len(found.loss_mask) - length)
    assert " of France? Paris" in tokenizer.decode(found.token_ids[length:])


def test_a_token_over_the_border_is_cut(tokenizer: Any, jsonl: Jsonl) -> None:
    """The tokenizer knows ` capital` as one token; the prompt ends after its first letters."""
    tokenizer.chat_template = None
    assert len(tokenizer(" capital")["input_ids"]) == 1
    (found,) = load(tokenizer, jsonl([{"prompt": "What is the cap", "completion": "ital"}])).demonstrations
    assert trained(tokenizer, found) == ["ital<|im_end|>"]


def test_prompt_and_completion_as_messages(tokenizer: Any, jsonl: Jsonl) -> None:
    rows = [
        {"prompt": MESSAGES[:2], "completion": [{"role": "assistant", "content": "1"}]},
        {"prompt": MESSAGES[:4], "completion": "2"},
    ]
    first, second = load(tokenizer, jsonl(rows)).demonstrations
    assert trained(tokenizer, first) == ["1<|im_end|>"]
    assert trained(tokenizer, second) == ["<think>t</think>1<|im_end|>", "2<|im_end|>"]


def test_turns_after_the_last_answer_are_left_off(tokenizer: Any, jsonl: Jsonl) -> None:
    (found,) = load(tokenizer, jsonl([{"messages": MESSAGES[:4]}])).demonstrations
    assert tokenizer.decode(found.token_ids).endswith("<think>t</think>1<|im_end|>")


def test_long_demonstrations_are_dropped_and_counted(tokenizer: Any, jsonl: Jsonl) -> None:
    path = jsonl([{"prompt": "1", "completion": "1" * count} for count in (1, 80, 1)])
    length = len(load(tokenizer, path).demonstrations[0].token_ids)
    loaded = load(tokenizer, path, max_length=length)
    assert [item.id for item in loaded.demonstrations] == ["rows:0", "rows:2"]
    assert loaded.dropped_long == {"rows": 1}
    kept = len(loaded.demonstrations)
    assert list(loaded.remarks()) == [f"rows: 1 of {kept + 1} rows are above the length limit and left out"]
    with pytest.raises(DataError, match=f"shortest has {length} tokens"):
        load(tokenizer, path, max_length=length - 1)


def test_a_task_as_demonstrations(tokenizer: Any) -> None:
    rowsets = read_all([Source(task="chain_sum", size=20, params={"error_rate": 0.5})], need="demonstration")
    loaded = load_demonstrations(rowsets, tokenizer, loss_on="assistant", max_length=200)
    for row, found in zip(rowsets[0].rows, loaded.demonstrations, strict=True):
        assert trained(tokenizer, found) == [row.columns["completion"] + "<|im_end|>"]
