"""The AR model equals a plain second writing of LlamaGen's formulas; its cache, its company and padding change
nothing."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from maskgil.condition import Condition
from maskgil.models.ar import ARDecodingState, ARSampler, ARTransformer
from maskgil.models.config import ModelConfig
from maskgil.models.maskgil import MaskGIL
from maskgil.sampling.code_sampler import CodeSampler
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import sample
from maskgil.sampling.plans import masked_plan, raster_plan
from maskgil.sampling.token_grid import TokenGrid

TEXT = ModelConfig(
    codebook_size=24,
    dim=32,
    layers=3,
    heads=2,
    ffn=48,
    text_dim=10,
    text_length=7,
    null_length=7,
    causal=True,
    dropout=0.0,
)
CLASS = replace(TEXT, text_dim=None, classes=5)
GRID = (3, 4)


def make(config, zero_prefix=False, seed=0):
    torch.manual_seed(seed)
    model = ARTransformer(config, zero_prefix).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def texts(*lengths, width=10, side="right"):
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    mask = mask.flip(1) if side == "left" else mask
    states = torch.zeros(*mask.shape, width)
    states[mask] = torch.randn(sum(lengths), width, generator=torch.Generator().manual_seed(1))
    return Condition(states, mask)


def codes(batch, seed=2):
    return torch.randint(24, (batch, 12), generator=torch.Generator().manual_seed(seed))


def llamagen(weights, config, embedded, columns, tokens):
    """LlamaGen written a second time, from its formulas: one row, angles as complex numbers, loops over heads.

    embedded (L, D): condition tokens; columns (L): which of them may be looked at; tokens (n): image tokens so far.
    Logits of the next token.
    """
    width = config.dim // config.heads
    x = torch.cat([embedded, weights["tok_embeddings.weight"][tokens]])
    count, length = len(x), len(embedded)
    turns = torch.zeros(count, width // 2, dtype=torch.complex64)  # condition tokens: zero, not one
    for i in range(count - length):
        for pair in range(width // 4):
            angle = 10000 ** (-2 * pair / (width // 2))
            turns[length + i, pair] = torch.exp(1j * torch.tensor((i // GRID[1]) * angle))
            turns[length + i, width // 4 + pair] = torch.exp(1j * torch.tensor((i % GRID[1]) * angle))
    looks = torch.tril(torch.ones(count, count))
    looks[:, :length] *= columns.float()
    looks = looks * (1 - torch.eye(count)) + torch.eye(count)

    def norm(h, weight):
        return h / (h.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight

    for layer in range(config.layers):
        w = {name.split(".", 2)[2]: t for name, t in weights.items() if name.startswith(f"layers.{layer}.")}
        q, k, v = (norm(x, w["attention_norm.weight"]) @ w["attention.wqkv.weight"].T).split(config.dim, 1)
        heads = []
        for head in range(config.heads):
            part = slice(head * width, head * width + width)
            turned = [
                torch.view_as_real(torch.view_as_complex(t[:, part].reshape(count, -1, 2)) * turns).flatten(1)
                for t in (q, k)
            ]
            score = (turned[0] @ turned[1].T / width**0.5).masked_fill(looks == 0, -1e30)
            heads.append(score.softmax(1) @ v[:, part])
        x = x + torch.cat(heads, 1) @ w["attention.wo.weight"].T
        h = norm(x, w["ffn_norm.weight"])
        gate = h @ w["feed_forward.w1.weight"].T
        x = x + (gate * gate.sigmoid() * (h @ w["feed_forward.w3.weight"].T)) @ w["feed_forward.w2.weight"].T
    return norm(x[-1], weights["norm.weight"]) @ weights["output.weight"].T


def project(weights, states):
    hidden = states @ weights["cls_embedding.cap_proj.fc1.weight"].T
    hidden = 0.5 * hidden * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
    return hidden @ weights["cls_embedding.cap_proj.fc2.weight"].T


@pytest.mark.parametrize("side", ["left", "right"])
def test_text_driven_llamagen_to_the_letter(side):
    model, tokens = make(TEXT, zero_prefix=True), codes(2)
    condition, weights = texts(3, 7, side=side), model.state_dict()
    conditional = model(tokens, GRID, condition)
    null = model(tokens, GRID, condition, torch.tensor([True, True]))
    for row, real in enumerate((3, 7)):
        # LlamaGen pads on the left, to the full length, and masks the null caption as the caption
        left = F.pad(condition.states[row][condition.mask[row]], (0, 0, 7 - real, 0))
        columns = torch.arange(7) >= 7 - real
        for n in (0, 1, 5, 11):
            want = llamagen(weights, TEXT, project(weights, left), columns, tokens[row, :n])
            assert (conditional[row, n] - want).abs().max() < 1e-4
            dropped = project(weights, weights["cls_embedding.uncond_embedding"])
            want = llamagen(weights, TEXT, dropped, columns, tokens[row, :n])
            assert (null[row, n] - want).abs().max() < 1e-4


def test_class_driven_llamagen_to_the_letter():
    model, tokens = make(CLASS, zero_prefix=True), codes(2)
    weights = model.state_dict()
    logits = model(tokens, GRID, Condition.classes(torch.tensor([4, 1])), torch.tensor([False, True]))
    for row, label in enumerate((4, 5)):  # row 5 is the null class
        embedded = weights["cls_embedding.embedding_table.weight"][label : label + 1]
        for n in (0, 4, 11):
            want = llamagen(weights, CLASS, embedded, torch.ones(1), tokens[row, :n])
            assert (logits[row, n] - want).abs().max() < 1e-4


MODELS = {
    "text": (TEXT, False),
    "short null": (replace(TEXT, null_length=1, qk_norm="rms"), False),
    "long null": (replace(TEXT, null_length=5, norm="post", rope="1d"), False),
    "llamagen": (TEXT, True),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_cache_changes_nothing(name):
    model, tokens, condition = make(*MODELS[name]), codes(3), texts(2, 4, 3)
    drop = torch.tensor([False, True, False])
    whole = model(tokens, GRID, condition, drop)
    writing = ARDecodingState(model, GRID, condition, drop)
    assert torch.allclose(writing.logits, whole[:, 0], atol=1e-4)
    for start, end in ((0, 1), (1, 2), (2, 6), (6, 7), (7, 11)):
        assert writing.written == start
        assert torch.allclose(writing.read(tokens[:, start:end]), whole[:, end], atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_company_and_padding_change_nothing(name):
    model, tokens, condition = make(*MODELS[name]), codes(3), texts(2, 6, 3)
    drop = torch.tensor([True, False, False])
    together = model(tokens, GRID, condition, drop)
    for row in range(3):
        one = condition.rows(slice(row, row + 1))
        real = int(one.mask.sum())
        alone = Condition(one.states[:, :real], one.mask[:, :real])
        assert torch.allclose(
            model(tokens[row : row + 1], GRID, alone, drop[row : row + 1])[0], together[row], atol=1e-4
        )
    filled = Condition(torch.where(condition.mask[..., None], condition.states, 9.0), condition.mask)
    assert torch.allclose(model(tokens, GRID, filled, drop), together, atol=1e-5)


def test_a_token_depends_on_earlier_ones_only():
    model, tokens, condition = make(TEXT), codes(1), texts(3)
    other = tokens.clone()
    other[:, 5] = (other[:, 5] + 1) % 24
    before, after = model(tokens, GRID, condition), model(other, GRID, condition)
    assert torch.equal(before[:, :6], after[:, :6])
    assert ((before - after).abs().amax((0, 2))[6:] > 1e-4).all()


def test_with_a_zero_prefix_nothing_chooses_among_words():
    """The first code is read at a word: other queries and keys change it only when words have any."""
    for zero_prefix in (True, False):
        model = make(replace(TEXT, layers=1), zero_prefix)
        before = model(codes(1), GRID, texts(4))[:, 0]
        model.layers[0].attention.wqkv.weight[: 2 * TEXT.dim] *= 3
        assert torch.equal(model(codes(1), GRID, texts(4))[:, 0], before) == zero_prefix


def test_gradients_reach_everything_in_training():
    model = make(TEXT).requires_grad_(True).train()
    logits = model(codes(2), GRID, texts(3, 5), torch.tensor([True, False]))
    F.cross_entropy(logits.flatten(0, 1), codes(2).flatten()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def likeliest(model, condition, count, scale=1.0, start=None):
    """A second writing of guided greedy decoding: no cache, the whole sequence read again for every token."""
    tokens = torch.zeros(len(condition), 12, dtype=torch.long) if start is None else start.clone()
    everything = torch.ones(len(condition), dtype=torch.bool)
    for place in range(count):
        if start is not None and place < 4:
            continue
        logits = model(tokens, GRID, condition)[:, place]
        if scale != 1:
            null = model(tokens, GRID, condition, everything)[:, place]
            logits = null + scale * (logits - null)
        tokens[:, place] = logits.argmax(1)
    return tokens[:, :count]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_painting_in_raster_order_equals_decoding_without_a_cache(name, scale):
    model, condition = make(*MODELS[name]), texts(2, 4)
    sampler = ARSampler(model, condition)
    plan = raster_plan(12, temperature=0.0, guidance=Guidance(scale), seeds=[1, 2])
    *_, canvas = sample(sampler, TokenGrid.blank(2, GRID), plan)
    assert torch.equal(canvas.tokens, likeliest(model, condition, 12, scale)) and not canvas.mask.any()
    assert sampler.nfe.tolist() == [12 if scale == 1 else 24] * 2


def test_guidance_may_end_on_the_way():
    model, condition = make(TEXT), texts(2, 4)
    guided = raster_plan(5, temperature=0.0, guidance=Guidance(3.0), seeds=[1, 2])
    unguided = raster_plan(7, temperature=0.0, seeds=[1, 2], first=5)
    sampler = ARSampler(model, condition)
    *_, canvas = sample(sampler, TokenGrid.blank(2, GRID), guided + unguided)
    head = likeliest(model, condition, 5, 3.0)
    assert torch.equal(canvas.tokens[:, :5], head) and sampler.nfe.tolist() == [17, 17]
    tail = canvas.tokens.clone()
    for place in range(5, 12):
        tail[:, place] = model(tail, GRID, condition)[:, place].argmax(1)
    assert torch.equal(canvas.tokens, tail)


def test_given_tokens_are_read_and_kept():
    model, condition = make(TEXT), texts(2, 4)
    start = codes(2)
    masked = (torch.arange(12) >= 4).expand(2, -1) & (torch.arange(12) != 9)
    plan = raster_plan(7, temperature=0.0, seeds=[1, 2])
    *_, canvas = sample(ARSampler(model, condition), TokenGrid(start, masked, GRID), plan)
    assert torch.equal(canvas.tokens[~masked], start[~masked]) and not canvas.mask.any()
    assert torch.equal(canvas.tokens[:, :9], likeliest(model, condition, 9, start=start))


def test_a_seed_writes_the_same_picture_in_any_company():
    model, condition = make(TEXT), texts(2, 4, 3)
    plan = raster_plan(12, top_k=5, top_p=0.9, guidance=Guidance(2.0), seeds=[7, 8, 9])
    *_, together = sample(ARSampler(model, condition), TokenGrid.blank(3, GRID), plan)
    alone_plan = raster_plan(12, top_k=5, top_p=0.9, guidance=Guidance(2.0), seeds=[8])
    alone = condition.rows(slice(1, 2))
    *_, canvas = sample(ARSampler(model, alone), TokenGrid.blank(1, GRID), alone_plan)
    assert torch.equal(canvas.tokens[0], together.tokens[1])
    assert len(together.tokens.unique(dim=0)) == 3


def test_a_prefix_is_completed_by_maskgil():
    ar_model, condition = make(TEXT), texts(2, 4)
    mar = MaskGIL(replace(TEXT, causal=False)).eval()
    for count in (0, 5, 12):
        blank = TokenGrid.blank(2, GRID, mar.config.mask_id)
        plan = raster_plan(count, seeds=[1, 2]) if count else []
        *_, prefix = blank, *sample(ARSampler(ar_model, condition), blank, plan)
        plan = masked_plan(12 - count, steps=3, seeds=[1, 2], first_step=count) if count < 12 else []
        *_, canvas = prefix, *sample(CodeSampler(mar, condition), prefix, plan)
        assert torch.equal(canvas.tokens[:, :count], prefix.tokens[:, :count])
        assert not canvas.mask.any() and int(canvas.tokens.max()) < 24


def test_plans_that_an_ar_model_cannot_follow():
    sampler = ARSampler(make(TEXT), texts(2, 4))
    with pytest.raises(ValueError, match=r"plan it with raster\(\)"):
        list(sample(sampler, TokenGrid.blank(2, GRID), masked_plan(12, steps=3, seeds=[1, 2])))
    with pytest.raises(ValueError, match="the same place in all"):
        masked = torch.ones(2, 12, dtype=torch.bool)
        masked[1, 0] = False
        list(sample(sampler, TokenGrid(codes(2), masked, GRID), raster_plan(2, seeds=[1, 2])))


@pytest.mark.parametrize(
    ("change", "zero_prefix", "says"),
    [
        ({"causal": False}, False, "causal config"),
        ({"null": "mask"}, False, "null caption or none"),
        ({"null_length": 1}, True, "null_length 1, text_length 7"),
    ],
)
def test_configs_that_cannot_be(change, zero_prefix, says):
    with pytest.raises(ValueError, match=says):
        ARTransformer(replace(TEXT, **change), zero_prefix)


def test_inputs_that_cannot_be():
    model = make(TEXT)
    with pytest.raises(ValueError, match="12 tokens do not fill a grid of 3 rows and 5 columns"):
        model(codes(1), (3, 5), texts(3))
    with pytest.raises(ValueError, match="reads at most 7"):
        model(codes(1), GRID, texts(8))
    with pytest.raises(ValueError, match="text states of width 10"):
        model(codes(1), GRID, Condition.classes(torch.tensor([1])))
    with pytest.raises(ValueError, match="class labels"):
        make(CLASS)(codes(1), GRID, texts(3))
    with pytest.raises(ValueError, match="no null condition"):
        make(replace(TEXT, null="none"))(codes(1), GRID, texts(3), torch.tensor([True]))
