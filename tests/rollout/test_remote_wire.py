"""What crosses to another process arrives as it was, and only data does."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import pytest

from align.errors import DataError, EngineLostError, RolloutError
from align.rollout.remote.transport import done, failed, opened
from align.rollout.remote.wire import (
    pack_completions,
    pack_error,
    pack_names,
    pack_requests,
    pack_sampling,
    pack_written,
    unpack_completions,
    unpack_error,
    unpack_names,
    unpack_requests,
    unpack_sampling,
    unpack_written,
)
from align.types import Completion, FinishReason, Prompt, Request, Sampling, Written

STRANGE = ["", "plain", "\ud83d", "\ud83d\ude00", "\U0001f600", "\0\n\r\u2028", "é" * 3]
SAMPLINGS = [
    Sampling(),
    Sampling(
        n=7,
        max_tokens=1,
        temperature=1 / 3,
        top_p=0.1 + 0.2,
        top_k=5,
        min_p=5e-324,
        stop=tuple(STRANGE),
        stop_token_ids=(0, 2**31 - 1),
        seed=-(2**70),
    ),
]
WRITTEN = Written(token_ids=(1, 2**31 - 1), logprobs=(-0.0, -math.nextafter(1.0, 2.0)), versions=(0, 2**40))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_sampling(sampling: Sampling) -> None:
    assert unpack_sampling(pack_sampling(sampling)) == sampling


def test_requests() -> None:
    """All but what an engine does not look at of a prompt."""
    requests = [
        Request(
            name=name,
            prompt=Prompt(id=name, messages=(), token_ids=tuple(range(number))),
            sampling=SAMPLINGS[number % 2],
            prompt_index=number,
            sample_index=3 * number,
            written=(None, WRITTEN, Written(token_ids=(), logprobs=(), versions=()))[number % 3],
        )
        for number, name in enumerate(STRANGE)
    ]
    found = unpack_requests(pack_requests(requests))
    assert found == requests
    assert math.copysign(1, found[1].written.logprobs[0]) == -1  # type: ignore[union-attr]
    assert unpack_written(pack_written(requests)) == [(request.name, request.written) for request in requests]
    assert unpack_requests(pack_requests([])) == []
    answer: Any = object()
    kept = Prompt(id="a", messages=({"role": "user"},), token_ids=(1,), answer=answer, columns={"tests": answer})
    assert unpack_requests(pack_requests([Request(name="a", prompt=kept, sampling=Sampling())]))[0].prompt.columns == {}


def test_completions() -> None:
    finished = [
        (
            f"{text}:1",
            Completion(
                prompt_index=number,
                sample_index=number + 1,
                token_ids=tuple(range(number)),
                logprobs=tuple(-1 / (place + 1) for place in range(number)),
                text=text,
                finish_reason=get_args(FinishReason)[number % 2],
                weights_version=2**40,
                token_versions=(1, 2) * (number % 2),
            ),
        )
        for number, text in enumerate(STRANGE)
    ]
    assert unpack_completions(pack_completions(finished)) == finished
    assert unpack_completions(pack_completions([])) == []


@pytest.mark.parametrize("names", [None, [], STRANGE])
def test_names(names: list[str] | None) -> None:
    assert unpack_names(pack_names(names)) == names


def test_errors_keep_their_kind() -> None:
    for error in (EngineLostError("gone", place="engine 1"), DataError("bad", place="row 3", fix="mend it"), RolloutError("no")):
        found = unpack_error(pack_error(error))
        assert type(found) is type(error)
        assert str(found) == str(error)
    found = unpack_error(pack_error(IndexError("pop from\nnowhere")))
    assert type(found) is RolloutError
    assert found.message == "IndexError: pop from"
    assert opened(done(b"x")) == b"x"
    with pytest.raises(DataError, match="bad"):
        opened(failed(DataError("bad")))


def test_nothing_but_errors_is_made_from_a_name() -> None:
    told = {"kind": "annotations", "message": "m", "place": None, "fix": None}
    assert type(unpack_error(json.dumps(told).encode())) is RolloutError


def test_a_message_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="another version of align"):
        unpack_requests(pack_written([]))
