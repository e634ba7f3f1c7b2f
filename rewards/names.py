"""The rewards by the name that a recipe writes: built in, or of an installed package. No reward is imported to look one up."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from align.recipe.schema import RewardSpec

# name: the class, which is imported when a recipe asks for it
REWARD_TABLE: Mapping[str, str] = {
    "math": "align.rewards.math:MathReward",
    "exact": "align.rewards.exact:ExactReward",
    "choice": "align.rewards.choice:ChoiceReward",
    "regex": "align.rewards.regex:RegexReward",
    "json_schema": "align.rewards.json_schema:JSONSchemaReward",
    "table": "align.rewards.table:TableReward",
    "sql": "align.rewards.sql:SQLReward",
    "f1": "align.rewards.overlap:F1Reward",
    "similarity": "align.rewards.overlap:SimilarityReward",
    "boxes": "align.rewards.boxes:BoxesReward",
    "logic": "align.rewards.logic:LogicReward",
    "countdown": "align.rewards.countdown:CountdownReward",
    "reasoning_gym": "align.rewards.reasoning_gym.reward:ReasoningGymReward",
    "instructions": "align.rewards.instructions.reward:InstructionsReward",
    "task": "align.rewards.task:TaskReward",
    "format.think": "align.rewards.format:ThinkFormat",
    "format.boxed": "align.rewards.format:BoxedFormat",
    "format.tags": "align.rewards.format:TagsFormat",
    "format.fence": "align.rewards.format:FenceFormat",
    "format.language": "align.rewards.language:LanguageFormat",
    "format.cosine": "align.rewards.format:CosineFormat",
    "format.length": "align.rewards.format:LengthFormat",
    "format.repetition": "align.rewards.format:RepetitionFormat",
    "judge": "align.rewards.judge.reward:JudgeReward",
    "rubric": "align.rewards.judge.reward:RubricReward",
    "code": "align.rewards.code.reward:CodeReward",
    "reward_model": "align.rewards.reward_model:RewardModelReward",
}
REWARD_NAMES: tuple[str, ...] = tuple(REWARD_TABLE)
PLUGIN_GROUP = "align.rewards"


def plugins() -> Mapping[str, str]:
    """The rewards that installed packages offer as entry points of the group `align.rewards`: name, "package.module:thing".

    A built-in keeps its name. Where two packages offer the same name, the one whose place sorts first has it (`align doctor` says
    so), so that a run does not depend on the order of installation.
    """
    offered = sorted((f"{point.module}:{point.attr}", point.name) for point in entry_points(group=PLUGIN_GROUP))
    return {name: place for place, name in reversed(offered) if built_in_name(name) is None}


def is_model_path(use: str) -> bool:
    """Whether a reward's `use` is the path, or hub id, of a reward model: it has a slash, and is no function in a file."""
    return "/" in use and ":" not in use and not use.endswith(".py")


def built_in_name(use: str) -> str | None:
    """The built-in reward that `use` means, None for a function of the user's own or an unknown name."""
    if is_model_path(use):
        return "reward_model"
    return use if use in REWARD_TABLE else None


def reward_name(spec: RewardSpec) -> str:
    """The name of a reward in metrics and records: its own, else that of the built-in, the plug-in or the function."""
    known = spec.name or built_in_name(spec.use)
    if known is None and spec.use not in plugins():
        return spec.use.replace(":", ".").rsplit(".", 1)[-1]
    return known or spec.use
