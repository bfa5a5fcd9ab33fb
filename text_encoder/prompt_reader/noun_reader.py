"""Reads a run of nouns, of which the last is meant, with what stands around it that changes what is drawn."""

from text_encoder.prompt_reader import reasons
from text_encoder.prompt_reader.asides import LOOKAHEAD
from text_encoder.prompt_reader.lexicon import BACKDROPS, NOUNS, QUALITIES, Chunk, NounMeaning
from text_encoder.prompt_reader.phrase_view import PhraseView
from text_encoder.prompt_reader.prompt_reading import AVOIDED, LANGUAGE, LEFT_OUT
from text_encoder.prompt_reader.scene_builder import SceneBuilder


class NounReader:
    """Reads the nouns of one prompt into its scene.

    `takes_modifiers`: of a noun that cannot be drawn, one that describes it is drawn: the football of "a football
    player".
    """

    def __init__(self, view: PhraseView, builder: SceneBuilder, takes_modifiers: bool):
        self.view, self.chunks, self.builder = view, view.chunks, builder
        self.takes_modifiers = takes_modifiers

    def read(self, at: int) -> int:
        """Read the run of nouns at `at`; returns how many phrases that took."""
        end = at + 1
        while end < len(self.chunks) and self.view.continues(end):
            end += 1
        run, head = self.chunks[at:end], self.chunks[end - 1]
        for chunk in run[:-1]:
            chunk.mark(LEFT_OUT, reasons.ACTION if chunk.is_a("verb") else reasons.MODIFIER)
            if _same_thing(chunk, head):  # "a kitty cat"
                chunk.mark(LANGUAGE)
        if taken := self._by_what_follows(at, end):
            return taken
        if head.is_name and not head.is_a("thing") and at and self.chunks[at - 1].is_a("thing"):
            head.mark(LEFT_OUT, reasons.UNKNOWN)  # "my dog Max"
        elif head.is_a("thing"):
            self.builder.add_thing(head)
        elif self.takes_modifiers and any(chunk.is_a("thing") for chunk in run):
            return self._modifier(at, end)
        elif head.is_a("noun"):
            if not (head.is_a("part") and self.builder.take_part(head)):
                self.builder.leave_out_noun(head)
        else:
            self._place(at, end)
        if head.status in (LEFT_OUT, AVOIDED):
            for chunk in run[:-1]:
                chunk.mark(head.status, head.why)
        return len(run)

    def part_of(self, at: int) -> int:
        """ "the head of a lion" is a lion: read "the head of"."""
        for chunk in (*self.builder.take_phrase().chunks(), self.chunks[at]):
            chunk.mark(LEFT_OUT, reasons.PART)
        return 2

    def _by_what_follows(self, at: int, end: int) -> int:
        """How many phrases a run takes whose nouns are not what is meant, by the phrase behind it; 0 for any other."""
        following, head = self.view.next(end - 1), self.chunks[end - 1]
        if following is None:
            return 0
        if self._colors_the_next(following, end):
            head.mark(LEFT_OUT, reasons.MODIFIER)
            return end - at
        if following.is_a("possessive"):
            return self._owner(at, end)
        if following.is_a("suffix") and self._is_before_thing(end):  # "a heart shaped balloon"
            for chunk in self.chunks[at : end + 1]:
                chunk.mark(LEFT_OUT, reasons.COMPARED)
            return end + 1 - at
        if following.is_a("privative") and self._is_privative(end):  # "a dog-free park"
            self.builder.exclude(head)
            following.head = head
            return end + 1 - at
        return 0

    def _modifier(self, at: int, end: int) -> int:
        """Take the last thing of a run that cannot be drawn otherwise."""
        for chunk in self.chunks[at:end]:
            chunk.mark(LEFT_OUT, reasons.NO_DRAWING)
        self.builder.add_thing(next(chunk for chunk in reversed(self.chunks[at:end]) if chunk.is_a("thing")))
        return end - at

    def _place(self, at: int, end: int) -> None:
        """A place; things that describe it are drawn there: "a sunflower field"."""
        phrase = self.builder.take_phrase()
        for chunk in self.chunks[at : end - 1]:
            noun = chunk.meanings.get("thing")
            if isinstance(noun, NounMeaning) and self.builder.exclusion is None:
                self.builder.phrase.several = True
                self.builder.phrase.color, phrase.color = phrase.color, None
                relation, self.builder.relation = self.builder.relation, None
                self.builder.add_thing(chunk)
                self.builder.relation = relation
        self.builder.phrase = phrase
        self.builder.add_backdrop(self.chunks[end - 1])

    def _colors_the_next(self, color: Chunk, at: int) -> bool:
        """Whether a noun says which color another noun has: "a pea green boat"."""
        phrase = self.builder.phrase
        is_open = phrase.article is not None or phrase.number is not None
        return is_open and color.is_a("color") and not color.is_a("thing", "background") and self.view.describes(at)

    def _is_before_thing(self, at: int) -> bool:
        """Whether "shaped" stands before something that is drawn: "a heart shaped balloon"."""
        end = at + 1
        while end < min(len(self.chunks), at + LOOKAHEAD) and self.chunks[end].is_a(*QUALITIES, *NOUNS):
            end += 1
        return self.chunks[end - 1].is_a("thing")

    def _owner(self, at: int, end: int) -> int:
        """ "the cat's ball" is a ball; of what cannot be drawn without it the owner is drawn: "a cat's head"."""
        owner, owned = self.chunks[end - 1], end + 1
        while owned < min(len(self.chunks), end + LOOKAHEAD) and self.chunks[owned].is_a(*QUALITIES):
            owned += 1
        last = owned
        while last < len(self.chunks) and last < end + LOOKAHEAD and self._goes_on(last, owned):
            last += 1
        is_drawn = last > owned and self.chunks[last - 1].is_a("thing", "place")
        if is_drawn or not owner.is_a("thing"):
            owner.mark(LEFT_OUT, reasons.OWNER)
            self.builder.phrase.article = self.builder.phrase.number = None
            return end + 1 - at
        self.builder.add_thing(owner)
        for chunk in self.chunks[end + 1 : last]:
            chunk.mark(LEFT_OUT, reasons.PART if self.chunks[last - 1].is_a("part") else reasons.NO_DRAWING)
        return last - at

    def _goes_on(self, at: int, start: int) -> bool:
        return self.chunks[at].is_a(*NOUNS, "part", "place") if at == start else self.view.continues(at)

    def _is_privative(self, at: int) -> bool:
        """Whether "free" says what a place or thing is without: behind a hyphen, or before another noun."""
        following = self.view.next(at)
        return self.chunks[at].text == "-free" or (following is not None and following.is_a(*NOUNS, *BACKDROPS))


def _same_thing(one: Chunk, other: Chunk) -> bool:
    """Whether two nouns are drawn alike."""
    meanings = (one.meanings.get("thing"), other.meanings.get("thing"))
    names = [meaning.name for meaning in meanings if isinstance(meaning, NounMeaning)]
    return len(names) == 2 and names[0] == names[1]
