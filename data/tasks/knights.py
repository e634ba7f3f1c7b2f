"""Knights, who always tell the truth, and knaves, who always lie: who is who?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from random import Random
from typing import Annotated, Any

from pydantic import Field

from align.data.tasks.task import TaskParams, draw_problem, row_random
from align.errors import DataError
from align.rewards.verdict import Verdict

_NAMES = "ABCDEFGH"
_ANSWER = re.compile(r"\b([A-H])\b\s*(?:is|=|:)\s*(?:a\s+)?(knight|knave)\b", re.IGNORECASE)
_FINAL = re.compile(r"\b(?:so|answer|therefore)\b", re.IGNORECASE)

Claim = tuple[str, int, bool, int, bool]  # kind, first person, said to be a knight?, second person, said to be a knight?
Roles = tuple[bool, ...]  # True: knight


class KnightsParams(TaskParams):
    people: Annotated[int, Field(ge=2, le=len(_NAMES))] = 3
    error_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Share of demonstrators who overlook a contradiction"
    )


class Knights:
    """Each person makes one claim; exactly one assignment of roles fits them all.

    `A says: B is a knave. B says: A and B are different.` -> `try A is a knight, B is a knight: A contradicts ... so ...`
    """

    name = "knights"
    describe = "find out who is a knight and who is a knave from what they say"
    params = KnightsParams

    def row(self, seed: int, index: int, params: KnightsParams) -> dict[str, Any]:
        random = row_random(self.name, seed, index)
        claims, roles = _draw_solvable(random, seed, params.people)
        careless = random.random() < params.error_rate
        completion, mistake = _work(random, claims, roles, careless)
        return {
            "task": self.name,
            "prompt": " ".join(f"{_NAMES[speaker]} says: {_say(claim)}." for speaker, claim in enumerate(claims)),
            "completion": completion,
            "answer": _write(roles),
            "mistake": mistake,
        }

    def check(self, completion: str, row: Mapping[str, Any]) -> Verdict:
        """The roles after the last `so`, `answer` or `therefore` (else the whole text): all named, none twice differently."""
        final = list(_FINAL.finditer(completion))
        answered = _read(completion[final[-1].end() :] if final else completion)
        wanted = _read(str(row["answer"]))
        if set(answered) != set(wanted):
            return Verdict.unparsable(f"wanted a role for each of {', '.join(wanted)}, got {', '.join(answered) or 'none'}")
        if answered == wanted:
            return Verdict.passed()
        return Verdict.failed(f"right is: {row['answer']}")


def _read(text: str) -> dict[str, frozenset[str]]:
    roles: dict[str, set[str]] = {}
    for name, role in _ANSWER.findall(text):
        roles.setdefault(name.upper(), set()).add(role.lower())
    return {name: frozenset(said) for name, said in roles.items()}


def _draw_solvable(random: Random, seed: int, people: int) -> tuple[tuple[Claim, ...], Roles]:
    """One claim a person, and the only roles that fit them all."""
    for _ in range(1000):
        claims = draw_problem(random, seed, lambda r: tuple(_draw_claim(r, speaker, people) for speaker in range(people)))
        solutions = _solutions(claims)
        if len(solutions) == 1:
            return claims, solutions[0]
    raise DataError("no claims found with one solution", place="params of knights", fix="choose more people")


def _draw_claim(random: Random, speaker: int, people: int) -> Claim:
    kind = random.choice(("is", "and", "or", "same", "different"))
    if kind == "is":  # of somebody else: "I am a knight" says nothing, "I am a knave" cannot be said
        return kind, random.choice([person for person in range(people) if person != speaker]), random.random() < 0.5, 0, True
    first, second = sorted(random.sample(range(people), 2))
    if kind in ("and", "or"):
        return kind, first, random.random() < 0.5, second, random.random() < 0.5
    return kind, first, True, second, True


def _holds(claim: Claim, roles: Roles) -> bool:
    kind, first, first_knight, second, second_knight = claim
    first_fits, second_fits = roles[first] == first_knight, roles[second] == second_knight
    if kind == "is":
        return first_fits
    if kind in ("and", "or"):
        return first_fits and second_fits if kind == "and" else first_fits or second_fits
    return (first_fits == second_fits) == (kind == "same")


def _wrong_speaker(claims: Sequence[Claim], roles: Roles) -> int | None:
    """The first speaker whose claim does not go with the role, None where the roles fit."""
    return next((speaker for speaker, claim in enumerate(claims) if _holds(claim, roles) != roles[speaker]), None)


def _solutions(claims: Sequence[Claim]) -> list[Roles]:
    return [roles for roles in product((True, False), repeat=len(claims)) if _wrong_speaker(claims, roles) is None]


def _say(claim: Claim) -> str:
    kind, first, first_knight, second, second_knight = claim
    if kind in ("same", "different"):
        return f"{_NAMES[first]} and {_NAMES[second]} are {'the same' if kind == 'same' else 'different'}"
    if kind == "is":
        return _is(first, first_knight)
    return f"{_is(first, first_knight)} {kind} {_is(second, second_knight)}"


def _is(person: int, knight: bool) -> str:
    return f"{_NAMES[person]} is a {'knight' if knight else 'knave'}"


def _write(roles: Roles) -> str:
    return ", ".join(_is(person, knight) for person, knight in enumerate(roles))


def _work(random: Random, claims: Sequence[Claim], roles: Roles, careless: bool) -> tuple[str, str]:
    """Try the assignments in order, naming the claim that breaks each; a careless demonstrator overlooks one break."""
    tried = list(product((True, False), repeat=len(claims)))
    right = tried.index(roles)
    overlooked = random.randrange(right) if careless and right else right
    lines = []
    for wrong in tried[:overlooked]:
        speaker = _wrong_speaker(claims, wrong)
        assert speaker is not None
        lines.append(f"try {_write(wrong)}: {_NAMES[speaker]} contradicts")
    lines.append(f"try {_write(tried[overlooked])}: fits")
    return "\n".join([*lines, f"so {_write(tried[overlooked])}"]), "overlooked" if overlooked != right else ""
