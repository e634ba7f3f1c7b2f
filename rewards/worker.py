"""The program inside a worker process: runs one function on what the pool sends, and can be killed at any moment.

Two processes make one worker. The keeper imports the function (slow) and forks; the child answers. When the child dies
of an answer the keeper says so and forks again, which takes milliseconds instead of another import.

Each call has a limit in CPU seconds, kept by a kernel timer whose default action ends the process. No handler is involved, so
it also ends a call that is stuck in C, or whose pool is gone; and on a busy machine no call loses its answer for waiting.

Sent: a length (4 bytes), then JSON, a list of argument lists. Answered: a JSON line for each call, in order, [kind, value].
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import struct
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

LENGTH = struct.Struct("!I")
_MEMORY_USED_UP = 13  # exit status of a child that reached its memory limit


def main(function: str, cpu_seconds: float, memory_bytes: int) -> None:
    """Serve until standard input ends. `function` is "module:name"; a `warm_up` in its module is called once, before any fork."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not get between the answers
    try:
        module_name, _, name = function.partition(":")
        module = import_module(module_name)
        call = getattr(module, name)
        getattr(module, "warm_up", lambda: None)()
    except BaseException as error:
        _say(answers, "broken", f"{type(error).__name__}: {error}")
        raise
    gc.freeze()  # shared with the children, not copied by their collections
    _say(answers, "ready", None)
    while True:
        child = os.fork()
        if child == 0:
            _answer_calls(call, answers, cpu_seconds, memory_bytes)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            return
        _say(answers, _cause(code), f"the worker process ended with status {code}")


def _answer_calls(call: Callable[..., Any], answers: int, cpu_seconds: float, memory_bytes: int) -> NoReturn:
    """Body of the child."""
    try:
        _limit_memory(memory_bytes)
        while header := _read(LENGTH.size):
            for arguments in json.loads(_read(LENGTH.unpack(header)[0])):
                signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
                try:
                    kind, value = "done", call(*arguments)
                except MemoryError:
                    os._exit(_MEMORY_USED_UP)
                except Exception as error:  # noqa: BLE001  reported to the pool, for which a failure is no answer
                    kind, value = "failed", f"{type(error).__name__}: {str(error)[:200]}"
                signal.setitimer(signal.ITIMER_PROF, 0)
                _say(answers, kind, value)
        os._exit(0)
    except BrokenPipeError:
        os._exit(0)  # the pool is gone
    finally:
        os._exit(1)


def _limit_memory(memory_bytes: int) -> None:
    """Bound the address space where the system lets us. Where it does not (macOS), the CPU limit still ends a runaway call."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _read(count: int) -> bytes:
    """Exactly that many bytes of standard input, or none at its end; never more, so that a later child finds its own."""
    data = bytearray()
    while len(data) < count:
        piece = os.read(0, min(count - len(data), 1 << 20))
        if not piece:
            return b""
        data += piece
    return bytes(data)


def _say(answers: int, kind: str, value: Any) -> None:
    line = json.dumps([kind, value]).encode() + b"\n"
    while line:
        line = line[os.write(answers, line) :]


def _cause(code: int) -> str:
    """What ended a child. Libraries that allocate in C abort where memory runs out."""
    if code == -signal.SIGPROF:
        return "timeout"
    return "memory" if code in (_MEMORY_USED_UP, -signal.SIGABRT) else "crashed"
