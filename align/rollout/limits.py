"""How much room a prompt leaves for its completion."""

from __future__ import annotations

from align.errors import RolloutError
from align.types import Prompt


def room_for(prompt: Prompt, longest: int) -> int:
    """Tokens that may follow the prompt in a context of `longest`. Raises RolloutError for an empty prompt, or where none may."""
    if not prompt.token_ids:
        raise RolloutError("the prompt has no tokens", place=prompt.id, fix="give the row a prompt, or use a chat template")
    room = longest - len(prompt.token_ids)
    if room < 1:
        raise RolloutError(
            f"the prompt has {len(prompt.token_ids)} tokens, the model takes {longest} in all",
            place=prompt.id,
            fix="lower data.max_prompt_length so that such prompts are dropped",
        )
    return room
