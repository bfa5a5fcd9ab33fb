"""How Chameleon and Lumina-mGPT write a picture as a sentence, and back.

    <racm3:break> <h> <w>  row of 2w image ids <newline>  row <newline> ...  <eoss>

h and w are the sides in units of 32 pixels, height first, written as <reserved08800 + h> and <reserved08800 + w>; a
newline is <reserved08799>. An image id stands for a code of Chameleon's tokenizer, 16 pixels a code; which code, the
vocabulary's names tell (`IMGIMG` + the code with A for 0 to J for 9 + `Z`). So an unfinished sentence becomes the
prefix of a grid that a MaskGIL on the same tokenizer completes (Liu et al. 2024, arXiv 2408.02657):

    maskgil convert lumina-sentence --model FOLDER --vocabulary text_tokenizer.json --sentence ids.json
        --prompt "a red fox" --out fox.png [--seed 0] [--steps 8] [--guidance 2]

`sentence` is a JSON list of ids, as Lumina-mGPT's generation leaves them, cut off anywhere after the sides. The prompt
is said again: its words stand in the sentence as ids of a language model, which MaskGIL's text encoder does not read.

N image tokens of a grid, V ids of the vocabulary, S ids of a sentence.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from maskgil.sampling.token_grid import TokenGrid

CODES_PER_UNIT = 2  # a unit is 32 pixels, a code 16
IMAGE = re.compile(r"IMGIMG([A-J]+)Z")


@dataclass(frozen=True)
class LuminaSequence:
    """The ids that pictures are written in. `code_of` has -1 for ids that are no image ids."""

    start: int
    end: int
    newline: int
    side: int  # the id of side 0; side n has the n-th after it
    code_of: Int[Tensor, " V"]
    id_of: Int[Tensor, " K"]

    @staticmethod
    def load(path: str | Path) -> "LuminaSequence":
        """From Chameleon's text_tokenizer.json (or Hugging Face's tokenizer.json of it), which holds the mapping.

        Raises ValueError when the file is no such vocabulary, or its codes are not 0 .. K - 1, each once.
        """
        try:
            names = json.loads(Path(path).read_text(encoding="utf-8"))["model"]["vocab"]
            start, end, newline, side = (
                names[name] for name in ("<racm3:break>", "<eoss>", "<reserved08799>", "<reserved08800>")
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not Chameleon's vocabulary: {type(error).__name__} {error}") from None
        digits = str.maketrans("ABCDEFGHIJ", "0123456789")
        code = {number: int(m[1].translate(digits)) for name, number in names.items() if (m := IMAGE.fullmatch(name))}
        if not code or sorted(code.values()) != list(range(len(code))):
            raise ValueError(f"{path} names {len(code)} image codes, and they are not 0, 1, 2, ... each once")
        code_of = torch.full((max(names.values()) + 1,), -1)
        code_of[list(code)] = torch.tensor(list(code.values()))
        id_of = torch.tensor(sorted(code, key=code.__getitem__))
        return LuminaSequence(start, end, newline, side, code_of, id_of)

    def write(self, tokens: Int[Tensor, " N"], grid: tuple[int, int]) -> Int[Tensor, " S"]:
        """The sentence of a grid (rows, columns) of codes. ValueError unless both sides are whole units."""
        rows, columns = grid
        if rows % CODES_PER_UNIT or columns % CODES_PER_UNIT or rows * columns != len(tokens):
            raise ValueError(f"{len(tokens)} tokens, {rows} rows, {columns} columns: sides must be even and fit")
        lines = torch.cat([self.id_of[tokens].view(grid), torch.full((rows, 1), self.newline)], dim=1)
        sides = [self.side + rows // CODES_PER_UNIT, self.side + columns // CODES_PER_UNIT]
        return torch.cat([torch.tensor([self.start, *sides]), lines.flatten(), torch.tensor([self.end])])

    def read(self, sentence: Int[Tensor, " S"]) -> tuple[Int[Tensor, " M"], tuple[int, int]]:
        """The codes of the picture that a sentence begins to write, in raster order, and its grid (rows, columns).

        What stands before <racm3:break> (the prompt) is skipped; the sentence may stop anywhere after the sides, so
        that M <= rows * columns. Raises ValueError, with the place, where it breaks the layout.
        """
        starts = (sentence == self.start).nonzero()[:, 0].tolist()
        if not starts:
            raise ValueError(f"the sentence of {len(sentence)} ids holds no picture: id {self.start} is missing")
        body = sentence[starts[-1] + 1 :]
        if len(body) < 2 or not bool((body[:2] > self.side).all()):
            raise ValueError(
                f"after id {self.start} come height and width, ids above {self.side}; found {body[:2].tolist()}"
            )
        rows, columns = ((body[:2] - self.side) * CODES_PER_UNIT).tolist()
        body = body[2:]
        whole = rows * (columns + 1)
        if len(body) > whole and int(body[whole]) != self.end:
            raise ValueError(f"{rows} rows of {columns} codes are followed by id {int(body[whole])}, not by {self.end}")
        body = body[:whole]
        newline = torch.arange(len(body)) % (columns + 1) == columns
        known = torch.where(body < len(self.code_of), self.code_of[body.clamp(max=len(self.code_of) - 1)], -1)
        wrong = torch.where(newline, body != self.newline, known < 0).nonzero()[:, 0].tolist()
        if wrong:
            row, column = divmod(wrong[0], columns + 1)
            due = "a newline" if column == columns else "an image id"
            raise ValueError(f"row {row}, column {column} holds id {int(body[wrong[0]])} where {due} is due")
        return known[~newline], (rows, columns)


def sentence_of(path: Path) -> Int[Tensor, " S"]:
    """The ids of a JSON list. Raises ValueError for anything else."""
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the sentence {path}: {error}") from None
    if not isinstance(ids, list) or any(type(number) is not int or not 0 <= number < 2**31 for number in ids):
        raise ValueError(f"{path} is no sentence: it must be a JSON list of ids, whole numbers from 0 on")
    return torch.tensor(ids, dtype=torch.long)


def prefix_canvas(
    codes: Int[Tensor, " M"], grid: tuple[int, int], mask_id: int, device: torch.device | str = "cpu"
) -> TokenGrid:
    """One picture whose first M tokens are given; the others are masked."""
    canvas = TokenGrid.blank(1, grid, mask_id, device)
    canvas.tokens[0, : len(codes)], canvas.mask[0, : len(codes)] = codes.to(device), False
    return canvas


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil convert lumina-sentence` now")
