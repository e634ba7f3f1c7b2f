"""Stop ids and stop strings, on a real byte-level tokenizer and a model that follows a script."""

import pytest

from align.rollout.stopping import StopRule, end_of_sequence_ids
from align.rollout.transformers import TransformersEngine
from align.types import Sampling


def complete(kit, tokenizer, script, **sampling):
    prompt = kit.prompts((5,))[0]
    engine = TransformersEngine(kit.scripted(script.encode(), prompt_length=5), tokenizer)
    first, second = engine.generate([prompt], Sampling(n=2, max_tokens=40, **sampling))
    assert first.token_ids == second.token_ids  # the script leaves nothing to chance
    return first


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ((), "so 1+2=3\n\nanswer: 3 é.end"),
        (("\n\n",), "so 1+2=3\n\n"),
        (("answer:",), "so 1+2=3\n\nanswer:"),
        (("end", "3 "), "so 1+2=3\n\nanswer: 3 "),
        (("é",), "so 1+2=3\n\nanswer: 3 é"),
        (("not there",), "so 1+2=3\n\nanswer: 3 é.end"),
        (("s",), "s"),
    ],
)
def test_stop_strings_end_the_completion_and_stay_in_it(kit, tokenizer, stop, text):
    completion = complete(kit, tokenizer, "so 1+2=3\n\nanswer: 3 é.end", stop=stop)
    assert completion.text == text
    assert completion.finish_reason == "stop"
    assert (completion.token_ids[-1] == kit.END) == text.endswith(".end")


def test_stop_ids_end_it_too_and_a_limit_says_length(kit, tokenizer):
    completion = complete(kit, tokenizer, "answer: 3", stop_token_ids=(ord(":"),))
    assert (completion.text, completion.finish_reason) == ("answer:", "stop")
    long = complete(kit, tokenizer, "x" * 60)
    assert (long.finish_reason, len(long.token_ids)) == ("length", 40)


def test_the_last_allowed_token_may_still_stop(kit, tokenizer):
    assert complete(kit, tokenizer, "x" * 39).finish_reason == "stop"
    assert complete(kit, tokenizer, "x" * 39 + "!", stop=("!",)).finish_reason == "stop"


def test_a_stop_string_that_is_a_special_token_is_met_as_an_id(tokenizer):
    rule = StopRule(tokenizer, Sampling(stop=("<pad>",)), frozenset())
    assert rule.ends([65, tokenizer.pad_token_id])
    assert not rule.ends([65])


def test_pieces_are_only_decoded_whole_when_they_may_complete_a_stop_string(tokenizer, monkeypatch):
    rule = StopRule(tokenizer, Sampling(stop=("ab",)), frozenset())
    decoded, original = [], rule.text

    def text(ids):
        decoded.append(tuple(ids))
        return original(ids)

    monkeypatch.setattr(rule, "text", text)
    tokens = tokenizer.encode("xyzaab")
    ended = [rule.ends(tokens[: end + 1]) for end in range(len(tokens))]
    assert ended == [False] * 5 + [True]
    assert [ids for ids in decoded if len(ids) > 1] == [tuple(tokens)]


def test_end_ids_come_from_generation_config_and_tokenizer(kit, tokenizer):
    model = kit.model()
    assert end_of_sequence_ids(model, tokenizer) == {kit.END}
    model.generation_config.eos_token_id = [7, 8]
    assert end_of_sequence_ids(model, tokenizer) == {7, 8, kit.END}
    model.generation_config.eos_token_id = None
    assert end_of_sequence_ids(model, tokenizer) == {kit.END}
