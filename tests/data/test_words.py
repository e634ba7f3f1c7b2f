"""Words: what a copy may change without becoming another text, and what makes it another one."""

from __future__ import annotations

import pytest

from align.data.words import normal_words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Tom has 3 apples.", "  tom HAS\n3 apples"),
        ("It costs $1,234.50 today", "it costs 1234.5 today"),
        ("5.00 kg of sugar", "5 kg of sugar"),
        (r"Find $\dfrac{3}{4} \cdot 8$.", "Find 3/4 * 8"),
        (r"\boxed{1{,}000}", "1000"),
        (r"\left( x + y \right)^{2}", "(x + y)^2"),
        ("3 \u00d7 4 \u2212 1", "3*4-1"),
        ("**Bold** words:\n- one\n- two", "Bold words: one, two"),
        ("Janet\u2019s ducks", "Janet's ducks"),
        ("\uff11\uff12 caf\u00e9s", "12 CAFÉS"),
        ("a well-known and/or problem", "a well known and or problem"),
    ],
)
def test_copies_have_the_same_words(one: str, other: str) -> None:
    assert normal_words(one) == normal_words(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 12+5?", "What is 12-5?"),
        ("x + y = 5", "x - y = 5"),
        ("1.5 litres", "15 litres"),
        ("1,234", "1, 234"),
        ("$5 - $3", "$5 + $3"),
        ("2^3", "23"),
        (r"\sin x", r"\cos x"),
    ],
)
def test_other_problems_have_other_words(one: str, other: str) -> None:
    assert normal_words(one) != normal_words(other)


def test_words_by_hand() -> None:
    assert normal_words("He paid $1,234.50 for 3-4 items: x - y.") == [
        "he",
        "paid",
        "1234.5",
        "for",
        "3",
        "-",
        "4",
        "items",
        "x",
        "-",
        "y",
    ]
    assert normal_words("\u4f60\u597d world") == ["\u4f60", "\u597d", "world"]
    assert normal_words(" \n$$ ") == []


def test_ascii_and_other_texts_are_cut_alike() -> None:
    """Two patterns, one meaning: a letter that is not ASCII elsewhere in the text changes nothing."""
    texts = ["x + y = 5 and 3-4", "a2b c_d 7.50", "and/or e-mail -3 (a) * b", "1,000,000 ... ok"]
    for text in texts:
        assert normal_words(f"{text} \u00e9") == [*normal_words(text), "\u00e9"]
