"""The token-by-token record of a step's rollouts, from what the step has computed anyway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from align.learner.packing import Batch
from align.loops.optimize import Updates
from align.run.tokens import TokenRecord, TokenTexts
from align.types import Group

if TYPE_CHECKING:
    from align.recipe.schema import RLRecipe


def records_tokens(recipe: RLRecipe, step: int) -> bool:
    """Whether the rollouts of a step are kept token by token."""
    every = recipe.log.tokens_every
    return bool(every) and (step == 1 or step % every == 0)


def token_records(groups: Sequence[Group], batch: Batch, updates: Updates, tokenizer: Any) -> list[list[TokenRecord]]:
    """tokens_PG: the record of each sample of the groups that `batch` was packed from."""
    assert batch.advantage_N is not None
    trained_N = batch.mask_N.numpy()
    old_N = batch.old_N if batch.old_N is not None else updates.policy[0].logp_N if updates.policy else None
    trainer_N = np.full(len(trained_N), np.nan) if old_N is None else np.where(trained_N, old_N.double().numpy(), np.nan)
    entropy_N = updates.entropy_N if batch.entropy_N is None else batch.entropy_N
    numbers = {
        "entropy": np.where(trained_N, entropy_N.numpy(), np.nan),
        "advantage": np.where(trained_N, batch.advantage_N.numpy(), np.nan),
    }
    texts, records, begin = TokenTexts(tokenizer), [], 0
    for group in groups:
        samples = []
        for sample in group.samples:
            completion = sample.rollout.completion
            begin += len(group.prompt.token_ids)
            place = slice(begin, begin + len(completion.token_ids))
            begin = place.stop
            logprob = np.full(len(completion.token_ids), np.nan) if sample.rollout.demonstrated else np.array(completion.logprobs)
            samples.append(
                TokenRecord(
                    text=texts.of(completion.token_ids, completion.text),
                    logprob=logprob,
                    difference=logprob - trainer_N[place],
                    **{name: number_N[place] for name, number_N in numbers.items()},
                )
            )
        records.append(samples)
    assert begin == len(trained_N)
    return records
