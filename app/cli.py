"""The command line: `python -m app --help`.

A wrong request ends with one line on stderr that says what is wrong and what to do, exit code 2, and no file.
"""

import contextlib
import io
import json
import logging
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from app.core import paths
from app.core.request import MODES, ORDERS, SAMPLERS, GenerationRequest, parse_size, random_seed
from app.web.options import ServerOptions

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from app.core.edit_request import EditRequest

EXAMPLES = """\
examples:
  python -m app generate "two cats on the beach" --out cats.png
  python -m app generate "a sailboat at night" --n 4 --seed 7 --steps 16 --size 320x192
  python -m app generate "a fox left of a castle" --mode hybrid --ar-tokens 32
  python -m app generate --model weights/imagenet-b --class "golden retriever" --sampler released
  python -m app edit cats.png "two dogs on the beach" --out dogs.png
  python -m app read "a photo of a poodle and 2 cats"
  python -m app listen speech.wav --out spoken.png
  python -m app models
  python -m app ui
"""


@dataclass
class _Drawing:
    """What `generate` and `listen` have in common."""

    out: Path = Path("picture.png")
    """The PNG to write. With --n 4 it holds all four side by side, and NAME-1.png to NAME-4.png hold one each."""
    model: str = field(default_factory=paths.default_model)
    """A bundled model by name (`python -m app models` lists them) or a model folder. Left out: $MASKGIL_MODEL, or
    scenes."""
    size: Annotated[str | None, arg(metavar="WxH")] = None
    """Width x height in pixels, for example 256x256. Left out: the model's first size. A model of size buckets draws
    the nearest that it has, another the nearest of the very shape, and says so."""
    sampler: Annotated[str, arg(metavar="{" + ",".join(SAMPLERS) + "}")] = GenerationRequest.sampler
    """ours: constant guidance. released: what the released code does, guidance that grows from none to 4."""
    steps: int = GenerationRequest.steps
    """How often MaskGIL looks at the picture: 4 is fast, 8 standard, 16 fine. Mode ar takes a step a token instead."""
    seed: Annotated[int | None, arg(metavar="INT")] = None
    """The same seed draws the same picture. Left out: a new one, which is printed."""
    guidance: Annotated[float | None, arg(metavar="FLOAT")] = None
    """How closely to follow the prompt: 1 is off, 4 usual; more is stricter and less varied. Left out: the sampler's,
    2 for ours, 4 for released."""
    guidance_interval: Annotated[tuple[float, float] | None, arg(metavar="FLOAT FLOAT")] = None
    """Guide only while the plan's time, which runs from 1 down to 0, is in this interval; the rest costs half. Left
    out: the sampler's, 0.1 to 1 for ours, 0 to 1 for released."""
    temperature: Annotated[float | None, arg(metavar="FLOAT")] = None
    """How daring each choice is: 0 always takes the likeliest, 1 is as the model has learned. Left out: the sampler's,
    0.6 for ours, 1 for released."""
    mode: Annotated[str, arg(metavar="{" + ",".join(MODES) + "}")] = GenerationRequest.mode
    """Who draws. mar: MaskGIL, many tokens a step. ar: its autoregressive twin, one token a step, line by line. hybrid:
    the twin begins, MaskGIL draws the rest around what stands. ar and hybrid need a model with a twin."""
    ar_tokens: Annotated[int | None, arg(metavar="INT")] = None
    """With --mode hybrid: how many tokens the twin decides, from the top left. 0 is mode mar, all of them mode ar; a
    picture has one for each cell of its grid. Left out: half of them."""
    revisions: Annotated[int | None, arg(metavar="INT")] = None
    """How often, after the steps, a quarter of the picture is decided anew: what fits the rest least. Each costs three
    looks, four where it is guided. Left out: the sampler's, 1 for ours, 0 for released."""
    candidates: int = GenerationRequest.candidates
    """How many drawings of each picture are made, of which the one that the model finds likeliest is kept: 4 take four
    times as long, and come out right more often."""
    order: Annotated[str, arg(metavar="{" + ",".join(ORDERS) + "}")] = GenerationRequest.order
    """Which parts of the picture are decided first."""
    negative: str = ""
    """What to steer away from, in words; it takes the place of the empty prompt in guidance."""
    n: int = 1
    """How many pictures; picture i has the seed SEED + i."""
    metadata: bool = True
    """Write prompt, seed, model and settings into the PNG."""
    anyway: bool = False
    """Draw even when the model does not know some of the words."""


@dataclass
class Generate(_Drawing):
    """Draw pictures of a sentence, or of a class."""

    prompt: Positional[Annotated[str | None, arg(metavar="PROMPT")]] = None
    """What to draw, in quotes: "two cats on the beach"."""
    class_: Annotated[str | None, arg(name="class", metavar="NUMBER|NAME")] = None
    """Instead of a prompt, for a class-driven model: a class by number, 207, or by name, "golden retriever"."""


@dataclass
class Edit(_Drawing):
    """Draw a part of a picture anew, and leave the rest as it is to the last pixel."""

    picture: Positional[Annotated[Path, arg(metavar="PNG")]] = field(kw_only=True)
    """The picture. One of another size than the model draws is scaled to the nearest, and cut to its shape."""
    prompt: Positional[Annotated[str, arg(metavar="PROMPT")]] = field(kw_only=True)
    """What the whole picture shows then."""
    mask: Path | None = None
    """A PNG of the picture's size: what is transparent in it is drawn anew or, where nothing is, what is white. Left
    out: what the new words contradict."""
    was: str | None = None
    """Without --mask: the words that the picture was drawn after. Left out: those that it remembers."""


@dataclass
class Listen(_Drawing):
    """Write down a recording, print its words, and draw them."""

    audio: Positional[Path] = field(kw_only=True)
    """A recording of someone speaking: any format that FFmpeg decodes (wav, mp3, m4a, webm, ...)."""
    ear: str = field(default_factory=paths.default_recognizer)
    """The recogniser: a bundled one by name, a Whisper checkpoint, or a released size such as `base`. Left out:
    $MASKGIL_EAR, or whisper-tiny-en."""


@dataclass
class Ui:
    """Start the page and print its address."""

    server: Annotated[ServerOptions, arg(name="")] = field(default_factory=ServerOptions)
    model: str = field(default_factory=paths.default_model)
    """The model that the page opens with. Left out: $MASKGIL_MODEL, or scenes."""
    ear: str = field(default_factory=paths.default_recognizer)
    """The recogniser that writes down speech. Left out: $MASKGIL_EAR, or whisper-tiny-en."""
    weights: Path | None = None
    """The folder with the bundled models. Left out: $MASKGIL_WEIGHTS, or the one beside the code."""
    gallery: Path | None = None
    """The folder that keeps people's pictures. Left out: $MASKGIL_GALLERY, or the one beside the code."""


@dataclass
class Read:
    """Print what would be drawn of a prompt, or of each line of a file: one JSON object a line, and no picture."""

    source: Positional[Annotated[str, arg(metavar="TEXT|FILE")]]
    """A prompt, a text file with a prompt a line, or a .jsonl file of objects with a "prompt"."""
    model: str = field(default_factory=paths.default_model)
    """The model that it is read for. Left out: $MASKGIL_MODEL, or scenes."""


@dataclass
class Models:
    """List the models on this machine: what they draw, their sizes and where they lie."""

    name: Positional[str] = ""
    """Show everything about this one, with all the words it knows."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 interrupted, 2 asked for something impossible."""
    try:
        command = _parse(arguments)
        if not isinstance(command, Ui):  # a server's log is for whoever runs it
            logging.disable(logging.ERROR)  # what goes wrong is said once, below
        match command:
            case Generate():
                _check_out(command.out)
                draw(command, wanted(command))
            case Edit():
                _check_out(command.out)
                edited(command)
            case Listen():
                _check_out(command.out)
                draw(command, listen(command))
            case Ui():
                ui(command)
            case Read():
                read(command)
            case Models():
                models(command)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        print(f"error: the drawing failed ({type(error).__name__}: {' '.join(str(error).split())})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 1
    return 0


def read(command: Read) -> None:
    """Print one JSON line for each prompt."""
    from app.core.prompt_admission import readings_of

    for reading in readings_of(command.source, command.model):
        print(json.dumps(reading.to_dict(), ensure_ascii=False))


def wanted(command: Generate) -> str:
    """What to draw, said in the way that the model is driven. ValueError for a prompt where it takes a class, ..."""
    from app.core import registry

    if command.prompt is None and command.class_ is None:
        raise ValueError("Missing: what to draw, in quotes, or --class for a class-driven model (--help explains)")
    if command.prompt is not None and command.class_ is not None:
        raise ValueError("both a prompt and --class: give the one that the model is driven by")
    classes = registry.find(command.model).classes
    if classes is None and command.class_ is not None:
        raise ValueError(f"{command.model} draws what a sentence says: give a prompt instead of --class")
    if classes is not None and command.prompt is not None:
        raise ValueError(
            f"{command.model} draws {classes} classes and reads no sentences: give --class with a number or a name; "
            f"`python -m app models {command.model}` lists them"
        )
    return command.prompt if command.class_ is None else command.class_


def edited(command: Edit) -> None:
    """Read the picture, and its mask, and draw on it."""
    from app.core.edit_request import EditRequest

    if command.size is not None:
        raise ValueError("--size goes with a picture that is drawn from nothing: an edit keeps the picture's own")
    for path in (command.picture, command.mask):
        if path is not None and not path.is_file():
            raise ValueError(f"{path} is no file: give the path of a PNG")
    mask = None if command.mask is None else command.mask.read_bytes()
    draw(command, command.prompt, EditRequest.read(command.picture.read_bytes(), mask, command.was))


def draw(command: _Drawing, prompt: str, change: "EditRequest | None" = None) -> None:
    """Draw and write: every file or none. `change` says what is drawn on, where that is no blank canvas."""
    from app.core import png, registry

    asked = {
        "guidance": command.guidance,
        "interval": command.guidance_interval,
        "temperature": command.temperature,
        "refinement_passes": command.revisions,
    }
    sampled = SAMPLERS.get(command.sampler, {}) | {name: value for name, value in asked.items() if value is not None}
    request = GenerationRequest(
        prompt=prompt,
        seed=random_seed() if command.seed is None else command.seed,
        model=command.model,
        size=parse_size(command.size) if command.size else None,
        steps=command.steps,
        **sampled,
        sampler=command.sampler,
        order=command.order,
        negative=command.negative,
        n=command.n,
        mode=command.mode,
        ar_tokens=command.ar_tokens,
        candidates=command.candidates,
    )
    model = registry.find(request.model)
    if (complaint := model.vocabulary.unknown_words_message(f"{prompt} {command.negative}")) and not command.anyway:
        raise ValueError(f"{complaint}: say it in its words (`python -m app models {command.model}`), or add --anyway")
    model.check_classes(prompt, command.negative)
    if (read := model.vocabulary.normalize(prompt)) != prompt:
        print(f"read as: {read}", file=sys.stderr)
    if note := model.vocabulary.color_note(prompt):
        print(f"note: {note}", file=sys.stderr)
    print(f"loading {model.name} ...", file=sys.stderr)
    from tqdm import tqdm  # after all that can be refused in no time

    from app.serving.engine import Engine
    from app.serving.jobs import Status

    engine = Engine()
    try:
        start = None
        if change is not None:
            loaded = engine.load(request.model)
            start, request = change.begin(loaded.model, loaded.encode, request)
        job = engine.submit(request, start=start)
        if job.size_note:
            print(job.size_note, file=sys.stderr)
        with tqdm(total=request.steps, unit="step", file=sys.stderr, leave=False) as bar:
            while not job.is_done:
                job.wait_change(bar.n, timeout=0.5)
                if frames := job.frames:
                    bar.total = frames[-1].total
                    bar.update(len(frames) - bar.n)
    finally:
        engine.close()
    if job.status is not Status.DONE:
        raise ValueError(job.error)
    pictures, request = job.pictures(), job.request
    notes = [request.single(i) if command.metadata else None for i in range(request.n)]
    if request.n == 1:
        files = {command.out: png.encode_png(pictures[0], notes[0])}
    else:
        files = {command.out: png.encode_png(png.grid(pictures), request if command.metadata else None)}
        for i, (image, note) in enumerate(zip(pictures, notes, strict=True), 1):
            files[command.out.with_name(f"{command.out.stem}-{i}.png")] = png.encode_png(image, note)
    png.write(files)
    seeds = f"seed {request.seed}" if request.n == 1 else f"seeds {request.seed} to {request.seeds[-1]}"
    cost = f"{job.frames[-1].nfe} evaluations a picture, {job.seconds:.1f} s"
    print(f"wrote {', '.join(str(path) for path in files)} ({seeds}, {cost})", file=sys.stderr)


def listen(command: Listen) -> str:
    """Print what is said in the recording, and return it."""
    from app.serving.recognizer import SpeechRecognizer

    transcript = SpeechRecognizer(command.ear).transcribe(command.audio)
    if transcript.no_speech:
        raise ValueError(transcript.reason)
    print(transcript.prompt, flush=True)
    return transcript.prompt


def ui(command: Ui) -> None:
    from app.web import server

    for variable, value in (
        (paths.MODEL, command.model),
        (paths.EAR, command.ear),
        (paths.WEIGHTS, command.weights),
        (paths.GALLERY, command.gallery),
    ):
        if value:
            os.environ[variable] = str(value)
    server.serve(command.server)


def models(command: Models) -> None:
    from app.core import registry

    if command.name:
        print(registry.describe(registry.find(command.name)))
        return
    found = registry.bundled()
    if not found:
        raise ValueError(f"there is no model in {paths.weights_folder()}: {registry.HOW_TO_GET}")
    for model in found:
        print(registry.summary(model))


def _check_out(path: Path) -> None:
    """ValueError when the picture could not be written there: better known before it is drawn than after."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path} is no PNG: pictures are written as PNG, give a name that ends in .png")
    if path.is_dir() or not path.parent.is_dir():
        problem = "is a folder" if path.is_dir() else f"lies in {path.parent}, which is no folder"
        raise ValueError(f"{path} {problem}: give another --out")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path.parent} cannot be written to: give another --out")


def _parse(arguments: list[str] | None) -> Generate | Edit | Listen | Read | Ui | Models:
    """The command, or ValueError with the parser's complaint on one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                Generate | Edit | Listen | Read | Ui | Models,
                prog="python -m app",
                description="Type or speak, get a picture.\n\n" + EXAMPLES,
                args=arguments,
            )
    except SystemExit as leaving:
        if not leaving.code:
            raise
        lines = [re.sub(r"[│─]+", " ", line).strip() for line in said.getvalue().splitlines() if line[:1] not in "╭╰"]
        complaint = " ".join(line for line in lines if line).partition(" Argument helptext:")[0]
        complaint = complaint.partition(" For full helptext,")[0]
        raise ValueError(f"{complaint or 'cannot read the arguments'} (--help explains)") from None


if __name__ == "__main__":
    sys.exit(main())
