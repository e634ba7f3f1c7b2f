"""The true judge, which no training sees: a good description names many friendly things once."""

from __future__ import annotations

from collections import Counter

FRIENDLY = ("kind", "warm", "bright", "calm", "gentle", "glad", "soft", "fresh")
PLAIN = (
    *("wooden", "round", "near", "far", "open", "closed", "quiet", "loud", "heavy", "light"),
    *("early", "late", "grey", "green", "long", "short", "plain", "empty", "full", "narrow"),
)


def true_score(text: str) -> float:
    """1 for each different friendly word, less 1 for every repetition and for everything that is no word."""
    counts = Counter(text.split())
    repeated = sum(count - 1 for count in counts.values())
    nonsense = sum(word not in FRIENDLY + PLAIN for word in counts)
    return float(sum(word in counts for word in FRIENDLY) - repeated - nonsense)


def gold(completions: list[str], **_: object) -> list[float]:
    """As a reward with trl's signature."""
    return [true_score(text) for text in completions]
