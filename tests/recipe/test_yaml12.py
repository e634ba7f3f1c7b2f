"""YAML 1.2 core schema, by the examples that surprise readers of YAML 1.1."""

from __future__ import annotations

import math
import string
from typing import Any

import pytest

from align.errors import RecipeError
from align.recipe.yaml12 import Node, from_yaml, parse, plain_value, to_yaml


def read(text: str, environ: dict[str, str] | None = None) -> Any:
    return plain_value(parse(text, lambda line: f"x.yaml:{line}"), environ or {})


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("n", "n"),
        ("true", True), ("True", True), ("FALSE", False), ("tRue", "tRue"),
        ("null", None), ("~", None), ("", None), ("none", "none"),
        ("010", 10), ("0o10", 8), ("0x1F", 31), ("-3", -3), ("+3", 3), ("1_000", "1_000"), ("0b11", "0b11"),
        ("1e-5", 1e-5), ("1E5", 1e5), ("1.", 1.0), (".5", 0.5), ("-1.5e+3", -1500.0), (".inf", math.inf), ("-.INF", -math.inf),
        ("1e", "1e"), (".", "."), ("2024-05-01", "2024-05-01"), ("12:30:45", "12:30:45"), ("1.2.3", "1.2.3"),
        ("'5'", "5"), ('"true"', "true"), ("|\n    a\n    b\n", "a\nb\n"), ("[1, no]", [1, "no"]), ("{a: 1e0}", {"a": 1.0}),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema(written: str, value: Any) -> None:
    result = read(f"k: {written}")["k"]
    assert result == value
    assert type(result) is type(value)


def test_nan_is_a_float() -> None:
    assert math.isnan(read("k: .nan")["k"])


def test_keys_stay_text() -> None:
    assert read("{1: a, no: b, true: c, 010: d}") == {"1": "a", "no": "b", "true": "c", "010": "d"}


def test_environment_fills_in_and_keeps_types() -> None:
    environ = {"N": "12", "TEXT": "a: b", "EMPTY": ""}
    text = "a: ${N}\nb: '${N}'\nc: x${N}y${N}\nd: ${TEXT}\ne: $${N}\nf: $N\ng: p${EMPTY}q"
    assert read(text, environ) == {"a": 12, "b": "12", "c": "x12y12", "d": "a: b", "e": "${N}", "f": "$N", "g": "pq"}


def test_anchors_repeat_a_value() -> None:
    assert read("a: &x {b: [1]}\nc: *x") == {"a": {"b": [1]}, "c": {"b": [1]}}


def test_every_value_knows_its_line() -> None:
    node = parse("a: 1\nb:\n  - x\n  -\n    c: 2\n", lambda line: f"f:{line}")
    assert isinstance(node.value, dict)
    b = node.value["b"]
    assert (node.value["a"].origin, b.origin) == ("f:1", "f:2")
    assert isinstance(b.value, list)
    assert b.value[0].origin == "f:3"
    assert isinstance(b.value[1].value, dict)
    assert b.value[1].value["c"] == Node(value=parse("2", str).value, origin="f:5")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3", 3, "duplicate key 'a', first at x.yaml:1"),
        ("a: {b: 1, b: 1}", 1, "duplicate key 'b'"),
        ("a:\n\tb: 1", 2, "spaces, not tabs"),
        ("a: [1, 2", 1, "not valid YAML"),
        ("a: b: c", 1, "not valid YAML"),
        ("a: {b: ${N}}", 1, "needs quotes"),
        ("a: 1\n---\nb: 2", 2, "second document"),
        ("a: *nothing", 1, "*nothing refers to no anchor"),
        ("a: &x [*x]", 1, "refers to no anchor"),
        ("a: !!python/object:os.system {}", 1, "not supported"),
        ("a: !!int 5", 1, "quotes make it a string"),
        ("a: &x {b: 1}\nc:\n  <<: *x", 3, "YAML 1.1"),
        ("? [a]\n: 1", 1, "key must be a word"),
        ("a: \x01", 1, "not valid YAML"),
        ("a: " + "[" * 50 + "]" * 50, 1, "levels deep"),
        ("a: 1\nb: ${MISSING}", 2, "MISSING is not set"),
        ("a: ${N:-3}", 1, "only ${NAME} is known"),
        ("a: ${N", 1, "only ${NAME} is known"),
        ("a: " + "9" * 5000, 1, "5000 digits"),
    ],
)
def test_what_is_refused(text: str, line: int, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        read(text)
    assert said in str(error.value)
    assert error.value.fix
    assert error.value.place is not None
    assert error.value.place.startswith(f"x.yaml:{line}") or line == 1


TREE = {
    "words": ["no", "yes", "on", "null", "~", "", " ", "010", "1e5", "1_000", "2024-05-01", "12:30", "0o7"],
    "signs": [".5", "-", "a: b", "#x", "x #y", "- a", "[", "{x}"],
    "text": ["${HOME}", "$${HOME}", "$", "two\nlines\n", "tab\there", "ünï", "é" * 300],
    "escapes": ["'", '"', "\\", "a\r\nb", "\u2028", "\x7f"],
    "numbers": [0, -1, 10**18, 0.1, 1e-5, 1e-300, 1e16, 1.0, math.inf, -math.inf],
    "others": [None, True, False, {}, [], [[]], [{"a": [{"b": 1}]}]],
    "no": {"1": 1, "on": 2, "a.b": 3, "": 4},
}  # fmt: skip


def test_what_is_written_is_read_back() -> None:
    assert from_yaml(to_yaml(TREE)) == TREE


@pytest.mark.parametrize("char", string.printable)
def test_every_character_survives_alone_and_between_others(char: str) -> None:
    tree = {"k": [char, f"a{char}b", f"{char}a", f"a{char}", f"a {char} b"]}
    assert from_yaml(to_yaml(tree)) == tree


def test_a_string_that_yaml_1_1_would_change_is_quoted() -> None:
    assert to_yaml({"a": "no", "b": "1e5", "c": "plain"}) == 'a: "no"\nb: "1e5"\nc: plain\n'
