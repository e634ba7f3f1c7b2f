"""Seconds and bytes of a publish to engines in processes of their own, through shared memory and by Gloo.

    python benchmarks/publish --rounds 5

Models with fresh weights, the transformers engine, on one machine; Gloo goes over the loopback address. Time is from the first
tensor to the last confirmation: packing, sending, checksums at both ends, loading. With `--lora` the model has adapters on all
linear layers; after the first publish only they travel. Prints medians, and the processor's seconds here and in an engine, which
say the same on a busy machine.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from align.learner.fresh import train_tokenizer
from align.recipe.schema import TokenizerInit
from align.rollout.remote.blueprint import blueprint_of
from align.rollout.remote.engine import start_engines
from align.rollout.remote.process import HostProcess
from align.rollout.remote.publisher import Publication, Publisher

SIZES = {"0.4 M": (128, 2, 352), "10 M": (384, 6, 1024), "120 M": (1024, 10, 2752)}  # hidden size, layers, intermediate size
WAYS = ("shared_memory", "gloo")


def build(hidden: int, layers: int, intermediate: int, tokenizer: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).eval()


def adapted(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))


def measured(model: Any, tokenizer: Any, way: Any, count: int, rounds: int) -> tuple[Publication, list[list[float]], Publication]:
    """The first publish; of each other the seconds, and those of the processor here and in the first engine; and the last one."""
    publisher = Publisher(way=way)
    engines = start_engines(blueprint_of(model, tokenizer, dtype="float32"), count, publisher, lambda _: HostProcess())
    try:
        first = publisher.publish(engines, model.named_parameters(), 0)
        seconds, last = [], first
        hosts = [psutil.Process(engine.transport.pid) for engine in engines]
        for version in range(1, rounds + 1):
            before = _clocks(hosts[0])
            last = publisher.publish(engines, model.named_parameters(), version)
            seconds.append([after - begin for after, begin in zip(_clocks(hosts[0]), before, strict=True)])
        return first, seconds, last
    finally:
        for engine in engines:
            engine.close()


def _clocks(host: psutil.Process) -> tuple[float, float, float]:
    there = host.cpu_times()
    return time.perf_counter(), time.process_time(), there.user + there.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--lora", action="store_true")
    options = parser.parse_args()
    tokenizer = train_tokenizer(TokenizerInit(vocab_size=400), ["Tom has three apples and buys five more. " * 20])
    print(
        "| parameters | engines | way | first | each other | processor here | in an engine | bytes to each |\n" + 8 * "|---" + "|"
    )
    for size in options.sizes:
        model = build(*SIZES[size], tokenizer)
        model = adapted(model) if options.lora else model
        exact = sum(parameter.numel() for parameter in model.parameters())
        for count in options.engines:
            for way in options.ways:
                first, seconds, last = measured(model, tokenizer, way, count, options.rounds)
                cells = [f"{exact / 1e6:.2f} M", str(count), way, f"{1000 * first.seconds:.0f} ms"]
                cells += [f"{1000 * median(values):.0f} ms" for values in zip(*seconds, strict=True)]
                cells.append(f"{last.size:,}")
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
