"""The recipes of the bundled speech recognizers."""

from pathlib import Path

from train.recipe import Recipe


def whisper_scenes(
    corpus: str = "runs/spoken/corpus",
    steps: int = 2000,
    seconds: float = 180.0,
    init: str = "",
    real: int = 2,
) -> Recipe:
    """The bundled recognizer, on what maskgil data speech prepared.

    `seconds` of speech a batch. `init`: a recognizer to continue from, whose vocabulary stays. An epoch hears each
    recording of a person `real` times.
    """
    from train.asr import model as asr_model  # Whisper takes a second to import, which no other recipe needs

    return asr_model.recipe(Path(corpus), steps, seconds, Path(init) if init else None, real)


def whisper_windows(
    recordings: str,
    init: str = "whisper-tiny-en",
    windows: tuple[float, ...] = (3.0, 5.0, 10.0),
    steps: int = 2000,
    batch: int = 8,
    lr: float = 1e-5,
    held_out: tuple[str, ...] = (),
) -> Recipe:
    """A released Whisper tuned to short windows of sound, which it hears faster; `windows` in seconds.

    `recordings`: a folder of speech, without transcripts. `held_out`: beginnings of names that are not trained on.
    Export: a folder as that of `init`, int8.
    """
    from train.asr.short_windows import window_recipe  # Whisper takes a second to import, which no other recipe needs

    return window_recipe(recordings, init, windows, steps, batch, lr, held_out)
