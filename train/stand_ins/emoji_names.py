"""Emoji in words, by CLDR's English annotations (npm package cldr-annotations-full, Unicode licence).

Only emoji of things are named: faces, hands, arrows and signs say nothing that could be drawn.
"""

import json
import unicodedata
from pathlib import Path

SKIN_TONES = {chr(code) for code in range(0x1F3FB, 0x1F400)}
JOINER = "\u200d"
INVISIBLE = {"\ufe0f", "\ufe0e"}
NOT_THINGS = frozenset("hand finger arrow button symbol face-with smile smiley".split())
ANIMAL_FACES = frozenset("animal cat dog monkey moon sun".split())
# CLDR's name of an emoji, where a plainer one is meant.
PLAIN = {
    "beach with umbrella": "beach", "sunset": "sunset", "glowing star": "star", "shooting star": "star",
    "sun with face": "sun", "full moon face": "moon", "red heart": "red heart", "ocean": "sea", "water wave": "sea",
    "national park": "park", "night with stars": "night", "cityscape": "city", "snow-capped mountain": "mountains",
    "desert": "desert", "milky way": "space", "snowflake": "snow", "fire": "fire", "party popper": "confetti",
    "mouse face": "mouse", "front-facing baby chick": "chick", "baby chick": "chick", "hatching chick": "chick",
    "spouting whale": "whale", "tropical fish": "fish", "evergreen tree": "pine tree", "deciduous tree": "tree",
    "ewe": "sheep", "automobile": "car", "oncoming automobile": "car", "t-rex": "dinosaur", "sauropod": "dinosaur",
    "horse racing": "horse", "wrapped gift": "gift", "soccer ball": "soccer ball", "cherry blossom": "cherry blossom",
    "tent": "tent", "rainbow": "rainbow", "cloud": "cloud", "umbrella with rain drops": "umbrella",
    "sun behind cloud": "cloud", "dragon face": "dragon", "wolf": "wolf", "heart suit": "heart",
    "house with garden": "house", "sailboat": "sailboat", "rocket": "rocket", "bouquet": "bouquet",
    "smiling face with horns": "devil", "ghost": "ghost", "robot": "robot", "alien": "alien",
    "jack-o-lantern": "jack o lantern",
}  # fmt: skip


def emoji_words(path: Path) -> dict[str, str]:
    """Emoji -> the words that it stands for; a sequence of code points without skin tones and variation selectors.

    `path`: annotations.json of the English annotations. ValueError when it holds none.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["annotations"]["annotations"]
    except KeyError:
        raise ValueError(
            f"{path} holds no annotations: give cldr-annotations-full/annotations/en/annotations.json"
        ) from None
    words = {}
    for sign, entry in entries.items():
        key = "".join(c for c in sign if c not in INVISIBLE and c not in SKIN_TONES)
        if not key or any(unicodedata.category(c) != "So" and c != JOINER for c in key) or ord(key[0]) < 0x2600:
            continue
        if name := _name(entry):
            words.setdefault(key, name)
    return dict(sorted(words.items()))


def _name(entry: dict) -> str:
    """The plain name of one emoji; empty for one that is no thing."""
    name = entry["tts"][0].lower()
    keywords = set(entry.get("default", ()))
    if name in PLAIN:
        return PLAIN[name]
    is_face = "face" in keywords or "face" in name.split()
    if is_face and not keywords & ANIMAL_FACES or keywords & NOT_THINGS or ":" in name:
        return ""
    name = name.removesuffix(" face").removeprefix("oncoming ").replace("-", " ")
    return name if name.replace(" ", "").replace("’", "").isalpha() else ""
