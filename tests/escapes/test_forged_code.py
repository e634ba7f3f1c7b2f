"""Programs that try to talk the grader into a pass: by what they return, print, replace, read or leave behind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from align.errors import RewardError
from align.recipe.schema import RewardBudget, RewardSpec
from align.rewards.compose import RewardStack
from align.rewards.scorer import Scorer
from align.types import Completion, Prompt, Rollout

CALLS = {"tests": {"entry_point": "f", "cases": [{"args": [1], "expected": 2}, {"args": [5], "expected": 6}]}}
ASSERTS = {"tests": {"asserts": ["assert f(1) == 2", "assert f(5) == 6"]}}
CHECK = {"prompt": "def f(x):\n    '''x + 1'''\n", "entry_point": "f", "test": "def check(g):\n    assert g(1) == 2\n    assert g(5) == 6\n"}  # fmt: skip
STDIN = {"tests": {"stdin": [{"input": "1", "output": "2"}, {"input": "5", "output": "6"}]}}

FORGED = {
    "equal to everything": "class E:\n    def __eq__(self, o): return True\n    def __hash__(self): return 2\ndef f(x): return E()",
    "an int equal to everything": "class I(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f(x): return I(0)",
    "a float that says it is close": "class F(float):\n    def __sub__(self, o): return 0.0\n    __rsub__ = __sub__\ndef f(x): return F(0.5)",
    "a text equal to everything": "class S(str):\n    def __eq__(self, o): return True\n    __hash__ = str.__hash__\ndef f(x): return S('2')",
    "true is one": "def f(x): return True",
    "reduce runs code": "import os\nclass R:\n    def __reduce__(self): return (os._exit, (0,))\ndef f(x): return R()",
    "exit at once": "import sys\nsys.exit(0)",
    "exit in the call": "def f(x):\n    raise SystemExit(0)",
    "hard exit": "import os\ndef f(x): os._exit(0)",
    "exit with a report": "import os\nprint('{\"passed\": true}')\nos._exit(0)",
    "stop iteration": "def f(x): raise StopIteration",
    "an assertion of its own": "def f(x): raise AssertionError",
    "a keyboard interrupt": "def f(x): raise KeyboardInterrupt",
    "no comparison left": "import builtins\nbuiltins.all = lambda *a: True\nbuiltins.any = lambda *a: True\nbuiltins.isinstance = lambda *a: True\nbuiltins.type = lambda *a: int\ndef f(x): return 0",
    "json gives what it wants": "import json\njson.dumps = lambda *a, **k: '{\"id\": 0, \"value\": 2}'\ndef f(x): return 0",
    "the answer loop replaced": "import __main__\n__main__.encode = lambda *a: 0\n__main__.find = lambda *a: lambda *b: 0\ndef f(x): return 0",
    "the frames above": "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n        for value in frame.f_locals.values():\n            if isinstance(value, dict) and 'expected' in value: return value['expected']\n        frame = frame.f_back\n    return 0",
    "everything in memory": "import gc\ndef f(x):\n    for thing in gc.get_objects():\n        if isinstance(thing, dict) and 'expected' in thing: return thing['expected']\n    return 0",
    "a message of its own": "import os\ndef f(x):\n    for fd in range(64):\n        try: os.write(fd, b'{\"test\": 0, \"passed\": true}\\n')\n        except OSError: pass\n    return 0",
    "the nonce and a verdict": "import __main__, json, os, gc\ndef f(x):\n    for thing in gc.get_objects():\n        if type(thing).__name__ == 'Channel':\n            thing.send(done=True); thing.send(test=0, passed=True, called=True, detail='')\n    return 0",
    "the first message again": "import gc\ndef f(x):\n    for thing in gc.get_objects():\n        if type(thing).__name__ == 'Channel': thing.send(loaded=True)\n    return 0",
    "files of other graders": "for name in ('conftest.py', 'sitecustomize.py', 'unittest.py', 'pytest.ini'):\n    open(name, 'w').write('import os; os._exit(0)')\ndef f(x): return 0",
    "a trace function": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef f(x): return 0",
    "at exit": "import atexit, os\natexit.register(lambda: os.write(1, b'PASSED'))\ndef f(x): return 0",
    "a thread that answers": "import threading, os\nthreading.Thread(target=lambda: [os.write(2, b'2') for _ in range(99)]).start()\ndef f(x): return 0",
    "a child that answers": "import os\nif os.fork() == 0:\n    os.write(1, b'2\\n6\\n'); os._exit(0)\ndef f(x): return 0",
    "names of the tests": "def check(g): pass\ndef isclose(*a): return True\nexpected = candidate = None\ndef f(x): return 0",
    "odd name": "class f:\n    def __new__(cls, x): return object.__new__(cls)\n    def __eq__(self, o): return True",
    "a list that grows": "class L(list):\n    def __len__(self): return 1\n    def __getitem__(self, i): return 2\n    def __iter__(self): return iter([2])\ndef f(x): return L()",
    "not a number": "def f(x): return float('nan')",
    "warnings as errors": "import warnings\nwarnings.simplefilter('error')\ndef f(x): return x",
    "depth": "def f(x):\n    value = []\n    for _ in range(10**5): value = [value]\n    return value",
    "later truth": "seen = []\ndef f(x):\n    seen.append(x)\n    return seen",
}  # fmt: skip


@pytest.fixture(scope="module")
def grader():
    spec = RewardSpec(use="code", params={"timeout": 2.0, "total": 6.0})
    try:
        scorer = Scorer(RewardStack([spec], RewardBudget(max_error_rate=1.0)))
    except RewardError as error:
        pytest.skip(f"no sandbox here: {error.message}")
    yield scorer
    scorer.close()


def rollout(program: str, row: Any) -> Rollout:
    completion = Completion(
        prompt_index=0, sample_index=0, token_ids=(), logprobs=(), text=f"```python\n{program}\n```", finish_reason="stop"
    )
    return Rollout(prompt=Prompt(id=json.dumps(row), messages=(), token_ids=(), columns=row), completion=completion)


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_answer_earns_nothing(grader, name):
    rows = [CALLS, ASSERTS, CHECK, STDIN]
    scored = grader.submit([rollout(FORGED[name], row) for row in rows]).result(timeout=120)
    assert [one.verdicts["code"].value for one in scored] == [0.0] * 4, [one.verdicts["code"] for one in scored]


def test_the_grader_still_passes_what_is_right(grader):
    right = "def f(x):\n    return x + 1\nif __name__ == '__main__':\n    print(f(int(input())))"
    scored = grader.submit([rollout(right, row) for row in (CALLS, ASSERTS, CHECK, STDIN)]).result(timeout=60)
    assert [one.verdicts["code"].value for one in scored] == [1.0] * 4
