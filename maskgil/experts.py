"""A generator of several experts, each for texts of its own: learning new things changes no old ones.

eDiff-I (Balaji et al. 2022, arXiv 2211.01324) chooses an expert by the noise level; here the text chooses. It is drawn
by the last expert one of whose names it contains, and by the first generator if it contains none. All evaluations of a
picture are of its expert, those of the null condition among them.

    folder/generator/       the first generator
    folder/experts/1/       the first expert, of the same shape, tokenizer and text encoder; then experts/2/ ...
    folder/vocabulary.json  "experts": for each expert the "names" that its texts contain, and of which longer phrases
                            ("except") these are only a part: a fire truck is no truck

B rows, N tokens, L text tokens, K codes.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskgil import checkpoint
from maskgil.condition import Condition, ConditionEncoder
from maskgil.model_folder import expert_folders
from maskgil.models.maskgil import MaskGIL
from maskgil.sampling.code_space import CodeSpace

EXPERTS_KEY = "experts"  # in vocabulary.json


class ExpertCodeSpace(CodeSpace):
    """Codes whose evaluations are split by expert: the shapes of a batch depend on its texts."""

    fixed_shapes: ClassVar[bool] = False


class ExpertGenerator(nn.Module):
    """The generators of a model, called as one of them: a row is evaluated by the generator that its condition names.

    Raises ValueError for generators of different configurations, and for fewer than two.
    """

    def __init__(self, generators: Sequence[MaskGIL]):
        super().__init__()
        if len(generators) < 2 or any(each.config != generators[0].config for each in generators):
            raise ValueError("experts are two or more generators of one configuration")
        self.generators = nn.ModuleList(generators)
        self.config = generators[0].config

    @property
    def token_space(self) -> CodeSpace:
        """Codes: see maskgil/generator.py."""
        return ExpertCodeSpace(self.config.codebook_size, self.config.mask_id)

    def forward(
        self,
        tokens: Int[Tensor, "B N"],
        grid: tuple[int, int],
        condition: Condition,
        drop: Bool[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B N K"]:
        """Logits over the codes at every image position, as `MaskGIL.forward`; a condition without experts is of the
        first generator. IndexError for an expert that there is not."""
        if condition.expert is None:
            return self.generators[0](tokens, grid, condition, drop)
        used = condition.expert.unique().tolist()
        if len(used) == 1:
            return self.generators[used[0]](tokens, grid, condition, drop)
        rows = [(condition.expert == number).nonzero()[:, 0] for number in used]
        parts = [
            self.generators[number](tokens[own], grid, condition.rows(own).trim(), None if drop is None else drop[own])
            for number, own in zip(used, rows, strict=True)
        ]
        return torch.cat(parts)[torch.cat(rows).argsort()]


def adapted_layers(generator: nn.Module) -> list[dict[str, nn.Module]]:
    """The layers of a generator by their names; of one with experts those of each, under the same names."""
    parts = generator.generators if isinstance(generator, ExpertGenerator) else [generator]
    return [dict(part.named_modules()) for part in parts]


def load_experts(folder: Path, first: Any, dtype: torch.dtype) -> Any:
    """`first`, the generator of this model folder, with the folder's experts if it has any.

    Raises ValueError for an expert that is broken or was trained with another tokenizer or text encoder.
    """
    places = expert_folders(folder)
    if not places:
        return first
    wanted = checkpoint.describe(folder / "generator")
    for place in places:
        notes = checkpoint.describe(place)
        for part in ("tokenizer_hash", "text_encoder_hash"):
            if notes.get(part) != wanted.get(part):
                raise ValueError(
                    f"{place} was trained with another {part.removesuffix('_hash').replace('_', ' ')} than "
                    f"{folder / 'generator'}: put the right expert there"
                )
    experts: list[Any] = [checkpoint.load(place, "maskgil", dtype) for place in places]
    assert isinstance(first, MaskGIL), "experts are of a MaskGIL"
    return ExpertGenerator([first, *experts])


class ExpertRouter:
    """Finds the expert of a text by the names in it. `entries`: those of the experts in vocabulary.json.

    Raises ValueError for entries of another form.
    """

    def __init__(self, entries: Any):
        try:
            longer: set[str] = {phrase.casefold() for entry in entries for phrase in entry.get("except", ())}
            names: dict[str, int] = {
                name.casefold(): number for number, entry in enumerate(entries, 1) for name in entry["names"]
            }
        except (AttributeError, KeyError, TypeError):
            raise ValueError(f"{EXPERTS_KEY} is no list of experts, each with its names") from None
        self._experts = names
        phrases = sorted({*longer, *names}, key=len, reverse=True)  # the longest that fits is the one meant
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, phrases))})(?!\w)") if names else None

    def route(self, prompts: Sequence[str]) -> Int[Tensor, " B"] | None:
        """The expert of each prompt, 0 for the first generator; None where the model has no experts."""
        if self._pattern is None:
            return None
        return torch.tensor([self._expert(prompt.casefold()) for prompt in prompts])

    def condition(self, encoder: ConditionEncoder, prompts: Sequence[str]) -> Condition:
        """The prompts' states, each with its expert."""
        return encoder.encode(list(prompts)).drawn_by(self.route(prompts))

    def _expert(self, prompt: str) -> int:
        assert self._pattern is not None
        return max((self._experts.get(found, 0) for found in self._pattern.findall(prompt)), default=0)
