"""vLLM's own server, for slow tests.

It runs where vLLM is installed, in this environment or in that of the interpreter which ALIGN_TEST_VLLM_PYTHON names.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from align.learner.fresh import train_tokenizer
from align.recipe.schema import TokenizerInit

_START_SECONDS = 300
LONGEST = 512  # tokens


def save_tiny(folder: Path, factory: Any, words: str, *, labels: int | None = None) -> Path:
    """A Llama with fresh weights, wide enough apart for answers to differ, and a tokenizer; heads of the 32 that vLLM wants."""
    tokenizer = train_tokenizer(TokenizerInit(vocab_size=300), [words * 9])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LONGEST,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    if labels is not None:
        config.num_labels = labels
    factory(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def interpreter() -> str:
    """The Python that has vLLM; without one the test is skipped."""
    if named := os.environ.get("ALIGN_TEST_VLLM_PYTHON"):
        return named
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: install it, or name an interpreter that has it in ALIGN_TEST_VLLM_PYTHON")
    return sys.executable


@contextmanager
def serve(model: Path, name: str, log: Path, *options: str) -> Iterator[str]:
    """The address of a server with `model` under `name`, in float32; its output goes to `log`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [interpreter(), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", name]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--dtype", "float32", *options]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
    try:
        _await(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _await(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"the server did not start:\n{log.read_text()[-3000:]}")
