"""The options that generate, edit and listen share, and the drawing itself: load, draw, write every file or none."""

import logging
import os
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from app.core import model_names, paths
from app.core.request import GenerationRequest, random_seed
from maskgil.command_line import CommandFailed
from maskgil.params import read_params
from maskgil.picture_sizes import parse_size
from maskgil.sampler_presets import preset_for
from maskgil.sampling_flags import given_options, sampling_flags

if TYPE_CHECKING:
    from app.core.edit_request import EditRequest
    from app.core.registry import ModelInfo  # they import torch, which takes seconds
    from app.serving.engine import Engine
    from app.serving.jobs import Job
    from maskgil.pipeline import TextToImage


TextEncoderMemory = Literal["full", "bf16", "8bit", "4bit", "offload"]  # text_encoder/encoder_memory.py imports torch
MEMORY_METAVAR = "{full,bf16,8bit,4bit,offload}"


@dataclass(frozen=True)
class DrawOptions(sampling_flags()):
    """Options of every command that draws."""

    out: Path = Path("picture.png")
    """The PNG to write. With --n 4 it holds all four side by side, and NAME-1.png to NAME-4.png hold one each."""
    model: str = field(default_factory=paths.default_model)
    """A bundled or fetched model by name (`maskgil models` lists them), or a model folder. Left out: $MASKGIL_MODEL,
    or scenes."""
    size: Annotated[str | None, arg(metavar="WxH")] = None
    """Width x height in pixels, for example 256x256. Left out: the model's first size. A model of size buckets draws
    the nearest that it has, another the nearest of the very shape, and says so."""
    seed: Annotated[int | None, arg(metavar="INT")] = None
    """The same seed draws the same picture. Left out: a new one, which is printed."""
    negative: str = ""
    """What to leave out of the picture, in words. It takes the place of the empty prompt in guidance."""
    n: int = 1
    """How many pictures; picture i has the seed SEED + i."""
    metadata: bool = True
    """Write prompt, seed, model and settings into the PNG."""
    precision: Annotated[Literal["fp32", "bf16"] | None, arg(metavar="{fp32,bf16}")] = None
    """Of the generator's weights: fp32 is exact, bf16 takes half the memory. Left out: bf16 on a GPU, else fp32."""
    text_encoder: Annotated[TextEncoderMemory | None, arg(metavar=MEMORY_METAVAR)] = None
    """Memory of a released model's text encoder: fewer bits, or offload. Left out: $MASKGIL_TEXT_ENCODER, or full."""
    adapters: str = ""
    """LoRA adapters by name, with weights: "ink:0.8, holiday". They lie in $MASKGIL_MODELS/adapters."""
    strict: bool = False
    """Refuse a prompt of which something is left out or replaced. Otherwise the command says so and draws the rest."""
    anyway: bool = False
    """Draw even when nothing of the prompt is known: the text encoder then gets the text as it is."""

    def validate_out(self) -> None:
        """ValueError when the picture could not be written there: checked before it is drawn."""
        path = self.out
        if path.suffix.lower() != ".png":
            raise ValueError(f"{path} is no PNG: pictures are written as PNG, give a name that ends in .png")
        if path.is_dir() or not path.parent.is_dir():
            problem = "is a folder" if path.is_dir() else f"lies in {path.parent}, which is no folder"
            raise ValueError(f"{path} {problem}: give another --out")
        if not os.access(path.parent, os.W_OK):
            raise ValueError(f"{path.parent} cannot be written to: give another --out")

    def request(self, prompt: str) -> GenerationRequest:
        """The request for `prompt`. ValueError for an option out of its bounds."""
        from app.core.registry import sampler_of

        model, given = model_names.name_of(self.model), given_options(self)
        usual = sampler_of(model, self.sampler)
        if self.sampler is None:
            usual = preset_for(usual, given.get("mode"), self.negative)
        return GenerationRequest(
            prompt=prompt,
            seed=random_seed() if self.seed is None else self.seed,
            model=model,
            size=parse_size(self.size) if self.size else None,
            negative_prompt=self.negative,
            n=self.n,
            adapters=self.adapters,
            params=read_params(given | {"sampler": usual}),
        )


def draw_to_files(options: DrawOptions, prompt: str, change: "EditRequest | None" = None) -> None:
    """Draw `prompt` and write the PNGs. `change`: the picture to edit, where there is one.

    Raises ValueError for a request that the model cannot draw, CommandFailed when the drawing fails.
    """
    from app.core import registry
    from app.core.request import parse_adapters
    from maskgil.adapter_folder import find_adapter

    request = options.request(prompt)
    model = registry.find(request.model)
    request, note = _admitted(options, request, model)
    if note:
        print(note, file=sys.stderr)
    for name, _ in parse_adapters(request.adapters):
        find_adapter(name)  # refused before a large model is loaded
    print(f"loading {model.name} ...", file=sys.stderr)
    from app.serving.local_engine import LocalEngine  # after everything that can be refused at once

    engine = LocalEngine(_opener(options))
    try:
        job = _submit(engine, request, change)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing was written") from None
    except (RuntimeError, MemoryError) as error:
        raise CommandFailed(f"the drawing failed ({type(error).__name__}: {error})") from error
    finally:
        engine.close()
    _write(options, job)


def _opener(options: DrawOptions) -> "partial[TextToImage]":
    """Loads a model in the precision, and with the text encoder, that the options ask for."""
    import torch

    from app.serving.model_pool import open_model

    dtype = {None: None, "fp32": torch.float32, "bf16": torch.bfloat16}[options.precision]
    return partial(open_model, dtype=dtype, encoder_memory=options.text_encoder)


def _admitted(options: DrawOptions, request: GenerationRequest, model: "ModelInfo") -> tuple[GenerationRequest, str]:
    """The request with the words that are drawn, and one line on what was read. ValueError when it is refused."""
    from app.core.prompt_admission import admit

    try:
        admitted = admit(request, model, options.strict)
    except ValueError:
        if not options.anyway or options.strict or model.classes is not None:
            raise
        return request, f"nothing of '{request.prompt[:80]}' is known: it is drawn as it is"
    return admitted.request, admitted.line


def quiet_log() -> None:
    """Keep libraries' log lines off the terminal: a command reports its own errors, on one line."""
    logging.disable(logging.ERROR)


def _submit(engine: "Engine", request: GenerationRequest, change: "EditRequest | None") -> "Job":
    """The finished job, with a progress bar while it runs. ValueError when it was refused or failed."""
    from tqdm import tqdm

    from app.serving.jobs import Status

    start = None
    if change is not None:
        loaded = engine.load(request.model)
        start, request = change.begin(loaded.model, loaded.encode, request)
    job = engine.submit(request, start=start)
    if job.size_note:
        print(job.size_note, file=sys.stderr)
    # The plan's length is known with the first step: refinement passes and the AR model's tokens count, too.
    with tqdm(unit="step", file=sys.stderr, leave=False) as bar:
        while not job.is_done:
            job.wait_change(bar.n, timeout=0.5)
            if frames := job.frames:
                bar.total = frames[-1].total
                bar.update(len(frames) - bar.n)
    if job.status is not Status.DONE:
        raise ValueError(job.error)
    return job


def _write(options: DrawOptions, job: "Job") -> None:
    """Write one PNG, or a sheet and one PNG a picture, and print what was written."""
    from app.core import png

    pictures, request = job.pictures(), job.request
    notes = [request.single(i) if options.metadata else None for i in range(request.n)]
    if request.n == 1:
        files = {options.out: png.encode_png(pictures[0], notes[0])}
    else:
        files = {options.out: png.encode_png(png.grid(pictures), request if options.metadata else None)}
        for i, (image, note) in enumerate(zip(pictures, notes, strict=True), 1):
            files[options.out.with_name(f"{options.out.stem}-{i}.png")] = png.encode_png(image, note)
    png.write_files(files)
    seeds = f"seed {request.seed}" if request.n == 1 else f"seeds {request.seed} to {request.seeds[-1]}"
    cost = f"{job.frames[-1].nfe} evaluations a picture, {job.seconds:.1f} s"
    print(f"wrote {', '.join(str(path) for path in files)} ({seeds}, {cost})", file=sys.stderr)
