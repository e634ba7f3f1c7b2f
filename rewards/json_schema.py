"""`json_schema`: the JSON value that a completion answers with, checked against a schema and, where wanted, a reference."""

from __future__ import annotations

import re
from datetime import datetime, time
from functools import cache
from typing import Any, Literal

from pydantic import Field, field_validator

from align.rewards.answers import visible_part
from align.rewards.golds import column_of, structure_of
from align.rewards.json_text import JSONTextError, equal_json, read_json
from align.rewards.pooled import Judged, PooledParams, PooledReward, judged
from align.rewards.reward import gold_of
from align.rewards.verdict import Verdict
from align.types import Rollout

_COLUMNS = ("schema", "json_schema")
_DATE_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[-+]\d{2}:\d{2})", re.ASCII)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+")


class JSONSchemaParams(PooledParams):
    schema_: dict[str, Any] | bool | None = Field(
        None, alias="schema", description="A JSON Schema; a row's `schema` (or `json_schema`) wins"
    )
    where: Literal["auto", "whole", "fenced"] = Field(
        "auto", description="auto: the last fence, else the whole text, else the last object or array in it; whole; fenced"
    )
    equal: bool = Field(False, description="The value must also equal the row's reference")
    credit: Literal["all", "parts"] = Field("all", description="all: 1 or 0; parts: the mean of parsed, valid (and equal)")
    formats: bool = Field(True, description="Check `format`, such as date, email, uuid")
    max_characters: int = Field(200_000, ge=1, description="A longer text is not read: it earns 0")

    @field_validator("schema_")
    @classmethod
    def _usable(cls, schema: Any) -> Any:
        if schema is not None and (why := _fault(schema)):
            raise ValueError(why)
        return schema


class JSONSchemaReward(PooledReward):
    """1 where the answer is JSON and meets the schema (and equals the reference). Parts: `parsed`, `valid`, `equal`.

    References to other documents are never fetched: a schema with one that it does not hold itself is an error, as is one that
    is no schema.
    """

    params_type = JSONSchemaParams
    function = "align.rewards.json_schema:check"
    sources = ("json_text.py", "fences.py", "golds.py", "answers.py")

    def __init__(self, name: str, params: JSONSchemaParams) -> None:
        super().__init__(name, params)
        self._params = params

    def arguments(self, rollout: Rollout) -> list[Any] | Verdict:
        params = self._params
        gold = gold_of(rollout) if params.equal else None
        try:
            schema = structure_of(column_of(rollout, _COLUMNS))
            gold = structure_of(gold)
        except ValueError as error:
            return Verdict.error(f"the row's schema or reference is no JSON: {error}")
        if schema is None:
            schema = True if params.schema_ is None and params.equal else params.schema_
        if schema is None:
            return Verdict.error(f"the row has no schema (columns {', '.join(_COLUMNS)}), and the recipe gives none")
        if params.equal and gold is None:
            return Verdict.error("the row has no reference answer (columns answer, solution or ground_truth)")
        text = visible_part(rollout.completion.text)
        if text is None:
            return Verdict.unparsable("the thinking part never ends")
        if len(text) > params.max_characters:
            return Verdict.unparsable(f"longer than {params.max_characters} characters")
        return [text, schema, gold, params.model_dump(include={"where", "equal", "credit", "formats"})]


def check(text: str, schema: Any, gold: Any, options: dict[str, Any]) -> Judged:
    """Runs in a worker."""
    from referencing.exceptions import Unresolvable

    if why := _checked(schema):
        return judged("error", why)
    try:
        value = read_json(text, options["where"])
    except JSONTextError as error:
        return judged("unparsable", str(error), parsed=0.0)
    try:
        failure = next(iter(_validator(schema, options["formats"]).iter_errors(value)), None)
    except Unresolvable as error:
        return judged("error", f"the schema refers to what it does not hold: {error}")
    except RecursionError:
        return judged("fail", "nested too deeply", parsed=1.0)
    parts = {"parsed": 1.0, "valid": float(failure is None)}
    detail = "" if failure is None else f"{failure.json_path}: {failure.message}"
    if options["equal"]:
        parts["equal"] = float(equal_json(value, gold))
        detail = detail or ("" if parts["equal"] else "valid, but not the reference")
    passed = all(parts.values())
    value = sum(parts.values()) / len(parts) if options["credit"] == "parts" else float(passed)
    return judged("pass" if passed else "fail", detail, value, **parts)


def warm_up() -> None:
    """Import what the calls need, before the worker forks."""
    _validator(True, True)


def _checked(schema: Any) -> str:
    return _fault(schema) if not isinstance(schema, dict) or len(schema) < 10_000 else "the schema has too many keys"


def _fault(schema: Any) -> str:
    """Why this is no JSON Schema; "" for one."""
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for

    try:
        validator_for(schema, default=_latest()).check_schema(schema)
    except SchemaError as error:
        return f"no JSON Schema: {error.json_path}: {error.message}"[:300]
    except (RecursionError, TypeError, AttributeError, re.error) as error:
        return f"no JSON Schema: {type(error).__name__}: {error}"[:300]
    return ""


def _latest() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator


def _validator(schema: Any, formats: bool) -> Any:
    """A validator whose registry holds the meta-schemas alone, so that no reference is ever looked up elsewhere."""
    from jsonschema.validators import validator_for
    from jsonschema_specifications import REGISTRY

    kind = validator_for(schema, default=_latest())
    return kind(schema, registry=REGISTRY, format_checker=_formats(kind) if formats else None)


@cache
def _formats(kind: Any) -> Any:
    """The library's format checks, with those added that it has only with other packages installed."""
    from jsonschema import FormatChecker

    checker = FormatChecker()
    checker.checkers = {**kind.FORMAT_CHECKER.checkers}
    checker.checks("date-time", raises=ValueError)(_date_time)
    checker.checks("time", raises=ValueError)(_time)
    checker.checks("uri")(lambda text: not isinstance(text, str) or _URI.fullmatch(text) is not None)
    return checker


def _date_time(text: Any) -> bool:
    if not isinstance(text, str):
        return True
    if not _DATE_TIME.fullmatch(text):
        return False
    datetime.fromisoformat(text.upper())
    return True


def _time(text: Any) -> bool:
    if not isinstance(text, str):
        return True
    if not _DATE_TIME.fullmatch(f"2000-01-01T{text}"):
        return False
    time.fromisoformat(text.upper())
    return True
