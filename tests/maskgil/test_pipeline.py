"""The whole path on tiny models: same seed same picture, masked tokens grey, folders that fit, one line for bad
input."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY, make_tiny
from torch import Tensor, nn

import text_encoder
from maskgil import checkpoint
from maskgil.aspect_buckets import every_bucket
from maskgil.condition import Condition
from maskgil.params import SamplingParams
from maskgil.pipeline import TextToImage
from maskgil.prompt_checks import MAX_PROMPT
from maskgil.sampling.token_grid import TokenGrid
from maskgil.tokenizers.vq import VQConfig, VQModel
from text_encoder import SmallT5Config, SmallT5Encoder, train_vocabulary

SIZES = [(16, 16), (24, 16), (16, 24)]


class Letters:
    """A text encoder without a network: a state for each letter."""

    width = TINY.text_dim

    def encode(self, prompts: Sequence[str]) -> Condition:
        rows = [[ord(letter) % 31 for letter in prompt[: TINY.text_length]] for prompt in prompts]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=-1)
        table = torch.randn(31, self.width, generator=torch.Generator().manual_seed(1))
        return Condition(table[ids], ids >= 0)

    def identity(self) -> dict[str, Tensor]:
        return {"width": torch.tensor(self.width)}


class Shades:
    """A tokenizer whose code is the brightness of its cell."""

    config = SimpleNamespace(downsample=4, codebook_size=TINY.codebook_size)

    def encode(self, pixels: Tensor) -> Tensor:
        cells = nn.functional.avg_pool2d(pixels.mean(1, keepdim=True), 4)
        return ((cells + 1) * 15.5).round().long().flatten(1)

    def decode(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        cells = (tokens.float() / 15.5 - 1).unflatten(1, grid)[:, None]
        return cells.expand(-1, 3, -1, -1).repeat_interleave(4, 2).repeat_interleave(4, 3)

    def identity(self) -> dict[str, Tensor]:
        return {}


@pytest.fixture
def draws() -> TextToImage:
    return TextToImage(make_tiny(), Letters(), Shades(), SIZES)


def test_pictures_have_the_size_asked_for(draws):
    for size in SIZES:
        (image,) = draws.images(["cat"], [1], size)
        assert image.size == size and image.mode == "RGB"
    assert draws.images(["cat"], [1])[0].size == SIZES[0]


def test_steps_are_told_and_paid_for(draws):
    settings = SamplingParams(steps=5, guidance_scale=3.0, guidance_interval=(0.3, 1.0), refinement_passes=0)
    told = list(draws.draw(["cat", "a dog"], [1, 2], settings=settings))
    assert [(p.step, p.of) for p in told] == [(i, 5) for i in range(1, 6)] and told[-1].done and not told[0].done
    assert [p.nfe for p in told] == [2, 4, 6, 7, 8]  # steps end at 0.8, 0.6, 0.4, 0.2, 0
    assert [bool(p.canvas.mask.any()) for p in told] == [True] * 4 + [False]


def test_the_same_seed_draws_the_same_picture(draws):
    cat, dog = draws.images(["cat", "a dog"], [5, 6])
    assert draws.images(["a dog"], [6])[0].tobytes() == dog.tobytes()
    assert draws.images(["cat"], [5])[0].tobytes() == cat.tobytes()
    assert draws.images(["cat"], [6])[0].tobytes() != cat.tobytes()


def test_text_negative_text_and_settings_matter(draws):
    usual = SamplingParams(
        guidance_scale=3.5, guidance_interval=(0.1, 1.0), temperature=0.0, refinement_passes=0
    )  # it hardly listens

    def tokens(**changes: object) -> Tensor:
        arguments = {"prompts": ["cat"], "seeds": [3], "settings": usual} | changes
        *_, last = draws.draw(**arguments)
        return last.canvas.tokens

    plain = tokens()
    assert torch.equal(plain, tokens(negative="  "))
    for change in ({"prompts": ["dog"]}, {"negative": "dog"}, {"settings": replace(usual, steps=2)}):
        assert not torch.equal(plain, tokens(**change))


def test_undecided_cells_are_grey_and_the_rest_is_as_decoded(draws):
    tokens = torch.arange(16)[None]
    masked = torch.zeros(1, 16, dtype=torch.bool)
    masked[0, [0, 5, 6]] = True
    pixels = draws.pixels(TokenGrid(tokens.masked_fill(masked, TINY.mask_id), masked, (4, 4)))
    cells = masked.view(1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3).expand_as(pixels)
    assert (pixels[cells] == 0).all()
    assert torch.equal(pixels[~cells], Shades().decode(tokens, (4, 4))[~cells])
    assert draws.images_of(draws.blank(2))[1].getcolors() == [(256, (128, 128, 128))]


def test_a_part_of_a_picture_is_drawn_anew(draws):
    *_, whole = draws.draw(["cat"], [1], (24, 16))
    masked = torch.zeros(1, 24, dtype=torch.bool)
    masked[0, [3, 9, 10]] = True
    canvas = TokenGrid(whole.canvas.tokens, masked, whole.canvas.grid)
    *_, again = draws.draw(["dog", "dog"], [8, 9], (24, 16), canvas=canvas)
    assert again.of == 3 + 1, "no more steps than masked tokens, and a refinement pass"
    assert torch.equal(again.canvas.tokens[:, ~masked[0]], whole.canvas.tokens[:, ~masked[0]].expand(2, -1))
    assert not again.canvas.mask.any()


FULL = TokenGrid(torch.zeros(1, 16).long(), torch.zeros(1, 16).bool(), (4, 4))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"prompts": [""]}, "the prompt is empty"),
        ({"prompts": [" \n"]}, "the prompt is empty"),
        ({"prompts": ["x" * (MAX_PROMPT + 1)]}, "1,001 characters, at most 1,000"),
        ({"negative": "x" * 10_000}, "negative prompt has 10,000"),
        ({"prompts": []}, "at least one"),
        ({"seeds": [1, 2]}, "2 seeds for 1 prompts"),
        ({"seeds": [-1]}, "seed -1"),
        ({"seeds": [2**63]}, "seed 9223372036854775808"),
        ({"size": (128, 64)}, "cannot draw 128x64: the nearest size is 24x16; it draws 16x16, 24x16, 16x24"),
        ({"size": (64, 64)}, "nearest size is 16x16"),
        ({"size": (0, 16)}, "size 0x16"),
        ({"settings": SamplingParams(steps=17)}, "17 steps for 16 tokens"),
        ({"canvas": TokenGrid.blank(1, (2, 2))}, "2 rows and 2 columns of tokens; 16x16 needs 4 and 4"),
        ({"canvas": TokenGrid.blank(3, (4, 4))}, "3 pictures for 1 prompts"),
        ({"canvas": FULL}, "without masked cells"),
        ({"canvas": FULL, "settings": SamplingParams(mode="hybrid", ar_tokens=4)}, "without masked cells"),
        ({"canvas": TokenGrid(torch.full((1, 16), 99), torch.arange(16)[None] < 3, (4, 4))}, "tokens 99..99; codes"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_before_anything_is_drawn(draws, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        draws.draw(**({"prompts": ["cat"], "seeds": [1]} | arguments))
    assert "\n" not in str(error.value)


def test_a_model_of_buckets_names_the_nearest_and_draws_only_what_it_was_trained_on():
    draws = TextToImage(make_tiny(), Letters(), Shades(), every_bucket((64, 32)), {"bucket_classes": [64, 32]})
    assert draws.picture_sizes.bucket_classes == (64, 32) and draws.validate_size(None) == (64, 64)
    for size in draws.sizes:
        assert draws.picture_sizes.rounded(size) == size
    assert draws.picture_sizes.rounded((130, 34)) == (128, 32) and draws.picture_sizes.rounded((40, 30)) == (32, 32)
    with pytest.raises(ValueError, match="cannot draw 130x34: the nearest size is 128x32; it draws the . buckets"):
        draws.draw(["cat"], [1], (130, 34))
    fixed = TextToImage(make_tiny(), Letters(), Shades(), SIZES)
    assert fixed.picture_sizes.rounded((130, 34)) == (130, 34) and not fixed.picture_sizes.bucket_classes
    assert fixed.picture_sizes.rounded((128, 128)) == (16, 16) and fixed.picture_sizes.rounded((12, 8)) == (24, 16), (
        "the same shape"
    )
    assert all(fixed.picture_sizes.rounded(size) == size for size in (*SIZES, (0, 0), (-16, -16)))


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="width 7, this text encoder gives 12"):
        TextToImage(make_tiny(replace(TINY, text_dim=7)), Letters(), Shades(), SIZES)
    with pytest.raises(ValueError, match="draws 16 codes, this tokenizer has 32"):
        TextToImage(make_tiny(replace(TINY, codebook_size=16)), Letters(), Shades(), SIZES)
    with pytest.raises(ValueError, match="17x16: give widths and heights in multiples of 4"):
        TextToImage(make_tiny(), Letters(), Shades(), [(17, 16)])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model folder, with parts that disk formats of the project hold."""
    folder = tmp_path_factory.mktemp("scenes")
    torch.manual_seed(0)
    tokenizer = VQModel(VQConfig(codebook_size=32, channels=(32,), res_blocks=1, z_channels=8, patch=4)).eval()
    checkpoint.save(folder / "tokenizer", tokenizer, "vq", tokenizer.config.to_dict())
    vocabulary = train_vocabulary(["a red cat", "two dogs on the beach"] * 20, folder, 60)
    sizes = {"d_model": 12, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "length": 8}
    count = len(SmallT5Encoder.fresh(folder, **sizes).pieces)
    encoder = SmallT5Encoder(SmallT5Config(vocab_size=count, **sizes), vocabulary.read_bytes())
    encoder.save(folder / "text_encoder")
    parts = {"tokenizer_hash": tokenizer, "text_encoder_hash": encoder}
    hashes = {name: checkpoint.fingerprint(part.identity()) for name, part in parts.items()}
    checkpoint.save(folder / "generator", make_tiny(), "maskgil", TINY.to_dict(), **hashes)
    (folder / "vocabulary.json").write_text(json.dumps({"sizes": [[16, 16], [24, 16]], "words": ["cat"]}))
    return folder


def test_a_folder_is_loaded_and_draws(saved):
    draws = TextToImage.load(saved, text_encoder.load)
    assert draws.sizes == [(16, 16), (24, 16)] and draws.vocabulary["words"] == ["cat"]
    images = draws.images(["a red cat", "two dogs"], [1, 2], (24, 16))
    assert [image.size for image in images] == [(24, 16)] * 2


def test_another_tokenizer_or_text_encoder_is_refused_a_better_decoder_is_not(saved, tmp_path):
    def copy(part: str) -> Path:
        """The folder with one part of its own, the others shared."""
        folder = tmp_path / part
        folder.mkdir()
        for path in saved.iterdir():
            if path.name != part:
                (folder / path.name).symlink_to(path)
        return folder

    tokenizer = checkpoint.load(saved / "tokenizer")
    for name, refused in (("decoder.conv_in.weight", False), ("encoder.conv_in.weight", True)):
        with torch.no_grad():
            tokenizer.get_parameter(name).add_(1)
        folder = copy("tokenizer") if not refused else tmp_path / "tokenizer"
        checkpoint.save(folder / "tokenizer", tokenizer, "vq", tokenizer.config.to_dict())
        if refused:
            with pytest.raises(ValueError, match="tokenizer is not what .*generator was trained with"):
                TextToImage.load(folder, text_encoder.load)
        else:
            TextToImage.load(folder, text_encoder.load)
    encoder = text_encoder.load(saved / "text_encoder")
    with torch.no_grad():
        encoder.t5.shared.weight.add_(1)
    folder = copy("text_encoder")
    encoder.save(folder / "text_encoder")
    with pytest.raises(ValueError, match="text_encoder is not what .*generator was trained with"):
        TextToImage.load(folder, text_encoder.load)


@pytest.mark.parametrize(
    "content, message", [(None, "vocabulary.json is missing"), ("{", "not JSON"), ('{"sizes": [16]}', "lists no sizes")]
)
def test_a_folder_without_sizes_is_refused(saved, tmp_path, content, message):
    for path in saved.iterdir():
        if path.name != "vocabulary.json":
            (tmp_path / path.name).symlink_to(path)
    if content is not None:
        (tmp_path / "vocabulary.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        TextToImage.load(tmp_path, text_encoder.load)
