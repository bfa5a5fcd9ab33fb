"""The models in memory: loaded once, kept while they are among the last used, with their encoded prompts."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import text_encoder
from app.core import model_names, paths, registry
from app.core.memory_need import GIGA, memory_need, ways_that_fit
from maskgil.adapter_folder import find_adapter
from maskgil.condition import Condition
from maskgil.lora_adapters import load_adapter
from maskgil.pipeline import TextToImage
from text_encoder.encoder_memory import available_memories, loading_arguments
from text_encoder.prompt_reader import PromptVocabulary

MAX_MODELS = 2  # in memory
MAX_ADAPTED = 8  # sets of adapters kept for each model
MAX_TEXTS = 512  # encoded prompts that are kept for each model


class LoadedModel:
    """A model in memory, with its latest encoded prompts. `sizes`: (width, height) in pixels, the default first."""

    def __init__(
        self, model: TextToImage, encode: Callable[[str], Condition] | None = None, encoder_memory: str = "full"
    ):
        """`encode`: that of another LoadedModel with the same text encoder; None: one of its own. `encoder_memory`: how
        the text encoder is held (text_encoder/encoder_memory.py)."""
        self.model, self.encoder_memory = model, encoder_memory
        self.sizes = list(model.sizes)
        words = PromptVocabulary.from_dict(model.vocabulary)
        # For a text encoder that would truncate a long prompt; others refuse it themselves.
        check = getattr(model.text_encoder, "check", lambda text: None)

        shared = encode

        def encode_one(prompt: str) -> Condition:
            check(text := words.normalize(prompt))
            return model.condition([text])

        # One prompt at a time: its states do not depend on the other prompts of a batch and can be cached.
        self.encode = shared or functools.lru_cache(MAX_TEXTS)(encode_one)
        self._pairing = threading.Lock()
        self._adapted: OrderedDict[tuple[tuple[str, float], ...], LoadedModel] = OrderedDict()

    def with_adapters(self, adapters: tuple[tuple[str, float], ...]) -> "LoadedModel":
        """The same model with LoRA adapters, (name, weight) each. Its weights are shared, and its encoded prompts.

        Raises ValueError for adapters that are missing or do not fit.
        """
        if not adapters:
            return self
        with self._pairing:
            if adapters not in self._adapted:
                generator: Any = self.model.generator
                loaded = [(load_adapter(find_adapter(name), generator), weight) for name, weight in adapters]
                self._adapted[adapters] = LoadedModel(
                    self.model.with_adapters(loaded), self.encode, self.encoder_memory
                )
                while len(self._adapted) > MAX_ADAPTED:
                    self._adapted.popitem(last=False)
            self._adapted.move_to_end(adapters)
            return self._adapted[adapters]

    def load_ar_model(self) -> None:
        """Load the model's AR model. Raises ValueError when there is none, or one of another model."""
        with self._pairing:
            _ = self.model.ar_model


class ModelPool:
    """Models by name. `find` loads one by its name, and optionally in a `dtype` and with an `encoder_memory`, or raises
    ValueError."""

    def __init__(self, find: Callable[..., TextToImage], capacity: int = MAX_MODELS):
        self._find, self._capacity = find, capacity
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()
        self._chosen: dict[str, dict[str, Any]] = {}  # precision and memory of the text encoder, where they were chosen
        self._lock = threading.Lock()  # never held while a model loads
        self._loading: dict[str, threading.Lock] = {}

    def load(self, name: str, dtype: torch.dtype | None = None, encoder_memory: str | None = None) -> LoadedModel:
        """The model of this name, or in this folder, which has a name then (model_names). One in memory returns at
        once, whatever else is loading.

        `dtype` sets its precision from now on, `encoder_memory` how its text encoder is held; running jobs finish with
        the old one. Raises UnavailableError when it cannot be loaded; then nothing changes.
        """
        name = model_names.name_of(name)
        with self._lock:
            if (loaded := self._use(name, dtype, encoder_memory)) is not None:
                return loaded
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:
            try:
                with self._lock:
                    if (loaded := self._use(name, dtype, encoder_memory)) is not None:  # another thread has loaded it
                        return loaded
                    chosen = self._chosen.get(name, {}) | _given(dtype, encoder_memory)
                held = chosen.get("encoder_memory") or paths.text_encoder_memory()
                try:
                    found = self._find(name, **chosen)
                except ValueError as error:
                    raise registry.UnavailableError(str(error)) from error
                loaded = LoadedModel(found, encoder_memory=held)
                with self._lock:
                    self._chosen[name] = chosen
                    self._models[name] = loaded
                    self._models.move_to_end(name)
                    while len(self._models) > self._capacity:
                        self._models.popitem(last=False)
                return loaded
            finally:
                with self._lock:
                    self._loading.pop(name, None)

    def _use(self, name: str, dtype: torch.dtype | None, encoder_memory: str | None) -> LoadedModel | None:
        """With the lock held: a model in memory, marked as last used; None if it is absent or held in another way."""
        loaded = self._models.get(name)
        if loaded is None or dtype not in (None, loaded.model.dtype):
            return None
        if encoder_memory not in (None, loaded.encoder_memory):
            return None
        self._models.move_to_end(name)
        self._chosen[name] = self._chosen.get(name, {}) | _given(dtype, encoder_memory)
        return loaded

    def chosen_precision(self, name: str) -> torch.dtype | None:
        """The precision that was chosen for this model; None for the default one."""
        return self._chosen.get(name, {}).get("dtype")

    def chosen_encoder_memory(self, name: str) -> str | None:
        """How its text encoder was chosen to be held; None for the usual way."""
        return self._chosen.get(name, {}).get("encoder_memory")

    @property
    def loading(self) -> list[str]:
        """Names of the models that are being loaded."""
        with self._lock:
            return list(self._loading)

    def names(self) -> list[str]:
        with self._lock:
            return list(self._models)

    def unload(self, name: str) -> None:
        """Forget a model; its running jobs finish."""
        with self._lock:
            self._models.pop(name, None)


def _given(dtype: torch.dtype | None, encoder_memory: str | None) -> dict[str, Any]:
    """What was chosen, by the names of the arguments of `open_model`."""
    values = {"dtype": dtype, "encoder_memory": encoder_memory}
    return {name: value for name, value in values.items() if value is not None}


def default_precision() -> torch.dtype:
    """bfloat16 on CUDA, float32 elsewhere."""
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


def free_memory() -> int | None:
    """Free bytes where models run; None if the system does not report them."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        values = dict(line.split(":") for line in lines)
        return int(values["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def why_not_loadable(
    model: registry.ModelInfo, dtype: torch.dtype | None = None, encoder_memory: str | None = None
) -> str:
    """Why this model cannot be loaded here, in `dtype` or the default precision, with what would fit; an empty text
    when it can. `encoder_memory`: how the text encoder is held, or None for the usual way."""
    dtype = dtype or default_precision()
    memory, sizes, free = encoder_memory or paths.text_encoder_memory(), model.parts_sizes, free_memory()
    need = memory_need(sizes, dtype.itemsize, memory).peak
    if free is None or need <= free:
        return ""
    fits = next(ways_that_fit(sizes, free, available_memories()), None)
    advice = "unload another, or take a smaller one"
    if fits is not None:
        encoder = f" and its text encoder in {fits[1]}" if sizes.encoder.adjustable else ""
        advice = f"choose {fits[0]}{encoder}, or unload another"
    return (
        f"{model.name} takes {need / GIGA:.1f} GB of memory in {dtype_name(dtype)}, and {free / GIGA:.1f} GB are free "
        f"here: {advice}"
    )


def dtype_name(dtype: torch.dtype) -> str:
    """torch.float32 -> 'float32'."""
    return str(dtype).removeprefix("torch.")


_memory = threading.Lock()


def open_model(name: str, dtype: torch.dtype | None = None, encoder_memory: str | None = None) -> TextToImage:
    """A model of the registry, on the GPU if there is one, in `dtype` or the default precision.

    `encoder_memory`: how its text encoder is held (text_encoder/encoder_memory.py); None: as $MASKGIL_TEXT_ENCODER says

    Raises ValueError for a broken model, and for one that needs more memory than is free.
    """
    model = registry.find(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    memory = encoder_memory or paths.text_encoder_memory()
    loading_arguments(memory)  # refuses an unknown way before anything is read
    with _memory:  # free memory is read and then used by one thread at a time
        if reason := why_not_loadable(model, dtype, memory):
            raise ValueError(reason)
        return TextToImage.load(
            model.folder, text_encoder.load, device, dtype or default_precision(), encoder_memory=memory
        )
