"""The benchmarks run as their page says, on fewer steps."""

import re
import shlex
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_grpo_vs_trl_reports_ratios(checkout, tmp_path):
    (command,) = re.findall(r"^(python benchmarks/\S+) ", (checkout / "benchmarks" / "README.md").read_text(), flags=re.M)
    words = [*shlex.split(command)[1:], "--steps", "2", "--rounds", "1", "--folder", str(tmp_path)]
    done = subprocess.run([sys.executable, *words], cwd=checkout, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"samples per second, align / trl: [\d.]+x", done.stdout)
