"""The bundled recognizer: a Whisper of three and a half million parameters for the sentences of scenes.

Its encoder runs on the length of the sound, and its vocabulary has whole words. In training a head on the encoder also
predicts letters (CTC, Graves et al., 2006), which aligns them with the sound before the decoder learns words. The head
is dropped at export, which is a plain Whisper checkpoint.

Axes: B utterances, M mel bands, F frame pairs of 20 ms, P positions of 40 ms, L tokens, S letters, V vocabulary.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from whisper.model import ModelDimensions, Whisper, disable_sdpa

from speech.mel import PAIR, encode_mel
from speech.tokenizer import END, LETTERS, ASRTokenizer
from speech.transcriber import Transcriber
from train.asr.bpe import learn, pieces_of
from train.asr.corpus import Corpus, spoken_form
from train.asr.dataset import IGNORED, SpeechDataset
from train.optim import OptimConfig
from train.recipe import OptimizedModule, Recipe
from train.run_state import save_whole
from train.scenes.captions import known_words

SMALL = ModelDimensions(
    n_mels=PAIR,
    n_audio_ctx=250,  # 10 s; the table is sinusoids, so it costs nothing
    n_audio_state=192,
    n_audio_head=3,
    n_audio_layer=4,
    n_vocab=0,  # that of the vocabulary
    n_text_ctx=128,  # real speech spelled from pieces is long
    n_text_state=192,
    n_text_head=3,
    n_text_layer=2,
)


class SmallWhisper(nn.Module):
    """A Whisper and, for training only, a speller on its encoder (0: blank; the space, LETTERS[0], is never heard)."""

    def __init__(self, dims: ModelDimensions) -> None:
        super().__init__()
        self.whisper = Whisper(dims)
        self.whisper.alignment_heads = None  # a sparse buffer for word timestamps, which the average cannot copy
        self.speller_head = nn.Linear(dims.n_audio_state, len(LETTERS))
        decoder = self.whisper.decoder
        nn.init.normal_(
            decoder.token_embedding.weight, std=0.05
        )  # tied to the output: N(0, 1) would give too large logits
        nn.init.normal_(decoder.positional_embedding, std=0.01)

    def forward(
        self, mel: Float[Tensor, "B M F"], tokens: Int[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B L V"], Float[Tensor, "B P S"]]:
        """Logits of each next token, and of the letter at each position."""
        # torch's fused bfloat16 attention is slow backwards on a CPU; whisper's written-out form takes 15% off a step.
        with disable_sdpa() if self.training and mel.is_cpu else nullcontext():
            heard = encode_mel(self.whisper, mel)
            return self.whisper.decoder(tokens, heard), self.speller_head(heard)


class SmallWhisperLoss:
    """Cross-entropy of the words plus `spelling` times CTC of the letters, per letter.

    One in `slips` of the decoder's input tokens is replaced by another one of the batch, so that it relies on the
    sound and continues after a mistake.
    """

    def __init__(self, spelling: float = 0.5, smoothing: float = 0.1, slips: int = 12) -> None:
        self.spelling, self.smoothing, self.slips = spelling, smoothing, slips

    def __call__(self, modules: Sequence[nn.Module], batch: dict, generator: torch.Generator, step: int) -> tuple:
        tokens, letters = batch["tokens"], batch["letters"]
        shown, target = tokens[:, :-1].clamp(min=END), tokens[:, 1:]
        others = torch.randint(shown.numel(), shown.shape, generator=generator, device=shown.device)
        slip = torch.randint(self.slips, shown.shape, generator=generator, device=shown.device) == 0
        slip[:, 0] = False
        logits, spelled = modules[0](batch["mel"], torch.where(slip, shown.flatten()[others], shown))
        words = F.cross_entropy(
            logits.flatten(0, 1), target.flatten(), ignore_index=IGNORED, label_smoothing=self.smoothing
        )
        lengths = (letters != IGNORED).sum(1)
        positions = torch.full((len(spelled),), spelled.shape[1], dtype=torch.long)
        ctc = F.ctc_loss(
            spelled.float().log_softmax(-1).transpose(0, 1),
            letters.clamp(min=1),
            positions,
            lengths,
            reduction="sum",
            zero_infinity=True,
        ) / lengths.sum().clamp(min=1)
        right = (logits.argmax(-1) == target)[target != IGNORED].float().mean()
        return words + self.spelling * ctc, {"words": words.item(), "ctc": ctc.item(), "right": right.item()}


def export(model: SmallWhisper, vocabulary: ASRTokenizer, folder: Path) -> None:
    """Write model.pt (half precision, for whisper.load_model) and tokens.json, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.half() for name, value in model.whisper.state_dict().items()}
    vocabulary.save(folder / "tokens.json")
    save_whole({"dims": asdict(model.whisper.dims), "model_state_dict": state}, folder / "model.pt")


def vocabulary_of(corpus: Corpus) -> tuple[ASRTokenizer, int]:
    """(vocabulary, pieces): pieces of the corpus and the grammar's whole words."""
    return learn((clip.text for clip in corpus.clips), grammar_words())


def grammar_words() -> set[str]:
    """Every word of captions, as it is spoken."""
    return {part for word in known_words() for part in spoken_form(word).split()}


def recipe(corpus: Path, steps: int, seconds: float = 180.0, init: Path | None = None, real: int = 2) -> Recipe:
    """The bundled recognizer, from a corpus that `maskgil data speech` prepared.

    `real`: how often an epoch has each recording of a person. `init`: a folder that `export` wrote, to continue from;
    its vocabulary stays, and the CTC head starts from random weights. ValueError for another folder.
    """
    torch.manual_seed(0)
    if init is None:
        vocabulary, pieces = vocabulary_of(Corpus(corpus))
        model = SmallWhisper(replace(SMALL, n_vocab=len(vocabulary)))
    else:
        begun: Any = Transcriber.load(init).scribe
        if not (init / "tokens.json").is_file():
            raise ValueError(f"init={init} is a released Whisper: go on from a folder with a tokens.json, as ours has")
        vocabulary = begun.vocabulary
        pieces = pieces_of(vocabulary, grammar_words())
        model = SmallWhisper(begun.model.dims)
        model.whisper.load_state_dict(begun.model.state_dict())
    return Recipe(
        name="whisper-scenes",
        steps=steps,
        modules=(
            OptimizedModule(
                model,
                SmallWhisperLoss(),
                OptimConfig(lr=2e-3, muon_lr=0.02, warmup=150, decay=0.5, weight_decay=0.01),
            ),
        ),
        batch_at=SpeechDataset(str(corpus), vocabulary.tokens, pieces, seconds, real=real),
        ema=0.997,
        save_every=250,
        sample_every=10**9,
        export=lambda average, folder: export(average, vocabulary, folder),
    )
