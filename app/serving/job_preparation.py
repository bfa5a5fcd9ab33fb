"""What every engine does around the drawing: check a request against its model, and finish the images of previews."""

from dataclasses import replace

from PIL import Image

from app.core.request import GenerationRequest, parse_adapters
from app.serving.engine import Engine
from app.serving.jobs import Job
from app.serving.model_pool import LoadedModel
from maskgil.adapter_folder import find_adapter
from maskgil.inpainting import InpaintingInput
from maskgil.models.ar import validate_ar_condition
from maskgil.sampling.token_grid import TokenGrid

MIN_ALPHA = 26  # of 255, of cells that are not decided yet


def prepare_job(
    engine: Engine,
    request: GenerationRequest,
    owner: str,
    start: InpaintingInput | None,
    after: Job | None,
    max_rows: int,
) -> Job:
    """A job of this engine that is not queued yet (Engine.submit). Raises ValueError for what cannot be drawn."""
    adapters = parse_adapters(request.adapters)
    for name, _ in adapters:
        find_adapter(name)  # refused before a large model is loaded
    loaded = engine.load(request.model).with_adapters(adapters)
    requested, asked = request, request.size
    request = _fitted(loaded, request, max_rows)
    previous = None if after is None else after.continuation_for(request)
    if previous is not None:
        request = replace(request, edit=f"grown out of “{previous.prompt}”")
    for text in (request.text, request.negative_text):
        if text.strip():
            loaded.encode(text)  # a prompt that is too long is refused here
    job = Job(engine, loaded, request, owner, start, previous=previous)
    job.requested = requested
    if start is not None:
        job.size_note = start.scaled
    elif asked is not None and request.size is not None and asked != request.size:
        job.size_note = "{}x{} is drawn as {}x{}, the nearest size of this model".format(*asked, *request.size)
    return job


def _fitted(loaded: LoadedModel, request: GenerationRequest, max_rows: int) -> GenerationRequest:
    """The request as its model draws it. Raises ValueError for what the model or the engine cannot draw."""
    if request.size is not None:
        request = replace(request, size=loaded.model.picture_sizes.rounded(request.size))
    request = replace(request, params=loaded.model.fit_params(request.params))
    request = request.fit(loaded.sizes, loaded.model.tokenizer.config.downsample)
    if request.params.mode == "ar":
        # The AR model makes none, and the metadata should not say that it did.
        request = replace(request, params=replace(request.params, refinement_passes=0))
    if request.params.mode != "masked":
        loaded.load_ar_model()  # here, where it holds up no other job
        validate_ar_condition(loaded.encode(request.text))
    if request.rows > max_rows:
        raise ValueError(f"{request.rows} pictures at once: at most {max_rows} are drawn together")
    return request


def finish_preview(images: list[Image.Image], grid: TokenGrid, start: InpaintingInput | None) -> list[Image.Image]:
    """The decoded images of a grid, over the picture that is edited and with undecided cells transparent."""
    if start is not None:
        images = [start.paste_back(image) for image in images]
    if not bool(grid.mask.any()):
        return images
    rows, columns = grid.grid
    for image, mask in zip(images, grid.mask.cpu(), strict=True):
        cells = Image.fromarray((255 - (255 - MIN_ALPHA) * mask.view(rows, columns).byte().numpy()), "L")
        size = image.size
        image.putalpha(start.cell_image(cells, size) if start else cells.resize(size, Image.Resampling.NEAREST))
    return images
