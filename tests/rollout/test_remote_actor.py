"""The host in an actor: one that a thread stands for, and one of Ray."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch

from align.errors import EngineLostError, RolloutError
from align.rollout.engine import requests_for
from align.rollout.remote.actor import ActorTransport, EngineActor
from align.rollout.remote.blueprint import blueprint_of
from align.rollout.remote.engine import RemoteEngine
from align.rollout.remote.publisher import Publisher
from align.rollout.transformers import TransformersEngine
from align.types import Sampling

SAMPLING = Sampling(n=3, max_tokens=30, stop_token_ids=tuple(range(16)), seed=1)


class ThreadActor:
    """An actor whose process is a thread of this one."""

    def __init__(self) -> None:
        self.object = EngineActor(b"")
        self.thread = ThreadPoolExecutor(1)
        self.error: Exception | None = None
        self.stuck = threading.Event()
        self.stuck.set()
        self.killed = 0

    def call(self, method: str, given: bytes = b"") -> Future[bytes]:
        return self.thread.submit(self._run, method, given)

    def kill(self) -> None:
        self.killed += 1
        self.stuck.set()
        self.thread.shutdown()

    def _run(self, method: str, given: bytes) -> bytes:
        self.stuck.wait()
        if self.error:
            raise self.error
        answer: bytes = getattr(self.object, method)(given)
        return answer


@pytest.fixture(scope="module")
def model(kit):
    return kit.model()


@pytest.fixture
def blueprint(model, tokenizer):
    return blueprint_of(model, tokenizer, dtype="float32")


def test_an_engine_in_an_actor(kit, model, tokenizer, blueprint):
    actor = ThreadActor()
    engine = RemoteEngine(blueprint, lambda: ActorTransport(actor, lambda: ["first", "last"]), Publisher(seconds=10.0))
    engine.publish(model.named_parameters(), 1)
    prompts = kit.prompts((4, 9))
    found = kit.by_sample(list(engine.generate(prompts, SAMPLING)))
    ours = kit.by_sample(list(TransformersEngine(model, tokenizer).generate(prompts, SAMPLING)))
    assert {key: one.token_ids for key, one in found.items()} == {key: one.token_ids for key, one in ours.items()}
    actor.error = RuntimeError("the machine was lost\nand more")
    with pytest.raises(EngineLostError, match="engine has ended while taking requests; the machine was lost\n  first\n  last"):
        engine.add(requests_for(prompts, SAMPLING))
    assert not engine.alive
    engine.close()
    assert actor.killed == 1


def test_an_actor_that_does_not_answer_is_ended(kit, model, blueprint):
    actor = ThreadActor()
    engine = RemoteEngine(blueprint, lambda: ActorTransport(actor), Publisher(seconds=10.0), patience=0.5)
    engine.publish(model.named_parameters(), 1)
    actor.stuck.clear()
    with pytest.raises(EngineLostError, match=r"has not answered for 0.5 s while taking requests; its process is there still"):
        engine.add(requests_for(kit.prompts((4,)), SAMPLING))
    assert actor.killed == 1


def test_a_step_that_does_not_end_is_noticed_although_the_host_answers(kit, model, blueprint):
    actor = ThreadActor()
    engine = RemoteEngine(blueprint, lambda: ActorTransport(actor), Publisher(seconds=10.0), patience=0.5)
    engine.publish(model.named_parameters(), 1)
    stuck = threading.Event()
    inner: Any = actor.object._host._engine
    inner.step = lambda: stuck.wait() and []
    try:
        with pytest.raises(EngineLostError, match="engine has been at one step for 1 s while sampling"):
            list(engine.generate(kit.prompts((4,)), SAMPLING))
    finally:
        stuck.set()


class RayActor:
    """As Ray's own handle of an actor would be used."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def call(self, method: str, given: bytes = b"") -> Future[bytes]:
        future: Future[bytes] = getattr(self.handle, method).remote(given).future()
        return future

    def kill(self) -> None:
        import ray

        ray.kill(self.handle)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_an_engine_in_an_actor_of_ray(kit, model, tokenizer, blueprint, checkout):
    import ray

    class Host(EngineActor):
        def pid(self) -> int:
            return os.getpid()

    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": str(checkout)}})
    pids = []
    try:

        def connect() -> ActorTransport:
            handle: Any = ray.remote(Host).options(num_cpus=1).remote()
            pids.append(ray.get(handle.pid.remote()))
            return ActorTransport(RayActor(handle))

        prompts, publishers = kit.prompts((4, 9)), [Publisher(way=way, seconds=30.0) for way in ("auto", "gloo")]
        engine = RemoteEngine(blueprint, connect, publishers[0], patience=30.0)
        assert engine.machine["pid"] == pids[0] != os.getpid()
        ours = kit.by_sample(list(TransformersEngine(model, tokenizer).generate(prompts, SAMPLING)))
        for version, publisher in enumerate(publishers):
            assert publisher.publish([engine], model.named_parameters(), version).lost == ()
            found = kit.by_sample(list(engine.generate(prompts, SAMPLING)))
            assert {key: one.token_ids for key, one in found.items()} == {key: one.token_ids for key, one in ours.items()}
            for key, one in found.items():
                torch.testing.assert_close(torch.tensor(one.logprobs), torch.tensor(ours[key].logprobs), atol=1e-5, rtol=0)
        engine.add(requests_for(prompts, Sampling(n=8, max_tokens=240)))
        os.kill(pids[0], signal.SIGKILL)
        with pytest.raises(EngineLostError, match="engine has ended while sampling"):
            list(iter(engine.step, None))
        engine.restart()
        with pytest.raises(RolloutError, match="no weights yet"):
            engine.add(requests_for(prompts, SAMPLING))
        engine.publish(model.named_parameters(), 5)
        assert {one.weights_version for one in engine.generate(prompts, SAMPLING)} == {5}
        engine.close()
    finally:
        ray.shutdown()
