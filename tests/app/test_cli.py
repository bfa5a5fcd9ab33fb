"""The command line: pictures, transcripts, and one line with exit code 2 for everything that cannot be."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import first_things
import numpy as np
import pytest
import soundfile
from app_fixtures import tiny_ar_model, tiny_classes, tiny_model
from PIL import Image

from app.cli import main
from app.core import paths, png
from app.core.request import GenerationRequest
from app.serving.recognizer import SpeechRecognizer
from app.web import server
from maskgil.params import SamplingParams
from maskgil.picture_sizes import parse_size
from speech.transcriber import Transcript
from text_encoder.prompt_reader import PromptVocabulary
from train.scenes.captions import sentences, vocabulary

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("weights"))
    tiny_model(folder / "scenes")
    tiny_ar_model(tiny_model(folder / "paired"))
    tiny_classes(folder / "animals")
    return folder


@pytest.fixture(autouse=True)
def here(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(weights))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    """The one line that the command ends with."""
    before = sorted(Path.cwd().iterdir())
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert sorted(Path.cwd().iterdir()) == before, "nothing is half-written"
    return lines[0]


def test_generate_writes_a_picture_that_remembers_how_it_was_made(capsys: pytest.CaptureFixture):
    wanted = "--out cats.png --model scenes --size 96x64 --steps 4 --seed 7 --guidance 4 --guidance-interval 0.1 0.3"
    assert main(["generate", "two cats on the beach", *wanted.split(), "--order", "random", "--negative", "a dog"]) == 0
    image, request = png.read_picture(Path("cats.png").read_bytes())
    assert image.size == (96, 64)
    assert request == GenerationRequest(
        "two cats on the beach",
        7,
        size=(96, 64),
        negative_prompt="a dog",
        params=SamplingParams(steps=4, guidance_scale=4.0, guidance_interval=(0.1, 0.3), order="random"),
    )
    said = capsys.readouterr()
    assert "seed 7" in said.err and said.out == ""
    again = ["generate", "two cats on the beach", *wanted.split(), "--order", "random", "--negative", "a dog"]
    before = Path("cats.png").read_bytes()
    assert main(again) == 0 and Path("cats.png").read_bytes() == before, "the same seed, the same picture"


def test_several_pictures_are_a_sheet_and_one_file_each():
    assert main(["generate", "a red apple", "--out", "a.png", "--n", "3", "--seed", "5", "--steps", "2"]) == 0
    assert sorted(path.name for path in Path().iterdir()) == ["a-1.png", "a-2.png", "a-3.png", "a.png"]
    assert Image.open("a.png").width > 128
    second, request = png.read_picture(Path("a-2.png").read_bytes())
    assert request is not None and (request.seed, request.n) == (6, 1)
    assert main(["generate", "a red apple", "--out", "alone.png", "--seed", "6", "--steps", "2"]) == 0
    assert png.read_picture(Path("alone.png").read_bytes())[0].tobytes() == second.tobytes()


def test_notes_can_be_left_out():
    assert main(["generate", "a dog", "--out", "d.png", "--steps", "1", "--no-metadata"]) == 0
    assert png.read_picture(Path("d.png").read_bytes())[1] is None and set(Image.open("d.png").info) <= {"srgb"}


def test_revisions_are_made_paid_for_and_remembered(capsys: pytest.CaptureFixture):
    """Two steps without guidance, and three evaluations for each refinement pass."""
    for given, made, looks in (([], 1, 2 + 3), (["--revisions", "0"], 0, 2), (["--revisions", "2"], 2, 2 + 6)):
        told = ["generate", "a dog", "--steps", "2", "--seed", "3", "--out", f"{made}.png", *given]
        assert main(told) == 0 and f"{looks} evaluations a picture" in capsys.readouterr().err
        request = png.read_picture(Path(f"{made}.png").read_bytes())[1]
        assert request is not None and request.params.refinement_passes == made
        usual = SamplingParams.refinement_passes
        assert (f"Refinement passes: {made}" in Image.open(f"{made}.png").info["parameters"]) == (made != usual)
    released = ["generate", "a dog", "--steps", "2", "--out", "r.png", "--sampler", "reference"]
    assert main(released) == 0 and "Refinement passes: 0" in Image.open("r.png").info["parameters"]
    assert "refinement_passes" in refused(["generate", "a dog", "--revisions", "99"], capsys)


def test_the_progress_bar_counts_all_steps_from_the_beginning(capsys: pytest.CaptureFixture):
    assert main(["generate", "a dog", "--steps", "2", "--seed", "3", "--out", "bar.png"]) == 0
    said = capsys.readouterr().err
    assert "0step" in said and set(re.findall(r"[0-9]+/([0-9]+) ", said)) <= {"3"}, "two steps and a refinement pass"


def test_the_best_of_candidates_is_drawn_paid_for_and_remembered(capsys: pytest.CaptureFixture):
    told = ["generate", "a dog", "--steps", "2", "--revisions", "0", "--seed", "3", "--out", "c.png"]
    assert main([*told, "--candidates", "4"]) == 0
    assert f"{4 * (2 + 2)} evaluations a picture" in capsys.readouterr().err
    image, request = png.read_picture(Path("c.png").read_bytes())
    assert request is not None and request.params.candidates == 4
    assert "Best of: 4" in Image.open("c.png").info["parameters"]
    assert main([*told, "--candidates", "4"]) == 0
    assert png.read_picture(Path("c.png").read_bytes())[0].tobytes() == image.tobytes()
    assert main(told) == 0 and "Best of" not in Image.open("c.png").info["parameters"]
    assert "at most 16" in refused([*told, "--candidates", "4", "--n", "5"], capsys)


@pytest.mark.parametrize(("mode", "tokens"), [("hybrid", 12), ("ar", None)])
def test_the_ar_model_draws_and_the_picture_remembers_it(mode: str, tokens: int | None):
    number = [] if tokens is None else ["--ar-tokens", str(tokens)]
    told = ["generate", "a dog", "--model", "paired", "--steps", "2", "--seed", "3", "--out", "d.png"]
    assert main([*told, "--mode", mode, *number]) == 0
    image, request = png.read_picture(Path("d.png").read_bytes())
    assert request is not None and (request.params.mode, request.params.ar_tokens) == (mode, tokens)
    assert main(told) == 0
    assert png.read_picture(Path("d.png").read_bytes())[0].tobytes() != image.tobytes(), "MaskGIL alone draws another"


def test_a_class_is_drawn_by_number_or_name(capsys: pytest.CaptureFixture):
    for name in ("2", "Golden retriever"):
        told = ["--class", name, "--model", "animals", "--steps", "2", "--seed", "1", "--out", "x.png"]
        assert main(["generate", *told]) == 0
    capsys.readouterr()
    assert "no class is called 'a cat'" in refused(["generate", "--class", "a cat", "--model", "animals"], capsys)
    assert main(["models"]) == 0 and "3 classes" in capsys.readouterr().out
    assert main(["models", "animals"]) == 0 and "0 tench, Tinca tinca; 1 goldfish" in capsys.readouterr().out


def test_what_is_unknown_is_left_out_and_named_and_refused_where_nothing_is_left(capsys: pytest.CaptureFixture):
    assert main(["generate", "a catt and the sun", "--steps", "1"]) == 0
    line = capsys.readouterr().err
    assert "drawn: “a cat”" in line and "'the sun' left out" in line
    assert "strict: " in refused(["generate", "a cat and the sun", "--strict"], capsys)
    line = refused(["generate", "the sun and the sea"], capsys)
    assert "'sun'" in line and "two cats on the beach" in line
    assert main(["generate", "the sun and the sea", "--anyway", "--steps", "1"]) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([""], "the prompt is empty"),
        (["   "], "the prompt is empty"),
        (["cat " * 2500], "10,000 characters"),
        (["a cat\x00"], "control characters"),
        (["a cat", "--size", "65x64"], "cannot draw 65x64"),
        (["a cat", "--size", "big"], "write width x height"),
        (["a cat", "--size", "0x0"], "cannot draw 0x0"),
        (["a cat", "--steps", "0"], "steps is 0"),
        (["a cat", "--steps", "65"], "at most 64 steps"),
        (["a cat", "--steps", "many"], "--steps"),
        (["a cat", "--guidance", "nan"], "guidance_scale is nan"),
        (["a cat", "--guidance", "inf"], "guidance_scale is inf"),
        (["a cat", "--guidance-interval", "0.9", "0.1"], "guidance_interval is"),
        (["a cat", "--guidance-interval", "nan", "1"], "guidance_interval is"),
        (["a cat", "--temperature", "-1"], "temperature is -1"),
        (["a cat", "--n", "0"], "n is 0"),
        (["a cat", "--n", "1000"], "n is 1000"),
        (["a cat", "--seed", "-1"], "seed is -1"),
        (["a cat", "--order", "any"], "order"),
        (["a cat", "--mode", "both"], "choose one of masked, hybrid, ar"),
        (["a cat", "--mode", "hybrid"], "no AR model"),
        (["a cat", "--ar-tokens", "5"], "ar_tokens needs mode hybrid"),
        (["a cat", "--model", "paired", "--mode", "hybrid", "--ar-tokens", "65"], "give 0 to 64"),
        (["a cat", "--out", "cat.jpg"], "ends in .png"),
        (["a cat", "--out", "nowhere/cat.png"], "no folder"),
        (["a cat", "--model", "nothing"], "no model named 'nothing'"),
        (["a cat", "--model", "."], "missing in it"),
        (["a cat", "--wat"], "--wat"),
        ([], "Missing"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_is_refused_in_one_line(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture):
    assert complaint in refused(["generate", *arguments], capsys)


@pytest.mark.parametrize("harm", ["cut", "text", "missing", "foreign"])
def test_a_broken_model_is_refused(weights: Path, tmp_path: Path, harm: str, capsys: pytest.CaptureFixture):
    folder = tmp_path / "broken"
    shutil.copytree(weights / "scenes", folder)
    file = folder / "generator" / "model.safetensors"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    elif harm == "text":
        file.write_text("these are no weights")
    elif harm == "missing":
        file.unlink()
    else:
        shutil.copy(folder / "tokenizer" / "model.safetensors", file)
    assert str(folder) in refused(["generate", "a cat", "--model", str(folder)], capsys)


@pytest.fixture
def hears(monkeypatch: pytest.MonkeyPatch):
    """The recognizer is told what it hears; what is recorded is really read."""

    class Deaf:
        limit, is_multilingual = 120.0, False

        def transcribe(self, samples: np.ndarray, context: object = None) -> Transcript:
            loud = float(np.abs(samples).max()) > 0.01
            return Transcript("a red apple" if loud else "", (), not loud, "" if loud else "only silence was recorded")

    monkeypatch.setattr(SpeechRecognizer, "load", lambda self: Deaf())


def sound(path: str, seconds: float, loudness: float = 0.3) -> str:
    wave = loudness * np.sin(np.arange(int(16000 * seconds)) / 10)
    soundfile.write(path, wave.astype(np.float32), 16000)
    return path


def test_listen_prints_the_transcript_and_draws_it(hears: None, capsys: pytest.CaptureFixture):
    assert main(["listen", sound("speech.wav", 1.0), "--out", "x.png", "--steps", "2", "--seed", "1"]) == 0
    assert capsys.readouterr().out == "a red apple\n"
    request = png.read_picture(Path("x.png").read_bytes())[1]
    assert request is not None and request.prompt == "a red apple"


def test_a_guess_is_told_and_not_drawn(hears: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    guess = Transcript("Knot a dock.", ("knot", "a", "dock"), False, "unsure", understood=False)
    monkeypatch.setattr(SpeechRecognizer, "transcribe", lambda self, audio, context=None: guess)
    complaint = refused(["listen", sound("speech.wav", 1.0), "--out", "x.png"], capsys)
    assert "was not understood" in complaint and "knot a dock" in complaint and not Path("x.png").exists()


def test_a_recognizer_that_takes_two_minutes_is_given_them(hears: None, capsys: pytest.CaptureFixture):
    assert main(["listen", sound("speech.wav", 100.0), "--out", "x.png", "--steps", "2"]) == 0
    assert capsys.readouterr().out == "a red apple\n"


def test_what_cannot_be_heard_is_refused(hears: None, capsys: pytest.CaptureFixture):
    Path("text.wav").write_text("this is no sound")
    Path("empty.wav").write_bytes(b"")
    for path, complaint in (
        ("missing.wav", "no file"),
        ("text.wav", "not audio"),
        ("empty.wav", "empty"),
        (sound("zero.wav", 0.0), "0.00 s"),
        (sound("long.wav", 600.0), "lasts over 120 s and the limit is 120 s"),
        (sound("silence.wav", 1.0, loudness=0.0), "silence"),
    ):
        assert complaint in refused(["listen", path, "--out", "x.png"], capsys), path


def test_what_is_left_out_is_as_the_environment_says(monkeypatch: pytest.MonkeyPatch, hears: None):
    heard, told = [], {"MASKGIL_MODEL": "paired", "MASKGIL_RECOGNIZER": "a recognizer"}
    load = SpeechRecognizer.load
    monkeypatch.setattr(SpeechRecognizer, "load", lambda self: heard.append(self.name) or load(self))
    monkeypatch.setattr(
        server, "run_server", lambda options: heard.append((paths.default_model(), paths.default_recognizer()))
    )
    for variable in told:
        monkeypatch.setenv(variable, told[variable])
    assert main(["ui"]) == 0 and heard.pop() == ("paired", "a recognizer")
    assert main(["ui", "--model", "scenes"]) == 0 and heard.pop() == ("scenes", "a recognizer")
    monkeypatch.setenv("MASKGIL_MODEL", "paired")  # the server's own is told by its command
    assert main(["listen", sound("said.wav", 1.0), "--steps", "1", "--out", "x.png"]) == 0 and "a recognizer" in heard
    request = png.read_picture(Path("x.png").read_bytes())[1]
    assert request is not None and request.model == "paired"
    for variable in told:
        monkeypatch.delenv(variable)
    assert main(["ui"]) == 0 and heard.pop() == ("scenes", "whisper-tiny-en")


def test_models_are_listed_and_explained(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    assert main(["models"]) == 0
    assert "scenes" in capsys.readouterr().out
    assert main(["models", "scenes"]) == 0
    told = capsys.readouterr().out
    assert "cat (kitten)" in told and "two cats on the beach" in told and "Random weights" in told
    monkeypatch.setenv("MASKGIL_WEIGHTS", "/nowhere")
    assert "maskgil train" in refused(["models"], capsys)


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"maskgil {importlib.metadata.version('maskgil')}\n"


def test_help_teaches_and_a_real_process_ends_with_two():
    told = subprocess.run([sys.executable, "-m", "app", "generate", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert told.returncode == 0 and "two cats on the beach" in told.stdout and "--guidance-interval" in told.stdout
    assert "--mode {masked,hybrid,ar}" in told.stdout and "MaskGIL, many tokens a step" in told.stdout
    wrong = subprocess.run([sys.executable, "-m", "app", "generate", ""], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: ") and "Traceback" not in wrong.stderr
    assert len(wrong.stderr.splitlines()) == 1 and wrong.stdout == ""


def test_three_d_is_known_where_3d_is():
    words = PromptVocabulary.from_dict({"words": ["a", "cat", "3d"]})
    assert words.normalize("a three d cat, Three-D") == "a 3d cat, 3d"
    assert words.normalize("three dogs") == "three dogs"
    others = PromptVocabulary.from_dict({"words": ["a", "cat", "three"]})
    assert others.normalize("a three d cat") == "a three d cat"


def test_words_outside_the_grammar_are_read_as_names():
    words = first_things.READER.vocabulary
    for said, read in (
        ("a tree", "a pine tree"),
        ("two Trees, among trees", "two pine trees, among trees"),
        ("a pine tree and a truck", "a pine tree and a fire truck"),
        ("a jack-o-lantern", "a jack-o-lantern"),
        ("bunches of grapes", "bunches of grapes"),
        ("a three d tree", "a 3d pine tree"),
        ("two puppies and a bird", "two dogs and a parrot"),
    ):
        assert words.normalize(said) == read and words.normalize(read) == read, said
    words = PromptVocabulary.from_dict(vocabulary())
    assert words.normalize("two puppies and a ship") == "two dogs and a sailboat"
    for text in sentences(500, 3):  # what the grammar says stays as it is
        assert words.normalize(text) == text.replace("three d ", "3d ")


def test_sizes_are_read():
    assert parse_size("160x96") == parse_size(" 160 × 96 ") == (160, 96)


def photo(path: str, size: tuple[int, int] = (64, 64)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels, "RGB").save(path)
    return Image.open(path)


def test_edit_draws_what_the_mask_marks(capsys: pytest.CaptureFixture):
    image = photo("in.png")
    mask = Image.new("L", image.size)
    mask.paste(255, (0, 0, 64, 9))
    mask.save("mask.png")
    assert main("edit in.png cat --mask mask.png --seed 3 --n 2 --out out.png".split()) == 0
    drawn, request = png.read_picture(Path("out-2.png").read_bytes())
    changed = (np.asarray(drawn) != np.asarray(image)).any(2)
    assert changed[:16].mean() > 0.9 and not changed[16:].any()
    assert request.seed == 4 and request.edit.startswith("16 of 64 cells of ") and request.edit.endswith("; masked")


@pytest.mark.parametrize(("mask", "cells"), [("", "16 of 64 cells"), (" --mask mask.png", "8 of 64 cells")])
def test_edit_draws_a_share_of_a_picture_anew(mask: str, cells: str, capsys: pytest.CaptureFixture):
    """Image-to-image: it need not be known after which words the picture was drawn."""
    image = photo("in.png")
    half = Image.new("L", image.size)
    half.paste(255, (0, 0, 64, 32))
    half.save("mask.png")
    assert main(f"edit in.png cat --strength 0.25{mask} --seed 3 --out out.png".split()) == 0
    drawn, request = png.read_picture(Path("out.png").read_bytes())
    changed = (np.asarray(drawn) != np.asarray(image)).any(2)
    assert changed.any() and not (mask and changed[32:].any())
    assert request.edit.startswith(cells) and request.edit.endswith(
        "; masked, a share of 0.25" if mask else "; a share of 0.25"
    )


def test_edit_cuts_a_picture_of_another_shape(capsys: pytest.CaptureFixture):
    photo("in.png", (200, 200))
    mask = Image.new("L", (200, 200))
    mask.paste(255, (0, 100, 200, 200))
    mask.save("mask.png")
    assert main("edit in.png cat --mask mask.png --out out.png".split()) == 0
    drawn, request = png.read_picture(Path("out.png").read_bytes())
    assert drawn.size == request.size == (64, 64) and request.edit.startswith("32 of 64 cells")


@pytest.mark.parametrize(("arguments", "says"), [
    ("edit in.png cat", "not known after which words"),
    ("edit in.png cat --was dog", "contradict nothing"),
    ("edit in.png cat --mask black.png", "the mask marks nothing"),
    ("edit in.png cat --strength 1.5", "strength is 1.5: give a share above 0 and at most 1"),
    ("edit in.png cat --mask small.png", "the mask is 8x8 and the picture 64x64"),
    ("edit in.png cat --mask nowhere.png", "nowhere.png is no file"),
    ("edit nowhere.png cat", "nowhere.png is no file"),
    ("edit text.png cat", "not a picture"),
    ("edit in.png cat --size 64x64", "keeps the picture's own"),
    ("edit in.png zebra --mask in.png", "none of 'zebra' can be drawn"),
])  # fmt: skip
def test_edits_that_cannot_be(arguments: str, says: str, capsys: pytest.CaptureFixture):
    photo("in.png")
    Image.new("L", (64, 64)).save("black.png")
    Image.new("L", (8, 8), 255).save("small.png")
    Path("text.png").write_text("no picture")
    assert says in refused(arguments.split(), capsys)


@pytest.mark.skipif(not (ROOT / "weights" / "scenes").is_dir(), reason="needs the bundled weights")
def test_new_words_change_what_they_contradict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """The wall behind stays, to the last pixel of most of its cells."""
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(ROOT / "weights"))
    assert main(["generate", "a penguin on a blue background", "--seed", "7", "--out", "before.png"]) == 0
    assert main(["edit", "before.png", "an owl on a blue background", "--seed", "7", "--out", "after.png"]) == 0
    before, after = (np.asarray(png.read_picture(Path(name).read_bytes())[0]) for name in ("before.png", "after.png"))
    kept = (before == after).all(2).reshape(8, 32, 8, 32).all((1, 3))
    assert 10 <= kept.sum() <= 60
