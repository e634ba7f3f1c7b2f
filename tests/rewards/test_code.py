"""Programs judged: every format, every way to be wrong, the row's own faults; HumanEval and its mutants."""

from __future__ import annotations

import ast
import gzip
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from align.errors import RecipeError
from align.recipe.schema import RewardBudget, RewardSpec
from align.rewards.code.compare import Comparison
from align.rewards.code.extract import program_of
from align.rewards.code.formats import UnusableTestsError, read_tests
from align.rewards.code.inside.plain import Iterated, decode, encode
from align.rewards.compose import RewardStack
from align.rewards.registry import open_reward
from align.rewards.sandbox import SandboxError
from align.rewards.scorer import Scorer
from align.rewards.verdict import Verdict
from align.types import Rollout

Make = Callable[..., Rollout]
Judge = Callable[..., list[Verdict]]
ADD = {"entry_point": "f", "cases": [{"args": [n], "expected": n + 1} for n in (1, 5, -3)]}
DOUBLE = {"stdin": [{"input": "2\n", "output": "4\n"}, {"input": "5", "output": "10"}]}


@pytest.fixture(scope="module")
def graded(rollout: Make) -> Iterator[Callable[..., Verdict]]:
    """`graded(completion, row, **params)` -> the verdict."""
    scorers: dict[str, Scorer] = {}

    def grade(completion: str, row: dict[str, Any], **params: Any) -> Verdict:
        key = json.dumps(params, sort_keys=True)
        if key not in scorers:
            spec = RewardSpec(use="code", name="it", params={"timeout": 2.0, **params})
            try:
                scorers[key] = Scorer(RewardStack([spec], RewardBudget(max_error_rate=1.0)))
            except SandboxError as error:
                pytest.skip(f"no sandbox here: {error.message}")
        return scorers[key].submit([rollout(completion, **row)]).result(timeout=120)[0].verdicts["it"]

    yield grade
    for scorer in scorers.values():
        scorer.close()


Grade = Callable[..., Verdict]


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        ({"tests": ADD}, "def f(x):\n    return x + 1", "def f(x):\n    return x + 1 if x > 0 else 0"),
        ({"tests": json.dumps(ADD)}, "f = lambda x: x + 1", "f = lambda x: x"),
        (
            {"tests": {"entry_point": "g", "cases": [{"args": [1], "kwargs": {"b": 2}, "expected": [1, 2]}]}},
            "def g(a, b):\n    return (a, b)",
            "def g(a, b):\n    return [b, a]",
        ),
        ({"tests": DOUBLE}, "print(2 * int(input()))", "print(4)"),
        (
            {"tests": {"asserts": ["assert f(1) == 2", "assert f([1]) == [2]"]}},
            "def f(x):\n    return x + 1 if isinstance(x, int) else [f(y) for y in x]",
            "def f(x):\n    return x + 1 if isinstance(x, int) else x",
        ),
        (
            {"test": "def check(candidate):\n    assert candidate(2) == two()\n", "entry_point": "h", "prompt": "def two():\n    return 2\n\ndef h(x):\n"},
            "    return x",
            "    return x + two()",
        ),
        (
            {"test_list": ["assert top([P(1), P(4)]) == 4"], "test_setup_code": ""},
            "class P:\n    def __init__(self, n):\n        self.n = n\ndef top(ps):\n    return max(p.n for p in ps)",
            "class P:\n    def __init__(self, n):\n        self.n = n\ndef top(ps):\n    return P(4)",
        ),
        (
            {"input_output": json.dumps({"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "plus"})},
            "class Solution:\n    def plus(self, a, b):\n        return a + b",
            "class Solution:\n    def plus(self, a, b):\n        return a - b",
        ),
        ({"input_output": {"inputs": ["1 2\n"], "outputs": ["3\n"]}}, "print(sum(map(int, input().split())))", "print(4)"),
        ({"public_tests": {"input": ["a\n"], "output": ["A\n"]}, "private_tests": {"input": ["b"], "output": ["B"]}}, "print(input().upper())", "print('A')"),
        (
            {"public_test_cases": json.dumps([{"input": "[1,2]\n3", "output": "6", "testtype": "functional"}]), "metadata": '{"func_name": "s"}'},
            "def s(xs, y):\n    return sum(xs) + y",
            "def s(xs, y):\n    return y",
        ),
    ],
    ids=["calls", "calls_as_text", "kwargs", "stdin", "asserts", "humaneval", "mbpp_objects", "apps_calls", "apps_stdin", "codecontests", "livecodebench"],
)  # fmt: skip
def test_every_format_tells_right_from_wrong(graded: Grade, row: dict[str, Any], right: str, wrong: str) -> None:
    assert graded(f"Here:\n```python\n{right}\n```\n", row).status == "pass"
    verdict = graded(right, row)
    assert (verdict.value, verdict.status) == (1.0, "pass"), verdict.detail
    verdict = graded(wrong, row)
    assert (verdict.value, verdict.status) == (0.0, "fail"), verdict.detail


@pytest.mark.parametrize(
    ("completion", "status", "said"),
    [
        ("", "unparsable", "no program"),
        ("<think>def f(x): return x + 1", "unparsable", "no program"),
        ("I cannot do that.", "unparsable", "SyntaxError"),
        ("def f(x:\n    return x", "unparsable", "SyntaxError"),
        ("import nothing_like_this\ndef f(x):\n    return x + 1", "fail", "ModuleNotFoundError"),
        ("def g(x):\n    return x + 1", "fail", "KeyError"),
        ("def f(x):\n    raise ValueError('no')", "fail", "f(1) raises ValueError: no"),
        ("def f(x):\n    return str(x + 1)", "fail", "gives '2', not 2"),
        ("def f(x):\n    while True: pass", "timeout", "gave no answer in 2 s"),
        ("while True: pass", "timeout", "while it is loaded"),
        ("def f(x):\n    return (x + 1 for _ in [0])", "fail", "not 2"),
    ],
)
def test_every_way_to_be_wrong_has_its_status(graded: Grade, completion: str, status: str, said: str) -> None:
    verdict = graded(completion, {"tests": ADD})
    assert (verdict.value, verdict.status) == (0.0, status)
    assert said in verdict.detail


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "no tests"),
        ({"tests": "no json"}, "no JSON"),
        ({"tests": {"entry_point": "f", "cases": []}}, "no single test"),
        ({"tests": {"something": 1}}, "something"),
        ({"tests": {"asserts": ["assert f(1 =="]}}, "no Python"),
        ({"tests": {"asserts": ["assert 1 == 1"]}}, "no function"),
        ({"test_list": ["assert f(1) == missing.name"], "test_setup_code": "missing = None\nraise OSError()"}, "set-up"),
        ({"tests": {**DOUBLE, "checker": "def check(*a):\n    raise OSError"}}, "checker"),
        ({"input_output": {"inputs": [1, 2], "outputs": [1]}}, "argument 2 is shorter"),
    ],
)  # fmt: skip
def test_unusable_tests_are_an_error_and_no_zero(graded: Grade, row: dict[str, Any], said: str) -> None:
    verdict = graded("def f(x):\n    return x\nprint(4)", row)
    assert (verdict.value, verdict.status) == (None, "error")
    assert said in verdict.detail


def test_partial_credit(graded: Grade) -> None:
    verdict = graded("def f(x):\n    return abs(x) + 1", {"tests": ADD}, reward="fraction")
    assert (verdict.value, verdict.status, verdict.parts) == (2 / 3, "fail", {"passed": 2 / 3})
    assert "test 3 of 3 f(-3) gives 4, not -2" in verdict.detail
    assert graded("print(4)", {"tests": DOUBLE}, reward="fraction").value == 0.5
    hang = graded("def f(x):\n    while x == 5: pass\n    return x + 1", {"tests": ADD}, reward="fraction")
    assert (hang.value, hang.status) == (1 / 3, "timeout"), "tests behind a hang were not answered"


def test_a_rows_own_checker_and_several_right_outputs(graded: Grade) -> None:
    checker = "def check(input, output, expected):\n    a, b = map(int, output.split())\n    return a * b == int(input)"
    row = {"tests": {"stdin": [{"input": "12", "output": ""}], "checker": checker}}
    assert graded("print(3, 4)", row).status == "pass"
    assert graded("print(3, 5)", row).status == "fail"
    several = {"tests": {"stdin": [{"input": "", "output": ["yes\n", "no\n"]}]}}
    assert [graded(f"print('{word}')", several).status for word in ("yes", "no", "perhaps")] == ["pass", "pass", "fail"]


def test_a_programs_own_names_do_not_decide_its_tests(graded: Grade) -> None:
    """`set` and `isclose` of the assertions are Python's, whatever the program defines."""
    row = {"tests": {"asserts": ["assert set(f(1)) == set([2])", "assert isclose(g(1), 2.0)"]}}
    forged = "def set(x):\n    return 0\ndef isclose(*a):\n    return True\ndef f(x):\n    return [9]\ndef g(x):\n    return 3.0"
    assert graded(forged, row).status == "fail"
    assert graded("def f(x):\n    return [2, 2]\ndef g(x):\n    return 2.0", row).status == "pass"


@pytest.mark.parametrize("name", ["add", "gcd", "factorial", "count", "test", "copy"])
def test_a_function_may_be_called_as_something_of_the_standard_library(graded: Grade, name: str) -> None:
    row = {"test_list": [f"assert {name}(1) == statistics.mean([2, 2])"]}
    assert graded(f"def {name}(x):\n    return x + 1", row).status == "pass"
    assert graded(f"def {name}(x):\n    return x", row).status == "fail"


def test_an_apps_result_may_be_wrapped_in_a_list_of_one(graded: Grade) -> None:
    row = {"input_output": {"inputs": [[1], [2]], "outputs": [[2], [3]], "fn_name": "f"}}
    assert graded("def f(x):\n    return x + 1", row).status == "pass"
    assert graded("def f(x):\n    return [x + 1]", row).status == "pass"
    assert graded("def f(x):\n    return [[x + 1]]", row).status == "fail"


def test_exceptions_and_iterators_reach_test_code(graded: Grade) -> None:
    raises = "try:\n    f(-1)\n    assert False\nexcept ValueError:\n    pass"
    row = {"tests": {"asserts": [raises, "assert list(g(3)) == [0, 1, 2]", "assert h() == {1: (2, {3})}"]}}
    right = "def f(x):\n    raise ValueError\ndef g(n):\n    yield from range(n)\ndef h():\n    return {1: (2, {3})}"
    assert graded(right, row).status == "pass", graded(right, row).detail
    assert graded(right.replace("ValueError", "KeyError"), row).status == "fail"


@pytest.mark.parametrize(
    ("language", "tool", "right", "wrong"),
    [
        ("cpp", "g++", "#include <iostream>\nint main() { int x; std::cin >> x; std::cout << 2 * x << '\\n'; }", "int main() { return 0; }"),
        ("javascript", "node", "console.log(2 * parseInt(require('fs').readFileSync(0, 'utf8')))", "console.log(4)"),
        ("bash", "bash", "read x; echo $((2 * x))", "echo 4"),
    ],
)  # fmt: skip
def test_other_languages(graded: Grade, language: str, tool: str, right: str, wrong: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    verdict = graded(f"```{language}\n{right}\n```", {"tests": DOUBLE}, language=language, timeout=10.0)
    assert verdict.status == "pass", verdict.detail
    assert graded(wrong, {"tests": DOUBLE}, language=language, timeout=10.0).status == "fail"
    if language == "cpp":
        assert graded("int main( {", {"tests": DOUBLE}, language=language, timeout=10.0).status == "unparsable"
    assert graded(right, {"tests": ADD}, language=language, timeout=10.0).status == "error"


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"language": "cobol"}, "no language 'cobol'"),
        ({"language": "x", "command": {"run": "surely-not-installed x"}}, "not installed"),
        ({"language": "x", "command": {"compile": "cc"}}, "a command has"),
        ({"timeout": 0}, "greater than 0"),
    ],
)
def test_wrong_parameters_are_refused(params: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        open_reward(RewardSpec(use="code", params=params))


def test_where_the_program_is_in_a_completion() -> None:
    two = "First\n```python\na = 1\n```\nbetter:\n```python\na = 2\n```\nrun it:\n```bash\npython a.py\n```"
    assert program_of(two) == "a = 2"
    assert program_of("<think>```python\na = 1\n```</think>```\na = 3\n```") == "a = 3"
    assert program_of("```python\na = 4") == "a = 4"
    whole = "```python\nimport os\n\ndef f(x):\n    return x\n```"
    assert program_of(whole, prompt="import re\n\ndef f(x):\n") == "import re\n\n\nimport os\n\ndef f(x):\n    return x"
    assert program_of("    return x\n", prompt="def f(x):\n") == "def f(x):\n    return x\n"


def test_values_cross_as_plain_data() -> None:
    class Sly(int):
        def __eq__(self, other: object) -> bool:
            return True

    values = [
        1,
        -(2**70),
        True,
        None,
        1.5,
        float("inf"),
        "é\ud800",
        b"\x00",
        1j,
        [1, (2, {3})],
        {1: {"a": frozenset({2})}},
        range(3),
    ]
    for value in values:
        back = decode(json.loads(json.dumps(encode(value, lambda _: 0))), lambda number: number)
        assert back == value
        assert type(back) is type(value)
    assert type(decode(encode(Sly(3), lambda _: 0), lambda number: number)) is int
    assert isinstance(decode(encode(iter([1]), lambda _: 0), lambda number: number), Iterated)
    assert encode(object(), lambda _: 7) == {"t": "handle", "v": 7}
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    assert "handle" in json.dumps(encode(deep, lambda _: 7))


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        (1, 1, True), (True, 1, False), (1, True, False), (None, 0, False), ((1, 2), [1, 2], True), ([1, 2], [2, 1], False),
        (0.1 + 0.2, 0.3, True), (0.31, 0.3, False), (float("nan"), 1.0, False), (float("nan"), float("nan"), True),
        ({1: "a"}, {"1": "a"}, True), ({1: "a"}, {"2": "a"}, False), ("1", 1, False), (1.0, 1, True), ([1.0], [1], True),
        (Iterated([1]), [1], False), ("a", "a", True), ({1, 2}, [1, 2], False),
    ],
)  # fmt: skip
def test_values_compared(got: Any, expected: Any, same: bool) -> None:
    assert Comparison().same(got, expected) is same


def test_outputs_compared() -> None:
    exact, free = Comparison(), Comparison(order="any_order", tolerance=0.01)
    assert exact.same_output("1 \n2\n\n", "1\n2")
    assert not exact.same_output("1\n\n2", "1\n2")
    assert exact.same_output("0.30000000000000004", "0.3")
    assert not exact.same_output("2", "3")
    assert free.same_output("b\na", "a\nb")
    assert free.same([2, 1.005], [1.0, 2])
    assert not free.same([1, 1], [1, 2])
    assert Comparison(order="words").same_output("1  2\n3", "1 2 3")


def test_unreadable_tests_say_why() -> None:
    with pytest.raises(UnusableTestsError, match="KeyError: 'expected'"):
        read_tests({"tests": {"entry_point": "f", "cases": [{"args": []}]}})


# HumanEval ------------------------------------------------------------------------------------------------------------------


class _Mutation(ast.NodeTransformer):
    """Changes the n-th constant or operator of a program, or leaves out a call or a condition of a comprehension."""

    SWAPS: ClassVar[dict[type[ast.AST], type[ast.AST]]] = {
        ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Div: ast.Mult,
        ast.Lt: ast.GtE, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
        ast.And: ast.Or, ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Pow: ast.Add, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    }  # fmt: skip

    def __init__(self, wanted: int, *, calls: bool) -> None:
        self.left, self.calls = wanted, calls

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        swap = self.SWAPS.get(type(node))
        if swap is not None:
            self.left -= 1
            return swap() if self.left == -1 else node
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        self.left -= 1
        if self.left != -1 or node.value is None or node.value is ...:
            return node
        value = node.value
        if isinstance(value, bool):
            return ast.Constant(not value)
        return ast.Constant(value + "x" if isinstance(value, str) else value + 1)  # type: ignore[operator]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Eight solutions are calls of built-ins alone: there a call is left out."""
        self.generic_visit(node)
        self.left -= self.calls
        inner = node.func.value if isinstance(node.func, ast.Attribute) else node.args[0] if node.args else node
        return inner if self.calls and self.left == -1 else node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        self.generic_visit(node)
        self.left -= self.calls and bool(node.ifs)
        return ast.comprehension(node.target, node.iter, [], 0) if self.calls and node.ifs and self.left == -1 else node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return node if isinstance(node.value, ast.Constant) else self.generic_visit(node)  # docstrings do nothing


def mutants(prompt: str, solution: str) -> Iterator[str]:
    """Programs that differ from the solution in one operator or constant; where it has none, in one call or condition."""
    found = list(_mutants(prompt + solution, calls=False))
    yield from found or _mutants(prompt + solution, calls=True)


def _mutants(program: str, *, calls: bool) -> Iterator[str]:
    for number in itertools.count():
        tree = ast.parse(program)
        before = ast.dump(tree)
        mutation = _Mutation(number, calls=calls)
        tree.body[-1] = mutation.visit(tree.body[-1])
        if mutation.left >= 0:
            return
        if ast.dump(tree) != before:
            yield ast.unparse(ast.fix_missing_locations(tree))


def human_eval(shared_data: Path) -> list[dict[str, Any]]:
    path = shared_data / "code" / "HumanEval.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def survives(graded: Grade, row: dict[str, Any]) -> bool:
    """Whether the tests accept every mutant of a solution."""
    for mutant in mutants(row["prompt"], row["canonical_solution"]):
        verdict = graded(f"```python\n{mutant}\n```", row, timeout=3.0)
        assert verdict.status != "error", verdict.detail
        if verdict.value == 0.0:
            return False
    return True


def test_humaneval_solutions_pass(graded: Grade, shared_data: Path) -> None:
    verdicts = [graded(row["canonical_solution"], row, timeout=10.0) for row in human_eval(shared_data)]
    assert [verdict.status for verdict in verdicts] == ["pass"] * 164


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 8))])
def test_humaneval_mutants_fail(graded: Grade, shared_data: Path, part: int) -> None:
    """The tests of every task reject a mutant of its solution: what it does differs, since the solution passes them."""
    rows = human_eval(shared_data)[part::8]
    assert [row["task_id"] for row in rows if survives(graded, row)] == []


def test_mbpp_solutions_pass(graded: Grade, shared_data: Path) -> None:
    path = shared_data / "code" / "mbpp_sample.jsonl"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [graded(row["canonical_solution"], row).status for row in rows] == ["pass"] * 20
