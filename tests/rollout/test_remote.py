"""Engines in processes of their own: what an engine in this process does, weights that arrive whole, and hosts that end badly."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import psutil
import pytest
import torch

from align.errors import EngineLostError, RolloutError
from align.rollout.engine import requests_for
from align.rollout.remote.actor import EngineActor
from align.rollout.remote.blueprint import Blueprint, blueprint_of
from align.rollout.remote.engine import RemoteEngine, start_engines
from align.rollout.remote.process import HostProcess
from align.rollout.remote.publisher import Publisher, publish_to
from align.rollout.transformers import TransformersEngine
from align.types import Prompt, Sampling

LENGTHS = (3, 17, 9, 30, 5)
OFTEN = tuple(range(16))  # with one id in twenty as a stop id, lengths have the long tail of real completions
SAMPLING = Sampling(n=3, max_tokens=40, stop_token_ids=OFTEN, seed=1)


class Nearby:
    """A transport to a host in this process, for tests of everything but processes."""

    def __init__(self) -> None:
        self.actor = EngineActor()
        self.alive = True
        self.unreachable = ""  # messages of this kind are never answered
        self.change: dict[str, Any] = {}  # what to do to messages of a kind

    def call(self, method: str, payload: bytes, seconds: float) -> bytes:
        if not self.alive:
            raise ConnectionError
        if method == self.unreachable:
            time.sleep(seconds)
            raise TimeoutError
        change = self.change.get(method)
        return self.actor.answer(method.encode() + b"\0" + (change(payload) if change else payload))

    def ending(self) -> str:
        return "nobody knows how"

    def close(self, grace: float = 20.0) -> None:
        if self.alive and grace:
            self.actor.answer(b"close\0")
        self.alive = False


@pytest.fixture(scope="module")
def model(kit):
    return kit.model()


@pytest.fixture(scope="module")
def other(kit):
    return kit.model(seed=1)


@pytest.fixture(scope="module")
def blueprint(model, tokenizer) -> Blueprint:
    return blueprint_of(model, tokenizer, dtype="float32", max_batch_sequences=64)


@pytest.fixture(scope="module")
def pair(blueprint):
    """Two hosts in processes of their own, for the tests that leave them as they were."""
    engines = start_engines(blueprint, 2, Publisher(seconds=30.0), lambda _: HostProcess(), patience=30.0)
    yield engines
    for engine in engines:
        engine.close()


@pytest.fixture
def engines(pair, model):
    publish_to(pair, model.named_parameters(), 1)
    return pair


@pytest.fixture
def nearby(blueprint):
    made: list[RemoteEngine] = []

    def make(publisher: Publisher | None = None, plan: Blueprint = blueprint) -> RemoteEngine:
        made.append(RemoteEngine(plan, Nearby, publisher or Publisher(seconds=10.0), name=f"engine {len(made)}"))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def sampled(kit, model, tokenizer, prompts, sampling=SAMPLING) -> Any:
    return kit.by_sample(list(TransformersEngine(model, tokenizer).generate(prompts, sampling)))


def same(ours, theirs) -> None:
    assert {key: one.token_ids for key, one in ours.items()} == {key: one.token_ids for key, one in theirs.items()}
    for key, one in ours.items():
        torch.testing.assert_close(torch.tensor(one.logprobs), torch.tensor(theirs[key].logprobs), atol=1e-5, rtol=0)
        assert (one.text, one.finish_reason) == (theirs[key].text, theirs[key].finish_reason)


def test_it_samples_what_an_engine_in_this_process_does(kit, model, tokenizer, engines):
    prompts = kit.prompts(LENGTHS)
    expected = sampled(kit, model, tokenizer, prompts)
    for engine in engines:
        found = kit.by_sample(list(engine.generate(prompts, SAMPLING)))
        assert {key: replace(one, weights_version=0) for key, one in found.items()} == expected
        assert {one.weights_version for one in found.values()} == {1}
    logp_V = TransformersEngine(model, tokenizer).next_logprobs(prompts[0])
    assert torch.equal(engines[0].next_logprobs(prompts[0]), logp_V)


def test_an_interrupted_sample_goes_on_in_another_process(kit, model, tokenizer, engines):
    prompts, sampling = kit.prompts(LENGTHS), replace(SAMPLING, max_tokens=200, stop_token_ids=())
    first, second = engines
    first.add(requests_for(prompts, sampling))
    finished: list[Any] = []
    while not finished:  # the tail is written still
        finished += first.step()
    stopped = first.interrupt()
    finished += first.step()
    assert first.interrupt() == []
    partly = [request for request in stopped if request.written]
    assert partly
    assert {request.prompt.messages for request in stopped} == {()}
    second.add(stopped)
    while len(finished) < len(prompts) * 3:
        finished += second.step()
    same(kit.by_sample([one for _, one in finished]), sampled(kit, model, tokenizer, prompts, sampling))


def test_weights_change_in_flight(kit, model, other, tokenizer, engines):
    """Each token has the log-prob that the weights of its version give it."""
    (engine, _), sampling = engines, Sampling(n=4, max_tokens=220)
    prompts = kit.prompts((8, 20))
    stopped = requests_for(prompts, sampling)
    while not any(request.written for request in stopped):
        engine.add(stopped)
        engine.step()
        stopped = engine.interrupt()
    engine.add(stopped)
    publish_to(engines, other.named_parameters(), 2)
    finished: list[Any] = []
    while len(finished) < 8:
        finished += engine.step()
    mixed = 0
    for _, one in finished:
        versions = one.token_versions or (one.weights_version,) * len(one.token_ids)
        assert set(versions) <= {1, 2}
        mixed += len(set(versions)) == 2
        by_version = {
            1: kit.full_logprobs(model, prompts[one.prompt_index], one),
            2: kit.full_logprobs(other, prompts[one.prompt_index], one),
        }
        for position, version in enumerate(versions):
            assert one.logprobs[position] == pytest.approx(by_version[version][position].item(), abs=1e-4)
    assert mixed


def test_errors_arrive_as_they_are_in_this_process(kit, engines):
    engine = engines[0]
    with pytest.raises(RolloutError, match="the model takes 256 in all") as caught:
        engine.add(requests_for(kit.prompts((300,)), Sampling()))
    assert caught.value.place == "test:0"
    assert "data.max_prompt_length" in str(caught.value.fix)
    assert engine.step() == []
    with pytest.raises(RolloutError, match="no tokens"):
        engine.next_logprobs(Prompt(id="empty", messages=(), token_ids=()))


def test_an_error_of_a_step_is_told_once_and_the_engine_can_be_used_again(kit, model, tokenizer, engines):
    broken = [(name, torch.full_like(weight, float("nan"))) for name, weight in model.named_parameters()]
    publish_to(engines, broken, 2)
    engine, prompts = engines[0], kit.prompts((5,))
    with pytest.raises(RolloutError, match="not finite"):
        list(engine.generate(prompts, SAMPLING))
    publish_to(engines, model.named_parameters(), 3)
    same(kit.by_sample(list(engine.generate(prompts, SAMPLING))), sampled(kit, model, tokenizer, prompts))


def test_a_call_that_is_left_early_leaves_nothing_to_the_next_one(kit, engines):
    engine, prompts = engines[0], kit.prompts(LENGTHS)
    for _ in range(3):
        next(iter(engine.generate(prompts, replace(SAMPLING, n=8))))
    found = list(engine.generate(prompts[:2], SAMPLING))
    assert sorted(kit.by_sample(found)) == [(prompt, sample) for prompt in range(2) for sample in range(3)]
    assert len(found) == 6


def test_it_serves_nothing_before_all_weights_have_arrived(kit, model, nearby):
    engine = nearby()
    with pytest.raises(RolloutError, match="no weights yet"):
        list(engine.generate(kit.prompts((3,)), Sampling()))
    with pytest.raises(RolloutError, match=r"engine 0 failed while publishing weights of version 1, loading.*1 weights are"):
        engine.publish(list(model.named_parameters())[:-1], 1)
    with pytest.raises(RolloutError, match="no weights yet"):
        engine.next_logprobs(kit.prompts((3,))[0])
    with pytest.raises(RolloutError, match="has no weight 'strange'"):
        engine.publish([*model.named_parameters(), ("strange", torch.zeros(1))], 1)
    engine.publish(model.named_parameters(), 1)
    assert len(list(engine.generate(kit.prompts((3,)), Sampling(max_tokens=3)))) == 1


@pytest.mark.parametrize("way", ["shared_memory", "gloo"])
@pytest.mark.parametrize("largest", [10_000, 1 << 20])
def test_one_pass_gives_all_engines_the_weights(kit, model, tokenizer, nearby, way, largest):
    publisher = Publisher(way=way, seconds=10.0, largest=largest)
    engines = [nearby(publisher) for _ in range(3)]
    passes, random = [], torch.get_rng_state()

    def weights():
        passes.append(1)
        yield from model.named_parameters()

    done = publish_to(engines, weights(), 7)
    assert len(passes) == 1
    assert torch.equal(torch.get_rng_state(), random), "the learner's draws stay the same"
    assert done.lost == ()
    assert (done.parts > 5) == (largest == 10_000)
    assert done.size >= sum(weight.nbytes for weight in model.parameters())
    prompts = kit.prompts(LENGTHS)
    expected = sampled(kit, model, tokenizer, prompts)
    for engine in engines:
        same(kit.by_sample(list(engine.generate(prompts, SAMPLING))), expected)
        assert engine.version == 7


@pytest.mark.parametrize("way", ["shared_memory", "gloo"])
def test_what_was_changed_on_the_way_is_refused_by_its_engine(kit, model, other, nearby, way):
    """One byte of a part, and the sum of all parts; what held weights before serves no more."""
    publisher = Publisher(way=way, seconds=10.0)
    first, second = nearby(publisher), nearby(publisher)
    publish_to([first, second], model.named_parameters(), 1)
    transport: Any = second.transport
    transport.change["publish/part"] = lambda payload: payload.replace(b'"sha256": "', b'"sha256": "0')
    with pytest.raises(RolloutError, match=r"engine 1 failed while publishing weights of version 2, part 1: .*checksum differs"):
        publish_to([first, second], other.named_parameters(), 2)
    transport.change = {"publish/finish": lambda payload: payload if payload == b"null" else b'"0"'}
    with pytest.raises(RolloutError, match="loading and confirming: the checksum of all parts"):
        publish_to([first, second], other.named_parameters(), 2)
    for engine in (first, second):
        assert engine.version is None
        with pytest.raises(RolloutError, match="no weights yet"):
            list(engine.generate(kit.prompts((3,)), Sampling()))
    transport.change = {}
    publish_to([first, second], other.named_parameters(), 3)
    assert len(list(second.generate(kit.prompts((3,)), Sampling(max_tokens=3)))) == 1


def test_of_a_lora_model_only_the_adapter_travels_after_the_first_time(kit, tokenizer, nearby):
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(kit.model(), peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    publisher = Publisher(seconds=10.0)
    plan = blueprint_of(adapted, tokenizer, dtype="float32")
    engines = [nearby(publisher, plan), nearby(publisher, plan)]
    whole = publish_to(engines, adapted.named_parameters(), 1)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    part = publish_to(engines, adapted.named_parameters(), 2)
    trained = sum(weight.nbytes for weight in adapted.parameters() if weight.requires_grad)
    assert trained <= part.size < trained * 1.2
    assert whole.size >= sum(weight.nbytes for weight in adapted.parameters())
    prompts = kit.prompts(LENGTHS)
    expected = sampled(kit, adapted, tokenizer, prompts)
    for engine in engines:
        same(kit.by_sample(list(engine.generate(prompts, SAMPLING))), expected)
    engines[1].restart()
    with pytest.raises(RolloutError, match="no weights yet"):
        list(engines[1].generate(prompts, SAMPLING))
    assert publish_to(engines, adapted.named_parameters(), 3).size == whole.size  # one of them has no base yet
    same(kit.by_sample(list(engines[1].generate(prompts, SAMPLING))), expected)


def test_a_killed_host_is_named_with_its_last_lines_and_can_be_replaced(kit, model, engines):
    engine, host = engines[1], engines[1].transport
    engine.add(requests_for(kit.prompts((3,)), Sampling(n=40, max_tokens=250)))
    engine.step()
    os.kill(host.pid, signal.SIGKILL)
    with pytest.raises(EngineLostError, match="engine 1 has ended while sampling; it was killed by SIGKILL"):
        list(iter(engine.step, None))
    assert not engine.alive
    assert not psutil.pid_exists(host.pid)
    with pytest.raises(EngineLostError, match="SIGKILL"):
        engine.add(requests_for(kit.prompts((3,)), Sampling()))
    engine.restart()
    assert engine.alive
    with pytest.raises(RolloutError, match="no weights yet"):
        engine.add(requests_for(kit.prompts((3,)), Sampling()))
    engine.publish(model.named_parameters(), 2)
    (one,) = engine.generate(kit.prompts((3,)), Sampling(max_tokens=4))
    assert one.weights_version == 2


@pytest.mark.parametrize(("way", "how"), [("shared_memory", "SIGSTOP"), ("gloo", "SIGKILL")])
def test_a_host_that_hangs_or_dies_in_a_publish_does_not_hold_up_the_other(kit, model, other, engines, way, how):
    """And the one that takes its place is given weights the same way."""
    first, second = engines
    pid = second.transport.pid
    publisher = Publisher(way=way, seconds=1.0, largest=40_000)
    publisher.publish(engines, model.named_parameters(), 1)

    def weights():
        for number, pair in enumerate(other.named_parameters()):
            if number == 10:
                os.kill(pid, signal.Signals[how])
            yield pair

    began = time.monotonic()
    done = publisher.publish(engines, weights(), 2)
    assert time.monotonic() - began < 15
    assert done.lost == (second,)
    assert done.parts > 2
    assert second.lost is not None
    assert "publishing weights of version 2, part" in second.lost.message
    assert ("has not answered for 2.1 s" if how == "SIGSTOP" else "killed by SIGKILL") in second.lost.message
    assert not psutil.pid_exists(pid)
    (one,) = first.generate(kit.prompts((3,)), Sampling(max_tokens=4))
    assert one.weights_version == 2
    second.restart()
    longer = Publisher(way=way, seconds=30.0, largest=40_000)
    assert longer.publish(engines, other.named_parameters(), 3).lost == ()
    assert next(iter(second.generate(kit.prompts((3,)), Sampling(max_tokens=4)))).token_ids == one.token_ids


def test_a_host_that_hangs_while_a_group_is_formed_is_lost_alone(kit, model, nearby):
    """As a machine that is not reached: nobody else waits longer than the limit, and the others form a group without it."""
    publisher = Publisher(way="gloo", seconds=1.0)
    first, second = nearby(publisher), nearby(publisher)
    second.transport.unreachable = "join"
    done = publisher.publish([first, second], model.named_parameters(), 1)
    assert done.lost == (second,)
    assert second.lost is not None
    assert "part 1, forming a group" in second.lost.message
    assert first.version == 1


def test_engines_elsewhere_are_not_taken_for_near_ones(kit, model, nearby):
    """Of another machine, and of one whose processes see each other's numbers but not each other's memory."""
    far, hidden = nearby(Publisher(seconds=5.0)), nearby(Publisher(seconds=5.0))
    far.machine = {**far.machine, "boot": "another", "host": "other"}
    with pytest.raises(RolloutError, match=r"it runs on 'other', and this process listens on 127.0.0.1 only"):
        far.publish(model.named_parameters(), 1)
    hidden.transport.change["sees"] = lambda payload: payload.replace(b"/fd/", b"/fd/99")
    hidden.publish(model.named_parameters(), 1)
    assert hidden.publisher._way_to(hidden) == "gloo"
    blind = nearby(Publisher(seconds=5.0, way="shared_memory"))
    blind.transport.change["sees"] = hidden.transport.change["sees"]
    with pytest.raises(RolloutError, match="cannot read the memory of this process"):
        blind.publish(model.named_parameters(), 1)


def test_a_host_ends_with_its_parent_and_leaves_no_folder(blueprint, tmp_path, checkout):
    """Whoever started it is killed, so that nobody closes anything."""
    program = """
import sys, time
from align.rollout.remote.process import HostProcess
host = HostProcess()
host.call("build", sys.stdin.buffer.read(), 60.0)
print(host.pid, flush=True)
time.sleep(60)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(checkout)}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment, **pipes)
    try:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(blueprint.pack())
        parent.stdin.close()
        host = psutil.Process(int(parent.stdout.readline()))
    finally:
        parent.kill()
        parent.wait()
    with contextlib.suppress(psutil.NoSuchProcess):
        host.wait(5)
    assert not list(tmp_path.iterdir())


def test_the_thread_that_started_a_host_may_end():
    """The system takes the thread, not its process, for a host's parent."""
    found: list[HostProcess] = []
    thread = threading.Thread(target=lambda: found.append(HostProcess()))
    thread.start()
    thread.join()
    try:
        time.sleep(0.3)
        assert found[0].alive
    finally:
        found[0].close(0.0)
    assert not found[0].alive
