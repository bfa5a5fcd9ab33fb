"""Files appear whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from maskgil.fileio import atomic_write


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path):
    path = tmp_path / "new" / "note.txt"
    for text in ("one", "two"):
        with atomic_write(path) as partial:
            partial.write_text(text)
            assert not path.exists() or path.read_text() == "one"
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("shared", [False, True])
def test_an_error_leaves_the_old_file_alone(tmp_path: Path, shared: bool):
    path = tmp_path / "note.txt"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_write(path, shared=shared) as partial:
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_the_umask(tmp_path: Path, umask: int, mode: int):
    """Whatever the writer gave the file: safetensors makes it private."""
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "a") as partial:
            partial.unlink()
            partial.touch(0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_processes_that_write_at_once_have_names_of_their_own(tmp_path: Path):
    with atomic_write(tmp_path / "a", shared=True) as mine, atomic_write(tmp_path / "a") as theirs:
        assert mine != theirs and mine.parent == theirs.parent == tmp_path
        mine.write_text("1")
        theirs.write_text("2")
    assert (tmp_path / "a").read_text() in ("1", "2")
