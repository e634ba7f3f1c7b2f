"""Runs the program of a completion and calls what it defines, one call a line. Nothing here knows what is expected."""

from typing import Any

if __name__ != "__main__":  # inside the sandbox all parts are one text
    from align.rewards.code.inside.channel import Channel, said
    from align.rewards.code.inside.plain import decode, encode


def load(channel: Channel) -> dict[str, Any]:
    """The program's own names; a program that does not even run says why."""
    space: dict[str, Any] = {"__name__": "program", "__builtins__": __builtins__}
    try:
        code = compile(channel.first["program"], "program.py", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        channel.send(loaded=False, syntax=True, kind=type(error).__name__, message=said(error))
        raise SystemExit from None
    try:
        exec(code, space)
    except BaseException as error:
        channel.send(loaded=False, syntax=False, kind=type(error).__name__, message=said(error))
        raise SystemExit from None
    channel.send(loaded=True)
    return space


def find(space: dict[str, Any], name: str) -> Any:
    """A function or class of the program, or a method of its class Solution."""
    if name in space:
        return space[name]
    return getattr(space["Solution"](), name)


def serve() -> None:
    channel = Channel()
    space = load(channel)
    kept: list[Any] = []

    def handle(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    while True:
        call = channel.receive()
        try:
            arguments = decode(call["args"], kept.__getitem__)
            named = decode(call["kwargs"], kept.__getitem__)
            value = encode(find(space, call["name"])(*arguments, **named), handle)
        except BaseException as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            channel.send(id=call["id"], kinds=kinds, message=said(error))
        else:
            channel.send(id=call["id"], value=value)


if __name__ == "__main__":
    serve()
