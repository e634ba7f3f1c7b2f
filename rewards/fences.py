"""The part of a completion that answers with a block of text: SQL, JSON, a table."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n]*\n", re.MULTILINE)
_TAGGED = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)


def fenced_blocks(text: str) -> list[tuple[str, str]]:
    """The closed code fences of a text as (language, content), in order. Time is linear in the text."""
    found: list[tuple[str, str]] = []
    at = 0
    while opening := _FENCE.search(text, at):
        mark = opening[1]
        end = text.find(f"\n{mark}", opening.end() - 1)
        if end < 0:
            break
        found.append((opening[2].casefold(), text[opening.end() : max(end, opening.end())]))
        at = end + 1 + len(mark)
    return found


def answer_block(text: str, *languages: str) -> str:
    """What an answer of several lines says: the last `<answer>`, in it or else in the text the last fence, else all of it.

    Of several fences the last one of `languages` is taken, where there is one.
    """
    if tagged := _TAGGED.findall(text):
        text = tagged[-1]
    blocks = fenced_blocks(text)
    wanted = [content for language, content in blocks if language in languages] or [content for _, content in blocks]
    return (wanted[-1] if wanted else text).strip()
