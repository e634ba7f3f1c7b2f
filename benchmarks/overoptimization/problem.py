"""Descriptions of things: demonstrations to imitate, and pairs of them that raters compared with some noise."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

from gold import FRIENDLY, PLAIN, true_score

THINGS = [
    f"{colour} {thing}" for colour in ("old", "red", "tall", "small") for thing in ("house", "river", "garden", "train", "coat")
]


def description(draw: random.Random) -> str:
    """Four to nine words, about a third of them friendly. Demonstrators seldom repeat themselves."""
    words: list[str] = []
    for _ in range(draw.randint(4, 9)):
        if words and draw.random() < 0.03:
            words.append(draw.choice(words))
        else:
            words.append(draw.choice(FRIENDLY if draw.random() < 0.33 else PLAIN))
    return " ".join(dict.fromkeys(words) if draw.random() < 0.9 else words)


def write_data(folder: Path, *, demonstrations: int = 2000, pairs: int = 600, held_out: int = 600) -> None:
    """demonstrations.jsonl, pairs.jsonl, held_out.jsonl and prompts.jsonl, always the same."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    shown = [{"prompt": _prompt(draw), "completion": description(draw)} for _ in range(demonstrations)]
    _write(folder / "demonstrations.jsonl", shown)
    for name, count in (("pairs", pairs), ("held_out", held_out)):
        _write(folder / f"{name}.jsonl", list(_pairs(draw, count)))
    _write(folder / "prompts.jsonl", [{"prompt": f"Describe the {thing}."} for thing in THINGS])


def _pairs(draw: random.Random, count: int) -> Iterator[dict[str, str]]:
    """Raters choose as Bradley and Terry have it, by the true score."""
    while count:
        first, second = description(draw), description(draw)
        if first == second:
            continue
        likely = 1 / (1 + math.exp(true_score(second) - true_score(first)))
        chosen, rejected = (first, second) if draw.random() < likely else (second, first)
        yield {"prompt": _prompt(draw), "chosen": chosen, "rejected": rejected}
        count -= 1


def _prompt(draw: random.Random) -> str:
    return f"Describe the {draw.choice(THINGS)}."


def _write(file: Path, rows: list[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
