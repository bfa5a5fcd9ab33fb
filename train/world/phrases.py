"""Captions of scenes: synonyms, several articles, free word order.

`say` writes one caption. `world_vocabulary` lists PLACE_PHRASES and the other tables for a model folder, where an app
reads them as the names of places, times, weathers, styles and relations.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from train.world.arrangement import CONVERSE, PAINTED_STYLES, Group, WorldScene
from train.world.backdrops import COLOURS, COUNTRY, PLACE_NAMES, PLAIN
from train.world.scene_sampling import SHAPES
from train.world.thing_table import WorldThing

NUMBERS = {1: ("one", "1", "a single"), 2: ("two", "2", "a pair of", "a couple of"), 3: ("three", "3"),
           4: ("four", "4"), 5: ("five", "5"), 6: ("six", "6", "half a dozen")}  # fmt: skip
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge", "giant")}
COLOUR_WORDS = {"gray": ("gray", "grey"), "gold": ("gold", "golden")}
PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "beach": ("on the beach", "at the beach", "by the sea", "on a sandy beach"),
    "meadow": ("in a meadow", "on the grass", "in a green field", "on the lawn"),
    "forest": ("in the forest", "in a forest", "in the woods", "among the trees"),
    "jungle": ("in the jungle", "in a rainforest"),
    "pine forest": ("in a pine forest", "among pine trees"),
    "mountains": ("in the mountains", "in front of mountains", "in the alps"),
    "desert": ("in the desert", "in a desert", "among sand dunes"),
    "savanna": ("on the savanna", "in africa", "on the plains"),
    "farm": ("on a farm", "at the farm"),
    "garden": ("in the garden", "in a garden", "in the backyard"),
    "field of flowers": ("in a field of flowers", "among flowers"),
    "park": ("in the park", "in a park"),
    "village": ("in a village", "in the village", "in a small town"),
    "street": ("on the street", "in the street", "on a busy street"),
    "city": ("in the city", "in a city", "in front of skyscrapers"),
    "road": ("on the road", "on a road", "on a country road"),
    "lake": ("on a lake", "at the lake", "by a lake"),
    "river": ("on a river", "by the river", "at a river"),
    "sea": ("on the sea", "on the ocean", "on the open sea", "at sea"),
    "harbor": ("in the harbor", "in a harbor", "at the port"),
    "swamp": ("in a swamp", "in the swamp"),
    "arctic": ("in the arctic", "at the north pole", "on the ice"),
    "volcano": ("at a volcano", "in front of a volcano"),
    "canyon": ("in a canyon", "in the canyon", "in the wild west"),
    "graveyard": ("in a graveyard", "at the cemetery"),
    "stadium": ("in a stadium", "on a football field"),
    "playground": ("on a playground", "at the playground"),
    "moon": ("on the moon", "on the surface of the moon"),
    "mars": ("on mars", "on the red planet"),
    "space": ("in space", "in outer space", "among the stars"),
    "sky": ("in the sky", "in the clouds", "up in the air"),
    "underwater": ("under water", "underwater", "at the bottom of the sea", "in the ocean"),
    "cave": ("in a cave", "in the cave"),
    "living room": ("in the living room", "in a living room", "at home"),
    "kitchen": ("in the kitchen", "in a kitchen"),
    "bedroom": ("in the bedroom", "in a bedroom"),
    "bathroom": ("in the bathroom", "in a bathroom"),
    "classroom": ("in a classroom", "at school"),
    "office": ("in an office", "in the office", "at work"),
    "library": ("in the library", "in a library"),
    "museum": ("in a museum", "in the museum"),
    "stage": ("on a stage", "on the stage", "in a theater"),
    "restaurant": ("in a restaurant", "in a cafe"),
    "supermarket": ("in a supermarket", "in a shop"),
    "garage": ("in a garage", "in the garage"),
}
TIME_PHRASES = {
    "night": ("at night", "by night", "under the stars", "under a night sky"),
    "sunset": ("at sunset", "in the evening", "at dusk"),
    "sunrise": ("at sunrise", "in the morning", "at dawn"),
}
WEATHER_PHRASES = {
    "rain": ("in the rain", "on a rainy day", "while it rains"),
    "snow": ("in the snow", "on a snowy day", "in winter"),
    "fog": ("in the fog", "on a foggy day", "in the mist"),
    "storm": ("in a storm", "in a thunderstorm"),
    "clouds": ("on a cloudy day", "under a cloudy sky"),
}
WALL_PHRASES = ("on a {c} background", "on {c}", "in front of a {c} wall", "with a {c} background")
STYLE_BEFORE = {
    "flat": ("a flat drawing of", "a cartoon of", "a flat icon of"),
    "pixel art": ("pixel art of", "a pixel art picture of", "an eight bit picture of"),
    "sketch": ("a pencil sketch of", "a sketch of", "a pencil drawing of"),
    "silhouette": ("a silhouette of", "the silhouette of", "the shadow of"),
    "3d": ("a 3d picture of", "a 3d render of"),
}
STYLE_AFTER = {
    "flat": ("in flat style", "in cartoon style"),
    "pixel art": ("in pixel art", "as pixel art", "in pixel style"),
    "sketch": ("as a pencil sketch", "drawn in pencil", "as a sketch"),
    "silhouette": ("as a silhouette", "in silhouette"),
    "3d": ("in 3d", "in 3d style"),
}
OPENINGS = ("a photo of", "a picture of", "draw", "draw me", "show me", "an image of", "i want to see", "there is",
            "i see", "paint", "please draw", "a drawing of")  # fmt: skip
RELATION_PHRASES = {
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath", "underneath"),
    "next to": ("next to", "beside", "near", "by the side of"),
    "in front of": ("in front of", "before"),
    "behind": ("behind", "in back of"),
    "on": ("on", "on top of", "standing on"),
    "inside": ("in", "inside", "inside of"),
}


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def with_article(phrase: str) -> str:
    """The phrase with its article, which depends on the sound: "an apple", "a unicorn"."""
    vowel = phrase[0] in "aeio" or (phrase[0] == "u" and not phrase.startswith(("uni", "ufo", "use")))
    return ("an " if vowel else "a ") + phrase


def pluralized(noun: str) -> str:
    """The plural of a synonym by the rules of English, also of phrases: "pairs of x" of "pair of x", and "people
    surfing" of "person surfing"."""
    if "person" in noun.split():
        return noun.replace("person", "people")
    joint = next((word for word in (" of ", " for ", " with ") if word in noun), " of ")
    head, of, tail = noun.partition(joint)
    if head.endswith(("s", "x", "sh", "ch")):
        plural = head + "es"
    elif head.endswith("y") and head[-2] not in "aeiou":
        plural = head[:-1] + "ies"
    elif head.endswith("man"):
        plural = head[:-2] + "en"
    else:
        plural = head + "s"
    return plural + of + tail


def names_of(thing: WorldThing) -> dict[str, str]:
    """{name of a thing: its plural}."""
    return {thing.name: thing.plural} | {synonym: pluralized(synonym) for synonym in thing.synonyms}


def _noun(group: Group, rng: np.random.Generator) -> str:
    thing, plural = group.thing, group.count > 1
    synonyms = [s for s in thing.synonyms if not (group.colour and s.split()[0] in COLOURS)]
    if synonyms and rng.random() < 0.3:
        synonym = _pick(synonyms, rng)
        return pluralized(synonym) if plural else synonym
    return thing.plural if plural else thing.name


def say_group(group: Group, rng: np.random.Generator, definite: bool = False) -> str:
    """The phrase of a group: "two small blue cats", "an apple"; "the apple" where `definite`."""
    words = [_pick(SIZE_WORDS[group.word], rng)] if group.word else []
    if group.colour:
        words.append(_pick(COLOUR_WORDS.get(group.colour, (group.colour,)), rng))
    phrase = " ".join([*words, _noun(group, rng)])
    if group.count == 1:
        if definite:
            return f"the {phrase}"
        if rng.random() < 0.08:
            return f"{_pick(NUMBERS[1], rng)} {phrase}"
        return with_article(phrase)
    number = _pick(NUMBERS[group.count][: 2 if rng.random() < 0.75 else None], rng)
    return f"the {number} {phrase}" if definite and not number.startswith(("a ", "half")) else f"{number} {phrase}"


def _listed(phrases: list[str], rng: np.random.Generator) -> str:
    """The phrases as a list: "a cat", "a cat and a dog", "a cat, a dog and an owl"."""
    if len(phrases) == 1:
        return phrases[0]
    if len(phrases) == 2:
        return f"{phrases[0]} {_pick(('and', 'and', 'with'), rng)} {phrases[1]}"
    return _pick((", ", " and "), rng).join(phrases[:-1]) + " and " + phrases[-1]


def _what(scene: WorldScene, rng: np.random.Generator) -> str:
    """The part of a caption that names the things and their relation."""
    groups, relation = list(scene.groups), scene.relation
    if not relation:
        order = rng.permutation(len(groups)) if rng.random() < 0.5 else range(len(groups))
        return _listed([say_group(groups[i], rng, rng.random() < 0.06) for i in order], rng)
    a, b = groups[:2]
    if relation in CONVERSE and rng.random() < 0.3:
        a, b, relation = b, a, CONVERSE[relation]
    first = say_group(a, rng, rng.random() < 0.15)
    second = say_group(b, rng, rng.random() < 0.4)
    others = [say_group(group, rng) for group in groups[2:]]
    sides = {"left of": ("left", "right"), "right of": ("right", "left")}.get(relation)
    if sides and not others and rng.random() < 0.15:
        return f"{first} on the {sides[0]} and {second} on the {sides[1]}"
    verb = _pick(("", "", "", "is "), rng) if first.startswith("the ") else ""
    return _listed([f"{first} {verb}{_pick(RELATION_PHRASES[relation], rng)} {second}", *others], rng)


def _where(scene: WorldScene, rng: np.random.Generator) -> str:
    """The part of a caption that names the place, the time and the weather; "" for a plain wall."""
    if scene.backdrop == PLAIN:
        return ""
    if scene.backdrop in COLOURS:
        colour = _pick(COLOUR_WORDS.get(scene.backdrop, (scene.backdrop,)), rng)
        return _pick(WALL_PHRASES, rng).format(c=colour).replace(" a orange", " an orange")
    parts = [] if scene.backdrop == COUNTRY else [_pick(PLACE_PHRASES[scene.backdrop], rng)]
    if scene.time != "day":
        parts.append(_pick(TIME_PHRASES[scene.time], rng))
    if scene.weather != "clear":
        parts.append(_pick(WEATHER_PHRASES[scene.weather], rng))
    if len(parts) > 1 and rng.random() < 0.3:
        parts = [parts[i] for i in rng.permutation(len(parts))]
    return " ".join(parts)


def say(scene: WorldScene, rng: np.random.Generator) -> str:
    """A lower-case sentence that names everything in the scene's request."""
    what, where = _what(scene, rng), _where(scene, rng)
    style = scene.style if scene.style != "3d" or rng.random() < 0.05 else ""
    opening = _pick(OPENINGS, rng) if rng.random() < 0.22 else ""
    if style and rng.random() < 0.55:
        opening, style = _pick(STYLE_BEFORE[style], rng), ""
    after = _pick(STYLE_AFTER[style], rng) if style else ""
    if where and rng.random() < 0.12:
        return " ".join(part for part in (where + _pick(("", ","), rng), opening, what, after) if part)
    what = f"{opening} {what}".strip()
    parts = [what, after, where] if after and rng.random() < 0.3 else [what, where, after]
    return " ".join(part for part in parts if part)


@cache
def frame_words() -> frozenset[str]:
    """The words of the grammar that are not names of things."""
    phrases: list[str] = [*OPENINGS, *COLOURS, "grey", "golden", "a an the and with is on the left right background"]
    tables = (NUMBERS, SIZE_WORDS, PLACE_PHRASES, TIME_PHRASES, WEATHER_PHRASES, STYLE_BEFORE, STYLE_AFTER,
              RELATION_PHRASES)  # fmt: skip
    phrases += [phrase for table in tables for options in table.values() for phrase in options]
    phrases += [phrase.format(c="red") for phrase in WALL_PHRASES]
    return frozenset(word for phrase in phrases for word in phrase.split())


def world_vocabulary(things: Sequence[WorldThing], cell: int) -> dict:
    """The contents of `vocabulary.json` of a model of these things. `cell`: pixels of a cell's side."""
    nouns = {word for t in things for pair in names_of(t).items() for name in pair for word in name.split()}
    return {
        "objects": [{"name": t.name, "plural": t.plural, "synonyms": list(t.synonyms)} for t in things],
        "backgrounds": [*({"name": c, "say": [f"on a {c} background"]} for c in COLOURS),
                        *({"name": p, "say": list(PLACE_PHRASES[p])} for p in PLACE_NAMES if p != COUNTRY),
                        *({"name": t, "say": list(TIME_PHRASES[t])} for t in TIME_PHRASES),
                        *({"name": w, "say": list(WEATHER_PHRASES[w])} for w in WEATHER_PHRASES)],
        "styles": [{"name": s, "say": [*STYLE_BEFORE[s], *STYLE_AFTER[s]], "colourless": s not in PAINTED_STYLES}
                   for s in STYLE_BEFORE],
        "counts": list(NUMBERS),
        "relations": [phrase for options in RELATION_PHRASES.values() for phrase in options],
        "colours": [*COLOURS, "grey", "golden"],
        "sizes": [[columns * cell, rows * cell] for columns, rows in SHAPES],
        "words": sorted(frame_words() | nouns),
        "aliases": {},
        "examples": ["a dragon above a castle at sunset", "two cats and three dogs on the beach", "a golden crown",
                     "a doctor in front of a house in the snow", "a cat on a couch in the living room",
                     "pixel art of a robot on mars", "a pencil sketch of an old man"],
    }  # fmt: skip
