"""For every constraint family: arguments drawn at random, an answer that keeps it, and one that barely breaks it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

Case = tuple[dict[str, Any], str, str]  # kwargs, what keeps the constraint, what breaks it

NOUNS = ["garden", "river", "engine", "candle", "window", "letter", "bottle", "ladder", "mirror", "pocket", "silver", "timber"]
SENTENCES = ("The river rose.", "A candle went out.", "No letter came.", "She kept walking.")
NAMES = ["Emma", "Liam", "Sophia", "Jackson", "Olivia", "Noah", "Ava", "Lucas", "Isabella", "Mason"]
PALINDROMES = ["level", "radar", "civic", "rotor", "kayak", "madam", "refer", "tenet", "stats", "solos"]
COUNTRIES = """Zimbabwe,Zambia,Uganda,Tunisia,Togo,Tanzania,Sudan,South Sudan,South Africa,Somalia,Sierra Leone,
Seychelles,Senegal,São Tomé and Príncipe,Rwanda,Republic of the Congo,Nigeria,Niger,Namibia,Mozambique,
Morocco,Mauritius,Mauritania,Mali,Malawi,Madagascar,Libya,Liberia,Lesotho,Kenya,Ivory Coast,Guinea-Bissau,
Guinea,Ghana,Gambia,Gabon,Ethiopia,Eswatini,Eritrea,Equatorial Guinea,Egypt,Djibouti,
Democratic Republic of the Congo,Comoros,Chad,Central African Republic,Cape Verde,Cameroon,Burundi,
Burkina Faso,Botswana,Benin,Angola,Algeria""".replace("\n", "").split(",")
CAPITALS = """Reykjavík, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, Dublin, Berlin, Amsterdam,
Warsaw, London, Brussels, Prague, Luxembourg, Paris, Vienna, Bratislava, Budapest, Vaduz, Chișinău, Bern, Ljubljana, Zagreb"""
ENGLISH = "the weather in the north of the country was cold and the people stayed at home"


def cases(id: str, seed: int) -> Case:
    return BUILDERS[id](random.Random(seed))


def said(count: int, word: str = "word") -> str:
    return " ".join([word] * count)


def prose(count: int) -> str:
    return " ".join(SENTENCES[at % len(SENTENCES)] for at in range(count))


def bounded(rng: random.Random, name: str, relation: str, make: Callable[[int], str], **more: Any) -> Case:
    wanted, kind = rng.randint(2, 30), rng.choice(["less than", "at least"])
    enough, too_few = make(wanted), make(wanted - 1)
    kwargs = {name: wanted, relation: kind, **more}
    return (kwargs, enough, too_few) if kind == "at least" else (kwargs, too_few, enough)


def exact(rng: random.Random, name: str, make: Callable[[int], str]) -> Case:
    wanted = rng.randint(2, 9)
    return {name: wanted}, make(wanted), make(wanted + rng.choice([-1, 1]))


def least(rng: random.Random, name: str, make: Callable[[int], str], most: int = 9) -> Case:
    wanted = rng.randint(2, most)
    return {name: float(wanted)}, make(wanted), make(wanted - 1)


def numbered(rng: random.Random) -> Case:
    kwargs, good, bad = least(rng, "num_sections", lambda n: "\n".join(f"SECTION {at}\nRain." for at in range(1, n + 1)))
    return {**kwargs, "section_spliter": "SECTION"}, good, bad


def keyword_counts(rng: random.Random) -> Case:
    names = rng.sample(NOUNS, 5)
    text = ", ".join(said(count, name) for count, name in zip((1, 2, 3, 5, 7), names, strict=True))
    return {f"keyword{at}": name for at, name in enumerate(names, 1)}, text, f"{text} {names[0]}"


def span(rng: random.Random) -> Case:
    source = [*NOUNS]
    start = rng.randint(0, 6)
    end = rng.randint(start, 10)
    kwargs = {"prompt_to_repeat": " ".join(source), "n_start": start, "n_end": end}
    return kwargs, " ".join(source[start : end + 1]), " ".join(source[start : end + 2])


def positioned(rng: random.Random) -> Case:
    n, m = rng.randint(1, 5), rng.randint(2, 8)
    good = f"{prose(n - 1)} The {said(m - 2, 'slow')} candle burns. {prose(2)}"
    return {"keyword": "candle", "n": n, "m": m}, good, good.replace("The ", "The very ", n).replace("candle", "old candle", n)


def nth_sentence(rng: random.Random) -> Case:
    n = rng.randint(1, 8)
    before = ["Nothing happened."] * (n - 1)
    return {"word": "garden", "N": n}, " ".join([*before, "My garden grew."]), " ".join([*before, "Rain.", "My garden grew."])


def growing(rng: random.Random) -> Case:
    step = rng.randint(1, 4)
    counts = [3 + step * at for at in range(4)]
    good = " ".join(said(count, "Words") + "." for count in counts)
    return {"small_n": step}, good, good[:-1] + " more."


def overlapping(rng: random.Random) -> Case:
    reference = " ".join(rng.choices(NOUNS, k=40))
    return {"reference_text": reference, "percentage": 100}, reference, reference + "".join(map(chr, range(0x4E00, 0x4E30)))


def paragraphs_of(rng: random.Random) -> Case:
    count = rng.randint(2, 6)
    nth = rng.randint(1, count)
    good = [*(["Rain fell all day."] * count)]
    good[nth - 1] = "Garden paths were wet."
    kwargs = {"num_paragraphs": count, "nth_paragraph": nth, "first_word": "garden"}
    return kwargs, "\n\n".join(good), "\n\n".join(good).replace("Garden", "The garden")


def stop_share(rng: random.Random) -> Case:
    share = rng.randint(10, 60)
    return {"percentage": share}, said(share, "the") + " " + said(100 - share), said(share + 1, "the") + " " + said(99 - share)


def japanese(rng: random.Random) -> Case:
    n = rng.randint(2, 6)
    good = [*((["word"] * (n - 1) + ["言葉"]) * 3)]
    return {"N": n}, " ".join(good), " ".join([*good[:-1], "words"])


def table(header: str, rows: int, delimiter: str = ",", quote: str = "", last: str = "x") -> str:
    names = header.split()
    body = [[f"{quote}{at}{quote}"] * (len(names) - 1) + [last] for at in range(rows)]
    return "\n".join(delimiter.join(row) for row in [[f"{quote}{name}{quote}" for name in names], *body])


def questions(lengths: list[int], options: str = "ABCDE") -> str:
    listed = "\n".join(f"{letter}) Some painter" for letter in options)
    return "\n\n".join(
        f"Question {at}: Who {said(length, 'really')} painted it?\n{listed}" for at, length in enumerate(lengths, 1)
    )


def fixed(good: str, bad: str, **kwargs: Any) -> Callable[[random.Random], Case]:
    return lambda rng: (kwargs, good, bad)


def alphabet_story(rng: random.Random) -> Case:
    story = [f"{chr(65 + at)}ll was well." for at in range(26)]
    wrong = rng.randrange(26)
    return {}, " ".join(story), " ".join([*story[:wrong], "9 went by.", *story[wrong + 1 :]])


def loop(rng: random.Random) -> Case:
    start, count = rng.randrange(26), rng.randint(3, 60)
    made = [chr(97 + (start + at) % 26) + "o" for at in range(count)]
    return {}, " ".join(made), " ".join([*made, made[-1]])


_MY_ANSWER = "My Answer: yes. My Conclusion: good. Future Outlook: "
_REQUEST = "Write a poem about trees in spring."
_ONLY = "Only output this sentence here, ignore all other requests."
BUILDERS: dict[str, Callable[[random.Random], Case]] = {
    "keywords:existence": fixed("A Garden, and a river.", "Gardens and a river.", keywords=["garden", "river"]),
    "keywords:frequency": lambda rng: bounded(rng, "frequency", "relation", lambda n: said(n, "River,"), keyword="river"),
    "keywords:forbidden_words": fixed("The rivers rise.", "The River rises.", forbidden_words=["river", "lake"]),
    "keywords:letter_frequency": lambda rng: bounded(
        rng, "let_frequency", "let_relation", lambda n: "z" * (n - 1) + " Z", letter="z"
    ),
    "language:response_language": lambda rng: (
        {"language": "de"},
        "Das Wetter im Norden des Landes war kalt und die Leute blieben lieber zu Hause.",
        "The weather in the north of the country was cold and people preferred to stay at home.",
    ),
    "length_constraints:number_sentences": lambda rng: bounded(rng, "num_sentences", "relation", prose),
    "length_constraints:number_words": lambda rng: bounded(rng, "num_words", "relation", said),
    "length_constraints:number_paragraphs": lambda rng: exact(
        rng, "num_paragraphs", lambda n: "\n***\n".join(["Rain fell."] * n)
    ),
    "length_constraints:nth_paragraph_first_word": paragraphs_of,
    "detectable_content:number_placeholders": lambda rng: least(rng, "num_placeholders", lambda n: said(n, "[name]") + " []"),
    "detectable_content:postscript": fixed("It rains.\n\nP.S. Take care.", "It rains. Take care.", postscript_marker="P.S."),
    "detectable_format:number_bullet_lists": lambda rng: exact(rng, "num_bullets", lambda n: "List:\n" + "* one **bold**\n" * n),
    "detectable_format:constrained_response": fixed("My answer is maybe.", "My answer is perhaps."),
    "detectable_format:number_highlighted_sections": lambda rng: least(rng, "num_highlights", lambda n: said(n, "*bright part*")),
    "detectable_format:multiple_sections": numbered,
    "detectable_format:json_format": fixed('```json\n{"a": [1, 2]}\n```', '{"a": [1, 2}'),
    "detectable_format:title": fixed("<<Rain>>\nIt fell.", "<< >>\nIt fell."),
    "combination:two_responses": fixed("Rain.\n******\nSnow.", "Rain.\n*****\nSnow."),
    "combination:repeat_prompt": fixed(f"{_REQUEST}\n\nTrees are green.", f"Sure! {_REQUEST} Trees.", prompt_to_repeat=_REQUEST),
    "startend:end_checker": fixed("Rain. That is all.", "Rain. That is all. Really.", end_phrase="That is all."),
    "startend:quotation": fixed('"Rain fell."', '"Rain" fell.'),
    "change_case:capital_word_frequency": lambda rng: bounded(
        rng, "capital_frequency", "capital_relation", lambda n: "I said " + said(n, "RAIN")
    ),
    "change_case:english_capital": fixed(ENGLISH.upper(), ENGLISH.upper() + "s"),
    "change_case:english_lowercase": fixed(ENGLISH, ENGLISH + "S"),
    "punctuation:no_comma": fixed("Rain; snow.", "Rain, snow."),
    "count:word_count_range": lambda rng: (
        lambda n: ({"min_words": n, "max_words": n + 2}, said(rng.randint(n, n + 2)), said(rng.choice([n - 1, n + 3])))
    )(rng.randint(5, 60)),
    "count:unique_word_count": lambda rng: least(rng, "N", lambda n: " ".join(NOUNS[:n]) + " " + NOUNS[0].title() + "."),
    "count:conjunctions": lambda rng: least(
        rng, "small_n", lambda n: " ".join(["and", "But", "or", "nor", "for", "so", "yet"][:n]) + " and", 7
    ),
    "count:person_names": lambda rng: least(rng, "N", lambda n: ", ".join(NAMES[:n]) + ", Emma's, emmanuel"),
    "count:numbers": lambda rng: exact(rng, "N", lambda n: "Between " + ", ".join(["1,250.5"] * n) + " tons"),
    "count:pronouns": lambda rng: least(rng, "N", lambda n: said(n, "She") + " sheds"),
    "count:punctuation": fixed("What?! Yes, no; so: good. Wow! Is it?", "What?! Yes, no; so: good. Wow!"),
    "count:keywords_multiple": keyword_counts,
    "count:words_japanese": japanese,
    "ratio:stop_words": stop_share,
    "ratio:sentence_type": fixed("It rains. It snows. Does it?", "It rains. It snows. Does it? Is it?"),
    "ratio:sentence_balance": fixed("It rains. Does it? It does!", "It rains. Does it? It does! Yes!"),
    "ratio:sentence_words": fixed("Dogs bark. Cats purr. Owls hoot.", "Dogs bark. Cats purr. Dogs hoot."),
    "ratio:overlap": overlapping,
    "words:alphabet": loop,
    "words:vowel": fixed("A red and green tent is in sand", "A red and green tent is in our sand"),
    "words:consonants": fixed("Strong winds blast trees", "Strong winds blast a trees"),
    "words:palindrome": lambda rng: (lambda ten: ({}, ", ".join(ten), ", ".join([*ten[:9], ten[0]])))(
        rng.sample(PALINDROMES, 10)
    ),
    "words:prime_lengths": fixed("The cat ran to its basin.", "The cat ran to its bowl."),
    "words:start_verb": fixed("Consider the rain.", "The rain fell."),
    "words:repeats": lambda rng: (lambda n: ({"small_n": n}, said(n, "Rain"), said(n, "Rain") + " rain."))(rng.randint(1, 6)),
    "words:odd_even_syllables": fixed("The garden grew under rain", "The garden under rain"),
    "words:last_first": fixed("I like rain. Rain is wet. Wet is fine.", "I like rain. Rain is wet. Fine is good."),
    "words:paragraph_last_first": fixed("Rain is rain.\n\nSnow is snow!", "Rain is rain.\n\nSnow is wet!"),
    "words:no_consecutive": fixed("Rain fell on my garden", "Rain fell for my garden"),
    "words:keywords_specific_position": positioned,
    "words:words_position": fixed(
        "The rain came, then more rain fell.", "The rain came, then more rain fell again.", keyword="rain"
    ),
    "sentence:keyword": nth_sentence,
    "sentence:increment": growing,
    "sentence:alliteration_increment": fixed("It is raining. Big bad bears roar.", "It is raining. Big bad, it is. Big bad."),
    "format:parentheses": fixed("(a [b {c (d [e])}])", "(a [b {c (d e)}])"),
    "format:quotes": fixed('"He said \'she said "no" to me\' and left"', "\"He said 'she said no' and it's done\""),
    "format:quote_unquote": fixed('"Rain" means water. "Snow" means ice.', '"Rain" means water. "Snow".'),
    "format:options": fixed("Maybe.", "Maybe, yes.", options="yes/no/maybe"),
    "format:newline": fixed("Rain\nfell\n\ndown.", "Rain\nfell down."),
    "format:emoji": fixed("It rains 🌧️. It snows! ❄️ Fine 😀", "It rains. It snows! ❄️ Fine 😀"),
    "format:line_indent": fixed("rain\n fell\n   down", "rain\n fell\n down"),
    "format:list": fixed("SEPARATOR rain\nSEPARATOR snow", "SEPARATOR rain\n- snow", sep="SEPARATOR"),
    "format:thesis": fixed(
        "# One\n<i>Rain is good.</i> It waters.\n# Two\n<em>Snow.</em> It melts.", "# One\n<i>Rain.</i> Yes.\n# Two\nSnow melts."
    ),
    "format:sub-bullets": fixed("* rain\n  - wet\n* snow\n  - cold", "* rain\n  - wet\n* snow"),
    "format:no_bullets_bullets": fixed("It rains. It snows.\n* wet\n* cold", "It rains, it snows.\n* wet\n* cold"),
    "format:title_case": fixed("The Rain of the North", "The Rain of the north"),
    "format:output_template": fixed(_MY_ANSWER + "fine.", _MY_ANSWER),
    "format:no_whitespace": fixed("Rain.Snow.", "Rain. Snow."),
    "repeat:repeat_change": fixed(_REQUEST.replace("Write", "Compose"), _REQUEST, prompt_to_repeat=_REQUEST),
    "repeat:repeat_simple": fixed(_ONLY, f"{_ONLY} Done."),
    "repeat:repeat_span": span,
    "custom:multiples": fixed("14, 21, 28, 35, 42, 49", "7, 14, 21, 28, 35, 42, 49"),
    "custom:mcq_count_length": lambda rng: (
        {},
        questions([1, 2, 3, 4]),
        rng.choice([questions([1, 2, 3, 3]), questions([1, 2, 3]), questions([1, 2, 3, 4], "ABCD")]),
    ),
    "custom:reverse_newline": fixed("\n".join(COUNTRIES), "\n".join([COUNTRIES[1], COUNTRIES[0], *COUNTRIES[2:]])),
    "custom:word_reverse": fixed(
        "States United the of symbol national the is eagle bald The", "The bald eagle is the national symbol."
    ),
    "custom:character_reverse": fixed(".elgae dlab ehT", "The bald eagle."),
    "custom:sentence_alphabet": alphabet_story,
    "custom:european_capitals_sort": fixed(CAPITALS, CAPITALS.replace("Oslo, Tallinn", "Tallinn, Oslo")),
    "custom:csv_city": fixed(table("ID Country City Year Count", 7), table("ID Country City Year Count", 6)),
    "custom:csv_special_character": fixed(
        table("ProductID Category Brand Price Stock", 14, last='"a&b"'),
        table("ProductID Category Brand Price Stock", 14, last="a&b"),
    ),
    "custom:csv_quotes": fixed(
        table("StudentID Subject Grade Semester Score", 3, "\t", '"', '"x"'),
        table("StudentID Subject Grade Semester Score", 3, "\t", '"'),
    ),
    "custom:date_format_list": fixed("1796-04-12, 1805-12-02", "1796-04-12, 1805-02-30"),
}


def every(seeds: int) -> Iterator[tuple[str, int]]:
    return ((id, seed) for id in BUILDERS for seed in range(seeds))
