"""Several engines for several users: the same samples as one engine, side by side, and after one of them was lost."""

from __future__ import annotations

import threading
import time
from typing import Any, ClassVar

import pytest
import torch

from align.errors import EngineLostError, RolloutError
from align.rollout.pool import EnginePool
from align.rollout.transformers import TransformersEngine
from align.types import Prompt, Sampling

SAMPLING = Sampling(n=3, max_tokens=30, stop_token_ids=tuple(range(16)), seed=1)


@pytest.fixture(scope="module")
def model(kit):
    return kit.model()


@pytest.fixture
def pool_of(kit, tokenizer):
    """Pools of engines with a model of their own each, closed at the end of the test."""
    pools: list[EnginePool] = []

    def make(number: int = 1, kind: Any = TransformersEngine, **options: Any) -> EnginePool:
        pools.append(EnginePool(lambda _: kind(kit.model(), tokenizer), number, **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("align-engine")]


@pytest.fixture(scope="module")
def alone(kit, model, tokenizer):
    """What one engine gives for one call."""
    return lambda prompts, sampling: kit.by_sample(TransformersEngine(model, tokenizer).generate(prompts, sampling))


class Watched(TransformersEngine):
    """In its sixth step it has something done by another thread, and goes on when that waits for the step to end."""

    meanwhile: Any = None
    pool: Any = None
    steps = 0

    def step(self) -> Any:
        finished = super().step()
        self.steps += 1
        if self.steps == 6 and Watched.meanwhile:
            threading.Thread(target=Watched.meanwhile).start()
            Watched.meanwhile = None
            deadline = time.monotonic() + 20
            while not self.waited_for() and time.monotonic() < deadline:
                time.sleep(0.001)
        return finished

    def waited_for(self) -> bool:
        (driver,) = [driver for driver in Watched.pool._drivers if driver._engine is self]
        return bool(driver._parked or driver._unwanted)


def same(found, expected):
    assert {name: one.token_ids for name, one in found.items()} == {name: one.token_ids for name, one in expected.items()}


@pytest.mark.parametrize("number", [1, 3])
def test_users_at_once_get_what_each_would_get_alone(kit, pool_of, alone, number):
    pool, found = pool_of(number), {}
    calls = [(kit.prompts((3, 17, 9, 30), seed=seed), SAMPLING) for seed in range(4)]

    def use(index: int) -> None:
        found[index] = kit.by_sample(pool.generate(*calls[index]))

    threads = [threading.Thread(target=use, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for index, call in enumerate(calls):
        same(found[index], alone(*call))


def test_a_publish_in_the_middle_counts_from_the_next_token(kit, pool_of):
    other = kit.model(seed=1)
    Watched.pool = pool = pool_of(1, Watched)
    pool.publish(list(kit.model().state_dict().items()), 5)
    Watched.meanwhile = lambda: pool.publish(list(other.state_dict().items()), 6)
    completions = list(pool.generate(kit.prompts((3, 9, 5, 4)), Sampling(n=2, max_tokens=40, seed=2)))
    assert len(completions) == 8
    assert pool.version == 6
    for completion in completions:  # the first step computes the prompts and draws the first tokens
        assert completion.versions == ((5,) * 6 + (6,) * 34)[: len(completion.token_ids)]
    assert {len(completion.token_ids) for completion in completions} > {40}


def test_a_prompt_that_does_not_fit_fails_its_own_call_only(kit, pool_of, alone):
    pool, prompts = pool_of(), kit.prompts((4, 6))
    stream = pool.generate(prompts, SAMPLING)
    first = next(stream)
    with pytest.raises(RolloutError, match="no tokens"):
        list(pool.generate([Prompt(id="data:3", messages=(), token_ids=())], SAMPLING))
    same(kit.by_sample([first, *stream]), alone(prompts, SAMPLING))


def test_who_leaves_ends_what_runs_for_it(kit, pool_of):
    Watched.pool = pool = pool_of(1, Watched)
    Watched.meanwhile = pool.abandon
    with pytest.raises(RolloutError, match="were closed while samples were being written"):
        list(pool.generate(kit.prompts((4, 6)), Sampling(n=8, max_tokens=40)))
    stream = pool.generate(kit.prompts((4, 6)), Sampling(n=8, max_tokens=250, stop_token_ids=tuple(range(150))))
    next(stream)
    stream.close()
    deadline = time.monotonic() + 10
    while pool._drivers[0].load and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not pool._drivers[0].load
    assert not pool._drivers[0]._engine._decoders


class Mortal(TransformersEngine):
    """Is lost after a number of steps; those made later live longer."""

    lives: ClassVar[list[int]] = []

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.left = self.lives.pop(0) if self.lives else 10**9

    def step(self) -> Any:
        self.left -= 1
        if self.left < 0:
            raise EngineLostError("engine 0 was killed by SIGKILL")
        return super().step()


def test_a_lost_engine_is_replaced_and_its_samples_are_written_again(kit, pool_of, alone, model):
    Mortal.lives = [12, 10**9]
    pool = pool_of(2, Mortal, kept_dtype=torch.float32)
    other = kit.model(seed=3)
    pool.publish(list(other.state_dict().items()), 1)
    prompts = kit.prompts((3, 17, 9, 30))
    found = kit.by_sample(pool.generate(prompts, SAMPLING))
    assert pool.lost == ["engine 0 was killed by SIGKILL"]
    assert {completion.weights_version for completion in found.values()} == {1}
    same(found, kit.by_sample(TransformersEngine(other, pool._drivers[0]._engine._tokenizer).generate(prompts, SAMPLING)))


def test_weights_go_to_the_others_while_a_lost_engine_is_being_replaced(kit, tokenizer):
    first, second = kit.model(seed=1), kit.model(seed=2)
    let_start, begun = threading.Event(), threading.Event()
    told: list[str] = []
    Mortal.lives = [8, 10**9]

    def make(index: int) -> Any:
        if told:
            begun.set()
            assert let_start.wait(20)
        return Mortal(kit.model(), tokenizer)

    pool = EnginePool(make, 2, kept_dtype=torch.float32, tell=told.append)
    try:
        pool.publish(list(first.state_dict().items()), 1)
        stream = pool.generate(kit.prompts((3, 17, 9, 30)), Sampling(n=2, max_tokens=30, seed=1))
        found = [next(stream)]  # of the engine that lives
        assert begun.wait(20)
        assert told == ["engine 0 was killed by SIGKILL; another one is started in its place"]
        pool.publish(list(second.state_dict().items()), 2)
        let_start.set()
        found += stream
    finally:
        let_start.set()
        pool.close()
    assert len(found) == 8
    assert sum(completion.versions == (2,) * len(completion.versions) for completion in found) >= 4  # written anew


def test_engines_that_are_lost_again_and_again_end_the_call(kit, pool_of):
    Mortal.lives = [0] * 9
    pool = pool_of(1, Mortal, kept_dtype=torch.float32)
    with pytest.raises(EngineLostError, match="killed by SIGKILL"):
        list(pool.generate(kit.prompts((3,)), SAMPLING))
    Mortal.lives = [1]
    with pytest.raises(EngineLostError, match="killed by SIGKILL"):
        list(pool_of(1, Mortal).generate(kit.prompts((3,)), SAMPLING))


def test_a_publish_that_fails_ends_what_waits(kit, pool_of):
    Watched.pool = pool = pool_of(1, Watched)
    pool.publish(list(kit.model().state_dict().items()), 1)

    def broken() -> Any:
        yield "model.nothing.weight", kit.model().lm_head.weight

    failures: list[Exception] = []

    def publish() -> None:
        try:
            pool.publish(broken(), 2)
        except RolloutError as error:
            failures.append(error)

    Watched.meanwhile = publish
    with pytest.raises(RolloutError, match="no weight"):
        list(pool.generate(kit.prompts((4,)), Sampling(n=4, max_tokens=40)))
    assert len(failures) == 1
    assert pool.version is None


def test_log_probs_are_told_while_samples_are_written(kit, pool_of, alone, model, tokenizer):
    pool, prompts = pool_of(), kit.prompts((4, 6))
    (asked,) = kit.prompts((7,), seed=5)
    stream = pool.generate(prompts, SAMPLING)
    first = next(stream)
    told = pool.next_logprobs(asked)
    expected = TransformersEngine(model, tokenizer).next_logprobs(asked)
    assert told.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    same(kit.by_sample([first, *stream]), alone(prompts, SAMPLING))


def test_idle_time_is_the_time_without_work(kit, pool_of):
    pool = pool_of(2)
    time.sleep(0.3)
    idle = pool.idle_seconds()
    assert idle >= 0.3
    begun = time.perf_counter()
    list(pool.generate(kit.prompts((4, 4, 4)), Sampling(n=4, max_tokens=100)))
    assert pool.idle_seconds() - idle < time.perf_counter() - begun
