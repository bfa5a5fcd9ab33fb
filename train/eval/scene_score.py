"""The scene score: `maskgil eval scenes --model scenes --n 20 --steps 4 8 16 --sprites FOLDER`.

The model draws eight kinds of scenes, with combinations of the training scenes and with held-out ones, and the judge
scores them. A picture is right when it shows exactly the things and counts asked for, and the background, relation,
size, style or colours of its kind. `overall` is the mean of the eight kinds, as in GenEval; silhouettes are listed
apart. `rendered` is the score of rendered pictures, which is the ceiling. Nothing is tuned on these scenes.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor
from tyro.conf import arg

import text_encoder
from maskgil import checkpoint
from maskgil.generator import Tokenizer
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from train.eval.sample_images import SamplerOptions
from train.scenes.captions import caption
from train.scenes.judge import SceneJudge, in_scene_size, verdict
from train.scenes.render import render
from train.scenes.scene import (
    BACKGROUNDS,
    PLAIN,
    RELATIONS,
    Scene,
    arrange,
    held_out_colour,
    is_held_out,
    paints,
    random_scene,
    recolored,
)
from train.scenes.sprites import Sprites, Thing, things

KINDS = {
    "single": ("objects",),
    "two": ("objects",),
    "counting": ("objects",),
    "background": ("objects", "background"),
    "relation": ("objects", "relation"),
    "size": ("objects", "size"),
    "style": ("objects", "style"),
    "silhouette": ("objects", "style"),  # apart: not in the overall score
    "colour": ("objects", "colour"),  # last: a kind's scenes depend on its place here
}
SPLITS = ("training", "held out")
BATCH = 20
SIDE = 128  # pixels of the scenes that are asked for


def asked_scene(kind: str, held_out: bool, rng: np.random.Generator, table: Sequence[Thing]) -> Scene:
    """A random scene of one kind, of things of `table`. Single objects on a plain background are no combination: they
    are never held out."""
    places = [b for b in BACKGROUNDS if b != PLAIN]
    while True:
        a, b = (table[i] for i in rng.choice(len(table), 2, replace=False))
        background, style, relation, wanted = PLAIN, "3d", "", [(a, 1, "")]
        if kind == "two":
            wanted = [(a, 1, ""), (b, 1, "")]
        elif kind == "counting":
            wanted = [(a, int(rng.integers(2, 5)), "")]
        elif kind == "background":
            background = str(rng.choice(places))
        elif kind == "relation":
            wanted, relation = [(a, 1, ""), (b, 1, "")], str(rng.choice(RELATIONS))
        elif kind == "size":
            wanted, background = [(a, 1, str(rng.choice(["small", "large"])))], str(rng.choice(places))
        elif kind == "style":
            style = str(rng.choice(["flat", "pixel art", "sketch"]))
            background = PLAIN if style == "sketch" else str(rng.choice(places))
        elif kind == "silhouette":
            style = kind
            background = str(rng.choice([p for p in places if p not in ("black", "night", "space")]))
        elif kind == "colour":
            if not (given := paints(a, PLAIN)):
                continue  # people are never recoloured
            colours = {a: str(rng.choice(given))}
            if rng.random() < 0.5:
                wanted.append((b, 1, ""))
                colours[b] = str(rng.choice(["", *paints(b, PLAIN)]))
        scene = arrange(wanted, SIDE, SIDE, background, style, relation, rng)
        if kind == "colour":
            scene = recolored(scene, colours)
            if held_out and not any(held_out_colour(thing, colour) for thing, colour in colours.items()):
                continue  # held out for another reason
        no_combination = kind == "single" or style == "sketch"
        if no_combination or is_held_out(scene) == held_out:
            return scene


def asked_scenes(n: int, held_out: bool, skip: int = 0, first: int | None = None) -> list[tuple[str, Scene, str]]:
    """n (kind, scene, caption) of every kind; the same ones each time.

    `skip`: so many of each kind are passed over. `first`: only of the first so many things of the corpus. ValueError
    for fewer than two, and for more than there are.
    """
    table = things()[:first]
    if first is not None and not 2 <= first <= len(things()):
        raise ValueError(f"the first {first} things: give 2 to {len(things())}, the things of the corpus")
    out = []
    for k, kind in enumerate(KINDS):
        rng = np.random.default_rng([777, k, held_out])
        scenes = [
            (kind, scene := asked_scene(kind, held_out, rng, table), caption(scene, rng)) for _ in range(skip + n)
        ]
        out += scenes[skip:]
    return out


def frechet(
    a: tuple[Float[Tensor, " C"], Float[Tensor, "C C"]], b: tuple[Float[Tensor, " C"], Float[Tensor, "C C"]]
) -> float:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)) of two Gaussians (Heusel et al. 2017, eq. 6)."""
    (m, s), (n, t) = a, b
    # tr sqrt(S T) = sum of the roots of the eigenvalues of S^(1/2) T S^(1/2), which is symmetric
    values, vectors = torch.linalg.eigh(s.double())
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ t.double() @ root).clamp_min(0).sqrt().sum()
    return float((m.double() - n.double()).square().sum() + s.trace() + t.trace() - 2 * cross)


def moments(features: Float[Tensor, "n C"]) -> tuple[Float[Tensor, " C"], Float[Tensor, "C C"]]:
    return features.mean(0), features.T.cov()


def judge(reader: SceneJudge, asked: list, pixels: Float[Tensor, "n 3 H W"]) -> tuple[dict[str, float], Tensor]:
    """(share right of each kind, features), of pictures in the size of their scenes or a multiple of it."""
    right: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    features = []
    for start in range(0, len(asked), 64):
        part = in_scene_size(pixels[start : start + 64], SIDE)
        features.append(reader.features(part))
        for (kind, scene, _), seen in zip(asked[start : start + 64], reader.read(part), strict=True):
            kept = verdict(scene, seen)
            right[kind].append(all(kept[check] for check in KINDS[kind]))
    return {kind: 100 * sum(v) / len(v) for kind, v in right.items() if v}, torch.cat(features)


def scene_size(model: TextToImage) -> tuple[int, int]:
    """In pixels, as the model draws a scene of SIDE x SIDE: its first size. ValueError for no multiple of that."""
    width, height = model.sizes[0]
    if width != height or width % SIDE:
        raise ValueError(f"its first size is {width}x{height}: scenes are judged in multiples of {SIDE}x{SIDE}")
    return width, height


def drawn(model: TextToImage, asked: list, settings: SamplingParams, seed: int = 0) -> tuple[Tensor, float, float]:
    """(pixels, seconds a picture, evaluations a picture) of every caption, in the model's first size."""
    pixels, nfe, since = [], 0, time.perf_counter()
    together = max(1, BATCH // settings.candidates)
    for start in range(0, len(asked), together):
        part = asked[start : start + together]
        seeds = [seed + start + i for i in range(len(part))]
        *_, last = model.draw([c for _, _, c in part], seeds, scene_size(model), settings)
        pixels.append(model.pixels(last.canvas))
        nfe = last.nfe
    return torch.cat(pixels), (time.perf_counter() - since) / len(asked), nfe


def overall(scores: dict[str, float]) -> float:
    """The scene score: the mean of all kinds but silhouettes."""
    return float(np.mean([scores[kind] for kind in KINDS if kind != "silhouette"]))


def score_row(label: str, scores: dict[str, float], *extra: str) -> str:
    cells = [label, *(f"{scores[kind]:.0f}" for kind in KINDS), f"**{overall(scores):.1f}**", *extra]
    return "| " + " | ".join(cells) + " |"


def rendered_pixels(scenes: list[Scene], sprites: Sprites, scale: int = 1) -> Float[Tensor, "n 3 H W"]:
    rng = np.random.default_rng(5)
    pixels = np.stack([render(scene, sprites, rng, scale) for scene in scenes])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def write_reference(reader: SceneJudge, sprites: Sprites, path: Path, n: int = 3000) -> None:
    """Moments of the reader's features on renders of the corpus, kept beside it: a clone has no sprites."""
    rng = np.random.default_rng(6)
    scenes = [random_scene(rng, SIDE, SIDE, held_out=None) for _ in range(n)]
    features = torch.cat([reader.features(rendered_pixels(scenes[i : i + 64], sprites)) for i in range(0, n, 64)])
    mean, covariance = moments(features)
    save_file({"mean": mean, "covariance": covariance}, path)


@torch.no_grad()
def score_scenes(
    model: tuple[str, ...] = ("scenes",),
    reader: str = "scenes-reader",
    n: int = 40,
    steps: tuple[int, ...] = (4, 8, 16),
    sprites: str = "",
    splits: tuple[Literal["training", "held out"], ...] = ("training", "held out"),
    first: int | None = None,
    sampler: Annotated[SamplerOptions, arg(name="")] = SamplerOptions(),  # noqa: B008
) -> None:
    """Print the scene score of a model, or of several beside each other, as a Markdown table.

    Args:
        model: Model folders: bundled names or paths.
        reader: The judge's folder.
        n: Pictures of each kind.
        steps: Numbers of steps, a row each.
        sprites: A folder of drawings: adds the judge's score of true pictures, and of those through the tokenizer.
        splits: Combinations that training showed, and those that it never did.
        first: Only the first so many things of the corpus. Left out: all. The AR model and scenes-emigm know 111.
    """
    if n < 1:
        raise ValueError(f"n is {n}: give the number of pictures of each kind, 20 is usual")
    plans = {name: [sampler.params(count, name) for count in steps] for name in model}
    judge_model = checkpoint.load(checkpoint.resolve(reader), "reader").eval()
    models = {name: TextToImage.load(name, text_encoder.load) for name in model}
    reference_file = checkpoint.resolve(reader) / "reference.safetensors"
    reference = load_file(reference_file) if reference_file.is_file() else None
    sizes = ",".join("{}x{}".format(*scene_size(draws)) for draws in models.values())
    print(f"{','.join(model)}, {n} pictures of each kind, {sizes}, {torch.get_num_threads()} threads{sampler}")
    print("| combinations, steps | " + " | ".join(KINDS) + " | overall | Fréchet | s/picture | NFE |")
    print("|" + "---|" * (len(KINDS) + 5))
    for split in splits:
        asked = asked_scenes(n, split == "held out", first=first)
        if sprites:
            scores, _ = judge(judge_model, asked, rendered_pixels([scene for _, scene, _ in asked], Sprites(sprites)))
            print(score_row(f"{split}, rendered", scores, "", "", ""), flush=True)
        for name, draws in models.items():
            of = f"{name}, {split}" if len(models) > 1 else split
            if sprites:
                scale = scene_size(draws)[0] // SIDE
                pixels = rendered_pixels([scene for _, scene, _ in asked], Sprites(sprites), scale)
                again = reconstructed(draws.tokenizer, pixels)
                l1 = (again - pixels).abs().mean()
                psnr = -10 * ((again - pixels) / 2).square().mean((1, 2, 3)).log10().mean()
                scores, _ = judge(judge_model, asked, again)
                label = f"{of}, through the tokenizer (L1 {l1:.3f}, PSNR {psnr:.1f})"
                print(score_row(label, scores, "", "", ""), flush=True)
            for settings in plans[name]:
                result, seconds, nfe = drawn(draws, asked, settings)
                scores, features = judge(judge_model, asked, result)
                distance = (
                    f"{frechet(moments(features), (reference['mean'], reference['covariance'])):.1f}"
                    if reference
                    else ""
                )
                print(
                    score_row(f"{of}, {settings.steps} steps", scores, distance, f"{seconds:.2f}", str(nfe)), flush=True
                )


def reconstructed(tokenizer: Tokenizer, pixels: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 3 H W"]:
    """The same pictures through a tokenizer."""
    grid = tuple(side // tokenizer.config.downsample for side in pixels.shape[2:])
    return torch.cat([tokenizer.decode(tokenizer.encode(part), grid) for part in pixels.split(32)])


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil eval` now")
