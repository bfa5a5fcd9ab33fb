"""How well pictures fit their prompts: `maskgil eval clip --model FOLDER --out FOLDER --prompts FILE`.

Draws the missing samples in `out` (train/eval/sample_images.py) and prints the CLIP score: the mean of max(0, 100 cos)
of a picture's embedding and its prompt's (Hessel et al. 2021, arXiv 2104.08718, with the usual factor of 100). `clip`
is a folder, or a Hugging Face name that is in the cache or can be downloaded.

Axes: n pictures.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from tyro.conf import arg

from maskgil.picture_sizes import parse_size
from train.eval.sample_images import (
    SamplerOptions,
    WorkOptions,
    draw_samples,
    generator_config,
    numbered,
    prompts_for,
    read_prompts,
)


class ClipScore:
    """A CLIP model of transformers. Texts beyond its length (77 tokens) are cut, as usual."""

    def __init__(self, name: str):
        """Raises ValueError when there is no such model, or its files are not CLIP's."""
        from transformers import CLIPModel, CLIPTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        try:
            self.model = CLIPModel.from_pretrained(name).eval().requires_grad_(False)
            self.tokenizer = CLIPTokenizer.from_pretrained(name)
            self.prepare = CLIPImageProcessorPil.from_pretrained(name)  # the other one needs torchvision
        except (OSError, ValueError) as error:
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise ValueError(f"no CLIP model {name!r} as a folder, in the cache or on the net: {reason}") from None
        if torch.cuda.is_available():
            self.model.to("cuda")

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Float[Tensor, " n"]:
        """100 cos of each picture with its own prompt, at least 0."""
        length = self.model.config.text_config.max_position_embeddings
        texts = self.tokenizer(list(prompts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        pixels = self.prepare(list(images), return_tensors="pt")["pixel_values"]
        out = self.model(
            input_ids=texts["input_ids"].to(self.model.device),
            attention_mask=texts["attention_mask"].to(self.model.device),
            pixel_values=pixels.to(self.model.device),
        )
        seen = torch.nn.functional.normalize(out.image_embeds.float(), dim=-1)
        said = torch.nn.functional.normalize(out.text_embeds.float(), dim=-1)
        return (100 * (seen * said).sum(-1)).clamp_min(0).cpu()


def score_files(score: ClipScore, paths: Sequence[Path], prompts: Sequence[str], batch: int) -> Float[Tensor, " n"]:
    """The score of each picture file with its prompt."""
    found = []
    for start in tqdm(range(0, len(paths), batch), desc="CLIP", unit="batch", mininterval=5):
        images = []
        for path in paths[start : start + batch]:
            with Image.open(path) as image:
                images.append(image.convert("RGB"))
        found.append(score(images, prompts[start : start + batch]))
    return torch.cat(found)


def clip_score(
    model: str,
    out: str,
    prompts: str,
    clip: str = "openai/clip-vit-large-patch14",
    n: int = 0,
    steps: int | None = None,
    work: Annotated[WorkOptions, arg(name="")] = WorkOptions(),  # noqa: B008
    sampler: Annotated[SamplerOptions, arg(name="")] = SamplerOptions(),  # noqa: B008
) -> None:
    """CLIP score of drawn samples: how well pictures fit their prompts.

    Args:
        model: A text-to-image model.
        out: The folder of the samples. Those that are missing are drawn first.
        prompts: A file with a prompt a line, or .jsonl with "prompt"; scenes: captions of the built-in grammar.
        clip: A CLIP model: a folder or a Hugging Face name.
        n: How many samples; 0: one for each prompt.
        steps: Steps of each drawing. Left out: the sampler's.
    """
    score = None if work.share else ClipScore(clip)  # before hours of drawing
    count = n if n else 1000 if prompts == "scenes" else len(read_prompts(Path(prompts)))
    samples = numbered(prompts_for(generator_config(model), prompts, count))
    settings, wanted = sampler.params(steps, model), parse_size(work.size) if work.size else None
    whole = draw_samples(model, samples, Path(out), settings, wanted, work.batch, work.processes, work.share)
    if score is None:
        print(f"this share is drawn; {'all are there' if whole else 'others are missing'}: run again without --share")
        return
    found = score_files(score, [Path(out) / s.path for s in samples], [s.prompt for s in samples], work.batch)
    error = float(found.std()) / len(found) ** 0.5 if len(found) > 1 else 0.0
    print(f"{model}, {len(found):,} pictures, {clip}\nCLIP score {float(found.mean()):.2f} ± {error:.2f}")
