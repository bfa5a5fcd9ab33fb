"""`maskgil convert lumina-sentence`: MaskGIL completes the picture that a Lumina-mGPT sentence begins."""

from pathlib import Path

import torch

import text_encoder
from maskgil.converters.lumina_mgpt import LuminaSequence, prefix_canvas, sentence_of
from maskgil.fileio import atomic_write
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage


def complete_sentence(
    model: str,
    vocabulary: str,
    sentence: str,
    prompt: str,
    out: str,
    seed: int = 0,
    steps: int = SamplingParams.steps,
    guidance: float = SamplingParams.guidance_scale,
) -> None:
    """Draw the rest of the picture that a sentence begins, and write it as a PNG.

    Raises ValueError for a sentence or vocabulary that is none, and a size or tokenizer that is not the model's.

    Args:
        model: A MaskGIL folder on Chameleon's tokenizer.
        vocabulary: Chameleon's text_tokenizer.json.
        sentence: A JSON list of ids, cut off anywhere after the sides.
        prompt: What the picture shows; MaskGIL does not read the words in the sentence.
        out: The PNG to write.
        seed: The seed of the rest.
        steps: Steps of the rest.
        guidance: Guidance scale; 1 is off.
    """
    lumina = LuminaSequence.load(vocabulary)
    codes, grid = lumina.read(sentence_of(Path(sentence)))
    draws = TextToImage.load(model, text_encoder.load, "cuda" if torch.cuda.is_available() else "cpu")
    config = draws.generator.config
    codes_drawn = draws.generator.token_space.codebook_size
    if codes_drawn != len(lumina.id_of):
        has = "vectors" if codes_drawn is None else f"{codes_drawn} codes"
        raise ValueError(f"{model} draws {has}, {vocabulary} names {len(lumina.id_of)} codes: give a MaskGIL on those")
    side = draws.tokenizer.config.downsample
    size = draws.validate_size((grid[1] * side, grid[0] * side))
    canvas = prefix_canvas(codes, grid, config.mask_id, draws.device)
    settings = SamplingParams(steps=steps, guidance_scale=guidance)
    if canvas.mask.any():
        images = draws.images([prompt], [seed], size, settings, canvas=canvas)
    else:  # the sentence was finished
        images = draws.images_of(canvas)
    path = Path(out)
    try:
        with atomic_write(path) as partial:
            images[0].save(partial, "PNG")
    except OSError as error:
        raise ValueError(f"could not write {path}: {error}") from None
    print(f"{path}: {size[0]}x{size[1]}, {len(codes)} of {grid[0] * grid[1]} tokens from the sentence")
