"""What a person asks for, checked once at the boundary: everything behind it may trust a `GenerationRequest`.

Sizes are (width, height) in pixels; `guidance` 1 is off; an interval is in plan time, which runs from 1 down to 0.
"""

import random
import re
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

MAX_PROMPT = 8_000  # characters; what does not fit into a picture is left out by the reader
MAX_IMAGES = 16
MAX_LIVE_CANDIDATES = 4  # candidates of a picture that is drawn while somebody speaks, again and again
MAX_STEPS = 256
MAX_REFINEMENT_PASSES = 16
MAX_SEED = 2**31 - 1
MAX_SIDE = 99_999  # pixels: what `parse_size` reads
ORDERS = ("confidence", "random", "halton", "raster")
MODES = ("mar", "ar", "hybrid")
LEGACY = {"revisions": "refinement_passes"}  # field names of older pictures -> today's
# What the samplers of maskgil/pipeline.py do when nobody says otherwise (here without its imports).
SAMPLERS: dict[str, dict[str, Any]] = {
    "ours": {"guidance": 2.0, "interval": (0.1, 1.0), "temperature": 0.6, "refinement_passes": 1},
    "released": {"guidance": 4.0, "interval": (0.0, 1.0), "temperature": 1.0, "refinement_passes": 0},
}
PRESETS = {"fast": 4, "standard": 8, "fine": 16}


@dataclass(frozen=True)
class GenerationRequest:
    """One wish for `n` pictures of one prompt; picture i has the seed `seed + i`. `edit` says of a picture that was
    painted over how much of which. `mode` says who draws: MaskGIL (mar), its autoregressive twin (ar), or the twin the
    first `ar_tokens` tokens and MaskGIL the others (hybrid; None: half of them). `sampler` says how guidance grows over
    the steps: not at all (ours), or from none to all of it (released). After the steps, each of the `revisions` decides
    a quarter of MaskGIL's tokens anew, those that fit the others least (maskgil/sampling/loop.py). Of the `candidates`
    that
    are drawn of each picture the one that the model finds likeliest is shown (maskgil/sampling/best_of_n.py).

    `drawn` and `drawn_negative` are the words that the text encoder gets, where they are not the prompt itself
    (app/core/prompt_admission.py).

    Raises ValueError with what is wrong and what to do. What depends on the model (its sizes, its tokens) is
    checked by `fit`, once the model is known.
    """

    prompt: str
    seed: int
    model: str = "scenes"
    size: tuple[int, int] | None = None
    steps: int = 8
    guidance: float = SAMPLERS["ours"]["guidance"]
    interval: tuple[float, float] = SAMPLERS["ours"]["interval"]
    temperature: float = SAMPLERS["ours"]["temperature"]
    order: str = "confidence"
    negative: str = ""
    n: int = 1
    edit: str = ""
    mode: str = "mar"
    ar_tokens: int | None = None
    sampler: str = "ours"
    refinement_passes: int = SAMPLERS["ours"]["refinement_passes"]
    candidates: int = 1
    drawn: str = ""
    drawn_negative: str = ""

    def __post_init__(self):
        for name, text in (("prompt", self.prompt), ("negative prompt", self.negative)):
            if len(text) > MAX_PROMPT:
                raise ValueError(
                    f"the {name} has {len(text):,} characters and at most {MAX_PROMPT:,} are read: shorten it"
                )
        if not self.prompt.strip():
            raise ValueError("the prompt is empty: say what to draw, for example 'two cats on the beach'")
        texts = (self.prompt, self.negative, self.edit, self.model)
        if any(ord(c) < 32 and c not in "\t\n\r" or 0xD800 <= ord(c) < 0xE000 for text in texts for c in text):
            raise ValueError("the prompt holds control characters, which no model reads: type it again as plain text")
        _within("seed", self.seed, 0, MAX_SEED)
        _within("steps", self.steps, 1, MAX_STEPS)
        _within("revisions", self.refinement_passes, 0, MAX_REFINEMENT_PASSES)
        _within("number of pictures", self.n, 1, MAX_IMAGES)
        _within("number of candidates", self.candidates, 1, MAX_IMAGES, "1 is usual, 4 are often worth their time")
        if self.rows > MAX_IMAGES:
            raise ValueError(
                f"{self.n} pictures with {self.candidates} candidates each are {self.rows} drawings, and at most "
                f"{MAX_IMAGES} are made together: ask for fewer of one or the other"
            )
        _within("guidance", self.guidance, 0.0, 30.0, "1 is off and 2 is usual")
        _within("temperature", self.temperature, 0.0, 10.0, "0 is greedy and 1 is as the model has learned")
        low, high = self.interval
        if not (0.0 <= low <= high <= 1.0):
            raise ValueError(f"the guidance interval is {low:g} to {high:g}: give two numbers, 0 <= low <= high <= 1")
        if self.order not in ORDERS:
            raise ValueError(f"unknown order {self.order!r}: choose one of {', '.join(ORDERS)}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {self.sampler!r}: choose one of {', '.join(SAMPLERS)}")
        if self.mode not in MODES:
            raise ValueError(f"unknown mode {self.mode!r}: choose one of {', '.join(MODES)}")
        if self.ar_tokens is not None and self.mode != "hybrid":
            raise ValueError(
                f"{self.ar_tokens} autoregressive tokens go with mode hybrid, not with {self.mode}: choose that mode, "
                "or leave the number out"
            )
        if self.ar_tokens is not None and abs(self.ar_tokens) > MAX_SIDE:
            raise ValueError("the number of autoregressive tokens is far too large: no picture has so many")
        if self.size is not None:
            if any(abs(side) > MAX_SIDE for side in self.size):
                raise ValueError(f"a side has more than {MAX_SIDE:,} pixels: take a size that the model draws")
            object.__setattr__(self, "size", tuple(self.size))
        object.__setattr__(self, "interval", (float(low), float(high)))

    def fit(self, sizes: list[tuple[int, int]], downsample: int) -> "GenerationRequest":
        """The request with its size, and hybrid's number of tokens, after a check against what the model can draw."""
        size = self.size or sizes[0]
        if size not in sizes:
            can = ", ".join(f"{w}x{h}" for w, h in sizes)
            raise ValueError(f"{self.model} cannot draw {size[0]}x{size[1]}: choose one of {can}")
        tokens = (size[0] // downsample) * (size[1] // downsample)
        if self.steps > tokens:
            raise ValueError(
                f"{self.steps} steps for {tokens} tokens: a {size[0]}x{size[1]} picture takes at most {tokens} steps"
            )
        ar_tokens = self.ar_tokens
        if self.mode == "hybrid":
            ar_tokens = tokens // 2 if ar_tokens is None else ar_tokens
            _within("number of autoregressive tokens", ar_tokens, 0, tokens, f"what a {size[0]}x{size[1]} picture has")
        return replace(self, size=size, ar_tokens=ar_tokens)

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
        return self.drawn_negative if self.drawn else self.negative

    @property
    def rows(self) -> int:
        """Drawings that are made at once: all candidates of all pictures."""
        return self.n * self.candidates

    @property
    def seeds(self) -> list[int]:
        return [self.single(i).seed for i in range(self.n)]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "GenerationRequest":
        """The request that a picture's metadata records; what it does not know is left aside. The values may be
        anybody's: whatever is no request is a ValueError."""
        if not isinstance(values, dict):
            raise ValueError(f"settings are names with values, not a {type(values).__name__}")
        names = {f.name for f in fields(cls)}
        current = {LEGACY.get(k, k): v for k, v in values.items()}
        known = {"refinement_passes": 0} | {
            k: v for k, v in current.items() if k in names
        }  # pictures from before had none
        if missing := {"prompt", "seed"} - known.keys():
            raise ValueError(f"{' and '.join(sorted(missing))} missing among the settings")
        try:
            for pair, kind in (("size", int), ("interval", float)):
                if known.get(pair) is not None or pair == "interval" in known:
                    first, second = known[pair]
                    known[pair] = (kind(first), kind(second))
            for name in ("guidance", "temperature"):
                if name in known:
                    known[name] = float(known[name])
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                "size and interval must be pairs of numbers, guidance and temperature numbers, none of them endless"
            ) from None
        if not all(
            isinstance(known.get(name, 0), int) for name in ("seed", "steps", "n", "refinement_passes", "candidates")
        ):
            raise ValueError("seed, steps, revisions and numbers of pictures and candidates must be whole numbers")
        if not isinstance(known.get("ar_tokens"), int | None):
            raise ValueError("the number of autoregressive tokens must be a whole number")
        texts = ("prompt", "model", "order", "negative", "edit", "drawn", "drawn_negative", "mode", "sampler")
        if not all(isinstance(known.get(name, ""), str) for name in texts):
            raise ValueError(f"{', '.join(texts[:-1])} and {texts[-1]} must be texts")
        return cls(**known)


def parse_size(text: str) -> tuple[int, int]:
    """'320x192' -> (320, 192): width, then height."""
    found = re.fullmatch(r"\s*(\d{1,5})\s*[x×X*]\s*(\d{1,5})\s*", text)
    if not found:
        raise ValueError(f"cannot read the size {text!r}: write width x height, for example 256x256")
    return int(found[1]), int(found[2])


def random_seed() -> int:
    """A seed nobody chose."""
    return random.SystemRandom().randint(0, MAX_SEED)


def _within(name: str, value: float, low: float, high: float, hint: str = "") -> None:
    if not low <= value <= high:  # NaN is nowhere; whole numbers may have any length, as JSON's have
        hint = f" ({hint})" if hint else ""
        shown = "far too large" if isinstance(value, int) and abs(value) > 1e18 else value
        raise ValueError(f"{name} is {shown}: give a number from {low:g} to {high:g}{hint}")
