"""From phrases to what a prompt asks for: groups of things, how they relate, where, when, and what is not wanted.

The parser reads English noun phrases from left to right: number, size, color and other qualities, then nouns of which
the last is what is meant ("a police car" is a car). It knows nothing of what fits into a picture; scene_fitting does.
"""

from text_encoder.prompt_reader.asked_scene import ACTION, MODIFIER, UNKNOWN, AskedScene, NounPhrase, number_of
from text_encoder.prompt_reader.english_phrases import GROUPS
from text_encoder.prompt_reader.lexicon import Chunk
from text_encoder.prompt_reader.prompt_reading import AVOIDED, LEFT_OUT
from text_encoder.prompt_reader.scene_builder import SceneBuilder

NOUNS = ("thing", "noun")
LOOKAHEAD = 40  # phrases within which a quality finds its noun
QUALITIES = ("adjective", "unknown", "color", "size")
BACKDROPS = ("place", "time", "weather")
PREDICATES = frozenset(
    "be is are it them was were him her colored painted only completely totally fully entirely".split()
)
NEW_CLAUSE = ("there", "here", "i ", "it ", "add", "draw", "make")


def parse_scene(chunks: list[Chunk]) -> AskedScene:
    """What the phrases of a prompt ask for; each chunk is marked with what became of it."""
    return _SceneParser(chunks).parse()


class _SceneParser:
    def __init__(self, chunks: list[Chunk]):
        self.chunks = chunks
        self.builder = SceneBuilder()
        self.previous: Chunk | None = None

    def parse(self) -> AskedScene:
        at = 0
        while at < len(self.chunks):
            at += self._read(at, self.chunks[at])
            self.previous = self.chunks[at - 1]
        return self.builder.finish()

    def _next(self, at: int) -> Chunk | None:
        return self.chunks[at + 1] if at + 1 < len(self.chunks) else None

    def _read(self, at: int, chunk: Chunk) -> int:
        """Read the phrase at `at`; returns how many phrases that took."""
        builder = self.builder
        if chunk.is_a("mark"):
            builder.end_clause()
        elif chunk.is_a("style said"):
            builder.add_style(chunk)
        elif chunk.is_a("background") and not (chunk.is_a("color") and self._describes(at)):
            builder.add_backdrop(chunk)
        elif chunk.is_a("color") and self._describes(at, needs_noun=not chunk.is_a("thing")):
            builder.set_quality(chunk, "color")
        elif chunk.is_a("style") and (not chunk.is_a("thing") or self._precedes_of(at)):
            builder.add_style(chunk)
        elif chunk.is_a("color") and self._is_predicate(at):
            builder.set_late_color(chunk)
        elif chunk.is_a("amount") and self._precedes_of(at):
            return self._amount(chunk)
        elif chunk.is_a("picture") and (self._precedes_of(at) or not chunk.is_a("thing")):
            return self._picture(at)
        elif chunk.is_a(*NOUNS) and not self._is_verb_here(at):
            return self._nouns(at)
        elif chunk.is_a(*BACKDROPS):
            if self._modifies(at):
                return self._nouns(at)
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

    def _describes(self, at: int, needs_noun: bool = True) -> bool:
        """Whether a quality stands before a noun: between them are only other qualities, "and" among colors."""
        for chunk in self.chunks[at + 1 : at + 1 + LOOKAHEAD]:
            if chunk.is_a(*NOUNS, "place", "picture") and not chunk.is_a("background"):
                return True
            joins = chunk.text in ("and", "or") and chunk.is_a("join")
            if not (joins or chunk.is_a(*QUALITIES, "number", "style", "possessive")) or (joins and not needs_noun):
                return False
        return False

    def _is_predicate(self, at: int) -> bool:
        """Whether a word stands where only a quality can: "they should be orange"."""
        before, following = self.previous, self._next(at)
        ends = following is None or following.is_a("mark", "join")
        return ends and before is not None and before.is_a("language") and before.text.split()[-1] in PREDICATES

    def _precedes_of(self, at: int) -> bool:
        following = self._next(at)
        return following is not None and following.text == "of"

    def _modifies(self, at: int) -> bool:
        """Whether a noun stands right behind, so that this one only describes it: "a beach ball"."""
        following = self._next(at)
        return following is not None and following.is_a(*NOUNS) and not self._is_verb_here(at + 1)

    def _is_verb_here(self, at: int) -> bool:
        """Whether a word that can be a verb is one: right after a noun, or before an article."""
        chunk = self.chunks[at]
        if not chunk.is_a("verb") or chunk.is_a("thing"):
            return False
        before, following = self.chunks[at - 1] if at else None, self._next(at)
        after_noun = before is not None and before.is_a(*NOUNS, "verb")
        starts = before is None or before.is_a("mark", "join", "article", "number", "relation", *QUALITIES)
        return after_noun or (not starts and following is not None and following.is_a("article", "number"))

    # Nouns

    def _nouns(self, at: int) -> int:
        """A run of nouns, of which the last is meant; the others describe it."""
        end = at + 1
        while end < len(self.chunks) and self._continues(end):
            end += 1
        run, head = self.chunks[at:end], self.chunks[end - 1]
        for chunk in run[:-1]:
            chunk.mark(LEFT_OUT, MODIFIER)
        if end < len(self.chunks) and self.chunks[end].is_a("possessive"):  # "the cat's shadow"
            head.mark(LEFT_OUT, MODIFIER)
            self.builder.phrase.article = self.builder.phrase.number = None
            return len(run) + 1
        if head.is_name and not head.is_a("thing") and at and self.chunks[at - 1].is_a("thing"):
            head.mark(LEFT_OUT, UNKNOWN)  # "my dog Max"
        elif head.is_a("thing"):
            self.builder.add_thing(head)
        elif head.is_a("noun"):
            self.builder.leave_out_noun(head)
        else:
            self.builder.add_backdrop(head)
        if head.status in (LEFT_OUT, AVOIDED):
            for chunk in run[:-1]:
                chunk.mark(head.status, head.why)
        return len(run)

    def _continues(self, at: int) -> bool:
        """Whether a phrase goes on with a run of nouns."""
        chunk = self.chunks[at]
        if chunk.is_a("style said", "background", "relation", "join", "negation"):
            return False
        if chunk.is_name and self.chunks[at - 1].is_a("thing"):
            return False
        if chunk.is_a(*NOUNS):
            return chunk.is_a("thing") or not (self._is_verb_here(at) or chunk.is_a("color"))
        return chunk.is_a("place") and not chunk.is_a("time", "weather")

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
        following = self._next(at)
        if self._precedes_of(at):
            self.builder.phrase = NounPhrase()
            return 2
        if following is None or not following.is_a(*NOUNS):
            self.builder.phrase = NounPhrase()
        return 1

    # Little words

    def _negation(self, at: int, chunk: Chunk) -> int:
        following, groups = self._next(at), self.builder.scene.groups
        ends = following is None or following.is_a("mark")
        if chunk.text in ("no", "not") and following is not None and following.text == "," and groups:
            self.builder.take_back(self.previous)
            return 2
        if ends and self.previous is not None and self.previous.is_a("thing") and groups:
            self.builder.flush()
            self.builder.avoid_last()
            return 1
        self.builder.negate(chunk)
        return 1

    def _correction(self, at: int, chunk: Chunk) -> None:
        if chunk.text == "make that":
            self.builder.flush()
            self.builder.is_corrected = True
        else:
            self.builder.take_back(self.previous)

    def _number(self, at: int, chunk: Chunk) -> None:
        phrase, groups, following = self.builder.phrase, self.builder.scene.groups, self._next(at)
        ends = following is None or following.is_a("mark")
        if self.previous is not None and self.previous.text == "x" and groups and ends:  # trees x3
            groups[-1].number, groups[-1].count = chunk, number_of(chunk.text)
            return
        if phrase.number is not None or phrase.others or phrase.color:
            self.builder.flush()
        self.builder.phrase.number = chunk

    def _size(self, at: int, chunk: Chunk) -> None:
        self.builder.set_quality(chunk, "size")

    def _color(self, at: int, chunk: Chunk) -> None:
        self.builder.set_late_color(chunk)

    def _side(self, at: int, chunk: Chunk) -> None:
        self.builder.set_side(chunk)

    def _relation(self, at: int, chunk: Chunk) -> None:
        following = self._next(at)
        if following is None or following.is_a("mark"):
            self.builder.close_relation(chunk)
        else:
            self.builder.open_relation(chunk)

    def _aside(self, at: int, chunk: Chunk) -> None:
        """ "shaped like a dog", "a card for my mum": what follows is not part of the scene."""
        if chunk.is_a("comparison") or self.builder.scene.groups:  # "for my mum a card" names no card yet
            self.builder.negate(chunk)

    def _join(self, at: int, chunk: Chunk) -> None:
        following = self._next(at)
        bare = following is not None and following.is_a(*NOUNS, "adjective", "color")
        self.builder.join(chunk, chunk.text == "or" or (chunk.text == "and" and bare))

    def _article(self, at: int, chunk: Chunk) -> None:
        self.builder.flush()
        self.builder.phrase.article = chunk

    def _verb(self, at: int, chunk: Chunk) -> None:
        self.builder.flush()
        self.builder.relation = None
        chunk.mark(LEFT_OUT, ACTION)

    def _quality(self, at: int, chunk: Chunk) -> None:
        self.builder.phrase.others.append(chunk)

    def _language(self, at: int, chunk: Chunk) -> None:
        phrase = self.builder.phrase
        inside = phrase.others or (phrase.article is not None and phrase.number is None)
        if not inside and chunk.text.startswith(NEW_CLAUSE):
            self.builder.flush()
            self.builder.subject = self.builder.negation = None


# What to do with a phrase by the first kind that it has, in this order.
SMALL_WORDS = {
    "comparison": _SceneParser._aside, "dedication": _SceneParser._aside,
    "correction": _SceneParser._correction, "number": _SceneParser._number, "size": _SceneParser._size,
    "color": _SceneParser._color, "side": _SceneParser._side, "relation": _SceneParser._relation,
    "join": _SceneParser._join, "article": _SceneParser._article, "verb": _SceneParser._verb,
    "adjective": _SceneParser._quality, "unknown": _SceneParser._quality, "language": _SceneParser._language,
}  # fmt: skip
