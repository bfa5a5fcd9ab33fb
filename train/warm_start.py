"""Start a model from another one: a new data seed, and a fit of the generator to another text encoder."""

from collections.abc import Iterable

import torch
from torch import nn

from maskgil import checkpoint


def resume_seed(model: nn.Module) -> int:
    """A seed derived from the initial weights of a run. The run sees other pictures, captions and masks than the run
    that made these weights, and the same ones when it is resumed."""
    return int(checkpoint.fingerprint(model.state_dict()), 16) % 2**31


@torch.no_grad()
def align_text_encoders(
    generator: nn.Module, known: nn.Module, other: nn.Module, captions: Iterable[str], ridge: float = 1e-3
) -> float:
    """Fit a generator that was trained with text encoder `known` to `other`, which has the same word pieces.

    A linear map from the states of `other` to those of `known` (ridge regression over all tokens of the captions) is
    multiplied into the first layer of the caption embedding. The null caption, if there is one, is mapped back. Returns
    the share of the variance of the known states that the map explains. ValueError where the word pieces differ.
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
        # Directions that captions hardly use are cut off; along them the mapped null caption would become far too long.
        embedding.uncond_embedding.copy_(embedding.uncond_embedding @ torch.linalg.pinv(weight, rtol=0.02))
    return 1 - float((given @ weight - wanted).var() / wanted.var())
