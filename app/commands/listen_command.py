"""`maskgil listen`: transcribe a recording, print its words and draw them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from app.commands.draw_options import DrawOptions, draw_to_files, quiet_log
from app.core import paths
from maskgil.command_line import Command


@dataclass(frozen=True)
class RecognizerOptions:
    """Which speech recognizer transcribes."""

    recognizer: Annotated[str, arg(aliases=("--ear",))] = field(default_factory=paths.default_recognizer)
    """The recognizer: a bundled one by name, a Whisper checkpoint, or a released size such as `base`. Left out:
    $MASKGIL_RECOGNIZER, or whisper-tiny-en."""
    language: str = "auto"
    """The language that is spoken: a code such as de, or auto. Other languages than English need a multilingual
    recognizer, which translates them into English."""


def listen(
    audio: Positional[Path],
    *,
    recognizer: Annotated[RecognizerOptions, arg(name="")],
    options: Annotated[DrawOptions, arg(name="")],
) -> None:
    """Transcribe a recording, print its words, and draw them.

    Args:
        audio: A recording of someone speaking: any format that FFmpeg decodes (wav, mp3, m4a, webm, ...).
    """
    quiet_log()
    options.validate_out()
    draw_to_files(options, transcribe(audio, recognizer))


def transcribe(audio: Path, options: RecognizerOptions) -> str:
    """Print what is said in the recording, and return it. ValueError where no speech is found, and where the recognizer
    only guesses."""
    from app.serving.recognizer import SpeechRecognizer
    from speech.greedy_decoding import DecodingContext

    context = DecodingContext(options.language, "translate")
    transcript = SpeechRecognizer(options.recognizer).transcribe(audio, context)
    if transcript.no_speech:
        raise ValueError(transcript.reason)
    if not transcript.understood:
        raise ValueError(
            f"the recording was not understood; the best guess is “{transcript.prompt}”: speak again, or draw the "
            f'words that were meant with `maskgil generate "..."`'
        )
    print(transcript.prompt, flush=True)
    return transcript.prompt


def _load():
    return listen


COMMAND = Command("Transcribe a recording, print its words, and draw them.", _load)
