"""The models in memory: loaded once, kept while they are among the last used, with their encoded prompts."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import text_encoder
from app.core import paths, registry
from maskgil.condition import Condition
from maskgil.lora_adapters import find_adapter, load_adapter
from maskgil.pipeline import TextToImage
from text_encoder.prompt_reader import PromptVocabulary

MAX_MODELS = 2  # in memory
MAX_ADAPTED = 8  # sets of adapters kept for each model
MAX_TEXTS = 512  # encoded prompts that are kept for each model


class LoadedModel:
    """A model in memory, with its latest encoded prompts. `sizes`: (width, height) in pixels, the default first."""

    def __init__(self, model: TextToImage, encode: Callable[[str], Condition] | None = None):
        """`encode`: that of another LoadedModel with the same text encoder; None: one of its own."""
        self.model = model
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
                self._adapted[adapters] = LoadedModel(self.model.with_adapters(loaded), self.encode)
                while len(self._adapted) > MAX_ADAPTED:
                    self._adapted.popitem(last=False)
            self._adapted.move_to_end(adapters)
            return self._adapted[adapters]

    def load_ar_model(self) -> None:
        """Load the model's AR model. Raises ValueError when there is none, or one of another model."""
        with self._pairing:
            _ = self.model.ar_model


class ModelPool:
    """Models by name. `find` loads one by its name, and optionally in a precision, or raises ValueError."""

    def __init__(self, find: Callable[..., TextToImage], capacity: int = MAX_MODELS):
        self._find, self._capacity = find, capacity
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()
        self._precision: dict[str, torch.dtype] = {}  # chosen precisions
        self._lock = threading.Lock()  # never held while a model loads
        self._loading: dict[str, threading.Lock] = {}

    def load(self, name: str, dtype: torch.dtype | None = None) -> LoadedModel:
        """The model of this name. One in memory returns at once, whatever else is loading.

        `dtype` sets its precision from now on; running jobs finish in the old one. Raises ValueError when it cannot
        be loaded; then nothing changes.
        """
        with self._lock:
            if (loaded := self._use(name, dtype)) is not None:
                return loaded
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:
            try:
                with self._lock:
                    if (loaded := self._use(name, dtype)) is not None:  # another thread has loaded it
                        return loaded
                chosen = dtype or self._precision.get(name)
                loaded = LoadedModel(self._find(name) if chosen is None else self._find(name, chosen))
                with self._lock:
                    if dtype is not None:
                        self._precision[name] = dtype
                    self._models[name] = loaded
                    self._models.move_to_end(name)
                    while len(self._models) > self._capacity:
                        self._models.popitem(last=False)
                return loaded
            finally:
                with self._lock:
                    self._loading.pop(name, None)

    def _use(self, name: str, dtype: torch.dtype | None) -> LoadedModel | None:
        """With the lock held: a model in memory, marked as last used; None if it is absent or in another precision."""
        loaded = self._models.get(name)
        if loaded is None or dtype not in (None, loaded.model.dtype):
            return None
        self._models.move_to_end(name)
        if dtype is not None:
            self._precision[name] = dtype
        return loaded

    def chosen_precision(self, name: str) -> torch.dtype | None:
        """The precision that was chosen for this model; None for the default one."""
        return self._precision.get(name)

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


def why_not_loadable(model: registry.ModelInfo, dtype: torch.dtype | None = None) -> str:
    """Why this model cannot be loaded here, in `dtype` or the default precision; an empty text when it can."""
    dtype = dtype or default_precision()
    need, free = model.parameters * dtype.itemsize, free_memory()
    if free is None or need <= free:
        return ""
    size, left = need / 2**30, free / 2**30
    return f"{model.name} takes {size:.1f} GB of memory in {dtype_name(dtype)}, and {left:.1f} GB are free here"


def dtype_name(dtype: torch.dtype) -> str:
    """torch.float32 -> 'float32'."""
    return str(dtype).removeprefix("torch.")


_memory = threading.Lock()


def open_model(name: str, dtype: torch.dtype | None = None) -> TextToImage:
    """A model of the registry, on the GPU if there is one, in `dtype` or the default precision.

    Raises ValueError for a broken model, and for one that needs more memory than is free.
    """
    model = registry.find(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with _memory:  # free memory is read and then used by one thread at a time
        if reason := why_not_loadable(model, dtype):
            raise ValueError(f"{reason}: unload another, or take a smaller one")
        memory = paths.text_encoder_memory()
        return TextToImage.load(
            model.folder, text_encoder.load, device, dtype or default_precision(), encoder_memory=memory
        )
