"""The rollout engine that samples with vLLM, in this process or in processes of its own."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.errors import RolloutError, first_line
from align.rollout.buckets import Buckets
from align.rollout.engine import completed, generate_by_steps
from align.rollout.limits import room_for
from align.rollout.noise import sample_key
from align.rollout.stopping import StopRule, end_of_sequence_ids
from align.rollout.vllm_version import FIX, vllm_trouble
from align.types import Completion, FinishReason, Prompt, Request, Sampling, Written

if TYPE_CHECKING:
    from align.recipe.schema import VLLM

_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class VLLMEngine:
    """Samples with vLLM from weights that are published to it; before the first publish it answers nothing.

    A request is one sample, with a seed made of (sampling.seed, prompt.id, sample index), and samples of a prompt share its
    cached prefix. Draws do not depend on what else is in the batch, but for rounding; they are not those of the transformers
    engine. With `top_p`, `top_k` or `min_p` the log-probs are still those of the whole distribution.
    """

    _in_this_process = False  # its process groups are global

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        settings: VLLM,
        *,
        dtype: str,
        max_batch_sequences: int = 256,
        publish_timeout: float = 300.0,
    ) -> None:
        """`model` is the causal LM that will be published, LoRA or not: here only its architecture and its stop ids matter.

        Raises RolloutError where vLLM is missing, of a version that is not known to work, or refuses the model.
        """
        if trouble := vllm_trouble():
            raise RolloutError(trouble, place="rollout.engine", fix=FIX)
        if VLLMEngine._in_this_process and not settings.separate_process:
            fix = "close the other one first, or set rollout.vllm.separate_process: true"
            raise RolloutError("vLLM runs in this process already, and cannot do so twice", fix=fix)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._tokenizer, self._eos_ids = tokenizer, end_of_sequence_ids(base, tokenizer)
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._seconds = publish_timeout
        self._version: int | None = None
        self._asked = 0  # for log-probs
        self._sleeps, self._asleep = settings.sleep and torch.cuda.is_available(), False  # on a CPU vLLM ignores it
        self._running: dict[str, tuple[Request, str]] = {}  # with vLLM's own name for it
        self._stops: dict[tuple[tuple[str, ...], tuple[int, ...]], StopRule] = {}
        self._buckets = Buckets()
        with tempfile.TemporaryDirectory(
            prefix="align-vllm-"
        ) as name:  # read once; a process may end without a chance to tidy up
            write_architecture(base, tokenizer, Path(name), dtype)
            self._engine = _start(Path(name), settings, dtype, max_batch_sequences)
        self._longest = int(self._engine.vllm_config.model_config.max_model_len)
        self._whole = all(self._engine.collective_rpc("report_whole_distribution"))
        self._here = not settings.separate_process
        VLLMEngine._in_this_process |= self._here

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Yield `sampling.n` completions for each prompt, in the order in which they finish.

        Raises RolloutError before the first publish, for a prompt that is empty or leaves no room in the model's context, for
        non-finite log-probs, and where vLLM fails.
        """
        return generate_by_steps(self, prompts, sampling)

    def add(self, requests: Sequence[Request]) -> None:
        self._refuse_without_weights()
        for sampling in {request.sampling for request in requests}:
            if (sampling.top_p < 1 or sampling.top_k or sampling.min_p) and not self._whole:
                fix = "sample without top_p, top_k and min_p, or set rollout.engine: transformers"
                raise RolloutError("this model runner of vLLM cannot report the whole distribution's log-probs", fix=fix)
        rooms = [min(request.sampling.max_tokens, room_for(request.prompt, self._longest)) for request in requests]
        for request, room in zip(requests, rooms, strict=True):
            written = len(request.written.token_ids) if request.written else 0
            # A seed gives one stream of numbers: what goes on later needs another.
            place = f"{request.prompt.id}@{written}" if written else request.prompt.id
            key = sample_key(request.sampling.seed, place, request.sample_index)
            params = _params(request.sampling, self._stop(request.sampling), room - written, key)
            inner = self._engine.add_request(request.name, {"prompt_token_ids": list(request.context)}, params)
            self._running[request.name] = (request, inner)

    def step(self) -> list[tuple[str, Completion]]:
        outputs = [output for output in self._step() if output.finished] if self._running else []
        return [(output.request_id, self._completion(output)) for output in outputs]

    def interrupt(self, names: Iterable[str] | None = None) -> list[Request]:
        chosen = list(self._running) if names is None else [name for name in names if name in self._running]
        stopped = [self._running.pop(name) for name in chosen]
        if self._version is None:  # it has failed, and holds nothing any more
            return []
        partial = [self._written_so_far(request, inner) for request, inner in stopped]
        self._engine.abort_request([inner for _, inner in stopped], internal=True)
        return partial

    def next_logprobs(self, prompt: Prompt) -> Tensor:
        """logp_V: natural logs of what follows the prompt, at temperature 1 over the full vocabulary, in float32.

        Raises RolloutError before the first publish, and for a prompt that is empty or too long.
        """
        sampling = Sampling(max_tokens=1)
        self._refuse_without_weights()
        room_for(prompt, self._longest)
        params = _params(sampling, StopRule(self._tokenizer, sampling, self._eos_ids), 1, 0, logprobs=-1)
        self._asked += 1
        self._engine.add_request(f"log-probs {self._asked}", {"prompt_token_ids": list(prompt.token_ids)}, params)
        if self._running:
            raise RolloutError("log-probs are asked for while samples are being written", fix="let the samples finish first")
        finished: list[Any] = []
        while not finished:
            finished = [output for output in self._step() if output.finished]
        (found,) = finished[0].outputs[0].logprobs
        logp_V = torch.full((max(found) + 1,), float("-inf"))
        for token, one in found.items():
            logp_V[token] = one.logprob
        return logp_V

    def publish(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take over all weights, in the Hugging Face names of the plain model, and confirm by checksum that they arrived.

        What is being written goes on afterwards, its context computed anew; cached prefixes of old weights are dropped. Raises
        RolloutError, with the phase in which it happened; the engine then answers nothing until a publish has succeeded.
        """
        running = self.interrupt()
        self._version = None
        sent, phase = hashlib.sha256(), "beginning"
        try:
            self._call("start_weight_update")
            for number, part in enumerate(self._buckets.parts(weights, self._dtype), start=1):
                phase = f"part {number}"
                self._call("update_weights", part)
                sent.update(part["sha256"].encode())
            phase = "loading"
            self._call("finish_weight_update")
            phase = "confirming"
            if set(self._call("received_weights")) != {sent.hexdigest()}:
                raise ValueError("an engine did not confirm the checksum of what was sent")
            phase = "dropping cached prefixes"
            if not self._engine.reset_prefix_cache():
                raise ValueError("requests are still running")
        except Exception as error:
            with suppress(Exception):
                self._call("abandon_publish")
            raise RolloutError(
                f"publishing weights of version {version} failed while {phase}: {type(error).__name__}: {first_line(error)}",
                fix="after a timeout raise rollout.publish_timeout; for an unknown name see how vLLM loads the model",
            ) from error
        self._version = version
        self.add(running)

    def weights_digests(self) -> list[str]:
        """A checksum of the weights in each worker, as vLLM holds them."""
        return list(self._call("weights_digest"))

    def sleep(self) -> None:
        """With `rollout.vllm.sleep` on a GPU: move the weights to the host, free the cache; until `wake` nothing is written."""
        if self._sleeps and not self._asleep:
            self._engine.sleep(1)
            self._asleep = True

    def wake(self) -> None:
        if self._asleep:
            self._engine.wake_up()
            self._asleep = False

    def close(self) -> None:
        """End vLLM's processes. Closing twice is fine."""
        self._version = None
        self._buckets.close()
        if (engine := self.__dict__.pop("_engine", None)) is not None:
            engine.engine_core.shutdown()
            if self._here:
                VLLMEngine._in_this_process = False

    def _refuse_without_weights(self) -> None:
        if self._version is None:
            raise RolloutError("the engine has no weights yet", fix="publish the policy's weights first")

    def _step(self) -> list[Any]:
        with _own_random_state():
            try:
                outputs: list[Any] = self._engine.step()
            except Exception as error:
                self._version = None
                fix = "VLLM_LOGGING_LEVEL=INFO shows its log"
                raise RolloutError(f"vLLM failed: {type(error).__name__}: {first_line(error)}", fix=fix) from error
        return outputs

    def _call(self, method: str, *arguments: Any) -> Any:
        with _own_random_state():
            return self._engine.collective_rpc(method, timeout=self._seconds, args=arguments)

    def _stop(self, sampling: Sampling) -> StopRule:
        ends = (sampling.stop, sampling.stop_token_ids)
        if ends not in self._stops:
            self._stops[ends] = StopRule(self._tokenizer, sampling, self._eos_ids)
        return self._stops[ends]

    def _written_so_far(self, request: Request, inner: str) -> Request:
        state = self._engine.output_processor.request_states.get(inner)
        ids = state.detokenizer.output_token_ids if state else []
        return replace(request, written=self._written(request, ids, state.logprobs_processor.logprobs)) if ids else request

    def _written(self, request: Request, ids: Sequence[int], logprobs: Sequence[Any]) -> Written:
        """What was written before, and `ids` after it."""
        before = request.written or Written(token_ids=(), logprobs=(), versions=())
        new = tuple(step[token].logprob for token, step in zip(ids, logprobs, strict=True))
        if not all(number == number and number > float("-inf") for number in new):
            fix = "look for an overflow of the dtype; try model.dtype: float32"
            raise RolloutError("vLLM sampled from log-probs that are not finite", place=request.prompt.id, fix=fix)
        assert self._version is not None
        return Written(
            token_ids=(*before.token_ids, *ids),
            logprobs=(*before.logprobs, *new),
            versions=before.versions + (self._version,) * len(ids),
        )

    def _completion(self, output: Any) -> Completion:
        request, _ = self._running.pop(output.request_id)
        (answer,) = output.outputs
        stop, written = self._stop(request.sampling), self._written(request, answer.token_ids, answer.logprobs)
        reason: FinishReason = "stop" if answer.finish_reason == "stop" else "length"
        if request.written and stop.strings:  # vLLM looks for them in what it has written itself
            for length in range(len(request.written.token_ids) + 1, len(written.token_ids) + 1):
                if stop.ends(written.token_ids[:length]):
                    written, reason = written.cut(length), "stop"
                    break
        return completed(request, written, stop.text(written.token_ids), reason)


def _start(folder: Path, settings: VLLM, dtype: str, max_batch_sequences: int) -> Any:
    """vLLM's engine over weights that are yet to come."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if settings.separate_process else "0"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "CRITICAL")  # errors come as exceptions, without pages of state
    if not torch.cuda.is_available():
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # else the first request compiles for minutes
    with _own_random_state(), _no_rank():
        try:
            from vllm import EngineArgs, LLMEngine

            arguments: dict[str, Any] = {
                "model": str(folder),
                "load_format": "dummy",
                "dtype": dtype,
                "max_num_seqs": max_batch_sequences,
                "max_model_len": settings.max_model_len,
                "tensor_parallel_size": settings.tensor_parallel_size,
                "gpu_memory_utilization": settings.gpu_memory_utilization,
                "enforce_eager": settings.enforce_eager if torch.cuda.is_available() else True,
                "logprobs_mode": "processed_logprobs",
                "max_logprobs": -1,
                "enable_prefix_caching": True,
                # A prompt cut in two makes it rewind the sample's generator, which only those of a GPU can.
                "enable_chunked_prefill": None if torch.cuda.is_available() else False,
                "enable_sleep_mode": settings.sleep and torch.cuda.is_available(),
                "disable_log_stats": True,
                "worker_extension_cls": "align.rollout.vllm_worker.WorkerExtension",
                "weight_transfer_config": {"backend": "align_buckets"},
            }
            if settings.kv_cache_gib is not None or not torch.cuda.is_available():
                arguments["kv_cache_memory_bytes"] = int((settings.kv_cache_gib or 1.0) * 2**30)
            return LLMEngine.from_engine_args(EngineArgs(**{**arguments, **settings.extra}))
        except Exception as error:
            raise RolloutError(
                f"vLLM does not start: {type(error).__name__}: {first_line(error)}",
                place="rollout.engine: vllm",
                fix="VLLM_LOGGING_LEVEL=INFO shows why; `align doctor` shows what is installed",
            ) from error


def write_architecture(model: Any, tokenizer: Any, folder: Path, dtype: str) -> None:
    """What vLLM reads of a model beside its weights."""
    config = type(model.config).from_dict(model.config.to_dict())
    config.architectures = [type(model).__name__]
    config.dtype = dtype
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _params(sampling: Sampling, stop: StopRule, room: int, key: int, logprobs: int = 0) -> Any:
    """`logprobs` beside that of the drawn token: 0 of no others, -1 of the whole vocabulary."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=1,
        max_tokens=room,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        seed=key & (2**63 - 1),
        logprobs=logprobs,
        ignore_eos=True,  # the ids that end a completion are named below
        stop_token_ids=sorted(stop.ids),
        stop=list(stop.strings) or None,
        include_stop_str_in_output=True,
        detokenize=bool(stop.strings),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


@contextmanager
def _no_rank() -> Iterator[None]:
    """Without the variables by which this process knows its place among others: vLLM's processes would join them."""
    hidden = {name: os.environ.pop(name) for name in _RANK_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _own_random_state() -> Any:
    """A context that leaves torch's global random state as it was: vLLM in this process reseeds it and draws from it."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else [])
