"""Builds what a prompt asks for from noun phrases, places and little words, as the parser finds them one by one."""

from dataclasses import replace

from text_encoder.prompt_reader import reasons
from text_encoder.prompt_reader.asked_group import (
    add_group,
    leave_out_qualities,
    mentioned_group,
    put_inside,
    recount,
    share_fate,
    take_back_group,
)
from text_encoder.prompt_reader.asked_scene import (
    AskedBackdrop,
    AskedGroup,
    AskedRelation,
    AskedScene,
    Exclusion,
    NounPhrase,
)
from text_encoder.prompt_reader.english_phrases import NUMBERS
from text_encoder.prompt_reader.lexicon import Chunk, NounMeaning
from text_encoder.prompt_reader.prompt_reading import AVOIDED, DRAWN, LANGUAGE, LEFT_OUT

POSSESSIVES = frozenset("its his her their".split())
PLACES = ("place", "time", "weather", "background")
STYLES = ("style", "style said")


class SceneBuilder:
    """The scene so far and the sentence's state.

    phrase       the noun phrase that is being read
    relation     a preposition that waits for its noun
    subject      index of the group that a preposition would relate; None at the beginning of a clause
    last         index of the group that was mentioned last
    exclusion    "no" or "without", while what follows is not wanted
    is_changed   "make that" was said: what follows takes the place of the last group, or of its number
    is_option    "or" was said behind something that is drawn: what follows is left out
    """

    def __init__(self) -> None:
        self.scene = AskedScene()
        self.phrase = NounPhrase()
        self.relation: Chunk | None = None
        self.subject: int | None = None
        self.last = -1
        self.exclusion: Exclusion | None = None
        self.is_changed = False
        self.is_option = False
        self._awaiting: list[AskedRelation] = []
        self._coming: dict[str, Chunk] = {}  # side and color of the coming group: "on the left a tree"
        self._latest: Chunk | None = None  # the thing, place or style that was named last

    def finish(self) -> AskedScene:
        self.end_clause()
        for late in self._awaiting:  # "a snail, on top of a mushroom": its subject stood before the comma
            if late.target > 0:
                self.scene.relations.append(replace(late, subject=late.target - 1))
        return self.scene

    # Noun phrases

    def take_phrase(self) -> NounPhrase:
        """The noun phrase that was read; the next one begins."""
        phrase, self.phrase = self.phrase, NounPhrase()
        return phrase

    def set_quality(self, chunk: Chunk, kind: str) -> None:
        """Note the color or size of the coming noun; of two the one next to the noun stays."""
        before = getattr(self.phrase, kind)
        if before is not None and before.meanings[kind] == chunk.meanings[kind]:  # "teeny tiny"
            before.head = chunk
            before = None
        if before is not None and self.is_option:
            chunk.mark(LEFT_OUT, reasons.ALTERNATIVE)
            self.is_option = False
            return
        if before is not None:
            before.mark(LEFT_OUT, reasons.SECOND_COLOR if kind == "color" else reasons.QUALITY)
        setattr(self.phrase, kind, chunk)

    def set_number(self, chunk: Chunk) -> None:
        """The number of the coming noun."""
        if self.is_option and self.phrase.number is not None:
            chunk.mark(LEFT_OUT, reasons.ALTERNATIVE)
            self.is_option = False
            return
        if self.phrase.number is not None or self.phrase.others or self.phrase.color:
            self.flush()
        self.phrase.number = chunk

    def set_late_color(self, chunk: Chunk, of_all: bool = False, of_whom: Chunk | None = None) -> None:
        """A color after its noun: "a car, blue", "make it green". `of_all`: "both blue", "make them blue"; `of_whom`:
        the noun before "is"."""
        if not self.scene.groups or self.exclusion is not None:
            self.phrase.others.append(chunk)
            return
        if of_whom is not None and of_whom.status == LEFT_OUT and not of_all:  # "violets are blue" without violets
            self._leave_out_quality(chunk)
            return
        groups = self.scene.groups if of_all else [self.scene.groups[self.last]]
        bare = [group for group in groups if group.color is None]
        for group in bare:
            group.color = chunk
        if not bare:
            chunk.mark(LEFT_OUT, reasons.SECOND_COLOR)

    def announce_color(self, chunk: Chunk) -> None:
        """A color of the group that comes next: "the red one is a car"."""
        self.flush()
        chunk.mark(LEFT_OUT, reasons.COLORS_NOTHING)
        self._coming["color"] = chunk

    def drop_qualities(self) -> None:
        """Leave out what was said of a noun that needs no drawing: "a dramatic picture of"."""
        for chunk in self.phrase.chunks():
            if chunk.is_a("adjective", "unknown", "color"):
                chunk.mark(LEFT_OUT, reasons.QUALITY)
        self.phrase.size = self.phrase.color = None
        self.phrase.others.clear()

    def flush(self) -> None:
        """End a noun phrase that named nothing."""
        phrase = self.take_phrase()
        groups = self.scene.groups
        if phrase.number is not None and self.is_changed and groups:  # "make that two"
            self.is_changed = False
            recount(groups[self.last], phrase.number)
            phrase.number = None
        if phrase.size is not None and groups and groups[self.last].size is None:
            groups[self.last].size, phrase.size = phrase.size, None
        for chunk in (phrase.size, phrase.color, *phrase.others):
            if chunk is not None:
                self._leave_out_quality(chunk)
        if phrase.number is not None and phrase.number.text not in NUMBERS:
            phrase.number.mark(LEFT_OUT, reasons.COUNTS_NOTHING)

    def _leave_out_quality(self, chunk: Chunk) -> None:
        """A quality of no noun: "no red" keeps every red out."""
        if self.exclusion is not None:
            chunk.mark(*self.exclusion.fate)
        else:
            leave_out_qualities([chunk])
        if chunk.is_a("color"):
            loose = self.scene.unwanted.colors if chunk.status == AVOIDED else self.scene.loose_colors
            loose.append(chunk)

    # Things

    def add_thing(self, head: Chunk) -> None:
        noun = head.meanings["thing"]
        assert isinstance(noun, NounMeaning)
        phrase = self.take_phrase()
        leave_out_qualities(phrase.others)
        if self._is_excluded(head, phrase, noun) or self._is_other_option(head, phrase):
            return
        head.mark(DRAWN)
        self._latest = head
        if self.is_changed and self._change(noun, phrase, head):
            return
        mentioned = mentioned_group(self.scene.groups, self.last, phrase, head)
        if mentioned is not None:
            head.head = self.scene.groups[mentioned].head
            self._relate(mentioned)
            return
        add_group(self.scene, noun, phrase, head)
        for kind, chunk in self._coming.items():
            chunk.mark(LANGUAGE)
            setattr(self.scene.groups[-1], kind, getattr(self.scene.groups[-1], kind) or chunk)
        self._coming.clear()
        self._relate(len(self.scene.groups) - 1)

    def _change(self, noun: NounMeaning, phrase: NounPhrase, head: Chunk) -> bool:
        """ "make that two cats": the cats that were named last change; another thing takes their place."""
        self.is_changed = False
        group = self.scene.groups[self.last] if self.scene.groups else None
        if group is None:
            return False
        if group.noun.name != noun.name:
            self.last = take_back_group(self.scene)
            return False
        if phrase.number is not None:
            recount(group, phrase.number)
        group.color, group.size = phrase.color or group.color, phrase.size or group.size
        head.head = group.head
        return True

    def exclude(self, head: Chunk) -> None:
        """A noun that is not wanted, whatever else its phrase names: "dog" of "a dog-free park"."""
        head.mark(AVOIDED, reasons.NOT_WANTED)
        if isinstance(noun := head.meanings.get("thing"), NounMeaning):
            self.scene.unwanted.groups.append(AskedGroup(noun, head))

    def _is_excluded(self, head: Chunk, phrase: NounPhrase, noun: NounMeaning | None = None) -> bool:
        """Whether a noun is part of what is not wanted; it is marked so then, with all that was said of it."""
        if self.exclusion is not None and self.exclusion.has_noun and (phrase.article or phrase.number):
            self.exclusion = None  # "without dogs a cat"
        if self.exclusion is None:
            return False
        head.mark(*self.exclusion.fate)
        if noun is not None and head.status == AVOIDED:
            self.scene.unwanted.groups.append(AskedGroup(noun, head, 1, False, None, phrase.size, phrase.color))
        share_fate(head, phrase, with_article=noun is None)
        self.relation = None
        if self.exclusion.chunk.is_a("dedication", "thought"):
            self.exclusion = None
        else:
            self.exclusion.has_noun = True
        return True

    def _is_other_option(self, head: Chunk, phrase: NounPhrase) -> bool:
        """Whether a noun stands behind "or" and something that is drawn; it is left out then."""
        if not self.is_option:
            return False
        self.is_option = False
        head.mark(LEFT_OUT, reasons.ALTERNATIVE)
        share_fate(head, phrase)
        self.relation = None
        return True

    def leave_out_noun(self, head: Chunk) -> None:
        """A noun that nothing stands for, with all that was said of it."""
        phrase = self.take_phrase()
        self.is_option = False
        if self._is_excluded(head, phrase):
            return
        head.mark(LEFT_OUT, reasons.NO_DRAWING)
        share_fate(head, phrase)
        self._latest = head
        self.relation = None

    def take_part(self, head: Chunk) -> bool:
        """Leave out a part of a thing that was named; what is on it is on that thing: "a cat with a crown on its head".
        Returns whether that thing was found."""
        article, relation = self.phrase.article, self.relation
        if relation is None or article is None or article.text not in POSSESSIVES or self.subject in (None, 0):
            return False
        assert self.subject is not None
        head.mark(LEFT_OUT, reasons.PART)
        share_fate(head, self.take_phrase())
        self._relate(self.subject - 1)
        return True

    def _relate(self, index: int) -> None:
        """A group was mentioned: it is the target of an open relation, and the subject of what follows."""
        self.last = index
        relation, self.relation = self.relation, None
        if relation is not None and relation.text == "of":
            put_inside(self.scene, index, relation)
        elif relation is not None:
            asked = AskedRelation(str(relation.meanings["relation"]), self.subject or 0, index, relation)
            if self.subject is None:
                self._awaiting.append(asked)
                return
            self.scene.relations.append(asked)
        elif self._awaiting:
            fronted = self._awaiting.pop()  # "on the right of the house there is a tree"
            if fronted.target != index:
                self.scene.relations.append(replace(fronted, subject=index))
        self.subject = index

    # Where, when, how

    def _is_place_excluded(self, chunk: Chunk) -> bool:
        """Whether a place or style is part of what is not wanted; behind a noun that is not, it is said of the whole
        again: "without a hat on the beach", "for my mum on the beach"."""
        if self.exclusion is None:
            return False
        if self.exclusion.ends_before_place:
            self.exclusion = None
            return False
        chunk.mark(*self.exclusion.fate)
        return True

    def _is_place_option(self, chunk: Chunk, kinds: tuple[str, ...]) -> bool:
        """Whether a place or style stands behind "or" and another of its kind."""
        option, self.is_option = self.is_option, False
        if not option or self._latest is None or not self._latest.is_a(*kinds):
            return False
        chunk.mark(LEFT_OUT, reasons.ALTERNATIVE)
        return True

    def add_backdrop(self, chunk: Chunk) -> None:
        phrase = self.take_phrase()
        relation, self.relation = self.relation, None
        for other in (phrase.article, phrase.size, phrase.number, relation):
            if other is not None:
                other.head = chunk
        leave_out_qualities(phrase.others)
        if self._is_place_excluded(chunk):
            self.scene.unwanted.backdrops += [chunk] if chunk.status == AVOIDED else []
        elif not self._is_place_option(chunk, PLACES):
            self.scene.backdrops.append(AskedBackdrop(chunk, phrase.color, relation))
            self._latest = chunk

    def add_style(self, chunk: Chunk) -> None:
        self.drop_qualities()
        if self._is_place_excluded(chunk):
            self.scene.unwanted.styles += [chunk] if chunk.status == AVOIDED else []
            return
        for other in (self.relation, self.phrase.article):
            if other is not None:
                other.head = chunk
        self.relation = None
        if not self._is_place_option(chunk, STYLES):
            self.scene.styles.append(chunk)
            self._latest = chunk

    def set_side(self, chunk: Chunk) -> None:
        """Where in the picture the last group stands; at the beginning of a clause, where the coming one does."""
        self.flush()
        if self.scene.groups and self.subject is not None:
            self.scene.groups[self.last].side = chunk
        else:
            chunk.mark(LEFT_OUT, reasons.ALONE)
            self._coming["side"] = chunk

    # Clauses

    def end_clause(self, keeps_exclusion: bool = False) -> None:
        """A mark. `keeps_exclusion`: what follows is not wanted either, "without dogs, cats or birds"."""
        self.flush()
        self.subject = self.relation = None
        self.is_option = self.is_changed = False
        if not keeps_exclusion:
            self.exclusion = None

    def begin_clause(self) -> None:
        """ "there is", "add": a new clause without a mark."""
        self.flush()
        self.subject = self.exclusion = None

    def open_relation(self, chunk: Chunk, keeps_exclusion: bool) -> None:
        self.flush()
        self.exclusion, self.is_changed, self.relation = (self.exclusion if keeps_exclusion else None), False, chunk

    def close_relation(self, chunk: Chunk) -> None:
        """ "a tree with presents underneath": of the last group to the one before."""
        self.flush()
        last = len(self.scene.groups) - 1
        if last > 0:
            self.scene.relations.append(AskedRelation(str(chunk.meanings["relation"]), last, last - 1, chunk))

    def join(self, chunk: Chunk, keeps_exclusion: bool) -> None:
        """ "and", "with". `keeps_exclusion`: "no dogs and cats"."""
        self.flush()
        if not keeps_exclusion:
            self.exclusion = None
        elif self.exclusion is not None:
            self.exclusion.has_noun = False
        self.relation = self.subject = None
        self.is_changed = self.is_option = False
        self.scene.joins[len(self.scene.groups)] = chunk.text

    def offer(self) -> None:
        """ "or": what follows is left out where what stands before is drawn."""
        if self.phrase.color or self.phrase.size or self.phrase.number:  # "a red or blue car", "two or three cats"
            self.is_option = True
            return
        self.flush()
        self.relation = None
        self.is_option = self._latest is not None and self._latest.status != LEFT_OUT

    def compare(self, chunk: Chunk) -> None:
        """ "shaped like", "dreams of": what follows is not drawn where what is compared to it is."""
        is_drawn = self._latest is not None and self._latest.status == DRAWN
        if is_drawn or (chunk.is_a("thought") and self.scene.groups):
            self.negate(chunk)

    def negate(self, chunk: Chunk) -> None:
        """What follows is not wanted."""
        self.flush()
        self.exclusion, self.relation = Exclusion(chunk), None

    def avoid_last(self) -> None:
        """ "the knife isn't": what was named last is not wanted."""
        group = self.scene.groups.pop()
        self.last = -1
        group.head.mark(AVOIDED, reasons.NOT_WANTED)
        self.scene.unwanted.groups.append(group)

    def take_back(self, previous: Chunk | None) -> None:
        """ "no, a cat", "no wait": what was said last does not count. `previous`: the phrase before."""
        self.flush()
        backdrops = self.scene.backdrops
        if previous is not None and previous.is_a("side", "relation"):
            self.relation = None
            self._coming.clear()
            if self.scene.groups:
                self.scene.groups[-1].side = None
            previous.mark(LEFT_OUT, reasons.TAKEN_BACK)
        elif backdrops and backdrops[-1].chunk is self._latest:
            backdrops.pop().chunk.mark(LEFT_OUT, reasons.TAKEN_BACK)
        elif self.scene.groups:
            self.last = take_back_group(self.scene)
        self.subject = self.exclusion = None
