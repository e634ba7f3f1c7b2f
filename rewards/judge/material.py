"""What a judge gets to see of a rollout: the question, the answer, and a reference where it is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.rewards.answers import visible_part
from align.rewards.judge.params import AskingParams
from align.rewards.judge.quoting import neutral
from align.rewards.reward import gold_of
from align.rewards.verdict import Verdict
from align.types import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One answer to judge. Every text is neutral; `reference` is None where the judge is not shown one."""

    question: str
    answer: str
    reference: str | None = None

    @property
    def context(self) -> list[tuple[str, str]]:
        """The blocks that stand before the answer."""
        return [("question", self.question), *([] if self.reference is None else [("reference answer", self.reference)])]


def case_of(rollout: Rollout, params: AskingParams) -> Case | Verdict:
    """The case of a rollout, or the verdict where there is nothing to ask a judge.

    An answer that is empty, never gets out of its thinking part or is longer than `max_characters` fails without a call: a judge
    that is shown a part of an answer would judge another answer. A reference that is wanted and missing is an error.
    """
    reference = gold_of(rollout) if params.show_reference else None
    if params.show_reference and reference is None:
        return Verdict.error("the judge is to see a reference, and the row has none")
    text = rollout.completion.text if params.show_thinking else visible_part(rollout.completion.text)
    if text is None:
        return Verdict.failed("the thinking part never ends: there is no answer")
    if not text.strip():
        return Verdict.failed("an empty answer")
    if len(text) > params.max_characters:
        return Verdict.failed(f"{len(text)} characters: more than the {params.max_characters} that a judge is shown")
    return Case(
        question=neutral(question_text(rollout.prompt.messages)),
        answer=neutral(text.strip()),
        reference=None if reference is None else neutral(str(reference)),
    )


def question_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """A prompt as text: a single message as it is, of a conversation each message under its role."""
    texts = [_content(message.get("content")) for message in messages]
    if len(messages) == 1:
        return texts[0]
    return "\n\n".join(f"({message.get('role', 'user')})\n{text}" for message, text in zip(messages, texts, strict=True))


def _content(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", f"[{part.get('type', 'part')}]")) for part in content if isinstance(part, Mapping))
    return "" if content is None else str(content)
