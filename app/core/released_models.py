"""The released models as a table: what each takes, whose it is, and whether it is on this machine."""

from collections.abc import Sequence

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


def weights_in_memory(model: ReleasedModel) -> tuple[float, float]:
    """Gigabytes with the generator in fp32, and in bf16."""
    full, half = (memory_need(catalog_sizes(model), itemsize, "full").peak / GIGA for itemsize in (4, 2))
    return full, half


def model_facts(model: ReleasedModel) -> list[str]:
    """What somebody wants to know before fetching a model."""
    full, half = weights_in_memory(model)
    return [
        "{}x{}".format(*model.size),
        f"{model.parameters / 1e6:,.0f} M parameters",
        f"{model.gigabytes:.1f} GB to fetch",
        f"{full:.1f} GB in memory, {half:.1f} in bf16",
        model.license,
    ]


GUIDE = ("Name", "Good for", "An image on two CPU cores", "On a GPU", "Untested")


def guide_row(model: ReleasedModel) -> list[str]:
    """What somebody chooses a model by, in the columns of GUIDE."""
    seconds = model.cpu_seconds
    cpu = "not measured" if seconds is None else f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
    untested = ", ".join(part for part in ("the released weights", model.untested) if part)
    return [model.name, model.good_for, cpu, "not measured", untested]


def guide_table() -> str:
    """`guide_row` of all released models as a Markdown table: the page and docs/released-models.md show the same."""
    rows = [[f"`{name}`", *others] for name, *others in map(guide_row, catalog.MODELS)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (GUIDE, ["---"] * len(GUIDE), *rows))


HEAD = ("NAME", "IMAGE", "PARAMETERS", "TO FETCH", "MEMORY fp32/bf16", "LICENSE", "GOOD FOR", "STATE")


def released_table() -> str:
    """All released models, one a line, in columns with heads."""
    rows: list[Sequence[str]] = [HEAD]
    for model in catalog.MODELS:
        full, half = weights_in_memory(model)
        rows.append([
            model.name, "{}x{}".format(*model.size), f"{model.parameters / 1e6:,.0f} M", f"{model.gigabytes:.1f} GB",
            f"{full:.1f} / {half:.1f} GB", model.license, model.good_for, fetch_state(model),
        ])  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def remove_model(name: str) -> str:
    """Remove a fetched model; returns what to say about it. Raises ValueError when it is not here."""
    freed = download.remove(name)
    return f"{catalog.released_model(name).name} is removed: {freed / 1e9:.1f} GB are free again"
