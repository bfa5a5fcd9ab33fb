"""app.core.png and app.core.request: whatever a file or a page holds becomes a picture, a request, or one clear
line."""

import io
import json
import os
import signal
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from app.core import png
from app.core.edit_request import EditRequest
from app.core.request import MAX_PROMPT, GenerationRequest
from maskgil.params import SamplingParams

REQUEST = GenerationRequest("a red cat", 7, size=(64, 64), params=SamplingParams(steps=4))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int) -> bytes:
    """A PNG of this size that holds no picture."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def noted(note: str) -> bytes:
    """A good picture with any text where its settings would be."""
    info, out = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_itxt(png.METADATA_KEY, note)
    Image.new("RGB", (8, 8)).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def with_settings(**settings: object) -> str:
    return json.dumps(REQUEST.to_dict() | settings)


def test_a_picture_remembers_its_request():
    image, request = png.read_picture(png.encode_png(Image.new("RGB", (64, 64)), REQUEST))
    assert image.size == (64, 64) and request == REQUEST


def test_sixteen_bits_of_grey_stay_grey():
    out = io.BytesIO()
    Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)).save(out, "PNG")
    grey = np.asarray(png.read_picture(out.getvalue())[0].convert("RGB"), float)
    assert np.abs(grey[..., 0] - np.linspace(0, 255, 64 * 64).reshape(64, 64)).max() < 2


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"PK\x03\x04 a zip", "not a picture"),
        (header(20_000, 20_000), "far too large"),
        (header(2**31 - 1, 2**31 - 1), "far too large"),
        (header(9_000, 9_000), "9000x9000"),
        (header(17_000, 10), "17000x10"),
        (header(64, 64), "damaged"),
        (png.encode_png(Image.new("RGB", (64, 64)))[:-40], "damaged"),
        (header(64, 64)[:20], "damaged|not a picture"),
        (header(64, 64)[:33] + chunk(b"zTXt", b"t2i\0\0" + zlib.compress(bytes(2**26))), "damaged"),  # 64 MB of text
        (bytes(png.MAX_BYTES + 1), "at most 32 MB"),
    ],
    ids=["zip", "bomb", "endless", "too large", "too wide", "empty", "cut", "cut head", "text bomb", "heavy"],
)
def test_a_file_that_is_no_good_picture_is_one_line(data: bytes, complaint: str):
    with pytest.raises(ValueError, match=complaint) as refusal:
        png.read_picture(data)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    "note",
    [
        with_settings(seed=10**400),
        with_settings(guidance=10**400),
        with_settings(temperature=10**400),
        with_settings(steps=10**400),
        with_settings(n=-(10**400)),
        with_settings(interval=[0, 10**400]),
        with_settings(interval=None),
        with_settings(size=[10**400, 64]),
        with_settings(size=[float("inf"), 64]),
        with_settings(size=["64", None]),
        with_settings(guidance=None),
        with_settings(prompt="half a \ud800 letter"),
        with_settings(seed=None),
        '{"prompt": "a cat"}',
        "[" * 100_000,
        "[]",
        "7",
        "{",
    ],
    ids=lambda note: note[:8] if len(note) < 40 else f"{note[:8]} and {len(note)} letters",
)
def test_a_note_that_is_no_request_is_left_aside(note: str):
    image, request = png.read_picture(noted(note))
    assert image.size == (8, 8) and request is None


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"steps": 10**400}, "steps is far too large: give a number from 1 to 256"),
        ({"seed": -1}, "seed is -1"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"guidance_scale": 10**400}, "guidance_scale is inf"),
        ({"size": (10**6, 64)}, "more than 99,999 pixels"),
        ({"mode": "hybrid", "ar_tokens": -(10**30)}, "ar_tokens is far too large"),
        ({"edit": "\ud800"}, "control characters"),
    ],
    ids=["steps", "seed", "nan", "guidance", "size", "tokens", "surrogate"],
)
def test_numbers_without_end_are_one_line(settings: dict, complaint: str):
    with pytest.raises(ValueError, match=complaint) as refusal:
        GenerationRequest.from_metadata(REQUEST.to_dict() | settings)
    assert len(str(refusal.value)) < 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(sorted(REQUEST.to_dict())), json_values, max_size=3) | json_values)
def test_whatever_the_settings_are_they_are_a_request_or_a_line(values):
    whole = REQUEST.to_dict() | values if isinstance(values, dict) else values
    try:
        request = GenerationRequest.from_metadata(whole)
    except ValueError as refusal:
        assert str(refusal)
    else:
        assert png.read_picture(png.encode_png(Image.new("RGB", (8, 8)), request))[1] == request


def test_a_process_that_is_killed_while_it_writes_leaves_whole_files(tmp_path: Path):
    """As `generate --n 4` writes its five files: each is whole, and the next run removes what is left."""
    paths = [tmp_path / name for name in ("cats.png", "cats-1.png", "cats-2.png", "cats-3.png", "cats-4.png")]
    size = 200_000
    for kill in range(25):
        child = os.fork()
        if child == 0:
            try:
                for run in range(10_000):
                    png.write_files({path: bytes([run % 250]) * size for path in paths})
            finally:
                os._exit(0)
        time.sleep(0.005 + 0.003 * kill)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for path in (path for path in paths if path.exists()):
            data = path.read_bytes()
            assert len(data) == size and len(set(data)) == 1, path.name
    png.write_files({path: b"last" for path in paths})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)


def test_the_prompt_before_an_edit_is_as_long_as_a_prompt_may_be():
    file = png.encode_png(Image.new("RGB", (64, 64)))
    assert EditRequest.read(file, None, "x" * MAX_PROMPT).previous_prompt
    with pytest.raises(ValueError, match="the prompt before has 8,001 characters"):
        EditRequest.read(file, None, "x" * (MAX_PROMPT + 1))
