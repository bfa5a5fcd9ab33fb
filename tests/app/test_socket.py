"""The microphone's socket of a real server: what no page sends ends that connection, and nobody else notices."""

import io
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from app_fixtures import tiny_model
from test_browser import SECONDS, SENTENCE, Studio, bundled
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from app.web import live_protocol, server, visitors
from speech.audio import RATE

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [bundled, pytest.mark.timeout(1000)]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    weights = Path(tmp_path_factory.mktemp("weights"))
    tiny_model(weights / "scenes")
    (weights / "whisper-scenes").symlink_to(ROOT / "weights" / "whisper-scenes")
    studio = Studio(weights, Path(tmp_path_factory.mktemp("gallery")))
    yield studio
    studio.stop()


@contextmanager
def microphone(studio: Studio, owner: str, **headers: str) -> Iterator[ClientConnection]:
    """A socket as a page opens it."""
    told = {"origin": studio.url, "additional_headers": {"Cookie": f"{visitors.COOKIE}={owner}"}} | headers
    with connect(f"ws://localhost:{studio.port}/live", proxy=None, open_timeout=SECONDS, close_timeout=5, **told) as up:
        yield up


def message(up: ClientConnection, type: str) -> dict:
    """The next message of this type."""
    while True:
        data = up.recv(SECONDS)
        if isinstance(data, str) and json.loads(data)["type"] == type:
            return json.loads(data)


def spoken(sentence: str) -> bytes:
    """16 kHz int16 with a second of silence after it."""
    wav = subprocess.run(["espeak-ng", "-v", "en-us", "-s", "140", "--stdout", sentence], capture_output=True).stdout
    said, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    said = np.pad(soxr.resample(said, rate, RATE), (RATE // 2, RATE))
    return np.round(said * 32767).astype("<i2").tobytes()


def say(up: ClientConnection, sound: bytes) -> None:
    for start in range(0, len(sound), 1024):
        up.send(sound[start : start + 1024])


def most_memory(studio: Studio) -> int:
    """Bytes that the server has ever taken."""
    status = Path(f"/proc/{studio.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


def at_rest(studio: Studio) -> int:
    """The same, once it grows no more: a server that has just begun is still loading its models."""
    seen = [0]
    while len(seen) < 8 or len(set(seen[-8:])) > 1:
        time.sleep(0.25)
        seen.append(most_memory(studio))
    return seen[-1]


GARBAGE = [
    b"\x00\x01\x02",
    bytes(live_protocol.MAX_FRAME + 2),
    "garbage",
    "[" * 50_000,
    '{"type": "settings", "steps": 1' + "0" * 400 + "}",
    "null",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_ends_that_socket_alone(studio: Studio, garbage: bytes | str):
    with microphone(studio, "good-1234567") as good, microphone(studio, "bad-1234567") as bad:
        message(good, "ready")
        message(bad, "ready")
        bad.send(garbage)
        assert message(bad, "error")["message"]
        with pytest.raises(ConnectionClosed) as closed:
            bad.recv(SECONDS)
        assert closed.value.rcvd.code == 1008
        good.send(json.dumps({"type": "end"}))
        with pytest.raises(ConnectionClosed) as closed:
            good.recv(SECONDS)
        assert closed.value.rcvd.code == 1000
    assert studio.healthy()


def handshake(studio: Studio) -> socket.socket:
    """A socket on which anything can be sent from now on."""
    raw = socket.create_connection(("localhost", studio.port), timeout=60)
    lines = [
        "GET /live HTTP/1.1", f"Host: localhost:{studio.port}", f"Origin: {studio.url}", "Upgrade: websocket",
        "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        f"Cookie: {visitors.COOKIE}=raw-1234567",
    ]  # fmt: skip
    raw.sendall("\r\n".join([*lines, "", ""]).encode())
    assert raw.recv(1024).startswith(b"HTTP/1.1 101")
    return raw


def masked(length: int) -> bytes:
    """The head of a binary frame of so many bytes, all of whose bytes are masked with 0."""
    return b"\x82\xff" + length.to_bytes(8, "big") + bytes(4)


@pytest.mark.parametrize(
    "sent",
    [masked(1024) + bytes(100), b"\x82", b"no frame at all" * 100, os.urandom(5000), masked(2**62)],
    ids=["half a frame", "half a head", "text", "noise", "endless"],
)
def test_what_is_no_frame_or_half_of_one_harms_nobody(studio: Studio, sent: bytes):
    raw = handshake(studio)
    raw.sendall(sent)
    raw.close()
    with microphone(studio, "good-1234567") as good:
        assert message(good, "ready")["rate"] == RATE


def test_a_huge_frame_is_refused_before_it_is_there(studio: Studio):
    with microphone(studio, "good-1234567") as good:
        message(good, "ready")
        before = at_rest(studio)
        with microphone(studio, "bad-1234567") as bad:
            message(bad, "ready")
            with pytest.raises(ConnectionClosed):
                bad.send(bytes((server.MAX_MESSAGE + 36) * 10**6))
                bad.recv(SECONDS)
        assert most_memory(studio) - before < 32e6
    assert studio.healthy()


@pytest.mark.parametrize(
    "headers", [{"origin": "http://elsewhere.example"}, {"additional_headers": {}}], ids=["another site", "a stranger"]
)
def test_only_the_studios_own_pages_are_let_in(studio: Studio, headers: dict):
    with pytest.raises(InvalidStatus) as refusal, microphone(studio, "me-1234567", **headers):
        pass
    assert refusal.value.response.status_code == 403


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")
def test_two_speak_at_once_and_each_sees_its_own(studio: Studio):
    other = "a red apple"
    with microphone(studio, "one-1234567") as one, microphone(studio, "two-1234567") as two:
        message(one, "ready")
        message(two, "ready")
        first, second = spoken(SENTENCE), spoken(other)
        for start in range(0, max(len(first), len(second)), 8192):
            for up, sound in ((one, first), (two, second)):
                say(up, sound[start : start + 8192])
        for up in (one, two):
            up.send('{"type": "end"}')
        told = [[json.loads(data) for data in up if isinstance(data, str)] for up in (one, two)]
    for messages, sentence in zip(told, (SENTENCE, other), strict=True):
        assert [message["text"] for message in messages if message["type"] == "final"] == [sentence]
        assert [message["prompt"] for message in messages if message["type"] == "picture"][-1] == sentence
        assert messages[-1]["type"] == "kept"
    jobs = [{message["job"] for message in messages if "job" in message} for messages in told]
    assert not jobs[0] & jobs[1]
