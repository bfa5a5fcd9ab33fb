"""What an utterance means for the prompt before it: a new prompt, more of the same, a change, or a command.

Pure text, without a model. The prompt is cut into phrases by its little words (determiners, prepositions, "and"), which
works for any vocabulary; `places` and `colors` are what the model that draws knows of them.

    read_utterance("make it blue", "two cats on the beach")          -> change, "two blue cats on the beach"
    read_utterance("and a dog", "two cats on the beach")             -> change, "two cats on the beach and a dog"
    read_utterance("no, a dog", "a cat on the beach")                -> change, "a dog on the beach"
    read_utterance("undo", ...)                                      -> undo
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
DETERMINERS = frozenset("a an the some one two three four five six seven eight nine ten my his her their".split())
BOUNDARIES = frozenset(
    "and with on in at by under over above below beside behind near next left right to of inside between underneath "
    "beneath among through into from without wearing holding riding".split()
)
# An utterance that begins so goes on with the prompt before it.
CONTINUATIONS = (
    "and", "with", "on", "in", "at", "by", "under", "over", "above", "below", "beside", "behind", "near", "next to",
    "to the left", "to the right", "left of", "right of", "in front of", "inside", "among", "plus", "wearing",
    "holding",
)  # fmt: skip
FILLERS = frozenset("okay ok please now well so um uh then and".split())
COLORS = frozenset(
    "red green blue yellow orange purple pink brown black white gray grey golden silver turquoise violet".split()
)
SIZES = {
    "bigger": "big", "larger": "big", "big": "big", "large": "large", "huge": "huge", "giant": "giant",
    "smaller": "small", "small": "small", "little": "little", "tiny": "tiny",
}  # fmt: skip
PLACES = (
    "at night", "at sunset", "at dusk", "at dawn", "by night", "in the evening", "in the morning", "in the rain",
    "in the snow", "on the beach", "in the forest", "under water", "underwater", "in the sky", "in space",
    "in the desert", "on the grass", "in the city", "in the mountains", "at sea", "by the sea", "in the ocean",
)  # fmt: skip
# Whisper often writes a lone "undo" as words that sound alike.
UNDO = frozenset(
    ("undo", "undo that", "undo it", "go back", "take that back", "back", "and do", "un do", "undue", "and undo")
)
CLEAR = frozenset(("start over", "start again", "start afresh", "clear", "clear it", "new picture", "a new picture"))
AGAIN = frozenset(
    ("another one", "another", "one more", "again", "try again", "draw it again", "once more", "a different one")
)
MAKE = re.compile(
    r"^(?:make|turn|change|paint|color|colour) (it|them|that|this|everything|the [\w' -]+?)(?: (?:to|into))? "
)
REMOVE = re.compile(r"^(?:remove|delete|erase|take away|take out|drop|without|lose|get rid of|no more) (.+)$")
INSTEAD = re.compile(
    r"^(?:no|nope|not that|i mean|i meant|i said|instead|rather|sorry)\b ?(?:i mean|i meant|i said)? ?(.+)$"
)
NOT_BUT = re.compile(r"^(?:no )?not (.+?) (?:but )?((?:a|an|the|one|two|three|four) .+)$")
ADD = re.compile(r"^(?:add|draw also|also draw|also|put in) (.+)$")
# What is not finished yet: nobody ends a sentence with these.
UNFINISHED = DETERMINERS - {"one", "my", "his", "her"} | (BOUNDARIES - {"left", "right", "below", "above", "inside"})
INCOMPLETE_COMMANDS = frozenset("make turn change paint remove delete erase take add put no not get i".split())


class Meaning(Enum):
    NEW = "new"  # a prompt of its own
    CHANGE = "change"  # the prompt before, changed
    AGAIN = "again"  # the same prompt, another picture
    UNDO = "undo"  # the picture before this one
    CLEAR = "clear"  # forget the prompt


@dataclass(frozen=True)
class ReadUtterance:
    """`prompt` is what to draw now; empty for UNDO and CLEAR, and where nothing is left to draw."""

    meaning: Meaning
    prompt: str = ""


@dataclass(frozen=True)
class NounSpan:
    """Words [start, stop) of a prompt that name a thing: determiner, adjectives, noun."""

    start: int
    stop: int


def read_utterance(
    said: str, before: str, places: Collection[str] = PLACES, colors: Collection[str] = COLORS
) -> ReadUtterance:
    """What `said` means after the prompt `before`, which is empty when nothing was drawn yet.

    `places`: phrases such as "on the beach"; `colors`: names of colors. Both in lower case.
    """
    words = [word.lower().replace("’", "'") for word in WORD.findall(said)]
    text = " ".join(words)
    bare = " ".join(_without_fillers(words))
    if bare in CLEAR:
        return ReadUtterance(Meaning.CLEAR)
    if not before:
        return ReadUtterance(Meaning.NEW, text)
    if bare in UNDO:
        return ReadUtterance(Meaning.UNDO)
    if bare in AGAIN:
        return ReadUtterance(Meaning.AGAIN, before)
    editor = PromptEditor(before, places, colors)
    if (prompt := editor.edited(bare, text)) is not None:
        return ReadUtterance(Meaning.CHANGE, prompt)
    return ReadUtterance(Meaning.NEW, text)


def is_unfinished(words: Sequence[str]) -> bool:
    """Whether a sentence cannot end with these words: "two cats on the", "a", "make it"."""
    if not words or " ".join(words) in CLEAR | UNDO | AGAIN:
        return False
    return words[-1] in UNFINISHED or is_unfinished_command(words)


def is_unfinished_command(words: Sequence[str]) -> bool:
    """Whether these words begin a command and need more words to be one."""
    return words[0] in INCOMPLETE_COMMANDS and len(words) < 3 and tuple(words) not in {("take", "that"), ("no", "more")}


class PromptEditor:
    """Changes of one prompt. Every method returns the changed prompt, or None where it has nothing to change."""

    def __init__(self, prompt: str, places: Collection[str] = PLACES, colors: Collection[str] = COLORS) -> None:
        self.words = [word.lower() for word in WORD.findall(prompt)]
        self.places = sorted({*PLACES, *places}, key=len, reverse=True)
        self.colors = COLORS | frozenset(colors)

    @property
    def prompt(self) -> str:
        return " ".join(self.words)

    def edited(self, bare: str, text: str) -> str | None:
        """The prompt after an utterance; `bare` is the `text` without polite and idle words."""
        if match := MAKE.match(bare + " "):
            return self._made(match[1], bare[match.end() :].strip())
        if match := REMOVE.match(bare):
            return self.without(match[1])
        if match := NOT_BUT.match(bare):
            return self.instead(match[2], match[1])
        if (match := INSTEAD.match(bare)) and not bare.startswith("no one"):
            return self.instead(match[1])
        if match := ADD.match(bare):
            return f"{self.prompt} and {match[1]}"
        if bare in SIZES or bare in self.colors:
            return self.with_quality(bare)
        if bare in self.places:
            return self.at_place(bare)
        if text.startswith(tuple(f"{phrase} " for phrase in CONTINUATIONS)):
            rest = text.removeprefix("and ")
            return self.at_place(rest) if rest in self.places else f"{self.prompt} {text}"
        return None

    def _made(self, target: str, quality: str) -> str | None:
        if quality.split()[:1] and quality.split()[0] in DETERMINERS and len(quality.split()) > 1:
            return self.instead(quality, target.removeprefix("the "))
        quality = " ".join(word for word in quality.split() if word not in ("look", "be", "more", "much", "a", "bit"))
        if not quality:
            return None
        phrase = self.find(target.removeprefix("the ")) if target.startswith("the ") else None
        if quality in self.places or f"at {quality}" in self.places:
            return self.at_place(quality if quality in self.places else f"at {quality}")
        if all(word in SIZES or word in self.colors for word in quality.split()):
            return self.with_quality(quality, phrase)
        return self.with_quality(quality, phrase)

    def with_quality(self, quality: str, phrase: NounSpan | None = None) -> str | None:
        """The prompt with a color or a size given to a phrase, or to the first one; it takes the place of another."""
        phrase = phrase or next(iter(self.phrases()), None)
        if phrase is None:
            return None
        inside = self.words[phrase.start : phrase.stop]
        quality_words = [SIZES.get(word, word) for word in quality.split()]
        for kind in (self.colors, SIZES):
            if any(word in kind for word in quality_words):
                inside = [word for word in inside[:-1] if word not in kind] + inside[-1:]
        at = 1 if inside[0] in DETERMINERS else 0
        # Sizes come before colors: "a big blue cat".
        while not any(word in SIZES for word in quality_words) and at < len(inside) - 1 and inside[at] in SIZES:
            at += 1
        inside = [*inside[:at], *quality_words, *inside[at:]]
        if inside[0] in ("a", "an") and len(inside) > 1:
            inside[0] = "an" if inside[1][0] in "aeiou" else "a"
        return " ".join([*self.words[: phrase.start], *inside, *self.words[phrase.stop :]])

    def at_place(self, place: str) -> str:
        """The prompt at this place or time instead of the one that it names."""
        text = f" {self.prompt} "
        for other in self.places:
            if f" {other} " in text:
                return " ".join(text.replace(f" {other} ", f" {place} ", 1).split())
        return f"{self.prompt} {place}"

    def without(self, thing: str) -> str | None:
        """The prompt without a phrase, and the little words that joined it to the others."""
        if place := next((p for p in self.places if p.endswith(thing) and f" {p} " in f" {self.prompt} "), None):
            return " ".join(f" {self.prompt} ".replace(f" {place} ", " ", 1).split())
        phrase = self.find(thing)
        if phrase is None:
            return None
        start, stop = phrase.start, phrase.stop
        while start > 0 and self.words[start - 1] in BOUNDARIES | {"the"}:
            start -= 1
        if start == 0:  # the first phrase: what joined the second to it goes
            while stop < len(self.words) and self.words[stop] in BOUNDARIES - {"in", "on", "at"}:
                stop += 1
        return " ".join(self.words[:start] + self.words[stop:])

    def instead(self, phrase: str, of: str = "") -> str:
        """The prompt with a phrase in the place of the last one, or of the one that is named."""
        words = phrase.split()
        if any(f" {place} " in f" {phrase} " for place in self.places) or len(PromptEditor(phrase).phrases()) > 1:
            return phrase  # a whole prompt
        if words[0] not in DETERMINERS and words[0] in self.colors | SIZES.keys() and len(words) == 1:
            return self.with_quality(phrase) or phrase
        if phrase in self.places:
            return self.at_place(phrase)
        found = self.find(of) if of and of not in ("it", "that", "this", "them") else None
        phrases = self.phrases()
        target = found or (phrases[-1] if phrases else None)
        if target is None:
            return phrase
        return " ".join([*self.words[: target.start], *words, *self.words[target.stop :]])

    def find(self, thing: str) -> NounSpan | None:
        """The phrase whose noun is that of `thing`, singular or plural."""
        noun = _singular([word for word in WORD.findall(thing.lower())][-1:])
        matches = [p for p in self.phrases() if _singular(self.words[p.stop - 1 : p.stop]) == noun]
        return matches[-1] if matches else None

    def phrases(self) -> list[NounSpan]:
        """The things that the prompt names: from a determiner, or the beginning, to the next little word. Places, and
        what "a photo of" begins with, are none."""
        taken = self._places_taken()
        phrases, start = [], None
        for i, word in enumerate([*self.words, "and"]):
            ends = word in BOUNDARIES or word in DETERMINERS or i in taken
            if ends and start is not None:
                of = word == "of" and i + 1 < len(self.words) and self.words[i + 1] not in DETERMINERS
                if of:  # "a slice of pizza" is one phrase
                    continue
                if word != "of" and any(w not in DETERMINERS for w in self.words[start:i]):
                    phrases.append(NounSpan(start, i))
                start = None
            if i < len(self.words) and i not in taken and start is None and word not in BOUNDARIES:
                start = i
        return phrases

    def _places_taken(self) -> set[int]:
        """Indices of the words of the places that the prompt names."""
        taken: set[int] = set()
        for place in self.places:
            size = len(place.split())
            for i in range(len(self.words) - size + 1):
                if " ".join(self.words[i : i + size]) == place:
                    taken.update(range(i, i + size))
        return taken


def _without_fillers(words: Sequence[str]) -> list[str]:
    """Without "please", "okay", "now" and the like at both ends; an "and" at the beginning stays before a noun."""
    words = list(words)
    while words and words[0] in FILLERS and (words[0] != "and" or len(words) > 1 and words[1] in ("make", "remove")):
        words.pop(0)
    while words and words[-1] in FILLERS:
        words.pop()
    return words


def _singular(words: Sequence[str]) -> str:
    word = words[0] if words else ""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word
