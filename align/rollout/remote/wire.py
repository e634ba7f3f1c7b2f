"""Requests, completions and errors as bytes and back: Arrow tables and JSON, so that what arrives is data and never code.

Text may hold lone surrogates (half of a character), which neither Arrow nor JSON takes as they are: it travels as bytes. Requests
travel without what only rewards read of its prompt; who asked has that still.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from align import errors
from align.errors import AlignError, RolloutError, first_line
from align.types import Completion, Prompt, Request, Sampling, Written

_TOKENS, _NUMBERS, _TEXT = pa.list_(pa.int32()), pa.list_(pa.float64()), pa.binary()
_REQUEST = pa.schema(
    {
        "name": _TEXT,
        "prompt_id": _TEXT,
        "prompt": _TOKENS,
        "sampling": _TEXT,
        "prompt_index": pa.int64(),
        "sample_index": pa.int64(),
        "token_ids": _TOKENS,
        "logprobs": _NUMBERS,
        "versions": pa.list_(pa.int64()),
    }
)
_WRITTEN = pa.schema([_REQUEST.field(name) for name in ("name", "token_ids", "logprobs", "versions")])
_COMPLETION = pa.schema(
    {
        "name": _TEXT,
        "prompt_index": pa.int64(),
        "sample_index": pa.int64(),
        "token_ids": _TOKENS,
        "logprobs": _NUMBERS,
        "text": _TEXT,
        "finish_reason": pa.string(),
        "weights_version": pa.int64(),
        "token_versions": pa.list_(pa.int64()),
    }
)


def pack_requests(requests: Iterable[Request]) -> bytes:
    rows = [
        {
            "name": _bytes(request.name),
            "prompt_id": _bytes(request.prompt.id),
            "prompt": request.prompt.token_ids,
            "sampling": pack_sampling(request.sampling),
            "prompt_index": request.prompt_index,
            "sample_index": request.sample_index,
            **_written_row(request.written),
        }
        for request in requests
    ]
    return _pack(rows, _REQUEST)


def unpack_requests(content: bytes) -> list[Request]:
    return [
        Request(
            name=_text(row["name"]),
            prompt=Prompt(id=_text(row["prompt_id"]), messages=(), token_ids=tuple(row["prompt"])),
            sampling=unpack_sampling(row["sampling"]),
            prompt_index=row["prompt_index"],
            sample_index=row["sample_index"],
            written=_written(row),
        )
        for row in _unpack(content, _REQUEST)
    ]


def pack_written(requests: Iterable[Request]) -> bytes:
    """What an interrupt returns: which requests, and what there is of each."""
    return _pack([{"name": _bytes(request.name), **_written_row(request.written)} for request in requests], _WRITTEN)


def unpack_written(content: bytes) -> list[tuple[str, Written | None]]:
    return [(_text(row["name"]), _written(row)) for row in _unpack(content, _WRITTEN)]


def pack_completions(finished: Iterable[tuple[str, Completion]]) -> bytes:
    rows = [
        {
            "name": _bytes(name),
            "prompt_index": one.prompt_index,
            "sample_index": one.sample_index,
            "token_ids": one.token_ids,
            "logprobs": one.logprobs,
            "text": _bytes(one.text),
            "finish_reason": one.finish_reason,
            "weights_version": one.weights_version,
            "token_versions": one.token_versions,
        }
        for name, one in finished
    ]
    return _pack(rows, _COMPLETION)


def unpack_completions(content: bytes) -> list[tuple[str, Completion]]:
    finished = []
    for row in _unpack(content, _COMPLETION):
        name, text = _text(row.pop("name")), _text(row.pop("text"))
        lists: dict[str, Any] = {key: tuple(row.pop(key)) for key in ("token_ids", "logprobs", "token_versions")}
        finished.append((name, Completion(text=text, **lists, **row)))
    return finished


def pack_sampling(sampling: Sampling) -> bytes:
    return json.dumps({**asdict(sampling), "stop": [_bytes(string).hex() for string in sampling.stop]}).encode()


def unpack_sampling(content: bytes) -> Sampling:
    values = json.loads(content)
    stop = tuple(_text(bytes.fromhex(string)) for string in values.pop("stop"))
    return Sampling(stop=stop, stop_token_ids=tuple(values.pop("stop_token_ids")), **values)


def pack_names(names: Iterable[str] | None) -> bytes:
    """Names of requests; None stands for all."""
    return pack_json(None if names is None else [_bytes(name).hex() for name in names])


def unpack_names(content: bytes) -> list[str] | None:
    names = unpack_json(content)
    return None if names is None else [_text(bytes.fromhex(name)) for name in names]


def pack_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def unpack_json(content: bytes) -> Any:
    return json.loads(content)


def pack_error(error: BaseException) -> bytes:
    """An error of ours keeps its kind; of another one its kind and first line are told."""
    if isinstance(error, AlignError):
        return pack_json({"kind": type(error).__name__, "message": error.message, "place": error.place, "fix": error.fix})
    return pack_json(
        {"kind": "RolloutError", "message": f"{type(error).__name__}: {first_line(error)}", "place": None, "fix": None}
    )


def unpack_error(content: bytes) -> AlignError:
    told = unpack_json(content)
    kind = getattr(errors, told["kind"], None)
    ours = kind if isinstance(kind, type) and issubclass(kind, AlignError) else RolloutError
    return ours(told["message"], place=told["place"], fix=told["fix"])


def _written_row(written: Written | None) -> dict[str, Any]:
    if written is None:
        return {"token_ids": None, "logprobs": None, "versions": None}
    return {"token_ids": written.token_ids, "logprobs": written.logprobs, "versions": written.versions}


def _written(row: dict[str, Any]) -> Written | None:
    if row["token_ids"] is None:
        return None
    return Written(**{name: tuple(row[name]) for name in ("token_ids", "logprobs", "versions")})


def _pack(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema))
    return bytes(sink.getvalue())


def _unpack(content: bytes, schema: pa.Schema) -> list[dict[str, Any]]:
    with pa.ipc.open_stream(content) as reader:
        table = reader.read_all()
    if table.schema != schema:
        raise ValueError("a message of another version of align arrived: use the same one everywhere")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogatepass")
