"""Verdicts: whether a picture shows what was asked for, by the judge's detections.

`scene_verdict` scores scenes of the world, by category. `geneval_verdict` scores rows of GenEval's
evaluation_metadata.jsonl (Ghosh et al. 2023), whose class names are the first names of the table.
"""

from collections import Counter

from train.world.answers import COLOUR_CLASSES
from train.world.arrangement import CONVERSE, PAINTED_STYLES, SIDES, Group, WorldScene, requested_side
from train.world.backdrops import COUNTRY
from train.world.thing_table import all_things
from train.world.world_judge import SeenScene, SeenThing

CATEGORIES = ("objects", "colour", "size", "relation", "place", "time", "weather", "style")
OFFSET = 0.1  # GenEval's position threshold, as a share of both objects' extents


def perfect_reading(scene: WorldScene) -> SeenScene:
    """The detections of a judge that makes no mistakes on a scene's picture."""
    seen = []
    for placed in scene.placed:
        x, y = placed.centre
        longer = max(placed.width, placed.height)
        side = min(SIDES, key=lambda s: abs(s - longer))
        colour = placed.colour if scene.style in PAINTED_STYLES else ""
        seen.append(SeenThing(placed.thing.index, int(x) + 0.5, int(y) + 0.5, side, colour, 1.0))
    return SeenScene(tuple(seen), scene.backdrop, scene.time, scene.weather, scene.style)


def seen_relation(relation: str, a: SeenThing, b: SeenThing) -> bool:
    """Whether two detected things are in a relation, by their centres and sides, with a tolerance of half a cell."""
    if relation in ("right of", "below", "behind"):
        return seen_relation(CONVERSE[relation], b, a)
    dx, dy = b.x - a.x, b.y - a.y
    reach = (a.side + b.side) / 2
    if relation == "left of":
        return dx > 0 and dx >= abs(dy) - 0.5
    if relation == "above":
        return dy > 0 and dy >= abs(dx) - 0.5
    if relation == "next to":
        return abs(dx) >= abs(dy) - 0.5 and abs(dx) <= reach + 3.5
    if relation == "in front of":  # the thing in front stands lower and covers a part of the other
        return abs(dx) <= reach and abs(dy) <= reach and a.y + a.side / 2 > b.y - 0.5
    if relation == "on":
        return abs(dx) <= b.side / 2 + 1 and a.y <= b.y + 0.5
    if relation == "inside":
        return abs(dx) <= b.side / 2 + 0.5 and abs(dy) <= reach
    raise ValueError(f"no relation is called {relation!r}")


def size_told(group: Group, seen: SeenThing, total: int, columns: int, rows: int) -> bool:
    """Whether a thing has the size of its size word: it is smaller or larger than usual, as the word says, or at least
    as near to the size of the word as to the usual one."""
    usual = requested_side(Group(group.thing), total, columns, rows)
    requested = requested_side(group, total, columns, rows)
    return abs(seen.side - requested) <= abs(seen.side - usual) or (seen.side - usual) * (requested - usual) > 0


def scene_verdict(asked: WorldScene, seen: SeenScene) -> dict[str, bool]:
    """{category that the request has: whether the picture agrees with it}. `objects`: it shows exactly the things and
    counts of the request. Colour, size and relation can be right only where the objects are."""
    wanted = Counter({group.thing.index: group.count for group in asked.groups})
    of_thing = {index: [s for s in seen.things if s.thing == index] for index in wanted}
    kept = {"objects": Counter(s.thing for s in seen.things) == wanted, "style": seen.style == asked.style}
    if asked.style in PAINTED_STYLES and any(group.colour for group in asked.groups):
        kept["colour"] = kept["objects"] and all(
            s.colour == group.colour for group in asked.groups for s in of_thing[group.thing.index]
        )
    total = sum(wanted.values())
    if any(group.word for group in asked.groups):
        kept["size"] = kept["objects"] and all(
            size_told(group, s, total, asked.columns, asked.rows)
            for group in asked.groups
            if group.word
            for s in of_thing[group.thing.index]
        )
    if asked.relation:
        first, second = (of_thing[group.thing.index] for group in asked.groups[:2])
        kept["relation"] = kept["objects"] and seen_relation(asked.relation, first[0], second[0])
    if asked.style != "sketch":
        if asked.backdrop != COUNTRY:
            kept["place"] = seen.backdrop == asked.backdrop
        kept["time"], kept["weather"] = seen.time == asked.time, seen.weather == asked.weather
    return kept


def position_holds(relation: str, dx: float, dy: float, extents: float) -> bool:
    """GenEval's rule: the offset of the centres exceeds OFFSET of both extents in that direction."""
    shift = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[relation]
    return shift > OFFSET * extents and shift >= 0.5 * max(abs(dx), abs(dy))


def geneval_verdict(row: dict, seen: SeenScene) -> bool:
    """Whether a picture passes a row of GenEval. ValueError for a class or colour that the table lacks."""
    index = {thing.name: thing.index for thing in all_things()}
    matched: list[list[SeenThing]] = []
    for wanted in row["include"]:
        if wanted["class"] not in index:
            raise ValueError(f"the table has no {wanted['class']!r}")
        if (colour := wanted.get("color", "")) not in COLOUR_CLASSES:
            raise ValueError(f"no colour is called {colour!r}")
        found = [s for s in seen.things if s.thing == index[wanted["class"]] and colour in ("", s.colour)]
        if len(found) < wanted["count"]:
            return False
        matched.append(found)
    for wanted, found in zip(row["include"], matched, strict=True):
        if "position" in wanted:
            relation, target = wanted["position"]
            if not any(
                position_holds(relation, a.x - b.x, a.y - b.y, a.side + b.side) for a in found for b in matched[target]
            ):
                return False
    counts = Counter(s.thing for s in seen.things)
    return all(counts[index[none["class"]]] < none["count"] for none in row.get("exclude", ()))
