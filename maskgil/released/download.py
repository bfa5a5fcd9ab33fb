"""Fetch released models, keep them, remove them.

A model's folder holds its files, and release.json: the revision of each repository that it came from, resolved when it
was first asked for, and the size of each file once all are here. Later calls fetch the same revision. huggingface_hub
resumes files that were cut off. A lock beside the folder lets one process at a time fetch or remove a model.
"""

import fnmatch
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from maskgil.fileio import parse_json, write_json
from maskgil.model_folder import path_from_environment
from maskgil.released.catalog import VARIANTS, ReleasedModel, RepositoryFiles, find_model, released_model

FOLDER = "MASKGIL_MODELS"  # environment variable: where released models are kept
RECORD = "release.json"
WEIGHTS = ".safetensors"
HUB = "https://huggingface.co"
SPARE = 500 * 10**6  # bytes of disk that stay free


@dataclass(frozen=True)
class FileOnHub:
    """A file of a repository and its size in bytes."""

    name: str
    size: int


def models_folder() -> Path:
    """Where released models are kept, one folder a model: $MASKGIL_MODELS, or the user's data folder."""
    data = path_from_environment("XDG_DATA_HOME") or Path("~/.local/share").expanduser()
    return path_from_environment(FOLDER) or data / "maskgil" / "models"


def folder_of(model: ReleasedModel) -> Path:
    """Where this model lies, or would."""
    return models_folder().joinpath(*model.name.split("/"))


def find_fetched(name: str) -> Path | None:
    """The folder of a released model that was fetched whole; None for another name, and for one that is not here."""
    model = find_model(name)
    return folder_of(model) if model is not None and is_complete(model) else None


def is_complete(model: ReleasedModel) -> bool:
    """Whether all its files are here, the weights in the sizes that they were fetched in."""
    folder = folder_of(model)
    record = read_record(folder)
    return bool(record.get("complete")) and not _changed_files(folder, record)


def is_begun(model: ReleasedModel) -> bool:
    """Whether some of its files are here."""
    return (folder_of(model) / RECORD).is_file()


def bytes_here(model: ReleasedModel) -> int:
    """Bytes of the model's files on this machine, those of files on their way included."""
    return sum(_file_sizes(folder_of(model)).values())


def how_to_fetch(model: ReleasedModel) -> str:
    """What to say to somebody who asks for a model that is not here."""
    state = "was not fetched whole" if is_begun(model) else "is not on this machine"
    return f"{model.name} {state}: `maskgil models get {model.name}` fetches it, about {model.gigabytes:.1f} GB"


def _table(record: dict[str, Any], name: str) -> dict[str, Any]:
    """A table of a record; empty where it is missing or no table."""
    table = record.get(name)
    return table if isinstance(table, dict) else {}


def read_record(folder: Path) -> dict[str, Any]:
    """release.json of a folder; empty when there is none that can be read."""
    try:
        record = parse_json((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict):
        return {}
    known = {repo: revision for repo, revision in _table(record, "revisions").items() if isinstance(revision, str)}
    sizes = {name: size for name, size in _table(record, "files").items() if isinstance(size, int) and _is_inside(name)}
    return record | {"revisions": known, "files": sizes}


def fetch(name: str, endpoint: str | None = None) -> Path:
    """Fetch a released model, or what is missing of it, with a progress bar; returns its folder.

    `endpoint`: another address than huggingface.co's; left out: $HF_ENDPOINT, where it is set. Raises ValueError for an
    unknown name, without a network, for a disk with too little room, and where files are missing afterwards.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    model = released_model(name)
    endpoint = hub_address(endpoint)
    folder = folder_of(model)
    if is_complete(model):
        return folder
    try:
        with alone(model, wait=True):
            if not is_complete(model):  # another process may have fetched it
                _fetch(model, folder, endpoint)
    except (HfHubHTTPError, httpx2.HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        begun = ", and goes on where it stopped when it is asked again" if is_begun(model) else ""
        raise ValueError(
            f"{model.name} could not be fetched from Hugging Face ({reason}){begun}. The models that ship with the "
            f"project need no network; or copy a folder that was fetched elsewhere to {folder}"
        ) from None
    except OSError as error:
        raise ValueError(
            f"{model.name} could not be written to {folder}: {error}; make room there, and ask again: it goes on where "
            "it stopped"
        ) from None
    return folder


def hub_address(given: str | None = None) -> str:
    """Where models are fetched from: the given address, $HF_ENDPOINT, or huggingface.co. ValueError for what is no
    address."""
    address = given or os.environ.get("HF_ENDPOINT") or HUB
    if not address.startswith(("https://", "http://")):
        raise ValueError(f"HF_ENDPOINT is {address!r}: give an address such as {HUB}, or unset it")
    return address


def remove(name: str) -> int:
    """Remove a fetched model, whole or not; returns the bytes that it took. ValueError when nothing of it is here, and
    for a link to a folder elsewhere, of which nothing is touched."""
    model = released_model(name)
    folder = folder_of(model)
    if not is_begun(model):
        raise ValueError(f"{model.name} is not on this machine: nothing to remove in {folder}")
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link to {folder.resolve()}: remove the link and that folder yourself")
    with alone(model, wait=False):
        size = bytes_here(model)
        (folder / RECORD).unlink()  # first, so that what is left of a removal that was cut off counts for nothing
        shutil.rmtree(folder)
    return size


@contextmanager
def alone(model: ReleasedModel, wait: bool) -> Iterator[None]:
    """Keeps other processes from this model's folder. With `wait` it waits for them; else they are a ValueError."""
    folder = folder_of(model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise ValueError(f"{model.name} is being fetched by another process: end that one first") from None
        print(f"{model.name} is being fetched by another process: waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _file_sizes(folder: Path) -> dict[str, int]:
    """The files of a folder with their sizes, those of files on their way included; they may be moved meanwhile."""
    sizes = {}
    for path in folder.rglob("*") if folder.is_dir() else ():
        with suppress(OSError):
            if path.is_file():
                sizes[str(path.relative_to(folder))] = path.stat().st_size
    return sizes


def _changed_files(folder: Path, record: dict[str, Any]) -> list[str]:
    """The files of a finished fetch that are gone, and weights of another size; anything else may be edited."""
    files = record["files"]
    sizes = {name: _size_of(folder / name) for name in files}
    return [name for name, size in sizes.items() if size < 0 or (name.endswith(WEIGHTS) and size != files[name])]


def _size_of(path: Path) -> int:
    """Bytes of a file; -1 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _fetch(model: ReleasedModel, folder: Path, endpoint: str) -> None:
    from huggingface_hub import snapshot_download

    revisions = read_record(folder).get("revisions", {})
    files: dict[RepositoryFiles, list[FileOnHub]] = {}
    for repository in model.repositories:
        revisions[repository.repo], files[repository] = list_files(repository, revisions.get(repository.repo), endpoint)
    for repository, wanted in files.items():
        for file in wanted:
            path = folder / repository.into / file.name
            if _size_of(path) not in (-1, file.size):  # damaged: the hub's client would take it for the right one
                path.unlink()
    _check_disk(model, folder, files)
    _write_record(model, folder, revisions, complete=False)
    for repository, wanted in files.items():
        snapshot_download(
            repository.repo,
            revision=revisions[repository.repo],
            allow_patterns=[file.name for file in wanted],
            local_dir=folder / repository.into,
            endpoint=endpoint,
        )
    for repository, wanted in files.items():
        for file in wanted:
            path = folder / repository.into / file.name
            if _size_of(path) != file.size:
                raise ValueError(f"{path} did not come whole: `maskgil models get {model.name}` fetches the rest")
    if model.converted:
        from maskgil.released.conversion import convert_llamagen  # imports torch

        try:
            convert_llamagen(folder, model.size[0])
        except ValueError as error:
            raise ValueError(
                f"{error}; `maskgil models rm {model.name}` removes the files, to fetch them anew"
            ) from None
    _write_record(model, folder, revisions, complete=True)


def list_files(repository: RepositoryFiles, revision: str | None, endpoint: str) -> tuple[str, list[FileOnHub]]:
    """(the commit that `revision`, or the main branch, stands for; the files to fetch of it).

    Raises ConnectionError for an answer that is no hub's, such as the login page of a network, and ValueError for a
    repository without these files, and for a file that would lie outside the model's folder.
    """
    from huggingface_hub import HfApi

    try:
        info = HfApi(endpoint=endpoint).model_info(repository.repo, revision=revision, files_metadata=True)
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError):
        raise ConnectionError(f"what answers at {endpoint} is no Hugging Face hub, perhaps a login page") from None
    files = [
        FileOnHub(file.rfilename, file.size or 0) for file in info.siblings or [] if _wanted(file.rfilename, repository)
    ]
    if outside := [file.name for file in files if not _is_inside(file.name)]:
        raise ValueError(f"the repository {repository.repo} lists a file outside its folder, {outside[0]!r}: refused")
    if not files or info.sha is None:
        raise ValueError(f"the repository {repository.repo} holds none of {', '.join(repository.patterns)}")
    return info.sha, files


def _wanted(name: str, repository: RepositoryFiles) -> bool:
    matches = any(fnmatch.fnmatchcase(name, pattern) for pattern in repository.patterns)
    return matches and not any(fnmatch.fnmatchcase(name, pattern) for pattern in VARIANTS)


def _is_inside(name: str) -> bool:
    """Whether a file of this name lies in the folder that the name is relative to."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and not set(name) & {"\\", "\0"}


def free_disk(model: ReleasedModel) -> int:
    """Bytes that are free on the disk of the model's folder, which need not be there."""
    folder = folder_of(model)
    return shutil.disk_usage(next(parent for parent in (folder, *folder.parents) if parent.is_dir())).free


def _check_disk(model: ReleasedModel, folder: Path, files: dict[RepositoryFiles, list[FileOnHub]]) -> None:
    """ValueError where what is still to be fetched would fill the disk."""
    needed = 0
    for repository, wanted in files.items():
        for file in wanted:
            path = folder / repository.into / file.name
            needed += 0 if _size_of(path) == file.size else file.size
            needed += file.size if repository.into == "released" else 0  # they are here twice while they are converted
    free = free_disk(model)
    if needed + SPARE > free:
        raise ValueError(
            f"{model.name} needs {needed / 1e9:.1f} GB and {SPARE / 1e9:.1f} GB to spare, the disk of {folder} has "
            f"{free / 1e9:.1f} GB free: make room, or set {FOLDER} to a folder on another disk"
        )


def _write_record(model: ReleasedModel, folder: Path, revisions: dict[str, str], complete: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"name": model.name, "license": model.license, "revisions": revisions}
    record["complete"] = complete
    if complete:
        sizes = _file_sizes(folder)
        record["files"] = {name: size for name, size in sizes.items() if not name.startswith((".cache", RECORD))}
    write_json(folder / RECORD, record)
