"""Released folders (maskgil/released/layout.py) as generator and tokenizer, each tensor checked by name and shape."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from maskgil.checkpoint import Shapes, build_module, compare, shapes
from maskgil.converters.diffusers_vq import released_names, vq_config
from maskgil.models.amused import Amused, AmusedConfig
from maskgil.models.meissonic import Meissonic, MeissonicConfig
from maskgil.released.layout import TRANSFORMER, VQ, ReleasedFolder, read_json, weight_files
from maskgil.tokenizers.vq import VQModel


def _amused(values: dict[str, Any], pixels_per_token: int) -> Amused:
    return Amused(AmusedConfig.from_released(values, pixels_per_token))


def _meissonic(values: dict[str, Any], pixels_per_token: int) -> Meissonic:
    return Meissonic(MeissonicConfig.from_released(values, pixels_per_token))


GENERATORS: dict[str, Callable[[dict[str, Any], int], Amused | Meissonic]] = {
    "amused": _amused,
    "meissonic": _meissonic,
}


def load_generator(released: ReleasedFolder, dtype: torch.dtype = torch.float32) -> Amused | Meissonic:
    """The generator on the CPU, in evaluation mode. Its null condition is not set yet: see `set_null_condition`.

    Raises ValueError for a config or weights that do not fit.
    """
    source = released.folder / TRANSFORMER
    values, files = read_json(source / "config.json"), weight_files(source)
    try:
        with torch.device("meta"):
            model = GENERATORS[released.family](values, released.pixels_per_token)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise ValueError(f"{source}/config.json describes no {released.family} model: {said}") from None
    compare(read_shapes(files), shapes(model), str(source))  # before anything large is read
    model.load_state_dict(read_tensors(files, dtype), assign=True)
    model.null_states = torch.zeros(model.null_states.shape, dtype=dtype)
    return model.eval()


def load_vq(released: ReleasedFolder) -> VQModel:
    """The tokenizer on the CPU, in float32 and evaluation mode. Raises ValueError as `load_generator`."""
    source, files = str(released.folder / VQ), weight_files(released.folder / VQ)
    config = vq_config(read_json(released.folder / VQ / "config.json"))
    names = released_names(config, read_shapes(files), source)
    tensors = read_tensors(files, torch.float32)
    model = build_module("vq", config.to_dict(), source)
    assert isinstance(model, VQModel)
    model.load_state_dict({name: tensors[theirs] for name, theirs in names.items()}, assign=True)
    return model.eval()


def read_shapes(files: Sequence[Path]) -> Shapes:
    """Names and shapes of the tensors of some safetensors files, from their heads. ValueError for a file that is
    cut."""
    found: Shapes = {}
    for path in files:
        with _opened(path) as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118, no dict
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is cut or not a safetensors file: {error}; fetch it again") from None


def read_tensors(files: Sequence[Path], dtype: torch.dtype) -> dict[str, Tensor]:
    """All tensors of some safetensors files, floating ones in `dtype`: one at a time, so that no file is held whole in
    two types. ValueError for a file that is cut."""
    tensors = {}
    for path in files:
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118, it is no dict
                tensor = file.get_tensor(name)
                tensors[name] = tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
    return tensors


def set_null_condition(generator: nn.Module, states: Tensor) -> None:
    """Have the encoding of an empty text, (L, E), stand for no condition at all."""
    assert isinstance(generator.null_states, Tensor)
    generator.null_states = states.to(generator.null_states)
