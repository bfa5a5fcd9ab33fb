"""Forms of English words: plurals and singulars, verb endings, British and American spelling, and misspellings."""

import re
from collections.abc import Iterable, Iterator

IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot", "teeth": "tooth",
    "geese": "goose", "mice": "mouse", "oxen": "ox", "knives": "knife", "wolves": "wolf", "leaves": "leaf",
    "loaves": "loaf", "shelves": "shelf", "halves": "half", "wives": "wife", "elves": "elf", "calves": "calf",
    "scarves": "scarf", "hooves": "hoof", "thieves": "thief", "cacti": "cactus", "octopi": "octopus", "fungi": "fungus",
    "dice": "die", "buses": "bus", "skis": "ski", "taxis": "taxi", "lice": "louse", "hippopotami": "hippopotamus",
    "snowmen": "snowman", "firemen": "fireman", "policemen": "policeman", "photos": "photo", "dwarves": "dwarf",
    "bookshelves": "bookshelf", "werewolves": "werewolf", "lives": "life",
}  # fmt: skip
PLURALS = {singular: plural for plural, singular in IRREGULAR.items()}
UNCHANGED = frozenset(
    "sheep fish deer moose bison aircraft spacecraft salmon trout shrimp series species jeans".split()
)
SINGULAR_S = frozenset(
    "bus gas glass grass dress cross chess boss class moss bass brass moss cactus octopus lens walrus hippopotamus"
    " rhinoceros platypus canvas atlas iris compass mattress princess waitress actress fortress goddess lioness tigress"
    " albatross virus venus christmas paris hibiscus crocus bias texas pegasus circus campus fungus lotus citrus minus"
    " plus this is was has as us yes its his always perhaps news mars tennis".split()
)
PLURAL_ONLY = frozenset(
    "scissors glasses sunglasses jeans pants trousers shorts grapes clothes pliers binoculars goggles".split()
)
BRITISH = {  # British spelling -> American
    "grey": "gray", "colour": "color", "colours": "colors", "coloured": "colored", "colourful": "colorful",
    "aeroplane": "airplane", "aeroplanes": "airplanes", "theatre": "theater", "harbour": "harbor", "tyre": "tire",
    "jewellery": "jewelry", "pyjamas": "pajamas", "moustache": "mustache", "plough": "plow", "grey's": "gray",
    "watercolour": "watercolor", "multicoloured": "multicolored", "cosy": "cozy", "favourite": "favorite",
    "centre": "center", "metre": "meter", "armour": "armor", "mould": "mold", "doughnut": "donut", "sceptre": "scepter",
    "neighbour": "neighbor", "aluminium": "aluminum", "kerb": "curb", "catalogue": "catalog", "fibre": "fiber",
}  # fmt: skip
AMERICAN = {american: british for british, american in BRITISH.items()}
MAX_MENDED = 32
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def singulars(word: str) -> Iterator[str]:
    """What a word may be the plural of, the likeliest first. Words that are no plural give nothing."""
    if word in IRREGULAR:
        yield IRREGULAR[word]
    if word in UNCHANGED or word in SINGULAR_S or not word.endswith("s") or len(word) < 4 or word.endswith("ss"):
        return
    if word.endswith("ies") and len(word) > 4:
        yield word[:-3] + "y"
    if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes", "ses")):
        yield word[:-2]
    if word.endswith("ves"):
        yield word[:-3] + "f"
    yield word[:-1]


def plural(noun: str) -> str:
    """The plural of a noun or of the head of a phrase: "slices of pizza", "fire trucks"."""
    head, of, rest = noun.partition(" of ")
    first, space, last = head.rpartition(" ")
    if last in PLURALS:
        ending = PLURALS[last]
    elif last in UNCHANGED or last in PLURAL_ONLY:
        ending = last
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        ending = last + "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        ending = last[:-1] + "ies"
    elif last.endswith("man") and last != "human":
        ending = last[:-3] + "men"
    else:
        ending = last + "s"
    return f"{first}{space}{ending}{of}{rest}"


def is_plural(word: str, singular: str) -> bool:
    """Whether `word` says several of what `singular` names."""
    return word != singular and (word in IRREGULAR or (word.endswith("s") and word[:3] == singular[:3]))


def verb_stems(word: str) -> Iterator[str]:
    """What a word may be a form of, as a verb: "chasing" -> "chase", "runs" -> "run"."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            stem = word[: -len(ending)]
            yield stem
            yield stem + "e"
            if len(stem) > 2 and stem[-1] == stem[-2]:
                yield stem[:-1]
            if ending in ("ed", "es") and stem.endswith("i"):
                yield stem[:-1] + "y"


def with_an(phrase: str) -> str:
    """A phrase with "an" where "a" stands before a vowel."""
    return re.sub(r"\ba (?=[aeio])", "an ", phrase)


def shortened(word: str) -> str:
    """A word without the letters that are drawn out: "sooo" is "so", "caaat" is "cat"."""
    return re.sub(r"([a-z])\1{2,}", r"\1", word)


def american(word: str) -> str:
    """The American spelling of a word."""
    return BRITISH.get(word, word)


def one_edit_away(word: str) -> set[str]:
    """All words one letter away: dropped, added, changed, or two neighbors swapped."""
    splits = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    dropped = {a + b[1:] for a, b in splits if b}
    swapped = {a + b[1] + b[0] + b[2:] for a, b in splits if len(b) > 1}
    changed = {a + c + b[1:] for a, b in splits if b for c in LETTERS}
    added = {a + c + b for a, b in splits for c in LETTERS}
    return dropped | swapped | changed | added


def mended(word: str, known: Iterable[str], exact: "set[str] | frozenset[str]") -> str:
    """The known word that a misspelling most likely meant; empty when none is near.

    One edit for words of three to five letters, two for longer ones; the first letter is usually right. `exact` holds
    the known words as a set; `known` gives them in order of preference. Texts of more than MAX_MENDED letters are no
    misspellings: the words near one take memory with the square of its length.
    """
    if not 3 <= len(word) <= MAX_MENDED or not word.isalpha():
        return ""
    near = one_edit_away(word) & exact
    if near:
        return min(near, key=lambda other: (other[0] != word[0], len(other) == len(word), -len(other), other))
    if len(word) < 6:
        return ""
    twice = [other for other in known if other[0] == word[0] and abs(len(other) - len(word)) <= 2 and len(other) > 4]
    twice = [other for other in twice if distance(word, other, 2) <= 2]
    return min(twice, key=lambda other: (distance(word, other, 2), other), default="")


def distance(a: str, b: str, limit: int) -> int:
    """Edit distance with swaps of neighbors; `limit + 1` when it is larger than `limit`."""
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        new = [i]
        for j, other in enumerate(b, 1):
            cost = min(row[j] + 1, new[j - 1] + 1, row[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            new.append(cost)
        if min(new) > limit:
            return limit + 1
        before, row = row, new
    return row[-1]
