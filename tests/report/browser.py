"""A headless Chromium, driven over the pipe of its debugging protocol. It ends with its process id."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1400,1000", "--remote-debugging-pipe"),
)


def find_chromium() -> str | None:
    return next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


class Browser:
    """One page of a Chromium with a profile of its own; use as a context manager."""

    def __init__(self) -> None:
        self._profile = tempfile.mkdtemp(prefix="align-chromium-")
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 40) for end in (to_read, from_write)]  # 3 and 4 may be among the ends themselves

        def place() -> None:  # where Chromium expects them
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        command = [str(find_chromium()), *_FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
        self._process = subprocess.Popen(
            command, preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for end in (to_read, from_write, *high):
            os.close(end)
        self._write, self._read, self._rest = to_write, from_read, b""
        self._numbers, self._session = itertools.count(1), ""
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._session = ""
            self.call("Browser.close")
            self._process.wait(10)
        except (OSError, EOFError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params} | ({"sessionId": self._session} if self._session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        found: dict[str, Any] = answer["result"]
        return found

    def open(self, url: str) -> None:
        """Go to a report and wait until it has drawn itself."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait('document.documentElement?.dataset.ready === "true"')

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 15.0) -> None:
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            if time.monotonic() > end:
                raise TimeoutError(f"{script}\n{self.complaints()}")
            time.sleep(0.03)

    def choose(self, name: str, value: str) -> None:
        """Set a filter, and wait for the list to follow."""
        element = f"document.querySelector('#filters [name={name}]')"
        self.run("document.querySelector('#groups').dataset.old = 'true', document.querySelector('#found').textContent = 'old'")
        self.run(f"{element}.value = {json.dumps(value)}")
        for kind in ("input", "change"):
            self.run(f"{element}.dispatchEvent(new Event('{kind}', {{bubbles: true}}))")
        self.wait("/sample/.test(document.querySelector('#found').textContent)")

    def press(self, key: str) -> None:
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = {"Enter": 13, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39, "/": 191}.get(key, ord(key[0].upper()))
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def requests(self) -> list[str]:
        return [one["params"]["request"]["url"] for one in self.events if one["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [str(one["params"]) for one in self.events if one["method"] in kinds]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise EOFError("Chromium has ended")
            self._rest += piece
        one, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(one)
        return found
