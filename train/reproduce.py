"""Do the papers' findings hold here? python -m train.reproduce [only=NAME,...] [kind=sampling|training] [seeds=2]
        [n=20] [train=1] [batch=64] [results=benchmarks/reproduction.jsonl] [runs=runs/reproduce]
        [codes=cache/scenes] [latents=cache/latents] [reader=scenes-reader]
    python -m train.reproduce table [results=...]         prints the table of what is known, and computes nothing

A finding is data: what the paper says, arms, and claims that compare two arms by a number. Sampling arms draw with the
bundled weights, training arms first train a small model on 64 cached tokens (`train=0.5`: half as long). What an arm
gave for a seed is appended to `results`, one JSON object a line, under a key that stands for all that it depends on: so
a run that was killed goes on, arms that findings share are computed once, and new weights are measured anew. A finding
whose weights or cache are missing waits, and says so.

    score     scene score, higher is better        distance  Frechet distance in the reader's features, lower is better
    seconds   to draw a picture                    nfe       evaluations of the generator for a picture
    norm      of the trunk's output after training, root mean square

A claim is confirmed when its arms differ in the claimed direction by more than the noise, which is twice the standard
error of the differences between seeds and never under the resolution of the number (RESOLUTION); not confirmed when
they differ so in the other direction; else inside the noise. "No worse" is confirmed unless it is worse by more.
"""

import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from maskgil import checkpoint
from maskgil.diffusion_head import DDPM, DPMSolver
from maskgil.guidance import Guidance
from maskgil.hybrid import Prefix
from maskgil.pipeline import Settings, TextToImage
from maskgil.schedules import CURVES
from maskgil.tokenizers.vq import VQModel
from train.continuous import method_recipe
from train.evaluate import asked_scenes, drawn, frechet, judge, moments, overall
from train.framework import METHODS, method
from train.loop import train

Metric = Literal["score", "distance", "seconds", "nfe", "norm"]
HIGHER = ("score",)
# What two runs may differ by without meaning anything: one picture of a kind of twenty is 0.7 of the score; the others
# are relative to the larger of the two values.
RESOLUTION: dict[str, float] = {"score": 1.0, "distance": 0.02, "seconds": 0.05, "nfe": 0.0, "norm": 0.02}
SIZE, TOKENS = (128, 128), 64


@dataclass(frozen=True)
class Draw:
    """How to draw. curve and order "" are the model's own; head: evaluations of DPM-Solver, or DDPM's when negative.

    twin: tokens that the autoregressive twin decides first.
    """

    steps: int = 8
    curve: str = ""
    scale: float = 3.5
    interval: tuple[float, float] = (0.1, 1.0)
    head: int = 8
    twin: int = 0

    def settings(self) -> Settings:
        curve = {"curve": CURVES[self.curve]} if self.curve else {}
        prefix = Prefix(self.twin) if self.twin else None
        return Settings(self.steps, Guidance(self.scale, interval=self.interval), prefix=prefix, **curve)

    def sampler(self) -> DPMSolver | DDPM:
        return DPMSolver(self.head) if self.head > 0 else DDPM(-self.head)


@dataclass(frozen=True)
class Small:
    """A small model to train: a row of METHODS, its choices, its size, its steps.

    merged  codes of the tokenizer that are left when similar ones count as one (0: all)
    qk_norm, norm  of MaskGIL's trunk (maskgil/config.py)
    """

    method: str
    choices: tuple[tuple[str, str | float], ...] = ()
    width: int = 128
    depth: int = 6
    steps: int = 1200
    merged: int = 0
    qk_norm: str = "rms"
    norm: str = "pre"

    @property
    def latents(self) -> bool:
        """Whether it learns from latents; else from codes."""
        return METHODS[self.method].conditional == "diffusion"


@dataclass(frozen=True)
class Arm:
    """`model` is a bundled name, or what to train."""

    name: str
    model: str | Small
    draw: Draw = Draw()


@dataclass(frozen=True)
class Claim:
    """Arm `better` beats arm `worse` by a metric; with `no_worse` it need only not lose."""

    metric: Metric
    better: str
    worse: str
    no_worse: bool = False

    def __str__(self) -> str:
        return f"{self.metric}: {self.better} {'no worse than' if self.no_worse else 'before'} {self.worse}"


@dataclass(frozen=True)
class Finding:
    name: str
    says: str
    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...]

    @property
    def kind(self) -> str:
        return "training" if any(isinstance(arm.model, Small) for arm in self.arms) else "sampling"


def _chain(metric: Metric, *names: str) -> tuple[Claim, ...]:
    """Each better than the next."""
    return tuple(Claim(metric, one, other) for one, other in zip(names, names[1:], strict=False))


def _drawn(model: str, **arms: Draw) -> tuple[Arm, ...]:
    return tuple(Arm(name.replace("_", " ").strip(), model, draw) for name, draw in arms.items())


MAR, EMIGM = "scenes", "scenes-emigm"
SHORT = Draw(16, "exp", 1.0)  # what trained eMIGMs are judged by, unguided


def _small(method: str, draw: Draw = SHORT, **sizes: Any) -> Callable[..., Arm]:
    def arm(name: str, size: dict[str, Any] | None = None, **choices: str | float) -> Arm:
        return Arm(name, Small(method, tuple(sorted(choices.items())), **(sizes | (size or {}))), draw)

    return arm


_emigm = _small("emigm")
_maskgil = _small("maskgil", Draw(8, scale=2.0))

FINDINGS: tuple[Finding, ...] = (
    Finding(
        "mar-against-ar", "MaskGIL: 8 masked steps are as good as a step for each token, and faster",
        (Arm("8 steps", MAR), Arm("AR", MAR, Draw(twin=TOKENS))),
        (Claim("score", "8 steps", "AR", True), Claim("distance", "8 steps", "AR", True),
         Claim("seconds", "8 steps", "AR")),
    ),
    Finding(
        "steps", "MaskGIL: quality rises with the steps and is nearly all there at 8",
        tuple(Arm(f"{n} steps", MAR, Draw(n)) for n in (4, 8, 12, 16, 32)),
        (Claim("score", "8 steps", "4 steps"), Claim("score", "8 steps", "16 steps", True),
         Claim("score", "8 steps", "32 steps", True)),
    ),
    Finding(
        "schedules", "MaskGIL: arccos reveals best at 8 steps",
        tuple(Arm(curve, MAR, Draw(curve=curve)) for curve in ("arccos", "cosine", "linear", "square", "root")),
        tuple(Claim("distance", "arccos", curve) for curve in ("cosine", "linear", "square", "root")),
    ),
    Finding(
        "cfg", "MaskGIL: guidance is what makes pictures follow their text",
        _drawn(MAR, guided=Draw(interval=(0.0, 1.0)), unguided=Draw(scale=1.0)),
        (Claim("score", "guided", "unguided"),),
    ),
    Finding(
        "interval-codes", "eMIGM: guidance in an interval saves evaluations at the same quality (here: MaskGIL)",
        _drawn(MAR, always=Draw(interval=(0.0, 1.0)), early=Draw(interval=(0.5, 1.0)), ours=Draw()),
        (Claim("nfe", "early", "always"), Claim("score", "early", "always", True),
         Claim("score", "ours", "always", True)),
    ),
    Finding(
        "interval-vectors", "eMIGM: guidance in a late interval saves evaluations, at no loss in quality",
        _drawn(EMIGM, always=Draw(16, interval=(0.0, 1.0)), late=Draw(16, interval=(0.1, 0.3)),
               early=Draw(16, interval=(0.5, 1.0))),
        (Claim("nfe", "late", "always"), Claim("distance", "late", "always", True),
         Claim("score", "late", "always", True), Claim("distance", "late", "early")),
    ),
    *(
        Finding(
            f"curves-{steps}", f"eMIGM: exp before cosine before linear when sampling in {steps} steps",
            tuple(Arm(curve, EMIGM, Draw(steps, curve)) for curve in ("exp", "cosine", "linear")),
            _chain("distance", "exp", "cosine", "linear"),
        )
        for steps in (8, 16)
    ),
    Finding(
        "head", "eMIGM: 8 to 15 evaluations of the head by DPM-Solver do for 100 of DDPM",
        (Arm("DPM 8", EMIGM, Draw(16)), Arm("DPM 15", EMIGM, Draw(16, head=15)),
         Arm("DDPM 100", EMIGM, Draw(16, head=-100))),
        (Claim("distance", "DPM 8", "DDPM 100", True), Claim("distance", "DPM 15", "DDPM 100", True),
         Claim("seconds", "DPM 15", "DDPM 100")),
    ),
    Finding(
        "size", "MaskGIL: wider models are better",
        tuple(_maskgil(str(width), {"width": width}) for width in (64, 128, 192)),
        _chain("distance", "192", "128", "64"),
    ),
    Finding(
        "norms", "MaskGIL: QK-norm and post-norm keep the output's norm from growing",
        (_maskgil("neither", {"qk_norm": "none"}), _maskgil("QK"), _maskgil("QK and post", {"norm": "post"})),
        (Claim("norm", "QK", "neither"), Claim("norm", "QK and post", "neither"),
         Claim("distance", "QK and post", "neither", True)),
    ),
    Finding(
        "codebook", "MaskGIL: the size of the codebook matters, and the largest is not the best to generate with",
        tuple(_maskgil(f"{k or 4096} codes", {"merged": k}) for k in (256, 1024, 0)),
        (Claim("distance", "1024 codes", "256 codes"), Claim("distance", "1024 codes", "4096 codes", True)),
    ),
    Finding(
        "weights", "eMIGM: w = 1 before the bound's gamma'/gamma",
        (_emigm("1"), _emigm("bound", weighting="bound")),
        (Claim("distance", "1", "bound"),),
    ),
    Finding(
        "training-curves", "eMIGM: with w = 1, exp before cosine before linear (in the paper only after 300 epochs)",
        (_emigm("exp"), _emigm("cosine", curve="cosine"), _emigm("linear", curve="linear")),
        _chain("distance", "exp", "cosine", "linear"),
    ),
    Finding(
        "trunks", "eMIGM: a masked autoencoder before a single encoder",
        (_emigm("MAE"), _emigm("single", trunk="single")),
        (Claim("distance", "MAE", "single"),),
    ),
    Finding(
        "truncation", "eMIGM: t_min 0.2 before 0; 0.4 no better than 0",
        (_emigm("0", t_min=0.0), _emigm("0.2"), _emigm("0.4", t_min=0.4)),
        (Claim("distance", "0.2", "0"), Claim("distance", "0", "0.4", True)),
    ),
    Finding(
        "null", "eMIGM: the mask token as the empty text, before a token of its own, without guidance",
        (_emigm("mask"), _emigm("token", null="token")),
        (Claim("distance", "mask", "token"),),
    ),
    Finding(
        "equal-compute", "eMIGM: at equal training compute the larger model is better",
        # a step's computation grows with the square of the width
        (_emigm("80 wide", {"width": 80, "steps": 3072}), _emigm("128 wide"),
         _emigm("192 wide", {"width": 192, "steps": 533})),
        _chain("distance", "192 wide", "128 wide", "80 wide"),
    ),
)  # fmt: skip


# --- results ----------------------------------------------------------------------------------------------------------

Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """The results so far. A line that a killed run left unfinished is passed over."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict) and "key" in row]


def append(path: Path, row: Row) -> None:
    """Add a line that is on disk when this returns; it begins anew where the last one was never finished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def verdict(claim: Claim, rows: dict[str, dict[int, dict[str, float]]]) -> str:
    """confirmed, not confirmed or inside the noise; "" when the arms have no seed in common.

    rows: the metrics of each arm's name and seed.
    """
    one, other = rows.get(claim.better, {}), rows.get(claim.worse, {})
    pairs = [(one[s][claim.metric], other[s][claim.metric]) for s in one if s in other]
    if not pairs:
        return ""
    sign = 1 if claim.metric in HIGHER else -1
    gains = [sign * (a - b) for a, b in pairs]
    mean = sum(gains) / len(gains)
    largest = max(abs(value) for pair in pairs for value in pair)
    noise = RESOLUTION[claim.metric] * (1 if claim.metric in HIGHER else largest)
    if len(gains) > 1:
        variance = sum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1)
        noise = max(noise, 2 * math.sqrt(variance / len(gains)))
    if claim.no_worse:
        return "confirmed" if mean >= -noise else "not confirmed"
    if abs(mean) <= noise:
        return "inside the noise"
    return "confirmed" if mean > 0 else "not confirmed"


def table(findings: Iterable[Finding], rows: list[Row]) -> str:
    """Markdown. The rows say which arm, model and seed they are of; those of arms as they were before are passed over.

    Of several measurements of an arm with a seed (new weights) the last counts.
    """
    lines = ["| finding | arms, mean ± spread over the seeds | claims |", "|---|---|---|"]
    for finding in findings:
        known: dict[str, dict[int, dict[str, float]]] = {}
        for arm in finding.arms:
            for row in rows:
                if row["arm"] == _plain(arm):
                    known.setdefault(arm.name, {})[row["seed"]] = row["metrics"]
        if not known:
            continue
        metrics = list(dict.fromkeys(["score", "distance", *(claim.metric for claim in finding.claims)]))
        arms = "; ".join(
            f"{arm.name}: {_numbers(known[arm.name], metrics)}" for arm in finding.arms if arm.name in known
        )
        said = [f"{claim}: **{found}**" for claim in finding.claims if (found := verdict(claim, known))]
        lines.append(f"| {finding.says} | {arms} | {'; '.join(said)} |")
    return "\n".join(lines)


def _numbers(seeds: dict[int, dict[str, float]], metrics: list[str]) -> str:
    out = []
    for metric in metrics:
        values = torch.tensor([m[metric] for m in seeds.values() if metric in m], dtype=torch.float64)
        if len(values):
            spread = f" ± {values.std():.2g}" if len(values) > 1 else ""
            out.append(f"{metric} {values.mean():.3g}{spread}")
    return ", ".join(out)


def _plain(arm: Arm) -> Any:
    """What the arm computes, without its name, as JSON gives it back."""
    return json.loads(json.dumps({"model": arm.model if isinstance(arm.model, str) else asdict(arm.model),
                                  "draw": asdict(arm.draw)}))  # fmt: skip


# --- running ----------------------------------------------------------------------------------------------------------


class Missing(ValueError):
    """Weights or a cache that an arm needs are not there yet."""


@dataclass
class Bench:
    """What arms run on. `n` pictures of each kind judge an arm; `train` is a share of all training steps.

    homes  the models whose tokenizer and text encoder small models use: of those for codes, and for latents
    """

    runs: Path
    n: int = 20
    train: float = 1.0
    codes: str = "cache/scenes"
    latents: str = "cache/latents"
    reader: str = "scenes-reader"
    batch: int = 64
    homes: tuple[str, str] = (MAR, EMIGM)
    _opened: dict[str, TextToImage] = field(default_factory=dict)
    _judge: tuple[Any, dict[str, Tensor]] | None = None

    def bundled(self, name: str) -> TextToImage:
        if name not in self._opened:
            try:
                folder = checkpoint.resolve(name)
            except ValueError as error:
                raise Missing(str(error)) from None
            if not folder.is_dir():
                raise Missing(f"there is no model {name}")
            self._opened[name] = TextToImage.load(folder)
        return self._opened[name]

    def judged(self) -> tuple[Any, dict[str, Tensor]]:
        """The reader, and the moments of its features on the corpus."""
        if self._judge is None:
            import train.scenes.reader  # noqa: F401, registers the reader's kind

            folder = checkpoint.resolve(self.reader)
            self._judge = checkpoint.load(folder, "reader").eval(), load_file(folder / "reference.safetensors")
        return self._judge

    def key(self, arm: Arm, seed: int) -> str:
        """Stands for everything that the numbers of an arm depend on."""
        parts: list[Any] = [_plain(arm), seed, self.n]
        if isinstance(arm.model, str):
            model = self.bundled(arm.model)
            parts.append(checkpoint.fingerprint(model.generator.state_dict()))
            parts.append(checkpoint.fingerprint(model.tokenizer.state_dict()))
            if arm.draw.twin:
                parts.append(checkpoint.fingerprint(self.twin(model).state_dict()))
        else:
            home, _, made_by = self.home(arm.model)
            parts += [made_by, checkpoint.fingerprint(home.text_encoder.identity()), self.train, self.batch]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    @staticmethod
    def twin(model: TextToImage) -> torch.nn.Module:
        if not model.has_twin:
            raise Missing("there is no autoregressive twin beside the model")
        return model.twin

    def home(self, small: Small) -> tuple[TextToImage, Path, str]:
        """The bundled model that lends its parts, the cache to learn from, and the fingerprint of its tokenizer."""
        folder = Path(self.latents if small.latents else self.codes)
        if not (folder / "cache.json").is_file():
            raise Missing(f"there is no cache {folder}")
        home, made_by = self.bundled(self.homes[small.latents]), json.loads((folder / "cache.json").read_text())
        if checkpoint.fingerprint(home.tokenizer.identity()) != made_by["tokenizer"]:
            raise Missing(f"{folder} is not of the tokenizer of {self.homes[small.latents]}: make it anew")
        return home, folder, made_by["tokenizer"]

    @torch.no_grad()
    def scored(self, model: TextToImage, draw: Draw, seed: int) -> dict[str, float]:
        reader, reference = self.judged()
        asked = asked_scenes(self.n, held_out=False)
        model.head = draw.sampler()
        drawn(model, asked[:1], replace(draw.settings(), steps=1))  # warms up, and loads what is loaded late
        pixels, seconds, nfe = drawn(model, asked, draw.settings(), seed=1_000_000 * seed)
        scores, features = judge(reader, asked, pixels)
        distance = frechet(moments(features), (reference["mean"], reference["covariance"]))
        return {"score": overall(scores), "distance": distance, "seconds": seconds, "nfe": nfe}

    def run(self, arm: Arm, seed: int) -> dict[str, float]:
        """The numbers of an arm. Raises Missing for weights or caches that are not there."""
        if isinstance(arm.model, str):
            model = self.bundled(arm.model)
            if arm.draw.twin:
                self.twin(model)
            return self.scored(model, arm.draw, seed)
        return self.trained(arm.model, arm.draw, seed, self.runs / self.key(arm, seed))

    def trained(self, small: Small, draw: Draw, seed: int, out: Path) -> dict[str, float]:
        """Train a small model, then judge what it draws with the tokenizer and text encoder of the bundled one."""
        home, folder, made_by = self.home(small)
        one_size = self.runs / f"cache-{made_by}"
        _one_size(folder, one_size)
        tokenizer, group = merged(home.tokenizer, small.merged) if small.merged else (home.tokenizer, None)
        recipe = method_recipe(
            out.name,
            method(small.method, **dict(small.choices)),
            str(one_size),
            str(checkpoint.resolve(self.homes[small.latents]) / "text_encoder"),
            steps=max(1, round(self.train * small.steps)),
            batch=self.batch,
            lr=1e-3,
            muon_lr=0.02,
            width=small.width,
            depth=small.depth,
            heads=4,
            head=(3, 192),
            repeats=2,
            seed=seed,
            codes=0 if small.latents else tokenizer.config.codebook_size,
            **{} if small.latents else {"qk_norm": small.qk_norm, "norm": small.norm},
        )
        batch_at = recipe.batch_at if group is None else Grouped(recipe.batch_at, group)
        learned = train(replace(recipe, batch_at=batch_at, export=None, save_every=100), out)
        model = TextToImage(learned.generator, learned.text_encoder, tokenizer, [SIZE])
        return self.scored(model, draw, seed) | {"norm": output_norm(model)}


def _one_size(cache: Path, out: Path) -> None:
    """The part of a cache that is of 128 x 128, as links: all arms then learn from pictures of 64 tokens."""
    out.mkdir(parents=True, exist_ok=True)
    for path in (cache / "cache.json", *sorted(cache.glob("128x128-*.safetensors"))):
        link = out / path.name
        if not link.exists():
            link.unlink(missing_ok=True)  # one that points nowhere
            link.symlink_to(path.resolve())


@dataclass(frozen=True)
class Grouped:
    """Batches in which each code is the number of its group."""

    batch_at: Callable[[int], dict]
    group: Int[Tensor, " K"]

    def __call__(self, index: int) -> dict:
        batch = self.batch_at(index)
        return batch | {"tokens": self.group[batch["tokens"]]}


class MergedTokenizer:
    """A tokenizer of groups of codes: the code nearest to a group's centre stands for all of it."""

    def __init__(self, tokenizer: VQModel, group: Int[Tensor, " K"], stands: Int[Tensor, " k"]):
        self.tokenizer, self.group, self.stands = tokenizer, group, stands
        self.config = replace(tokenizer.config, codebook_size=len(stands))

    def encode(self, pixels: Float[Tensor, "B 3 H W"]) -> Int[Tensor, "B N"]:
        return self.group[self.tokenizer.encode(pixels)]

    def decode(self, tokens: Int[Tensor, "B N"], grid: tuple[int, int]) -> Float[Tensor, "B 3 H W"]:
        return self.tokenizer.decode(self.stands[tokens], grid)

    def identity(self) -> dict[str, Tensor]:
        return self.tokenizer.identity() | {"stands": self.stands}


def merged(tokenizer: VQModel, size: int, rounds: int = 20) -> tuple[MergedTokenizer, Int[Tensor, " K"]]:
    """The tokenizer with its codes in `size` groups (k-means on the sphere), and the group of each code.

    So a smaller codebook costs no training of another tokenizer; it is a little worse than one that was trained small.
    """
    codes, draw = F.normalize(tokenizer.quantize.codebook().detach().float(), dim=-1), torch.Generator().manual_seed(0)
    centres = codes[torch.randperm(len(codes), generator=draw)[:size]]
    for _ in range(rounds):
        sums = torch.zeros_like(centres).index_add_(0, (codes @ centres.T).argmax(1), codes)
        empty = sums.norm(dim=1) < 1e-6
        sums[empty] = codes[torch.randint(len(codes), (int(empty.sum()),), generator=draw)]
        centres = F.normalize(sums, dim=-1)
    similarity = codes @ centres.T
    group = similarity.argmax(1)
    return MergedTokenizer(tokenizer, group, similarity.argmax(0)), group


@torch.no_grad()
def output_norm(model: TextToImage, prompts: int = 16) -> float:
    """Root mean square of what reaches the trunk's last norm when nothing is known but the text."""
    generator, seen = model.generator, []
    last = generator.decoder_norm if model.continuous else generator.norm
    watch = last.register_forward_pre_hook(lambda module, given: seen.append(given[0].float()))
    try:
        texts = [text for _, _, text in asked_scenes(max(1, prompts // 8), held_out=False)][:prompts]
        model.images(texts, list(range(len(texts))), SIZE, Settings(steps=1, guidance=Guidance(1.0)))
    finally:
        watch.remove()
    return seen[0].square().mean().sqrt().item()


def measure(findings: Iterable[Finding], bench: Bench, seeds: int, results: Path) -> Iterator[str]:
    """Run what is not known yet, one arm and seed after the other; yields a line about each."""
    done = {row["key"] for row in read(results)}
    for finding in findings:
        for seed in range(seeds):
            for arm in finding.arms:
                try:
                    key = bench.key(arm, seed)
                    if key in done:
                        continue
                    since = time.perf_counter()
                    metrics = bench.run(arm, seed)
                except Missing as missing:
                    yield f"{finding.name}, {arm.name}: waits, since {missing}"
                    continue
                took = time.perf_counter() - since
                append(results, {
                    "key": key, "finding": finding.name, "name": arm.name, "seed": seed, "n": bench.n,
                    "metrics": metrics, "took": round(took, 1), "arm": _plain(arm),
                })  # fmt: skip
                shutil.rmtree(bench.runs / key, ignore_errors=True)  # what was trained for it
                done.add(key)
                shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
                yield f"{finding.name}, {arm.name}, seed {seed}: {shown} ({took:.0f} s)"


def chosen(only: str, kind: str) -> list[Finding]:
    """Findings by name and kind; empty strings choose all. ValueError for what there is not."""
    names = [name for name in only.split(",") if name]
    known = {finding.name: finding for finding in FINDINGS}
    if strange := [name for name in names if name not in known]:
        raise ValueError(f"no finding is called {', '.join(strange)}: there are {', '.join(known)}")
    if kind not in ("", "sampling", "training"):
        raise ValueError(f"kind={kind}: choose sampling or training")
    return [f for f in FINDINGS if (not names or f.name in names) and kind in ("", f.kind)]


NUMBERS: dict[str, type] = {"n": int, "seeds": int, "batch": int, "train": float}


def main(arguments: list[str]) -> None:
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return
    only_table = arguments[:1] == ["table"]
    given: dict[str, Any] = dict(a.partition("=")[::2] for a in arguments[only_table:])
    places = ("runs", "codes", "latents", "reader")
    if strange := sorted(set(given) - {"only", "kind", "results", *NUMBERS, *places}):
        raise ValueError(f"{', '.join(strange)} is not known: see the top of train/reproduce.py")
    for name, convert in NUMBERS.items():
        if name in given:
            try:
                given[name] = convert(given[name])
            except ValueError:
                raise ValueError(f"{name}={given[name]} is not a number") from None
            if not given[name] > 0:
                raise ValueError(f"{name}={given[name]}: give more than 0")
    findings = chosen(given.pop("only", ""), given.pop("kind", ""))
    results, seeds = Path(given.pop("results", "benchmarks/reproduction.jsonl")), given.pop("seeds", 2)
    if not only_table:
        for line in measure(findings, Bench(Path(given.pop("runs", "runs/reproduce")), **given), seeds, results):
            print(line, flush=True)
    print(table(findings, read(results)))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        print(f"train.reproduce: {error}", file=sys.stderr)
        sys.exit(2)
