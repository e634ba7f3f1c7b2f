"""Text of others inside a judge's prompt: it stands in blocks that it cannot close, and nothing in it acts on the judge.

A block is `⟦name code⟧ ... ⟦/name code⟧`. Nothing inside can end it, for two reasons that do not depend on each other: quoted
text has no ⟦ or ⟧ (nor what looks like them), and it does not contain the code. The code is a hash of all that is quoted, so
that who writes an answer cannot know it beforehand: any change of the answer changes it. It is no random number because the same
request must be the same text again, for the cache and for replays.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

OPEN, CLOSE = "\u27e6", "\u27e7"  # ⟦ ⟧

_JOINERS = dict.fromkeys(map(ord, "\u200c\u200d\ufe0e\ufe0f"))  # part of emoji and of some scripts; nothing is lost without them
_LINE_ENDS = re.compile("\r\n?|[\u0085\u2028\u2029\v\f]")
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cn", "Co", "Cs"})  # controls, formats, unassigned, private, lone surrogates
_UNSEEN_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u2800")  # letters and marks that draw nothing
_BRACKETS = {
    ord(sign): plain
    for signs, plain in [("\u27e6\u301a\u2e22\u27ea\u2983", "[["), ("\u27e7\u301b\u2e23\u27eb\u2984", "]]")]
    for sign in signs
}
_ANGLES, _BARS = "<\uff1c\ufe64\u2039\u276e\u3008\u27e8", "|\uff5c\u2223\uffe8\u01c0\u2502\u2758\u00a6"
_PIPE_TOKEN = re.compile(rf"([{_ANGLES}])(?=[{_BARS}])|(?<=[{_BARS}])(?=[>\uff1e\ufe65\u203a\u276f\u3009\u27e9])")
_TAG_TOKEN = re.compile(
    r"<(?=/?(?:s|bos|eos|pad|unk|mask|sep|cls|system|user|assistant|human|model|think|thinking|tool_?\w*|function_?\w*"
    r"|(?:start|end|begin)_?of_?\w+|unused_?\d+|extra_id_?\d+|reserved\w*|image\w*|audio\w*|video\w*)>)",
    re.IGNORECASE,
)
_BRACKET_TOKEN = re.compile(r"\[(?=/?[A-Z]{2,}(?:_[A-Z]+)*\])|<(?=</?SYS>>)")
_TURN = re.compile(r"^([ \t]*)(system|user|assistant|human|judge|developer)(?=[ \t]*:)", re.IGNORECASE | re.MULTILINE)


def neutral(text: str) -> str:
    """The text without what a person would not see, what a chat template gives a meaning to, and what looks like a mark.

    Characters that draw nothing become a visible note of how many there were; single joiners, which emoji are made with, go.
    Control tokens (`<|im_start|>`, `</s>`, `[INST]`, `<<SYS>>` and their kin) get a space after their first sign, so that no
    tokenizer takes them for its own. The line `system: ...` becomes `"system": ...`. Linear in the length of the text.
    """
    text = _LINE_ENDS.sub("\n", text).translate(_JOINERS)
    if any(_unseen(sign) for sign in set(text)):
        text = "".join(_shown(unseen, "".join(signs)) for unseen, signs in itertools.groupby(text, _unseen))
    text = text.translate(_BRACKETS)
    text = _PIPE_TOKEN.sub(lambda found: f"{found[0]} ", text)
    text = _TAG_TOKEN.sub("< ", text)
    text = _BRACKET_TOKEN.sub(lambda found: f"{found[0]} ", text)
    return _TURN.sub(r'\1"\2"', text)


def _unseen(sign: str) -> bool:
    if sign < "\u0300":
        return (sign < " " and sign not in "\n\t") or "\x7f" <= sign < "\xa0" or sign == "\xad"
    return unicodedata.category(sign) in _UNSEEN_CATEGORIES or sign in _UNSEEN_LETTERS or "\U000e0000" <= sign <= "\U000e0fff"


def _shown(unseen: bool, signs: str) -> str:
    if not unseen:
        return signs
    return f"[{len(signs)} invisible characters]" if len(signs) > 1 else "[an invisible character]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What one request's blocks are closed with (`code`), and what its answer must carry (`id`). Neither stands in its texts."""

    code: str
    id: str

    @classmethod
    def of(cls, texts: Sequence[str], purpose: str = "") -> Seal:
        """The seal of a request that quotes these texts, already neutral, and asks for `purpose`."""
        whole = hashlib.sha256(purpose.encode())
        for text in texts:
            whole.update(hashlib.sha256(text.encode()).digest())
        folded = [text.casefold() for text in texts]
        for number in itertools.count():
            digest = hashlib.sha256(whole.digest() + number.to_bytes(4, "big")).hexdigest()
            seal = cls(code=digest[:16], id=digest[16:28])
            if not any(word in text for text in folded for word in (seal.code, seal.id)):
                return seal
        raise AssertionError("count() does not end")

    def block(self, name: str, text: str) -> str:
        """A text, already neutral, in a block of its own."""
        if OPEN in text or CLOSE in text or self.code in text.casefold() or self.id in text.casefold():
            raise ValueError("a text that is not neutral, or not of this seal, cannot be quoted")
        return f"{OPEN}{name} {self.code}{CLOSE}\n{text}\n{OPEN}/{name} {self.code}{CLOSE}"
