"""Sentences of Lumina-mGPT and grids of codes are the same thing, cut anywhere; broken ones say where."""

import json

import pytest
import torch

from maskgil.decoding import Canvas, fill, parallel
from maskgil.lumina import Lumina

CODES = 64


@pytest.fixture
def lumina(tmp_path):
    """A vocabulary with the published names and ids, fewer codes, and image ids in an order of their own."""
    names = {f"<reserved{i:05d}>": i + 4 for i in range(8700, 8900)}
    names |= {"<racm3:break>": 8197, "<eoss>": 8196, "hello": 9000, "IMGIMGless": 9001}
    order = torch.randperm(CODES, generator=torch.Generator().manual_seed(0)).tolist()
    for number, code in enumerate(order):
        names["IMGIMG" + "".join("ABCDEFGHIJ"[int(digit)] for digit in str(code)) + "Z"] = number + 4
    path = tmp_path / "text_tokenizer.json"
    path.write_text(json.dumps({"model": {"vocab": names}}))
    loaded = Lumina.load(path)
    assert loaded.id_of.tolist() == [order.index(code) + 4 for code in range(CODES)]
    return loaded


def test_the_published_layout(lumina):
    tokens = torch.arange(24) % CODES
    sentence = lumina.write(tokens, (4, 6)).tolist()
    assert sentence[:3] == [8197, 8804 + 2, 8804 + 3] and sentence[-1] == 8196  # height first
    assert [i for i, number in enumerate(sentence) if number == 8803] == [9, 16, 23, 30]
    assert len(sentence) == 3 + 4 * 7 + 1


def test_a_sentence_cut_anywhere_is_a_prefix(lumina):
    tokens = torch.randint(CODES, (24,), generator=torch.Generator().manual_seed(1))
    sentence = lumina.write(tokens, (4, 6))
    prompt = torch.tensor([0, 9000, 9000])
    for length in range(3, len(sentence) + 1):
        codes, grid = lumina.read(torch.cat([prompt, sentence[:length]]))
        body = min(length - 3, 28)
        assert grid == (4, 6) and len(codes) == body - body // 7
        assert torch.equal(codes, tokens[: len(codes)])


def test_a_prefix_can_be_completed(lumina):
    """The hybrid: what the sentence holds stays, the rest is decided in parallel."""
    tokens = torch.arange(24)
    codes, grid = lumina.read(lumina.write(tokens, (4, 6))[:12])
    canvas = Canvas.blank(1, grid, mask_id=CODES)
    canvas.tokens[0, : len(codes)], canvas.hole[0, : len(codes)] = codes, False

    def oracle(canvas, step, where):
        return tokens[None], torch.zeros(1, 24)

    *_, whole = fill(oracle, canvas, parallel(24 - len(codes), steps=3))
    assert torch.equal(whole.tokens[0], tokens) and not whole.hole.any()


def test_broken_sentences_say_where(lumina):
    sentence = lumina.write(torch.arange(24), (4, 6))
    with pytest.raises(ValueError, match="id 8197 is missing"):
        lumina.read(sentence[1:])
    with pytest.raises(ValueError, match="height and width"):
        lumina.read(sentence[:2])
    for place, number, says in (
        (9, 5, "row 0, column 6 holds id 5 where a newline is due"),
        (11, 8803, "row 1, column 1 holds id 8803 where an image id is due"),
        (12, 999999, "row 1, column 2 holds id 999999"),
        (31, 5, "followed by id 5, not by 8196"),
    ):
        broken = sentence.clone()
        broken[place] = number
        with pytest.raises(ValueError, match=says):
            lumina.read(broken)
    with pytest.raises(ValueError, match="sides must be even"):
        lumina.write(torch.arange(15), (3, 5))


def test_foreign_vocabularies_are_refused(tmp_path):
    path = tmp_path / "v.json"
    for content in ("{", "{}", '{"model": {"vocab": {"a": 1}}}'):
        path.write_text(content)
        with pytest.raises(ValueError, match="not Chameleon's vocabulary"):
            Lumina.load(path)
    names = {"<racm3:break>": 1, "<eoss>": 2, "<reserved08799>": 3, "<reserved08800>": 4, "IMGIMGBZ": 9}
    path.write_text(json.dumps({"model": {"vocab": names}}))
    with pytest.raises(ValueError, match="1 image codes"):
        Lumina.load(path)
