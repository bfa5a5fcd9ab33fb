"""FID and related scores of many samples: `maskgil eval fid --model FOLDER --out FOLDER --reference FOLDER|FILE.npz`.

Draws the samples that are missing in `out` (train/eval/sample_images.py: resumable, over processes and machines), then
prints FID, sFID, inception score, precision and recall. Samples are clamped to the range of pixels; nothing is rescaled
picture by picture, which would change the distance. The reference is a folder of pictures, cut to the samples' size, or
an npz file as ADM published them: pictures in `arr_0` (n, H, W, 3) uint8, and statistics as `mu` and `sigma`, those of
sFID as `mu_s` and `sigma_s`.

Inception is torch-fidelity's (the weights of the first FID) through torchmetrics. `--features scenes-reader` compares
in the features of the bundled judge instead, which needs no download; it has no sFID and no inception score.

Axes: n pictures, C features, S spatial features, K classes.
"""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor, nn
from tqdm import tqdm
from tyro.conf import arg

from maskgil import checkpoint
from maskgil.picture_sizes import Size, parse_size
from train.eval.sample_images import SamplerOptions, WorkOptions, draw_samples, generator_config, numbered, prompts_for
from train.eval.scene_score import SIDE, frechet, moments
from train.scenes.judge import SceneJudge, in_scene_size

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class InceptionOutput(NamedTuple):
    """Outputs of a network for pictures. `logits` or `spatial` is None where the network has none."""

    features: Float[Tensor, "B C"]
    logits: Float[Tensor, "B K"] | None = None
    spatial: Float[Tensor, "B S"] | None = None


Extract = Callable[[UInt8[Tensor, "B 3 H W"]], InceptionOutput]


@dataclass(frozen=True)
class Statistics:
    """Statistics of a set of pictures. ADM files may hold only the moments. `spatial` are moments too."""

    mean: Float[Tensor, " C"]
    covariance: Float[Tensor, "C C"]
    features: Float[Tensor, "n C"] | None = None
    logits: Float[Tensor, "n K"] | None = None
    spatial: tuple[Float[Tensor, " S"], Float[Tensor, "S S"]] | None = None


def inception() -> Extract:
    """The network of FID. ValueError, in one line, where its weights cannot be loaded."""
    from torchmetrics.image.fid import NoTrainInceptionV3

    try:
        # Two with one output each: torchmetrics gives the first output only. Without antialias a picture is resized as
        # TensorFlow 1 did, in the first FID and in ADM's statistics.
        networks = [
            NoTrainInceptionV3("inception-v3-compat", [name], antialias=False) for name in ("2048", "logits_unbiased")
        ]
    except ModuleNotFoundError:
        raise ValueError(
            "Inception needs torch-fidelity, which is not installed: it brings a torchvision that breaks on a CPU-only "
            "torch; where torch has CUDA `pip install torch-fidelity`, elsewhere give features=scenes-reader"
        ) from None
    except OSError as error:  # no network
        raise ValueError(
            f"torch-fidelity cannot fetch Inception's weights ({error}): connect to the net once"
        ) from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return InceptionFeatures(*(network.to(device) for network in networks), device)


class InceptionFeatures:
    """Inception's pooled features, logits, and what sFID is made of (Nash et al. 2021, arXiv 2103.03841).

    ADM's evaluator takes the first 7 channels of TensorFlow's `mixed_6/conv`, which torch-fidelity calls
    Mixed_6d.branch1x1: at 17x17 places 2023 numbers, channels last.
    """

    def __init__(self, pooled: nn.Module, classes: nn.Module, device: str = "cpu"):
        self.pooled, self.classes, self.device = pooled, classes, device
        self.layer = pooled.get_submodule("Mixed_6d.branch1x1")

    def __call__(self, pixels: UInt8[Tensor, "B 3 H W"]) -> InceptionOutput:
        kept: list[Tensor] = []
        hook = self.layer.register_forward_hook(lambda layer, inputs, output: kept.append(output))
        try:
            features = self.pooled(pixels.to(self.device))
        finally:
            hook.remove()
        (spatial,) = kept
        places = spatial[:, :7].permute(0, 2, 3, 1).flatten(1)
        return InceptionOutput(features.cpu(), self.classes(pixels.to(self.device)).cpu(), places.cpu())


def judge_features(name: str) -> Extract:
    """The judge of the scene score as feature extractor; it knows no classes, and pictures in the size of scenes, to
    which larger ones are brought."""
    reader = checkpoint.load(checkpoint.resolve(name), "reader")
    if not isinstance(reader, SceneJudge):
        raise ValueError(f"{name} is no reader")

    def seen(pixels: UInt8[Tensor, "B 3 H W"]) -> InceptionOutput:
        width = pixels.shape[3]
        return InceptionOutput(reader.features(in_scene_size(pixels.float().div(127.5).sub(1), min(width, SIDE))))

    return seen


@torch.no_grad()
def statistics(batches: Iterator[UInt8[Tensor, "B 3 H W"]], extract: Extract, total: int, what: str) -> Statistics:
    """Features of all pictures and their moments. ValueError for fewer than two."""
    parts: list[InceptionOutput] = []
    with tqdm(total=total, desc=what, unit="picture", mininterval=5) as bar:
        for pixels in batches:
            parts.append(InceptionOutput(*(None if part is None else part.float() for part in extract(pixels))))
            bar.update(len(pixels))
    if (found := sum(len(part.features) for part in parts)) < 2:
        raise ValueError(f"{what}: {found} pictures, at least 2 are needed")
    features, logits, spatial = (None if kind[0] is None else torch.cat(kind) for kind in zip(*parts, strict=True))
    places = None if spatial is None else moments(spatial.double())
    return Statistics(*moments(features.double()), features, logits, places)


def picture_batches(paths: Sequence[Path], batch: int, size: Size) -> Iterator[UInt8[Tensor, "B 3 H W"]]:
    """Files as pixels; a picture of another size is scaled to cover `size` and cut in its middle."""
    for start in range(0, len(paths), batch):
        pixels = []
        for path in paths[start : start + batch]:
            try:
                with Image.open(path) as image:
                    picture = image.convert("RGB")
            except (OSError, UnidentifiedImageError) as error:
                raise ValueError(f"{path} is no picture: {error}") from None
            fitted = picture if picture.size == size else ImageOps.fit(picture, size, Image.Resampling.BICUBIC)
            pixels.append(np.asarray(fitted))
        yield torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


def reference_statistics(reference: Path, extract: Extract, batch: int, size: Size) -> Statistics:
    """Of a folder (searched through) or an ADM npz. Raises ValueError for something else."""
    if reference.is_dir():
        paths = sorted(path for path in reference.rglob("*") if path.suffix.lower() in PICTURES)
        return statistics(picture_batches(paths, batch, size), extract, len(paths), f"reading {reference}")
    try:
        with np.load(reference, allow_pickle=False) as file:
            names = ("arr_0", "mu", "sigma", "mu_s", "sigma_s")
            held = {name: file[name] for name in names if name in file.files}
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"the reference {reference} is neither a folder nor an npz file: {error}") from None
    found = None
    if "arr_0" in held:
        pictures = held["arr_0"]
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
            raise ValueError(f"{reference}: arr_0 is {pictures.dtype} {pictures.shape}, expected uint8 (n, H, W, 3)")
        parts = (
            torch.from_numpy(pictures[start : start + batch]).permute(0, 3, 1, 2)
            for start in range(0, len(pictures), batch)
        )
        found = statistics(parts, extract, len(pictures), f"reading {reference}")
    known = {name: torch.from_numpy(held[name]).double() for name in held if name != "arr_0"}
    if {"mu", "sigma"} <= known.keys():
        spatial = None if found is None else found.spatial
        if {"mu_s", "sigma_s"} <= known.keys():
            spatial = known["mu_s"], known["sigma_s"]
        features = None if found is None else found.features
        return Statistics(known["mu"], known["sigma"], features, spatial=spatial)
    if found is None:
        raise ValueError(f"{reference} holds neither arr_0 nor mu and sigma: it is no file of reference statistics")
    return found


def inception_score(logits: Float[Tensor, "n K"], splits: int = 10) -> tuple[float, float]:
    """exp E KL(p(y|x) || p(y)), mean and deviation over splits (Salimans et al. 2016)."""
    scores = []
    for part in logits.double().chunk(splits):
        log_p = part.log_softmax(1)
        divergence = (log_p.exp() * (log_p - log_p.exp().mean(0).log())).sum(1)
        scores.append(divergence.mean().exp())
    values = torch.stack(scores)
    return float(values.mean()), float(values.std(correction=0))


def precision_recall(
    ours: Float[Tensor, "n C"], theirs: Float[Tensor, "m C"], k: int = 3, chunk: int = 2048
) -> tuple[float, float]:
    """Shares of samples among the reference, and of the reference among the samples (Kynkaanniemi et al. 2019).

    A set covers what is nearer to one of its members than that member's k-th neighbour in the set.
    """

    def radii(points: Tensor) -> Tensor:
        near = [torch.cdist(part, points).kthvalue(min(k + 1, len(points)), 1).values for part in points.split(chunk)]
        return torch.cat(near)  # the nearest of all is the point itself, hence k + 1

    def covered(points: Tensor, by: Tensor, radius: Tensor) -> float:
        inside = [(torch.cdist(part, by) <= radius).any(1) for part in points.split(chunk)]
        return float(torch.cat(inside).double().mean())

    return covered(ours, theirs, radii(theirs)), covered(theirs, ours, radii(ours))


def scores(ours: Statistics, theirs: Statistics) -> dict[str, float]:
    """Every score that the two sets allow. ValueError when their features are not of one kind."""
    pairs = [(ours.mean, theirs.mean, "features")]
    if ours.spatial is not None and theirs.spatial is not None:
        pairs.append((ours.spatial[0], theirs.spatial[0], "spatial features"))
    for mine, other, kind in pairs:
        if mine.shape != other.shape:
            raise ValueError(
                f"the reference has {len(other)} {kind}, the samples have {len(mine)}: statistics belong to one "
                "network; give the reference as pictures, or the features that it was made with"
            )
    out = {"FID": frechet((ours.mean, ours.covariance), (theirs.mean, theirs.covariance))}
    if ours.spatial is not None and theirs.spatial is not None:
        out["sFID"] = frechet(ours.spatial, theirs.spatial)
    if ours.logits is not None:
        out["IS"], out["IS deviation"] = inception_score(ours.logits)
    if ours.features is not None and theirs.features is not None:
        out["precision"], out["recall"] = precision_recall(ours.features, theirs.features)
    return out


def fid(
    model: str,
    out: str,
    reference: str = "",
    prompts: str = "",
    n: int = 50_000,
    steps: int | None = None,
    work: Annotated[WorkOptions, arg(name="")] = WorkOptions(),  # noqa: B008
    features: str = "inception",
    sampler: Annotated[SamplerOptions, arg(name="")] = SamplerOptions(),  # noqa: B008
) -> None:
    """FID, sFID, inception score, precision and recall of drawn samples against a reference.

    Samples that are missing in --out are drawn first. Inception is torch-fidelity's network; another --features is a
    reader's folder, which has no sFID and no inception score.

    Args:
        model: A text-to-image or class-driven model.
        out: The folder of the samples.
        reference: A folder of pictures, or an npz file of ADM with arr_0 or with mu and sigma.
        prompts: A file with a prompt a line, or .jsonl with "prompt"; scenes: captions of the built-in grammar. Left
            out for a class-driven model: its classes take turns.
        n: How many samples.
        steps: Steps of each drawing. Left out: the sampler's.
        features: inception, or a reader such as scenes-reader.
    """
    if not work.share and not reference:
        raise ValueError("give --reference FOLDER of pictures or --reference FILE.npz with statistics")
    extract = None
    if not work.share:  # checked before hours of drawing
        extract = inception() if features == "inception" else judge_features(features)
    samples = numbered(prompts_for(generator_config(model), prompts, n))
    settings, wanted = sampler.params(steps, model), parse_size(work.size) if work.size else None
    whole = draw_samples(model, samples, Path(out), settings, wanted, work.batch, work.processes, work.share)
    if extract is None:
        print(f"this share is drawn; {'all are there' if whole else 'others are missing'}: run again without --share")
        return
    assert whole, "a run without share draws everything"
    paths = [Path(out) / sample.path for sample in samples]
    with Image.open(paths[0]) as first:
        side = first.size
    theirs = reference_statistics(Path(reference), extract, work.batch, side)
    ours = statistics(picture_batches(paths, work.batch, side), extract, len(paths), "reading the samples")
    found = scores(ours, theirs)
    print(f"{model}, {len(paths):,} samples of {side[0]}x{side[1]} against {reference}, features of {features}")
    print("| " + " | ".join(found) + " |\n|" + "---|" * len(found))
    print("| " + " | ".join(f"{value:.3f}" for value in found.values()) + " |")
