"""An engine host in a process of its own on this machine.

python -m align.rollout.remote.serve DESCRIPTOR PARENT answers the socket it inherits under this number, and ends with PARENT.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

from align.rollout.remote.frames import read_call, write_answer
from align.run.parent import end_with

if TYPE_CHECKING:
    from align.rollout.remote.host import EngineHost

_END_SECONDS = 10.0  # that an orderly end may take once nobody is there any more


def main() -> None:
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    end_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the trainer, which saves itself and then closes its engines
        signal.signal(number, lambda *_: None)
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)  # processes of vLLM would keep it open
    from align.rollout.remote.host import EngineHost

    host = EngineHost()
    messages = threading.Thread(target=_answer, args=(host, connection), name="messages", daemon=True)
    messages.start()
    host.run()
    messages.join(_END_SECONDS)  # until the other end has read the last answer
    os._exit(0)  # the engine is closed, and taking libraries down in order takes seconds


def _answer(host: EngineHost, connection: socket.socket) -> None:
    try:
        while True:
            method, payload = read_call(connection)
            write_answer(connection, host.call(method, payload))
    except OSError:  # the other end is gone
        host.stop()
        end = threading.Timer(_END_SECONDS, os._exit, (1,))
        end.daemon = True
        end.start()


if __name__ == "__main__":
    main()
