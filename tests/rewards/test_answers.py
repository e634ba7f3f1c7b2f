"""Where answers are found."""

from __future__ import annotations

import time

import pytest

from align.rewards.answers import boxed_answer, boxes, final_answer, gold_text, visible_part


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{18}.", "18"),
        ("\\boxed{\\frac{1}{2}} no, \\boxed{\\frac{1}{3}}", "\\frac{1}{3}"),
        ("\\boxed{1} and \\boxed{-2}", "1, -2"),
        ("$\\boxed{2}, \\boxed{3}$", "2, 3"),
        ("\\boxed{7} ... so again \\boxed{7}", "7"),
        ("\\boxed{\\boxed{5}}", "5"),
        ("\\boxed{ \\{1, 2\\} }", "\\{1, 2\\}"),
        ("\\boxed{unclosed \\boxed{4}", "4"),
        ("He sells 9.\n#### 1,234", "1,234"),
        ("She makes it.\nA: 18", "18"),
        ("**Answer:** 42", "42"),
        ("\\boxed{1} Final Answer: The final answer is $28 \\%$. I hope it is correct.", "$28 \\%$"),
        ("So the answer is 3.5. Really.", "3.5"),
        ("The answer is: B", "B"),
        ("<answer> 12 </answer>", "12"),
        ("<answer>it is \\boxed{12}</answer>", "12"),
        ("#### 5\nbut \\boxed{6}", "6"),
        ("The answer is $5$, $6$ or $7$. So $8$ is wrong.", "5, 6, 7"),
        ("The answer is $5$ or $6$ or 7, 8 and 1,000.", "5, 6, 7, 8, 1,000"),
        ("The answer is $5$ and $5.0$.", "$5$"),
        ("The answer is $5$ cm or $5$ m", "$5$"),
        ("The answer is $5$, not $6$.", "$5$"),
        ("The answer is $5$ for $x=1$, $6$ for $x=2$.", "5, 6"),
        ("The answer is $5$ and it took 3 hours.", "$5$"),
        ("The answer is $18 or $19", "$18 or $19"),
        ("The answer is \\(5\\) as \\(2+3=5\\).", "\\(5\\)"),
        ("Therefore, the answer is:\n\n**18**", "18"),
        ("The final answer is:\n$$18$$", "$$18$$"),
        ("The final answer is\n\n\\[\n18\n\\]", "\\[\n18\n\\]"),
        ("The answer is 17. No, the answer is:\n18", "18"),
        ("**Final answer:**\n\n18", "18"),
        ("## Answer\n\n18 eggs", "18 eggs"),
        ("The answer is:\n\n**Step 1:**\nAdd 2 and 3.", None),
        ("Answer:\nJanet sells nine eggs at two dollars.", None),
        ("The answer is:", None),
        ("The answer is:\n \n", None),
        ("There are 12 eggs.", None),
        ("", None),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_only_the_part_after_the_thinking_is_seen() -> None:
    assert visible_part("<think>\\boxed{7}</think> none") == " none"
    assert visible_part("prefilled thinking \\boxed{7}</think>\\boxed{8}") == "\\boxed{8}"
    assert visible_part("no tags") == "no tags"
    assert visible_part("<think>cut off") is None
    assert visible_part("<think>a</think> b <think> c") is None


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("Natalia sold 48/2 = 24 clips.\n#### 72", "72"),
        ("She makes 18.\nA: 18", "18"),
        ("thus $x=\\boxed{\\frac{3}{4}}$", "\\frac{3}{4}"),
        ("\\frac{3}{4}", "\\frac{3}{4}"),
        (18, "18"),
        (2.5, "2.5"),
        ("  Evelyn ", "Evelyn"),
    ],
)
def test_gold_text(gold: object, text: str) -> None:
    assert gold_text(gold) == text


def test_boxes_are_the_outermost_closed_ones() -> None:
    assert [content for _, _, content in boxes("\\boxed{a \\boxed{b}} } \\boxed{c} \\boxed{d")] == ["a \\boxed{b}", "c"]
    begin, end, content = boxes("see \\boxed{x}!")[0]
    assert ("see \\boxed{x}!"[begin:end], content) == ("\\boxed{x}", "x")


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 100_000,
        "\\boxed{" * 100_000 + "5" + "}" * 100_000,
        "{" * 300_000 + "}" * 300_000,
        "<answer>" * 100_000,
        "the answer is " * 100_000,
        "A: " * 300_000,
        "#### " + " " * 1_000_000,
        "\\boxed{1}," * 50_000,
        "answer" * 200_000,
        "final answer is " * 20_000,
        "the answer is\n" * 100_000,
        "the answer is:" + "\n" * 1_000_000,
        "the answer is $5$" + ", 6" * 300_000,
        "the answer is $5$" + " or $6$" * 100_000,
        "the answer is $5$ for " + "$x=1$" * 100_000,
        "the answer is $5$" + "\\(" * 20_000,
    ],
    ids=lambda text: text[:12],
)
def test_time_is_linear_in_the_text(text: str) -> None:
    started = time.process_time()
    final_answer(text)
    boxed_answer(text)
    assert time.process_time() - started < 5
