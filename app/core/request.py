"""What a person asks for, checked once at the boundary: code behind it can rely on a `GenerationRequest`.

Sizes are (width, height) in pixels. Sampling options are in maskgil/params.py.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from maskgil.option_checks import brief
from maskgil.params import LEGACY_VALUES, SamplingParams, current_names, options, read_params, unknown_option
from maskgil.sampler_presets import preset_for

MAX_PROMPT = 8_000  # characters; what does not fit into a picture is left out by the reader
MAX_IMAGES = 16
MAX_LIVE_CANDIDATES = 4  # of a picture that is drawn again and again while somebody speaks
MAX_SEED = 2**31 - 1
MAX_ADAPTERS, MAX_WEIGHT = 8, 10.0  # of one request
MAX_SIDE = 99_999  # pixels: what `picture_sizes.parse_size` reads
LEGACY = {"negative": "negative_prompt"}  # fields of older pictures and programs: current name
# What pictures left unsaid before SamplingParams existed, by their sampler.
LEGACY_DEFAULTS: dict[str, dict[str, Any]] = {
    "default": {
        "guidance_scale": 2.0,
        "guidance_interval": (0.1, 1.0),
        "guidance_shape": "constant",
        "temperature": 0.6,
        "choice_temperature": 2.0,
    },
    "reference": {
        "guidance_scale": 4.0,
        "guidance_interval": (0.0, 1.0),
        "guidance_shape": "ramp",
        "temperature": 1.0,
        "choice_temperature": 4.5,
    },
}
LEGACY_COMMON = {"steps": 8, "order": "confidence", "refinement_passes": 0, "remask_fraction": 0.25}
TEXTS = ("prompt", "negative_prompt", "edit", "model", "drawn", "drawn_negative", "adapters")


@dataclass(frozen=True)
class GenerationRequest:
    """`n` pictures of one prompt; picture i has the seed `seed + i`.

    size             (width, height) in pixels; None: the model's first
    negative_prompt  takes the place of the empty prompt in guidance
    edit             what was drawn anew of which picture, for the metadata of an edited one
    drawn            what the text encoder gets, where that is not the prompt itself (app/core/prompt_admission.py)
    drawn_negative   the same of the negative prompt
    adapters         LoRA adapters by name, each with its weight where that is not 1: "ink:0.8, holiday"
    params           how they are sampled

    Raises ValueError with what is wrong and what to do. What depends on the model (its sizes, its tokens) is checked by
    `fit`, once the model is known.
    """

    prompt: str
    seed: int
    model: str = "scenes"
    size: tuple[int, int] | None = None
    negative_prompt: str = ""
    n: int = 1
    edit: str = ""
    drawn: str = ""
    drawn_negative: str = ""
    adapters: str = ""
    params: SamplingParams = SamplingParams()  # noqa: RUF009, a frozen value

    def __post_init__(self) -> None:
        for name, text in (("prompt", self.prompt), ("negative prompt", self.negative_prompt)):
            if len(text) > MAX_PROMPT:
                raise ValueError(
                    f"the {name} has {len(text):,} characters and at most {MAX_PROMPT:,} are read: shorten it"
                )
        if not self.prompt.strip():
            raise ValueError("the prompt is empty: say what to draw, for example 'two cats on the beach'")
        texts = (getattr(self, name) for name in TEXTS)
        if any(ord(c) < 32 and c not in "\t\n\r" or 0xD800 <= ord(c) < 0xE000 for text in texts for c in text):
            raise ValueError("a text of the request contains control characters: type it again as plain text")
        parse_adapters(self.adapters)
        _validate_integer("seed", self.seed, 0, MAX_SEED)
        _validate_integer("n", self.n, 1, MAX_IMAGES)
        if self.rows > MAX_IMAGES:
            raise ValueError(
                f"{self.n} pictures with {self.params.candidates} candidates each are {self.rows} drawings, and at "
                f"most {MAX_IMAGES} are made together: ask for fewer of one or the other"
            )
        if self.size is not None:
            object.__setattr__(self, "size", _validate_size(self.size))

    def fit(self, sizes: list[tuple[int, int]], downsample: int) -> "GenerationRequest":
        """The request with its size, and hybrid's number of tokens, after a check against what the model can draw."""
        size = self.size or sizes[0]
        if size not in sizes:
            can = ", ".join(f"{w}x{h}" for w, h in sizes)
            raise ValueError(f"{self.model} cannot draw {size[0]}x{size[1]}: choose one of {can}")
        tokens = (size[0] // downsample) * (size[1] // downsample)
        params = self.params
        if params.steps > tokens:
            raise ValueError(
                f"{params.steps} steps for {tokens} tokens: a {size[0]}x{size[1]} picture takes at most {tokens} steps"
            )
        if params.mode == "hybrid":
            ar_tokens = tokens // 2 if params.ar_tokens is None else params.ar_tokens
            if ar_tokens > tokens:
                raise ValueError(
                    f"ar_tokens is {ar_tokens}: a {size[0]}x{size[1]} picture has {tokens} tokens, give 0 to {tokens}"
                )
            params = replace(params, ar_tokens=ar_tokens)
        return replace(self, size=size, params=params)

    def single(self, index: int) -> "GenerationRequest":
        """The request that draws picture `index` of this one alone."""
        return replace(self, seed=(self.seed + index) % (MAX_SEED + 1), n=1)

    @property
    def text(self) -> str:
        """What the text encoder gets of the prompt."""
        return self.drawn or self.prompt

    @property
    def negative_text(self) -> str:
        """What the text encoder gets of the negative prompt."""
        return self.drawn_negative if self.drawn else self.negative_prompt

    @property
    def rows(self) -> int:
        """Drawings that are made at once: all candidates of all pictures."""
        return self.n * self.params.candidates

    @property
    def seeds(self) -> list[int]:
        return [self.single(i).seed for i in range(self.n)]

    def to_dict(self) -> dict[str, Any]:
        """All fields and options by name, as JSON has them: what a picture's metadata keeps."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "params"}
        size = None if self.size is None else list(self.size)
        return values | {"size": size} | self.params.to_dict()

    @classmethod
    def read(cls, values: Mapping[str, Any], kind: type[SamplingParams] = SamplingParams) -> "GenerationRequest":
        """The request that a program sends: fields and options by name, current or as before, and `sampler`.

        Raises ValueError for an unknown option, a missing prompt or seed, and a value that is refused.
        """
        given = current_names({LEGACY.get(name, name): value for name, value in values.items()})
        own = {each.name for each in fields(cls) if each.name != "params"}
        known = [*own, "sampler", *options(kind)]
        for name in given:
            if name not in known:
                raise ValueError(unknown_option(name, known))
        if missing := {"prompt", "seed"} - given.keys():
            raise ValueError(f"{' and '.join(sorted(missing))} missing among the settings")
        if given.get("size") is not None:
            given["size"] = _validate_size(given["size"])
        _validate_integer("seed", given["seed"], 0, MAX_SEED)
        _validate_integer("n", given.get("n", 1), 1, MAX_IMAGES)
        _validate_texts(given)
        sampling = {name: value for name, value in given.items() if name not in own}
        if isinstance(sampling.get("sampler", ""), str):  # anything else is refused below
            from app.core.registry import sampler_of  # imports torch, which `--help` does not wait for

            asked = sampling.get("sampler")
            usual = sampler_of(given.get("model", cls.model), asked)
            if asked is None:
                usual = preset_for(usual, sampling.get("mode"), given.get("negative_prompt", ""))
            sampling["sampler"] = usual
        params = read_params(sampling, kind)
        return cls(**{name: value for name, value in given.items() if name in own}, params=params)

    @classmethod
    def from_metadata(cls, values: Any, kind: type[SamplingParams] = SamplingParams) -> "GenerationRequest":
        """The request that a picture's metadata keeps, written by this version or an earlier one.

        Unknown names are left aside. The values may be anybody's: whatever is no request is a ValueError.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"settings are names with values, not a {type(values).__name__}")
        given = current_names({LEGACY.get(name, name): value for name, value in values.items()})
        known = {*options(kind), *(each.name for each in fields(cls))} - {"params"}
        if "choice_temperature" not in given:  # from before SamplingParams
            sampler = given.get("sampler", "default")
            if not isinstance(sampler, str) or sampler not in LEGACY_DEFAULTS:
                raise ValueError(f"sampler is {brief(sampler)}: choose one of {', '.join(LEGACY_VALUES['sampler'])}")
            given = LEGACY_COMMON | LEGACY_DEFAULTS[sampler] | given
        return cls.read({name: value for name, value in given.items() if name in known}, kind)


def parse_adapters(text: str) -> tuple[tuple[str, float], ...]:
    """'ink:0.8, holiday' -> (('ink', 0.8), ('holiday', 1.0)). ValueError for a weight that is no number, too many
    adapters and one that is named twice."""
    adapters = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, colon, weight = part.rpartition(":")
        try:
            adapters.append((name.strip(), float(weight)) if colon else (part, 1.0))
        except ValueError:
            raise ValueError(f"adapter {brief(part)}: write its name, a colon and a weight, such as ink:0.8") from None
    if any(not name or not -MAX_WEIGHT <= weight <= MAX_WEIGHT for name, weight in adapters):
        raise ValueError(f"adapters is {brief(text)}: give names with weights from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}")
    if len({name for name, _ in adapters}) < len(adapters) or len(adapters) > MAX_ADAPTERS:
        raise ValueError(f"adapters is {brief(text)}: name each one once, and at most {MAX_ADAPTERS}")
    return tuple(adapters)


def random_seed() -> int:
    """A seed nobody chose."""
    return random.SystemRandom().randint(0, MAX_SEED)


def _validate_integer(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} is {brief(value)}: give a whole number from {low} to {high}")
    if not low <= value <= high:
        raise ValueError(f"{name} is {brief(value)}: give a number from {low} to {high}")


def _validate_texts(values: Mapping[str, Any]) -> None:
    for name in TEXTS:
        if not isinstance(values.get(name, ""), str):
            raise ValueError(f"{name} is {brief(values[name])}: give a text")


def _validate_size(size: Any) -> tuple[int, int]:
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(type(side) is int for side in size):
        raise ValueError(f"size is {brief(size)}: give width and height in pixels, two whole numbers")
    if any(abs(side) > MAX_SIDE for side in size):
        raise ValueError(f"a side has more than {MAX_SIDE:,} pixels: take a size that the model draws")
    return size[0], size[1]
