"""Many pictures as files: drawn by several processes, each file written whole, finished ones kept.

    samples = numbered(prompts_for(model_config, "captions.txt", 50_000))
    draw_samples("weights/scenes", samples, Path("samples"), Settings(), processes=8)

A picture depends only on its prompt and seed, not on the process, the batch or restarts. `share="2/8"` draws every
eighth picture from the second on, so that several machines can fill one folder. `recipe.json` in the folder names model
and settings; others are refused. A PNG holds its prompt and seed; a folder refuses other prompts, but takes more of
them.

A model with a vocabulary gets the prompts as the app reads them. The picture of a prompt without anything to draw is
white.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from tqdm import tqdm

import text_encoder
from maskgil import checkpoint
from maskgil.fileio import atomic_write, write_json
from maskgil.models.config import ModelConfig
from maskgil.models.emigm import EMIGMConfig
from maskgil.params import SamplingMode, SamplingParams, read_params
from maskgil.picture_sizes import Size
from maskgil.pipeline import TextToImage
from maskgil.sampler_presets import preset_for, sampler_for
from maskgil.sampling.ar_prefix import beside
from maskgil.sampling_flags import given_options, sampling_flags
from maskgil.shared_parts import resolve_part
from train.eval.caption_reading import encoded_caption, reader_of, reading_shares
from train.scenes.captions import sentences

RECIPE = "recipe.json"
LEGACY_PARTS = {"twin": "ar_model"}  # former names of parts
ASKED = "maskgil-sample"  # the text chunk of a PNG with its prompt and seed


@dataclass(frozen=True)
class Sample:
    """A picture to draw; `path` is relative to the folder of all."""

    prompt: str
    seed: int
    path: str

    @property
    def asked(self) -> str:
        """Prompt and seed, as its file holds them."""
        return json.dumps([self.prompt, self.seed])

    def is_in(self, out: Path) -> bool:
        """Whether it was drawn already. ValueError for a file of that name that shows something else."""
        path = out / self.path
        try:
            with Image.open(path) as image:
                found = image.info.get(ASKED)
        except FileNotFoundError:
            return False
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"{path} is no picture: {error}") from None
        if found != self.asked:
            raise ValueError(
                f"{path} was drawn for {found or 'nobody knows what'}, now {self.asked} is asked for: give another "
                "folder, or delete it"
            )
        return True


def numbered(prompts: Sequence[str]) -> list[Sample]:
    """000000.png, 000001.png, ...; the number is the seed."""
    return [Sample(prompt, number, f"{number:06d}.png") for number, prompt in enumerate(prompts)]


def generator_config(model: str) -> ModelConfig | EMIGMConfig:
    """The config of the generator of a text-to-image folder, without its weights."""
    about = checkpoint.describe(checkpoint.resolve(model) / "generator")
    return (EMIGMConfig if about["kind"] == "emigm" else ModelConfig).from_dict(about["config"])


def prompts_for(config: ModelConfig | EMIGMConfig, source: str, n: int) -> list[str]:
    """n prompts from a file (lines of text, or JSON lines with "prompt"), again from its start when it is shorter.

    "scenes" are captions of the built-in grammar. A class-driven model needs no source: its classes take turns.
    Raises ValueError for a missing or empty source.
    """
    if n < 1:
        raise ValueError(f"n is {n}: give the number of pictures, 50000 is usual")
    if config.classes is not None and not source:
        return [str(number % config.classes) for number in range(n)]
    if source == "scenes":
        return sentences(n, seed=5)
    if not source:
        raise ValueError("a text-driven model needs --prompts FILE (lines of text, or .jsonl), or --prompts scenes")
    lines = read_prompts(Path(source))
    return [lines[number % len(lines)]["prompt"] for number in range(n)]


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """{"prompt": ..., and what else a JSON line says} of every line that is not empty. ValueError names a bad line."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise ValueError(f"cannot read the prompts: {error}") from None
    if not lines:
        raise ValueError(f"{path} holds no prompts")
    if path.suffix != ".jsonl":
        return [{"prompt": line.strip()} for line in lines]
    out = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from None
        if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
            raise ValueError(f'{path}, line {number} has no "prompt"')
        out.append(entry)
    return out


@dataclass(frozen=True)
class SamplerOptions(sampling_flags(without=("steps",))):
    """How pictures are drawn: a sampler by name, and the options that differ from it."""

    def params(self, steps: int | None = None, model: str = "", mode: SamplingMode | None = None) -> SamplingParams:
        """The sampling parameters. ValueError for what is out of bounds.

        model  a folder or name, whose preset counts where none is chosen, and which decides what `reference` is
        mode   what it is to draw in, where the options do not say
        """
        given = given_options(self) | ({} if steps is None else {"steps": steps})
        if self.ar_tokens is not None and self.mode is None:
            given["mode"] = "hybrid"
        if model:
            usual = sampler_for(checkpoint.resolve(model), self.sampler)
            given["sampler"] = usual if self.sampler else preset_for(usual, given.get("mode", mode))
        return read_params(given)

    def __str__(self) -> str:
        """What differs from the defaults, for the title of a table: ", guidance_scale 3"."""
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return "".join(f", {n} {v:g}" if isinstance(v, float) else f", {n} {v}" for n, v in changed.items())


@dataclass(frozen=True)
class WorkOptions:
    """How the work of drawing a folder is split."""

    processes: int = 1
    """Processes on this machine, each with a GPU of its own where there are any."""
    share: str = ""
    """2/8: draw every eighth picture from the second on; other machines draw the others. Then no score is printed."""
    batch: int = 16
    """Pictures drawn at once."""
    size: str = ""
    """Width x height in pixels. Left out: the model's first size."""


def draw_samples(
    model: str,
    samples: Sequence[Sample],
    out: Path,
    settings: SamplingParams,
    size: Size | None = None,
    batch: int = 16,
    processes: int = 1,
    share: str = "",
) -> bool:
    """Draw what is missing in `out`; True when everything is there afterwards.

    Raises ValueError when the folder belongs to another model, other settings or other prompts, and when a process
    failed.
    """
    if processes < 1 or batch < 1:
        raise ValueError(f"{processes} processes, batches of {batch}: give at least 1 of each")
    _claim(out, _recipe(model, settings, size))
    mine = list(_share(samples, share))
    missing = [sample for sample in mine if not sample.is_in(out)]
    print(f"{out}: {len(mine) - len(missing):,} of {len(mine):,} pictures are there", flush=True)
    if not (reader := reader_of(model)).is_free_text:
        print(reading_shares([reader.read(prompt) for prompt in dict.fromkeys(sample.prompt for sample in samples)]))
    if missing and processes == 1:
        _draw(0, 1, model, missing, out, settings, size, batch)
    elif missing:
        _spawn(processes, model, missing, out, settings, size, batch)
    return all((out / sample.path).is_file() for sample in samples)


def _share(samples: Sequence[Sample], share: str) -> Sequence[Sample]:
    if not share:
        return samples
    first, _, of = share.partition("/")
    if not (first.isdecimal() and of.isdecimal() and 1 <= int(first) <= int(of)):
        raise ValueError(f"share={share}: give which of how many, from 1/{of or 'N'} on, such as 2/8")
    return samples[int(first) - 1 :: int(of)]


def _spawn(
    processes: int, model: str, missing: Sequence[Sample], out: Path, settings: SamplingParams, *rest: Any
) -> None:
    context = torch.multiprocessing.get_context("spawn")
    named, faults = settings.to_dict(), context.SimpleQueue()
    workers = [
        context.Process(
            target=_worker, args=(faults, rank, processes, model, missing[rank::processes], out, named, *rest)
        )
        for rank in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    failed = [worker.exitcode for worker in workers if worker.exitcode]
    if failed:
        why = f" ({faults.get()})" if not faults.empty() else ""
        raise ValueError(
            f"{len(failed)} of {processes} processes failed{why}; the same command goes on where they stopped"
        )


def _worker(
    faults: Any, rank: int, processes: int, model: str, missing: Sequence[Sample], out: Path, named: dict, *rest: Any
) -> None:
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    try:
        _draw(rank, processes, model, missing, out, read_params(named), *rest)
    except (ValueError, OSError) as error:  # the first process reports it in one line
        faults.put(" ".join(str(error).split()))
        sys.exit(1)


@torch.no_grad()
def _draw(
    rank: int,
    processes: int,
    model: str,
    missing: Sequence[Sample],
    out: Path,
    settings: SamplingParams,
    size: Size | None,
    batch: int,
) -> None:
    if torch.cuda.is_available():
        device, dtype = f"cuda:{rank % torch.cuda.device_count()}", torch.bfloat16
    else:
        device, dtype = "cpu", torch.float32
    draws, reader = TextToImage.load(model, text_encoder.load, device, dtype), reader_of(model)
    title = f"drawing, process 1 of {processes}" if processes > 1 else "drawing"
    with tqdm(total=len(missing), desc=title, unit="picture", disable=rank > 0, mininterval=5) as bar:
        together = max(1, batch // settings.candidates)
        for start in range(0, len(missing), together):
            part = missing[start : start + together]
            captions = [encoded_caption(reader, sample.prompt) for sample in part]
            drawn = [place for place, caption in enumerate(captions) if caption]
            seeds = [part[place].seed for place in drawn]
            images = draws.images([captions[place] for place in drawn], seeds, size, settings) if drawn else []
            pictures = dict(zip(drawn, images, strict=True))
            for place, sample in enumerate(part):
                _write(pictures.get(place) or blank_image(draws, size), sample, out / sample.path)
            bar.update(len(part))


def blank_image(draws: TextToImage, size: Size | None) -> Image.Image:
    """The picture of a prompt in which nothing can be drawn."""
    return Image.new("RGB", size or draws.sizes[0], "white")


def _write(image: Image.Image, sample: Sample, path: Path) -> None:
    """Whole or not at all. Raises ValueError when it cannot be written."""
    note = PngImagePlugin.PngInfo()
    note.add_text(ASKED, sample.asked)
    try:
        with atomic_write(path, shared=True) as partial:
            image.save(partial, "PNG", pnginfo=note)
    except OSError as error:
        raise ValueError(f"could not write {path}: {error}; finished pictures are kept") from None


def current_settings(found: dict[str, Any]) -> dict[str, Any]:
    """The settings in a folder's recipe.json by the names of `SamplingParams`, whichever version wrote it."""
    if "guidance" not in found:
        return found
    guidance, prefix = found["guidance"], found.get("ar_prefix")
    values = {name: value for name, value in found.items() if name not in ("guidance", "ar_prefix")}
    values |= {f"guidance_{name}": value for name, value in guidance.items()}
    if prefix is not None:
        led = {f"ar_guidance_{name}": value for name, value in prefix["guidance"].items() if name != "power"}
        rest = {f"ar_{name}": value for name, value in prefix.items() if name != "guidance"}
        values |= {"mode": "hybrid", **led, **rest}
    return read_params(values).to_dict()


def _recipe(model: str, settings: SamplingParams, size: Size | None) -> dict[str, Any]:
    folder = checkpoint.resolve(model)
    files = {part: resolve_part(folder / part) / checkpoint.WEIGHTS for part in ("generator", "tokenizer")}
    if settings.mode != "masked" and (ar_model := beside(folder)):  # without one, drawing says what is missing
        files["ar_model"] = ar_model / checkpoint.WEIGHTS
    weights = {"text_encoder": checkpoint.describe(folder / "generator").get("text_encoder_hash")}
    for part, path in files.items():
        if not path.is_file():
            raise ValueError(f"{folder} is not a text-to-image folder: {path} is missing")
        with path.open("rb") as file:
            weights[part] = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    recipe = {"weights": weights, "settings": settings.to_dict(), "size": size}
    if settings.refinement_passes and checkpoint.describe(folder / "generator")["kind"] == "emigm":
        recipe["judge"] = "bound"  # vectors were not revised before there was one, whatever was asked for
    return json.loads(json.dumps(recipe))  # tuples become lists, as they will be read back


def _claim(out: Path, recipe: dict[str, Any]) -> None:
    """Write recipe.json. ValueError for a folder with another one."""
    note = out / RECIPE
    out.mkdir(parents=True, exist_ok=True)
    if not note.is_file():
        write_json(note, recipe)
        return
    found = json.loads(note.read_text())
    found["settings"] = current_settings(found.get("settings", {}))
    found["weights"] = {LEGACY_PARTS.get(part, part): hash for part, hash in found.get("weights", {}).items()}
    differ = [name for name in recipe if found.get(name) != recipe[name]]
    if differ:
        raise ValueError(f"{out} holds pictures of another {' and '.join(differ)}: give another folder, or delete it")
