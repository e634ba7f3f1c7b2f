"""Sampled text to read: a prompt, and two of its completions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from align.types import Group, Prompt, Scored

_MOST_CHARACTERS = 600


def prompt_text(prompt: Prompt) -> str:
    """A prompt to read: the bare text of a single message, `role: text` lines of a conversation."""
    if len(prompt.messages) == 1:
        return str(prompt.messages[0].get("content", ""))
    return "\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in prompt.messages)


def describe_samples(groups: Sequence[Group], step: int) -> Text:
    """The best and the worst completion of the first group whose rewards differ, or else of the first group."""
    group = next((group for group in groups if len({reward for reward in group.rewards_G if reward == reward}) > 1), groups[0])
    ranked = sorted(group.samples, key=lambda sample: -math.inf if math.isnan(sample.reward) else sample.reward)
    shown = ranked[-1:] + ranked[:-1][:1]
    head = Text.assemble((f"samples of step {step}  ", "bold"), (shorten(prompt_text(group.prompt)), "dim"))
    return Text("\n").join([head, *map(_describe_sample, shown)])


def shorten(text: str, most: int = _MOST_CHARACTERS) -> str:
    """The start and the end of a long text, without characters that would move the cursor."""
    clean = "".join(c if c.isprintable() or c == "\n" else " " for c in text.strip())
    return clean if len(clean) <= most else f"{clean[: most * 2 // 3]} ... {clean[-most // 3 :]}"


def _describe_sample(sample: Scored) -> Text:
    completion = sample.rollout.completion
    verdicts = "; ".join(f"{name} {v.status}" + (f" ({v.detail})" if v.detail else "") for name, v in sample.verdicts.items())
    head = f"  reward {sample.reward:.3g}, {len(completion.token_ids)} tokens, {shorten(verdicts, 120)}"
    body = "".join(f"\n    {line}" for line in shorten(completion.text).splitlines())
    return Text.assemble((head, "green" if sample.reward > 0 else "red"), body)
