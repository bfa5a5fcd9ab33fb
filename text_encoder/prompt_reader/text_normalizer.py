"""Prompts as tokens: lower-case words, numbers and marks, each with its place in the text that was typed.

Quotation marks, brackets, hyphens, underscores, slashes, zero-width and full-width characters change nothing in what a
prompt says. They are replaced once, here, so that nothing behind this file has to know them.
"""

import re
import unicodedata
from typing import NamedTuple

INVISIBLE = {"\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\ufe0f", "\ufe0e"}
JOINER = "\u200d"  # of several emoji into one
MAX_FOLDED = 4  # characters that stand for one; a few signs stand for whole sentences
MAX_SIGN = 32  # characters of one emoji with its modifiers
MODIFIERS = {"\ufe0f", "\ufe0e", *map(chr, range(0x1F3FB, 0x1F400))}  # variation and skin tone
APOSTROPHES = "’‘ʼ`´"
SPACES = '-_−"*~^\\「」『』《》〈〉'  # these separate words and say nothing else
COMMAS = ";:/、|#<>="
STOPS = ".!?…。\n"
CATEGORIES = {"Pd": " ", "Pi": " ", "Pf": " ", "Ps": ", ", "Pe": ", "}  # of dashes, quotation marks and brackets
SIGNS = {"🚫": " no ", "❌": " no ", "&": " and ", "+": " and ", "×": " x ", "@": " at "}
WEIGHT = re.compile(r":\s*\d+(?:\.\d+)?(?=\s*\))")  # (blue cat:1.3) as other programs weight words
FLAG = re.compile(  # options of other programs and addresses
    r"(?<!\S)--(?!no\b)[a-z]+(?:\s+[\d:.]+)?|<lora:[^<>]*>|\b(?:https?://|www\.)\S+|\d{1,9}\s?%", re.IGNORECASE
)
SHORT_FORMS = {
    "w/o": " without ", "w/": " with ", "b/w": " black and white ", "and/or": " and ", "-free": " -free ",
    "--no": ", without ",
}  # fmt: skip
SHORT_FORM = re.compile(
    r"(?<!\w)(?:w/o(?!\w)|w/|b/w(?!\w)|and/or(?!\w))|(?<!\S)--no(?!\w)|(?<=\w)-free(?!\w)", re.IGNORECASE
)
TOKEN = re.compile(
    r"-free|\d[dk](?![a-z])|\d+(?:[.,]\d+)*(?:st|nd|rd|th)?(?![a-z])|[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[.,]|[^\w\s']"
)


class Token(NamedTuple):
    """A word, number or mark. `start` and `end` are its place in the prompt; "." ends a sentence, "," a part of it.

    `emoji`: the place of the emoji that the word stands for; -1 for a word that was written.
    """

    text: str
    start: int
    end: int
    is_capital: bool = False
    emoji: int = -1

    @property
    def is_mark(self) -> bool:
        return self.text in ".,"


def _replacement(character: str) -> str:
    """What stands for one character, in lower case."""
    is_skin_tone = "\U0001f3fb" <= character <= "\U0001f3ff"
    if is_skin_tone or character in INVISIBLE or unicodedata.combining(character):
        return ""
    if character in APOSTROPHES:
        return "'"
    if character in SIGNS:
        return SIGNS[character]
    folded = unicodedata.normalize("NFKC", character).lower()
    if len(folded) > MAX_FOLDED:
        return character
    for marks, said in ((SPACES, " "), (COMMAS, ", "), (STOPS, ". ")):
        if character in marks or folded in marks:
            return said
    if said := CATEGORIES.get(unicodedata.category(character)):
        return said
    decomposed = unicodedata.normalize("NFKD", folded)
    return "".join(c for c in decomposed if not unicodedata.combining(c)) if folded.isalpha() else folded


def _blanked(prompt: str) -> str:
    """The prompt with spaces where other programs' weights and options stand, a comma for "50%"; as long as before."""
    for pattern in (WEIGHT, FLAG):
        prompt = pattern.sub(lambda match: ("," if match[0][-1] == "%" else " ") + " " * (len(match[0]) - 1), prompt)
    return prompt


def tokenize_prompt(prompt: str, emoji: dict[str, str] | None = None) -> list[Token]:
    """The tokens of a prompt. `emoji` has for an emoji the words that it stands for: several tokens of one place."""
    signs = emoji or {}
    text, place = _blanked(prompt), 0
    short = {match.start(): match for match in SHORT_FORM.finditer(text)}
    characters, origin, ends, of_emoji = [], [], [], []
    while place < len(text):
        end, said = _sign_at(text, place, signs)
        is_emoji = bool(said)
        if match := short.get(place):
            end, said = match.end(), SHORT_FORMS[match[0].lower()]
        piece = f" {said} " if is_emoji else said or _replacement(text[place])
        characters.append(piece)
        origin += [place] * len(piece)
        ends += [end] * len(piece)
        of_emoji += [place if is_emoji else -1] * len(piece)
        place = end
    tokens = []
    for match in TOKEN.finditer("".join(characters)):
        start, last = origin[match.start()], match.end() - 1
        if match[0] == "." and _is_decimal(prompt, start):
            continue
        is_capital, sign = prompt[start].isupper(), of_emoji[match.start()]
        tokens += [Token(part, start, ends[last], is_capital, sign) for part in _parts(match[0])]
    return tokens


def _sign_at(text: str, place: int, signs: dict[str, str]) -> tuple[int, str]:
    """(end, words) of the emoji that begins here, a sequence of several before its first; (place + 1, "") for none."""
    if not signs or ord(text[place]) < 0x2600 or text[place] in SIGNS:
        return place + 1, ""
    end, longest = place + 1, min(len(text), place + MAX_SIGN)
    while end < longest and (text[end] in MODIFIERS or JOINER in (text[end], text[end - 1])):
        end += 1
    key = "".join(c for c in text[place:end] if c not in MODIFIERS)
    if said := signs.get(key) or signs.get(text[place]):
        return end, said
    return place + 1, ""


def _is_decimal(prompt: str, place: int) -> bool:
    return 0 < place < len(prompt) - 1 and prompt[place - 1].isdigit() and prompt[place + 1].isdigit()


def _parts(text: str) -> list[str]:
    """A token in parts that are words: "cat's" is "cat" and "'s", "dogs'" is "dogs"."""
    if text.endswith("'s") and text not in ("it's", "that's", "there's", "he's", "she's", "what's", "let's", "here's"):
        return [text[:-2], "'s"]
    return [text]
