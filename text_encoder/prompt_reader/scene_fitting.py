"""From what a prompt asks for to what one model can draw: its names, its colors, and as much as fits into a picture.

Whatever does not fit is marked with the reason. Nothing is invented, except where a place alone is asked for and the
model draws no empty place: then one thing that belongs there is drawn.
"""

from dataclasses import dataclass, field

from text_encoder.prompt_reader.asked_scene import NOT_WANTED, AskedBackdrop, AskedGroup, AskedScene
from text_encoder.prompt_reader.lexicon import Chunk, Lexicon
from text_encoder.prompt_reader.prompt_reading import (
    AVOIDED,
    DRAWN,
    LANGUAGE,
    LEFT_OUT,
    REPLACED,
    ReadGroup,
    ReadScene,
)
from text_encoder.prompt_reader.prompt_vocabulary import VocabularyEntry
from text_encoder.prompt_reader.scene_words import COMPANIONS
from text_encoder.prompt_reader.word_forms import plural

NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
SEVERAL = 3
CONVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above", "in front of": "behind",
            "behind": "in front of", "next to": "next to"}  # fmt: skip
# What may stand for a relation that a model does not know; "": the two side by side.
RELATION_STAND_INS = {"on": ("on", "above"), "inside": ("inside", ""), "in front of": ("in front of", ""),
                      "behind": ("behind", ""), "next to": ("next to", "")}  # fmt: skip
RELATION_WORDS = {
    "left of": ("left of", "to the left of"), "right of": ("right of", "to the right of"), "above": ("above",),
    "below": ("below",), "on": ("on",), "inside": ("inside", "in"), "in front of": ("in front of",),
    "behind": ("behind",), "next to": ("next to",),
}  # fmt: skip
JOINS = ("and", "with", "next to", "beside")  # how a caption sets two things side by side
SIDE_PAIRS = {("left of", "right of"), ("right of", "left of"), ("above", "below"), ("below", "above")}


@dataclass
class FittedScene:
    """The scene that is drawn, with the prompt's own wording of its parts where the model knows that wording."""

    groups: list[ReadGroup] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)  # a wording for each group's number; empty: an article or a word
    sizes: list[str] = field(default_factory=list)
    relation: str = ""
    relation_text: str = ""  # empty: "and"
    swapped: bool = False  # whether the second group is named first
    backgrounds: list[tuple[str, str, int]] = field(default_factory=list)  # name, wording, place in the prompt
    style: tuple[str, str, int] | None = None
    starts: list[int] = field(default_factory=list)  # place of each group in the prompt
    join: str = ""
    sides: bool = False

    def scene(self) -> ReadScene:
        names = tuple(name for name, _, _ in self.backgrounds)
        groups = (*self.groups[1::-1], *self.groups[2:]) if self.swapped else tuple(self.groups)
        return ReadScene(groups, self.relation, names, self.style[0] if self.style else "")


class SceneFitter:
    """Fits scenes into the pictures of one vocabulary."""

    def __init__(self, lexicon: Lexicon):
        self.lexicon, self.vocabulary = lexicon, lexicon.vocabulary
        self.things = {thing.name: thing for thing in self.vocabulary.objects}
        self.backgrounds = {entry.name: entry for entry in self.vocabulary.backgrounds}
        self.styles = {entry.name: entry for entry in self.vocabulary.styles}
        self.relations = {str(phrase).lower() for phrase in self.vocabulary.relations}
        self.colors = {str(color).lower() for color in self.vocabulary.colours}

    def fit(self, asked: AskedScene, avoid: frozenset[str] = frozenset()) -> FittedScene:
        """The part of the scene that can be drawn. `avoid`: names of the vocabulary that must not be drawn."""
        fitted = FittedScene()
        style = self._fit_style(asked, fitted)
        kept = self._choose_groups(asked, avoid)
        places = [backdrop for backdrop in asked.backdrops if not self._is_avoided(backdrop, avoid)]
        self._fit_backdrops(places, fitted)
        counts = self._counts([asked.groups[i] for i in kept])
        for index, count in zip(kept, counts, strict=True):
            self._add_group(asked.groups[index], count, style, fitted)
        if not kept and fitted.backgrounds:
            self._add_companion(asked, fitted, avoid)
        self._fit_relation(asked, kept, fitted)
        return fitted

    # Things

    def _choose_groups(self, asked: AskedScene, avoid: frozenset[str]) -> list[int]:
        """Indices of the groups that are drawn: the first that fit, each thing once in one look."""
        avoid = avoid | frozenset(asked.avoided)
        kept: list[int] = []
        if len(asked.groups) > self.vocabulary.max_kinds:  # things that are named go before what only stands for others
            order = sorted(range(len(asked.groups)), key=lambda index: _is_vague(asked.groups[index]))
        else:
            order = list(range(len(asked.groups)))
        for index in order:
            group = asked.groups[index]
            if group.noun.name in avoid:
                self._mark_group(group, AVOIDED, NOT_WANTED)
                continue
            same = next((k for k in kept if asked.groups[k].noun.name == group.noun.name), None)
            if same is not None and self._merge(asked.groups[same], group):
                continue
            if len(kept) >= self.vocabulary.max_kinds or self._total(asked, kept) >= self.vocabulary.max_things:
                kinds = NUMBER_WORDS[min(self.vocabulary.max_kinds, 12)]
                self._mark_group(group, LEFT_OUT, f"a picture holds {kinds} kinds of things")
                continue
            if same is not None and not self.vocabulary.max_kinds > 2:
                self._mark_group(group, LEFT_OUT, "things of one kind are drawn alike")
                continue
            kept.append(index)
        return sorted(kept)

    def _total(self, asked: AskedScene, kept: list[int]) -> int:
        return len(kept)

    def _merge(self, first: AskedGroup, again: AskedGroup) -> bool:
        """Add a second mention of the same things, "a dog here and a dog there", unless it has another look."""
        looks = (first.color and first.color.text, first.size and first.size.text)
        other = (again.color and again.color.text, again.size and again.size.text)
        if looks != other and any(other):
            return False
        if _is_vague(again) and again.head.text != first.head.text:
            if _is_vague(first):  # both stand for something else
                first.count = (first.count or SEVERAL) + (again.count or SEVERAL)
            again.head.mark(REPLACED, again.noun.stand_in.why if again.noun.stand_in else "", first.noun.name)
            return True
        if _is_vague(first) and again.head.text != first.head.text:
            first.count, first.number, first.is_vague = again.count, again.number, again.is_vague
            again.head.head = first.head
            return True
        first.count = (first.count or SEVERAL) + (again.count or SEVERAL)
        again.head.head = first.head
        return True

    def _mark_group(self, group: AskedGroup, status: str, why: str) -> None:
        for chunk in (group.head, group.number, group.size, group.color, group.side):
            if chunk is not None:
                chunk.mark(status, why)
                if chunk is not group.head:
                    chunk.head = group.head

    def _counts(self, groups: list[AskedGroup]) -> list[int]:
        """How many of each are drawn: what was said as long as it fits, "some" as three or what is left."""
        room = self.vocabulary.max_things
        counts = []
        for position, group in enumerate(groups):
            others = sum(1 if other.count is None else min(other.count, 1) for other in groups[position + 1 :])
            free = max(1, room - others)
            wanted = group.count if group.count is not None else (SEVERAL if len(groups) == 1 else 2)
            count = max(1, min(wanted, free))
            room -= count
            counts.append(count)
            if count < wanted and group.count is not None and not group.is_vague and group.number is not None:
                word = NUMBER_WORDS[count] if count < len(NUMBER_WORDS) else str(count)
                group.number.mark(REPLACED, "the most that fit", word)
                group.number.head = None
        return counts

    def _add_group(self, group: AskedGroup, count: int, style: VocabularyEntry | None, fitted: FittedScene) -> None:
        noun = group.noun
        thing = self.things[noun.name]
        color = self._color(group, style)
        size = str(group.size.meanings["size"]) if group.size is not None else ""
        said = self._noun_text(group, thing, count)
        if noun.stand_in is not None:
            group.head.mark(REPLACED, noun.stand_in.why, said)
        elif group.head.mended_from:
            group.head.mark(REPLACED, "the nearest spelling", said)
        else:
            group.head.mark(DRAWN, "", said)
        for chunk in (group.color, group.size, group.number):
            if chunk is not None and chunk.status == LANGUAGE:
                chunk.mark(DRAWN)
        fitted.groups.append(ReadGroup(noun.name, count, color, size, group.head.text, said))
        number = group.number.text if group.number is not None and group.number.status == DRAWN else ""
        if count == 2 and number not in ("a pair of", "a couple of"):
            number = ""
        if count != 2 and number != "one":
            number = ""
        fitted.numbers.append(number if self._knows(number) else "")
        size_text = group.size.text if group.size is not None and self._knows(group.size.text) else ""
        fitted.sizes.append(size_text or size)
        fitted.starts.append(group.head.start)

    def _noun_text(self, group: AskedGroup, thing: VocabularyEntry, count: int) -> str:
        """The noun as the caption says it, singular or plural by the number that is drawn."""
        name = thing.name if group.noun.stand_in is not None else self._name_said(group, thing)
        if count == 1:
            return name
        several = (thing.plural or plural(name)) if name == thing.name else plural(name)
        if not self._knows(several):
            several = thing.plural or plural(thing.name)
        return several if self._knows(several) else name

    def _name_said(self, group: AskedGroup, thing: VocabularyEntry) -> str:
        """The name or synonym that the prompt used, in the singular."""
        said = (group.noun.said or group.head.text).lower()
        names = [name.lower() for name in (thing.name, *thing.synonyms)]
        match = next((n for n in names if said in (n, plural(n)) or (n == names[0] and said == thing.plural)), names[0])
        color = group.color.text if group.color is not None else ""
        return match if self._knows(match) and not (color and match.split()[0] in self.colors) else names[0]

    def _knows(self, phrase: str) -> bool:
        words = self.vocabulary.words
        return not words or all(word in words for word in phrase.split())

    def _color(self, group: AskedGroup, style: VocabularyEntry | None) -> str:
        """The color that the group is given, one of the vocabulary's; empty for none."""
        chunk = group.color
        if chunk is None:
            return ""
        if group.head.text.startswith(chunk.text + " "):
            return ""
        if style is not None and style.colourless:
            chunk.mark(LEFT_OUT, f"things have no colors in the style '{style.name}'")
            return ""
        names = self.lexicon.candidates[("color", str(chunk.meanings["color"]))]
        name = next((name for name in names if name in self.colors), "")
        if not name:
            chunk.mark(LEFT_OUT, "the model has no such color" if self.colors else "things have colors of their own")
            return ""
        if self._same_concept(chunk, "color", name):
            chunk.mark(DRAWN, "", name)
        else:
            chunk.mark(REPLACED, "the nearest color", name)
        return name

    def _same_concept(self, chunk: Chunk, kind: str, name: str) -> bool:
        meanings = self.lexicon.phrases.get(tuple(name.split()), {})
        return meanings.get(kind) == chunk.meanings.get(kind)

    def _add_companion(self, asked: AskedScene, fitted: FittedScene, avoid: frozenset[str]) -> None:
        """Draw what belongs to a place that was asked for without things."""
        place = fitted.backgrounds[0][0]
        avoid = avoid | frozenset(asked.avoided)
        options = [*COMPANIONS.get(place, ()), "tree", "pine tree", "balloon", "star"]
        name = next((name for name in options if name in self.things and name not in avoid), "")
        if not name:
            return
        fitted.groups.append(ReadGroup(name, said=name))
        fitted.numbers.append("")
        fitted.sizes.append("")
        fitted.starts.append(-1)
        for backdrop in asked.backdrops:
            if backdrop.chunk.status in (DRAWN, REPLACED):
                article = "an" if name[0] in "aeio" else "a"
                backdrop.chunk.mark(
                    REPLACED, "the model draws no empty places", f"{article} {name} {fitted.backgrounds[0][1]}"
                )
                break

    # Where and when

    def _is_avoided(self, backdrop: AskedBackdrop, avoid: frozenset[str]) -> bool:
        if backdrop.chunk.text in avoid:
            backdrop.chunk.mark(AVOIDED, NOT_WANTED)
            return True
        return False

    def _fit_backdrops(self, backdrops: list[AskedBackdrop], fitted: FittedScene) -> None:
        taken: dict[str, str] = {}
        for backdrop in backdrops:
            chunk = backdrop.chunk
            if backdrop.color is not None and chunk.is_a("background"):
                backdrop.color.mark(LEFT_OUT, "places have colors of their own")
            name, wording, is_same = self._background_of(backdrop)
            if not name:
                default = chunk.meanings.get("time") == "day"
                kind = next((k for k in ("weather", "time") if chunk.is_a(k)), "place")
                chunk.mark(LANGUAGE if default else LEFT_OUT, "" if default else f"no such {kind} is drawn")
                continue
            kind = self.backgrounds[name].kind or "place"
            slot = "place" if kind == "color" else kind
            if slot in taken:
                if taken[slot] == name:
                    chunk.mark(DRAWN, "", name)
                else:
                    chunk.mark(LEFT_OUT, f"a picture has one place, and '{taken[slot]}' was said first")
                continue
            taken[slot] = name
            if is_same:
                chunk.mark(DRAWN, "", name)
            else:
                chunk.mark(REPLACED, "the nearest that is drawn", wording)
            fitted.backgrounds.append((name, wording, chunk.start))

    def _background_of(self, backdrop: AskedBackdrop) -> tuple[str, str, bool]:
        """(name, wording, whether that is what was said); empty for what the vocabulary does not have."""
        chunk = backdrop.chunk
        if isinstance(said := chunk.meanings.get("background"), tuple):
            return said[0], said[1], True
        for kind in ("place", "time", "weather"):
            concept = chunk.meanings.get(kind)
            for name in self.lexicon.candidates.get((kind, str(concept)), ()):
                if name in self.backgrounds:
                    entry = self.backgrounds[name]
                    return name, (entry.say or (name,))[0], self._same_concept(chunk, kind, name)
        return "", "", False

    # Style and relation

    def _fit_style(self, asked: AskedScene, fitted: FittedScene) -> VocabularyEntry | None:
        for chunk in asked.styles:
            if isinstance(said := chunk.meanings.get("style said"), tuple):
                name, wording, same = said[0], said[1], True
            else:
                concept = str(chunk.meanings["style"])
                names = self.lexicon.candidates[("style", concept)]
                name = next((name for name in names if name in self.styles), "")
                same = concept == name
                wording = self.styles[name].say[0] if name and self.styles[name].say else ""
            if not name or not wording:
                chunk.mark(LEFT_OUT, "no such style is drawn")
            elif fitted.style is not None and fitted.style[0] != name:
                chunk.mark(LEFT_OUT, f"a picture has one style, and '{fitted.style[0]}' was said first")
            else:
                chunk.mark(DRAWN if same else REPLACED, "" if same else "the nearest style", name)
                fitted.style = fitted.style or (name, wording, chunk.start)
        return self.styles[fitted.style[0]] if fitted.style else None

    def _fit_relation(self, asked: AskedScene, kept: list[int], fitted: FittedScene) -> None:
        """The relation between the two groups that are drawn; one of others is left out with its group."""
        if len(kept) >= 2:
            self._relate_by_sides(asked, kept, fitted)
        for group in asked.groups:
            if group.side is not None and group.side.status == LANGUAGE:
                group.side.mark(LEFT_OUT, "where a thing stands can only be said beside another")
        for relation in asked.relations:
            pair = (relation.subject, relation.target)
            if not set(pair) <= set(kept[:2]) or pair[0] == pair[1]:
                continue
            if fitted.relation:
                relation.chunk.mark(LEFT_OUT, "a picture has one such relation")
                continue
            self._relate(relation.concept, relation.chunk, fitted, pair != tuple(kept[:2]))
        if len(kept) >= 2:
            fitted.join = fitted.join or asked.joins.get(kept[1], "")

    def _relate_by_sides(self, asked: AskedScene, kept: list[int], fitted: FittedScene) -> None:
        """ "a cat on the left and a dog on the right"; of one side alone the other follows."""
        chunks = [asked.groups[i].side for i in kept[:2]]
        sides = [str(chunk.meanings["side"]) if chunk else "" for chunk in chunks]
        concept = sides[0] or CONVERSE.get(sides[1], "")
        if not concept or (all(sides) and tuple(sides) not in SIDE_PAIRS):
            return
        first = chunks[0] or chunks[1]
        assert first is not None
        self._relate(concept, first, fitted, False)
        fitted.sides = concept in ("left of", "right of") and all(sides)
        for chunk in chunks:
            if chunk is not None:
                chunk.mark(DRAWN)

    def _relate(self, concept: str, chunk: Chunk, fitted: FittedScene, swapped: bool) -> None:
        own = chunk.text if chunk.text in self.relations else ""
        for name in RELATION_STAND_INS.get(concept, (concept,)):
            wording = next((words for words in RELATION_WORDS.get(name, ()) if words in self.relations), "")
            if name == concept and (own or wording):
                fitted.relation, fitted.relation_text = concept, own or wording
                chunk.mark(DRAWN, "", fitted.relation_text)
                break
            if wording:
                fitted.relation, fitted.relation_text = name, wording
                chunk.mark(REPLACED, "the nearest relation that is drawn", wording)
                break
            if not name and concept != "next to":
                chunk.mark(REPLACED, "the nearest relation that is drawn", "next to")
                break
            if not name and chunk.text in JOINS:
                fitted.join = chunk.text
                chunk.mark(DRAWN)
        fitted.swapped = swapped


def _is_vague(group: AskedGroup) -> bool:
    """Whether a group is only one kind, or kin, of what was said."""
    return group.noun.stand_in is not None and group.noun.stand_in.how in ("example", "kin", "distant")
