"""The audit tells a sound reward from those that are fooled, fail, or change their mind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.errors import DataError
from align.recipe.schema import RewardSpec
from align.rewards.audit import Audit, audit_file

SOURCE = """
def ends_alike(completions, answer, **kwargs):
    return [float(gold.endswith(text)) for text, gold in zip(completions, answer)]
def named(completions, answer, **kwargs):
    return [float(gold in text) for text, gold in zip(completions, answer)]
said = []
def moody(completions, answer, **kwargs):
    said.append(1)
    return [float(gold == text and len(said) % 2) for text, gold in zip(completions, answer)]
def broken(completions, answer, **kwargs):
    return [1.0 if gold == text else float("nan") if len(text) > 100 else 0.0 for text, gold in zip(completions, answer)]
def stubborn(completions, **kwargs):
    return [0.0] * len(completions)
"""


@pytest.fixture
def audited(tmp_path: Path):
    (tmp_path / "made.py").write_text(SOURCE)
    rows = [{"prompt": f"what is {n} squared?", "answer": str(n * n)} for n in range(11, 31)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(use: str, **how: Any) -> Audit:
        own = use if use in ("exact", "math") else f"{tmp_path / 'made.py'}:{use}"
        return audit_file(RewardSpec(use=own), tmp_path / "rows.jsonl", **how)

    return run


@pytest.mark.parametrize("use", ["exact", "math"])
def test_a_sound_reward_is_found_sound(audited, use):
    audit = audited(use)
    assert audit.sound, [probe for probe in audit.probes if not probe.sound]
    by_name = {probe.name: probe for probe in audit.probes}
    assert by_name["the reference"].statuses == {"pass": 20}
    assert by_name["a million characters"].answers == 6


@pytest.mark.parametrize(
    ("use", "unsound"),
    [
        ("ends_alike", ["an empty answer"]),
        ("named", ["a list of references, the right one among them"]),
        ("moody", ["the reference again"]),
        ("broken", ["hostile strings", "a million characters"]),
        ("stubborn", ["the reference"]),
    ],
)
def test_an_unsound_reward_is_found_out_by_the_probe_made_for_it(audited, use, unsound):
    audit = audited(use)
    assert not audit.sound
    assert set(unsound) <= {probe.name for probe in audit.probes if not probe.sound}


def test_an_example_says_which_answer_fooled_it(audited):
    (probe,) = [probe for probe in audited("named").probes if probe.name.startswith("a list")]
    assert "The answer is " in probe.examples[0]
    assert probe.wrong == 1.0


def test_the_limit_and_the_column_of_the_reference(audited):
    few = audited("exact", limit=4)
    assert {probe.name: probe.answers for probe in few.probes}["the reference"] == 4
    other = audited("exact", reference="prompt", limit=4)
    assert not {probe.name: probe for probe in other.probes}["the reference"].sound


def test_an_answer_that_is_right_for_some_rows_is_no_fault_of_the_reward(tmp_path):
    rows = [{"prompt": f"{n} mod 3?", "answer": f"Divide.\n#### {n % 3}"} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    audit = audit_file(RewardSpec(use="math"), tmp_path / "rows.jsonl")
    (zero,) = [probe for probe in audit.probes if probe.name == "always '0'"]
    assert zero.statuses["pass"] == 10
    assert zero.sound


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(DataError, match="no rows"):
        audit_file(RewardSpec(use="exact"), tmp_path / "none.jsonl")
