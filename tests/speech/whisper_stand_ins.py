"""A Whisper of OpenAI's vocabulary with random weights, small enough for tests, and files that hold it."""

import struct
from pathlib import Path

import numpy as np
import torch
from whisper.model import ModelDimensions, Whisper

ENGLISH, MULTILINGUAL = 51864, 51865


def random_whisper(n_vocab: int = ENGLISH, n_audio_ctx: int = 1500, width: int = 64) -> Whisper:
    """One head of 64 a layer, two layers each."""
    dims = ModelDimensions(80, n_audio_ctx, width, width // 64, 2, n_vocab, 64, width, width // 64, 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Whisper(dims).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def ctranslate2_variables(model: Whisper) -> dict[str, np.ndarray]:
    """The arrays that CTranslate2 would store for the model, in float16."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    arrays = {"decoder/num_heads": np.array(1, np.int16)}

    def put(name: str, *parts: str, names=("weight", "bias")) -> None:
        for theirs, ours in zip(names, ("weight", "bias"), strict=True):
            rows = [state.get(f"{part}.{ours}", np.zeros(len(state[f"{part}.weight"]), np.float32)) for part in parts]
            arrays[f"{name}/{theirs}"] = np.concatenate(rows).astype(np.float16)

    for conv in ("conv1", "conv2"):
        put(f"encoder/{conv}", f"encoder.{conv}")
    for coder, last in (("encoder", "ln_post"), ("decoder", "ln")):
        arrays[f"{coder}/position_encodings/encodings"] = state[f"{coder}.positional_embedding"].astype(np.float16)
        put(f"{coder}/layer_norm", f"{coder}.{last}", names=("gamma", "beta"))
        for i in range(2):
            theirs, ours = f"{coder}/layer_{i}", f"{coder}.blocks.{i}"
            put(f"{theirs}/self_attention/linear_0", *(f"{ours}.attn.{part}" for part in ("query", "key", "value")))
            put(f"{theirs}/self_attention/linear_1", f"{ours}.attn.out")
            put(f"{theirs}/self_attention/layer_norm", f"{ours}.attn_ln", names=("gamma", "beta"))
            put(f"{theirs}/ffn/linear_0", f"{ours}.mlp.0")
            put(f"{theirs}/ffn/linear_1", f"{ours}.mlp.2")
            put(f"{theirs}/ffn/layer_norm", f"{ours}.mlp_ln", names=("gamma", "beta"))
            if coder == "decoder":
                put(f"{theirs}/attention/linear_0", f"{ours}.cross_attn.query")
                put(f"{theirs}/attention/linear_1", f"{ours}.cross_attn.key", f"{ours}.cross_attn.value")
                put(f"{theirs}/attention/linear_2", f"{ours}.cross_attn.out")
                put(f"{theirs}/attention/layer_norm", f"{ours}.cross_attn_ln", names=("gamma", "beta"))
    arrays["decoder/embeddings/weight"] = state["decoder.token_embedding.weight"].astype(np.float16)
    return arrays


def write_ctranslate2(arrays: dict[str, np.ndarray], path: Path) -> None:
    """A file of version 6 with these arrays."""
    kinds = {np.dtype(kind): i for i, kind in enumerate((np.float32, np.int8, np.int16, np.int32, np.float16))}

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    data = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for name, array in arrays.items():
        data += text(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        data += struct.pack("<BI", kinds[array.dtype], array.nbytes) + array.tobytes()
    path.write_bytes(data + struct.pack("<I", 0))
