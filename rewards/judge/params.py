"""The parameters of the rewards `judge` and `rubric`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from align.errors import AlignError
from align.rewards.judge.rubric import Criterion, Example, Rubric, read_rubric
from align.rewards.judge.settings import JudgeSettings
from align.rewards.reward import Params

JudgeMode = Literal["pointwise", "votes", "yes_no", "pairwise", "listwise"]
Share = Annotated[float, Field(ge=0, le=1)]

# The modes in which each parameter means something; one that is not here means something in all.
_MODES: dict[str, tuple[JudgeMode, ...]] = {
    "low": ("pointwise", "votes"),
    "high": ("pointwise", "votes"),
    "levels": ("pointwise", "votes"),
    "examples": ("pointwise", "votes"),
    "k": ("votes", "listwise"),
    "average": ("votes",),
    "quorum": ("votes", "pairwise", "listwise"),
    "pairs": ("pairwise",),
    "both_orders": ("pairwise",),
    "ties": ("pairwise",),
    "strength": ("pairwise",),
    "words": ("yes_no",),
    "scale": ("yes_no",),
}
_DEFAULT_INSTRUCTIONS = {
    "yes_no": "Is the answer correct, and does it do what the question asks for?",
    "": "Judge how good the answer is: whether it is correct, does what the question asks for, leaves nothing out that matters, "
    "and is clear. Length by itself is no merit.",
}


class AskingParams(Params):
    """What both rewards have in common."""

    client: JudgeSettings = Field(description="Who is asked, and how; see docs/judges.md")
    show_reference: bool = Field(False, description="Show the judge the row's reference answer")
    show_thinking: bool = Field(False, description="Show the judge what stands before </think> too")
    max_characters: int = Field(40_000, gt=0, description="Longer answers fail without a call: none is cut")
    pass_at: Share = Field(0.5, description="The value from which a verdict is a pass")
    temperature: float | None = Field(None, ge=0, le=2, description="Of the judge; default: 0, of votes 0.7")
    max_tokens: int = Field(1024, gt=0, description="Of a reply")
    seed: int = Field(0, description="Sent along with a request; votes and rankings count up from it")


class Graded(Params):
    """An answer with the score that it deserves (an anchor), shown to the judge."""

    prompt: str = Field("", description="The question that it answers; default: it is left open")
    answer: str
    score: int
    why: str = ""


class JudgeParams(AskingParams):
    mode: JudgeMode = "pointwise"
    instructions: str = Field("", description="What to judge by; default: how good the answer is, or whether it is correct")
    low: int = Field(1, description="pointwise, votes: the worst score")
    high: int = Field(10, description="pointwise, votes: the best score")
    levels: dict[int, str] = Field(default_factory=dict, description="pointwise, votes: what some of the scores mean")
    examples: tuple[Graded, ...] = Field((), description="pointwise, votes: answers with their scores")
    k: int = Field(4, ge=1, le=64, description="votes: samples of the judge; listwise: rankings in different orders (default 2)")
    average: Literal["mean", "median"] = Field("mean", description="votes: what the votes become")
    quorum: Share = Field(0.5, description="votes, pairwise, listwise: share of a sample's calls that must have succeeded")
    pairs: Literal["all", "ring", "first", "reference"] = Field("all", description="pairwise: which answers meet")
    both_orders: bool = Field(True, description="pairwise: ask twice, either answer first once")
    ties: bool = Field(True, description="pairwise: the judge may call a tie")
    strength: Literal["win_rate", "bradley_terry"] = Field("win_rate", description="pairwise: what the comparisons become")
    words: tuple[str, str] = Field(("Yes", "No"), description="yes_no: the good word and the bad one")
    scale: Literal["probability", "log_odds"] = Field("probability", description="yes_no: what the log-probs become")

    @model_validator(mode="after")
    def _consistent(self) -> JudgeParams:
        if stray := next((name for name in self.model_fields_set if self.mode not in _MODES.get(name, (self.mode,))), None):
            raise ValueError(f"{stray} means nothing in the mode {self.mode}: it belongs to {', '.join(_MODES[stray])}")
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} is not below high = {self.high}")
        scores = [*self.levels, *(example.score for example in self.examples)]
        if outside := next((score for score in scores if not self.low <= score <= self.high), None):
            raise ValueError(f"the score {outside} is outside {self.low} to {self.high}")
        if self.pairs == "reference" and "show_reference" in self.model_fields_set and self.show_reference:
            raise ValueError("pairs: reference compares with the reference already; leave show_reference out")
        good, bad = (word.strip().casefold() for word in self.words)
        if not good or not bad or good.startswith(bad) or bad.startswith(good):
            raise ValueError(f"words: {self.words[0]!r} and {self.words[1]!r} cannot be told apart by how they begin")
        return self

    @property
    def task(self) -> str:
        """What the judge is asked to judge by."""
        return self.instructions.strip() or _DEFAULT_INSTRUCTIONS.get(self.mode, _DEFAULT_INSTRUCTIONS[""])

    @property
    def repetitions(self) -> int:
        return 2 if self.mode == "listwise" and "k" not in self.model_fields_set else self.k


class RubricParams(AskingParams):
    rubric: Path | None = Field(None, description="A YAML file with the keys below; those given here replace its own")
    column: str | None = Field(None, description="The column of a row that holds its own criteria, which come after the others")
    instructions: str | None = Field(None, description="What the judge should know besides the criteria")
    criteria: tuple[Criterion, ...] | None = None
    normalise: Literal["clip", "span"] | None = Field(None, description="How points become a value; default: clip")
    floor: Share | None = Field(None, description="The value where a veto fails; default: 0")
    examples: tuple[Example, ...] | None = Field(None, description="Answers with the levels that they deserve")
    calls: Literal["one", "each"] = Field("one", description="One call for all criteria, or one for each, gates first")

    @model_validator(mode="after")
    def _usable(self) -> RubricParams:
        rubric = self.common_rubric()
        if self.column is None:
            rubric.check_usable()
        return self

    def common_rubric(self) -> Rubric:
        """What every row is judged by. Raises ValueError where the file, or what is given beside it, is wrong."""
        try:
            base: dict[str, Any] = {} if self.rubric is None else read_rubric(self.rubric).model_dump()
        except AlignError as error:
            raise ValueError(f"{error.place}: {error.message}") from None
        names = ("instructions", "criteria", "normalise", "floor", "examples")
        return Rubric.model_validate({**base, **{name: given for name in names if (given := getattr(self, name)) is not None}})
