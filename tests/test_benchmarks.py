"""The benchmarks run as their page says, on fewer steps."""

import importlib.util
import re
import shlex
import subprocess
import sys

import pytest

from align.algorithms.names import METHOD_NAMES


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_grpo_vs_trl_reports_ratios(checkout, tmp_path):
    (command,) = re.findall(r"^(python benchmarks/grpo_vs_trl) ", (checkout / "benchmarks" / "README.md").read_text(), flags=re.M)
    words = [*shlex.split(command)[1:], "--steps", "2", "--rounds", "1", "--folder", str(tmp_path)]
    done = subprocess.run([sys.executable, *words], cwd=checkout, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"samples per second, align / trl: [\d.]+x", done.stdout)


@pytest.mark.slow
def test_learning_reports_a_row_for_each_method_it_is_asked_for(checkout):
    page = (checkout / "benchmarks" / "README.md").read_text()
    (command,) = re.findall(r"^(python benchmarks/learning) ", page, flags=re.M)
    words = [*shlex.split(command)[1:], "--seeds", "2", "--methods", "dapo", "rebel", "--preferences", "inpo"]
    done = subprocess.run([sys.executable, *words], cwd=checkout, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = re.findall(r"^\| `(\S+)` \| [\d.]+ \(\d+ to \d+\) \| [\d.]+ \(\d+ to \d+\) \|$", done.stdout, flags=re.M)
    assert rows == ["dapo", "rebel", "inpo"]
    preferences = {"online_dpo", "iterative_dpo", "rebel", "dno", "inpo", "xpo"}
    assert set(re.findall(r"^\| `(\S+)` \| \d", page, flags=re.M)) >= {*METHOD_NAMES, *preferences}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_overoptimization_ends_with_a_table_and_a_plot(checkout, tmp_path):
    page = (checkout / "benchmarks" / "README.md").read_text()
    (command,) = re.findall(r"^(python benchmarks/overoptimization) ", page, flags=re.M)
    words = [*shlex.split(command)[1:], "--steps", "12", "--folder", str(tmp_path)]
    done = subprocess.run([sys.executable, *words], cwd=checkout, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.findall(r"^\| ([\w ]+) \| -?[\d.]+ to -?[\d.]+ \|", done.stdout, flags=re.M) == [
        "long leash",
        "KL target",
        "three judges",
    ]
    accuracies = [float(one) for one in re.findall(r"accuracy of a judge: ([\d.]+)", done.stdout)]
    assert len(accuracies) == 3
    assert min(accuracies) > 0.58
    (header,) = re.findall(r"^\| run \|.*$", done.stdout, flags=re.M)
    assert f"\n{header}\n" in page  # the table there is one that was printed
    assert (tmp_path / "overoptimization.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.slow
def test_sandbox_reports_a_line_for_each_layer_and_no_leak(checkout):
    (command,) = re.findall(r"^(python benchmarks/sandbox) ", (checkout / "benchmarks" / "README.md").read_text(), flags=re.M)
    words = [*shlex.split(command)[1:], "--runs", "200", "--layers", "namespaces"]
    done = subprocess.run([sys.executable, *words], cwd=checkout, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"^namespaces +median +[\d.]+ ms, 99th percentile +[\d.]+ ms", done.stdout, flags=re.M)
    for name in ("host files", "zygote files", "processes", "mounts"):
        (pair,) = re.findall(rf"{name} (\d+) -> (\d+)", done.stdout)
        assert pair[0] == pair[1], done.stdout


@pytest.mark.slow
def test_math_verify_reports_a_row_for_each_file_and_judge(checkout, shared_data):
    (command,) = re.findall(r"^(python benchmarks/math_verify) ", (checkout / "benchmarks" / "README.md").read_text(), flags=re.M)
    words = [*shlex.split(command)[1:], "--data", str(shared_data), "--rows", "60"]
    done = subprocess.run([sys.executable, *words], cwd=checkout, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = re.findall(r"^\| (\w+) \| (align|math-verify) \| \d+ \| ([\d.]+)% \| \d+ \| \d+ \| \d+ \|$", done.stdout, flags=re.M)
    assert [row[1] for row in rows] == ["align", "math-verify"] * 3
    assert len({row[0] for row in rows}) == 3
    assert all(float(accuracy) > 94 for _, judge, accuracy in rows if judge == "align")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_rollouts_reports_a_row_for_each_size(checkout):
    page = (checkout / "benchmarks" / "README.md").read_text()
    (command,) = re.findall(r"^(python benchmarks/rollouts) ", page, flags=re.M)
    words = [*shlex.split(command)[1:], "--rounds", "1", "--prompts", "4", "--samples", "4", "--tokens", "16", "--sizes", "0.4 M"]
    done = subprocess.run([sys.executable, *words], cwd=checkout, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    speed = r"[\d,]+ \([\d.]+x\)"
    assert re.search(rf"^\| 0.4 M \| [\d,]+ tokens/s \| {speed} \| {speed} \| \d+ ms, [\d.]+ MiB \|$", done.stdout, flags=re.M)
    (header,) = re.findall(r"^\| model \|.*$", done.stdout, flags=re.M)
    assert f"\n{header}\n" in page


@pytest.mark.slow
def test_modes_reports_every_mode_beside_its_ideal(checkout):
    (command,) = re.findall(r"^(python benchmarks/modes) ", (checkout / "benchmarks" / "README.md").read_text(), flags=re.M)
    words = [*shlex.split(command)[1:], "--steps", "12", "--staleness", "4"]
    done = subprocess.run([sys.executable, *words], cwd=checkout, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = re.findall(r"^\| [\d.]+ of .* \| [\d.]+ s \| ([\w, ]+) \| [\d.]+ s \| ([\d.]+)x \|", done.stdout, flags=re.M)
    assert [mode for mode, _ in rows] == ["sync", "overlap", "async, at most 4"] * 3
    assert all(float(over) < float(sync) for (_, sync), _, (_, over) in zip(rows[::3], rows[1::3], rows[2::3], strict=True))


@pytest.mark.slow
def test_driver_reports_what_a_step_costs_the_first_rank(checkout):
    (command,) = re.findall(r"^(python benchmarks/driver) ", (checkout / "benchmarks" / "README.md").read_text(), flags=re.M)
    words = [*shlex.split(command)[1:], "--samples", "400", "--engines", "1", "50", "--tokens", "32"]
    done = subprocess.run([sys.executable, *words], cwd=checkout, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(re.findall(r"^\| 400 \| \d+ \|.* \d+\.\d\d s \|$", done.stdout, flags=re.M)) == 2


@pytest.mark.slow
def test_data_tools_find_verbatim_copies_and_time_every_tool(checkout, shared_data):
    math = shared_data / "math"
    files = ["--train", str(math / "gsm8k_train.jsonl.gz"), "--against", str(math / "gsm8k_test.jsonl")]
    words = [sys.executable, "benchmarks/data_tools", *files, "--rows", "2000"]
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"^\| verbatim \| 100.0% \| 100.0% \| 100.0% \|$", done.stdout, flags=re.M)
    assert re.findall(r"^\| (decontaminate|duplicates, \w+) \| [\d,]+ \| \d+ \| \d+ \| \d+ \|$", done.stdout, flags=re.M) == [
        "decontaminate",
        "duplicates, exact",
        "duplicates, near",
    ]


@pytest.mark.slow
def test_curricula_are_compared(checkout):
    words = [sys.executable, "benchmarks/learning", "--curricula", "4", "--seeds", "1"]
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    names = re.findall(r"^\| `([\w \[\].,]+)` \| 0\.\d+ ", done.stdout, flags=re.M)
    assert names == ["shuffled", "band [0.1, 0.9]", "easy_to_hard", "hard_to_easy", "middle"]
