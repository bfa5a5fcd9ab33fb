"""The recipes of the bundled speech recognizers."""

from pathlib import Path

from train.recipe import Recipe
from train.recipes.shared_options import Rate, Steps


def whisper_scenes(
    corpus: str = "runs/spoken/corpus",
    steps: Steps = 2000,
    seconds: float = 180.0,
    init: str = "",
    real: int = 2,
) -> Recipe:
    """Train the bundled speech recognizer, on what maskgil data speech prepared.

    Args:
        corpus: Folder of `maskgil data speech`.
        seconds: Seconds of speech a step.
        init: Recognizer to continue from, whose vocabulary stays; left out: a new one.
        real: How many times an epoch hears each recording of a person.
    """
    from train.asr import model as asr_model  # Whisper takes a second to import

    return asr_model.recipe(Path(corpus), steps, seconds, Path(init) if init else None, real)


def whisper_windows(
    recordings: str,
    init: str = "whisper-tiny-en",
    windows: tuple[float, ...] = (3.0, 5.0, 10.0),
    steps: Steps = 2000,
    batch: int = 8,
    lr: Rate = 1e-5,
    held_out: tuple[str, ...] = (),
) -> Recipe:
    """Tune a released Whisper to short windows of sound, which it hears faster.

    The export is a folder as that of --init, int8.

    Args:
        recordings: Folder of speech, without transcripts.
        init: Recognizer to start from.
        windows: Lengths of the windows in seconds.
        batch: Windows a step.
        held_out: Beginnings of names of recordings that are not trained on.
    """
    from train.asr.short_windows import window_recipe  # Whisper takes a second to import

    return window_recipe(recordings, init, windows, steps, batch, lr, held_out)


def whisper_tuned(
    corpus: str = "runs/spoken/corpus",
    init: str = "whisper-tiny-en",
    windows: tuple[float, ...] = (3.0, 5.0, 10.0),
    steps: Steps = 1000,
    batch: int = 8,
    lr: Rate = 1e-4,
) -> Recipe:
    """Tune a released Whisper to the scenes' sentences, spoken commands and short windows.

    The export is a folder as that of --init, int8.

    Args:
        corpus: Folder of `maskgil data speech`, with recordings of people.
        init: Recognizer to start from.
        windows: Lengths of the windows in seconds.
        batch: Windows a step.
    """
    from train.asr.tuned_whisper import tuned_recipe  # Whisper takes a second to import, which no other recipe needs

    return tuned_recipe(corpus, init, windows, steps, batch, lr)
