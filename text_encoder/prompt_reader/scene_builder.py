"""Builds what a prompt asks for from noun phrases, places and little words, as the parser finds them one by one."""

from text_encoder.prompt_reader.asked_scene import (
    COLORS_NOTHING,
    COMPARED,
    COUNTS_NOTHING,
    DEDICATED,
    NO_DRAWING,
    NOT_WANTED,
    QUALITY,
    SECOND_COLOR,
    TAKEN_BACK,
    UNKNOWN,
    AskedBackdrop,
    AskedGroup,
    AskedRelation,
    AskedScene,
    NounPhrase,
    number_of,
)
from text_encoder.prompt_reader.english_phrases import NUMBERS, VAGUE
from text_encoder.prompt_reader.lexicon import Chunk, NounMeaning
from text_encoder.prompt_reader.prompt_reading import AVOIDED, DRAWN, LEFT_OUT

CONTAINERS = frozenset(
    "bowl cup glass basket box vase plate jar bottle mug pot bag bucket crate dish tray truck".split()
)


class SceneBuilder:
    """The scene so far and the sentence's state.

    phrase        the noun phrase that is being read
    relation      a preposition that waits for its noun
    subject       index of the group that a preposition would relate; None at the beginning of a clause
    last          index of the group that was mentioned last
    negation      "no" or "without", while what follows is not wanted
    is_corrected  "make that" was said: the next number corrects the last group's
    """

    def __init__(self) -> None:
        self.scene = AskedScene()
        self.phrase = NounPhrase()
        self.relation: Chunk | None = None
        self.subject: int | None = None
        self.last = -1
        self.negation: Chunk | None = None
        self.is_corrected = False
        self._awaiting: list[AskedRelation] = []

    def finish(self) -> AskedScene:
        self.end_clause()
        for open_relation in self._awaiting:  # "a snail, on top of a mushroom": its subject stood before the comma
            concept, target = open_relation.concept, open_relation.target
            if target > 0:
                self.scene.relations.append(AskedRelation(concept, target - 1, target, open_relation.chunk))
        return self.scene

    # Noun phrases

    def take_phrase(self) -> NounPhrase:
        """The noun phrase that was read; the next one begins."""
        phrase, self.phrase = self.phrase, NounPhrase()
        return phrase

    def set_quality(self, chunk: Chunk, kind: str) -> None:
        """Note the color or size of the coming noun; of two the one next to the noun stays."""
        before = getattr(self.phrase, kind)
        if before is not None:
            before.mark(LEFT_OUT, SECOND_COLOR if kind == "color" else QUALITY)
        setattr(self.phrase, kind, chunk)

    def set_late_color(self, chunk: Chunk) -> None:
        """A color after its noun: "a car, blue", "make it green"."""
        if not self.scene.groups or self.negation is not None:
            self.phrase.others.append(chunk)
            return
        group = self.scene.groups[self.last]
        if group.color is None:
            group.color = chunk
        else:
            chunk.mark(LEFT_OUT, SECOND_COLOR)

    def drop_qualities(self) -> None:
        """Leave out what was said of a noun that needs no drawing: "a dramatic picture of"."""
        for chunk in self.phrase.chunks():
            if chunk.is_a("adjective", "unknown", "color"):
                chunk.mark(LEFT_OUT, QUALITY)
        self.phrase.size = self.phrase.color = None
        self.phrase.others.clear()

    def flush(self) -> None:
        """End a noun phrase that named nothing."""
        phrase = self.take_phrase()
        if phrase.size is not None:
            if self.scene.groups and self.scene.groups[self.last].size is None:
                self.scene.groups[self.last].size = phrase.size
            else:
                phrase.size.mark(LEFT_OUT, QUALITY)
        if phrase.color is not None:
            phrase.color.mark(LEFT_OUT, COLORS_NOTHING)
        for chunk in phrase.others:
            why = UNKNOWN if chunk.is_a("unknown") else COLORS_NOTHING if chunk.is_a("color") else QUALITY
            chunk.mark(LEFT_OUT, why)
        if phrase.number is not None and phrase.number.text not in NUMBERS:
            phrase.number.mark(LEFT_OUT, COUNTS_NOTHING)

    # Things

    def add_thing(self, head: Chunk) -> None:
        noun = head.meanings["thing"]
        assert isinstance(noun, NounMeaning)
        phrase = self.take_phrase()
        for chunk in phrase.others:
            chunk.mark(LEFT_OUT, UNKNOWN if chunk.is_a("unknown") else QUALITY)
        if self.negation is not None:
            self._avoid(noun, head, phrase)
            return
        head.mark(DRAWN)
        self.scene.avoided.discard(noun.name)  # "no wait, two cats"
        if self.is_corrected and self._recount(noun, phrase, head):
            return
        mentioned = self._mentioned(noun, phrase)
        if mentioned is not None:
            head.head = self.scene.groups[mentioned].head
            self._relate(mentioned)
            return
        count, is_vague = self._count(noun, phrase)
        for chunk in (phrase.article, phrase.number):
            if chunk is not None:
                chunk.head = head
        self.scene.groups.append(AskedGroup(noun, head, count, is_vague, phrase.number, phrase.size, phrase.color))
        self._relate(len(self.scene.groups) - 1)

    def _count(self, noun: NounMeaning, phrase: NounPhrase) -> tuple[int | None, bool]:
        """(how many, whether the number is vague)."""
        if phrase.number is None:
            return (None if noun.plural or phrase.several else 1), phrase.several
        if phrase.number.text == "some" and not noun.plural:
            return 1, True
        return number_of(phrase.number.text), phrase.number.text in VAGUE

    def _recount(self, noun: NounMeaning, phrase: NounPhrase, head: Chunk) -> bool:
        """ "make that two cats": the number of the cats that were named last changes."""
        self.is_corrected = False
        group = self.scene.groups[self.last] if self.scene.groups else None
        if group is None or group.noun.name != noun.name or phrase.number is None:
            return False
        group.number, group.count, group.is_vague = phrase.number, number_of(phrase.number.text), False
        group.color, group.size = phrase.color or group.color, phrase.size or group.size
        head.head = group.head
        return True

    def _mentioned(self, noun: NounMeaning, phrase: NounPhrase) -> int | None:
        """The group that "the house" speaks of, where it was named before."""
        definite = phrase.article is not None and phrase.article.text not in ("a", "an", "a single")
        if not definite or phrase.number is not None:
            return None
        for index, group in enumerate(self.scene.groups):
            same_color = phrase.color is None or (group.color is not None and group.color.text == phrase.color.text)
            if group.noun.name == noun.name and same_color:
                return index
        return None

    def _avoid(self, noun: NounMeaning, head: Chunk, phrase: NounPhrase) -> None:
        assert self.negation is not None
        head.mark(*self._unwanted())
        if head.status == AVOIDED:
            self.scene.avoided.add(noun.name)
        for chunk in phrase.chunks():
            if not chunk.is_a("article"):
                chunk.mark(head.status, head.why)
            chunk.head = head
        self.relation = None

    def _unwanted(self) -> tuple[str, str]:
        """(status, why) of a noun that follows "no", "shaped like" or "for my". A dedication ends with it."""
        assert self.negation is not None
        if self.negation.is_a("comparison"):
            return LEFT_OUT, COMPARED
        if self.negation.is_a("dedication"):
            self.negation = None
            return LEFT_OUT, DEDICATED
        return AVOIDED, NOT_WANTED

    def leave_out_noun(self, head: Chunk) -> None:
        """A noun that nothing stands for, with all that was said of it."""
        phrase = self.take_phrase()
        head.mark(*((LEFT_OUT, NO_DRAWING) if self.negation is None else self._unwanted()))
        for chunk in phrase.chunks():
            chunk.mark(head.status, head.why)
            chunk.head = head
        self.relation = None

    def _relate(self, index: int) -> None:
        """A group was mentioned: it is the target of an open relation, and the subject of what follows."""
        self.last = index
        relation, self.relation = self.relation, None
        if relation is not None and relation.text == "of":
            self._put_inside(index, relation)
        elif relation is not None:
            concept = str(relation.meanings["relation"])
            if self.subject is None:
                self._awaiting.append(AskedRelation(concept, -1, index, relation))
                return
            self.scene.relations.append(AskedRelation(concept, self.subject, index, relation))
        elif self._awaiting:
            fronted = self._awaiting.pop()  # "on the right of the house there is a tree"
            if fronted.target != index:
                self.scene.relations.append(AskedRelation(fronted.concept, index, fronted.target, fronted.chunk))
        self.subject = index

    def _put_inside(self, index: int, of: Chunk) -> None:
        """ "a bowl of apples": the apples are inside."""
        holder = self.scene.groups[index - 1] if index else None
        if holder is not None and holder.head.text.removesuffix("s") in CONTAINERS:
            self.scene.relations.append(AskedRelation("inside", index, index - 1, of))

    # Where, when, how

    def _end_dedication(self) -> None:
        """Whom a thing is for is said before where it stands and how it is drawn: "for my mum on the beach"."""
        if self.negation is not None and self.negation.is_a("dedication"):
            self.negation = None

    def add_backdrop(self, chunk: Chunk) -> None:
        self._end_dedication()
        phrase = self.take_phrase()
        for other in (phrase.article, phrase.size, phrase.number, self.relation):
            if other is not None:
                other.head = chunk
        for other in phrase.others:
            other.mark(LEFT_OUT, UNKNOWN if other.is_a("unknown") else QUALITY)
        self.relation = None
        if self.negation is not None:
            chunk.mark(*self._unwanted())
        else:
            self.scene.backdrops.append(AskedBackdrop(chunk, phrase.color))

    def add_style(self, chunk: Chunk) -> None:
        self._end_dedication()
        self.drop_qualities()
        if self.negation is not None:
            chunk.mark(*self._unwanted())
            return
        for other in (self.relation, self.phrase.article):
            if other is not None:
                other.head = chunk
        self.relation = None
        self.scene.styles.append(chunk)

    def set_side(self, chunk: Chunk) -> None:
        """Where in the picture the last group stands."""
        self.flush()
        if self.scene.groups and self.subject is not None:
            self.scene.groups[self.last].side = chunk
        else:
            chunk.mark(LEFT_OUT, "a place in the picture cannot be chosen")

    # Clauses

    def end_clause(self) -> None:
        self.flush()
        self.subject = self.negation = self.relation = None

    def open_relation(self, chunk: Chunk) -> None:
        self.flush()
        self.negation = None
        self.relation = chunk

    def close_relation(self, chunk: Chunk) -> None:
        """ "a tree with presents underneath": of the last group to the one before."""
        self.flush()
        last = len(self.scene.groups) - 1
        if last > 0:
            self.scene.relations.append(AskedRelation(str(chunk.meanings["relation"]), last, last - 1, chunk))

    def join(self, chunk: Chunk, keeps_negation: bool) -> None:
        self.flush()
        if not keeps_negation:
            self.negation = None
        self.relation = self.subject = None
        self.scene.joins[len(self.scene.groups)] = chunk.text

    def negate(self, chunk: Chunk) -> None:
        """What follows is not wanted."""
        self.flush()
        self.negation, self.relation = chunk, None

    def avoid_last(self) -> None:
        """ "the knife isn't": what was named last is not wanted."""
        group = self.scene.groups.pop()
        self.last = -1
        group.head.mark(AVOIDED, NOT_WANTED)
        self.scene.avoided.add(group.noun.name)

    def take_back(self, previous: Chunk | None) -> None:
        """ "no, a cat", "no wait": what was said last does not count. `previous`: the phrase before."""
        self.flush()
        groups = self.scene.groups
        if previous is not None and previous.is_a("side", "relation"):
            self.relation = None
            if groups:
                groups[-1].side = None
            previous.mark(LEFT_OUT, TAKEN_BACK)
        elif groups:
            group = groups.pop()
            self.last = -1
            gone = len(groups)
            self.scene.relations = [r for r in self.scene.relations if gone not in (r.subject, r.target)]
            for chunk in (group.head, group.color, group.size):
                if chunk is not None:
                    chunk.mark(LEFT_OUT, TAKEN_BACK)
            self.scene.avoided.add(group.noun.name)
        self.subject = self.negation = None
