"""speech.tokenizer and train.asr.bpe: any words can be written, known words are one token, files are checked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.tokenizer import LETTERS, SPECIAL, ASRTokenizer, normalize_transcript
from train.asr.bpe import learn

TEXTS = ["two cats on the beach", "the cat sat on the mat", "three bananas at the beach"]
LEARNT, PIECES = learn(TEXTS, ["cats", "beach", "unicorn"], merges=12)


def test_known_words_are_one_token_and_others_are_spelled():
    assert len(LEARNT.encode("unicorn")) == 1
    assert LEARNT.encode("the unicorn")[-1] == LEARNT.encode("unicorn")[0]
    assert len(LEARNT.encode("quiz")) > 1
    assert len(LEARNT.encode("")) == 0
    assert LETTERS == "".join(LEARNT.tokens[: len(LETTERS)])


@settings(deadline=None, max_examples=50)
@given(st.text(alphabet=LETTERS, max_size=40))
def test_what_is_written_reads_the_same(text: str):
    ids = LEARNT.encode(text)
    assert LEARNT.decode(ids) == normalize_transcript(text)
    assert all(len(SPECIAL) <= i < len(LEARNT) for i in ids)
    pieces = ASRTokenizer(LEARNT.tokens[:PIECES])
    assert LEARNT.decode(pieces.encode(text)) == normalize_transcript(text)  # the ids of pieces agree


def test_learning_is_repeatable():
    assert learn(TEXTS, ["cats", "beach", "unicorn"], merges=12)[0].tokens == LEARNT.tokens


def test_plain_words():
    assert normalize_transcript("Two Cats, on the  BEACH!") == "two cats on the beach"
    assert normalize_transcript("It’s the dogs' 'ball'") == "it's the dogs ball"
    assert normalize_transcript("123 ?!") == ""


def test_files(tmp_path):
    path = tmp_path / "tokens.json"
    LEARNT.save(path)
    assert ASRTokenizer.load(path).tokens == LEARNT.tokens
    assert [p.name for p in tmp_path.iterdir()] == ["tokens.json"]
    with pytest.raises(ValueError, match="missing"):
        ASRTokenizer.load(tmp_path / "absent.json")
    for broken in ("not json", "{}", '{"tokens": ["a", "b"]}', "[]"):
        path.write_text(broken)
        with pytest.raises(ValueError):
            ASRTokenizer.load(path)
