"""What a constraint family is: an id, the names and types of its arguments, and a check that says why a text breaks it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

Count = Annotated[int, Field(ge=0)]
Place = Annotated[int, Field(ge=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Word = Annotated[str, Field(min_length=1, pattern=r"\S")]
Relation = Literal["less than", "at least"]
Check = Callable[..., str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of constraints. `check(text, **arguments)` is None where the text meets it, else why it does not."""

    id: str
    arguments: type[BaseModel]
    check: Check

    def read(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """A row's arguments, checked; None counts as absent. Raises ValueError that says which one is wrong."""
        given = {key: value for key, value in kwargs.items() if value is not None}
        try:
            model = self.arguments.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"argument {where}: {first['msg']}") from None
        return {name: getattr(model, name) for name in self.arguments.model_fields}


FAMILIES: dict[str, Family] = {}


def family(id: str) -> Callable[[Check], Check]:
    """Register a check; its keyword-only parameters are the arguments that a row must give, their annotations the types."""

    def register(check: Check) -> Check:
        hints = get_type_hints(check, include_extras=True)
        fields: dict[str, Any] = {
            name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
            for name, parameter in inspect.signature(check).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        arguments = create_model(f"Arguments of {id}", __config__=ConfigDict(extra="forbid"), **fields)
        FAMILIES[id] = Family(id=id, arguments=arguments, check=check)
        return check

    return register


def related(count: int, relation: Relation, wanted: int, what: str) -> str | None:
    """None where `count` stands in the relation to `wanted`, else what is wrong."""
    if (count < wanted) if relation == "less than" else (count >= wanted):
        return None
    return f"{count} {what}, wanted {relation} {wanted}"


def exactly(count: int, wanted: int, what: str) -> str | None:
    return None if count == wanted else f"{count} {what}, wanted exactly {wanted}"


def at_least(count: int, wanted: int, what: str) -> str | None:
    return related(count, "at least", wanted, what)
