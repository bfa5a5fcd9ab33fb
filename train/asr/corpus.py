"""The spoken corpus: the grammar's sentences in many synthetic voices, general English, real speakers, household noise.

Synthesis takes minutes and happens once: `prepare` writes a folder of int16 sound and an index, whole or not at all.
Training afterwards only reads, cuts and disturbs. Nothing of it is committed.

Axes: T samples at 16 kHz.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Float
from tqdm import tqdm
from tyro.conf import arg

from speech import audio
from speech.audio import RATE
from speech.tokenizer import normalize_transcript
from train.asr.command_phrases import command_phrases
from train.asr.tts_voices import ESPEAK, FLITE, SPEAKABLE, TRAINING, UtteranceSpec, Voice, speak_all
from train.scenes.captions import article, sentences, vocabulary
from train.scenes.sprites import things

REAL, NOISE = "real", "noise"
FITS = 9.75  # seconds of speech that a recognizer of 10 s takes, with a little silence around
LONGEST_CLIP = 30.0  # seconds that a released Whisper takes at once


@dataclass(frozen=True)
class Clip:
    """`text` said by `voice` ("flite:slt", "real:1272"; "noise:..." says nothing) in samples [start, stop)."""

    text: str
    voice: str
    start: int
    stop: int


@dataclass(frozen=True)
class CorpusPlan:
    """What a corpus holds. Grammar sentences of test sets (seed `tests`) are left out."""

    sentences: int = 11_000
    general: int = 2_000  # snatches of other English, so that unknown words are spelled and not guessed
    commands: int = 0  # spoken changes of a picture
    otherwise: float = 0.3  # share of the sentences where another word may stand for a name; 0.7 lost "cats"
    flite: float = 0.33  # share of flite; its voices are few but closer to people than espeak's
    longest: float = 8.5  # seconds; whisper-scenes learns only from those of at most FITS
    seed: int = 0
    tests: int = 1


def spoken_form(text: str) -> str:
    """A caption as it is said: "in 3d" -> "in three d"."""
    return normalize_transcript(text.lower().replace("3d", "three d"))


def unseen(seed: int, count: int = 2000) -> list[str]:
    """The sentences of the test sets: distinct, none of them is in a corpus whose plan names this seed."""
    return list(dict.fromkeys(map(spoken_form, sentences(count, 10_000 + seed))))


class Corpus:
    """A prepared folder, opened. `texts` are the grammar's sentences, for the vocabulary."""

    def __init__(self, folder: Path) -> None:
        index = folder / "index.json"
        if not index.is_file():
            raise ValueError(f"no spoken corpus in {folder}: run `maskgil data speech --out {folder}`")
        held = json.loads(index.read_text())
        self.clips = [Clip(**clip) for clip in held["clips"]]
        self.sound = np.load(folder / "sound.npy", mmap_mode="r")

    def samples(self, clip: Clip) -> Float[np.ndarray, " T"]:
        return np.asarray(self.sound[clip.start : clip.stop], dtype=np.float32) / 32768


def prepare(folder: Path, plan: CorpusPlan, real: Path | None = None, noise: Path | None = None) -> Corpus:
    """Speaks and gathers a corpus, or opens it when this very one is there already.

    `real`: a folder of <speaker>-<chapter>-<number>.mp3 and transcripts.tsv (LibriSpeech's naming); `noise`: of wavs.
    Raises ValueError, before anything is spoken, for another corpus and where a folder is not as it should be.
    """
    if plan.longest > LONGEST_CLIP:
        raise ValueError(f"longest={plan.longest:g} s: a recognizer hears {LONGEST_CLIP:g} s at once, choose no more")
    given = {"real": real is not None and str(real.resolve()), "noise": noise is not None and str(noise.resolve())}
    wanted = {"plan": asdict(plan)} | given
    if (folder / "index.json").is_file():
        if json.loads((folder / "index.json").read_text())["wanted"] != wanted:
            raise ValueError(f"{folder} holds another corpus: remove it, or choose another folder")
        return Corpus(folder)
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already and no corpus: choose another folder")
    tapes = sorted(noise.glob("*.wav")) if noise else []
    if noise and not tapes:
        raise ValueError(f"{noise} holds no .wav: give a folder of recorded noise")
    readings = list(read_recordings(real)) if real else []
    held_out = held_out_speakers(readings)
    sources = [
        speak_corpus(plan, [r.text for r in readings if r.speaker not in held_out]),
        ((r.text, f"{REAL}:{r.speaker}", r.samples()) for r in readings if r.speaker not in held_out),
        (("", f"{NOISE}:{path.stem}", audio.load_audio(path, longest=600.0)) for path in tapes),
    ]
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    clips, start = [], 0
    with (partial / "sound.raw").open("wb") as file:
        for text, voice, samples in (item for source in sources for item in source):
            if not voice.startswith(NOISE) and len(samples) > plan.longest * RATE:
                continue
            file.write((samples * 32767).astype(np.int16).tobytes())
            clips.append(Clip(text, voice, start, start + len(samples)))
            start += len(samples)
    raw = np.memmap(partial / "sound.raw", dtype=np.int16, mode="r")
    np.save(partial / "sound.npy", raw)
    (partial / "sound.raw").unlink()
    (partial / "index.json").write_text(json.dumps({"wanted": wanted, "clips": [asdict(c) for c in clips]}))
    os.replace(partial, folder)
    return Corpus(folder)


def speak_corpus(plan: CorpusPlan, readings: Sequence[str]) -> Iterator[tuple[str, str, Float[np.ndarray, " T"]]]:
    """(text, voice, samples) of the synthetic part."""
    draw = np.random.default_rng((plan.seed, 31))
    avoid = set(unseen(plan.tests))
    texts = [text for text in map(spoken_form, sentences(plan.sentences, plan.seed)) if text not in avoid]
    texts = [otherwise(text, draw) if draw.random() < plan.otherwise else text for text in texts]
    texts += [snatch(readings, draw) for _ in range(plan.general if readings else 0)]
    texts += [spoken_form(text) for text in command_phrases(plan.commands, plan.seed) if text not in avoid]
    lines = [UtteranceSpec(text, _voice(plan, draw), int(draw.integers(1 << 31))) for text in texts]
    for line, samples in zip(lines, speak_all(tqdm(lines, desc="speaking", mininterval=5)), strict=True):
        yield line.text, str(line.voice), samples


def otherwise(text: str, draw: np.random.Generator) -> str:
    """The sentence with a word that people say and the grammar does not, where it holds a name that one stands for: "a
    bird" for "a parrot". Whoever draws it reads it as the grammar's (`aliases` in vocabulary.json)."""
    for name, words in _aliases().items():
        found = re.search(rf"\b(?:an? )?{name}\b", text)
        if found and not any(longer in text for longer in _longer(name)):
            word = words[int(draw.integers(len(words)))]
            return text.replace(found[0], word if found[0] == name else article(word), 1)
    return text


@cache
def _aliases() -> dict[str, list[str]]:
    """The other words for each name, longer names first; without misspellings such as puppys."""
    aliases, meant = vocabulary()["aliases"], {}
    for word, name in aliases.items():
        if f"{word[:-2]}ies" not in aliases or not word.endswith("ys"):
            meant.setdefault(name, []).append(word)
    return dict(sorted(meant.items(), key=lambda entry: -len(entry[0])))


@cache
def _longer(name: str) -> list[str]:
    """Names that end with this one: hot dogs are no puppies."""
    known = [said for thing in things() for said in (thing.name, thing.plural, *thing.synonyms)]
    known += [f"{said}s" for said in known]
    return [said for said in known if said.endswith(f" {name}")]


def snatch(readings: Sequence[str], draw: np.random.Generator) -> str:
    """Three to nine words in a row from somewhere."""
    words = normalize_transcript(readings[int(draw.integers(len(readings)))]).split()
    count = int(draw.integers(3, 10))
    start = int(draw.integers(0, max(1, len(words) - count + 1)))
    return " ".join(words[start : start + count])


def _voice(plan: CorpusPlan, draw: np.random.Generator) -> Voice:
    synthesiser = FLITE if draw.random() < plan.flite else ESPEAK
    voices = [voice for voice in TRAINING if voice.synthesiser is synthesiser]
    return voices[int(draw.integers(len(voices)))]


@dataclass(frozen=True)
class LibriUtterance:
    """A real recording and what was read."""

    path: Path
    speaker: str
    text: str

    def samples(self) -> Float[np.ndarray, " T"]:
        return audio.load_audio(self.path, longest=60.0)


def read_recordings(folder: Path) -> Iterator[LibriUtterance]:
    """The recordings listed in transcripts.tsv. Raises ValueError when there is no such list, or one is missing."""
    listing = folder / "transcripts.tsv"
    if not listing.is_file():
        raise ValueError(f"{listing} is missing: it lists id, tab, text for each mp3 beside it")
    for line in listing.read_text().splitlines():
        name, text = line.split("\t")
        assert SPEAKABLE.fullmatch(normalize_transcript(text)), text
        path = folder / f"{name}.mp3"
        if not path.is_file():
            raise ValueError(f"{path} is missing, which {listing} lists: put it there, or take its line out")
        yield LibriUtterance(path, re.split("-", name)[0], normalize_transcript(text))


def held_out_speakers(readings: Sequence[LibriUtterance]) -> frozenset[str]:
    """Every fifth speaker is only for scoring."""
    return frozenset(sorted({reading.speaker for reading in readings})[::5])


def prepare_corpus(
    out: Path,
    real: Path | None = None,
    noise: Path | None = None,
    plan: Annotated[CorpusPlan, arg(name="")] = CorpusPlan(),  # noqa: B008
) -> None:
    """Speak the corpus of the speech recognizer into a folder, once.

    Args:
        out: The folder of the corpus.
        real: A folder of recordings of people, with transcripts.tsv.
        noise: A folder of recordings without speech.
    """
    corpus = prepare(out, plan, real, noise)
    hours = sum(clip.stop - clip.start for clip in corpus.clips) / RATE / 3600
    print(f"{len(corpus.clips)} clips, {hours:.1f} h in {out}")


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil data speech` now")
