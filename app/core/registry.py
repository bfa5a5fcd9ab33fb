"""The text-to-image models on this machine: which there are, where they lie, what each can draw.

A model is a folder with `generator/`, `text_encoder/`, `tokenizer/` and `vocabulary.json`; a class-driven one has no
`text_encoder/`, and may have `class_names.json`. It is named by its folder's name; app/core/model_names.py tells apart
those outside the bundled weights. Released models (maskgil/released) have their own layout and are named by their
Hugging Face ids.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.core import model_names
from app.core.memory_need import ModelSizes
from app.core.weight_counts import EncoderSize, encoder_size, part_numbers
from maskgil import model_folder
from maskgil.aspect_buckets import bucket_classes, sizes_of
from maskgil.fileio import parse_json
from maskgil.released import catalog, download, layout
from maskgil.sampler_presets import preset_of, sampler_for
from maskgil.shared_parts import resolve_part
from text_encoder.prompt_reader import PromptReader, PromptVocabulary

FILES = ("generator/config.json", "tokenizer/config.json", "vocabulary.json")
PARTS = ("generator", "text_encoder", "tokenizer")
RELEASED_PARTS = (layout.TRANSFORMER, layout.TEXT_ENCODER, layout.VQ)  # in the order of PARTS
TEXTS = "text_encoder/config.json"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")  # a Hugging Face id
HOW_TO_GET = "fetch the project's weights folder, or train one with `maskgil train` (docs/training-scenes.md)"

_fetched: dict[str, Path] = {}  # where Hugging Face's models lie, of those that this process has asked for


class UnavailableError(ValueError):
    """A model or a recognizer that is served cannot be opened now: whoever runs the server has to see to it."""


@dataclass(frozen=True)
class ModelInfo:
    """A complete model folder.

    classes       number of classes of a class-driven model; None: the model reads text
    sizes         image sizes (width, height) in pixels, the default first
    size_classes  the bucket classes of `sizes` (maskgil/aspect_buckets.py); empty for a fixed list
    parts         the folders of its generator, text encoder and tokenizer
    sampler       its preset of sampling options (maskgil/sampler_presets.py)
    """

    name: str
    folder: Path
    vocabulary: PromptVocabulary
    classes: int | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    size_classes: tuple[int, ...] = ()
    parts: tuple[str, str, str] = PARTS
    sampler: str = "default"

    @property
    def sizes_summary(self) -> str:
        """The sizes in a few words."""
        if self.size_classes:
            usual = " and ".join(f"{side}x{side}" for side in self.size_classes)
            return f"{len(self.sizes)} shapes, about {usual}"
        return " ".join(f"{width}x{height}" for width, height in self.sizes)

    @property
    def megabytes(self) -> float:
        return sum(f.stat().st_size for f in self.folder.rglob("*") if f.is_file()) / 1e6

    @property
    def parts_sizes(self) -> ModelSizes:
        """Numbers that its parts have learned, as the heads of its files tell."""
        generator, encoder, tokenizer = self.parts
        text = EncoderSize(0) if self.classes else encoder_size(resolve_part(self.folder / encoder))
        drawn = sum(
            part_numbers(place) for place in (self.folder / generator, *model_folder.expert_folders(self.folder))
        )
        return ModelSizes(drawn, part_numbers(self.folder / tokenizer), text)

    @property
    def parameters(self) -> int:
        """Numbers that are learned, of all its parts."""
        sizes = self.parts_sizes
        return sizes.generator + sizes.encoder.numbers + sizes.tokenizer

    @property
    def reads(self) -> str:
        """What a prompt is to it, in two words."""
        if self.classes:
            return f"{self.classes} classes"
        return f"{len(self.vocabulary.objects)} objects" if self.vocabulary.words else "free text"

    @property
    def reader(self) -> PromptReader:
        """Reads prompts for this model; one for a free-text model gives them back as they are."""
        return PromptReader.load(self.folder)

    def check_classes(self, *texts: str) -> None:
        """ValueError for a text that names none of a class-driven model's classes; an empty one names nothing."""
        if self.classes is None:
            return
        from maskgil.class_labels import ClassLabels  # torch takes seconds to import

        names = ClassLabels.open(self.folder, self.classes)
        for text in texts:
            if text.strip():
                names.number(text)

    @property
    def card(self) -> str:
        """The model card, or an empty text."""
        path = self.folder / "README.md"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def bundled_models() -> list[ModelInfo]:
    """The models among the bundled weights, by name. Folders of other kinds (recognizers, readers) are left out, and
    those that are broken: see `unfinished`."""
    models = []
    for folder in _folders():
        if not _missing(folder):
            with suppress(ValueError):
                models.append(_open(folder.name, folder))
    return models


def find(name: str) -> ModelInfo:
    """The model of this name or folder, or from Hugging Face: fetched once, when a person asks for it.

    Raises ValueError with what is missing and how to get it.
    """
    name = model_names.name_of(name)
    if _folder(name) is None and HUB_ID.fullmatch(name) and catalog.find_model(name) is None:
        from maskgil.checkpoint import resolve  # torch takes seconds to import, and a list of names does not need it

        _fetched[name] = resolve(name)
    return find_local(name)


def find_local(name: str) -> ModelInfo:
    """`find` without the network: what is on this machine, or was fetched by this process."""
    name = model_names.name_of(name)
    folder = _folder(name)
    if folder is not None and folder == download.find_fetched(name):
        name = catalog.released_model(name).name  # however its letters were written
    if folder is None:
        if (released := catalog.find_model(name)) is not None:
            raise ValueError(download.how_to_fetch(released))
        if HUB_ID.fullmatch(name):
            raise ValueError(f"{name} was not fetched from Hugging Face yet: open it on the Models page")
        there = ", ".join(model.name for model in [*bundled_models(), *fetched()])
        there = f"there is {there}" if there else f"there is none in {model_folder.weights_folder()}: {HOW_TO_GET}"
        meant = next(
            (each.name for each in catalog.MODELS if name and each.name.lower().endswith(f"/{name.lower()}")), ""
        )
        hint = f"did you mean the released model {meant}? Else " if meant else ""
        raise ValueError(f"no model named {name!r}, and no folder of that path: {hint}{there}")
    if missing := _missing(folder):
        raise ValueError(f"{folder} is no text-to-image model: {', '.join(missing)} missing in it; {HOW_TO_GET}")
    return _open(name, folder)


def _folder(name: str) -> Path | None:
    """Where a model lies on this machine; None when nothing of that name is here. A visitor's name opens no path."""
    if (named := model_names.folder_of(name)) is not None and named.is_dir():
        return named
    if model_names.is_bundled(name):
        return model_folder.weights_folder() / name
    if (released := download.find_fetched(name)) is not None:
        return released
    fetched = _fetched.get(name)
    return fetched if fetched is not None and fetched.is_dir() else None


def fetched() -> list[ModelInfo]:
    """The released models that were fetched, in the order of the catalog."""
    return [find_local(model.name) for model in catalog.MODELS if download.is_complete(model)]


def sampler_of(name: str, asked: str | None = None) -> str:
    """The preset of sampling options of a model by its name, or what the preset `asked` means for it (sampler_for);
    `default`, or `asked`, where the model has none or is not here."""
    with suppress(ValueError):
        if (folder := _folder(name)) is not None:
            return sampler_for(folder, asked)
    return "default" if asked is None else asked


def summary(model: ModelInfo, width: int = 12) -> str:
    """The model in one line, its name in at least `width` columns."""
    return f"{model.name:{width}} {model.reads:14} {model.sizes_summary}   {model.megabytes:.1f} MB   {model.folder}"


def describe_model(model: ModelInfo) -> str:
    """Everything that a person may want to know before writing a prompt."""
    words = model.vocabulary
    parts = [summary(model)]
    for title, things in (("objects", words.objects), ("backgrounds", words.backgrounds), ("styles", words.styles)):
        if things:
            more = ((t.name, ", ".join(t.synonyms + t.say)) for t in things)
            parts.append(f"{title}: {'; '.join(f'{name} ({words})' if words else name for name, words in more)}")
    named = (("counts", words.counts), ("relations", words.relations), ("colours of things", words.colours))
    for title, names in named:
        if names:
            parts.append(f"{title}: {', '.join(names)}")
    if model.classes:
        from maskgil.class_labels import ClassLabels  # torch again

        named = ClassLabels.open(model.folder, model.classes).names
        parts += ["classes: " + "; ".join(f"{i} {', '.join(names)}" for i, names in enumerate(named))] if named else []
    parts += [f"example: {example}" for example in words.examples]
    return "\n\n".join(parts + ([model.card] if model.card else []))


def broken_folders() -> dict[str, str]:
    """Folders among the bundled weights that have a part of a model and cannot be opened as one, and why."""
    reasons = {}
    for folder in _folders():
        if any((folder / part).is_dir() for part in PARTS):
            try:
                if missing := _missing(folder):
                    raise ValueError(f"{', '.join(missing)} missing in its folder")
                _open(folder.name, folder)
            except ValueError as error:
                reasons[folder.name] = str(error)
    return reasons


def _folders() -> list[Path]:
    root = model_folder.weights_folder()
    return sorted(f for f in root.iterdir() if f.is_dir()) if root.is_dir() else []


def recognizers() -> list[str]:
    """The bundled recognizers by name."""
    return sorted(folder.name for folder in _folders() if (folder / "model.pt").is_file() or _is_whisper(folder))


def _is_whisper(folder: Path) -> bool:
    """Whether the folder holds a Whisper in safetensors (speech/whisper_folder.py, without the import of torch)."""
    try:
        return parse_json((folder / "config.json").read_text(encoding="utf-8")).get("kind") == "whisper"
    except (OSError, ValueError, AttributeError):
        return False


def _missing(folder: Path) -> list[str]:
    if layout.is_released(folder):
        return layout.missing_files(folder)
    files = FILES if _classes(folder) else (*FILES, TEXTS)
    return [name for name in files if not _there(folder / name)]


def _there(file: Path) -> bool:
    """A file of a part, which may be the owner's."""
    try:
        return (resolve_part(file.parent) / file.name).is_file()
    except ValueError:
        return False


def _classes(folder: Path) -> int | None:
    """How many classes its generator draws; None for one that reads texts, or that cannot be read."""
    try:
        return parse_json((folder / FILES[0]).read_text(encoding="utf-8"))["config"]["classes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sizes(folder: Path) -> tuple[list[tuple[int, int]], tuple[int, ...]]:
    """(image sizes, bucket classes) that the vocabulary of a model folder lists. Raises ValueError for a damaged
    one."""
    path = folder / FILES[2]
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        buckets = bucket_classes(values)
        return sizes_of(values) if buckets or values.get("sizes") else [], buckets
    except (UnicodeDecodeError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): fetch the model folder again") from None


def _open(name: str, folder: Path) -> ModelInfo:
    if layout.is_released(folder):
        released = layout.ReleasedFolder.open(folder)
        words = PromptVocabulary.from_dict({})
        return ModelInfo(name, folder, words, sizes=released.sizes, parts=RELEASED_PARTS, sampler=released.sampler)
    sizes, size_classes = _sizes(folder)
    words, classes = PromptVocabulary.load(folder), _classes(folder)
    return ModelInfo(name, folder, words, classes, tuple(sizes), size_classes, sampler=preset_of(folder))
