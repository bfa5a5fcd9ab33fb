"""From what a prompt asks for to what one model can draw: its names, its colors, and as much as fits into a picture.

Whatever does not fit is marked with the reason. Nothing is invented, except where a place alone is asked for and the
model draws no empty place: then one thing that belongs there is drawn.
"""

from collections.abc import Set
from dataclasses import replace

from text_encoder.prompt_reader import reasons
from text_encoder.prompt_reader.asked_scene import AskedBackdrop, AskedGroup, AskedScene, UnwantedParts
from text_encoder.prompt_reader.fitted_scene import NUMBER_WORDS, FittedScene
from text_encoder.prompt_reader.lexicon import Chunk, Lexicon
from text_encoder.prompt_reader.prompt_reading import (
    AVOIDED,
    DRAWN,
    LANGUAGE,
    LEFT_OUT,
    REPLACED,
    ReadGroup,
)
from text_encoder.prompt_reader.prompt_vocabulary import VocabularyEntry
from text_encoder.prompt_reader.relation_fitting import RelationFitter
from text_encoder.prompt_reader.scene_words import COMPANIONS, home_of
from text_encoder.prompt_reader.unwanted import Unwanted, UnwantedThing
from text_encoder.prompt_reader.word_forms import plural, with_an

SEVERAL = 3
PLACE_KINDS = ("place", "time", "weather")


class SceneFitter:
    """Fits scenes into the pictures of one vocabulary."""

    def __init__(self, lexicon: Lexicon):
        self.lexicon, self.vocabulary = lexicon, lexicon.vocabulary
        self.things = {thing.name: thing for thing in self.vocabulary.objects}
        self.backgrounds = {entry.name: entry for entry in self.vocabulary.backgrounds}
        self.styles = {entry.name: entry for entry in self.vocabulary.styles}
        self.relations = RelationFitter({str(phrase).lower() for phrase in self.vocabulary.relations})
        self.colors = {str(color).lower() for color in self.vocabulary.colours}

    def fit(self, asked: AskedScene, field: Unwanted | None = None) -> FittedScene:
        """The part of the scene that can be drawn. `field`: what a negative prompt keeps out of it."""
        fitted = FittedScene()
        unwanted = self.unwanted_of(asked.unwanted) | (field or Unwanted())
        style = self._fit_style(asked, fitted, unwanted)
        kept = self._choose_groups(asked, unwanted)
        self._fit_backdrops(asked, kept, fitted, unwanted)
        counts = self._counts([asked.groups[i] for i in kept])
        for index, count in zip(kept, counts, strict=True):
            self._add_group(asked.groups[index], count, style, fitted, unwanted)
        if not kept and fitted.backgrounds:
            self._add_companion(asked, fitted, unwanted)
        self.relations.fit(asked, kept, fitted)
        return fitted

    # What is not wanted

    def unwanted_of(self, parts: UnwantedParts, is_field: bool = False) -> Unwanted:
        """What a text does not want, in names of the vocabulary. `is_field`: the text is a negative prompt."""
        things: dict[str, list[UnwantedThing]] = {}
        for group in {(group.head.text, *self._look(group)): group for group in parts.groups}.values():
            things.setdefault(group.noun.name, []).append(UnwantedThing(group, *self._look(group), is_field))
        backdrops = (self._background_of(AskedBackdrop(c))[0] for c in parts.backdrops if _says_place(c))
        styles = (self._style_of(chunk)[0] for chunk in parts.styles)
        colors = (self._color_name(chunk) for chunk in parts.colors)
        words = (chunk.text for chunk in parts.backdrops)
        return Unwanted(things, *(frozenset(filter(None, names)) for names in (backdrops, words, styles, colors)))

    def named_in(self, asked: AskedScene) -> UnwantedParts:
        """All that a negative prompt names."""
        parts, not_wanted = UnwantedParts(), asked.unwanted
        parts.groups = [*asked.groups, *not_wanted.groups]
        parts.backdrops = [*(backdrop.chunk for backdrop in asked.backdrops), *not_wanted.backdrops]
        parts.styles = [*asked.styles, *not_wanted.styles]
        parts.colors = [*asked.loose_colors, *not_wanted.colors]
        parts.colors += [chunk for chunk in parts.backdrops if chunk.is_a("color")]  # "dark" is night and black
        return parts

    def _look(self, group: AskedGroup) -> tuple[str, str]:
        """(color, size) that a group would be drawn with; empty: not said."""
        color = self._color_name(group.color) if group.color is not None else ""
        return color, str(group.size.meanings["size"]) if group.size is not None else ""

    def _color_name(self, chunk: Chunk) -> str:
        """The vocabulary's color for a phrase; empty for none."""
        names = self.lexicon.candidates[("color", str(chunk.meanings["color"]))]
        return next((name for name in names if name in self.colors), "")

    # Things

    def _choose_groups(self, asked: AskedScene, unwanted: Unwanted) -> list[int]:
        """Indices of the groups that are drawn: the first that fit, each thing once in one look."""
        kept: list[int] = []
        if len(asked.groups) > self.vocabulary.max_kinds:  # things that are named go before what only stands for others
            order = sorted(range(len(asked.groups)), key=lambda index: _is_vague(asked.groups[index]))
        else:
            order = list(range(len(asked.groups)))
        for index in order:
            group = asked.groups[index]
            if unwanted.has(group, *self._look(group)):
                self._mark_group(group, AVOIDED, reasons.NOT_WANTED)
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
        is_other_word = again.head.text != first.head.text
        if _is_vague(again) and is_other_word:
            if _is_vague(first):  # both stand for something else
                self._add_count(first, again)
            again.head.mark(REPLACED, again.noun.stand_in.why if again.noun.stand_in else "", first.noun.name)
            return True
        if _is_vague(first) and is_other_word:
            first.count, first.number, first.is_vague = again.count, again.number, again.is_vague
        else:
            self._add_count(first, again)
        again.head.head = first.head
        return True

    def _add_count(self, first: AskedGroup, again: AskedGroup) -> None:
        first.count = (first.count or SEVERAL) + (again.count or SEVERAL)
        first.merged.append(again)

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
            if count < wanted and group.count is not None and not group.is_vague:
                _name_what_does_not_fit(group, count)
        return counts

    def _add_group(
        self, group: AskedGroup, count: int, style: VocabularyEntry | None, fitted: FittedScene,
        unwanted: Unwanted,
    ) -> None:  # fmt: skip
        noun = group.noun
        thing = self.things[noun.name]
        color = self._color(group, style, unwanted)
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

    def _color(self, group: AskedGroup, style: VocabularyEntry | None, unwanted: Unwanted) -> str:
        """The color that the group is given, one of the vocabulary's; empty for none."""
        chunk = group.color
        if chunk is None:
            return ""
        if group.head.text.startswith(chunk.text + " "):
            return ""
        if style is not None and style.colourless:
            chunk.mark(LEFT_OUT, f"things have no colors in the style '{style.name}'")
            return ""
        name = self._color_name(chunk)
        if name in unwanted.colors:
            chunk.mark(AVOIDED, reasons.NOT_WANTED)
            return ""
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

    def _add_companion(self, asked: AskedScene, fitted: FittedScene, unwanted: Unwanted) -> None:
        """Draw what belongs to a place that was asked for without things."""
        place = fitted.backgrounds[0][0]
        options = [*COMPANIONS.get(place, ()), "tree", "pine tree", "balloon", "star"]
        name = next((name for name in options if name in self.things and name not in unwanted.things), "")
        if not name:
            return
        fitted.groups.append(ReadGroup(name, said=name))
        fitted.numbers.append("")
        fitted.sizes.append("")
        fitted.starts.append(-1)
        for backdrop in asked.backdrops:
            if backdrop.chunk.status in (DRAWN, REPLACED):
                drawn = with_an(f"a {name} {fitted.backgrounds[0][1]}")
                backdrop.chunk.mark(REPLACED, "the model draws no empty places", drawn)
                break

    # Where and when

    def _fit_backdrops(self, asked: AskedScene, kept: list[int], fitted: FittedScene, unwanted: Unwanted) -> None:
        taken: dict[str, tuple[str, str]] = {}  # kind -> (name, words of the prompt)
        names = {asked.groups[index].noun.name for index in kept}
        for backdrop in asked.backdrops:
            chunk = backdrop.chunk
            if backdrop.color is not None and chunk.is_a("background"):
                backdrop.color.mark(LEFT_OUT, "places have colors of their own")
            name, wording, is_same = self._background_of(backdrop, names)
            if name in unwanted.backgrounds or chunk.text in unwanted.places:
                chunk.mark(AVOIDED, reasons.NOT_WANTED)
                continue
            if not name:
                default = chunk.meanings.get("time") == "day"
                kind = next((k for k in ("weather", "time") if chunk.is_a(k)), "place")
                chunk.mark(LANGUAGE if default else LEFT_OUT, "" if default else f"no such {kind} is drawn")
                continue
            kind = self.backgrounds[name].kind or "place"
            slot = "place" if kind == "color" else kind
            if slot in taken:
                if taken[slot][0] == name:
                    chunk.mark(DRAWN, "", name)
                else:
                    chunk.mark(LEFT_OUT, f"a picture has one {slot}, and '{taken[slot][1]}' was said first")
                continue
            taken[slot] = (name, chunk.text)
            if is_same:
                chunk.mark(DRAWN, "", name)
            else:
                chunk.mark(REPLACED, "the nearest that is drawn", wording)
            fitted.backgrounds.append((name, wording, chunk.start))

    def _background_of(self, backdrop: AskedBackdrop, things: Set[str] = frozenset()) -> tuple[str, str, bool]:
        """(name, wording, whether that is what was said); empty for what the vocabulary does not have. `things`: those
        that stand there."""
        chunk = backdrop.chunk
        if isinstance(said := chunk.meanings.get("background"), tuple):
            return said[0], said[1], True
        for kind in PLACE_KINDS:
            concept = str(chunk.meanings.get(kind))
            names = self.lexicon.candidates.get((kind, concept), ())
            home = home_of(concept, things) if kind == "place" and not _is_beside(backdrop) else ""
            for name in (*names[:1], home, *names[1:]):
                if name in self.backgrounds:
                    entry = self.backgrounds[name]
                    return name, (entry.say or (name,))[0], self._same_concept(chunk, kind, name)
        return "", "", False

    # Style and relation

    def _fit_style(self, asked: AskedScene, fitted: FittedScene, unwanted: Unwanted) -> VocabularyEntry | None:
        first = ""
        for chunk in asked.styles:
            name, wording, is_same = self._style_of(chunk)
            if name and name in unwanted.styles:
                chunk.mark(AVOIDED, reasons.NOT_WANTED)
            elif not name or not wording:
                chunk.mark(LEFT_OUT, "no such style is drawn")
            elif fitted.style is not None and fitted.style[0] != name:
                chunk.mark(LEFT_OUT, f"a picture has one style, and '{first}' was said first")
            else:
                chunk.mark(DRAWN if is_same else REPLACED, "" if is_same else "the nearest style", name)
                fitted.style, first = fitted.style or (name, wording, chunk.start), first or chunk.text
        return self.styles[fitted.style[0]] if fitted.style else None

    def _style_of(self, chunk: Chunk) -> tuple[str, str, bool]:
        """(name, wording, whether that is what was said); empty for what the vocabulary does not have."""
        if isinstance(said := chunk.meanings.get("style said"), tuple):
            return said[0], said[1], True
        concept = str(chunk.meanings["style"])
        name = next((n for n in self.lexicon.candidates[("style", concept)] if n in self.styles), "")
        wording = self.styles[name].say[0] if name and self.styles[name].say else ""
        return name, wording, concept == name


def _name_what_does_not_fit(group: AskedGroup, count: int) -> None:
    """Fewer are drawn than were asked for: one number is replaced, or things named later are left out."""
    left = count
    for part in (
        replace(group, count=group.count - sum(again.count or SEVERAL for again in group.merged)),
        *group.merged,
    ):
        asked, left = part.count or SEVERAL, max(0, left)
        if asked > left and left and part.number is not None:
            part.number.mark(REPLACED, "the most that fit", NUMBER_WORDS[min(left, 12)])
            part.number.head = None
        elif asked > left:
            part.head.mark(LEFT_OUT, "a picture holds no more")
            part.head.head = None
        left -= asked


def _says_place(chunk: Chunk) -> bool:
    """Whether a phrase names a place as a whole, and not what is there, as "clouds" does of the sky."""
    return chunk.is_a("background") or any(chunk.meanings.get(kind) == chunk.text for kind in PLACE_KINDS)


def _is_beside(backdrop: AskedBackdrop) -> bool:
    """Whether things are said to be only near a place: "by the lake"."""
    return backdrop.relation is not None and backdrop.relation.meanings.get("relation") == "next to"


def _is_vague(group: AskedGroup) -> bool:
    """Whether a group is only one kind, or kin, of what was said."""
    return group.noun.stand_in is not None and group.noun.stand_in.how in ("example", "kin", "distant")
