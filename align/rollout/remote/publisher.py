"""Weights to several engines in one pass: each part is packed once and taken by all of them at the same time."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from align.errors import EngineLostError, RolloutError
from align.rollout.buckets import Buckets
from align.rollout.remote.gloo import Meeting, Member
from align.rollout.remote.machine import here, may_be_one
from align.rollout.remote.wire import pack_json, unpack_json

if TYPE_CHECKING:
    from align.rollout.remote.engine import RemoteEngine
    from align.rollout.remote.transport import Transport

Way = Literal["auto", "shared_memory", "gloo"]
_GRACE = 1.1, 1.0  # times and seconds beyond a limit that the host keeps itself, for its answer to arrive


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What a publish took. `lost` are the engines that did not survive it; all others hold the weights, confirmed."""

    version: int
    seconds: float
    parts: int
    size: int  # bytes sent to each engine
    lost: tuple[RemoteEngine, ...]


class Publisher:
    """The sending side, with memory and process groups that serve every publish."""

    def __init__(
        self,
        *,
        dtype: str = "float32",
        way: Way = "auto",
        seconds: float = 300.0,
        address: str = "127.0.0.1",
        largest: int = 256 << 20,
    ) -> None:
        """Floating-point weights travel as `dtype`, in parts of at most `largest` bytes; `seconds` bounds each phase.

        `address`, an IP address of this machine, is where engines on others reach it.
        """
        self.engines: set[RemoteEngine] = set()
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._way, self._seconds, self._address = way, seconds, address
        self._lock = threading.Lock()
        self._buckets = Buckets(largest)
        self._meeting: Meeting | None = None
        self._group: tuple[tuple[Transport, ...], Member] | None = None
        self._ways: WeakKeyDictionary[Transport, str] = WeakKeyDictionary()  # a host that replaces another one is tried anew

    def publish(self, engines: Sequence[RemoteEngine], weights: Iterable[tuple[str, Tensor]], version: int) -> Publication:
        """Give all engines these weights. Those that are lost already are passed over.

        An engine that ends, or does not go on in time, is lost and the others go on. Raises EngineLostError where none is left,
        and RolloutError where one refused the weights; then none serves until a publish has succeeded.
        """
        with self._lock:  # engines that replace lost ones are given weights on threads of their own
            return self._publish(engines, weights, version)

    def _publish(self, engines: Sequence[RemoteEngine], weights: Iterable[tuple[str, Tensor]], version: int) -> Publication:
        began = time.monotonic()
        run = _Pass(engines, version, self._seconds)
        if all(engine.holds_all for engine in run.engines) and (trained := run.engines[0].blueprint.trained):
            changing = frozenset(trained)
            weights = ((name, tensor) for name, tensor in weights if name in changing)
        try:
            size, parts = self._send_all(run, weights)
        except BaseException:
            run.give_up()
            raise
        lost = tuple(engine for engine in engines if not engine.alive)
        return Publication(version=version, seconds=time.monotonic() - began, parts=parts, size=size, lost=lost)

    def leave(self, engine: RemoteEngine) -> None:
        """An engine is closed; with the last one goes what was kept for the next publish."""
        self.engines.discard(engine)
        if self.engines:
            return
        with self._lock:
            self._buckets.close()
            self._group = self._meeting = None

    def _send_all(self, run: _Pass, weights: Iterable[tuple[str, Tensor]]) -> tuple[int, int]:
        digest, size, number = hashlib.sha256(), 0, 0
        for engine in list(run.engines):
            try:
                self._way_to(engine)
            except EngineLostError as error:
                run.drop(engine, error)
        run.all("publish/begin", {"version": run.version, "seconds": self._seconds}, "beginning")
        for number, part in enumerate(self._buckets.parts(weights, self._dtype), start=1):
            self._send(run, part, f"part {number}")
            digest.update(part["sha256"].encode())
            size += part["size"]
        answers = run.all("publish/finish", digest.hexdigest(), "loading and confirming")
        for engine, answer in answers.items():
            if answer != {"version": run.version, "sha256": digest.hexdigest()}:
                raise RolloutError(f"{engine.name} did not confirm the weights of version {run.version}")
            engine.holds_all, engine.version = True, run.version
        return size, number

    def _send(self, run: _Pass, part: dict[str, Any], phase: str) -> None:
        """One part to all. Where Gloo's broadcast broke off, those who lack the part get it again, in a new group."""
        lacking, lost_before = list(run.engines), -1
        while lacking:
            far = [engine for engine in lacking if self._way_to(engine) == "gloo"]
            near = [engine for engine in lacking if engine not in far]
            member = self._together(run, far, phase) if far else None
            told = [(engine, {**part, "way": self._way_to(engine)}) for engine in (near if member is None else near + far)]
            answers = run.each("publish/part", told, phase, meanwhile=partial(self._broadcast, member, part))
            lacking = [engine for engine in far if engine in run.engines and answers.get(engine, "no group was formed")]
            if not lacking:
                return
            self._group = None
            if len(run.lost) == lost_before:  # nobody is lost that it could be laid to, and still it does not get through
                for engine in lacking:
                    run.drop(engine, engine.lose("cannot be reached by Gloo", run.doing(phase)))
                return
            lost_before = len(run.lost)

    def _broadcast(self, member: Member | None, part: dict[str, Any]) -> None:
        if member is not None:
            with suppress(RuntimeError):  # the receivers that lack it say so
                member.send(self._buckets.content(part))

    def _together(self, run: _Pass, far: Sequence[RemoteEngine], phase: str) -> Member | None:
        """The process group of these engines and this process; None where it did not come together."""
        hosts = tuple(engine.transport for engine in far)
        if self._group is not None and self._group[0] == hosts:
            return self._group[1]
        self._group = None
        self._meeting = self._meeting or Meeting(self._address, self._seconds)
        mine, others = self._meeting.invitations(len(far))
        found: list[Member] = []

        def join() -> None:
            with suppress(RuntimeError):
                found.append(Member(**mine))

        answers = run.each("join", list(zip(far, others, strict=True)), f"{phase}, forming a group", meanwhile=join)
        if not found or list(answers.values()) != [None] * len(far):
            return None
        self._group = (hosts, found[0])
        return found[0]

    def _way_to(self, engine: RemoteEngine) -> str:
        """How weights reach this engine: it is tried whether its process can read the memory of this one."""
        if engine.transport not in self._ways:
            self._ways[engine.transport] = "gloo" if self._way == "gloo" or not self._sees(engine) else "shared_memory"
        return self._ways[engine.transport]

    def _sees(self, engine: RemoteEngine) -> bool:
        secret = torch.frombuffer(bytearray(os.urandom(64)), dtype=torch.uint8)  # torch's own random numbers are the learner's
        (probe,) = self._buckets.parts([("probe", secret)], self._dtype)
        near = may_be_one(engine.machine, here())
        seen = near and unpack_json(engine.ask("sees", pack_json(probe), self._seconds))
        where = f"it runs on {engine.machine['host']!r}"
        if not seen and self._way == "shared_memory":
            raise RolloutError(
                f"{engine.name} cannot read the memory of this process: {where}",
                place="rollout.publish",
                fix="set rollout.publish: auto",
            )
        if not near and ip_address(self._address).is_loopback:
            raise RolloutError(
                f"{engine.name} cannot be given weights: {where}, and this process listens on {self._address} only",
                place="launch.engines",
                fix="give Publisher an `address` of this machine that others reach",
            )
        return bool(seen)


def publish_to(engines: Sequence[RemoteEngine], weights: Iterable[tuple[str, Tensor]], version: int) -> Publication:
    """Give engines that were made with one Publisher the same weights; see `Publisher.publish`."""
    return engines[0].publisher.publish(engines, weights, version)


class _Pass:
    """The engines that one publish still reaches."""

    def __init__(self, engines: Sequence[RemoteEngine], version: int, seconds: float) -> None:
        self.version = version
        self.engines = [engine for engine in engines if engine.alive]
        self.lost: list[EngineLostError] = [engine.lost for engine in engines if engine.lost is not None]
        self._limit = seconds * _GRACE[0] + _GRACE[1]
        self._raise_if_none()

    def doing(self, phase: str) -> str:
        return f"publishing weights of version {self.version}, {phase}"

    def drop(self, engine: RemoteEngine, error: EngineLostError) -> None:
        self.engines.remove(engine)
        self.lost.append(error)
        self._raise_if_none()

    def all(self, method: str, told: Any, phase: str) -> dict[RemoteEngine, Any]:
        return self.each(method, [(engine, told) for engine in self.engines], phase)

    def each(
        self,
        method: str,
        told: Sequence[tuple[RemoteEngine, Any]],
        phase: str,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> dict[RemoteEngine, Any]:
        """Ask these engines at the same time; returns the answers of those that are not lost. Raises the first refusal."""

        def ask(engine: RemoteEngine, payload: Any) -> Any:
            return unpack_json(engine.ask(method, pack_json(payload), self._limit, self.doing(phase)) or b"null")

        with ThreadPoolExecutor(max(1, len(told)), "publish") as threads:
            asked = [(engine, threads.submit(ask, engine, payload)) for engine, payload in told]
            meanwhile()
        answers, refusals = {}, []
        for engine, one in asked:
            error = one.exception()
            if isinstance(error, EngineLostError):
                self.drop(engine, error)
            elif error is not None:
                refusals.append((engine, error))
            else:
                answers[engine] = one.result()
        for engine, error in refusals:
            message = error.message if isinstance(error, RolloutError) else f"{type(error).__name__}: {error}"
            raise RolloutError(
                f"{engine.name} failed while {self.doing(phase)}: {message}",
                place=getattr(error, "place", None),
                fix=getattr(error, "fix", None) or "after a timeout raise rollout.publish_timeout",
            ) from error
        return answers

    def give_up(self) -> None:
        """Tell the engines that no more is coming."""
        for engine in self.engines:
            engine.version = None
            with suppress(RolloutError):
                engine.ask("publish/finish", pack_json(None), self._limit)

    def _raise_if_none(self) -> None:
        if not self.engines:
            raise self.lost[-1] if self.lost else RolloutError("there is no engine to publish to")
