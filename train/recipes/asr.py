"""The recipe of the bundled speech recognizer."""

from pathlib import Path

from train.recipe import Recipe


def whisper_scenes(
    corpus: str = "runs/spoken/corpus",
    steps: int = 2000,
    seconds: float = 180.0,
    init: str = "",
    real: int = 2,
) -> Recipe:
    """The bundled recognizer, on what maskgil data speech prepared; `seconds` of speech a batch. init= goes
    on from another, whose vocabulary stays; an epoch hears each recording of a person `real` times."""
    from train.asr import model as asr_model  # Whisper takes a second to import, which no other recipe needs

    return asr_model.recipe(Path(corpus), steps, seconds, Path(init) if init else None, real)
