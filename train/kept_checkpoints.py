"""Checkpoints that stay beside the newest one: the last few, and the best by validation.

state.pt                    the newest
checkpoints/0000500.pt      earlier ones, with the newest, where more than one is kept
best.pt, or best/           the one with the lowest validation loss; a folder where the run is sharded
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

STATE, EARLIER, BEST = "state.pt", "checkpoints", "best.pt"
BEST_SHARDED = "best"


def _put_beside(source: Path, target: Path) -> None:
    """Give a file a second name: a hard link where the file system supports it, else a copy."""
    target.parent.mkdir(exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def keep_newest(out: Path, step: int, keep: int) -> None:
    """Give state.pt, written at `step`, a second name, and delete all but the last `keep` of such checkpoints."""
    if keep > 1:
        _put_beside(out / STATE, out / EARLIER / f"{step:07d}.pt")
    for old in earlier(out)[: -keep if keep > 1 else None]:
        old.unlink()


def keep_best(out: Path) -> None:
    """Keep state.pt as the best."""
    _put_beside(out / STATE, out / BEST)


def keep_best_sharded(out: Path, newest: Path) -> None:
    """Keep a sharded checkpoint as the best, in one rename."""
    partial, target = out / f".{BEST_SHARDED}.partial", out / BEST_SHARDED
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(newest, partial, copy_function=_put_file)
    if target.exists():
        shutil.rmtree(target)
    os.replace(partial, target)


def _put_file(source: str, target: str) -> str:
    _put_beside(Path(source), Path(target))
    return target


def earlier(out: Path) -> list[Path]:
    """Checkpoints in checkpoints/, the newest last."""
    return sorted((out / EARLIER).glob("[0-9]*.pt"))


def candidates(out: Path) -> Iterator[Path]:
    """The checkpoints to resume from, the newest first; an older one is used where a newer one is broken."""
    newest = out / STATE
    if newest.is_file():
        yield newest
    for path in reversed(earlier(out)):
        if not (newest.is_file() and path.samefile(newest)):
            yield path
