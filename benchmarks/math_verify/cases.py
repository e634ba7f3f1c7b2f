"""Labelled answers: pairs of a reference and an answer, and graded model solutions."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

FILES = ("gsm8k_model_solutions.jsonl.gz", "tricky_triples.dev.jsonl", "mathverify_triples.dev.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    gold: str
    text: str
    correct: bool


def read(path: Path, rows: int | None = None) -> list[Case]:
    """The cases of the first rows; those whose label is a matter of policy (null) are left out."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [case for line in islice(lines, rows) for case in _cases(json.loads(line))]


def _cases(row: dict) -> Iterator[Case]:
    if "ground_truth" in row:
        gold = row["ground_truth"].rpartition("A: ")[2]  # math-verify finds no answer behind "A:" by itself
        for solution in (one for one in row.values() if isinstance(one, dict)):
            yield Case(gold=gold, text=solution["solution"], correct=solution["is_correct"])
        return
    label = row["semantic_expected"] if "semantic_expected" in row else row["expected"]
    if label is not None:
        yield Case(gold=row["gold"], text=row.get("response", row["answer"]), correct=label)
