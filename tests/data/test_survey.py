"""What data looks like: rows as the model sees them, counts, and what is odd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.data.named import named_source
from align.data.survey import show_rows, survey
from align.errors import DataError, RecipeError

Write = Callable[..., Path]


def test_rows_are_shown_as_the_model_sees_them(jsonl: Write, tokenizer: Any) -> None:
    file = str(jsonl([{"question": "17+25", "answer": "42", "id": n} for n in range(5)]))
    shown = show_rows(file, rows=2, tokenizer=tokenizer, prompt_template="Compute {prompt}.", system_prompt="Be brief.")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Compute 17+25."}]
    assert shown.rows[0].text == tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert shown.rows[0].tokens == len(tokenizer(shown.rows[0].text, add_special_tokens=False)["input_ids"])
    assert [(row.place, row.answer) for row in shown.rows] == [(f"{file}:1", "42"), (f"{file}:2", "42")]
    assert dict(shown.mapping) == {"prompt": "question", "answer": "answer"}
    assert shown.columns == ("question", "answer", "id")
    assert show_rows(file, rows=1).rows[0].text == "user: 17+25"


def test_a_row_that_cannot_be_used_is_named(jsonl: Write) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:2: the row cannot be used: prompt is empty"):
        show_rows(str(jsonl([{"prompt": "a"}, {"prompt": " "}])))
    with pytest.raises(DataError, match="would show the model"):
        show_rows(str(jsonl([{"prompt": "a", "answer": "b"}])), prompt_template="{prompt} {answer}")


def test_counts_by_hand(jsonl: Write, tokenizer: Any) -> None:
    rows = [
        {"prompt": "One two three", "answer": "1"},
        {"prompt": "one, two, three!", "answer": None},
        {"prompt": "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440", "answer": "2"},
        {"prompt": "caf\u00c3\u00a9 \ufffd", "answer": "3"},
        {"prompt": "a\u200bb <br> c ", "answer": "\x07"},
        {"prompt": "", "answer": "4"},
    ]
    file = jsonl(rows)
    stats = survey(str(file))
    assert (stats.rows, stats.no_prompt, stats.no_answer, stats.copies) == (6, 1, 1, 1)
    assert stats.lengths == [3, 3, 2, 2, 3, 0]
    assert stats.histogram() == [(1, 1), (4, 5)]
    assert dict(stats.scripts) == {"LATIN": 4, "CYRILLIC": 1, "none": 1}
    odd = {what.split(":")[0].split(" (")[0]: places for what, places in stats.odd.items()}
    assert odd == {
        "replacement characters": [f"{file}:4"],
        "text decoded with the wrong charset": [f"{file}:4"],
        "invisible characters": [f"{file}:5"],
        "control characters": [f"{file}:5"],
        "HTML in the prompt": [f"{file}:5"],
        "spaces around the prompt": [f"{file}:5"],
    }
    assert stats.to_dict()["lengths"]["most"] == 3
    in_tokens = survey(str(file), tokenizer=tokenizer)
    assert in_tokens.lengths[0] == len(tokenizer("One two three", add_special_tokens=False)["input_ids"])


def test_names_of_sources(tmp_path: Path) -> None:
    (tmp_path / "with@sign.jsonl").write_text("{}")
    assert named_source(str(tmp_path / "with@sign.jsonl")).path == str(tmp_path / "with@sign.jsonl")
    hub = named_source("openai/gsm8k:main@test")
    assert (hub.path, hub.name, hub.split) == ("openai/gsm8k", "main", "test")
    assert named_source("openai/gsm8k", split="test").split == "test"
    task = named_source("task:chain_sum@3")
    assert (task.task, task.seed) == ("chain_sum", 3)
    with pytest.raises(RecipeError, match="generated task"):
        named_source("task:chain_sum@x")
