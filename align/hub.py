"""Whether the model hub can be reached."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies


def unreachable_hub() -> str | None:
    """The hub's address where nothing answers there: asked once, for seconds, where its client would retry for half a minute.

    None where it answers, with HF_HUB_OFFLINE set (only the cache is used), or behind a proxy (which decides).
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or getproxies():
        return None
    address = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname, address.port or 443), timeout=3).close()
    except OSError:
        return constants.ENDPOINT
    return None
