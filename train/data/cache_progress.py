"""The progress bar of making a cache."""

import time
from pathlib import Path

from tqdm import tqdm

LIST_EVERY = 10.0  # seconds between two listings of the files of other processes


class CacheProgress:
    """The bar of the first process: units done by all processes, from listings of the folder, and its own current
    unit."""

    def __init__(self, out: Path, names: set[str], rank: int, world: int):
        self.out, self.names, self.world, self.units = out, names, world, len(names)
        self.since, self.listed, self.done = time.monotonic(), 0.0, 0
        # without miniters tqdm would wait for another whole unit
        self.bar = tqdm(
            total=self.units,
            initial=self.finished(fresh=True),
            desc="encoding",
            disable=rank > 0,
            mininterval=2,
            miniters=0,
            bar_format="{l_bar}{bar}| {n:.2f} of {total} units [{elapsed}<{remaining}{postfix}]",
        )

    def finished(self, fresh: bool = False) -> int:
        """Number of finished units. The folder is listed at most every LIST_EVERY seconds, unless `fresh` is set."""
        if fresh or time.monotonic() - self.listed > LIST_EVERY:
            self.done = len(self.names & {path.name for path in self.out.glob("*.safetensors")})
            self.listed = time.monotonic()
        return self.done

    def show(self, along: float, pictures: int) -> None:
        """`along`: the share of the present unit that is done; `pictures`: done by this process."""
        rate = pictures / (time.monotonic() - self.since)
        self.bar.set_postfix_str(f"about {rate * self.world:.1f} pictures a second", refresh=False)
        # assumes that the other processes are as far in their units
        done = self.finished()
        self.bar.update(done + along * min(self.world, self.units - done) - self.bar.n)

    def unit_done(self) -> None:
        self.done += 1
        self.bar.update(self.finished() - self.bar.n)
