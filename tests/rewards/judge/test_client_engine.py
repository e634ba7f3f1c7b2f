"""Judges in this process: on the run's engine, in turns with the policy, and with a local model."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from align.errors import CheckpointError, RolloutError
from align.learner.fresh import train_tokenizer
from align.loops.rl import train
from align.recipe.load import load_recipe
from align.recipe.schema import TokenizerInit
from align.rewards.judge.client import JudgeClient, JudgeFailure, JudgeRequest, open_client
from align.rewards.judge.engine_client import RunEngineClient
from align.rewards.judge.settings import JudgeSettings
from align.rollout.transformers import TransformersEngine
from align.rollout.turns import TakingTurns
from align.types import Completion, Prompt, Sampling
from tests.loops.conftest import RL, kept, write_recipe
from tests.rewards.judge.scripted import question
from tests.rollout.conftest import ScriptedModel, tiny_model

Texts = Callable[[Prompt], str]


class ScriptedEngine:
    """Writes what a function says; notes which prompts came together, and whether two calls ever ran into each other."""

    def __init__(self, texts: Texts, longest: int = 100, seconds: float = 0.0) -> None:
        self.texts, self.longest, self.seconds = texts, longest, seconds
        self.calls: list[list[str]] = []
        self.busy = 0

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Completion]:
        self.calls.append([prompt.id for prompt in prompts])
        assert self.busy == 0, "two calls at once"
        self.busy += 1
        try:
            for prompt in prompts:
                if len(prompt.token_ids) > self.longest:
                    raise RolloutError("the prompt is too long")
            for index, prompt in enumerate(prompts):
                time.sleep(self.seconds)
                text = self.texts(prompt)
                yield Completion(
                    prompt_index=index,
                    sample_index=0,
                    token_ids=tuple(text.encode()),
                    logprobs=(0.0,) * len(text.encode()),
                    text=text,
                    finish_reason="stop",
                )
        finally:
            self.busy -= 1

    def publish(self, weights: Any, version: int) -> None: ...

    def sleep(self) -> None: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


def grade_for(prompt: Prompt) -> str:
    return f'{{"id": "{prompt.messages[0]["content"]}", "score": 7}}'


def ask(client: JudgeClient, *requests: JudgeRequest) -> list[Any]:
    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*map(client.ask, requests), return_exceptions=True)

    return asyncio.run(all_of_them())


@pytest.fixture
def client() -> Iterator[RunEngineClient]:
    client = open_client(JudgeSettings(engine="run"))
    assert isinstance(client, RunEngineClient)
    yield client
    client.close()


def test_the_judge_waits_for_the_end_of_the_rollout_and_what_came_meanwhile_is_answered_together(
    client: RunEngineClient, tokenizer: Any
) -> None:
    engine = ScriptedEngine(grade_for)
    turns = TakingTurns(engine)
    client.attach(turns, tokenizer)
    policy = turns.generate([Prompt(id="p", messages=({"content": "?"},), token_ids=(1,))] * 3, Sampling())
    next(policy)
    got: list[Any] = []
    judged = threading.Thread(target=lambda: got.extend(ask(client, *(question(f"q{n}") for n in range(5)))))
    judged.start()
    time.sleep(0.1)
    assert len(engine.calls) == 1
    assert len(list(policy)) == 2
    judged.join(20)
    assert [reply.value for reply in got] == [{"id": f"q{n}", "score": 7} for n in range(5)]
    assert engine.calls[1:] == [[f"judge/None/q{n}" for n in range(5)]]
    assert [(reply.prompt_tokens, reply.completion_tokens) for reply in got] == [(2, 24)] * 5


def test_a_rollout_that_is_given_up_gives_the_engine_back(client: RunEngineClient, tokenizer: Any) -> None:
    turns = TakingTurns(ScriptedEngine(grade_for))
    client.attach(turns, tokenizer)
    policy = turns.generate([Prompt(id="p", messages=({"content": "?"},), token_ids=(1,))] * 3, Sampling())
    next(policy)
    closer = threading.Thread(target=policy.close)  # type: ignore[attr-defined]
    closer.start()
    closer.join()
    assert ask(client, question())[0].value["score"] == 7


def test_unsound_answers_and_prompts_that_are_too_long_fail_alone(client: RunEngineClient, tokenizer: Any) -> None:
    answers = {"q1": "7", "q2": '{"id": "q1", "score": 7}', "q3": '{"id": "q3", "score": 99}', "q4": "I think"}

    def texts(prompt: Prompt) -> str:
        return answers.get(prompt.messages[0]["content"]) or grade_for(prompt)

    client.attach(TakingTurns(ScriptedEngine(texts, longest=3)), tokenizer)
    outcomes = ask(client, *(question(name) for name in [*answers, "q5", "much too long", "q6"]))
    kinds = [getattr(outcome, "kind", None) for outcome in outcomes]
    assert kinds == ["schema", "wrong_id", "schema", "garbage", None, "refused", None]
    assert "too long" in outcomes[5].message


def test_requests_of_other_temperatures_or_lengths_are_sampled_as_they_ask(client: RunEngineClient, tokenizer: Any) -> None:
    engine = ScriptedEngine(grade_for)
    client.attach(TakingTurns(engine), tokenizer)
    outcomes = ask(
        client, question("q1", seed=1), question("q2", seed=2), question("q1", temperature=1.0), question("q1", max_tokens=9)
    )
    assert [outcome.value["score"] for outcome in outcomes] == [7] * 4
    assert sorted(engine.calls) == [["judge/1/q1", "judge/2/q2"], ["judge/None/q1"], ["judge/None/q1"]]


def test_a_cancelled_request_is_not_decoded_and_closing_fails_the_others(client: RunEngineClient, tokenizer: Any) -> None:
    engine = ScriptedEngine(grade_for)
    turns = TakingTurns(engine)
    client.attach(turns, tokenizer)

    async def main() -> list[Any]:
        with turns.turn():
            asked = [asyncio.create_task(client.ask(question(f"q{n}"))) for n in range(2)]
            await asyncio.sleep(0.05)
            asked[0].cancel()
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        with turns.turn():
            late = asyncio.create_task(client.ask(question("q3")))
            await asyncio.sleep(0.05)
            client.close()
        return [*outcomes, *await asyncio.gather(late, client.ask(question("q4")), return_exceptions=True)]

    cancelled, fine, late, after = asyncio.run(main())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert fine.value["id"] == "q1"
    assert engine.calls == [["judge/None/q1"]]
    assert [late.kind, after.kind] == ["unreachable", "unreachable"]


def test_without_a_run_there_is_no_engine_to_judge_on(client: RunEngineClient) -> None:
    (failure,) = ask(client, question())
    assert (failure.kind, bool(failure.fix)) == ("refused", True)


def test_the_engine_of_a_model_answers_as_the_model_does(client: RunEngineClient, tokenizer: Any) -> None:
    model = ScriptedModel(b'{"id": "q1", "score": 3}', prompt_length=2)
    client.attach(TakingTurns(TransformersEngine(model, tokenizer)), tokenizer)
    (reply,) = ask(client, question("q1", max_tokens=60))
    assert (reply.value, reply.completion_tokens) == ({"id": "q1", "score": 3}, 25)
    (cut,) = ask(client, question("q1", max_tokens=10))
    assert (cut.kind, "max_tokens" in cut.message) == ("garbage", True)


def test_first_token_log_probs_are_the_models_and_no_state_is_touched(client: RunEngineClient, tokenizer: Any) -> None:
    model = tiny_model().train()
    client.attach(TakingTurns(TransformersEngine(model, tokenizer)), tokenizer)
    state = torch.random.get_rng_state()
    request = question("Is it?", schema=None, choices=("Yes", "No"), max_tokens=1)
    (reply, sampled) = ask(client, request, question("Is it?", schema=None, temperature=1.0))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    model.eval()
    with torch.no_grad():
        expected_V = model(torch.tensor([list(b"Is it?")])).logits[0, -1].double().log_softmax(-1)
    top = expected_V.topk(20)
    by_text: dict[str, float] = {}
    for token, logp in zip(top.indices.tolist(), top.values.exp().tolist(), strict=True):
        by_text[tokenizer.decode([token])] = by_text.get(tokenizer.decode([token]), 0.0) + logp
    assert {text: pytest.approx(logp, rel=1e-5) for text, logp in by_text.items()} == {
        text: torch.tensor(logp).exp().item() for text, logp in reply.logprobs.items()
    }
    assert sampled.text


def test_a_template_without_a_system_turn_gets_its_text_before_the_question(client: RunEngineClient, tokenizer: Any) -> None:
    strict = copy.deepcopy(tokenizer)
    refusing = "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    strict.chat_template = "{% for m in messages %}" + refusing + "<{{ m.content }}>{% endfor %}"
    seen: list[str] = []

    def texts(prompt: Prompt) -> str:
        seen.append(bytes(prompt.token_ids).decode())
        return "fine"

    client.attach(TakingTurns(ScriptedEngine(texts)), strict)
    messages = ({"role": "system", "content": "Judge."}, {"role": "user", "content": "This?"})
    assert ask(client, question(messages=messages, schema=None))[0].text == "fine"
    assert seen == ["<Judge.\n\nThis?>"]


@pytest.fixture(scope="module")
def local_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    tokenizer = train_tokenizer(TokenizerInit(vocab_size=300), ["Judge this."])
    tiny_model(
        vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, pad_token_id=None, bos_token_id=None
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_local_model_judges_without_a_run_and_loading_it_draws_nothing(local_model: Path) -> None:
    state = torch.random.get_rng_state()
    client = open_client(JudgeSettings(engine="local", model=str(local_model)))
    assert torch.equal(torch.random.get_rng_state(), state)
    again = open_client(JudgeSettings(engine="local", model=str(local_model)))
    half = open_client(JudgeSettings(engine="local", model=str(local_model), dtype="bfloat16"))
    assert (client.version == again.version, client.version == half.version) == (True, False)
    requests = [question(f"q{n}", schema=None, temperature=1.0, seed=n) for n in range(3)]
    first, second = ([reply.text for reply in ask(one, *requests)] for one in (client, again))
    assert first == second
    assert len(set(first)) == 3
    for one in (client, again, half):
        one.close()


def test_a_local_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        open_client(JudgeSettings(engine="local", model=str(tmp_path)))


def test_a_run_that_is_judged_by_its_own_model_samples_and_learns_as_without(tmp_path: Path) -> None:
    """The judge is asked about every sample, knows nothing, and has weight 0: nothing of the run may differ."""
    model = {**RL["model"], "init": {**RL["model"]["init"]}}
    model["init"]["config"] = {**model["init"]["config"], "max_position_embeddings": 8192}
    judge = {"use": "judge", "weight": 0.0, "params": {"mode": "yes_no", "client": {"engine": "run"}}}
    rows = {}
    for name, more in {"without": [], "with": [judge]}.items():
        folder = tmp_path / name
        folder.mkdir()
        changes = {"model": model, "rewards": [*RL["rewards"], *more], "reward_budget": {"max_error_rate": 1.0}}
        train(load_recipe(write_recipe(folder, RL, **changes)))
        rows[name] = kept(folder / "run")
    judged = [row["rewards/judge/error_rate"] for row in rows["with"] if "rewards/judge/error_rate" in row]
    assert len(judged) == 3
    for plain, row in zip(rows["without"], rows["with"], strict=True):
        assert {key: row[key] for key in plain} == plain


def test_failures_are_reward_errors() -> None:
    assert JudgeFailure("x", kind="budget").exit_code == 6
