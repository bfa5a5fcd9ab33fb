"""How the things of a picture stand to each other: the relation that is drawn of those that a prompt says."""

from text_encoder.prompt_reader import reasons
from text_encoder.prompt_reader.asked_scene import AskedScene
from text_encoder.prompt_reader.fitted_scene import JOINS, FittedScene
from text_encoder.prompt_reader.lexicon import Chunk
from text_encoder.prompt_reader.prompt_reading import DRAWN, LANGUAGE, LEFT_OUT, REPLACED

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
SIDE_PAIRS = {("left of", "right of"), ("right of", "left of"), ("above", "below"), ("below", "above")}


class RelationFitter:
    """Fits relations into the pictures of one vocabulary; `relations`: its phrases for them, in lower case."""

    def __init__(self, relations: set[str]):
        self.relations = relations

    def fit(self, asked: AskedScene, kept: list[int], fitted: FittedScene) -> None:
        """The relation between the two groups that are drawn; one of others is left out with its group."""
        if len(kept) >= 2:
            self._relate_by_sides(asked, kept, fitted)
        for group in asked.groups:
            if group.side is not None and group.side.status == LANGUAGE:
                group.side.mark(LEFT_OUT, reasons.ALONE)
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
