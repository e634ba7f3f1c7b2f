"""What all actors of a run print, in one place: a file for each, and the first rank's lines on this console."""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from align.storage import storage_errors

_QUIET_SECONDS = 0.4  # Ray looks into its files every tenth of a second
_LONGEST_WAIT = 3.0


class Logbook:
    """Takes the lines from Ray's log stream, which comes here from every machine, into `folder`/<actor>.log.

    Use as a context manager, within the connection to the cluster. With `append` earlier logs are kept. `shown` is the actor
    whose lines are printed here too. Raises StorageError where the folder cannot be written.
    """

    def __init__(self, folder: Path, *, append: bool, shown: str) -> None:
        self._folder, self._shown = folder, shown
        self._tails: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=12))
        self._lock = threading.Lock()
        self._last = time.monotonic()
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for file in () if append else folder.glob("*.log"):
                file.unlink()

    def __enter__(self) -> Self:
        # Of Ray's own, there is no public way to the lines: its printing handler is one among others of this dispatcher.
        from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

        dispatcher.remove_handler("ray_print_logs")
        dispatcher.add_handler("align", self._take)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

        self.settle()
        dispatcher.remove_handler("align")

    def tail(self, name: str) -> list[str]:
        """The last lines of an actor, those on their way included."""
        self.settle()
        with self._lock:
            return list(self._tails[name])

    def settle(self) -> None:
        """Wait until nothing comes any more."""
        begin = time.monotonic()
        while time.monotonic() - max(begin, self._last) < _QUIET_SECONDS and time.monotonic() - begin < _LONGEST_WAIT:
            time.sleep(0.05)

    def _take(self, batch: Mapping[str, Any]) -> None:
        """Called by Ray, on a thread of its own, which a failure here would end."""
        lines: list[str] = batch["lines"]
        name = batch.get("actor_name") or "ray"
        if not lines:
            return
        with self._lock:
            self._last = time.monotonic()
            self._tails[name].extend(lines)
            text = "".join(f"{line}\n" for line in lines)
            try:
                with (self._folder / f"{name}.log").open("a", encoding="utf-8", errors="replace") as file:
                    file.write(text)
            except OSError as error:
                print(f"cannot write {name}.log: {error}", file=sys.stderr)  # noqa: T201
            if name == self._shown:
                stream = sys.stderr if batch.get("is_err") else sys.stdout
                stream.write(text)
                stream.flush()
