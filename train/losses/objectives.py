"""Losses. Each takes models and a batch and returns a scalar and what to log.

Axes: B batch, N image tokens, K codes, C latent channels.
"""

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskgil import checkpoint
from maskgil.condition import Condition
from maskgil.tokenizers.vq import VQModel
from train.losses.reconstruction import ReconstructionLoss
from train.training_step import unwrapped


def quantize_with_gradient(model: VQModel, z: Float[Tensor, "B h w C"]) -> tuple[Tensor, Tensor, Tensor]:
    """(straight-through latents, tokens, codebook + commitment loss), VQ-VAE with beta 0.25 (van den Oord 2017)."""
    tokens = model.quantize.nearest(z.detach())
    codes = F.embedding(tokens, model.quantize.codebook())
    loss = (codes - z.detach()).square().mean() + 0.25 * (codes.detach() - z).square().mean()
    return z + (codes - z).detach(), tokens, loss


class TokenizerWithCellHead(nn.Module):
    """A tokenizer in training: beside it a head that must name, from the tokens alone, what covers each cell.

    Pixels alone teach a small tokenizer colours long before identities; this makes the codes carry both. The head is
    dropped at export.
    """

    def __init__(self, model: VQModel, things: int):
        super().__init__()
        self.model = model
        if hasattr(model, "naming"):  # which pixels are not to teach, while the codes that it reads change
            model.naming.requires_grad_(False)
        self.head = nn.Conv2d((model.config.decoder_channels or model.config.channels)[-1], things + 1, 1)

    def forward(
        self, pixels: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B h w C"] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(pixels again, logits of names (B, T+1, h, w), codebook loss); with `noise`, through latents that are not
        quantised but a little off."""
        z = self.model.latents(self.model.to_encoder_resolution(pixels))
        if noise is None:
            z, _, extra = quantize_with_gradient(self.model, z)
        else:
            z, extra = F.normalize(z + noise, dim=-1), z.new_zeros(())
        z = z.permute(0, 3, 1, 2)
        cells = self.model.decoder.encode_latents(self.model.post_quant_conv(z))
        return self.model.decoder.to_pixels(cells, self.model.cell_features(z)), self.head(cells), extra


class TokenizerLoss:
    """Reconstruction through the codebook, and the names of what covers each cell. Until `quantise_from` the latents
    pass unquantised (normalised only), so that the codebook starts from clusters of latents that mean something."""

    def __init__(self, quantise_from: int, naming: float = 0.1, likeness: ReconstructionLoss | None = None):
        self.quantise_from, self.naming, self.likeness = quantise_from, naming, likeness or ReconstructionLoss()

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
        model = unwrapped(modules[0]).model
        pixels = batch["pixels"].float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        noise = None
        if step < self.quantise_from:
            shape = (len(pixels), *model.grid(*pixels.shape[2:]), model.config.codebook_dim)
            noise = 0.05 * torch.randn(shape, generator=generator, device=pixels.device)
        result, names, extra = modules[0](pixels, noise)
        result, names = result.float(), names.float()
        naming = F.cross_entropy(names, batch["covers"])
        loss, report = self.likeness(result, batch, pixels, modules, model.decoder.last_layer, step)
        loss = loss + extra + self.naming * naming
        with torch.no_grad():
            l1 = (result - pixels).abs().mean()
            there = batch["covers"] > 0
            named = (names.argmax(1) == batch["covers"])[there].float().mean()
        return loss, report | {"l1": l1.item(), "vq": extra.item(), "named": named.item()}


@torch.no_grad()
def spread_codebook(model: VQModel, latents: Float[Tensor, "n C"], generator: torch.Generator, rounds: int = 8) -> None:
    """Start the codebook as clusters of latents (k-means on the sphere from random ones)."""
    k = model.config.codebook_size
    device = latents.device
    centres = latents[torch.randperm(len(latents), generator=generator, device=device)[:k]]
    for _ in range(rounds):
        nearest = torch.cat([(part @ centres.T).argmax(1) for part in latents.split(4096)])
        sums = torch.zeros_like(centres).index_add_(0, nearest, latents)
        empty = sums.norm(dim=1) < 1e-6
        chosen = torch.randint(len(latents), (int(empty.sum()),), generator=generator, device=device)
        sums[empty] = latents[chosen]
        centres = F.normalize(sums, dim=-1)
    model.quantize.embedding.weight.copy_(centres)


def latents_of(
    codebook: Float[Tensor, "K C"], tokens: Int[Tensor, "B N"], grid: tuple[int, int]
) -> Float[Tensor, "B C h w"]:
    """What a decoder and its Naming read of tokens."""
    return codebook[tokens].unflatten(1, grid).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


class DecoderOnly(nn.Module):
    """The half of a tokenizer that paints: what may still be improved when a generator has learned its tokens. A Naming
    stays as it is: it has learned to tell what painting alone would not teach it (train/losses/cell_labels.py). So do
    refiner and
    upscaler of one that is `coarse`: it paints without them, three times as many pictures in the same time."""

    def __init__(self, model: VQModel, coarse: bool = False):
        super().__init__()
        self.decoder, self.post_quant_conv, self.coarse = model.decoder, model.post_quant_conv, coarse
        for part in ("refiner", "upscaler") if coarse else ():
            getattr(model.decoder, part).requires_grad_(False)
        self.naming = model.naming.requires_grad_(False) if hasattr(model, "naming") else None
        self.register_buffer("codebook", model.quantize.codebook().detach().clone())

    def forward(self, tokens: Int[Tensor, "B N"], grid: tuple[int, int]) -> Float[Tensor, "B 3 H W"]:
        z = latents_of(self.codebook, tokens, grid)
        named = None if self.naming is None else self.naming(z)
        return self.decoder(self.post_quant_conv(z), named, corrected=not self.coarse)


def corrupt_codes(
    tokens: Int[Tensor, "B N"], near: tuple[Tensor, Tensor], most: float, generator: torch.Generator
) -> Int[Tensor, "B N"]:
    """In half of the pictures up to `most` of the tokens give way to one that is near (near_codes), as happens when a
    generator draws them."""
    codes, shares = (table.to(tokens.device)[tokens.flatten()] for table in near)
    other = codes.gather(1, torch.multinomial(shares, 1, generator=generator)).view_as(tokens)
    share = torch.rand(2, len(tokens), 1, generator=generator, device=tokens.device)
    rate = torch.where(share[0] < 0.5, most * share[1], 0.0)
    given = torch.rand(tokens.shape, generator=generator, device=tokens.device) < rate
    return torch.where(given, other, tokens)


class DecoderLoss:
    """Likeness from given tokens; what lies on an object weighs three times as much as the background.

    muddle: how far the tokens are `muddled`, by codes that are `near`: a decoder should not care.
    """

    def __init__(self, likeness: ReconstructionLoss, near: tuple[Tensor, Tensor] | None = None, muddle: float = 0.0):
        self.likeness, self.near, self.muddle = likeness, near, muddle

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
        model = unwrapped(modules[0])
        pixels = batch["pixels"].float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        tokens = batch["tokens"]
        if self.near is not None and self.muddle:
            tokens = corrupt_codes(tokens, self.near, self.muddle, generator)
        result = modules[0](tokens, tuple(batch["grid"])).float()
        there = (batch["covers"] > 0)[:, None].float()
        weight = F.interpolate(1 + 2 * there, size=pixels.shape[2:], mode="nearest")
        weight = weight / weight.mean()
        loss, report = self.likeness(result, batch, pixels, modules, model.decoder.last_layer, step, weight)
        with torch.no_grad():
            l1 = (result - pixels).abs()
            on = (l1 * (weight > 1)).sum() / (3 * (weight > 1).sum()).clamp(1)
        return loss, report | {"l1": l1.mean().item(), "on objects": on.item()}


class CodebookRevival:
    """Called after each step: starts the codebook when quantisation begins and revives codes that nothing uses."""

    def __init__(self, quantise_from: int, more_batches, every: int = 100, until: int = 10**9):
        self.quantise_from, self.more_batches, self.every, self.until = quantise_from, more_batches, every, until

    def _latents(self, model: VQModel, step: int, batches: int) -> Tensor:
        found, device = [], next(model.parameters()).device
        for i in range(batches):
            pixels = self.more_batches(10_000_000 + step * 64 + i)["pixels"].to(device).float().div(127.5).sub(1)
            with torch.no_grad(), torch.autocast(pixels.device.type, torch.bfloat16):
                small = model.to_encoder_resolution(pixels).contiguous(memory_format=torch.channels_last)
                found.append(model.latents(small).flatten(0, 2).float())
        return torch.cat(found)

    def __call__(self, named: TokenizerWithCellHead, batch: dict, generator: torch.Generator, step: int) -> None:
        model = named.model
        if step + 1 == self.quantise_from:
            spread_codebook(model, self._latents(model, step, 48), generator)
        elif self.quantise_from < step < self.until and step % self.every == 0:
            latents = self._latents(model, step, 16)
            codes = model.quantize.codebook()
            similarity, nearest = zip(*[(part @ codes.T).max(1) for part in latents.split(4096)], strict=True)
            used = torch.bincount(torch.cat(nearest), minlength=len(codes))
            dead = (used == 0).nonzero().flatten()
            # unused codes go to the latents that the codebook serves worst, at most 5% of it at a time
            dead = dead[torch.randperm(len(dead), generator=generator, device=dead.device)[: len(codes) // 20]]
            worst = torch.cat(similarity).argsort()[: 4 * len(dead)]
            chosen = worst[torch.randperm(len(worst), generator=generator, device=dead.device)[: len(dead)]]
            with torch.no_grad():
                model.quantize.embedding.weight[dead[: len(chosen)]] = latents[chosen]


def arccos_ratio(u: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Mask ratio of the released code: arccos(u) / (pi / 2), mean 0.637."""
    return torch.arccos(u) / (math.pi / 2)


def random_mask(
    tokens: Int[Tensor, "B N"],
    ratio: Float[Tensor, " B"],
    generator: torch.Generator,
    early: Float[Tensor, "B N"] | float = 0.0,
) -> Bool[Tensor, "B N"]:
    """Exactly ceil(ratio * N), at least one, masked positions a row (MaskGIT).

    `early`, in [0, 1], draws positions forward: 0 is as likely as any, 1 comes before all that are at 0.
    """
    n = tokens.shape[1]
    order = (torch.rand(tokens.shape, generator=generator, device=tokens.device) - early).argsort(1).argsort(1)
    return order < (ratio * n).ceil().clamp(1, n)[:, None]


class TextConditioned(nn.Module):
    """A generator and the text encoder that is trained with it, as one module."""

    def __init__(self, generator: nn.Module, text_encoder: nn.Module):
        super().__init__()
        self.generator, self.text_encoder = generator, text_encoder

    def forward(self, tokens, grid, ids, mask, drop) -> Tensor:
        states = self.text_encoder(ids, mask)
        return self.generator(tokens, tuple(grid), Condition(states, mask), drop)


class WithLayoutHeads(nn.Module):
    """A text-driven generator in training: halfway up its layers two heads must say what each cell will show.

    Which thing a cell shows, and which piece of it, is nearly settled by the caption, far sooner learned than tokens,
    and all that tokens depend on. The heads are dropped at export.
    """

    def __init__(self, driven: TextConditioned, kinds: tuple[int, ...]):
        """`kinds`: answers of each head."""
        super().__init__()
        self.driven = driven
        self.heads = nn.ModuleList(nn.Linear(driven.generator.config.dim, kind) for kind in kinds)

    def forward(self, tokens, grid, ids, mask, drop) -> tuple[Tensor, ...]:
        """Logits of the tokens, then of each head."""
        layers, seen = self.driven.generator.layers, []
        watch = layers[len(layers) // 2].register_forward_hook(lambda layer, given, out: seen.append(out))
        try:
            logits = self.driven(tokens, grid, ids, mask, drop)
        finally:
            watch.remove()
        cells = seen[0][:, -tokens.shape[1] :]  # the text comes first
        cells = F.rms_norm(cells, cells.shape[-1:])
        return logits, *(head(cells) for head in self.heads)


def resume_seed(model: nn.Module) -> int:
    """A seed from the weights that a run begins with: so it meets other pictures, captions and masks than the run that
    made them, and the same ones when it is resumed."""
    return int(checkpoint.fingerprint(model.state_dict()), 16) % 2**31


@torch.no_grad()
def align_text_encoders(
    generator: nn.Module, known: nn.Module, other: nn.Module, captions: Iterable[str], ridge: float = 1e-3
) -> float:
    """Let a generator that read the states of `known` read those of `other`, which has the same pieces.

    The linear map from other states to known ones (ridge regression over all tokens of the captions) goes into the
    first layer of its caption embedding, and the null caption, where it has one, the way back. Returns the share of the
    known states' variance that the map explains. Raises ValueError where the two cut texts into other pieces.
    """
    captions = list(captions)
    if not torch.equal(known.tokenize(captions)[0], other.tokenize(captions)[0]):
        raise ValueError("the two text encoders cut texts into other pieces: their states cannot be matched")
    parts = [captions[i : i + 256] for i in range(0, len(captions), 256)]
    pairs = [(known.encode(part), other.encode(part)) for part in parts]
    wanted = torch.cat([a.states[a.mask] for a, _ in pairs])
    given = torch.cat([b.states[b.mask] for _, b in pairs])
    square = given.T @ given
    weight = torch.linalg.solve(square + ridge * square.diagonal().mean() * torch.eye(len(square)), given.T @ wanted)
    embedding = getattr(generator, "cls_embedding", None)
    first = generator.text_proj if embedding is None else embedding.cap_proj["fc1"]  # eMIGM's, MaskGIL's
    first = first[0] if isinstance(first, nn.Sequential) else first
    first.weight.copy_(first.weight @ weight.T)
    if embedding is not None and embedding.uncond_embedding is not None:
        # Cut off where states of captions hardly go, or the null caption would be far longer than any of them.
        embedding.uncond_embedding.copy_(embedding.uncond_embedding @ torch.linalg.pinv(weight, rtol=0.02))
    return 1 - float((given @ weight - wanted).var() / wanted.var())


def neighbor_targets(
    codebook: Float[Tensor, "K C"], neighbours: int = 16, temperature: float = 0.04
) -> tuple[Int[Tensor, "K n"], Float[Tensor, "K n"]]:
    """(codes, shares): what else than itself may stand for each code, by cosine similarity; shares sum to 1.

    A small codebook learned from few pictures is dense: which of several near codes a patch gets is chance, and decodes
    alike. Asked for the exact one, a generator spends most of its loss on that chance.
    """
    unit = F.normalize(codebook, dim=-1)
    similarity, codes = torch.cat([part @ unit.T for part in unit.split(1024)]).topk(neighbours, dim=1)
    return codes, (similarity / temperature).softmax(1)


class MaskedTokenLoss:
    """Cross-entropy of masked tokens given the others and the caption (MaskGIT; MaskGIL's released code).

    caption_dropout  share of rows that see the null condition, for guidance
    smoothing        label smoothing (0.1 in the released code)
    everywhere       also score visible tokens, as the released code does
    ratio            uniform numbers -> mask ratios
    layout           weight of what the heads of a WithLayoutHeads model say of the masked cells
    near             codes that may stand for a code, and their shares of the target (near_codes)
    things_first     hide the cells of things before those of the background, in each row to another degree. So it goes
                     when one draws, since the background is what a generator is sure of first; and only where a thing
                     is hidden whole must its name come from the caption
    """

    def __init__(
        self,
        caption_dropout: float = 0.1,
        smoothing: float = 0.0,
        everywhere: bool = False,
        ratio: Callable[[Tensor], Tensor] = arccos_ratio,
        layout: float = 0.0,
        near: tuple[Tensor, Tensor] | None = None,
        things_first: bool = False,
    ):
        self.caption_dropout, self.smoothing = caption_dropout, smoothing
        self.everywhere, self.ratio, self.layout, self.near = everywhere, ratio, layout, near
        self.things_first = things_first

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
        model, tokens = modules[0], batch["tokens"]
        rows, device = len(tokens), tokens.device
        ratio = self.ratio(torch.rand(rows, generator=generator, device=device))
        early = 0.0
        if self.things_first:
            early = torch.rand(rows, 1, generator=generator, device=device) * (batch["things"] > 0)
        hidden = random_mask(tokens, ratio, generator, early)
        drop = torch.rand(rows, generator=generator, device=device) < self.caption_dropout
        inner = unwrapped(model)
        generating = inner.driven if isinstance(inner, WithLayoutHeads) else inner
        shown = tokens.masked_fill(hidden, generating.generator.config.mask_id)
        out = model(shown, batch["grid"], batch["ids"], batch["mask"], drop)
        logits, *answers = out if isinstance(out, tuple) else (out,)
        scored = torch.ones_like(hidden) if self.everywhere else hidden
        loss = token_loss(logits[scored].float(), tokens[scored], self.smoothing, self.near)
        with torch.no_grad():
            right = (logits[hidden].argmax(-1) == tokens[hidden]).float().mean()
        report = {"loss": loss.item(), "right": right.item()}
        extra, told = layout_loss(answers, batch, hidden)
        return loss + self.layout * extra, report | told


def token_loss(
    logits: Float[Tensor, "n K"],
    tokens: Int[Tensor, " n"],
    smoothing: float = 0.0,
    near: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Mean cross-entropy; with `near` (near_codes) the codes that may stand for a token share its target."""
    if near is None:
        return F.cross_entropy(logits, tokens, label_smoothing=smoothing)
    codes, shares = (table.to(tokens.device)[tokens] for table in near)
    return -(shares * logits.log_softmax(1).gather(1, codes)).sum(1).mean()


# What heads of a model in training may be asked of each cell, in this order (train/scenes/labels.py).
LAYOUT = ("things", "parts", "grounds", "styles", "colours")


def layout_loss(answers: list[Tensor], batch: dict, scored: Bool[Tensor, "B N"]) -> tuple[Tensor | float, dict]:
    """Cross-entropy of what the heads of a WithLayoutHeads model say of the scored cells, summed over heads, and
    each."""
    wrong = {
        name: F.cross_entropy(answer[scored].float(), batch[name][scored])
        for name, answer in zip(LAYOUT, answers, strict=False)
    }
    return sum(wrong.values()), {name: loss.item() for name, loss in wrong.items()}


class NextTokenLoss:
    """Cross-entropy of every token given those before it, in reading order, and the caption (LlamaGen): for the twin.

    caption_dropout, smoothing, layout and near as for MaskedTokenLoss.
    """

    def __init__(
        self,
        caption_dropout: float = 0.1,
        smoothing: float = 0.0,
        layout: float = 0.0,
        near: tuple[Tensor, Tensor] | None = None,
    ):
        self.caption_dropout, self.smoothing, self.layout, self.near = caption_dropout, smoothing, layout, near

    def __call__(self, modules: list, batch: dict, generator: torch.Generator, step: int) -> tuple[Tensor, dict]:
        tokens = batch["tokens"]
        drop = torch.rand(len(tokens), generator=generator, device=tokens.device) < self.caption_dropout
        out = modules[0](tokens, batch["grid"], batch["ids"], batch["mask"], drop)
        logits, *answers = out if isinstance(out, tuple) else (out,)
        loss = token_loss(logits.float().flatten(0, 1), tokens.flatten(), self.smoothing, self.near)
        with torch.no_grad():
            right = (logits.argmax(-1) == tokens).float().mean()
        extra, told = layout_loss(answers, batch, torch.ones_like(tokens, dtype=torch.bool))
        return loss + self.layout * extra, {"loss": loss.item(), "right": right.item()} | told
