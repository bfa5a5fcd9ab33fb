"""eMIGM's trunk: sizes and names of the released models, a second plain reading of the data flow, and its laws."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from maskgil.condition import Condition
from maskgil.models.diffusion_samplers import DPMSolver
from maskgil.models.emigm import EMIGM, EMIGM_PRESETS, EMIGMConfig
from maskgil.models.transformer import identity_rotation, rotation_2d
from maskgil.sampling.latent_sampler import LatentSampler
from maskgil.sampling.loop import sample
from maskgil.sampling.plans import masked_plan
from maskgil.sampling.schedules import exp
from maskgil.sampling.token_grid import TokenGrid
from train.losses.generation_methods import training_mask

TINY = EMIGMConfig(
    width=16, heads=2, depth=1, head_depth=1, head_width=16, channels=3, grid=(2, 3), buffer=4, classes=5, dropout=0.0
)
TEXT = replace(TINY, classes=None, text_dim=7)
LLAMA = replace(TINY, blocks="llama", ffn=24, decoder_depth=2)


def make(config: EMIGMConfig = TINY, seed: int = 0) -> EMIGM:
    """A tiny model in which nothing is zero, so that its outputs say something."""
    model = EMIGM(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return model


def some_tokens(rows: int = 2, config: EMIGMConfig = TINY, seed: int = 0) -> Tensor:
    return torch.randn(rows, config.tokens, config.channels, generator=torch.Generator().manual_seed(seed))


def classes(*labels: int) -> Condition:
    return Condition.classes(torch.tensor(labels))


# Three masked tokens in the first row and one in the second: rows know different numbers of tokens.
MASKED = torch.tensor([[1, 0, 1, 0, 0, 1], [0, 0, 0, 0, 1, 0]], dtype=torch.bool)


# --- sizes and names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, parameters, tensors",
    [
        ("emigm-xs-256", 69_018_848, 292),
        ("emigm-s-256", 96_640_544, 340),
        ("emigm-b-256", 207_924_000, 364),
        ("emigm-l-256", 478_325_280, 476),
        ("emigm-h-256", 942_401_824, 604),
        ("emigm-xs-512", 104_506_624, 316),
        ("emigm-s-512", 132_145_728, 364),
        ("emigm-b-512", 244_150_592, 380),
        ("emigm-l-512", 478_403_136, 476),
    ],
)
def test_sizes_are_the_released_ones(name: str, parameters: int, tensors: int):
    with torch.device("meta"):
        model = EMIGM(EMIGM_PRESETS[name])
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors - 1  # a released file names the tied token twice


def test_names_and_shapes_are_the_released_ones():
    d = TINY.width
    expected = {"class_emb.weight": (5, d), "mask_token": (1, d), "diffusion_pos_embed_learned": (1, 6, d)}
    expected |= {f"{part}_pos_embed_learned": (1, 10, d) for part in ("encoder", "decoder")}

    def linear(name: str, outputs: int, inputs: int) -> None:
        expected.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})

    def norm(name: str) -> None:
        expected.update({f"{name}.weight": (d,), f"{name}.bias": (d,)})

    linear("z_proj", d, 3)
    linear("decoder_embed", d, d)
    for name in ("z_proj_ln", "encoder_norm", "decoder_norm"):
        norm(name)
    for part in ("encoder", "decoder"):
        norm(f"{part}_blocks.0.norm1")
        norm(f"{part}_blocks.0.norm2")
        linear(f"{part}_blocks.0.attn.qkv", 3 * d, d)
        linear(f"{part}_blocks.0.attn.proj", d, d)
        linear(f"{part}_blocks.0.mlp.fc1", 4 * d, d)
        linear(f"{part}_blocks.0.mlp.fc2", d, 4 * d)
    has = {name: tuple(tensor.shape) for name, tensor in EMIGM(TINY).state_dict().items()}
    assert {name: shape for name, shape in has.items() if not name.startswith("diffloss.net.")} == expected


def test_configs_survive_json_and_refuse_nonsense():
    assert EMIGMConfig.from_dict(TEXT.to_dict() | {"grid": [2, 3]}) == TEXT
    with pytest.raises(ValueError, match="unknown keys in the eMIGM config: layers"):
        EMIGMConfig.from_dict(TINY.to_dict() | {"layers": 2})
    with pytest.raises(ValueError, match="lacks: heads"):
        EMIGMConfig.from_dict({"width": 16, "depth": 1, "head_depth": 1, "head_width": 8})
    for change, words in (
        ({"width": 15}, "width 15 does not divide into 2 heads"),
        ({"text_dim": 7}, r"exactly one of classes \(5\) and text_dim \(7\)"),
        ({"buffer": 0}, "buffer is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"ffn": 64}, "ffn is the width of a llama block's SwiGLU"),
        ({"decoder_depth": 0}, "decoder_depth is 0"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(TINY, **change)


# --- the trunk --------------------------------------------------------------------------------------------------------


def plain_trunk(model: EMIGM, tokens: Tensor, masked: Tensor, slots: Tensor) -> Tensor:
    """The data flow, one row at a time, with the known tokens picked out and put back by name."""

    def attention(attn, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(0, 1) for part in attn.qkv(x).chunk(3, dim=-1))
        weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
        return attn.proj((weights @ v).transpose(0, 1).flatten(1))

    def run(blocks, x: Tensor) -> Tensor:
        for block in blocks:
            x = x + attention(block.attn, block.norm1(x))
            x = x + block.mlp.fc2(torch.nn.functional.gelu(block.mlp.fc1(block.norm2(x))))
        return x

    rows = []
    for row in range(len(tokens)):
        x = torch.cat([slots[row], model.z_proj(tokens[row])])
        x = model.z_proj_ln(x + model.encoder_pos_embed_learned[0])
        known = torch.cat([torch.ones(len(slots[row]), dtype=torch.bool), ~masked[row]])
        everywhere = model.mask_token.repeat(len(x), 1)
        if model.config.mae:
            x = model.decoder_embed(model.encoder_norm(run(model.encoder_blocks, x[known])))
            everywhere[known] = x
        else:
            everywhere[known] = x[known]
            everywhere = model.decoder_embed(model.encoder_norm(run(model.encoder_blocks, everywhere)))
        x = run(model.decoder_blocks, everywhere + model.decoder_pos_embed_learned[0])
        rows.append(model.decoder_norm(x)[len(slots[row]) :] + model.diffusion_pos_embed_learned[0])
    return torch.stack(rows)


@pytest.mark.parametrize("mae", [True, False])
def test_trunk_equals_its_plain_reading(mae: bool):
    model, tokens = make(replace(TINY, mae=mae, depth=2)), some_tokens()
    slots = model.slots(classes(1, 4))
    expected = plain_trunk(model, tokens, MASKED, slots)
    assert torch.allclose(model(tokens, MASKED, classes(1, 4)), expected, atol=1e-5)
    # A length fixed on the host: enough, and more than enough.
    for visible in (5, 6, 100):
        assert torch.allclose(model.trunk(tokens, MASKED, slots, visible=visible), expected, atol=1e-5)


@pytest.mark.parametrize("config", [TINY, LLAMA], ids=["vit", "llama"])
@pytest.mark.parametrize("mae", [True, False])
@pytest.mark.parametrize("rubbish", [7.0, float("nan")])
def test_what_lies_under_a_masked_token_cannot_matter(config: EMIGMConfig, mae: bool, rubbish: float):
    model, tokens = make(replace(config, mae=mae)), some_tokens()
    z = model(tokens, MASKED, classes(1, 4))
    assert torch.equal(model(tokens.masked_fill(MASKED[..., None], rubbish), MASKED, classes(1, 4)), z)
    changed = tokens.clone()
    changed[0, 1] += 1  # known
    assert not torch.allclose(model(changed, MASKED, classes(1, 4)), z)


def test_llama_blocks_turn_every_token_by_its_own_place():
    """The second row's encoder sees more tokens than the first's, and the first's are not side by side."""
    model, tokens, condition = make(LLAMA), some_tokens(), classes(1, 4)
    turned = torch.cat([identity_rotation(4, 8, tokens.device), rotation_2d(2, 3, 8, 10000.0, tokens.device)])
    slots = model.slots(condition)
    for row in range(2):
        known = torch.cat([torch.ones(4, dtype=torch.bool), ~MASKED[row]])
        x = torch.cat([slots[row], model.z_proj(tokens[row])])
        seen = x[known][None]
        for block in model.encoder_blocks:
            seen = block(seen, turned[known], None)
        x = model.mask_token.repeat(10, 1)
        x[known] = seen[0]
        x = x[None]
        assert len(model.decoder_blocks) == 2
        for block in model.decoder_blocks:
            x = block(x, turned, None)
        expected = model.decoder_norm(x)[0, 4:]
        assert torch.allclose(model(tokens, MASKED, condition)[row], expected, atol=1e-5)


@pytest.mark.parametrize("config", [TINY, LLAMA], ids=["vit", "llama"])
def test_a_row_does_not_depend_on_its_batch(config: EMIGMConfig):
    model, tokens = make(config), some_tokens()
    z = model(tokens, MASKED, classes(1, 4))
    for row in range(2):
        alone = model(tokens[row : row + 1], MASKED[row : row + 1], classes([1, 4][row]))
        assert torch.allclose(z[row : row + 1], alone, atol=1e-5)


def test_all_known_and_all_unknown_are_fine():
    model, tokens = make(), some_tokens()
    for masked in (torch.zeros_like(MASKED), torch.ones_like(MASKED)):
        assert model(tokens, masked, classes(0, 0)).isfinite().all()


def test_half_precision_runs_whole():
    model = make(TEXT).to(torch.bfloat16)
    texts = Condition(torch.randn(2, 3, 7), torch.ones(2, 3, dtype=torch.bool))
    z = model(some_tokens(), MASKED, texts)
    assert z.dtype == torch.bfloat16
    assert model.loss(z, some_tokens(), MASKED, torch.Generator().manual_seed(0)).isfinite()
    plan = masked_plan(6, 2, exp, "random", seeds=[0, 1])
    *_, drawn = sample(LatentSampler(model, texts, DPMSolver(2)), TokenGrid.blank(2, (2, 3), channels=3), plan)
    assert drawn.tokens.dtype == torch.float32 and drawn.tokens.isfinite().all()


def test_tokens_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(6, 2\); this model draws 2 x 3 = 6 tokens of 3 channels"):
        make()(torch.zeros(2, 6, 2), MASKED, classes(0, 0))


# --- the condition ----------------------------------------------------------------------------------------------------


def test_unconditional_slots_are_mask_tokens():
    model, drop = make(), torch.tensor([True, False])
    slots = model.slots(classes(1, 4), drop)
    assert torch.equal(slots[0], model.mask_token.expand(4, -1))
    assert torch.equal(slots[1], model.class_emb.weight[4].expand(4, -1))
    own = make(replace(TINY, null="token"))
    assert torch.equal(own.slots(classes(1, 4), drop)[0], own.fake_latent.expand(4, -1))
    assert not torch.equal(own.fake_latent, own.mask_token)


def test_words_fill_slots_and_absent_words_are_mask_tokens():
    model = make(TEXT)
    states = torch.randn(1, 3, 7)
    slots = model.slots(Condition(states, torch.ones(1, 3, dtype=torch.bool)))
    assert torch.allclose(slots[0, :3], model.text_proj(states[0]))
    assert torch.equal(slots[0, 3:], model.mask_token)


def test_padding_of_a_text_cannot_matter():
    model, states = make(TEXT), torch.randn(1, 3, 7)
    plain = model.slots(Condition(states, torch.ones(1, 3, dtype=torch.bool)))
    rubbish = torch.randn(1, 5, 7)
    for left in range(6):
        padded = torch.cat([rubbish[:, :left], states, rubbish[:, left:]], dim=1)
        mask = torch.zeros(1, 8, dtype=torch.bool)
        mask[:, left : left + 3] = True
        assert torch.equal(model.slots(Condition(padded, mask)), plain)


def test_conditions_of_the_wrong_kind_are_refused():
    long = Condition(torch.zeros(1, 5, 7), torch.ones(1, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="a text of 5 tokens; this model reads at most 4"):
        make(TEXT).slots(long)
    with pytest.raises(ValueError, match="1 wide; this model reads text states of width 7"):
        make(TEXT).slots(classes(1))
    with pytest.raises(ValueError, match="7 wide; this model reads class labels"):
        make().slots(long)


# --- training ---------------------------------------------------------------------------------------------------------


def test_untrained_loss_and_weights():
    """Near 1.72 (few draws: the bound is almost all at one time); a row's weight scales its part; no masked tokens, no
    loss."""
    model, tokens = EMIGM(TINY).eval(), some_tokens(200)
    masked = torch.ones(200, 6, dtype=torch.bool)
    masked[:100, :3] = False
    z = model(tokens, masked, classes(*[0] * 200))

    def loss(weight: Tensor | None = None, masked: Tensor = masked) -> float:
        return model.loss(z, tokens, masked, torch.Generator().manual_seed(1), repeats=8, weight=weight).item()

    assert 1 < loss() < 3
    first = (torch.arange(200) < 100).float()
    assert loss(first) + loss(1 - first) == pytest.approx(loss(), rel=1e-5)
    assert loss(torch.full((200,), 3.0)) == pytest.approx(3 * loss(), rel=1e-5)
    assert loss(masked=torch.zeros_like(masked)) == 0


def test_every_parameter_learns():
    for config in (TINY, TEXT, replace(TINY, null="token"), replace(TINY, mae=False)):
        model = make(config).train().requires_grad_(True)
        texts = Condition(torch.randn(2, 3, 7), torch.ones(2, 3, dtype=torch.bool))
        condition = classes(1, 4) if config.classes else texts
        drop = torch.tensor([False, True])
        z = model(some_tokens(), MASKED, condition, drop)
        model.loss(z, some_tokens(), MASKED, torch.Generator().manual_seed(0)).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_tiny_model_overfits_one_batch_and_draws_it():
    torch.manual_seed(0)
    config = replace(TINY, width=32, head_width=64, grid=(2, 2), channels=2, classes=2)
    model, generator = EMIGM(config), torch.Generator().manual_seed(0)
    pictures = torch.tensor([[1.0, -1], [0.5, 0.5], [-1, 1], [0, -0.5]]).view(1, 4, 2).repeat(2, 1, 1)
    pictures[1] = -pictures[1]
    batch, labels = pictures.repeat(8, 1, 1), classes(*[0, 1] * 8)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(200):
        masked, _ = training_mask(16, 4, exp, 0.2, generator)
        loss = model.loss(model(batch, masked, labels), batch, masked, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    predict = LatentSampler(model.eval(), classes(*[0, 1] * 8), DPMSolver(8))
    blank = TokenGrid.blank(16, (2, 2), channels=2)
    *_, drawn = sample(predict, blank, masked_plan(4, 2, exp, "random", seeds=list(range(16))))
    assert (drawn.tokens - batch).abs().median() < 0.15
