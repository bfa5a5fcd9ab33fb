"""A spoken sentence becomes a picture of a full-size aMUSEd: command line, recognizer, 603 M parameters."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from released_folders import amused_folder

from app.cli import main
from app.core import png


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng speaks the sentence")
def test_speech_to_png_with_a_full_size_amused(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Random weights draw noise, but through every part of the product at its released size."""
    folder, sound, out = amused_folder(tmp_path / "amused-256", full=True), tmp_path / "said.wav", tmp_path / "out.png"
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "140", "-w", sound, "two cats on the beach"], check=True)
    command = ["listen", str(sound), "--model", str(folder), "--out", str(out), "--steps", "2", "--seed", "1"]
    assert main(command) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "cats" in said and "beach" in said
    image, request = png.read_picture(out.read_bytes())
    assert image.size == (256, 256) and np.asarray(image.convert("RGB")).std() > 1
    assert request is not None and request.prompt in said and request.params.guidance_scale == 10.0
    assert Image.open(out).format == "PNG"
