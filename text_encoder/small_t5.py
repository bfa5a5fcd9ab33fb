"""A small T5 encoder with a vocabulary of its own: what the bundled model reads prompts with.

The architecture is T5's encoder (relative positions, RMS norm), so a saved folder opens in transformers too; ids come
from sentencepiece directly: a unigram vocabulary over text that is case-folded and NFKC-normalised (nmt_nfkc_cf).
A folder holds config.json, spiece.model and model.safetensors.

Axes: B prompts, L tokens of the longest prompt, E width.
"""

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import sentencepiece
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

from maskgil.condition import Condition
from maskgil.fileio import parse_json, replace_file

PAD, END, UNKNOWN = 0, 1, 2  # T5's ids
TIED = "encoder.embed_tokens.weight"  # T5's second name for shared.weight


@dataclass(frozen=True)
class SmallT5Config:
    """Sizes, under T5's names. `length` is the most tokens of a prompt, its end token included."""

    vocab_size: int
    d_model: int = 192
    d_kv: int = 32
    d_ff: int = 512
    num_layers: int = 4
    num_heads: int = 6
    feed_forward_proj: Literal["relu", "gated-gelu"] = "gated-gelu"
    dropout_rate: float = 0.1
    length: int = 48

    def t5(self) -> T5Config:
        """The same for transformers."""
        sizes = asdict(self)
        del sizes["length"]
        return T5Config(**sizes, is_encoder_decoder=False, use_cache=False, pad_token_id=PAD, eos_token_id=END)


class SmallT5Encoder(nn.Module):
    """Prompts -> Condition with E = d_model. A prompt of more than `length` tokens is refused, never cut."""

    kind = "t5"

    def __init__(self, config: SmallT5Config, vocabulary: bytes):
        """`vocabulary`: the bytes of spiece.model; ValueError when they are not config.vocab_size pieces."""
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.length, self.width = config.length, config.d_model
        try:
            self.pieces = sentencepiece.SentencePieceProcessor(model_proto=vocabulary)
        except RuntimeError as error:
            raise ValueError(f"spiece.model is not a sentencepiece vocabulary: {error}") from None
        if len(self.pieces) != config.vocab_size:
            raise ValueError(f"the vocabulary has {len(self.pieces)} pieces, config.json says {config.vocab_size}")
        self.t5 = T5EncoderModel(config.t5())

    @classmethod
    def fresh(cls, folder: str | Path, **sizes) -> "SmallT5Encoder":
        """An untrained encoder over folder/spiece.model (see train_vocabulary); `sizes` as in SmallT5Config.

        It begins with heads that look one token back, one on, all back and all on. T5 learns where words stand only
        through its relative bias, and from a random one so slowly that "a cat left of a dog" and "a dog left of a cat"
        still gave all but the same states when everything else was read.
        """
        vocabulary = (Path(folder) / "spiece.model").read_bytes()
        count = len(sentencepiece.SentencePieceProcessor(model_proto=vocabulary))
        encoder = cls(SmallT5Config(vocab_size=count, **sizes), vocabulary)
        _look_around(encoder.t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight)
        return encoder

    def tokenize(self, prompts: Sequence[str]) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """Ids, right-padded to the longest prompt, each closed by the end token; mask True on real tokens.

        Raises ValueError for a prompt of more than `length` tokens.
        """
        if isinstance(prompts, str):
            raise ValueError("tokenize takes a list of prompts, not one string")
        rows = [ids + [END] for ids in self.pieces.encode(list(prompts))]
        for prompt, row in zip(prompts, rows, strict=True):
            validate_length(prompt, len(row), self.length)
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)
        return ids, ids != PAD

    def forward(self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B L E"]:
        """States of the tokens, zero at padding."""
        states = self.t5(input_ids=ids, attention_mask=mask).last_hidden_state
        return states * mask[..., None]

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """The prompts' states, without dropout whatever the mode, on this encoder's device."""
        ids, mask = (tensor.to(self.t5.device) for tensor in self.tokenize(prompts))
        training = self.training
        self.eval()
        states = self(ids, mask)
        self.train(training)
        return Condition(states, mask)

    def weights(self) -> dict[str, Tensor]:
        """T5EncoderModel's tensors, each under one name."""
        return {name: tensor for name, tensor in self.t5.state_dict().items() if name != TIED}

    def identity(self) -> dict[str, Tensor]:
        """Every weight, and the vocabulary as bytes: other pieces mean other states."""
        return self.weights() | {"vocabulary": torch.frombuffer(bytearray(self.vocabulary), dtype=torch.uint8)}

    def save(self, folder: str | Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Write the folder; weights in `dtype`. Killed at any moment it leaves an earlier save whole.

        Only model.safetensors differs between two saves of one encoder, so replacing that file is the whole change.
        A folder of another configuration or vocabulary is refused (ValueError) rather than mixed.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"kind": self.kind, "model_type": "t5", "architectures": ["T5EncoderModel"], **asdict(self.config)}
        files = {"config.json": (json.dumps(config, indent=2) + "\n").encode(), "spiece.model": self.vocabulary}
        for name, content in files.items():
            path = folder / name
            if path.exists() and path.read_bytes() != content:
                raise ValueError(f"{folder} holds another text encoder ({name} differs): choose another folder")
            replace_file(path, content)
        tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in self.weights().items()}
        replace_file(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))

    @classmethod
    def load(cls, folder: str | Path) -> "SmallT5Encoder":
        """The encoder of a folder that `save` wrote, in float32 and evaluation mode.

        Raises ValueError naming the file, and the tensors with their shapes, that are missing, cut or foreign.
        """
        folder = Path(folder)
        for name in ("config.json", "spiece.model", "model.safetensors"):
            if not (folder / name).is_file():
                raise ValueError(f"the text encoder {folder} is incomplete: {name} is missing")
        try:
            entries = parse_json((folder / "config.json").read_text(encoding="utf-8"))
            config = SmallT5Config(**{f.name: entries[f.name] for f in fields(SmallT5Config) if f.name in entries})
            encoder = cls(config, (folder / "spiece.model").read_bytes())
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{folder}/config.json does not describe a text encoder: {error}") from None
        try:
            tensors = load_file(folder / "model.safetensors")
        except SafetensorError as error:
            raise ValueError(f"{folder}/model.safetensors is cut or no safetensors file: {error}") from None
        has = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        wants = {name: tuple(tensor.shape) for name, tensor in encoder.weights().items()}
        wrong = sorted(name for name in has.keys() | wants.keys() if has.get(name) != wants.get(name))
        if wrong:
            shown = "; ".join(f"{name}: file {has.get(name)}, model {wants.get(name)}" for name in wrong[:5])
            raise ValueError(
                f"{folder}/model.safetensors does not fit config.json, {len(wrong)} tensors differ: {shown}"
            )
        encoder.t5.load_state_dict(tensors | {TIED: tensors["shared.weight"]})
        return encoder.eval()


@torch.no_grad()
def _look_around(bias: Float[Tensor, "buckets heads"]) -> None:
    """Give the first four heads a direction. T5's buckets: the first half are distances back, the second half on."""
    middle = len(bias) // 2
    back, on = slice(1, middle), slice(middle + 1, None)
    next_to, all_of = ((0, 1), (1, middle + 1)), ((2, back, on), (3, on, back))
    for head, bucket in next_to:
        bias[bucket, head : head + 1] += 4  # nothing where there is no such head
    for head, towards, away in all_of:
        bias[towards, head : head + 1] += 2
        bias[away, head : head + 1] -= 2


def validate_length(prompt: str, tokens: int, length: int) -> None:
    """Raises ValueError for a prompt of more than `length` tokens."""
    if tokens > length:
        shown = prompt if len(prompt) <= 60 else prompt[:60] + "..."
        raise ValueError(f"the prompt {shown!r} has {tokens} tokens, this text encoder reads {length}: shorten it")


def train_vocabulary(sentences: Iterable[str], folder: str | Path, size: int) -> Path:
    """Learn a unigram vocabulary of at most `size` pieces from the sentences; writes and returns folder/spiece.model.

    Every frequent word becomes one piece; a small corpus gives fewer pieces than asked. The same sentences give the
    same vocabulary.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_words_twice(sentences), model_writer=model, model_type="unigram", vocab_size=size,
        hard_vocab_limit=False, normalization_rule_name="nmt_nfkc_cf", character_coverage=1.0,
        pad_id=PAD, eos_id=END, unk_id=UNKNOWN, bos_id=-1, num_threads=1, minloglevel=2,
    )  # fmt: skip
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / "spiece.model"
    replace_file(path, model.getvalue())
    return path


def _words_twice(sentences: Iterable[str]) -> Iterator[str]:
    """The sentences, then every word once more before a comma.

    The trainer proposes only strings that two different words share; without this no whole word would be a piece.
    """
    words = set()
    for sentence in sentences:
        words.update(sentence.split())
        yield sentence
    for word in sorted(words):
        yield word + ","
