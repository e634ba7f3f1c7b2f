"""Ends of sentences and steps, in characters and in tokens."""

import pytest

from align.learner.fresh import train_tokenizer
from align.loops.boundaries import ends_in_tokens, sentence_ends, token_of_end
from align.recipe.schema import TokenizerInit


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TokenizerInit(vocab_size=400), ["We add one. Then we add two.\nSo it is 3.5, done!"] * 20)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("We add one. Then two.", ["We add one.", " Then two."]),
        ("It is 3.5 now! Yes", ["It is 3.5 now!", " Yes"]),
        ("a\n\nb\nc", ["a\n\n", "b\n", "c"]),
        ('He said "no." So', ['He said "no."', " So"]),
        ("\u4e00\u3002\u4e8c\u3002", ["\u4e00\u3002", "\u4e8c\u3002"]),
        ("nothing", ["nothing"]),
        ("", []),
    ],
)
def test_sentences(text, parts):
    ends = [0, *sentence_ends(text)]
    cut = [text[a:b] for a, b in zip(ends, [*ends[1:], len(text)], strict=True)]
    assert [part for part in cut if part] == parts


@pytest.mark.parametrize("text", ["We add one. Then we add two.\nSo it is 3.5, done!", "Größe ist 3. \u6f22\u5b57\u3002 fertig"])
def test_the_token_of_an_end_completes_the_text_before_it(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    for end in range(1, len(text) + 1):
        place = token_of_end(tokenizer, ids, end)
        assert len(tokenizer.decode(ids[: place + 1])) >= end
        assert place == 0 or len(tokenizer.decode(ids[:place])) < end


def test_special_tokens_are_no_text_and_ends_beyond_the_text_are_its_last_token(tokenizer):
    ids = [*tokenizer.encode("one. two.", add_special_tokens=False), tokenizer.eos_token_id]
    assert ends_in_tokens(tokenizer, ids, [9, 99]) == [len(ids) - 2, len(ids) - 1]
