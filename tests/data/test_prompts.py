"""Prompts: templates, exactly one BOS, the length filter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.data.chat import Chat
from align.data.prompts import PromptSet, load_prompts
from align.data.sources import read_all
from align.errors import DataError
from align.recipe.schema import Source

Jsonl = Callable[..., Path]


def load(tokenizer: Any, *sources: Source, max_prompt_length: int = 500, **options: Any) -> PromptSet:
    return load_prompts(read_all(sources), tokenizer, max_prompt_length=max_prompt_length, **options)


def test_a_string_is_a_turn_of_the_user(tokenizer: Any, jsonl: Jsonl) -> None:
    path = jsonl([{"question": "1+1", "answer": "It is\n#### 2", "level": 3}])
    (prompt,) = load(tokenizer, Source(path=str(path))).prompts
    assert tokenizer.decode(prompt.token_ids) == "<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.messages == ({"role": "user", "content": "1+1"},)
    assert (prompt.id, prompt.source, prompt.answer) == ("rows:0", "rows", "2")
    assert prompt.columns["level"] == 3
    assert prompt.columns["answer"] == "It is\n#### 2"  # rewards get the row as it is


def test_system_prompt_and_template(tokenizer: Any, jsonl: Jsonl) -> None:
    source = Source(
        path=str(jsonl([{"prompt": "1+1", "unit": "cm"}])),
        system_prompt="Be brief.",
        prompt_template="{prompt} in {unit}? \\boxed{}",
    )
    (prompt,) = load(tokenizer, source).prompts
    assert prompt.messages == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1 in cm? \\boxed{}"})


def test_messages_keep_their_own_system_prompt(tokenizer: Any, jsonl: Jsonl) -> None:
    turns = [("system", "Own."), ("user", "a"), ("assistant", "b"), ("user", "c")]
    messages = [{"role": role, "content": content} for role, content in turns]
    source = Source(path=str(jsonl([{"prompt": messages}])), system_prompt="Be brief.", prompt_template="<{prompt}>")
    (prompt,) = load(tokenizer, source).prompts
    assert [(turn["role"], turn["content"]) for turn in prompt.messages] == [*turns[:3], ("user", "<c>")]
    assert prompt.columns["prompt"] == messages  # the row itself is not changed


def test_long_prompts_are_dropped_and_counted(tokenizer: Any, jsonl: Jsonl) -> None:
    source = Source(path=str(jsonl([{"prompt": "1"}, {"prompt": "1" * 60}, {"prompt": "2"}])))
    length = len(load(tokenizer, source).prompts[0].token_ids)
    loaded = load(tokenizer, source, max_prompt_length=length)
    assert [prompt.id for prompt in loaded.prompts] == ["rows:0", "rows:2"]
    assert loaded.dropped_long == {"rows": 1}
    with pytest.raises(DataError, match=f"shortest has {length} tokens"):
        load(tokenizer, source, max_prompt_length=length - 1)


def test_sources_and_weights_stay_apart(tokenizer: Any, jsonl: Jsonl) -> None:
    loaded = load(tokenizer, Source(path=str(jsonl([{"prompt": "1"}])), weight=3.0), Source(task="chain_sum", size=4))
    assert [len(prompts) for prompts in loaded.by_source] == [1, 4]
    assert loaded.weights == [3.0, 1.0]
    assert {prompt.source for prompt in loaded.by_source[1]} == {"chain_sum"}


def test_rows_that_the_template_refuses_are_bad_rows(tokenizer: Any, jsonl: Jsonl) -> None:
    refusal = "{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    tokenizer.chat_template = "{% for m in messages %}" + refusal + "{{ m.content }}{% endfor %}"
    path = jsonl([{"prompt": [{"role": "tool", "content": "x"}]}, {"prompt": "fine"}])
    with pytest.raises(DataError, match="no tools here") as caught:
        load(tokenizer, Source(path=str(path)))
    assert caught.value.place == f"{path}:1"
    loaded = load(tokenizer, Source(path=str(path)), max_bad_rows=1)
    assert len(loaded.prompts) == len(loaded.bad) == 1


def test_without_a_template_the_text_is_plain(tokenizer: Any, jsonl: Jsonl) -> None:
    tokenizer.chat_template = None
    loaded = load(tokenizer, Source(path=str(jsonl([{"prompt": "1+1="}])), system_prompt="Add."))
    assert tokenizer.decode(loaded.prompts[0].token_ids) == "Add.\n\n1+1="
    assert "no chat template" in loaded.notes[0]


def test_remarks_say_what_was_left_out(tokenizer: Any, jsonl: Jsonl) -> None:
    path = jsonl([{"prompt": "1"}, {"prompt": "1" * 60}, {"prompt": 3}])
    assert list(load(tokenizer, Source(task="chain_sum", size=4)).remarks()) == []
    loaded = load_prompts(read_all([Source(path=str(path))], max_bad_rows=1), tokenizer, max_prompt_length=40, max_bad_rows=1)
    long, unusable = loaded.remarks()
    assert long == "rows: 1 of 2 rows are above the length limit and left out"
    assert unusable.startswith(f"1 unusable rows are left out, the first: {path}:3: ")
    tokenizer.chat_template = None
    assert "no chat template" in next(iter(load(tokenizer, Source(task="chain_sum", size=4)).remarks()))


class WithBos:
    """A tokenizer that puts a BOS token first, as Llama's does."""

    bos_token_id = 1
    eos_token = None

    def __init__(self, chat_template: str | None, adds_bos: bool = True) -> None:
        self.chat_template, self._adds_bos = chat_template, adds_bos

    def __call__(self, texts: Any, add_special_tokens: bool = True) -> dict[str, Any]:
        def ids(text: str) -> list[int]:
            first = [1] if add_special_tokens and self._adds_bos else []
            return first + [1 if character == "^" else ord(character) for character in text]

        return {"input_ids": ids(texts) if isinstance(texts, str) else [ids(text) for text in texts]}

    def apply_chat_template(self, messages: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool) -> str:
        assert self.chat_template is not None
        return self.chat_template.replace("x", messages[0]["content"])


@pytest.mark.parametrize("template", [None, "x", "^x", "^^x"])
def test_exactly_one_bos(template: str | None) -> None:
    chat = Chat(WithBos(template))
    text = chat.text([{"role": "user", "content": "hi"}], generation_prompt=True)
    assert chat.encode([text]) == [[1, ord("h"), ord("i")]]


def test_a_tokenizer_that_adds_no_bos_gets_none() -> None:
    assert Chat(WithBos("x", adds_bos=False)).encode(["hi"]) == [[ord("h"), ord("i")]]
