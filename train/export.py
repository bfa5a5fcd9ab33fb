"""Assemble trained parts into a model folder: `maskgil export PART`.

    maskgil export scenes --tokenizer runs/decoder/export --generator runs/generator/export --out weights/scenes
        [--expert runs/more-things/export]
    maskgil export emigm --tokenizer weights/scenes/tokenizer --generator runs/scenes-emigm/export
        --text-encoder weights/scenes/text_encoder [--borrow scenes] --out weights/scenes-emigm
    maskgil export ar --ar-model runs/ar/export --model weights/scenes --out weights/scenes-ar [--adopt]
    maskgil export reader --reader runs/reader/export --sprites FOLDER --out weights/scenes-reader
    maskgil export text --generator runs/t2i-xl-512/export --tokenizer FOLDER --text-encoder google/flan-t5-xl
        --size 512 256 --out weights/t2i-xl
    maskgil export class --generator runs/c2i-b/export --tokenizer FOLDER --size 256 --out weights/imagenet-b
        [--class-names FILE --adopt]

`scenes` writes tokenizer/, text_encoder/, generator/ and vocabulary.json, and loads the result once. Parts that were
trained with other parts are refused. `emigm` does the same for continuous tokens. With --borrow its text encoder is
that of the named model folder beside it, and so is its tokenizer where the tokens are the latents of that model's
tokenizer. `ar` writes the AR model of a model folder; it must have been trained with the same tokenizer and text
encoder. A converted LlamaGen GPT names neither: --adopt accepts it when its shapes fit. `text` and `class` write models
of the large recipes (train/recipes/pretrain.py) to a new folder, which appears whole or not at all:

    size          the size classes that the generator was trained on, the usual one first (maskgil/aspect_buckets.py)
    shape         any: all buckets of each class;  square: only SIZE x SIZE, which class-driven models usually learn
    text_encoder  a Hugging Face name, which is recorded, or a folder, which is copied
    class_names   JSON as maskgil/class_labels.py reads it; left out: the names of the folders that it was trained on
    adopt         accept the given tokenizer for a converted generator that does not name one, such as the released
                  eMIGM. `class` also exports eMIGM with a latent tokenizer, at its one size

The model card (README.md) is written by people.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import nn
from tyro.conf import arg

import text_encoder as encoders
from maskgil import checkpoint, shared_parts
from maskgil.aspect_buckets import aspect_buckets
from maskgil.class_labels import FILE as CLASS_NAMES
from maskgil.class_labels import ClassLabels
from maskgil.experts import EXPERTS_KEY
from maskgil.fileio import write_json
from maskgil.model_folder import EXPERTS
from maskgil.pipeline import TextToImage
from maskgil.sampling.ar_prefix import load_ar_model, validate_ar_model
from maskgil.tokenizers import vq_latents
from train.eval.scene_score import write_reference
from train.scenes.captions import spoken_names, vocabulary
from train.scenes.judge import save_judge
from train.scenes.scene import KNOWN_THINGS
from train.scenes.sprites import Sprites, things
from train.scenes.vocabulary_growth import is_grown_from

# Weights for other frameworks, and leftovers of downloads.
NOT_COPIED = ("*.msgpack", "*.h5", "*.ot", "*.onnx", "onnx", ".git", ".cache")


def export_scenes(tokenizer: str, generator: str, out: str, expert: str = "") -> None:
    """Write a model folder of scenes, and open it once.

    It replaces an existing folder, of which the card and other files stay, but not the experts.

    Raises ValueError for parts that were trained with other parts, and for an expert without new things.

    Args:
        tokenizer: The tokenizer: the export of scenes-decoder, or that of a model folder.
        generator: The export of scenes-generator, which holds the text encoder too, or a model folder.
        out: The model folder.
        expert: The export of a run that learned only the new things (maskgil/experts.py). It draws the prompts that
            name one; `generator` draws all others.
    """
    model = checkpoint.load(tokenizer, "vq")
    trunk = checkpoint.load(Path(generator) / "generator", "maskgil")
    notes = checkpoint.describe(Path(generator) / "generator")
    hashes = {name: notes[name] for name in ("tokenizer_hash", "text_encoder_hash")}
    _belong("tokenizer", tokenizer, model, generator, notes)
    words, encoder = vocabulary(model.config.upscale), encoders.load(Path(generator) / "text_encoder")
    if expert:
        notes = checkpoint.describe(Path(expert) / "generator")
        _belong("tokenizer", tokenizer, model, expert, notes)
        encoder = _grown(encoder, Path(expert) / "text_encoder")
        hashes["text_encoder_hash"] = notes["text_encoder_hash"]
        words[EXPERTS_KEY] = [_new_things(words)]
    with appearing(out, replaces=True, but_not=EXPERTS) as target:
        _save_tokenizer(target / "tokenizer", model)
        checkpoint.save(target / "generator", trunk, trunk.kind, trunk.config.to_dict(), **hashes)
        if expert:
            learned = checkpoint.load(Path(expert) / "generator", "maskgil")
            checkpoint.save(target / EXPERTS / "1", learned, learned.kind, learned.config.to_dict(), **hashes)
        encoder.save(target / "text_encoder")
        write_json(target / "vocabulary.json", words)
        TextToImage.load(target, encoders.load)


def _new_things(words: dict[str, Any]) -> dict[str, list[str]]:
    """The names of the things of the table after KNOWN_THINGS, and the phrases of a vocabulary that only contain one.
    ValueError when there are no such things."""
    if not (new := things()[KNOWN_THINGS:]):
        raise ValueError(f"the table has no things after the first {KNOWN_THINGS}: an expert would draw nothing")
    names = {name for thing in new for name in spoken_names(thing)}
    known = {name for thing in things()[:KNOWN_THINGS] for name in spoken_names(thing)}
    scenery = {phrase for kind in ("backgrounds", "styles") for each in words[kind] for phrase in each["say"]}
    name = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b")
    return {"names": sorted(names), "except": sorted(phrase for phrase in known | scenery if name.search(phrase))}


def _grown(known: Any, folder: Path) -> Any:
    """The text encoder of this folder. ValueError where texts without its new words have other states than `known`
    gives them: the generator of `known` could not read them."""
    encoder = encoders.load(folder)
    if not is_grown_from(encoder, known):
        raise ValueError(f"{folder} is not the generator's text encoder with more words: train it with --grow")
    return encoder


def export_emigm(tokenizer: str, generator: str, text_encoder: str, out: str, borrow: str = "") -> None:
    """Write a model folder of an eMIGM, and open it once.

    Raises ValueError for parts that were trained with other parts, and for a folder that is already there.

    Args:
        tokenizer: The tokenizer of the latents: a KL tokenizer, or the VQ tokenizer whose vectors they are.
        generator: The export of scenes-emigm.
        text_encoder: The folder of the text encoder.
        out: The new model folder.
        borrow: A model folder beside it, by name, whose text encoder it shares, and whose tokenizer if it is the same.
    """
    path = Path(generator) / "generator"
    trunk, notes = checkpoint.load(path, "emigm"), checkpoint.describe(path)
    model, encoder = vq_latents.load_latent_tokenizer(tokenizer), encoders.load(text_encoder)
    _belong("tokenizer", tokenizer, model, generator, notes)
    _belong("text encoder", text_encoder, encoder, generator, notes)
    shared = []  # parts that are the owner's
    if borrow:
        owner = Path(out).parent / borrow
        _belong("text encoder", str(owner / "text_encoder"), encoders.load(owner / "text_encoder"), generator, notes)
        shared.append("text_encoder")
        if model.code_tokenizer is not None:  # its latents are those of the owner's tokenizer
            _belong(
                "tokenizer",
                str(owner / "tokenizer"),
                vq_latents.load_latent_tokenizer(owner / "tokenizer"),
                generator,
                notes,
            )
            shared.append("tokenizer")
    side, (rows, columns) = model.config.downsample, trunk.config.grid
    hashes = {name: notes[name] for name in ("tokenizer_hash", "text_encoder_hash")}
    with appearing(out) as target:
        _save_tokenizer(target / "tokenizer", model.stored)
        checkpoint.save(target / "generator", trunk, trunk.kind, trunk.config.to_dict(), **hashes)
        encoder.save(target / "text_encoder")
        words = vocabulary() | {"sizes": [[columns * side, rows * side]]}
        write_json(target / "vocabulary.json", words)
        TextToImage.load(target, encoders.load)
        for part in shared:
            shutil.rmtree(target / part)
            shared_parts.link_part(borrow, target / part)


def _save_tokenizer(folder: Path, model: Any) -> None:
    """Write a tokenizer. Layers that only draw take a byte a number where the tokenizer says so (`bytewise`), which
    makes the download smaller; those that decide the tokens stay as they are."""
    checkpoint.save(folder, model, model.kind, model.config.to_dict(), bytewise=model.bytewise)


def export_text(
    generator: str,
    tokenizer: str,
    text_encoder: str,
    size: tuple[int, ...],
    out: str,
    shape: Literal["any", "square"] = "any",
) -> None:
    """Write a model folder of a text-driven recipe, and open it once.

    Raises ValueError for parts that were trained with other parts, and for a folder that is already there.

    Args:
        generator: The export of a run.
        tokenizer: The tokenizer that its cache was made with: a model folder or its name.
        text_encoder: The text encoder: a Hugging Face name, which is recorded, or a folder, which is copied.
        size: Size classes that it was trained on, the usual one first.
        out: The new model folder.
        shape: any: it draws all aspect ratios of each size class; square: only squares.
    """
    trunk, notes = _generator(generator)
    if trunk.config.classes is not None:
        raise ValueError(f"{generator} is driven by classes: publish it with `maskgil export class`")
    sizes, codes = _sizes(size, shape), _tokenizer(tokenizer, generator, notes)
    encoder = encoders.load(text_encoder)
    _belong("text encoder", text_encoder, encoder, generator, notes)
    with appearing(out) as target:
        place = target / "text_encoder"
        if isinstance(encoder, encoders.HuggingFaceEncoder) and Path(encoder.name).is_dir():
            shutil.copytree(encoder.name, place / "model", ignore=shutil.ignore_patterns(*NOT_COPIED))
            encoder.name = "model"
        encoder.save(place)
        del encoder
        _finish(target, trunk, notes, codes, sizes)


def export_class(
    generator: str,
    tokenizer: str,
    size: tuple[int, ...],
    out: str,
    shape: Literal["any", "square"] = "square",
    class_names: str = "",
    adopt: bool = False,
) -> None:
    """Write a model folder of a class-driven recipe, and open it once.

    Raises ValueError for parts that were trained with other parts, and for a folder that is already there.

    Args:
        generator: The export of a run, or a converted generator.
        tokenizer: The tokenizer that its cache was made with: a model folder or its name.
        size: Size classes that it was trained on, the usual one first.
        out: The new model folder.
        shape: any: it draws all aspect ratios of each size class; square: only squares.
        class_names: A JSON list with the names of each class. Left out: the names of the folders it was trained on.
        adopt: Accept this tokenizer for a generator that does not record one, as converted ones do not.
    """
    trunk, notes = _generator(generator, ("maskgil", "emigm"))
    if (classes := trunk.config.classes) is None:
        raise ValueError(f"{generator} is driven by texts: publish it with `maskgil export text`")
    sizes, kind = _sizes(size, shape), trunk.token_space.tokenizer_kind
    made_by = _tokenizer(tokenizer, generator, notes, adopt, kind)
    trained = [[name] for name in notes.get("classes", [])]
    names = ClassLabels.read(Path(class_names), classes).names if class_names else trained
    with appearing(out) as target:
        if names:
            write_json(target / CLASS_NAMES, names)
        _finish(target, trunk, notes, made_by, sizes)


def _generator(folder: str, kinds: tuple[str, ...] = ("maskgil",)) -> tuple[nn.Module, dict[str, Any]]:
    """The generator of an export, in bfloat16, and what its config.json notes."""
    path = Path(folder) / "generator" if (Path(folder) / "generator").is_dir() else Path(folder)
    about = checkpoint.describe(path)
    notes = {key: value for key, value in about.items() if key not in ("kind", "config")}
    return checkpoint.load(path, about["kind"] if about["kind"] in kinds else kinds[0], torch.bfloat16), notes


def _tokenizer(name: str, generator: str, notes: dict[str, Any], adopt: bool = False, kind: str = "vq") -> nn.Module:
    """The generator's tokenizer. `adopt`: where the notes name no tokenizer, write this one into them."""
    model = checkpoint.load(checkpoint.resolve(name), kind)
    if adopt and "tokenizer_hash" not in notes:
        notes["tokenizer_hash"] = checkpoint.fingerprint(model.identity())
        print(
            f"warning: {generator} does not say which tokenizer it was trained with; on your word it is {name}: with "
            f"another one it draws noise",
            file=sys.stderr,
        )
    _belong("tokenizer", name, model, generator, notes)
    return model


def _belong(part: str, name: str, model: Any, generator: str, notes: dict[str, Any]) -> None:
    """ValueError when the generator was trained with another tokenizer or text encoder, or does not say with which."""
    wanted, found = notes.get(f"{part.replace(' ', '_')}_hash"), checkpoint.fingerprint(model.identity())
    if wanted is None:
        raise ValueError(f"{generator} does not say which {part} it was trained with: give an export of train")
    if wanted != found:
        raise ValueError(
            f"{generator} was trained with another {part} than {name}: it wants the fingerprint {wanted}, this one has "
            f"{found}; give the one that its cache was made with"
        )


def _sizes(size: tuple[int, ...], shape: str) -> dict[str, Any]:
    """What vocabulary.json says of the sizes."""
    for side in size:
        aspect_buckets(side)  # ValueError unless it is a size class
    classes = list(size)
    return {"bucket_classes": classes} if shape == "any" else {"sizes": [[side, side] for side in classes]}


@contextmanager
def appearing(out: str, replaces: bool = False, but_not: str = "") -> Iterator[Path]:
    """A folder to fill, which becomes `out` at the end and is removed after an error. `replaces`: an existing `out` is
    replaced; files and folders of it that the new folder lacks are kept, except the one named `but_not`."""
    target = Path(out)
    if target.exists() and not replaces:
        raise ValueError(f"{out} is there already: give another folder, or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.", ignore_cleanup_errors=True) as made:
        filled = Path(made) / target.name
        filled.mkdir()
        yield filled
        if target.exists():
            for other in target.iterdir():
                if other.name != but_not and not (filled / other.name).exists():
                    (shutil.copytree if other.is_dir() else shutil.copy2)(other, filled / other.name)
            os.rename(target, Path(made) / "before")
        os.rename(filled, target)
    print(f"{target}: {_megabytes(target):.1f} MB")


def _finish(target: Path, trunk: Any, notes: dict[str, Any], tokenizer: Any, sizes: dict[str, Any]) -> None:
    """Write the parts that all models have, and load the folder once."""
    for part, model, about in (("tokenizer", tokenizer, {}), ("generator", trunk, notes)):
        checkpoint.save(target / part, model, model.kind, model.config.to_dict(), **about)
    write_json(target / "vocabulary.json", sizes)
    TextToImage.load(target, encoders.load, dtype=torch.bfloat16)


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def export_ar(ar_model: Annotated[str, arg(aliases=("--twin",))], model: str, out: str, adopt: bool = False) -> None:
    """Write the autoregressive model of a model folder, for hybrid drawing.

    Raises ValueError for one that was trained with another tokenizer or text encoder.

    Args:
        ar_model: The export of a run, or a converted LlamaGen GPT.
        model: The model folder that it works with.
        out: The folder to write: the model folder's name with -ar after it.
        adopt: Accept a model that does not record its tokenizer, as converted ones do not, if its shapes fit.
    """
    draws = TextToImage.load(model, encoders.load, dtype=torch.bfloat16)
    if draws.generator.token_space.codebook_size is None:
        raise ValueError(f"{model} draws vectors, and an AR model writes codes: it can have none")
    parts = {"tokenizer": draws.tokenizer}
    if draws.generator.config.classes is None:
        parts["text_encoder"] = draws.text_encoder
    hashes = {name: checkpoint.fingerprint(part.identity()) for name, part in parts.items()}
    notes, card = checkpoint.describe(ar_model), Path(ar_model) / checkpoint.CARD
    silent = [name for name in hashes if f"{name}_hash" not in notes] if adopt else []
    found = load_ar_model(
        ar_model, {name: found for name, found in hashes.items() if name not in silent}, torch.bfloat16
    )
    validate_ar_model(found, draws.generator.config)
    for name in silent:
        print(
            f"warning: {ar_model} does not say which {name.replace('_', ' ')} it was trained with; on your word it is "
            f"that of {model}, {hashes[name]}: with another one it draws noise",
            file=sys.stderr,
        )
    kept = card.read_text(encoding="utf-8") if silent and card.is_file() else None
    config, named = found.config.to_dict(), {f"{name}_hash": value for name, value in hashes.items()}
    checkpoint.save(out, found, found.kind, config, kept, **named)
    print(f"{out}: {_megabytes(Path(out)):.1f} MB")


def export_reader(reader: str, sprites: str, out: str, scenes: int = 3000) -> None:
    """Write the judge of the scene score, with the statistics of rendered scenes for the Fréchet distance.

    Args:
        reader: The export of scenes-reader.
        sprites: The folder of drawings that it was trained on.
        out: The folder to write.
        scenes: Rendered scenes of which the statistics are made.
    """
    model = checkpoint.load(reader, "reader")
    save_judge(model, Path(out))
    with torch.no_grad():
        write_reference(model.eval(), Sprites(sprites), Path(out) / "reference.safetensors", scenes)


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil export` now")
