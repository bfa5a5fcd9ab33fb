"""From phrases to what a prompt asks for: groups of things, how they relate, where, when, and what is not wanted.

The parser reads English noun phrases from left to right: number, size, color and other qualities, then nouns of which
the last is what is meant ("a police car" is a car). It knows nothing of what fits into a picture; scene_fitting does.
"""

from text_encoder.prompt_reader import reasons
from text_encoder.prompt_reader.asides import SINGLE, addressee_end, list_goes_on, tool_at
from text_encoder.prompt_reader.asked_scene import AskedScene, NounPhrase, number_of
from text_encoder.prompt_reader.english_phrases import GROUPS
from text_encoder.prompt_reader.lexicon import BACKDROPS, NOUNS, Chunk
from text_encoder.prompt_reader.noun_reader import NounReader
from text_encoder.prompt_reader.phrase_view import PhraseView
from text_encoder.prompt_reader.prompt_reading import LEFT_OUT
from text_encoder.prompt_reader.scene_builder import SceneBuilder

PREDICATES = frozenset(
    "be is are it them was were him her colored painted only completely totally fully entirely".split()
)
NEW_CLAUSE = ("there", "here", "i ", "it ", "add")
VERBS = ("is", "are", "was", "were", "should be", "is a", "must be")
PLURAL = frozenset("both all each they they're them these those".split())  # "both blue" is said of all


def parse_scene(chunks: list[Chunk], takes_modifiers: bool = False) -> AskedScene:
    """What the phrases of a prompt ask for; each chunk is marked with what became of it. `takes_modifiers`: of a noun
    that cannot be drawn, one that describes it is drawn, the football of "a football player"."""
    return _SceneParser(chunks, takes_modifiers).parse()


class _SceneParser:
    def __init__(self, chunks: list[Chunk], takes_modifiers: bool):
        self.chunks, self.builder = chunks, SceneBuilder()
        self.view = PhraseView(chunks)
        self.nouns = NounReader(self.view, self.builder, takes_modifiers)
        self.previous: Chunk | None = None
        self.is_opening = True  # nothing but greetings was read of the sentence
        self.of_all = False  # the coming quality is said of all: "they are both"

    def parse(self) -> AskedScene:
        at = 0
        while at < len(self.chunks):
            read = self._address(at) or self._read(at, self.chunks[at])
            for chunk in self.chunks[at : at + read]:
                self._follow(chunk)
            at += read
            self.previous = self.chunks[at - 1]
        return self.builder.finish()

    def _follow(self, chunk: Chunk) -> None:
        """Keep what the words so far say of those that follow."""
        is_greeting = chunk.is_a("mark", "language")
        self.is_opening = chunk.text == "." or (self.is_opening and is_greeting)
        if chunk.is_a(*NOUNS, *BACKDROPS, "mark"):
            self.of_all = bool(chunk.is_a("mark")) and self.of_all
        elif PLURAL & set(chunk.text.split()):
            self.of_all = True

    def _read(self, at: int, chunk: Chunk) -> int:
        """Read the phrase at `at`; returns how many phrases that took."""
        builder = self.builder
        if chunk.is_a("mark"):
            if self._joins_qualities(at):
                return 1
            builder.end_clause(chunk.text == "," and self._lists_on(at))
        elif chunk.is_a("style said"):
            builder.add_style(chunk)
        elif chunk.is_a("background") and not (chunk.is_a("color") and self.view.describes(at)):
            builder.add_backdrop(chunk)
        elif chunk.is_a("color") and self.view.describes(at, not chunk.is_a("thing"), not builder.scene.groups):
            builder.set_quality(chunk, "color")
        elif chunk.is_a("style") and (not chunk.is_a("thing") or self.view.precedes_of(at)):
            builder.add_style(chunk)
        elif chunk.is_a("color") and self._is_predicate(at):
            builder.set_late_color(chunk, self.of_all, self.chunks[at - 2] if at > 1 else None)
        elif chunk.is_a("part") and self.view.precedes_of(at):
            return self.nouns.part_of(at)
        elif chunk.is_a("amount") and self.view.precedes_of(at):
            return self._amount(chunk)
        elif chunk.is_a("picture") and (self.view.precedes_of(at) or not chunk.is_a("thing")):
            return self._picture(at)
        elif chunk.is_a(*NOUNS) and not self.view.is_verb(at):
            return self.nouns.read(at)
        elif chunk.is_a(*BACKDROPS):
            if self.view.modifies(at):
                return self.nouns.read(at)
            builder.add_backdrop(chunk)
        else:
            return self._small_word(at, chunk)
        return 1

    def _small_word(self, at: int, chunk: Chunk) -> int:
        if chunk.is_a("negation"):
            return self._negation(at, chunk)
        kind = next((kind for kind in SMALL_WORDS if chunk.is_a(kind)), "")
        if kind:
            SMALL_WORDS[kind](self, at, chunk)
        return 1

    # What stands before and after a noun

    def _is_predicate(self, at: int) -> bool:
        """Whether a word stands where only a quality can: "they should be orange"."""
        before, following = self.previous, self.view.next(at)
        ends = following is None or following.is_a("mark", "join")
        return (
            ends and before is not None and before.is_a("language", "change") and before.text.split()[-1] in PREDICATES
        )

    def _joins_qualities(self, at: int) -> bool:
        """Whether a comma stands within a noun phrase: "a big, brown bear"."""
        phrase, following = self.builder.phrase, self.view.next(at)
        if not phrase.is_open or following is None:
            return False
        if phrase.article is not None and following.is_a(*NOUNS):
            return True
        return self.view.is_quality(at + 1) and self.view.describes(at, commas=True)

    def _lists_on(self, at: int) -> bool:
        """Whether what is not wanted goes on behind a comma."""
        exclusion, scene = self.builder.exclusion, self.builder.scene
        if exclusion is None or not exclusion.chunk.is_a("negation"):
            return False
        if self.previous is exclusion.chunk:  # "without: cats"
            return exclusion.chunk.text not in SINGLE
        return list_goes_on(self.chunks, at, exclusion.chunk.text, bool(scene.groups or scene.backdrops))

    def _address(self, at: int) -> int:
        """How many phrases name who shall draw; they are left out."""
        if not self.is_opening or self.builder.phrase.article is not None:
            return 0
        end = addressee_end(self.chunks, at)
        for chunk in self.chunks[at:end]:
            chunk.mark(LEFT_OUT, reasons.ADDRESSED)
        return end - at

    def _amount(self, chunk: Chunk) -> int:
        """ "a herd of": several; "a piece of": one."""
        is_group = chunk.text in GROUPS or chunk.text.removesuffix("s") in GROUPS
        if is_group and self.builder.phrase.number is None:
            self.builder.phrase.several = True
        self.builder.drop_qualities()
        return 2

    def _picture(self, at: int) -> int:
        """ "a dramatic photo of": language, whatever stood before it."""
        self.builder.drop_qualities()
        following = self.view.next(at)
        if self.view.precedes_of(at):
            self.builder.phrase = NounPhrase()
            return 2
        if following is None or not following.is_a(*NOUNS):
            self.builder.phrase = NounPhrase()
        return 1

    # Little words

    def _negation(self, at: int, chunk: Chunk) -> int:
        following, groups = self.view.next(at), self.builder.scene.groups
        ends = following is None or following.is_a("mark")
        if chunk.text in ("no", "not") and self._is_answer(at) and groups:
            self.builder.take_back(self.previous)
            return 2
        if ends and self.previous is not None and self.previous.is_a("thing") and groups:
            self.builder.flush()
            self.builder.avoid_last()
            return 1
        self.builder.negate(chunk)
        return 1

    def _is_answer(self, at: int) -> bool:
        """Whether "no" stands alone before something else: "a cat, no, a dog", "cats? No. Dogs!"."""
        following, is_alone = self.view.next(at), self.previous is not None and self.previous.is_a("mark")
        return (
            at + 2 < len(self.chunks)
            and following is not None
            and (following.text == "," or (following.is_a("mark") and is_alone))
        )

    def _correction(self, at: int, chunk: Chunk) -> None:
        self.builder.take_back(self.previous)

    def _change(self, at: int, chunk: Chunk) -> None:
        self.builder.flush()
        self.builder.is_changed = True

    def _number(self, at: int, chunk: Chunk) -> None:
        groups, following = self.builder.scene.groups, self.view.next(at)
        ends = following is None or following.is_a("mark")
        if self.previous is not None and self.previous.text == "x" and groups and ends:  # trees x3
            groups[-1].number, groups[-1].count = chunk, number_of(chunk.text)
            return
        self.builder.set_number(chunk)

    def _size(self, at: int, chunk: Chunk) -> None:
        self.builder.set_quality(chunk, "size")

    def _color(self, at: int, chunk: Chunk) -> None:
        following, verb = self.view.next(at), self.view.next(at + 1)
        if following is not None and following.text in ("one", "ones") and verb is not None and verb.text in VERBS:
            self.builder.announce_color(chunk)  # "the red one is a car"
        else:
            self.builder.set_late_color(chunk, self.of_all)

    def _side(self, at: int, chunk: Chunk) -> None:
        self.builder.set_side(chunk)

    def _relation(self, at: int, chunk: Chunk) -> None:
        following = self.view.next(at)
        if following is None or following.is_a("mark"):
            self.builder.close_relation(chunk)
        else:
            place = self.view.next(at + 1) if following.is_a("article") else following
            says_where = place is not None and place.is_a(*BACKDROPS, "background") and not place.is_a(*NOUNS)
            self.builder.open_relation(chunk, says_where and self.previous is self._excluding())  # "not in the park"

    def _excluding(self) -> Chunk | None:
        """The word that says what is not wanted, while it does."""
        return self.builder.exclusion.chunk if self.builder.exclusion is not None else None

    def _aside(self, at: int, chunk: Chunk) -> None:
        """ "a card for my mum": what follows is not part of the scene."""
        self.builder.negate(chunk)

    def _likeness(self, at: int, chunk: Chunk) -> None:
        """ "shaped like a dog", "thinking of a dog"."""
        self.builder.compare(chunk)

    def _join(self, at: int, chunk: Chunk) -> None:
        following, builder = self.view.next(at), self.builder
        bare = following is not None and following.is_a(*NOUNS, "adjective", "color")
        if chunk.text == "with" and self.view.requests[at] and (place := tool_at(self.chunks, at)) >= 0:
            tool = self.chunks[place]
            tool.meanings = {"style": tool.meanings["instrument"]}
            builder.add_style(tool)
        elif chunk.text == "or" and builder.exclusion is None:
            builder.offer()
        elif builder.phrase.color and following is not None and following.is_a("color") and self.view.describes(at):
            chunk.head = following  # "a red and blue car"
        else:
            builder.join(chunk, chunk.text == "or" or (chunk.text == "and" and bare))

    def _article(self, at: int, chunk: Chunk) -> None:
        self.builder.flush()
        self.builder.phrase.article = chunk

    def _verb(self, at: int, chunk: Chunk) -> None:
        self.builder.flush()
        self.builder.relation = None
        is_action = self.view.questions[at] or not chunk.is_a("base verb")
        chunk.mark(LEFT_OUT, reasons.NO_DRAWING if chunk.emoji >= 0 or not is_action else reasons.ACTION)

    def _quality(self, at: int, chunk: Chunk) -> None:
        self.builder.phrase.others.append(chunk)

    def _language(self, at: int, chunk: Chunk) -> None:
        following = self.view.next(at)
        if chunk.text == "like" and self.previous is not None and self.previous.is_a(*NOUNS) and following is not None:
            if following.text in ("a", "an"):  # "a cat like a tiger"
                chunk.meanings["likeness"] = ""
                return self.builder.compare(chunk)
        phrase = self.builder.phrase
        inside = phrase.others or (phrase.article is not None and phrase.number is None)
        if not inside and chunk.text.startswith(NEW_CLAUSE):
            self.builder.begin_clause()

    def _request(self, at: int, chunk: Chunk) -> None:
        """ "draw"; not of "never draw"."""
        if self.previous is None or not self.previous.is_a("negation") or self.previous.text == "no":
            self.builder.begin_clause()


# What to do with a phrase by the first kind that it has, in this order.
SMALL_WORDS = {
    "comparison": _SceneParser._aside, "likeness": _SceneParser._likeness, "dedication": _SceneParser._aside,
    "thought": _SceneParser._likeness,
    "change": _SceneParser._change,
    "correction": _SceneParser._correction, "number": _SceneParser._number, "size": _SceneParser._size,
    "color": _SceneParser._color, "side": _SceneParser._side, "relation": _SceneParser._relation,
    "join": _SceneParser._join, "article": _SceneParser._article,
    "verb": _SceneParser._verb, "base verb": _SceneParser._verb,
    "adjective": _SceneParser._quality, "unknown": _SceneParser._quality, "privative": _SceneParser._quality,
    "suffix": _SceneParser._quality,
    "request": _SceneParser._request, "language": _SceneParser._language,
}  # fmt: skip
