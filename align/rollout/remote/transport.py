"""What carries messages between an engine and its host: bytes there and bytes back, one call at a time."""

from __future__ import annotations

from typing import Protocol

from align.rollout.remote.wire import pack_error, unpack_error

_DONE, _FAILED = b"\x00", b"\x01"


class Transport(Protocol):
    """The near end; the far end hands `method` and `payload` to `EngineHost.call` and returns what that returns."""

    def call(self, method: str, payload: bytes, seconds: float) -> bytes:
        """Raises TimeoutError where no answer came in time, ConnectionError where nobody is there any more."""
        ...

    @property
    def alive(self) -> bool: ...

    def ending(self) -> str:
        """How the far end ended, as far as is known, and on further lines the last that it wrote."""
        ...

    def close(self, grace: float = 20.0) -> None:
        """End the far end, by force where it does not do so itself within `grace` seconds. Closing twice is fine."""
        ...


def done(answer: bytes) -> bytes:
    return _DONE + answer


def failed(error: BaseException) -> bytes:
    return _FAILED + pack_error(error)


def opened(answer: bytes) -> bytes:
    """What was answered. Raises the error where it was one."""
    if answer[:1] == _FAILED:
        raise unpack_error(answer[1:])
    return answer[1:]
