"""IFBench (Pyatkin et al. 2025, arXiv:2507.02833): the families count:* and ratio:*."""

from __future__ import annotations

import re
from collections import Counter

from align.rewards.instructions.families import Count, Percent, Place, Word, at_least, exactly, family
from align.rewards.instructions.lexicon import CONJUNCTIONS, PERSON_NAMES, PRONOUNS, STOP_WORDS
from align.rewards.instructions.text import count_phrase, ending, sentences, tokens, words

_NUMBER = re.compile(r"(?<![^\W_])\d+(?:[.,]\d+)*")
_JAPANESE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_TIMES = (1, 2, 3, 5, 7)
_MARKS = ".,!?;:"


@family("count:word_count_range")
def word_range(text: str, *, min_words: Count, max_words: Count) -> str | None:
    count = len(words(text))
    return None if min_words <= count <= max_words else f"{count} words, wanted {min_words} to {max_words}"


@family("count:unique_word_count")
def unique_words(text: str, *, N: Count) -> str | None:
    return at_least(len({word.lower() for word in tokens(text)}), N, "different words")


@family("count:conjunctions")
def conjunctions(text: str, *, small_n: Count) -> str | None:
    return at_least(len({word.lower() for word in words(text)} & CONJUNCTIONS), small_n, "different coordinating conjunctions")


@family("count:person_names")
def person_names(text: str, *, N: Count) -> str | None:
    return at_least(len(set(words(re.sub(r"['\u2019]s\b", "", text))) & set(PERSON_NAMES)), N, "different names of the list")


@family("count:numbers")
def numbers(text: str, *, N: Count) -> str | None:
    return exactly(sum(1 for _ in _NUMBER.finditer(text)), N, "numbers")


@family("count:pronouns")
def pronouns(text: str, *, N: Count) -> str | None:
    found = (re.split("['\u2019-]", word.lower())[0] for word in words(text))
    return at_least(sum(word in PRONOUNS for word in found), N, "pronouns")


@family("count:punctuation")
def punctuation(text: str) -> str | None:
    rest = re.sub(r"\?!|!\?|\u203d", "", text, count=1)
    if len(rest) == len(text):
        return "no interrobang (?!)"
    missing = [mark for mark in _MARKS if mark not in rest]
    return f"without {' '.join(missing)}" if missing else None


@family("count:keywords_multiple")
def keywords_multiple(text: str, *, keyword1: Word, keyword2: Word, keyword3: Word, keyword4: Word, keyword5: Word) -> str | None:
    for keyword, wanted in zip((keyword1, keyword2, keyword3, keyword4, keyword5), _TIMES, strict=True):
        if wrong := exactly(count_phrase(text, keyword), wanted, f"times {keyword!r}"):
            return wrong
    return None


@family("count:words_japanese")
def japanese(text: str, *, N: Place) -> str | None:
    found = tokens(text)
    if len(found) < N:
        return f"{len(found)} words, so none is number {N}"
    wrong = next((word for word in found[N - 1 :: N] if not _JAPANESE.search(word)), None)
    return f"{wrong!r} is not Japanese" if wrong else None


@family("ratio:stop_words")
def stop_words(text: str, *, percentage: Percent) -> str | None:
    found = words(text)
    if not found:
        return "no words"
    share = 100 * sum(word.lower().replace("\u2019", "'") in STOP_WORDS for word in found) / len(found)
    return None if share <= percentage else f"{share:.1f}% stop words, wanted at most {percentage:g}%"


@family("ratio:sentence_type")
def two_to_one(text: str) -> str | None:
    kinds = Counter(map(ending, sentences(text)))
    good = kinds["?"] > 0 and kinds["."] == 2 * kinds["?"]
    return None if good else f"{kinds['.']} declarative and {kinds['?']} interrogative sentences, wanted 2:1"


@family("ratio:sentence_balance")
def balance(text: str) -> str | None:
    kinds = Counter(map(ending, sentences(text)))
    good = kinds["."] == kinds["?"] == kinds["!"] > 0
    return None if good else f"sentences: {kinds['.']} declarative, {kinds['?']} interrogative, {kinds['!']} exclamatory"


@family("ratio:sentence_words")
def same_length(text: str) -> str | None:
    found = sentences(text)
    if wrong := exactly(len(found), 3, "sentences"):
        return wrong
    if len({len(sentence) for sentence in found}) > 1:
        return f"sentences of {', '.join(str(len(sentence)) for sentence in found)} characters"
    repeated = [word for word, count in Counter(word.lower() for word in tokens(text)).items() if count > 1]
    return f"{repeated[0]!r} occurs again" if repeated else None


@family("ratio:overlap")
def overlap(text: str, *, reference_text: Word, percentage: Percent) -> str | None:
    """Of the text's different runs of three characters, the share that the reference has too."""
    own, reference = _trigrams(text), _trigrams(reference_text)
    if not own:
        return "shorter than three characters"
    share = 100 * len(own & reference) / len(own)
    return None if abs(share - percentage) <= 2 else f"trigram overlap {share:.1f}%, wanted {percentage:g}% (2% either way)"


def _trigrams(text: str) -> set[str]:
    return {text[at : at + 3] for at in range(len(text) - 2)}
