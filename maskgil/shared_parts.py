"""Parts that model folders share: the tokenizer/ or text_encoder/ of a folder may be that of a model folder beside it.

It holds a config.json that names the owner, and nothing else: two generators, one encoder.
"""

from pathlib import Path

from maskgil.fileio import parse_json, write_json

CONFIG, LINKED = "config.json", "borrowed"


def link_part(model: str, folder: str | Path) -> None:
    """Make `folder`, a part of a model folder, stand for the same part of `model`, a model folder beside its own."""
    write_json(Path(folder) / CONFIG, {"kind": LINKED, "model": model})


def resolve_part(folder: str | Path) -> Path:
    """Where a part of a model folder lies: there, or where it is borrowed from. ValueError for an owner that is not
    there, or borrows too."""
    folder = Path(folder)
    if (model := _borrows(folder)) is None:
        return folder
    other = folder.resolve().parent.parent / Path(model).name / folder.name
    if not (other / CONFIG).is_file() or _borrows(other) is not None:
        raise ValueError(f"{folder} borrows the {folder.name.replace('_', ' ')} of {model}, but {other} holds none")
    return other


def _borrows(folder: Path) -> str | None:
    """The model that a part is borrowed from. What cannot be read says no such thing: whoever opens it complains."""
    try:
        about = parse_json((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(about.get("model")) if isinstance(about, dict) and about.get("kind") == LINKED else None
