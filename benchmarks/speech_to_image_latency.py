"""From the last sound of a sentence to its words and its picture, in a real browser with a spoken file as microphone:

    maskgil bench latency --model scenes --n 10 --steps 8 --end 0.3 --gap 4

A headless Chromium opens the Speak page of a server of its own and hears the sentence (said by espeak-ng, or a file)
again and again, `gap` seconds of silence after each. All times are taken in the browser, by one clock: speech ends with
the last loud frame that the page sends, a picture has come when its PNG has. The first sentence warms up.

Beside each median stands what the same parts take alone on this machine in this very run, without server and browser:
the silence that must be waited for, the recognizer over the sentence, one step or all steps and the decoding. That is
the floor; a drawing that began before the silence can be below it.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from app.core import paths, registry
from app.serving.model_pool import open_model
from app.serving.recognizer import SpeechRecognizer
from benchmarks.machine import machine_name, seconds_of
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.sampling.loop import sample
from speech import audio
from speech.streaming import EndpointingConfig
from speech.transcriber import Transcriber

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = "/usr/bin/chromium"
PATIENCE = 600.0  # seconds for anything that must come
ROOM = 2.0  # seconds between the silence that ends a sentence and the next: for the recognizer, with some to spare
# Medians in seconds that docs/performance.md has of commit acba3fa with whisper-scenes, for the column beside ours.
BEFORE = {
    "final words": 0.39, "first picture": 0.16, "final picture": 0.95,
    "silence": 0.10, "recognizer": 0.00, "first step": 0.06, "other steps": 0.73,
}  # fmt: skip
LOUD = 0.02  # of full scale: a frame with a sample above it is speech; the file is silent elsewhere

# Notes, in the page's own clock, when loud frames go up and messages come down (app/web/live_protocol.py says what
# they are).
# A
# picture's note gets its time when the PNG that follows it is there. The page's settings are overruled by ours.
SPY = """
window.notes = [];
const Plain = window.WebSocket;
window.WebSocket = class extends Plain {
  constructor(url, ...rest) {
    super(url, ...rest);
    if (!new URL(url, location).pathname.endsWith("/live")) return;
    this.spied = true;
    let picture = null;
    this.addEventListener("message", ({ data }) => {
      const at = performance.now() / 1000;
      if (typeof data !== "string") { if (picture) notes.push({ ...picture, at }); picture = null; return; }
      const message = JSON.parse(data);
      if (["step", "picture"].includes(message.type)) picture = message; else notes.push({ ...message, at });
    });
  }
  send(data) {
    if (this.spied && typeof data === "string") data = JSON.stringify({ ...JSON.parse(data), ...SETTINGS });
    if (this.spied && data instanceof ArrayBuffer && new Int16Array(data).some((x) => Math.abs(x) > LOUD * 32767))
      notes.push({ type: "loud", at: performance.now() / 1000 });
    super.send(data);
  }
};
""".replace("LOUD", str(LOUD))


@dataclass(frozen=True)
class SpokenRun:
    """One sentence; all times in seconds after its last loud frame. `known`: its words stood there, sure or not."""

    text: str
    known: float
    words: float  # final
    first: float  # picture of these very words
    last: float

    def stages(self, pause: float) -> dict[str, float]:
        """Seconds of the way to the last picture; what was done before the speech ended takes none."""
        ends = np.maximum.accumulate([0.0, pause, self.known, self.first, self.last])
        names = ("silence", "recognizer", "first step", "other steps")
        return dict(zip(names, np.diff(ends).tolist(), strict=True))


def spoken_runs(notes: Sequence[dict[str, Any]], pause: float) -> list[SpokenRun]:
    """The sentences whose pictures were kept, in their order, from what the page noted.

    Raises ValueError where sound came less than a `pause` before final words: it is that of the next sentence.
    """
    of = {kind: [note for note in notes if note["type"] == kind] for kind in ("loud", "final", "words", "kept")}
    found, since = [], 0.0
    for final, kept in zip(of["final"], of["kept"], strict=False):
        end = max(note["at"] for note in of["loud"] if note["at"] < final["at"])
        if final["at"] - end < pause:
            raise ValueError(f"the next sentence began before the words of {final['text']!r} came: give a longer gap=")
        text, images = final["text"], [note for note in notes if note.get("job") == kept["job"]]
        known = [
            note["at"]
            for note in of["words"]
            if since < note["at"] < final["at"] and " ".join([*note["committed"], *note["pending"]]) == text
        ]
        pictures = [note["at"] for note in images if note["type"] in ("step", "picture")]
        last = [note["at"] for note in images if note["type"] == "picture"]
        times = (min([*known, final["at"]]), final["at"], min(pictures), last[-1])
        found.append(SpokenRun(text, *(at - end for at in times)))
        since = final["at"]
    return found


def synthesize(sentence: str, folder: Path) -> Path:
    """The sentence as a WAV. Raises ValueError without espeak-ng."""
    if shutil.which("espeak-ng") is None:
        raise ValueError("espeak-ng is not installed: install it, or give a recording with wav=FILE")
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "140", "-w", folder / "said.wav", sentence], check=True)
    return folder / "said.wav"


def microphone(said: np.ndarray, gap: float, folder: Path) -> Path:
    """What the browser hears over and over: 16 kHz speech between silences."""
    silence = np.zeros(round(audio.RATE * gap / 2), np.float32)
    soundfile.write(folder / "microphone.wav", np.concatenate([silence, said, silence]), audio.RATE)
    return folder / "microphone.wav"


@contextlib.contextmanager
def start_server(model: str, folder: Path) -> Iterator[str]:
    """A server on a free port, with a gallery that is thrown away; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "app", "ui", "--port", str(port), "--model", model, "--gallery", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        url, end = f"http://localhost:{port}", time.monotonic() + PATIENCE
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() > end:
                raise ValueError("the server does not start: try `maskgil ui`")
            time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _healthy(url: str) -> bool:
    try:
        return urllib.request.urlopen(f"{url}/_stcore/health", timeout=5).status == 200
    except OSError:
        return False


@contextlib.contextmanager
def chromium(wav: Path) -> Iterator[Any]:
    """A headless browser that hears the file, over and over, as its microphone. Raises ValueError without one."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise ValueError("playwright is not installed: make test sets it up") from None
    if not Path(CHROMIUM).exists():
        raise ValueError(f"{CHROMIUM} is not there: make test installs it when root")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--use-fake-device-for-media-stream"]
    flags += ["--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={wav}"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)
        try:
            yield browser
        finally:
            browser.close()


def watch(url: str, wav: Path, sentences: int, steps: int, end: float) -> list[dict[str, Any]]:
    """What the page notes until the pictures of so many sentences are kept. ValueError for what goes wrong there."""
    spy = SPY.replace("SETTINGS", json.dumps({"steps": steps, "pause": end}))
    with chromium(wav) as browser:
        page = browser.new_context(permissions=["microphone"]).new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.add_init_script(spy)
        page.goto(f"{url}/speak")
        page.get_by_role("button", name="Start listening").click()
        patience = time.monotonic() + PATIENCE + 30 * sentences
        while True:
            notes = page.evaluate("notes")
            if wrong := [note for note in notes if note["type"] == "error"]:
                raise ValueError(f"the page says: {wrong[0]['message']}")
            kept = sum(note["type"] == "kept" for note in notes)
            if kept >= sentences:
                break
            if time.monotonic() > patience:
                raise ValueError(f"{kept} of {sentences} pictures came in time: is the machine busy?")
            time.sleep(0.2)
    return notes


@torch.no_grad()
def latency_alone(
    model: TextToImage, recognizer: Transcriber, said: np.ndarray, sentence: str, steps: int, n: int
) -> dict[str, float]:
    """Median seconds of the parts by themselves: recognizer, first step with its decoding, all steps with theirs."""
    canvas = model.blank(1)
    plan = model.plan(canvas, [0], SamplingParams(steps=steps))

    def draw(count: int) -> object:
        return model.images_of(list(sample(model.sampler(model.condition([sentence])), canvas, plan[:count]))[-1])

    runs = {
        "recognizer": lambda: recognizer.transcribe(said, spoken=True),
        "first": lambda: draw(1),
        "all": lambda: draw(len(plan)),
    }
    for run in runs.values():
        run()
    return {name: statistics.median(seconds_of(run, model.device) for _ in range(n)) for name, run in runs.items()}


def latency_table(found: Sequence[SpokenRun], targets: Sequence[float], floors: Sequence[float], pause: float) -> str:
    """Markdown: medians against those of an earlier release, targets and floors, then the stages of the way to the last
    picture."""
    names = ("final words", "first picture", "final picture")
    columns = [[h.words for h in found], [h.first for h in found], [h.last for h in found]]
    lines = ["| after the end of speech | s (median) | before | fastest | slowest | target | floor, s | x floor |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name, times, target, floor in zip(names, columns, targets, floors, strict=True):
        middle = statistics.median(times)
        reached = "reached" if middle <= target else f"missed by {middle - target:.2f}"
        cells = [
            name,
            f"{middle:.2f}",
            f"{BEFORE[name]:.2f}",
            f"{min(times):.2f}",
            f"{max(times):.2f}",
            f"{target:g} {reached}",
        ]
        lines.append("| " + " | ".join([*cells, f"{floor:.2f}", f"{middle / floor:.1f}"]) + " |")
    stages = [h.stages(pause) for h in found]
    medians = {stage: statistics.median(s[stage] for s in stages) for stage in stages[0]}
    total = sum(medians.values()) or 1.0
    lines += ["", "| stage of the way to the final picture | s (median) | before | share |", "|---|---|---|---|"]
    lines += [f"| {stage} | {s:.2f} | {BEFORE[stage]:.2f} | {s / total:.0%} |" for stage, s in medians.items()]
    return "\n".join(lines)


def report_latency(
    name: str, sentence: str, wav: str, n: int, steps: int, end: float, gap: float, targets: Sequence[float]
) -> None:
    """Run it all and print what was measured."""
    timing = EndpointingConfig(end=end)
    registry.find(name)  # refuses what is not there
    if not Path(CHROMIUM).exists():
        raise ValueError(f"{CHROMIUM} is not there: make test installs it")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        said = audio.load_audio(Path(wav) if wav else synthesize(sentence, folder))
        with start_server(name, folder / "gallery") as url:
            found = spoken_runs(watch(url, microphone(said, gap, folder), n + 1, steps, end), timing.pause)[1:]
        model, recognizer = open_model(name), SpeechRecognizer(paths.default_recognizer()).load()  # as the server does
        parts = latency_alone(model, recognizer, said, found[-1].text, steps, n)
    begun = timing.pause + parts["recognizer"]
    floors = [max(end, begun), begun + parts["first"], begun + parts["all"]]
    machine = f"{machine_name(model.device)}; torch {torch.__version__}; load {os.getloadavg()[0]:.1f}"
    print(f"{machine}; {name}, {steps} steps; {n} sentences of {len(said) / audio.RATE:.1f} s, over after {end:g} s")
    print(f"heard: {', '.join(sorted({repr(h.text) for h in found}))}")
    print(", ".join(f"{part} alone {seconds:.2f} s" for part, seconds in parts.items()) + "\n")
    print(latency_table(found, targets, floors, timing.pause))


def bench_speech_to_image(
    model: str = "scenes",
    n: int = 10,
    steps: int = 8,
    end: float = 0.3,
    gap: float = 4.0,
    sentence: str = "two cats on the beach",
    wav: str = "",
    targets: tuple[float, float, float] = (0.4, 0.6, 1.2),
) -> None:
    """Seconds from the last sound of a sentence to its words and its picture, in a headless Chromium.

    Args:
        model: A model folder.
        n: Sentences after the one that warms up.
        steps: Steps of each drawing.
        end: Seconds of silence that end a sentence, 0.2 to 2.
        gap: Seconds of silence between sentences.
        sentence: What espeak-ng says.
        wav: A recording to play instead.
        targets: Seconds to the final words, the first picture and the final picture.
    """
    if n < 1 or not 0.2 <= end <= 2 or gap < end + ROOM:
        raise ValueError(f"give n of at least 1, end from 0.2 to 2 s, and a gap at least {ROOM:g} s longer than it")
    report_latency(model, sentence, wav, n, steps, end, gap, targets)


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil bench latency` now")
