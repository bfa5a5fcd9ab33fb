"""What a model is: one frozen dataclass for MaskGIL and its AR model, and the table of named sizes.

How it is trained or sampled is not written here. Variants are `dataclasses.replace(config, ...)`.
"""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

QKNorm = Literal["none", "layer", "rms"]
NormPlace = Literal["pre", "post"]
Rope = Literal["2d", "1d", "released"]
Null = Literal["caption", "mask", "none"]


@dataclass(frozen=True)
class ModelConfig:
    """A LLaMA trunk over image tokens with a class or a text as its condition.

    codebook_size  image codes; the mask token is the next id, an input only
    ffn            width inside SwiGLU; None is LLaMA's rule, see `hidden`
    classes        number of class labels, or None for a text-driven model
    text_dim       width of the text states, or None for a class-driven model
    text_length    most text tokens that the model reads
    qk_norm        norm of queries and keys over head_dim, before the rotation
    norm           pre: x + f(Norm(x)); post: x + Norm(f(x)), the Swin form of Chameleon
    rope           2d: rows and columns; 1d: raster order; released: 1-D with the class token last and the offset of the
                   published MaskGIL code, which zeroes query and key of the first token (only for original weights)
    null           what the unconditional half sees: a learned caption (or class row), the mask token, or nothing at all
    null_length    tokens of the learned null caption (1 is cheap; LlamaGen's has text_length)
    causal         True for the AR model
    dropout        after attention and feed-forward;  token_dropout: on the embedded sequence
    """

    codebook_size: int
    dim: int
    layers: int
    heads: int
    ffn: int | None = None
    classes: int | None = None
    text_dim: int | None = None
    text_length: int = 120
    qk_norm: QKNorm = "none"
    norm: NormPlace = "pre"
    norm_eps: float = 1e-5
    rope: Rope = "2d"
    rope_base: float = 10000.0
    null: Null = "caption"
    null_length: int = 1
    causal: bool = False
    dropout: float = 0.1
    token_dropout: float = 0.0

    def __post_init__(self) -> None:
        _check(asdict(self))

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def hidden(self) -> int:
        """Width inside the feed-forward block: given, or 8 dim / 3 rounded up to a multiple of 256 (LLaMA)."""
        return self.ffn if self.ffn is not None else -(-(8 * self.dim // 3) // 256) * 256

    @property
    def width(self) -> int:
        """`dim`, by the name that EMIGMConfig has for it."""
        return self.dim

    @property
    def mask_id(self) -> int:
        return self.codebook_size

    @property
    def reads_remaining(self) -> bool:
        """Whether the model is told how many sampling steps are left."""
        return False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "ModelConfig":
        """The config that `to_dict` wrote. Raises ValueError for unknown or missing keys."""
        known = {field.name for field in fields(ModelConfig)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown keys in the model config: {', '.join(unknown)}")
        if missing := sorted({"codebook_size", "dim", "layers", "heads"} - set(values)):
            raise ValueError(f"the model config lacks: {', '.join(missing)}")
        defaults = {field.name: field.default for field in fields(ModelConfig)}
        _check(defaults | values)
        return ModelConfig(**values)


def _check(values: dict[str, Any]) -> None:
    """Refuses values that no model can have. They may come from a file, so nothing is taken for granted."""
    for name in ("codebook_size", "dim", "layers", "heads", "text_length", "null_length", "ffn", "classes", "text_dim"):
        value, optional = values[name], name in ("ffn", "classes", "text_dim")
        if not (optional and value is None) and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")
    for name, kind in (("qk_norm", QKNorm), ("norm", NormPlace), ("rope", Rope), ("null", Null)):
        if values[name] not in get_args(kind):
            raise ValueError(f"{name} is {values[name]!r}; choose one of {', '.join(get_args(kind))}")
    for name, low, high in (("dropout", 0, 1), ("token_dropout", 0, 1), ("norm_eps", 0, 1), ("rope_base", 1, math.inf)):
        if not isinstance(values[name], int | float) or not low <= values[name] < high:
            raise ValueError(f"{name} is {values[name]!r}; it must be a number in [{low}, {high})")
    if not isinstance(values["causal"], bool):
        raise ValueError(f"causal is {values['causal']!r}; it must be true or false")
    if (values["classes"] is None) == (values["text_dim"] is None):
        raise ValueError(
            f"a model is driven by classes or by text: give exactly one of classes ({values['classes']}) "
            f"and text_dim ({values['text_dim']})"
        )
    dim, heads = values["dim"], values["heads"]
    if dim % heads or dim // heads % 4:
        raise ValueError(
            f"dim {dim} over {heads} heads gives {dim / heads:g} numbers a head; 2-D rotation needs a multiple of 4"
        )
    if values["rope"] == "released" and values["classes"] is None:
        raise ValueError("rope 'released' is the layout of the published class-driven models; text needs 2d or 1d")
    if values["null_length"] > values["text_length"]:
        raise ValueError(f"null_length {values['null_length']} exceeds text_length {values['text_length']}")


def released_layout(config: ModelConfig) -> ModelConfig:
    """A class-driven config in the layout of the published code (same parameters, another order and rotation)."""
    return replace(config, rope="released", null="caption", qk_norm="none", norm="pre")


def _imagenet(dim: int, layers: int, heads: int) -> ModelConfig:
    return ModelConfig(codebook_size=16384, dim=dim, layers=layers, heads=heads, classes=1000)


def papers(config: ModelConfig) -> ModelConfig:
    """The architecture that MaskGIL's paper describes: 2-D rotation, QK-norm and post-norm."""
    return replace(config, rope="2d", qk_norm="layer", norm="post")


_TEXT_XL = ModelConfig(
    codebook_size=16384, dim=1280, layers=36, heads=20, text_dim=2048, text_length=120, null_length=120
)

# Parameters beside each. A score is added only when our own evaluation printed it; none has been yet. b to xxl and
# t2i-xl are the paper's architecture; those named -llamagen have neither of its norms, as LlamaGen's weights need it.
PRESETS: dict[str, ModelConfig] = {
    "b": papers(_imagenet(768, 12, 12)),  # 110,926,848
    "l": papers(_imagenet(1024, 24, 16)),  # 343,011,328
    "xl": papers(_imagenet(1280, 36, 20)),  # 774,886,400
    "xxl": papers(_imagenet(1536, 48, 24)),  # 1,411,270,656
    "t2i-xl": papers(_TEXT_XL),  # 778,110,720
    "b-llamagen": _imagenet(768, 12, 12),  # 110,889,984
    "l-llamagen": _imagenet(1024, 24, 16),  # 342,913,024
    "xl-llamagen": _imagenet(1280, 36, 20),  # 774,702,080
    "xxl-llamagen": _imagenet(1536, 48, 24),  # 1,410,975,744
    # 777,926,400: LlamaGen's text-driven XL, its null caption and one mask row in table and head
    "t2i-xl-llamagen": _TEXT_XL,
    # The bundled model. One null token instead of 48 keeps the unconditional half short.
    "scenes": ModelConfig(
        codebook_size=4096,
        dim=256,
        layers=8,
        heads=4,
        ffn=768,
        text_dim=192,
        text_length=48,
        qk_norm="rms",
        dropout=0.0,
    ),
}
