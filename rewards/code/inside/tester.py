"""Runs the tests of a row in a process of their own, in which the program's functions are calls to where it runs."""

import builtins
from collections.abc import Callable
from typing import Any

if __name__ != "__main__":  # inside the sandbox all parts are one text
    from align.rewards.code.inside.channel import Channel, said
    from align.rewards.code.inside.plain import Iterated, decode, encode

calls = 0


class Handle:
    """An object of the program's: it can be handed back, and is equal to nothing but itself."""

    def __init__(self, number: int) -> None:
        self._number = number


def stub(channel: Channel, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        global calls
        calls += 1
        forms = {"args": encode(list(args), back), "kwargs": encode(kwargs, back)}
        channel.send(call=name, **forms)
        reply = channel.receive()
        if "value" not in reply:
            raise exception(reply["kinds"])(reply["message"])
        value = decode(reply["value"], Handle)
        return iter(list(value)) if isinstance(value, Iterated) else value

    return call


def back(value: Any) -> int:
    if isinstance(value, Handle):
        return value._number
    raise TypeError(f"a {type(value).__name__} cannot be handed to the program")


def exception(kinds: list[str]) -> type[Exception]:
    """The nearest built-in exception of the one that the program raised."""
    for kind in kinds:
        found = getattr(builtins, kind, None)
        if isinstance(found, type) and issubclass(found, Exception):
            return Raised.of(found, kinds[0])
    return Raised.of(Exception, kinds[0])


class Raised:
    """Makes an exception class that can be raised with any message, whatever the built-in one asks for."""

    @staticmethod
    def of(base: type[Exception], name: str) -> type[Exception]:
        return type(name, (base,), {"__init__": lambda self, *_: None, "__str__": lambda self: name})


def serve() -> None:
    channel = Channel()
    space: dict[str, Any] = {"__name__": "tests"}
    for part in channel.first["setup"]:
        try:
            exec(compile(part, "setup.py", "exec"), space)
        except BaseException as error:
            channel.send(broken=f"the set-up of the tests fails: {type(error).__name__}: {said(error)}")
            raise SystemExit from None
    for name in channel.first["names"]:
        space[name] = stub(channel, name)
    for number, test in enumerate(channel.first["tests"]):
        before = calls
        try:
            exec(compile(test, "tests.py", "exec"), space)
        except BaseException as error:
            what = f"{type(error).__name__}: {said(error)}".removesuffix(": ")
            channel.send(test=number, passed=False, called=calls > before, detail=what)
        else:
            channel.send(test=number, passed=True, called=calls > before, detail="")
    channel.send(done=True)


if __name__ == "__main__":
    serve()
