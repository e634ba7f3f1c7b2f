"""Rows of our own in the format of every benchmark, with an answer that is right and one that is wrong."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Fixture:
    """`shots` are rows of another file, for benchmarks with solved examples; `asked` is a part of the prompt."""

    rows: list[dict[str, Any]]
    right: list[str]
    wrong: list[str]
    asked: str
    shots: list[dict[str, Any]] = field(default_factory=list)


def _packed(cases: list[dict[str, str]]) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


_GSM8K = [
    {"question": "Ann has 3 boxes of 4 pens. How many pens?", "answer": "3 boxes of 4 are <<3*4=12>>12 pens.\n#### 12"},
    {"question": "A farm sells 1,000 eggs and then 250. How many?", "answer": "Together 1250.\n#### 1,250"},
]
_COMPETITION = [{"id": 60, "problem": "Find the remainder of $2^{10}$ by $1000$.", "answer": "024", "url": "", "year": "2024"}]
_TESTS = [
    {"input": "1\n2\n", "output": "3\n", "testtype": "stdin"},
    {"input": "5\n7\n", "output": "12\n", "testtype": "stdin"},
]
_CALLS = [{"input": "[1, 2]", "output": "3", "testtype": "functional"}]
_SUM = "```python\nprint(int(input()) + int(input()))\n```"
_METHOD = "```python\nclass Solution:\n    def total(self, nums):\n        return sum(nums)\n```"
_LIVECODEBENCH = {"question_title": "Sum", "platform": "atcoder", "question_id": "a", "contest_id": "c", "difficulty": "easy"}
_NO_ARGUMENTS: dict[str, Any] = {"num_words": None, "relation": None, "keywords": None}

FIXTURES: dict[str, Fixture] = {
    "gsm8k": Fixture(
        rows=_GSM8K, right=["So \\boxed{12}", "\\boxed{1250}"], wrong=["\\boxed{7}", "\\boxed{1}"], asked="3 boxes of 4 pens"
    ),
    "gsm8k_few_shot": Fixture(
        rows=_GSM8K,
        right=["3*4 is 12.\n#### 12", "#### 1250"],
        wrong=["#### 13", "no idea"],
        asked="Question: Ann has 3 boxes of 4 pens. How many pens?\nAnswer:",
        shots=[{"question": f"What is {n}+{n}?", "answer": f"It is {2 * n}.\n#### {2 * n}"} for n in range(20)],
    ),
    "math500": Fixture(
        rows=[
            {
                "problem": "Write $(0,3)$ in polar coordinates.",
                "solution": "It is $\\boxed{\\left(3,\\frac{\\pi}{2}\\right)}$.",
                "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
                "subject": "Precalculus",
                "level": 2,
                "unique_id": "test/precalculus/1.json",
            }
        ],
        right=["\\boxed{(3, \\pi/2)}"],
        wrong=["\\boxed{(\\pi/2, 3)}"],
        asked="polar coordinates",
    ),
    "aime24": Fixture(
        rows=[{**_COMPETITION[0], "solution": "1024"}], right=["\\boxed{24}"], wrong=["\\boxed{1024}"], asked="the remainder"
    ),
    "aime25": Fixture(
        rows=[{"problem": "How many?", "answer": "70", "id": "0"}],
        right=["\\boxed{070}"],
        wrong=["\\boxed{7}"],
        asked="How many?",
    ),
    "amc23": Fixture(
        rows=[{"id": 0, "answer": 27.0, "question": "At what time do they meet?", "url": "https://example.org"}],
        right=["\\boxed{27}"],
        wrong=["\\boxed{28}"],
        asked="At what time",
    ),
    "minerva": Fixture(
        rows=[
            {"question": "How bright is the star, in erg/s?", "answer": "7e37"},
            {"question": "Give the transfer function.", "answer": "\\frac{1}{s+1}"},
        ],
        right=["\\boxed{7.02 \\times 10^{37}}", "\\boxed{1/(1+s)}"],
        wrong=["\\boxed{7.2 \\times 10^{37}}", "\\boxed{1/s}"],
        asked="How bright",
    ),
    "olympiadbench": Fixture(
        rows=[
            {
                "id": 1606,
                "subfield": "Algebra",
                "context": None,
                "question": "Find all real $x$ with $x^2=2$, $x>0$.",
                "solution": ["..."],
                "final_answer": ["$\\sqrt{2}$"],
                "is_multiple_answer": False,
                "unit": None,
                "answer_type": "Numerical",
            }
        ],
        right=["\\boxed{\\sqrt 2}"],
        wrong=["\\boxed{2}"],
        asked="Find all real",
    ),
    "gpqa": Fixture(
        rows=[
            {
                "Record ID": f"rec{n}",
                "Question": f"Question {n}: which one?",
                "Correct Answer": f"right {n}\n",
                "Incorrect Answer 1": "one",
                "Incorrect Answer 2": "two",
                "Incorrect Answer 3": "three",
            }
            for n in range(2)
        ],
        right=["Thinking. The answer is RIGHT", "The answer is RIGHT"],  # RIGHT: the letter that the row has after shuffling
        wrong=["The answer is WRONG", "The answer is WRONG"],
        asked="Question 0: which one?",
    ),
    "mmlu_pro": Fixture(
        rows=[
            {
                "question_id": 70,
                "question": "Which is a gas?",
                "options": ["iron", "helium", "sand"],
                "answer": "B",
                "answer_index": 1,
                "cot_content": "",
                "category": "chemistry",
                "src": "x",
            }
        ],
        right=["The answer is (B)"],
        wrong=["The answer is (A)."],
        asked="A) iron\nB) helium\nC) sand",
        shots=[
            {
                "question_id": n,
                "question": f"Which is {n}?",
                "options": ["zero", "one"],
                "answer": "A",
                "answer_index": 0,
                "cot_content": "A: Let's think. The answer is (A).",
                "category": "chemistry" if n % 2 else "law",
                "src": "x",
            }
            for n in range(12)
        ],
    ),
    "humaneval": Fixture(
        rows=[
            {
                "task_id": "HumanEval/0",
                "prompt": 'def double(x: int) -> int:\n    """Twice x."""\n',
                "canonical_solution": "    return 2 * x\n",
                "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
                "entry_point": "double",
            }
        ],
        right=["```python\ndef double(x):\n    return x + x\n```"],
        wrong=["```python\ndef double(x):\n    return x * x\n```"],
        asked='"""Twice x."""',
    ),
    "mbpp": Fixture(
        rows=[
            {
                "task_id": 11,
                "text": "Write a function to add two numbers.",
                "code": "def add(a, b):\n    return a + b",
                "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
                "test_setup_code": "",
                "challenge_test_list": [],
            }
        ],
        right=["```python\ndef add(a, b):\n    return a + b\n```"],
        wrong=["```python\ndef add(a, b):\n    return 3\n```"],
        asked="assert add(1, 2) == 3\nassert add(0, 0) == 0",
        shots=[
            {
                "task_id": n,
                "text": f"Write a function that gives {n}.",
                "code": f"def f():\n    return {n}",
                "test_list": [f"assert f() == {n}"],
                "test_setup_code": "",
                "challenge_test_list": [],
            }
            for n in range(1, 6)
        ],
    ),
    "livecodebench": Fixture(
        rows=[
            {
                **_LIVECODEBENCH,
                "question_content": "Print the sum of two numbers.",
                "starter_code": "",
                "public_test_cases": json.dumps(_TESTS[:1]),
                "private_test_cases": _packed(_TESTS[1:]),
                "metadata": "{}",
            },
            {
                **_LIVECODEBENCH,
                "question_content": "Add the numbers of a list.",
                "starter_code": "class Solution:\n    def total(self, nums):\n        ",
                "public_test_cases": json.dumps(_CALLS),
                "private_test_cases": _packed(_CALLS),
                "metadata": json.dumps({"func_name": "total"}),
            },
        ],
        right=[_SUM, _METHOD],
        wrong=["```python\nprint(3)\n```", _METHOD.replace("sum", "len")],  # 3 passes the public test alone
        asked="Print the sum of two numbers.",
    ),
    "ifeval": Fixture(
        rows=[
            {
                "key": 1000,
                "prompt": "Describe rain without a comma, in at least 5 words.",
                "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
                "kwargs": [_NO_ARGUMENTS, {**_NO_ARGUMENTS, "num_words": 5, "relation": "at least"}],
            }
        ],
        right=["Rain is water that falls down."],
        wrong=["Rain, that is water that falls."],
        asked="Describe rain",
    ),
    "ifbench": Fixture(
        rows=[
            {
                "key": "0",
                "prompt": "Name things; use the words kite once and moon twice.",
                "instruction_id_list": ["count:keywords_multiple"],
                "kwargs": [{"keyword1": "kite", "keyword2": "moon", "keyword3": "sun", "keyword4": "sea", "keyword5": "ice"}],
            }
        ],
        right=["kite moon moon sun sun sun " + "sea " * 5 + "ice " * 7],
        wrong=["kite moon"],
        asked="Name things",
    ),
    "countdown": Fixture(
        rows=[{"target": 98, "nums": [44, 19, 35]}],
        right=["Trying. <answer> 44 + 19 + 35 </answer>"],
        wrong=["<answer> 98 </answer>"],
        asked="Using the numbers [44, 19, 35], write an expression that equals 98.",
    ),
}
