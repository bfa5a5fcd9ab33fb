"""Runs an arm: draws with the bundled weights, or trains a small model and draws with it.

score     scene score, higher is better        distance  Frechet distance in the judge's features, lower is better
seconds   to draw a picture                    nfe       evaluations of the generator for a picture
norm      of the trunk's output, root mean square; a row keeps it every 100 training steps (norms)
loss      of a trained model on scenes that it was not trained on; the objective is the same for all of a method:
          exactly as many tokens masked as drawn, any share as often, all weighing the same, with their captions
through   scene score of rendered pictures after the arm's tokenizer: no generator of its codes can do better"""

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

import text_encoder
from experiments.paper_findings.arms import GRID, HEAD, HEADS, REPEATS, Arm, Draw, Small, arm_record
from experiments.paper_findings.findings import EMIGM, MAR
from experiments.paper_findings.merged_codes import Grouped, merge_codes
from experiments.paper_findings.verdicts import append_row, read_rows
from maskgil import checkpoint
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.sampling.schedules import linear
from train.data.scene_cache import note_of
from train.eval.scene_score import (
    asked_scenes,
    drawn,
    frechet,
    judge,
    moments,
    overall,
    reconstructed,
    rendered_pixels,
)
from train.losses.diffusion_token import LatentTokenLoss, LatentTrainingModule
from train.losses.generation_methods import METHODS, method
from train.recipes.scenes_emigm import MethodOptions, method_recipe
from train.scenes.sprites import Sprites
from train.trainer import train


class Missing(ValueError):
    """Weights or a cache that an arm needs are not there yet."""


@dataclass
class ArmRunner:
    """What arms run on. `n` pictures of each kind judge an arm; `train` is a share of all training steps.

    homes  the models whose tokenizer and text encoder small models use: of those for codes, and for latents
    """

    runs: Path
    n: int = 20
    train: float = 1.0
    codes: str = "cache/scenes"
    latents: str = "cache/latents"
    reader: str = "scenes-reader"
    sprites: str = ""
    batch: int = 64
    homes: tuple[str, str] = (MAR, EMIGM)
    _opened: dict[str, TextToImage] = field(default_factory=dict)
    _judge: tuple[Any, dict[str, Tensor]] | None = None
    _through: dict[str, float] = field(default_factory=dict)
    _identities: dict[Arm, list[Any]] = field(default_factory=dict)

    def bundled(self, name: str) -> TextToImage:
        if name not in self._opened:
            try:
                folder = checkpoint.resolve(name)
            except ValueError as error:
                raise Missing(str(error)) from None
            if not folder.is_dir():
                raise Missing(f"there is no model {name}")
            self._opened[name] = TextToImage.load(folder, text_encoder.load)
        return self._opened[name]

    def judged(self) -> tuple[Any, dict[str, Tensor]]:
        """The reader, and the moments of its features on the corpus."""
        if self._judge is None:
            import train.scenes.judge  # noqa: F401, registers the reader's kind

            folder = checkpoint.resolve(self.reader)
            self._judge = checkpoint.load(folder, "reader").eval(), load_file(folder / "reference.safetensors")
        return self._judge

    def key(self, arm: Arm, seed: int) -> str:
        """Stands for everything that the numbers of an arm depend on. Raises Missing as `run`."""
        if arm not in self._identities:
            self._identities[arm] = self._identity(arm)
        return hashlib.sha256(json.dumps([seed, *self._identities[arm]]).encode()).hexdigest()[:12]

    def _identity(self, arm: Arm) -> list[Any]:
        """What the key of an arm is made of beside its seed."""
        reader, reference = self.judged()
        parts: list[Any] = [arm_record(arm), self.n]
        parts += [checkpoint.fingerprint(reader.state_dict()), checkpoint.fingerprint(reference)]
        if isinstance(arm.model, str):
            model = self.bundled(arm.model)
            parts.append(checkpoint.fingerprint(model.generator.state_dict()))
            parts.append(checkpoint.fingerprint(model.tokenizer.state_dict()))
            parts.append(checkpoint.fingerprint(model.text_encoder.identity()))
            if arm.draw.ar_tokens:
                parts.append(checkpoint.fingerprint(self.ar_model(model).state_dict()))
        else:
            home, _, made_by = self.home(arm.model)
            parts += [made_by, checkpoint.fingerprint(home.tokenizer.state_dict())]  # the decoder's share of a score
            parts += [checkpoint.fingerprint(home.text_encoder.identity()), self.train, self.batch]
        return parts

    @staticmethod
    def ar_model(model: TextToImage) -> torch.nn.Module:
        if not model.has_ar_model:
            raise Missing("there is no AR model beside the model")
        return model.ar_model

    def home(self, small: Small) -> tuple[TextToImage, Path, str]:
        """The bundled model that shares its parts, the cache to learn from, and the fingerprint of its tokenizer."""
        folder = Path(self.latents if small.latents else self.codes)
        home = self.bundled(self.homes[small.latents])
        try:
            made_by = note_of(folder)
        except ValueError as error:
            raise Missing(str(error)) from None
        if checkpoint.fingerprint(home.tokenizer.identity()) != made_by["tokenizer"]:
            raise Missing(f"{folder} is not of the tokenizer of {self.homes[small.latents]}: make it anew")
        if ("latent" in made_by) != small.latents:
            raise Missing(f"{folder} does not hold {'latents' if small.latents else 'codes'}")
        return home, folder, made_by["tokenizer"]

    @torch.no_grad()
    def scored(self, model: TextToImage, draw: Draw, seed: int) -> dict[str, float]:
        reader, reference = self.judged()
        asked = asked_scenes(self.n, held_out=False, skip=seed * self.n)
        model.head = draw.sampler()
        drawn(model, asked[:1], replace(draw.settings(), steps=1))  # warms up, and loads what is loaded late
        pixels, seconds, nfe = drawn(model, asked, draw.settings(), seed=1_000_000 * seed)
        scores, features = judge(reader, asked, pixels)
        distance = frechet(moments(features), (reference["mean"], reference["covariance"]))
        return {"score": overall(scores), "distance": distance, "seconds": seconds, "nfe": nfe}

    @torch.no_grad()
    def through(self, tokenizer: Any, key: str) -> float:
        """The scene score of true pictures that have gone through a tokenizer of codes."""
        if key not in self._through:
            reader, _ = self.judged()
            asked = asked_scenes(self.n, held_out=False)
            scenes, sprites = [scene for _, scene, _ in asked], Sprites(self.sprites or None)
            pixels = rendered_pixels(scenes, sprites, tokenizer.config.upscale)
            self._through[key] = overall(judge(reader, asked, reconstructed(tokenizer, pixels))[0])
        return self._through[key]

    def run(self, arm: Arm, seed: int) -> dict[str, Any]:
        """The numbers of an arm. Raises Missing for weights or caches that are not there."""
        if isinstance(arm.model, str):
            model = self.bundled(arm.model)
            if arm.draw.ar_tokens:
                self.ar_model(model)
            return self.scored(model, arm.draw, seed)
        return self.trained(arm.model, arm.draw, seed, self.runs / self.key(arm, seed))

    def trained(self, small: Small, draw: Draw, seed: int, out: Path) -> dict[str, Any]:
        """Train a small model, then judge what it draws with the tokenizer and text encoder of the bundled one.

        "norms" are (step, norm of the output) as it trained. All learn layout too, or none would draw anything in so
        few steps. Raises KeyboardInterrupt when it was asked to stop while training.
        """
        home, folder, made_by = self.home(small)
        one_size, unseen = _split_cache(folder, self.runs / f"cache-{made_by}")
        tokenizer, group = merge_codes(home.tokenizer, small.merged) if small.merged else (home.tokenizer, None)
        recipe = method_recipe(
            out.name,
            method(small.method, **dict(small.choices)),
            str(one_size),
            str(checkpoint.resolve(self.homes[small.latents]) / "text_encoder"),
            MethodOptions(
                steps=max(1, round(self.train * small.steps)),
                batch=self.batch,
                lr=1e-3,
                muon_lr=0.02,
                width=small.width,
                depth=small.depth,
                heads=HEADS,
                head=HEAD,
                repeats=REPEATS,
                seed=seed,
                codes=0 if small.latents else tokenizer.config.codebook_size,
                layout=0.5,
                blocks=small.blocks,
                architecture={
                    name: value for name in ("qk_norm", "norm") if not small.latents and (value := getattr(small, name))
                },
            ),
        )
        batch_at = recipe.batch_at if group is None else Grouped(recipe.batch_at, group)
        every, norms = max(1, round(100 * self.train)), out / "norms.jsonl"

        def model_of(module: LatentTrainingModule) -> TextToImage:
            side = GRID * tokenizer.config.downsample
            return TextToImage(module.generator, module.text_encoder, tokenizer, [(side, side)])

        def watch(module: LatentTrainingModule, batch: dict, generator: torch.Generator, step: int) -> None:
            if (step + 1) % every == 0:
                append_row(norms, {"key": step + 1, "norm": output_norm(model_of(module))})

        learned = train(replace(recipe, batch_at=batch_at, export=None, save_every=100, after_step=watch), out)
        if read_log(out) < recipe.steps:
            raise KeyboardInterrupt
        model = model_of(learned)
        numbers: dict[str, Any] = self.scored(model, draw, seed) | {"norm": output_norm(model)}
        data = replace(recipe.batch_at, folder=str(unseen), seed=10_000)
        numbers["loss"] = held_out_loss(learned, small, data if group is None else Grouped(data, group))
        numbers["norms"] = sorted({row["key"]: row["norm"] for row in read_rows(norms)}.items())
        return numbers if small.latents else numbers | {"through": self.through(tokenizer, f"{made_by} {small.merged}")}


def read_log(out: Path) -> int:
    """The last step that a run has logged; it logs its very last one, unless it was asked to stop before."""
    return max((json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()), default=0)


def _split_cache(cache: Path, out: Path) -> tuple[Path, Path]:
    """The part of a cache that is of 128 x 128, as links: (what all arms learn from, its last file for their loss).

    All arms then learn from pictures of 64 tokens. A cache of one file is both.
    """
    shards = sorted(cache.glob("128x128-*.safetensors"))
    parts = {out / "training": shards[:-1] or shards, out / "held-out": shards[-1:]}
    for folder, paths in parts.items():
        folder.mkdir(parents=True, exist_ok=True)
        for path in (cache / "cache.json", *paths):
            link = folder / path.name
            if not link.exists():
                link.unlink(missing_ok=True)  # one that points nowhere
                with contextlib.suppress(FileExistsError):  # another process was faster
                    link.symlink_to(path.resolve())
    training, held_out = parts
    return training, held_out


@torch.no_grad()
def held_out_loss(
    module: LatentTrainingModule, small: Small, batch_at: Callable[[int], dict], batches: int = 8
) -> float:
    """The mean loss of a hidden token, under masks, times and noise that are the same for every arm and seed."""
    same = replace(METHODS[small.method], masking="exact", weighting="one", curve=linear, t_min=0.0, trunk="mae")
    objective, module = LatentTokenLoss(same, caption_dropout=0.0), module.eval()
    sums = torch.zeros(2)
    for number in range(batches):
        loss, _ = objective([module], batch_at(number), torch.Generator().manual_seed(number), 0)
        sums += torch.stack([loss.total.float(), loss.count.float()])
    return float(sums[0] / sums[1])


@torch.no_grad()
def output_norm(model: TextToImage, prompts: int = 16) -> float:
    """Root mean square of what reaches the trunk's last norm when nothing is known but the text."""
    generator: Any = model.generator
    seen: list[Tensor] = []
    watch = generator.last_norm.register_forward_pre_hook(lambda module, given: seen.append(given[0].float()))
    try:
        texts = [text for _, _, text in asked_scenes(max(1, prompts // 8), held_out=False)][:prompts]
        model.images(texts, list(range(len(texts))), model.sizes[0], SamplingParams(steps=1, guidance_scale=1.0))
    finally:
        watch.remove()
    return seen[0].square().mean().sqrt().item()
