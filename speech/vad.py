"""Voice activity: the probability that somebody speaks in each 32 ms, by silero-vad's ONNX network.

The network is read from the silero-vad package but the package is never imported: its __init__ calls
torch.set_num_threads(1) for the whole process, which would halve the speed of drawing. Its sequence form takes one
call for many chunks; the streaming form is the same call with one chunk and a state carried along.

Axes: T samples at 16 kHz, N chunks of 512 samples (32 ms).
"""

import importlib.util
import os
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported: it would report its use to Microsoft
import onnxruntime  # noqa: E402

from speech.audio import RATE  # noqa: E402

CHUNK = 512  # samples: the only size the network takes at 16 kHz
CONTEXT = 64  # samples of the previous chunk that it sees again
SPEECH = 0.5  # probability above which speech begins ...
SILENCE = 0.35  # ... and below which it ends
SHORTEST = 0.13  # seconds: what is shorter is a click or the first moment of a chord


class VoiceActivityDetector:
    """One listener's voice activity: it remembers what it heard. `feed` is a stream, `probabilities` a recording."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets what was heard."""
        self._hidden = np.zeros((1, 1, 128), dtype=np.float32)
        self._cell = np.zeros((1, 1, 128), dtype=np.float32)
        self._context = np.zeros(CONTEXT, dtype=np.float32)

    def feed(self, chunk: Float[np.ndarray, "512"]) -> float:
        """Probability in [0, 1] that the next 32 ms are speech."""
        return float(self._run(chunk)[0])

    def probabilities(self, audio: Float[np.ndarray, " T"]) -> Float[np.ndarray, " N"]:
        """Of each chunk of a whole recording (the last one padded with silence), as if nothing was heard before."""
        self.reset()
        return self._run(np.pad(audio, (0, -len(audio) % CHUNK)))

    def _run(self, samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, " N"]:
        samples = np.concatenate([self._context, samples.astype(np.float32)])
        count = len(samples) // CHUNK
        windows = np.lib.stride_tricks.sliding_window_view(samples, CONTEXT + CHUNK)[::CHUNK]
        assert len(windows) == count
        chance, self._hidden, self._cell = _network().run(
            ["speech_probs", "hn", "cn"],
            {"input": np.ascontiguousarray(windows), "h": self._hidden, "c": self._cell},
        )
        self._context = samples[-CONTEXT:]
        return chance.reshape(-1)


def speech_spans(chances: Float[np.ndarray, " N"], pause: float = 0.3, pad: float = 0.2) -> list[tuple[int, int]]:
    """Stretches of speech [(start, stop)) in samples: begun above SPEECH, ended by `pause` s below SILENCE.

    What is shorter than SHORTEST is dropped. The others are widened by `pad` seconds for soft first and last sounds,
    and those that then touch are one.
    """
    found: list[tuple[int, int]] = []
    start, last = None, 0
    for i, chance in enumerate(chances):
        if chance > SPEECH:
            start = i if start is None else start
        if start is not None and chance > SILENCE:
            last = i
        elif start is not None and (i - last) * CHUNK >= pause * RATE:
            found.append((start, last + 1))
            start = None
    if start is not None:
        found.append((start, last + 1))
    margin, joined = round(pad * RATE), []
    for first, stop in (span for span in found if (span[1] - span[0]) * CHUNK >= SHORTEST * RATE):
        first, stop = max(0, first * CHUNK - margin), min(len(chances) * CHUNK, stop * CHUNK + margin)
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((first, stop))
    return joined


@cache
def _network() -> onnxruntime.InferenceSession:
    package = importlib.util.find_spec("silero_vad")
    if package is None or not package.submodule_search_locations:
        raise ValueError("silero-vad is not installed: `pip install -r requirements.txt`")
    path = Path(package.submodule_search_locations[0]) / "data" / "silero_vad_16k_sequence.onnx"
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1  # a chunk is too small to share
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
