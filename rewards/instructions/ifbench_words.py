"""IFBench: the families words:* and sentence:*, about single words, their order and how sentences grow."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import groupby, pairwise

from align.rewards.instructions.families import Count, Place, Word, at_least, family
from align.rewards.instructions.lexicon import NOT_VERBS, VERBS
from align.rewards.instructions.text import count_phrase, first_letter, letters_only, lines, sentences, tokens, words

_CLUSTER = re.compile("[bcdfghjklmnpqrstvwxyz]{2}")
_SYLLABLE = re.compile("[aeiouy]+")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_MOST_VOWELS = 3
_SHORTEST_PALINDROME = 5
_PALINDROMES = 10


@family("words:alphabet")
def alphabet(text: str) -> str | None:
    found = [(word, first_letter(word)) for word in tokens(text)]
    if not found or found[0][1] not in _ALPHABET:
        return "does not begin with a letter from A to Z"
    for (before, letter), (word, following) in pairwise(found):
        if following != _ALPHABET[(_ALPHABET.index(letter) + 1) % 26]:
            return f"{word!r} does not follow {before!r} in the alphabet"
    return None


@family("words:vowel")
def three_vowels(text: str) -> str | None:
    plain = unicodedata.normalize("NFKD", text.lower())
    if len(lines(text)) != 1 or not words(text):
        return "is not one paragraph"
    found = sorted(set(plain) & set("aeiou"))
    return f"has the vowels {', '.join(found)}" if len(found) > _MOST_VOWELS else None


@family("words:consonants")
def consonant_clusters(text: str) -> str | None:
    found = [word for word in tokens(text.lower()) if any(map(str.isalpha, word))]
    if not found:
        return "no words"
    wrong = next((word for word in found if not _CLUSTER.search(word)), None)
    return f"{wrong!r} has no two consonants together" if wrong else None


@family("words:palindrome")
def palindromes(text: str) -> str | None:
    found = {word for word in letters_only(text.lower()) if len(word) >= _SHORTEST_PALINDROME and word == word[::-1]}
    return at_least(sum(word.isalpha() for word in found), _PALINDROMES, "different palindromes of five letters or more")


@family("words:prime_lengths")
def prime_lengths(text: str) -> str | None:
    found = letters_only(text)
    wrong = next((word for word in found if not _prime(len(word))), None)
    return f"{wrong[:40]!r} has {len(wrong)} letters" if wrong else None if found else "no words"


@family("words:start_verb")
def start_verb(text: str) -> str | None:
    first = next(iter(words(text)), "").lower().replace("\u2019", "'")
    return None if _is_verb(first) else f"{first!r} is not known as a verb"


@family("words:repeats")
def repeats(text: str, *, small_n: Count) -> str | None:
    most = Counter(word.lower() for word in tokens(text)).most_common(1)
    return f"{most[0][0]!r} occurs {most[0][1]} times, wanted at most {small_n}" if most and most[0][1] > small_n else None


@family("words:odd_even_syllables")
def syllable_parity(text: str) -> str | None:
    found = letters_only(text.lower())
    if len(found) < 2:
        return "fewer than two words"
    for one, other in pairwise(found):
        if syllables(one) % 2 == syllables(other) % 2:
            return f"{one!r} and {other!r} have {syllables(one)} and {syllables(other)} syllables"
    return None


@family("words:last_first")
def last_first(text: str) -> str | None:
    found = [own for sentence in sentences(text) if (own := tokens(sentence.lower()))]
    if len(found) < 2:
        return "fewer than two sentences"
    wrong = next(((one, other) for one, other in pairwise(found) if one[-1] != other[0]), None)
    return f"a sentence ends with {wrong[0][-1]!r}, the next begins with {wrong[1][0]!r}" if wrong else None


@family("words:paragraph_last_first")
def paragraph_last_first(text: str) -> str | None:
    found = [own for line in lines(text.lower()) if (own := tokens(line))]
    wrong = next((own for own in found if own[0] != own[-1]), None)
    return f"a paragraph begins with {wrong[0]!r} and ends with {wrong[-1]!r}" if wrong else None if found else "no words"


@family("words:no_consecutive")
def no_consecutive(text: str) -> str | None:
    found = tokens(text)
    if len(found) < 2:
        return "fewer than two words"
    wrong = next(((one, other) for one, other in pairwise(found) if first_letter(one) == first_letter(other)), None)
    return f"{wrong[0]!r} and {wrong[1]!r} begin alike" if wrong else None


@family("words:keywords_specific_position")
def specific_position(text: str, *, keyword: Word, n: Place, m: Place) -> str | None:
    found = sentences(text)
    if len(found) < n:
        return f"{len(found)} sentences, so none is number {n}"
    own = tokens(found[n - 1])
    if len(own) < m:
        return f"sentence {n} has {len(own)} words, so none is number {m}"
    return None if own[m - 1].lower() == keyword.strip().lower() else f"word {m} of sentence {n} is {own[m - 1]!r}"


@family("words:words_position")
def words_position(text: str, *, keyword: Word) -> str | None:
    found, wanted = tokens(text.lower()), keyword.strip().lower()
    if len(found) < 3:
        return "fewer than three words"
    wrong = [place for place, at in (("second", 1), ("second to last", -2)) if found[at] != wanted]
    return f"the {wrong[0]} word is not {wanted!r}" if wrong else None


@family("sentence:keyword")
def sentence_keyword(text: str, *, word: Word, N: Place) -> str | None:
    found = sentences(text)
    if len(found) < N:
        return f"{len(found)} sentences, so none is number {N}"
    return None if count_phrase(found[N - 1], word) else f"sentence {N} is without {word!r}"


@family("sentence:increment")
def increment(text: str, *, small_n: Count) -> str | None:
    counts = [len(tokens(sentence)) for sentence in sentences(text)]
    if len(counts) < 2:
        return "fewer than two sentences"
    wrong = next(((one, other) for one, other in pairwise(counts) if other != one + small_n), None)
    return f"a sentence of {wrong[1]} words follows one of {wrong[0]}, wanted {small_n} more" if wrong else None


@family("sentence:alliteration_increment")
def alliteration(text: str) -> str | None:
    """The longest run of words that begin with the same letter must grow from each sentence to the next."""
    longest = [
        max((sum(1 for _ in run) for _, run in groupby(map(first_letter, tokens(sentence)))), default=0)
        for sentence in sentences(text)
    ]
    if len(longest) < 2:
        return "fewer than two sentences"
    wrong = next(((one, other) for one, other in pairwise(longest) if other <= one), None)
    return f"a run of {wrong[1]} alliterating words follows one of {wrong[0]}" if wrong else None


def syllables(word: str) -> int:
    """Syllables by rule: groups of vowels, without a silent e at the end. It errs on some words."""
    plain = "".join(mark for mark in unicodedata.normalize("NFKD", word.lower()) if mark.isalpha())
    count = len(_SYLLABLE.findall(plain))
    if count > 1 and (re.search(r"(?<![aeiouyl])e\Z|(?<=[aeiouy])le\Z", plain) or re.search(r"[^aeiouydt]ed\Z", plain)):
        count -= 1
    if count > 1 and re.search(r"[^aeiouyscxzgh]es\Z", plain) and not re.search(r"[^aeiouy]les\Z", plain):
        count -= 1
    count += len(re.findall(r"i[ao](?!u)(?<!cia)(?<!tia)(?<!tio)(?<!sio)(?<!gio)(?<!cio)|[^q]ua(?=[^l])|eo(?!u)", plain[1:]))
    return max(count, 1)


def _prime(number: int) -> bool:
    return number > 1 and all(number % by for by in range(2, int(number**0.5) + 1))


def _is_verb(word: str) -> bool:
    if word in NOT_VERBS:
        return False
    if word in VERBS or word.removesuffix("n't") in VERBS or word == "don't":
        return True
    inflected = (word.removesuffix("s"), word.removesuffix("es"), re.sub("ies$", "y", word))
    return any(one in VERBS for one in inflected) or (len(word) > 4 and word.endswith(("ing", "ed", "ize", "ise", "ify")))
