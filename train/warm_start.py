"""Begin a model as another one: seeds of its own, and generators that read another text encoder."""

from collections.abc import Iterable

import torch
from torch import nn

from maskgil import checkpoint


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
