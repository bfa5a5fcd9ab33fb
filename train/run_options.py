"""Options of any run, independent of the recipe."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

RUN_BOUNDS = {"keep": (1, 10_000), "picture_minutes": (0, 1e6), "price_per_hour": (0, 1e9)}


@dataclass(frozen=True)
class RunOptions:
    """How a run is kept and watched."""

    keep: Annotated[int, arg(help="checkpoints that stay; the best by validation stays beside them")] = 1
    picture_minutes: Annotated[
        float, arg(help="minutes between loss curves and sample sheets in the folder; 0: sheets only at their steps")
    ] = 10.0
    price_per_hour: Annotated[float, arg(help="of one GPU or machine, for the cost that a run prints")] = 0.0
    preflight: Annotated[bool, arg(help="measure a few steps, print what the run needs, and write nothing")] = False

    def __post_init__(self) -> None:
        """ValueError for an impossible number."""
        for name, (least, most) in RUN_BOUNDS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name}={value}: give {least} to {most:g}")
