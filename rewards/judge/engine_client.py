"""A judge in this process: the run's own engine between two rollouts, or a local model of its own.

Nothing holds such a model to a schema: its answer is read as it is, and an unsound one is a failure.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.data.chat import Chat
from align.data.columns import BadRow
from align.errors import RolloutError, first_line
from align.rewards.daemon import DaemonThread
from align.rewards.judge.answer import Answer, sound_value, summed
from align.rewards.judge.client import JudgeFailure, JudgeReply, JudgeRequest
from align.rewards.judge.settings import JudgeSettings
from align.rewards.reward import fingerprint, source_of
from align.rollout.engine import RolloutEngine, SharedEngine
from align.rollout.turns import TakingTurns
from align.types import Message, Prompt, Sampling

_CANDIDATES = 20  # as many first tokens as servers report


@dataclass(slots=True)
class _Asked:
    """A request and what became of it; the future hears of it when the engine is free again."""

    request: JudgeRequest
    future: Future[JudgeReply]
    outcome: JudgeReply | JudgeFailure | None = None

    def deliver(self) -> None:
        if isinstance(self.outcome, JudgeReply):
            self.future.set_result(self.outcome)
        else:
            self.future.set_exception(self.outcome or JudgeFailure("the engine left the request out", kind="garbage"))


class RunEngineClient:
    """Judges on an engine that takes turns: after the policy's rollout, never within it. What comes together is decoded together.

    Draws come from each request's id and seed alone, so that no state of the run is touched.
    """

    def __init__(self) -> None:
        self.version = fingerprint(source_of(type(self)), "run")
        self._engine: SharedEngine | None = None
        self._queue: list[_Asked] = []
        self._lock = threading.Lock()
        self._closed = False
        self._thread = DaemonThread("align-judge-engine")

    def attach(self, engine: SharedEngine, tokenizer: Any) -> None:
        self._engine, self._tokenizer, self._chat = engine, tokenizer, Chat(tokenizer)

    async def ask(self, request: JudgeRequest) -> JudgeReply:
        if self._engine is None:
            fix = "name a base_url, or a local model (engine: local)"
            raise JudgeFailure("there is no run whose engine could judge", kind="refused", place="engine: run", fix=fix)
        asked = _Asked(request, Future())
        with self._lock:
            if self._closed:
                raise JudgeFailure("the judge's client was closed", kind="unreachable")
            self._queue.append(asked)
            if len(self._queue) == 1:
                self._thread.submit(self._work)
        return await asyncio.wrap_future(asked.future)

    def close(self) -> None:
        with self._lock:
            self._closed, waiting, self._queue = True, self._queue, []
        for asked in waiting:
            if asked.future.set_running_or_notify_cancel():
                asked.future.set_exception(JudgeFailure("the judge's client was closed", kind="unreachable"))
        self._thread.shutdown(cancel_futures=True)

    def _work(self) -> None:
        """A turn: answer all that came while the engine was busy.

        Nobody hears of an answer before the turn is over: a loop that has its verdicts goes on to change the model.
        """
        assert self._engine is not None
        with self._engine.turn() as engine:
            with self._lock:
                batch, self._queue = self._queue, []
            batch = [asked for asked in batch if asked.future.set_running_or_notify_cancel()]
            try:
                self._judge(engine, batch)
            except Exception as error:  # noqa: BLE001  whatever it is, the requests without an answer have failed of it
                for asked in batch:
                    asked.outcome = asked.outcome or JudgeFailure(f"the engine failed: {first_line(error)}", kind="refused")
        for asked in batch:
            asked.deliver()

    def _judge(self, engine: RolloutEngine, batch: Sequence[_Asked]) -> None:
        sampled: dict[tuple[int, float], list[tuple[_Asked, Prompt]]] = {}
        for asked in batch:
            request = asked.request
            try:
                prompt = self._prompt(request)
                if request.choices:
                    self._settle(asked, prompt, Answer(text="", logprobs=self._candidates(engine, prompt), usage=None), 0)
                else:
                    sampled.setdefault((request.max_tokens, request.temperature), []).append((asked, prompt))
            except (BadRow, RolloutError) as error:
                asked.outcome = _refused(error)
        for (max_tokens, temperature), members in sampled.items():
            self._sample(engine, members, Sampling(max_tokens=max_tokens, temperature=temperature))

    def _sample(self, engine: RolloutEngine, members: Sequence[tuple[_Asked, Prompt]], sampling: Sampling) -> None:
        """Decode together; where the engine refuses, one by one, so that a prompt which is too long fails alone."""
        try:
            for done in engine.generate([prompt for _, prompt in members], sampling):
                asked, prompt = members[done.prompt_index]
                answer = Answer(text=done.text, logprobs={}, usage=None, cut=done.finish_reason == "length")
                self._settle(asked, prompt, answer, len(done.token_ids))
        except RolloutError as error:
            if len(members) == 1:
                members[0][0].outcome = _refused(error)
                return
            for member in members:
                if member[0].outcome is None:
                    self._sample(engine, [member], sampling)

    def _settle(self, asked: _Asked, prompt: Prompt, answer: Answer, tokens: int) -> None:
        request = asked.request
        try:
            asked.outcome = JudgeReply(
                id=request.id,
                text=answer.text,
                value=sound_value(request, answer),
                logprobs=answer.logprobs,
                prompt_tokens=len(prompt.token_ids),
                completion_tokens=tokens,
            )
        except JudgeFailure as failure:
            asked.outcome = failure

    def _prompt(self, request: JudgeRequest) -> Prompt:
        messages = request.messages
        try:
            text = self._chat.text(messages, generation_prompt=True)
        except BadRow:
            if (joined := _without_system(messages)) is None:
                raise
            text = self._chat.text(joined, generation_prompt=True)  # some templates know no system turn
        (ids,) = self._chat.encode([text])
        return Prompt(id=f"judge/{request.seed}/{request.id}", messages=messages, token_ids=tuple(ids))

    def _candidates(self, engine: RolloutEngine, prompt: Prompt) -> dict[str, float]:
        """Log-probs of the likeliest first tokens, by their text."""
        next_logprobs = getattr(engine, "next_logprobs", None)
        if next_logprobs is None:
            return {}
        logp_V = next_logprobs(prompt)
        top = logp_V.topk(min(_CANDIDATES, len(logp_V)))
        texts = [self._tokenizer.decode([token]) for token in top.indices.tolist()]
        return summed(zip(texts, top.values.tolist(), strict=True))


class LocalModelClient(RunEngineClient):
    """Judges with a model of its own, loaded here. Raises CheckpointError where it cannot be loaded."""

    def __init__(self, settings: JudgeSettings) -> None:
        import torch

        from align.learner.model import load_model, load_tokenizer
        from align.learner.trained import model_folder
        from align.recipe.schema import Model
        from align.rewards.score_model import content_hash
        from align.rollout.transformers import TransformersEngine

        super().__init__()
        described = Model(path=settings.model)
        with torch.random.fork_rng():  # loading may draw, and the run's own draws must not change by it
            tokenizer = load_tokenizer(described)
            model = load_model(described, tokenizer)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = model.to(device=device, dtype=getattr(torch, settings.dtype)).eval().requires_grad_(False)
        folder = Path(model_folder(str(settings.model))).expanduser()
        content = content_hash(folder) if folder.is_dir() else str(settings.model)
        self.version = fingerprint(source_of(type(self)), content, settings.dtype)
        self.attach(TakingTurns(TransformersEngine(model, tokenizer)), tokenizer)


def _refused(error: Exception) -> JudgeFailure:
    return JudgeFailure(f"the judge cannot be asked this: {getattr(error, 'message', None) or first_line(error)}", kind="refused")


def _without_system(messages: Sequence[Message]) -> list[Message] | None:
    """The system turn's text before that of the first turn of the user; None where that is not how they begin."""
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    text = f"{messages[0]['content']}\n\n{messages[1]['content']}"
    return [{**messages[1], "content": text}, *messages[2:]]
