"""The quickstart really learns, through the recipes that users run."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_quickstart_learns(tmp_path, seed):
    for recipe in ("quickstart/sft", "quickstart/grpo"):
        command = [sys.executable, "-m", "align.cli", "train", recipe, f"seed={seed}"]
        subprocess.run(command, cwd=tmp_path, env=dict(os.environ), check=True, timeout=900)
    summary = json.loads((tmp_path / "runs" / "quickstart" / "grpo" / "summary.json").read_text())
    before, after = summary["pass_at_k"]["before"]["1"], summary["pass_at_k"]["after"]["1"]
    assert before["value"] < 0.5
    assert after["value"] > 0.85
    assert before["high"] < after["low"]
