"""Stages 3 and 4: the generator on cached codes, and the decoder for frozen codes.

Both need the export of stage 1 and a cache. The generator also needs the export of stage 2. The decoder can be trained
while the generator is trained or after it, because neither changes the codes.
"""

from dataclasses import replace
from pathlib import Path

import torch

from maskgil import checkpoint
from maskgil.models.config import ModelConfig
from maskgil.models.maskgil import MaskGIL
from maskgil.tokenizers.vq import VQConfig, VQModel
from text_encoder.small_t5 import SmallT5Encoder
from train.image_rows import write_image_rows
from train.losses.conditioned import Conditioned, WithLayoutHeads
from train.losses.masked_token import MaskedTokenLoss
from train.losses.reconstruction import ReconstructionLoss
from train.losses.token_targets import neighbor_targets
from train.losses.tokenizer_losses import DecoderLoss, DecoderOnly
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.world.answers import answer_counts
from train.world.code_stage import CELL, CODES
from train.world.reading_stage import LENGTH
from train.world.world_cache import CachedScenes, DecoderPictures, TokenBatches

PICTURE_CELL = 2 * CELL  # pixels of a cell of the picture
HEADS = 5  # of CELL_ANSWERS: things, parts, grounds, styles, colours
GENERATOR = ModelConfig(
    codebook_size=CODES.codebook_size, dim=256, layers=8, heads=4, ffn=768, text_dim=192, text_length=LENGTH,
    qk_norm="rms", dropout=0.0,
)  # fmt: skip
# Most of the decoder works on whole cells, where a weight costs least. The refiner works on patches of 4 px of the
# half-size picture and sharpens edges. The upscaler doubles the size.
DECODER: VQConfig = replace(
    CODES, decoder_channels=(320,), refiner_channels=96, refiner_blocks=4, upscaler_channels=64, upscaler_blocks=2
)


def _codes(folder: Path) -> tuple[VQModel, str]:
    """(the tokenizer of stage 1, its fingerprint)."""
    model = checkpoint.load(folder, "vq")
    return model, checkpoint.fingerprint(model.identity())


def generator_recipe(
    drawings: str, things: int, steps: int, batch: int, precision: str, codes: Path, reader: Path, cache: Path
) -> Recipe:
    """The recipe of MaskGIL together with its text encoder. `codes` and `reader`: exports of stages 1 and 2."""
    torch.manual_seed(0)
    tokenizer, tokenizer_hash = _codes(codes)
    encoder = SmallT5Encoder.load(reader).train()
    model = WithLayoutHeads(Conditioned(MaskGIL(GENERATOR), encoder), answer_counts(things)[:HEADS])
    objective = MaskedTokenLoss(
        layout=0.5, near=neighbor_targets(tokenizer.quantize.codebook().detach()), things_first=True
    )

    def export(average: WithLayoutHeads, folder: Path) -> None:
        text, generator = average.text_encoder, average.generator
        text.save(folder / "text_encoder")
        checkpoint.save(
            folder / "generator", generator, "maskgil", generator.config.to_dict(), tokenizer_hash=tokenizer_hash,
            text_encoder_hash=checkpoint.fingerprint(text.identity()),
        )  # fmt: skip

    return Recipe(
        name="world-generator",
        steps=steps,
        modules=(OptimizedModule(model, objective, OptimConfig(lr=2e-3, muon_lr=0.02, warmup=50, decay=0.5)),),
        batch_at=TokenBatches(CachedScenes(str(cache), drawings, things, batch, seed=2), encoder.vocabulary),
        provenance={"tokenizer": tokenizer_hash, "text_encoder": checkpoint.fingerprint(encoder.identity())},
        precision=precision,
        ema=0.995,
        save_every=20,
        export=export,
    )


def decoder_recipe(
    drawings: str, things: int, steps: int, batch: int, precision: str, codes: Path, cache: Path
) -> Recipe:
    """The recipe of decoder, refiner and upscaler. Some codes are replaced by similar ones, as a generator's codes are
    not exact."""
    torch.manual_seed(0)
    tokenizer, tokenizer_hash = _codes(codes)
    model = VQModel(DECODER)
    model.load_state_dict(tokenizer.identity(), strict=False)
    painter = DecoderOnly(model.to(memory_format=torch.channels_last))
    near = neighbor_targets(model.quantize.codebook().detach())
    data = DecoderPictures(CachedScenes(str(cache), drawings, things, batch, seed=3), PICTURE_CELL)

    def sample(average: DecoderOnly, path: Path) -> None:
        shown = replace(data, scenes=replace(data.scenes, seed=99, batch=8))(0)
        with torch.no_grad():
            result = average(shown["tokens"].to(average.codebook.device), shown["grid"]).float()
        write_image_rows([shown["pixels"].float().div(127.5).sub(1), result], path)

    def export(average: DecoderOnly, folder: Path) -> None:
        model.decoder.load_state_dict(average.decoder.state_dict())
        model.post_quant_conv.load_state_dict(average.post_quant_conv.state_dict())
        checkpoint.save(folder, model, "vq", model.config.to_dict())

    return Recipe(
        name="world-decoder",
        steps=steps,
        modules=(
            OptimizedModule(
                painter,
                DecoderLoss(ReconstructionLoss(), near, 0.3),
                OptimConfig(lr=1e-3, muon_lr=0.02, warmup=50, decay=0.5),
            ),
        ),
        batch_at=data,
        provenance={"tokenizer": tokenizer_hash},
        precision=precision,
        ema=0.995,
        save_every=20,
        sample_every=200,
        sample=sample,
        export=export,
    )
