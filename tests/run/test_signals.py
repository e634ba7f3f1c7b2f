"""The first signal asks, the second ends; afterwards everything is as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from align.run.signals import StopSignals, request_stop

LOOP = """
import sys, time
from align.run.signals import StopSignals
with StopSignals() as stop:
    print("ready", flush=True)
    while {condition}:
        time.sleep(0.01)
print("saved after", stop.requested, flush=True)
"""


def _start(condition: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP.format(condition=condition)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_the_step_end(number: signal.Signals) -> None:
    process = _start("not stop.requested")
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == (f"saved after {number.name}\n", 0)
    assert "saving after this step" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)])
def test_the_second_signal_ends_at_once(number: signal.Signals, code: int) -> None:
    process = _start("True")
    process.send_signal(number)
    assert process.stderr is not None
    process.stderr.readline(), process.stderr.readline()
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("", code)


def test_the_request_is_announced_once_where_one_asks() -> None:
    calls: list[str] = []
    with StopSignals(lambda: calls.append("announced")):
        os.kill(os.getpid(), signal.SIGTERM)
    assert calls == ["announced"]


def test_the_handlers_of_before_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop:
        assert signal.getsignal(signal.SIGTERM) != before
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_nothing_is_installed() -> None:
    before, requested = signal.getsignal(signal.SIGTERM), []

    def body() -> None:
        with StopSignals() as stop:
            requested.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert requested == [(None, before)]


def test_a_request_is_heard_on_any_thread_and_only_while_somebody_listens(capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[object] = []

    def run() -> None:
        with StopSignals() as stop:
            heard.extend([request_stop("SIGTERM"), request_stop("SIGINT"), stop.requested])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert heard == [True, True, "SIGTERM"], "the first request is the one that counts"
    assert not request_stop("SIGTERM")
    assert capfd.readouterr().err.count("asked to stop") == 1
