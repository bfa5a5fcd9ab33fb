"""`maskgil convert FORMAT`: released weights as model folders."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from maskgil.command_line import Command, CommandGroup, CommandTree

NOTES = """\
examples:
  maskgil convert llamagen-vq vq_ds16_c2i.pt weights/llamagen-vq16
  maskgil convert emigm emigm_b.pth weights/emigm-b --dtype bf16"""


def _load() -> Mapping[str, CommandTree]:
    from maskgil.converters import CONVERTERS

    commands: dict[str, CommandTree] = {
        name: Command(f"{converter.about[:1].upper()}{converter.about[1:]}.", _converter(name))
        for name, converter in CONVERTERS.items()
    }
    return commands | {
        "ctranslate2-whisper": Command("A Whisper in CTranslate2's format, as a recognizer's folder.", _whisper),
        "whisper-mean": Command("The mean of a released Whisper and a tuned one, weight by weight.", _mean),
        "lumina-sentence": Command("Complete the picture that a Lumina-mGPT sentence begins.", _lumina),
    }


def _converter(name: str) -> Callable[[], Callable[..., None]]:
    def load() -> Callable[..., None]:
        from maskgil.converters import convert_file

        def convert(
            source: Positional[Annotated[Path, arg(metavar="FILE")]],
            folder: Positional[Annotated[Path, arg(metavar="FOLDER")]],
            dtype: Literal["fp32", "bf16"] = "fp32",
        ) -> None:
            """Turn a released weight file into a model folder. Every tensor must fit; nothing is left over.

            Args:
                source: The file: .pt, .pth, .ckpt or .safetensors.
                folder: The model folder to write.
                dtype: Type of the stored weights.
            """
            convert_file(name, source, folder, dtype)

        return convert

    return load


def _whisper() -> Callable[..., None]:
    from speech.ctranslate2_format import convert_ctranslate2

    def convert_whisper(
        source: Positional[Annotated[Path, arg(metavar="FILE")]],
        folder: Positional[Annotated[Path, arg(metavar="FOLDER")]],
        sha256: str = "",
    ) -> None:
        """Turn a Whisper in CTranslate2's format into a recognizer's folder (int8 weights).

        Args:
            source: The file model.bin.
            folder: The folder to write.
            sha256: The expected hash, for a file that is none of the known ones.
        """
        file = convert_ctranslate2(source, folder, sha256)
        print(f"wrote Whisper {file.name} to {folder}")

    return convert_whisper


def _mean() -> Callable[..., None]:
    from speech.weight_mean import mean_whisper

    def mean_of_whispers(
        released: Positional[Annotated[Path, arg(metavar="RELEASED")]],
        tuned: Positional[Annotated[Path, arg(metavar="TUNED")]],
        folder: Positional[Annotated[Path, arg(metavar="FOLDER")]],
        share: float = 0.5,
        decoder_share: float | None = None,
    ) -> None:
        """Write a recognizer whose weights are the mean of two, so that a tuned one forgets less.

        Args:
            released: The recognizer's folder that was tuned.
            tuned: The folder that tuning exported.
            folder: The folder to write.
            share: Share of the tuned weights, from 0 to 1.
            decoder_share: That of the decoder's weights; left out: as --share.
        """
        mean_whisper(released, tuned, folder, share, decoder_share)
        print(f"wrote the mean of {released} and {tuned} to {folder}")

    return mean_of_whispers


def _lumina() -> Callable[..., None]:
    from app.commands.lumina_command import complete_sentence

    return complete_sentence


GROUP = CommandGroup("Turn released weights into a model folder.", _load, NOTES)
