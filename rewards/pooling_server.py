"""A reward model behind a pooling server (vLLM's /classify): our tokens in, raw scores out, checked one by one."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.chat import Chat
from align.data.columns import BadRow
from align.data.turns import answer_text, end_of_turn, tokenize_answers
from align.errors import RecipeError
from align.learner.reward_model import RewardModelCard, last_token
from align.rewards.judge.client import JudgeFailure
from align.rewards.judge.loop_thread import LoopThread
from align.rewards.judge.retry import Gate, Pace
from align.rewards.judge.settings import JudgeSettings
from align.rewards.judge.wire import Wire
from align.rewards.reward import fingerprint
from align.rewards.score_model import PLACE, UNLIMITED, Judgement, content_hash, load_judge_tokenizer
from align.types import Rollout

if TYPE_CHECKING:
    from align.rewards.reward_model import RewardModelParams

_BATCH = 32  # answers of one request
_AGAIN = (408, 425, 429)


class ServedJudge:
    """Whole answers scored by a server; an answer without a sound score is an error."""

    def __init__(self, path: str, params: RewardModelParams) -> None:
        folder = Path(params.tokenizer or path).expanduser()
        if not folder.is_dir():
            fix = "name the local folder of its tokenizer in params.tokenizer: the server gets tokens, never text"
            raise RecipeError("a served reward model needs its tokenizer here", place=PLACE.replace("path", "tokenizer"), fix=fix)
        self.card = RewardModelCard.read(Path(path).expanduser()) if Path(path).expanduser().is_dir() else None
        if self.card and self.card.loss == "process":
            raise RecipeError(
                "a process model cannot be served", place=PLACE, fix="remove params.server: it is judged in process"
            )
        tokenizer = load_judge_tokenizer(folder)
        self._chat = Chat(tokenizer)
        self._turn_end, self._pad = end_of_turn(self._chat), tokenizer.pad_token_id
        self.version = fingerprint(path, str(params.server), content_hash(folder))
        self._longest = params.max_length or (self.card.max_length if self.card else UNLIMITED)
        self._scale = self.card if params.normalise else None
        settings = JudgeSettings(base_url=params.server, model=path, timeout=params.timeout, deadline=params.deadline)
        self._model, self._retries = path, settings.retries
        self._pace = Pace(
            first_wait=params.first_wait,
            longest_wait=30.0,
            deadline=params.deadline,
            start_deadline=params.start_deadline,
        )
        self._wire, self._gate = Wire(settings, route="/classify"), Gate(self._pace)
        self._thread = LoopThread("align-pooling")

    @property
    def attributes(self) -> tuple[str, ...]:
        return self.card.labels if self.card and self.card.loss == "regression" else ()

    def judge(self, rollouts: Sequence[Rollout]) -> list[Judgement]:
        """A judgement of each rollout, in order."""
        asked = [self._asked(rollout) for rollout in rollouts]
        sound = [one for one in asked if not isinstance(one, str)]
        batches = [sound[begin : begin + _BATCH] for begin in range(0, len(sound), _BATCH)]
        judged = iter([one for batch in batches for one in asyncio.run(self._thread.run(self._scored(batch)))])
        return [Judgement(error=one) if isinstance(one, str) else next(judged) for one in asked]

    def close(self) -> None:
        self._thread.close(self._wire.close)

    def _asked(self, rollout: Rollout) -> list[int] | str:
        try:
            rendered = answer_text(self._chat, rollout.prompt.messages, rollout.completion.text, self._turn_end)
            ((prompt, completion),) = tokenize_answers(self._chat, [rendered])
        except BadRow as error:
            return str(error)
        ids = list(prompt + completion)
        if len(ids) > self._longest:
            return f"prompt and answer have {len(ids)} tokens, the reward model takes {self._longest} (params.max_length)"
        return ids[: last_token(ids, self._pad) + 1]  # a server scores at the very last token

    async def _scored(self, batch: Sequence[list[int]]) -> list[Judgement]:
        body = {"model": self._model, "input": batch, "use_activation": False, "add_special_tokens": False}
        seconds = self._gate.patience
        try:
            async with asyncio.timeout(seconds):
                found = await self._answered(body, len(batch))
        except (JudgeFailure, TimeoutError) as error:
            why = str(error) or f"no answer within {seconds:g} s"
            return [Judgement(error=f"reward model server: {why}")] * len(batch)
        return [self._judgement(scores) for scores in found]

    async def _answered(self, body: Mapping[str, Any], count: int) -> list[list[float]]:
        for attempt in range(1, self._retries + 2):
            try:
                return await self._exchange(body, count)
            except JudgeFailure as error:
                if error.kind == "refused" or attempt > self._retries:
                    raise
            await asyncio.sleep(self._pace.wait(attempt, random.Random()))
        raise AssertionError

    async def _exchange(self, body: Mapping[str, Any], count: int) -> list[list[float]]:
        probe, alive = await self._gate.enter(), False
        try:
            response = await self._wire.post(body)
            alive = response.status < 500
        finally:
            self._gate.leave(probe=probe, alive=alive)
        if response.status == 200:
            return read_scores(response.body, count)
        again = response.status >= 500 or response.status in _AGAIN
        why = "" if again else f": {self._wire.complaint(response)}"
        raise JudgeFailure(f"HTTP status {response.status}{why}", kind="overloaded" if again else "refused")

    def _judgement(self, scores: Sequence[float]) -> Judgement:
        if self._scale:
            if len(scores) != len(self._scale.mean):
                return Judgement(error=f"the server gives {len(scores)} scores, the model's card has {len(self._scale.mean)}")
            scores = [(one - m) / s for one, m, s in zip(scores, self._scale.mean, self._scale.std, strict=True)]
        return Judgement(scores=(tuple(scores),), attributes=self.attributes)


def read_scores(content: bytes, count: int) -> list[list[float]]:
    """The logits of `count` answers by their index. Raises JudgeFailure where anything about them is unsound."""
    try:
        rows = [(row["index"], row["probs"]) for row in json.loads(content)["data"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise JudgeFailure("the answer holds no scores", kind="garbage") from None
    if [index for index, _ in rows] != list(range(count)):
        raise JudgeFailure(f"the answer does not hold {count} scores in the order asked", kind="wrong_id")
    for _, scores in rows:
        sound = isinstance(scores, list) and scores and all(type(one) in (int, float) and math.isfinite(one) for one in scores)
        if not sound or len(scores) != len(rows[0][1]):
            raise JudgeFailure("a score is missing or not a finite number", kind="garbage")
    return [scores for _, scores in rows]
