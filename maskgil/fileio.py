"""Files that appear whole or not at all, and JSON from elsewhere."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. ValueError for what is none, lists in lists without end among it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def sync(path: str | Path) -> None:
    """Flush a file to the disk, so that a power cut cannot keep its name without its content."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def atomic_write(path: str | Path, *, shared: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends without an error.

    The new file has the permissions that the umask gives. After an error `path` is as it was and the temporary file is
    gone. A process that is killed leaves `<name>.partial` behind, which the next write replaces.

    shared  several processes may write this path at once; each one then gets a temporary name of its own.

    OSError where the folder cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = f".{os.getpid()}" if shared else ""
    partial = path.with_name(f"{path.name}{owner}.partial")
    partial.unlink(missing_ok=True)
    handle = os.open(partial, os.O_CREAT | os.O_WRONLY, 0o666)
    permissions = os.fstat(handle).st_mode & 0o777
    os.close(handle)
    try:
        yield partial
        os.chmod(partial, permissions)  # a writer may have put its own file there (safetensors: always 0600)
        sync(partial)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def replace_file(path: str | Path, content: bytes) -> None:
    """Write a whole file in place of what is there; several processes may do so at once."""
    with atomic_write(path, shared=True) as partial:
        partial.write_bytes(content)


def write_json(path: str | Path, values: Any) -> None:
    """Write values as a JSON file in place of what is there; several processes may do so at once."""
    replace_file(path, (json.dumps(values, indent=1) + "\n").encode())
