"""The phrases of a prompt with what stands around each: what a quality describes, and whether a word is a verb."""

from collections.abc import Sequence

from text_encoder.prompt_reader.asides import LOOKAHEAD
from text_encoder.prompt_reader.lexicon import NOUNS, QUALITIES, Chunk

MOSTLY_VERB = "b"  # the class of words that are seldom nouns


class PhraseView:
    """Questions about the phrases of one prompt by their place."""

    def __init__(self, chunks: Sequence[Chunk]):
        self.chunks = chunks
        self.questions: list[bool] = []  # whether an auxiliary verb began the clause: "can a penguin fly"
        self.requests: list[bool] = []  # whether the sentence asks for a picture before this place: "draw a cat"
        is_question = is_request = False
        for chunk in chunks:
            self.questions.append(is_question)
            self.requests.append(is_request)
            is_question = not chunk.is_a("mark") and (is_question or chunk.is_a("auxiliary"))
            is_request = chunk.text != "." and (is_request or chunk.is_a("request"))

    def next(self, at: int) -> Chunk | None:
        return self.chunks[at + 1] if at + 1 < len(self.chunks) else None

    def precedes_of(self, at: int) -> bool:
        following = self.next(at)
        return following is not None and following.text == "of"

    def describes(self, at: int, needs_noun: bool = True, commas: bool = False) -> bool:
        """Whether a quality stands before a noun: between them are only other qualities, "and" among colors. `commas`:
        commas before qualities, too."""
        for place, chunk in enumerate(self.chunks[at + 1 : at + 1 + LOOKAHEAD], at + 1):
            if chunk.is_a(*NOUNS, "place", "picture") and not chunk.is_a("background"):
                return True
            joins = chunk.text in ("and", "or") and chunk.is_a("join")
            if commas and chunk.text == "," and self.is_quality(place + 1):
                continue
            if not (joins or chunk.is_a(*QUALITIES, "number", "style", "possessive")) or (joins and not needs_noun):
                return False
        return False

    def is_quality(self, at: int) -> bool:
        return at < len(self.chunks) and self.chunks[at].is_a(*QUALITIES) and not self.chunks[at].is_a(*NOUNS)

    def modifies(self, at: int) -> bool:
        """Whether a noun stands right behind, so that this one only describes it: "a beach ball"."""
        following = self.next(at)
        return following is not None and following.is_a(*NOUNS) and not self.is_verb(at + 1)

    def is_verb(self, at: int) -> bool:
        """Whether a word that can be a verb is one: right after a noun, or before an article. One without an ending is
        a verb behind a thing: "a penguin fly"; one that is mostly a noun only in a question."""
        chunk, before, following = self.chunks[at], self.chunks[at - 1] if at else None, self.next(at)
        if chunk.is_a("base verb") and not chunk.is_a("thing"):
            can_be = self.questions[at] or chunk.meanings["base verb"] == MOSTLY_VERB
            return can_be and before is not None and before.is_a("thing")
        if chunk.is_a("thing") or not chunk.is_a("verb"):
            return False
        after_noun = before is not None and before.is_a(*NOUNS, "verb")
        starts = before is None or before.is_a("mark", "join", "article", "number", "relation", *QUALITIES)
        return after_noun or (not starts and following is not None and following.is_a("article", "number"))

    def continues(self, at: int) -> bool:
        """Whether a phrase goes on with a run of nouns. Each emoji is a noun of its own."""
        chunk = self.chunks[at]
        before = self.chunks[at - 1]
        if chunk.is_a("style said", "background", "relation", "join", "negation") or chunk.emoji != before.emoji:
            return False
        if chunk.is_name and before.is_a("thing"):
            return False
        if chunk.is_a(*NOUNS):
            return chunk.is_a("thing") or not (self.is_verb(at) or chunk.is_a("color"))
        return chunk.is_a("place") and not chunk.is_a("time", "weather", "adverbial")
