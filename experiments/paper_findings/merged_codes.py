"""A smaller codebook without training another tokenizer: similar codes count as one."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskgil.tokenizers.vq import VQModel


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


def merge_codes(tokenizer: VQModel, size: int, rounds: int = 20) -> tuple[MergedTokenizer, Int[Tensor, " K"]]:
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
