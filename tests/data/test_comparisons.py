"""Rows of preferences: their three kinds, prompts that stand in no column, and rows that say nothing."""

import pytest

from align.data.columns import BadRow, map_columns
from align.data.comparisons import compared
from align.data.sources import read_all, row_texts
from align.errors import DataError
from align.recipe.schema import Source


def comparison(**row):
    return compared(row, map_columns(list(row), {}, "comparison", "here"))["comparison"]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def test_pairs_of_text_and_of_messages():
    text = comparison(prompt="Capital?", chosen="Paris", rejected="Rome")
    assert (text.kind, text.prompt, text.completions, text.scores) == ("pair", "Capital?", ("Paris", "Rome"), (1.0, 0.0))
    turns = comparison(prompt=[user("Capital?")], chosen=[assistant("Paris")], rejected=[assistant("Rome")])
    assert (turns.prompt, turns.completions) == ([user("Capital?")], ([assistant("Paris")], [assistant("Rome")]))


def test_the_prompt_is_what_both_conversations_begin_with():
    first = [user("Hi"), assistant("Hello"), user("Capital?")]
    pair = comparison(chosen=[*first, assistant("Paris")], rejected=[*first, assistant("Rome"), user("Sure?"), assistant("Yes")])
    assert pair.prompt == first
    assert pair.completions == ([assistant("Paris")], [assistant("Rome"), user("Sure?"), assistant("Yes")])
    # whole conversations beside a column with the prompt's text, as some data sets have them
    assert comparison(
        prompt="Capital?", chosen=[user("Capital?"), assistant("a")], rejected=[user("Capital?"), assistant("b")]
    ).prompt == [user("Capital?")]


def test_conversations_that_part_in_a_turn_of_the_user_are_compared_from_the_answer_before_it():
    pair = comparison(
        chosen=[user("Hi"), assistant("Hello"), user("A?"), assistant("a")],
        rejected=[user("Hi"), assistant("Hello"), user("B?"), assistant("b")],
    )
    assert pair.prompt == [user("Hi")]
    assert pair.completions[0] == [assistant("Hello"), user("A?"), assistant("a")]


def test_dialogues_of_human_and_assistant():
    pair = comparison(
        chosen="\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Capital?\n\nAssistant: Paris",
        rejected="\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Capital?\n\nAssistant: No idea.\n\nSorry.",
    )
    assert pair.prompt == [user("Hi"), assistant("Hello."), user("Capital?")]
    assert pair.completions == ([assistant("Paris")], [assistant("No idea.\n\nSorry.")])


def test_texts_are_divided_at_a_border_of_words():
    pair = comparison(chosen="The sky is blue today", rejected="The sky is black")
    assert (pair.prompt, pair.completions) == ("The sky is ", ("blue today", "black"))


def test_margins():
    assert comparison(prompt="a", chosen="b", rejected="c").margin is None
    assert comparison(prompt="a", chosen="b", rejected="c", margin=2).margin == 2.0
    assert comparison(prompt="a", chosen="b", rejected="c", score_chosen=8.5, score_rejected=6).margin == 2.5


def test_judged_completions():
    one = comparison(prompt="a", completion="b", label=True)
    assert (one.kind, one.completions, one.scores) == ("label", ("b",), (1.0,))
    assert comparison(prompt="a", completion="b", label="false").scores == (0.0,)
    assert comparison(prompt="a", completion="b", reward=-0.5).scores == (-0.5,)
    conversation = comparison(completion=[user("Hi"), assistant("Hello")], label=1)
    assert (conversation.prompt, conversation.completions) == ([user("Hi")], ([assistant("Hello")],))


def test_ranked_lists():
    ranked = comparison(prompt="a", completions=["b", "c", "d"], scores=[1, 3, 2])
    assert (ranked.kind, ranked.scores) == ("ranking", (1.0, 3.0, 2.0))
    assert comparison(prompt="a", completions=["b", "c"], ranks=[1, 2]).scores == (-1.0, -2.0)  # the first is the best


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "the same"),
        ({"prompt": "a", "chosen": "b", "rejected": ""}, "rejected is empty"),
        (
            {"prompt": "a", "chosen": "b", "rejected": [{"role": "assistant", "content": "c"}]},
            "one of chosen and rejected is text",
        ),
        ({"chosen": "Paris", "rejected": "Rome"}, "no prompt in common"),
        ({"chosen": "The sky is", "rejected": "The sky is blue"}, "chosen adds nothing"),
        ({"chosen": "\n\nHuman: Hi\n\nAssistant:", "rejected": "\n\nHuman: Hi\n\nAssistant: Hello"}, "chosen adds no answer"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "big"}, "margin is 'big'"),
        ({"prompt": "a", "completion": "b", "label": None}, "label is None"),
        ({"prompt": "a", "completion": "b", "label": float("nan")}, "not a finite number"),
        ({"prompt": "a", "completions": ["b"], "scores": [1]}, "at least two"),
        ({"prompt": "a", "completions": ["b", "c"], "scores": [1]}, "one for each completion"),
        ({"prompt": "a", "completions": ["b", "c"], "scores": [1, 1]}, "nothing is ranked"),
        ({"prompt": "a", "completions": ["b", ""], "scores": [1, 2]}, r"completions\[1\] is empty"),
    ],
)
def test_rows_that_say_nothing(row, why):
    with pytest.raises(BadRow, match=why):
        comparison(**row)


@pytest.mark.parametrize(
    ("names", "column"),
    [
        (["question", "chosen"], "rejected"),
        (["prompt", "completion"], "label"),
        (["prompt", "completions"], "scores"),
        (["text"], "chosen"),
    ],
)
def test_missing_columns_are_named(names, column):
    with pytest.raises(DataError, match=f"no column '{column}'.*{names[0]}"):
        map_columns(names, {}, "comparison", "here")


def test_bad_rows_are_named_by_file_and_line(jsonl):
    path = jsonl([{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "b", "rejected": "b"}])
    with pytest.raises(DataError) as caught:
        read_all([Source(path=str(path))], need="comparison")
    assert f"{path}:2" in str(caught.value)
    (rowset,) = read_all([Source(path=str(path))], need="comparison", max_bad_rows=1)
    assert list(row_texts([rowset])) == ["a", "b", "c"]


def test_columns_under_other_names(jsonl):
    path = jsonl([{"q": "a", "good": "b", "bad": "c"}])
    source = Source(path=str(path), columns={"prompt": "q", "chosen": "good", "rejected": "bad"})
    (rowset,) = read_all([source], need="comparison")
    assert rowset.rows[0].columns["comparison"].completions == ("b", "c")
