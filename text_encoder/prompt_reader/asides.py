"""Looks ahead in the phrases of a prompt for words that are no part of the scene: who is spoken to, what the picture is
drawn with, and lists of what is not wanted."""

from collections.abc import Sequence

from text_encoder.prompt_reader.lexicon import BACKDROPS, NOUNS, QUALITIES, Chunk

LOOKAHEAD = 40  # phrases within which something is looked for
PRONOUNS = frozenset("it them him her this that these those".split())
POLITE = (",", "please", "can you", "could you", "would you", "will you")
SINGLE = frozenset("no not never zero 0".split())  # these exclude one thing; "without" and others a whole list


def addressee_end(chunks: Sequence[Chunk], at: int) -> int:
    """The place behind a noun at the beginning of a sentence that names who shall draw: "computer, draw a cat"; `at`
    where there is none."""
    end = at
    while end < min(len(chunks), at + LOOKAHEAD) and chunks[end].is_a(*NOUNS, "unknown"):
        end += 1
    asks = end
    while asks < min(len(chunks), end + LOOKAHEAD) and chunks[asks].text in POLITE:
        asks += 1
    if end == at or asks + 1 >= len(chunks) or not chunks[asks].is_a("request"):
        return at
    asked = chunks[asks + 1]
    return at if asked.is_a("mark") or asked.text.split()[0] in PRONOUNS else end


def tool_at(chunks: Sequence[Chunk], at: int) -> int:
    """The place of what a picture is drawn with, where "with" stands at `at`: "draw a cat with a pencil"; -1: none."""
    end = at + 1
    while end < len(chunks) and chunks[end].is_a("article", "number", "color", "adjective"):
        end += 1
    if end >= min(len(chunks), at + LOOKAHEAD) or not chunks[end].is_a("instrument"):
        return -1
    following = chunks[end + 1] if end + 1 < len(chunks) else None
    return -1 if following is not None and following.is_a("relation", "join", "possessive", *NOUNS) else end


def list_goes_on(chunks: Sequence[Chunk], at: int, exclusion: str, has_wanted: bool) -> bool:
    """Whether what is not wanted goes on behind the comma at `at`; `exclusion`: its first words.

    Behind "without" and the like bare nouns go on with it where something wanted was named before (`has_wanted`);
    behind "no" only those of a list that ends in "or": "a cat, no dogs, cars or people".
    """
    place = first = _bare_noun_end(chunks, at + 1)
    while place and place < min(len(chunks), at + LOOKAHEAD):
        if chunks[place].text in ("or", "nor"):
            return True
        if chunks[place].text != ",":
            break
        if place + 1 < len(chunks) and chunks[place + 1].text in ("or", "nor"):
            return True
        place = _bare_noun_end(chunks, place + 1)
    return bool(first) and has_wanted and exclusion not in SINGLE


def _bare_noun_end(chunks: Sequence[Chunk], at: int) -> int:
    """The place behind a noun without article and number, "red cars", that begins at `at`; 0 for none."""
    end = at
    while end < min(len(chunks), at + LOOKAHEAD) and chunks[end].is_a(*QUALITIES, *NOUNS):
        end += 1
    return end if end > at and chunks[end - 1].is_a(*NOUNS) and not chunks[at].is_a("background", *BACKDROPS) else 0
