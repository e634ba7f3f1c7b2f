"""The math reward: right and wrong answers, hostile ones, and references that cannot be used."""

from __future__ import annotations

import gzip
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from align.rewards.verdict import Verdict
from align.rewards.worker import LENGTH
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]

PAIRS = [
    ("18", "The answer is 18.", "pass"),
    ("18", "She makes 18 dollars every day.", "pass"),
    ("18", "The answer is that Janet makes $18 every day.", "pass"),
    ("18", "The answer is that it is not 18 at all", "fail"),
    ("2ab", "2ab", "pass"),
    ("2", "2ab", "fail"),
    ("2", "2m", "fail"),
    ("\\sqrt{3}", "\\boxed{\\sqrt{3}\\text{ cm}}", "pass"),
    ("\\sqrt{3}\\text{ m}", "\\boxed{\\sqrt{3}\\text{ cm}}", "fail"),
    ("2", "1 and 2", "fail"),
    ("18", "so 16 - 3 = 13, hence 26", "fail"),
    ("18", "", "unparsable"),
    ("18", "I do not know.", "unparsable"),
    ("18", "<think>It must be \\boxed{18}.</think> I do not know.", "unparsable"),
    ("18", "<think>It must be \\boxed{17}.</think> \\boxed{18}", "pass"),
    ("18", "<think>\\boxed{18}", "unparsable"),
    ("18", "\\boxed{17} or rather \\boxed{18}", "pass"),
    ("5", "\\boxed{5\\ (or\\ 6)}", "unparsable"),
    ("7", "\\boxed{7.0000001}", "fail"),
    ("\\frac{1}{2^{99}}", "\\boxed{\\frac{1}{2^{98}}}", "fail"),
    ("\\frac{1}{2^{99}}", "\\boxed{2^{-99}}", "pass"),
    ("(x+1)^2", "\\boxed{x^2+2x+1}", "pass"),
    ("2x", "\\boxed{x}", "fail"),
    ("\\frac{\\sqrt{2}}{2}", "$\\frac{1}{\\sqrt{2}}$", "pass"),
    ("x\\in(-\\infty,3]", "\\boxed{x\\le 3}", "pass"),
    ("x>5", "\\boxed{x\\ge 5}", "fail"),
    ("(1,2)", "\\boxed{(2,1)}", "fail"),
    ("\\{1,2\\}", "\\boxed{1} and \\boxed{2}", "pass"),
    ("1", "\\boxed{1,2}", "fail"),
    ("[0,1)", "\\boxed{[0,1]}", "fail"),
    ("1 - \\frac{1}{e}", "\\boxed{1 + \\frac{1}{\\mathrm{e}}}", "fail"),
    ("1 - \\frac{1}{e}", "\\boxed{1 - \\frac{1}{\\mathrm{e}}}", "pass"),
    ("\\text{Evelyn}", "\\boxed{evelyn}", "pass"),
    ("\\text{Evelyn}", "\\boxed{\\text{Briana}}", "fail"),
    ("B", "\\boxed{\\textbf{(B)}}", "pass"),
    ("B", "\\boxed{A}", "fail"),
    ("5", "\\boxed{\\infty}", "fail"),
    ("5", "\\boxed{1e999}", "fail"),
    # a sentence that hedges
    ("5", "The answer is $5$, $6$, $7$, $8$", "fail"),
    ("5", "The answer is $5$ or $6$", "fail"),
    ("5", "The answer is **$5$**, or maybe **$6$**.", "fail"),
    ("5", "The answer is $5$ or 6.", "fail"),
    ("5", "Answer: \\(5\\), \\(6\\)", "fail"),
    ("5", "The answer is:\n\n$5$, $6$", "fail"),
    ("18", "the answer is $18 or $19", "unparsable"),
    ("\\{5,6\\}", "The answer is $5$ and $6$.", "pass"),
    ("(5,6)", "The answer is $5$, $6$", "pass"),
    ("\\frac{1}{2}", "The answer is $\\frac12$, or $0.5$.", "pass"),
    ("5", "The answer is $5$ because $a=2$, $b=3$ and $a+b=5$.", "pass"),
    ("5", "The answer is $5$. Check: $2+3$", "pass"),
    # bases
    ("1011_2", "\\boxed{1011_3}", "fail"),
    ("1011_2", "\\boxed{1011}", "fail"),
    ("1011", "\\boxed{1011_2}", "fail"),
    ("1011_2", "\\boxed{1011_{2}}", "pass"),
    ("1011_2", "\\boxed{1011_{\\text{two}}}", "pass"),
    ("1011_2", "\\boxed{1101_2}", "fail"),
    ("(1011_2, 1)", "\\boxed{(1011_3, 1)}", "fail"),
    ("10", "\\boxed{10_{10}}", "pass"),
    ("2a_{12}", "\\boxed{a_{12}+a_{12}}", "pass"),
    # the answer on the next line
    ("18", "Therefore, the answer is:\n\n**18**", "pass"),
    ("17", "Therefore, the answer is:\n\n**18**", "fail"),
    ("18", "The final answer is:\n$$18$$", "pass"),
    ("18", "The final answer is\n$$\n18\n$$\nas 9 times 2.", "pass"),
    ("18", "**Final answer:**\n\n18", "pass"),
    ("18", "Let us find the answer:\n16 - 3 - 4 = 9\n9 * 2 = 18", "pass"),
]


def test_verdicts(judge: Judge, rollout: Make) -> None:
    verdicts = judge("math", [rollout(text, gold) for gold, text, _ in PAIRS])
    got = [(gold, text, verdict.status) for (gold, text, _), verdict in zip(PAIRS, verdicts, strict=True)]
    assert got == PAIRS
    assert {verdict.value for verdict in verdicts if verdict.status == "pass"} == {1.0}
    assert {verdict.value for verdict in verdicts if verdict.status != "pass"} == {0.0}


def test_where_the_answer_may_stand_is_a_choice(judge: Judge, rollout: Make) -> None:
    rollouts = [rollout(text, "5") for text in ("it is 5", "the answer is 5", "\\boxed{5}")]
    statuses = {
        mode: [one.status for one in judge("math", rollouts, extract=mode, workers=1)] for mode in ("auto", "marked", "boxed")
    }
    assert statuses == {
        "auto": ["pass", "pass", "pass"],
        "marked": ["unparsable", "pass", "pass"],
        "boxed": ["unparsable", "unparsable", "pass"],
    }


def test_references_of_many_kinds(judge: Judge, rollout: Make) -> None:
    right = "so \\boxed{72}"
    rollouts = [
        rollout(right, "He sold 24 more.\n#### 72"),
        rollout(right, ground_truth="and so on\nA: 72"),
        rollout(right, solution="thus $\\boxed{72}$"),
        rollout(right, 72),
        rollout(right, 72.0),
        rollout(right, ["70", "72"]),
    ]
    assert [one.status for one in judge("math", rollouts)] == ["pass"] * 6


def test_an_unusable_reference_is_an_error_and_never_a_zero(judge: Judge, rollout: Make) -> None:
    golds: list[object] = [None, "", [], "\\frac{1}{"]
    rollouts = [rollout("\\boxed{5}", gold) for gold in golds]
    assert [(one.status, one.value) for one in judge("math", rollouts)] == [("error", None)] * 4


HOSTILE = {
    "power tower": "\\boxed{9^{9^{9^{9}}}}",
    "plain power tower": "\\boxed{9**9**9**9}",
    "nested braces": "\\boxed{" + "{" * 100_000 + "}" * 100_000 + "}",
    "open boxes": "\\boxed{" * 100_000,
    "factorial": "\\boxed{99999999!}",
    "many digits": "\\boxed{" + "1" * 100_000 + "}",
    "sum": "\\boxed{\\sum_{k=1}^{10^{12}} k^k}",
    "polynomial": "\\boxed{(x+1)^{1000000}}",
    "brackets": "\\boxed{" + "(" * 480 + "1" + ")" * 480 + "}",
    "roots": "\\boxed{" + "\\sqrt{" * 120 + "2" + "}" * 120 + "}",
    "dollars": "$" * 200_000,
    "code": "\\boxed{__import__('os').system('id')}",
    "zero byte": "\\boxed{\x00}",
    "half a character": "\\boxed{\ud800}",
}


def test_hostile_answers_cost_their_own_limit_only(judge: Judge, rollout: Make) -> None:
    judge("math", [rollout("1", "1")], timeout=0.5)  # start the workers
    texts = [text for pair in zip(HOSTILE.values(), ["\\boxed{\\frac{10}{2}}"] * len(HOSTILE), strict=True) for text in pair]
    started = time.process_time()
    verdicts = judge("math", [rollout(text, "5") for text in texts], timeout=0.5)
    assert time.process_time() - started < 5, "the work is not done in this process"
    assert [one.value for one in verdicts[1::2]] == [1.0] * len(HOSTILE)
    assert {name: one.value for name, one in zip(HOSTILE, verdicts[::2], strict=True)} == dict.fromkeys(HOSTILE, 0.0)
    statuses = dict(zip(HOSTILE, (one.status for one in verdicts[::2]), strict=True))
    assert statuses["power tower"] == statuses["factorial"] == statuses["sum"] == "timeout"


def test_a_system_that_refuses_memory_limits_still_gets_verdicts() -> None:
    program = (
        "import resource\n"
        "def refuse(*_): raise ValueError('current limit exceeds maximum limit')\n"
        "resource.setrlimit = refuse\n"
        "from align.rewards.worker import main\n"
        "main('operator:add', 5.0, 1 << 28)\n"
    )
    calls = json.dumps([[2, 3]]).encode()
    sent = LENGTH.pack(len(calls)) + calls
    done = subprocess.run([sys.executable, "-c", program], input=sent, capture_output=True, timeout=20, check=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [["ready", None], ["done", 5]]


def test_the_shared_hostile_completions_about_numbers_earn_nothing(judge: Judge, rollout: Make, shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "hostile" / "hostile_completions.jsonl").open()]
    rows = [row for row in rows if row["task"] == "math"]
    assert len(rows) >= 5
    verdicts = judge("math", [rollout(row["completion"], row["gold"]) for row in rows])
    assert [one.value for one in verdicts] == [0.0] * len(rows)


def test_agreement_with_labelled_model_solutions(judge: Judge, rollout: Make, shared_data: Path) -> None:
    rollouts, labels = [], []
    with gzip.open(shared_data / "math_cases" / "gsm8k_model_solutions.jsonl.gz", "rt") as lines:
        for line in lines:
            row = json.loads(line)
            for solution in (one for one in row.values() if isinstance(one, dict)):
                rollouts.append(rollout(solution["solution"], ground_truth=row["ground_truth"]))
                labels.append(solution["is_correct"])
    verdicts = judge("math", rollouts)
    agreed = sum((one.value == 1.0) == label for one, label in zip(verdicts, labels, strict=True))
    assert len(labels) == 5276
    assert agreed / len(labels) >= 0.995
    assert all(one.status != "error" for one in verdicts)


@pytest.mark.parametrize(
    ("file", "answer", "expected", "at_least"),
    [
        ("tricky_triples.dev.jsonl", "response", "expected", 0.97),
        ("mathverify_triples.dev.jsonl", "answer", "semantic_expected", 0.97),
    ],
)
def test_agreement_with_hard_pairs(
    judge: Judge, rollout: Make, shared_data: Path, file: str, answer: str, expected: str, at_least: float
) -> None:
    rows = [json.loads(line) for line in (shared_data / "math_cases" / file).open()]
    rows = [row for row in rows if row[expected] is not None]
    verdicts = judge("math", [rollout(row[answer], row["gold"]) for row in rows])
    agreed = sum((one.value == 1.0) == row[expected] for one, row in zip(verdicts, rows, strict=True))
    assert agreed / len(rows) >= at_least


def test_gold_against_gold_passes_on_math500(judge: Judge, rollout: Make, shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "math" / "math500_test.jsonl").open()][:80]
    verdicts = judge("math", [rollout(f"Thus \\boxed{{{row['answer']}}}.", row["answer"]) for row in rows])
    wrong = [row["answer"] for row, one in zip(rows, verdicts, strict=True) if one.value != 1.0]
    assert wrong == []
    shifted = judge("math", [rollout(f"\\boxed{{{a['answer']}}}", b["answer"]) for a, b in itertools.pairwise(rows)])
    same = [(a["answer"], b["answer"]) for a, b, one in zip(rows, rows[1:], shifted, strict=False) if one.value == 1.0]
    assert all(a.split("=")[-1] == b.split("=")[-1] for a, b in same), same


@pytest.mark.parametrize(
    ("gold", "answer", "status"),
    [
        ("\\ln 2", "\\log 2", "pass"),
        ("\\log 3", "\\ln 3", "pass"),
        ("\\ln 2", "\\log_2 2", "fail"),
        ("\\ln 2", "\\log 3", "fail"),
        ("\\log_{10} 2", "\\ln 2", "fail"),
        ("3", "three", "pass"),
        ("3", "thirteen", "fail"),
        ("13", "Thirteen", "pass"),
        ("$\\boxed{1}\\boxed{2}$", "1, 2", "pass"),
        ("(3, 3), (1, 1)", "\\boxed{(3, 3)} \\text{ for part (a) and } \\boxed{(1, 1)}", "pass"),
        ("(1, 1)", "\\boxed{(3, 3)} \\text{ for part (a) and } \\boxed{(1, 1)}", "fail"),
    ],
)
def test_logarithms_number_words_and_boxes_side_by_side(judge, rollout, gold, answer, status):
    text = answer if "boxed" in answer else f"so \\boxed{{{answer}}}"
    (verdict,) = judge("math", [rollout(text, gold)])
    assert verdict.status == status, verdict


@pytest.mark.parametrize(
    ("gold", "answer", "status"),
    [
        ("\\pi", "\\boxed{3.14159265358979}", "pass"),  # six right decimals stand for an irrational number too
        ("\\pi", "\\boxed{3.14159}", "fail"),
        ("$9$", "Answer $ \n 9 \n $", "pass"),  # line breaks are blanks
        ("(\\frac{3}{5}, \\frac{8}{3}]", "\\boxed{(0.6, 2.6667]}", "fail"),  # no rounding but to six decimals, nowhere
        ("\\begin{pmatrix}\\frac13\\\\ \\frac15\\end{pmatrix}", "\\boxed{\\begin{pmatrix}0.33\\\\0.2\\end{pmatrix}}", "fail"),
        ("$f(x)$", "$f(y)$", "fail"),  # variables have names
        ("1,22", "\\boxed{1.22}", "pass"),  # a comma and a point are one decimal sign
        ("1.22", "\\boxed{1,22}", "pass"),
        ("1.222", "\\boxed{1,222}", "fail"),  # but thousands have commas
        ("(1,22)", "\\boxed{1.22}", "fail"),
        ("$10/9$", "so $ \\frac{1}{2} \\$ = \\frac{10}{9} $", "pass"),  # a dollar sign that ends no formula
    ],
)
def test_policies_where_labels_may_differ(judge: Judge, rollout: Make, gold: str, answer: str, status: str) -> None:
    (verdict,) = judge("math", [rollout(answer, gold)])
    assert verdict.status == status, verdict
