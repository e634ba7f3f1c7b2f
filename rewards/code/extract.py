"""The program in a completion."""

from __future__ import annotations

import re

from align.rewards.answers import visible_part
from align.rewards.fences import fenced_blocks

_FUNCTION = re.compile(r"^def (\w+)\(", re.MULTILINE)
_PYTHON = ("python", "py", "python3")


def program_of(completion: str, *, languages: tuple[str, ...] = _PYTHON, prompt: str | None = None) -> str | None:
    """The program that a completion writes, or None where the thinking part never ends or nothing is left.

    That is the last closed fence of one of `languages`, else the last fence, else the text itself. With `prompt` (HumanEval), the
    beginning of a program, the completion may also be what follows it: it is, where it has no fence and does not define the
    prompt's last function itself.
    """
    text = visible_part(completion)
    if text is None:
        return None
    blocks = fenced_blocks(text)
    named = [content for language, content in blocks if language in languages]
    fenced = named or [content for _, content in blocks]
    program = fenced[-1] if fenced else _open_fence(text)
    if not program.strip():
        return None
    return program if prompt is None else continued(prompt, program)


def continued(prompt: str, program: str) -> str:
    """The prompt with the completion behind it; of a whole program the prompt's imports and helpers in front of it."""
    entry = _last_function(prompt)
    if entry is not None and f"def {entry}(" in program:
        return f"{_head(prompt, entry)}\n{program}"
    return prompt + program


def _open_fence(text: str) -> str:
    """A text that opens a fence and was cut off, without the fence; any other text as it is."""
    _, fence, rest = text.partition("```")
    return rest.partition("\n")[2] if fence and text.lstrip().startswith("```") else text


def _last_function(prompt: str) -> str | None:
    names = _FUNCTION.findall(prompt)
    return names[-1] if names else None


def _head(prompt: str, entry: str) -> str:
    """What stands before the function `entry` in the prompt."""
    return prompt[: prompt.rindex(f"def {entry}(")]
