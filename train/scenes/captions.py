"""Captions of scenes: a grammar with synonyms and free word order.

`caption` writes a caption of one scene. `sentences` writes many, for vocabularies and for speech. `known_words` are all
words that the grammar uses.
"""

from collections import Counter
from functools import cache

import numpy as np

from train.scenes.scene import COLOURS, PAINTED_STYLES, PLACES, PLAIN, SIZES, Scene, random_scene
from train.scenes.sprites import Thing, things

NUMBERS = {1: ("a", "one"), 2: ("two", "a pair of", "a couple of"), 3: ("three",), 4: ("four",)}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
PLACE_PHRASES = {
    "beach": ("on the beach", "at the beach", "by the sea", "on a sandy beach"),
    "meadow": ("on the grass", "in a meadow", "in a green field", "on the lawn"),
    "snow": ("in the snow", "on a snowy day", "in winter"),
    "night": ("at night", "under the stars", "in the dark", "under a night sky"),
    "sunset": ("at sunset", "in the evening", "at dusk"),
    "underwater": ("under water", "underwater", "at the bottom of the sea", "in the ocean"),
    "desert": ("in the desert", "on a sand dune", "among dunes"),
    "sky": ("in the sky", "in the clouds", "up in the air"),
    "space": ("in space", "in outer space", "among the stars"),
    "forest": ("in the forest", "in the woods", "among trees"),
}
COLOUR_PHRASES = ("on a {c} background", "on {c}", "in front of a {c} wall", "with a {c} background")
STYLE_BEFORE = {
    "flat": ("a flat drawing of", "a cartoon of", "a flat icon of"),
    "pixel art": ("pixel art of", "a pixel art picture of", "an eight bit picture of"),
    "sketch": ("a pencil sketch of", "a sketch of", "a pencil drawing of"),
    "silhouette": ("a silhouette of", "the silhouette of", "the shadow of"),
    "3d": ("a 3d picture of", "a three d render of", "a 3d render of"),
}
STYLE_AFTER = {
    "flat": ("in flat style", "in cartoon style"),
    "pixel art": ("in pixel art", "as pixel art", "in pixel style"),
    "sketch": ("as a pencil sketch", "drawn in pencil", "as a sketch"),
    "silhouette": ("as a silhouette", "in silhouette"),
    "3d": ("in 3d", "in 3d style"),
}
OPENINGS = ("a picture of", "draw", "draw me", "show me", "an image of", "i want to see", "there is", "i see", "paint")
RELATION_PHRASES = {
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath", "underneath"),
}
MIRROR = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
JOIN = ("and", "with", "next to", "beside")
MEANS_ANOTHER_THING = frozenset("mouse mice bat bats board boards light lights".split())  # than such a name
KINDS = {
    "bird": "parrot", "bug": "ladybug", "flower": "tulip", "fruit": "apple", "insect": "ladybug", "ship": "sailboat",
    "toy": "teddy bear", "vegetable": "carrot", "vehicle": "car",
}  # fmt: skip


def _pick(options, rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def article(noun: str) -> str:
    """The noun with its article, which depends on the sound: "an apple", "a unicorn"."""
    vowel = noun[0] in "aeio" or (noun[0] == "u" and not noun.startswith(("uni", "ufo", "use")))
    return ("an " if vowel else "a ") + noun


def _noun(thing: Thing, plural: bool, colour: str, rng: np.random.Generator) -> str:
    """A name of the thing, after its colour if it was given one: its first name two times in three, else a synonym.
    With a colour, no synonym that names a colour itself."""
    before = colour + " " if colour else ""
    synonyms = [s for s in thing.synonyms if not colour or s.split()[0] not in COLOURS]
    if synonyms and rng.random() < 0.33:
        synonym = _pick(synonyms, rng)
        if not plural:
            return before + synonym
        if plural_form := _several(synonym):
            return before + plural_form
    return before + (thing.plural if plural else thing.name)


def _several(synonym: str) -> str:
    """The plural of a synonym that takes an s; "" for any other."""
    head, of, tail = synonym.partition(" of ")
    return "" if not of and head.endswith(("s", "x", "sh", "ch", "y")) else f"{head}s{of}{tail}"


def group_phrase(thing: Thing, count: int, word: str, rng: np.random.Generator, colour: str = "") -> str:
    """The phrase of a group, such as "two small blue cats" or "an apple". `word`: its size word, or ""."""
    size = _pick(SIZE_WORDS[word], rng) + " " if word else ""
    noun = size + _noun(thing, count > 1, colour, rng)
    number = _pick(NUMBERS[count], rng) if count > 1 or rng.random() < 0.15 else "a"
    return article(noun) if number == "a" else f"{number} {noun}"


def _what(scene: Scene, rng: np.random.Generator) -> str:
    """The part of a caption that names the things and their relation."""
    """The part of a caption that names the things and their relation."""
    groups = list(scene.groups)
    words: dict[Thing, str] = {item.thing: item.word for item in scene.items}
    phrases = [group_phrase(t, n, words[t], rng, scene.colours[t]) for t, n in groups]
    if len(phrases) == 1:
        return phrases[0]
    if len(phrases) > 2:
        rng.shuffle(phrases)
        return " and ".join(phrases) if rng.random() < 0.5 else f"{' '.join(phrases[:-1])} and {phrases[-1]}"
    first, second = phrases
    relation = scene.relation
    if not relation:
        if rng.random() < 0.5 and len(scene.items) > 2:
            first, second = second, first
        return f"{first} {_pick(JOIN, rng)} {second}"
    if rng.random() < 0.35:
        first, second, relation = second, first, MIRROR[relation]
    side = {"left of": "on the left", "right of": "on the right"}.get(relation)
    other = {"left of": "on the right", "right of": "on the left"}.get(relation)
    if side and rng.random() < 0.2:
        return f"{first} {side} and {second} {other}"
    return f"{first} {_pick(RELATION_PHRASES[relation], rng)} {second}"


def _where(scene: Scene, rng: np.random.Generator) -> str:
    """The part of a caption that names the background; "" for a plain one."""
    """The part of a caption that names the background; "" for a plain one."""
    if scene.background == PLAIN:
        return ""
    if scene.background in COLOURS:
        colour = scene.background
        return _pick(COLOUR_PHRASES, rng).format(c=colour).replace(" a orange", " an orange")
    return _pick(PLACE_PHRASES[scene.background], rng)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A lower-case sentence without punctuation that names everything the scene was sampled with."""
    what, where = _what(scene, rng), _where(scene, rng)
    style = scene.style if scene.style != "3d" or rng.random() < 0.06 else ""
    if style and rng.random() < 0.55:
        what = f"{_pick(STYLE_BEFORE[style], rng)} {what}"
        style = ""
    after = _pick(STYLE_AFTER[style], rng) if style else ""
    u = rng.random()
    if where and u < 0.15:
        return " ".join(p for p in (where, what, after) if p)
    if u > 0.8:
        what = f"{_pick(OPENINGS, rng)} {what}"
    parts = [what, after, where] if after and rng.random() < 0.3 else [what, where, after]
    return " ".join(p for p in parts if p)


def sentences(n: int, seed: int) -> list[str]:
    """n captions of scenes that are not held out."""
    rng = np.random.default_rng([seed, 4242])
    sizes = list(SIZES)
    return [caption(random_scene(rng, *sizes[int(rng.integers(len(sizes)))]), rng) for _ in range(n)]


@cache
def grammar_words() -> frozenset[str]:
    """The words of the grammar that are not names of things."""
    phrases: list[str] = [*OPENINGS, *JOIN, *COLOURS, "background", "an", "the", "left", "right"]
    for table in (NUMBERS, SIZE_WORDS, PLACE_PHRASES, STYLE_BEFORE, STYLE_AFTER, RELATION_PHRASES):
        phrases += [p for options in table.values() for p in options]
    phrases += [p.format(c="red") for p in COLOUR_PHRASES]
    phrases += ["on the left", "on the right"]
    return frozenset(word for phrase in phrases for word in phrase.split())


def spoken_names(thing: Thing) -> tuple[str, ...]:
    """All names that captions give to a thing, in the singular and the plural."""
    return thing.name, thing.plural, *thing.synonyms, *filter(None, map(_several, thing.synonyms))


@cache
def known_words() -> frozenset[str]:
    """Every word that the grammar uses."""
    return grammar_words() | {word for thing in things() for name in spoken_names(thing) for word in name.split()}


def _lone_words() -> dict[str, str]:
    """{word that the grammar uses only at the end of longer names: the name that it stands for}, as "tree": "pine
    tree".

    Of several names it is one of the thing that has most of them. Words of MEANS_ANOTHER_THING are left out: a mouse is
    not a computer mouse.
    """
    names = [(thing, name.split()) for thing in things() for name in spoken_names(thing)]
    longer = {words[-1] for _, words in names if len(words) > 1}  # also "trees", of the phrase "among trees"
    single = grammar_words() - longer | {words[0] for _, words in names if len(words) == 1}
    ending = {word: [] for _, words in names for word in words if word not in single}
    for thing, words in names:
        if words[-1] in ending and "of" not in words and words[-1] not in MEANS_ANOTHER_THING:
            ending[words[-1]].append((thing, " ".join(words)))
    meant = {word: Counter(thing for thing, _ in found).most_common(1) for word, found in ending.items()}
    return {
        word: next(name for thing, name in found if thing == meant[word][0][0])
        for word, found in ending.items()
        if found
    }


def _others() -> dict[str, str]:
    """{word that the grammar does not use: the name that it stands for}: kinds of things, and plurals of synonyms that
    do not take an s, such as puppies."""
    plurals = {thing.name: thing.plural for thing in things()}
    found = dict(KINDS) | {f"{kind}s": plurals[name] for kind, name in KINDS.items()}
    for thing in things():
        for synonym in thing.synonyms:
            if not (" " in synonym or synonym.endswith("s") or _several(synonym)):
                plain = synonym[:-1] + "ies" if synonym.endswith("y") else synonym + "es"
                found |= {plain: thing.plural, synonym + "s": thing.plural}  # the bundled recognizer writes puppys
    return {word: name for word, name in found.items() if word not in known_words()}


def vocabulary(scale: int = 1) -> dict:
    """The contents of `vocabulary.json` of a model folder: what the model can draw, in pictures of `scale` times the
    size of scenes."""
    return {
        "objects": [{"name": t.name, "plural": t.plural, "synonyms": list(t.synonyms)} for t in things()],
        "backgrounds": [
            *({"name": c, "say": [f"on a {c} background"]} for c in COLOURS),
            *({"name": p, "say": list(PLACE_PHRASES[p])} for p in PLACES),
        ],
        "styles": [
            {"name": s, "say": [*STYLE_BEFORE[s], *STYLE_AFTER[s]], "colourless": s not in PAINTED_STYLES}
            for s in STYLE_BEFORE
        ],
        "counts": [1, 2, 3, 4],
        "relations": [p for options in RELATION_PHRASES.values() for p in options],
        "colours": list(COLOURS),  # of things
        "sizes": [[width * scale, height * scale] for width, height in SIZES],
        "words": sorted(known_words()),
        "aliases": dict(sorted((_lone_words() | _others()).items())),
        "examples": [
            "two cats on the beach",
            "a red apple",
            "an owl at night",
            "a penguin in the snow",
            "a fox to the left of a castle",
            "a blue cat and a red dog",
            "three balloons in the sky",
            "a pencil sketch of a dog",
            "pixel art of a robot on a blue background",
        ],
    }
