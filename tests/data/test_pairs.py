"""Preferences in tokens: what the model is given, what follows from each kind of row, and what is cut."""

import pytest

from align.data.pairs import load_labelled, load_pairs, load_rankings
from align.data.sources import read_all
from align.errors import DataError
from align.recipe.schema import Source

PAIR = {"prompt": "17+25", "chosen": "42", "rejected": "43 or so"}
RANKING = {"prompt": "17+25", "completions": ["43", "42", "about 40"], "scores": [0.5, 2.0, 0.0]}
LABEL = {"prompt": "17+25", "completion": "42", "label": True}


@pytest.fixture
def load(jsonl, tokenizer):
    def loaded(loader, rows, max_length=200, **how):
        return loader(read_all([Source(path=str(jsonl(rows)))], need="comparison"), tokenizer, max_length=max_length, **how)

    return loaded


def test_a_pair_is_what_the_model_reads_and_writes(load, tokenizer):
    ((pair,),) = load(load_pairs, [PAIR]).by_source
    assert tokenizer.decode(pair.prompt_ids) == "<|im_start|>user\n17+25<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(pair.chosen_ids) == "42<|im_end|>"
    assert tokenizer.decode(pair.rejected_ids) == "43 or so<|im_end|>"
    assert pair.margin is None


def test_without_a_template_the_prompt_is_plain_text(load, tokenizer):
    tokenizer.chat_template = None
    items = load(load_pairs, [PAIR])
    ((pair,),) = items.by_source
    assert tokenizer.decode(pair.prompt_ids) == "17+25"
    assert tokenizer.decode(pair.chosen_ids) == "42" + tokenizer.eos_token
    assert any("no chat template" in remark for remark in items.remarks())


def test_what_follows_from_each_kind_of_row(load, tokenizer):
    ((pair,),) = load(load_pairs, [RANKING]).by_source
    assert (tokenizer.decode(pair.chosen_ids), tokenizer.decode(pair.rejected_ids)) == ("42<|im_end|>", "about 40<|im_end|>")
    assert pair.margin == 2.0
    ((good, bad),) = load(load_labelled, [PAIR]).by_source
    assert [(tokenizer.decode(one.completion_ids), one.score) for one in (good, bad)] == [
        ("42<|im_end|>", 1.0),
        ("43 or so<|im_end|>", 0.0),
    ]
    assert good.id != bad.id
    ((ranking,),) = load(load_rankings, [PAIR]).by_source
    assert ranking.scores_G == (1.0, 0.0)
    ((label,),) = load(load_labelled, [LABEL]).by_source
    assert label.score == 1.0


@pytest.mark.parametrize(
    ("loader", "row", "why"),
    [
        (load_pairs, LABEL, "is no pair: a loss such as kto"),
        (load_rankings, LABEL, "not ranked"),
        (load_labelled, RANKING, "not which is good"),
    ],
)
def test_rows_of_the_wrong_kind_are_refused(load, loader, row, why):
    with pytest.raises(DataError, match=why):
        load(loader, [row])


def test_what_is_too_long_is_dropped_and_counted(load):
    ((pair,),) = load(load_pairs, [PAIR]).by_source
    longest = len(pair.prompt_ids) + len(pair.rejected_ids)
    long = {**PAIR, "prompt": "17+25 " * 9}
    items = load(load_pairs, [PAIR, long], max_length=longest)
    assert [len(found) for found in items.by_source] == [1]
    assert list(items.dropped_long.values()) == [1]
    assert any("1 of 2 rows are above the length limit" in remark for remark in items.remarks())
    with pytest.raises(DataError, match=f"shortest has {longest} tokens"):
        load(load_pairs, [PAIR, long], max_length=longest - 1)


@pytest.mark.parametrize("truncation", ["keep_end", "keep_start"])
def test_only_the_prompt_is_ever_cut(load, truncation):
    ((whole,),) = load(load_pairs, [PAIR]).by_source
    room = 7
    ((cut,),) = load(load_pairs, [PAIR], max_length=room + len(whole.rejected_ids), truncation=truncation).by_source
    assert (cut.chosen_ids, cut.rejected_ids) == (whole.chosen_ids, whole.rejected_ids)
    assert cut.prompt_ids == (whole.prompt_ids[-room:] if truncation == "keep_end" else whole.prompt_ids[:room])
    assert list(
        load(
            load_pairs, [PAIR, {**PAIR, "chosen": "4"}], 1 + len(whole.rejected_ids), truncation=truncation
        ).dropped_long.values()
    ) == [0]
    with pytest.raises(DataError, match="every row is longer"):
        load(load_pairs, [PAIR], max_length=len(whole.rejected_ids), truncation=truncation)


def test_the_beginning_of_sequence_token_survives_the_cut(load, tokenizer, monkeypatch):
    from align.data.chat import Chat

    monkeypatch.setattr(Chat, "begins", lambda self, ids: True)
    ((whole,),) = load(load_pairs, [PAIR]).by_source
    ((cut,),) = load(load_pairs, [PAIR], max_length=5 + len(whole.rejected_ids), truncation="keep_end").by_source
    assert cut.prompt_ids == whole.prompt_ids[:1] + whole.prompt_ids[-4:]


def test_dialogues_of_people(shared_data, tokenizer):
    """Of the published test set four rows hold an empty answer; everything else is used."""
    source = Source(path=str(shared_data / "preference" / "hh_rlhf_harmless_base_test.jsonl.gz"), limit=200)
    rowsets = read_all([source], need="comparison", max_bad_rows=10)
    assert [why for _, why in rowsets[0].bad] == ["chosen adds no answer to the prompt they have in common"]
    items = load_pairs(rowsets, tokenizer, max_length=10_000, max_bad_rows=10)
    assert len(items.by_source[0]) == 199
    for pair in items.by_source[0]:
        assert pair.chosen_ids != pair.rejected_ids
        assert tokenizer.decode(pair.prompt_ids).endswith("<|im_start|>assistant\n")
