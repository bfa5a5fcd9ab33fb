"""What words mean to one model: its things, places and styles, what stands for others, and the English around them.

`Lexicon.chunks` cuts a prompt into phrases, the longest first, so that "fire truck" is no truck on fire.
"""

from dataclasses import dataclass, field
from functools import cached_property

from text_encoder.prompt_reader.english_phrases import phrase_meanings
from text_encoder.prompt_reader.prompt_reading import LANGUAGE
from text_encoder.prompt_reader.prompt_vocabulary import PromptVocabulary, VocabularyEntry
from text_encoder.prompt_reader.scene_words import COLOR_NAMES, candidates_of, quality_words, scene_meanings
from text_encoder.prompt_reader.stand_ins import StandIn, StandInTable, can_be_verb, english_words, word_class
from text_encoder.prompt_reader.text_normalizer import Token
from text_encoder.prompt_reader.word_forms import (
    PLURAL_ONLY,
    american,
    is_plural,
    mended,
    plural,
    shortened,
    singulars,
    with_an,
)

NAMED = frozenset({"by", "called", "named"})  # a name stands behind these
OWN = frozenset("my our his her their your".split())
LONGEST = 7  # words of a phrase
MENDED_WORDS = 100  # unknown words of one prompt that are looked at as misspellings: each takes a millisecond
WALL_PHRASES = (
    "on a {c} background", "on {c}", "in front of a {c} wall", "with a {c} background", "on the {c} background",
    "on {c} background", "against a {c} background", "against a {c} wall", "{c} background", "a {c} background",
    "in front of a {c} background", "with {c} background", "against {c}", "{c} backdrop", "on a {c} backdrop",
)  # fmt: skip
NOUNS = ("thing", "noun")  # kinds of phrases
QUALITIES = ("adjective", "unknown", "color", "size")
BACKDROPS = ("place", "time", "weather")
NOUN_KINDS = frozenset({"thing", "noun", "distant", "place", "time", "weather", "part"})
NOUN_CLASSES, VERB_CLASSES = ("n", "m"), ("m", "b", "v")
OPEN_CLASSES = {"n": "noun", "m": "noun", "b": "noun", "v": "verb", "a": "adjective"}


@dataclass(frozen=True)
class NounMeaning:
    """A noun that is drawn as `name`; `said`: how the caption says it, empty for the name; `stand_in`: why another."""

    name: str
    plural: bool = False
    said: str = ""
    stand_in: StandIn | None = None


@dataclass
class Chunk:
    """A phrase of the prompt with all that it may mean (kind -> value), and what became of it.

    `head`: the chunk whose fate it shares, as articles share that of their noun; None: its own.
    """

    text: str
    start: int
    end: int
    meanings: dict[str, object] = field(default_factory=dict)
    status: str = LANGUAGE
    by: str = ""
    why: str = ""
    head: "Chunk | None" = None
    mended_from: str = ""
    is_name: bool = False  # written with a capital letter within a sentence
    emoji: int = -1  # place of the emoji that the phrase stands for

    def is_a(self, *kinds: str) -> bool:
        return not self.meanings.keys().isdisjoint(kinds)

    def mark(self, status: str, why: str = "", by: str = "") -> None:
        self.status, self.why, self.by = status, why, by


class Lexicon:
    """The meanings of all phrases for one vocabulary and its stand-ins."""

    def __init__(self, vocabulary: PromptVocabulary, stand_ins: StandInTable):
        self.vocabulary, self.stand_ins = vocabulary, stand_ins
        self.phrases: dict[tuple[str, ...], dict[str, object]] = {}
        self.own: set[tuple[str, ...]] = set()  # names of the vocabulary's things
        self.bare_walls: set[tuple[str, ...]] = set()  # "on blue", which needs no noun behind it
        for words, (kind, value) in phrase_meanings().items():
            self._enter(words, kind, value)
        for words, meanings in scene_meanings().items():
            for kind, value in meanings:
                self._enter(words, kind, value)
                if "relation" in self.phrases.get(words[:1], {}):  # "at sea"
                    self._enter(words, "adverbial", value)
        for mood in quality_words():
            self._enter(tuple(mood.split()), "adjective", mood, weak=True)
        for words in [words for words, meanings in self.phrases.items() if "part" in meanings]:
            if word_class(words[-1]) in NOUN_CLASSES:
                self._enter(words, "noun", " ".join(words))
        self._enter_stand_ins()
        self._enter_vocabulary()
        self._drop_places_of_things()

    def _enter(self, words: tuple[str, ...], kind: str, value: object, weak: bool = False) -> None:
        meanings = self.phrases.setdefault(words, {})
        if not (weak and meanings):
            meanings.setdefault(kind, value)

    def _enter_stand_ins(self) -> None:
        for noun, entry in self.stand_ins.nouns.items():
            for form, several in ((noun, False), (plural(noun), True)):
                words = tuple(american(word) for word in form.split())
                meaning = NounMeaning(entry.name, several, stand_in=entry) if entry is not None else None
                if meaning is not None and entry is not None and not entry.is_distant:
                    self._enter(words, "thing", meaning)
                    continue
                self._enter(words, "noun", form)
                if meaning is not None:
                    self._enter(words, "distant", meaning)
                    if can_be_verb(form):
                        self._enter(words, "verb", form)

    def _enter_vocabulary(self) -> None:
        for thing in self.vocabulary.objects:
            for name in (thing.name, *thing.synonyms):
                self._enter_name(thing, name)
        for background in self.vocabulary.backgrounds:
            for phrase in background.say or (background.name,):
                self._replace(phrase, "background", (background.name, phrase))
            if with_an(f"on a {background.name} background") in background.say:
                self._enter_wall(background.name)
        for style in self.vocabulary.styles:
            for phrase in style.say:
                self._replace(phrase, "style said", (style.name, phrase))
        if not self.stand_ins.nouns:
            names = {w: m for w, m in self.phrases.items() if isinstance(m.get("thing"), NounMeaning)}
            for word, target in self.vocabulary.aliases.items():
                if (known := names.get(tuple(target.split()))) and (word,) not in names:
                    self.phrases.setdefault((word,), {})["thing"] = known["thing"]

    def _drop_places_of_things(self) -> None:
        """A place is no phrase where a part of it names other things than the place that is drawn: of "a field of
        sunflowers" sunflowers are drawn in a field."""
        names = {background.name for background in self.vocabulary.backgrounds}
        for words in [words for words, meanings in self.phrases.items() if "place" in meanings and len(words) > 1]:
            parts = {word: self._longest([word], 0)[1] for word in words}
            place = str(self.phrases[words]["place"])
            drawn = set(place.split()) if place in names else set()
            others = [word for word, part in parts.items() if "thing" in part and not drawn & {word, plural(word)}]
            if others and any("place" in part for part in parts.values()):
                del self.phrases[words]["place"]

    def _enter_name(self, thing: VocabularyEntry, name: str) -> None:
        """A name, its plural, and each written as one word or with American spelling."""
        if name == thing.name:
            forms = {name: False, thing.plural or plural(name): True}
            if name in PLURAL_ONLY:
                forms[name.removesuffix("s")] = False  # "a scissor"
        else:
            forms = {name: any(is_plural(name.split()[-1], s) for s in singulars(name.split()[-1])), plural(name): True}
        for form, several in forms.items():
            said = form if self._can_say(form) else (thing.plural if several else thing.name)
            meaning = NounMeaning(thing.name, several and form != name, said)
            words = tuple(form.lower().split())
            self.phrases.setdefault(words, {})["thing"] = meaning
            for spelled in (tuple(american(w) for w in words), ("".join(words),)):
                if not isinstance(self.phrases.get(spelled, {}).get("thing"), NounMeaning) or spelled not in self.own:
                    self.phrases.setdefault(spelled, {})["thing"] = meaning
            self.own.add(words)

    def _replace(self, phrase: str, kind: str, value: object) -> None:
        """A phrase of the model's own means that and nothing else."""
        words = tuple(american(word) for word in phrase.lower().replace("-", " ").split())
        if words in self.phrases and "color" in self.phrases[words] and len(words) < 3:
            self.phrases[words][kind] = value
        else:
            self.phrases[words] = {kind: value}

    def _enter_wall(self, color: str) -> None:
        """How people say that all behind the things has one color."""
        usual = with_an(f"on a {color} background")
        for pattern in WALL_PHRASES:
            phrase = with_an(pattern.format(c=color))
            words = tuple(phrase.split())
            self.phrases[words] = {
                "background": (color, phrase if pattern in WALL_PHRASES[:4] and self._can_say(phrase) else usual)
            }
            if words[-1] == color:
                self.bare_walls.add(words)

    def _can_say(self, phrase: str) -> bool:
        words = self.vocabulary.words
        return not words or all(word in words for word in phrase.lower().split())

    @cached_property
    def candidates(self) -> dict[tuple[str, str], tuple[str, ...]]:
        return candidates_of()

    @cached_property
    def _words_to_mend(self) -> list[str]:
        """Words that a misspelling may have meant, names of things and colors first."""
        nouns = {w for words, m in self.phrases.items() if "thing" in m and not _is_stand_in(m["thing"]) for w in words}
        colors = {words[0] for words, m in self.phrases.items() if "color" in m and len(words) == 1}
        places = {
            words[0] for words, m in self.phrases.items() if m.keys() & {"place", "time", "style"} and len(words) == 1
        }
        return sorted(word for word in nouns | (colors - COLOR_NAMES) | places if len(word) > 2)

    @cached_property
    def _set_to_mend(self) -> frozenset[str]:
        return frozenset(self._words_to_mend)

    def chunks(self, tokens: list[Token], distant: bool = False) -> list[Chunk]:
        """The tokens in phrases, in order. `distant`: nouns mean the things that stand for them from far, too."""
        words = [token.text if token.text in self.vocabulary.words else american(token.text) for token in tokens]
        chunks, at, unknown = [], 0, 0
        while at < len(tokens):
            token, reach = tokens[at], at + 1  # no phrase goes over the border of an emoji
            while reach < min(len(tokens), at + LONGEST) and tokens[reach].emoji == token.emoji:
                reach += 1
            length, meanings = self._longest(words, at, reach)
            start, end = token.start, tokens[at + length - 1].end
            chunk = Chunk(" ".join(words[at : at + length]), start, end, dict(meanings))
            if not meanings:
                mends = unknown < MENDED_WORDS and not _is_name(chunks, token)
                chunk = self._unlisted(words[at], start, end, mends)
                unknown += bool(chunk.mended_from) or chunk.is_a("unknown")
            if distant and "distant" in chunk.meanings:
                chunk.meanings["thing"] = chunk.meanings["distant"]
            chunk.emoji = token.emoji
            chunk.is_name = at > 0 and token.is_capital and not tokens[at - 1].is_capital and tokens[at - 1].text != "."
            chunks.append(chunk)
            at += length
        return chunks

    def _longest(
        self, words: list[str], at: int, end: int | None = None, checks_walls: bool = True
    ) -> tuple[int, dict[str, object]]:
        """(number of words, meanings) of the longest phrase that begins here and ends before `end`; meanings are empty
        for none. `checks_walls`: "on orange" is a background only where no noun follows."""
        most = min(LONGEST, (len(words) if end is None else end) - at)
        for length in range(most, 0, -1):
            if length == 1 and most > 1 and (meanings := self._split_word(words, at)):
                return 2, meanings
            phrase = tuple(words[at : at + length])
            if meanings := self.phrases.get(phrase):
                if checks_walls and phrase in self.bare_walls and self._names_more(words, at + length):
                    continue  # "on orange pumpkins" is no wall
                if "number" in meanings and words[at] == "a" and self._names_thing(words, at + 1, length):
                    continue  # "a pair of scissors" is one
                return length, meanings
            for singular in singulars(phrase[-1]):
                known = self.phrases.get((*phrase[:-1], singular), {})
                kinds = {"thing", "place", "picture", "amount", "part"}
                kinds |= {"noun", "distant"} if known.keys() & {"distant", "part"} else set()
                found = {kind: value for kind, value in known.items() if kind in kinds}
                for kind, noun in found.items():
                    if isinstance(noun, NounMeaning):
                        found[kind] = NounMeaning(noun.name, True, "", noun.stand_in)
                if found:
                    return length, found
        return 1, {}

    def _split_word(self, words: list[str], at: int) -> dict[str, object]:
        """The meanings of a noun that was written as two words, "butter fly"; empty for none. What has a thing for its
        first word and can have a verb for its second is none, "the dragon flies", unless this is a thing as well, "a
        sun flower"."""
        if not (words[at] + words[at + 1]).isalpha():
            return {}
        first, second = self._longest(words[at : at + 1], 0)[1], words[at + 1]
        joined = self._longest([words[at] + second], 0)[1]
        if not joined.keys() <= NOUN_KINDS or not joined.keys() & {"thing", "noun"}:
            return {}
        if first.keys() - NOUN_KINDS or (not first and word_class(words[at]) not in NOUN_CLASSES):
            return {}
        can_be_said_of_first = can_be_verb(second) or word_class(second) in VERB_CLASSES
        if "thing" in first and can_be_said_of_first and "thing" not in self._longest([second], 0)[1]:
            return {}
        return joined

    def _names_thing(self, words: list[str], at: int, length: int) -> bool:
        """Whether the name of a thing that is at least `length` words long begins here."""
        ends = range(at + length, min(at + LONGEST, len(words)) + 1)
        return any(tuple(words[at:end]) in self.own for end in ends)

    def _names_more(self, words: list[str], at: int) -> bool:
        """Whether a noun or another quality stands here."""
        if at >= len(words) or words[at] in ".,":
            return False
        meanings = self._longest(words, at, checks_walls=False)[1]
        return bool(meanings.keys() & {"thing", "color", "size", "adjective"}) or (
            not meanings and word_class(words[at]) == "n"
        )

    def _unlisted(self, word: str, start: int, end: int, mends: bool = True) -> Chunk:
        """A word that no table has: a mark, a number, a word of some class, or (`mends`) a misspelling."""
        if word in ".,":
            return Chunk(word, start, end, {"mark": word})
        if word == "'s":
            return Chunk(word, start, end, {"possessive": ""})
        if word[0].isdigit() and word[-2:] in ("st", "nd", "rd", "th"):
            return Chunk(word, start, end, {"adjective": word})
        if word[0].isdigit():
            return Chunk(word, start, end, {"number": word})
        if not word[0].isalpha():
            return Chunk(word, start, end, {"sign": ""})
        if (short := shortened(word)) != word and (found := self._longest([short], 0)[1]):  # "caaat"
            return Chunk(short, start, end, dict(found))
        kind = OPEN_CLASSES.get(word_class(word))
        if kind and not (mends and self._is_misspelled_name(word, kind)):
            meanings: dict[str, object] = {kind: word}
            if can_be_verb(word):
                meanings["verb"] = word
            elif word_class(word) in VERB_CLASSES:
                meanings["base verb"] = word_class(word)
            return Chunk(word, start, end, meanings)
        if mends and (near := mended(word, self._words_to_mend, self._set_to_mend)):
            meanings = self.phrases.get((near,)) or {"noun": near}
            return Chunk(near, start, end, dict(meanings), mended_from=word)
        return Chunk(word, start, end, {"unknown": word})

    def _is_misspelled_name(self, word: str, kind: str) -> bool:
        """Whether a word that only its ending makes an adjective is a misspelling that keeps this ending: "monky"."""
        if kind != "adjective" or word in english_words():
            return False
        return mended(word, self._words_to_mend, self._set_to_mend).endswith(word[-1])


def _is_name(before: list[Chunk], token: Token) -> bool:
    """Whether an unknown word is a name, which is not mended: "by greg", "my dog bella", "a fish Wanda"."""
    if not before:
        return False
    if before[-1].text.split()[-1] in NAMED:
        return True
    is_own = any(chunk.text in OWN for chunk in before[-4:])
    return before[-1].is_a("thing") and (token.is_capital or is_own)


def _is_stand_in(meaning: object) -> bool:
    return isinstance(meaning, NounMeaning) and meaning.stand_in is not None
