"""The released models as a table: what each takes, whose it is, and whether it is on this machine."""

from app.core.memory_need import GIGA, ModelSizes, memory_need
from app.core.weight_counts import CLIP_BYTES, OTHER_BYTES, EncoderSize
from maskgil.released import catalog, download
from maskgil.released.catalog import ReleasedModel


def fetch_state(model: ReleasedModel) -> str:
    """Whether a model is on this machine: here, begun, or not here."""
    if download.is_complete(model):
        return "here"
    return "begun" if download.is_begun(model) else "not here"


def catalog_sizes(model: ReleasedModel) -> ModelSizes:
    """Numbers of the parts of a model, which need not be here."""
    encoder = EncoderSize(model.text_encoder, model.exact, CLIP_BYTES if model.clip else OTHER_BYTES, True)
    return ModelSizes(model.generator, model.tokenizer, encoder)


def model_facts(model: ReleasedModel) -> list[str]:
    """What somebody wants to know before fetching a model."""
    sizes = catalog_sizes(model)
    full, half = (memory_need(sizes, itemsize, "full").peak / GIGA for itemsize in (4, 2))
    return [
        "{}x{}".format(*model.size),
        f"{model.parameters / 1e6:,.0f} M parameters",
        f"{model.gigabytes:.1f} GB to fetch",
        f"{full:.1f} GB in memory, {half:.1f} in bf16",
        model.license,
    ]


def released_table() -> str:
    """All released models, one a line, in columns."""
    rows = [[model.name, *model_facts(model), model.good_for, fetch_state(model)] for model in catalog.MODELS]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def remove_model(name: str) -> str:
    """Remove a fetched model; returns what to say about it. Raises ValueError when it is not here."""
    freed = download.remove(name)
    return f"{catalog.released_model(name).name} is removed: {freed / 1e9:.1f} GB are free again"
