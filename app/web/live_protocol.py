"""The messages of the live socket, and their limits.

Up    binary frames of 16 kHz mono int16 samples, and JSON texts:
        {"type": "settings", ...}  the settings of the images to come, all of them each time. Of several candidates the
                                   first is shown while it is drawn, then the chosen one.
        {"type": "flush"}          the utterance is over: its words are final, as after a pause
        {"type": "say", "text", "seed"}  words that were typed, drawn as a new prompt; `seed` null: a new one
        {"type": "end"}            no more speech follows. What was said is transcribed, drawn and saved; then the
                                   server closes the socket.
Down  JSON texts, by "type":
        ready, start, words {committed, pending}, final {text, prompt}, nothing {reason}, error {message},
        unsure {text, reason}, undone {job, prompt}, cleared,
        step {job, step, of}, picture {job, seed, prompt, unknown}, kept {job, id}
      A PNG follows each `step` and each `picture` as a binary frame; that of a picture has the settings as metadata.
      `final` has a prompt where the words changed the one before. `unsure`: the words are a guess, nothing is drawn.
      `undone`: the picture of this job is the last one again; none where the job is empty.
      `kept`: the words of that picture were final, and it is in the gallery by this id.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from app.core import paths
from app.core.request import LEGACY, MAX_LIVE_CANDIDATES, GenerationRequest
from maskgil.params import current_names, options, unknown_option
from maskgil.picture_sizes import parse_size
from speech.streaming import EndpointingConfig

MAX_FRAME = 2**16  # bytes of one message
MAX_SECONDS = 600.0  # of one socket
MAX_AHEAD = 10.0  # seconds that audio may be ahead of the clock: what a network held back arrives at once
MAX_TYPED = 1000  # characters of typed words
MAX_IDLE = 60.0  # seconds without a message: a page that listens sends one every 32 ms
# The fields of a settings message that go to the request as they are; None leaves a setting at its default.
SETTINGS = ("model", "negative_prompt", "adapters", "seed", "sampler", *options())


@runtime_checkable
class SocketLike(Protocol):
    """The part of starlette's WebSocket that is used."""

    scope: Any
    headers: Any

    async def accept(self) -> None: ...
    async def receive(self) -> Any: ...
    async def send_text(self, data: str) -> None: ...
    async def send_bytes(self, data: bytes) -> None: ...
    async def close(self, code: int = 1000, reason: str | None = None) -> None: ...


class ProtocolError(Exception):
    """The client broke the protocol; the message says how."""


@dataclass(frozen=True)
class LiveSettings:
    """A settings message: `values` are fields of GenerationRequest, `pause` is in seconds."""

    values: Mapping[str, Any]
    pause: float


@dataclass(frozen=True)
class EndOfUtterance:
    """What was said so far is a sentence."""


@dataclass(frozen=True)
class TypedWords:
    """A prompt that was typed. `seed`: of the picture whose words it mends; None: a new one."""

    text: str
    seed: int | None = None


def parse_control(text: str) -> LiveSettings | EndOfUtterance | TypedWords | None:
    """What a text message says; None for the end. Raises ProtocolError for any other message."""
    try:
        sent = json.loads(text[:MAX_FRAME])
        fields = current_names({LEGACY.get(name, name): value for name, value in sent.items()})
        if fields["type"] == "end":
            return None
        if fields["type"] == "flush":
            return EndOfUtterance()
        if fields["type"] == "say":
            return _typed(fields)
        if fields["type"] != "settings":
            raise ValueError("what is not of type settings, flush, say or end")
        for name in fields:
            if name not in (*SETTINGS, "type", "size", "pause"):
                raise ValueError(unknown_option(name, SETTINGS))
        known = {key: fields[key] for key in SETTINGS if fields.get(key) is not None}
        if fields.get("size"):
            known["size"] = parse_size(fields["size"])
        settings = default_settings() | known
        candidates = GenerationRequest.read({"prompt": "a try", "seed": 0, **settings}).params.candidates
        if candidates > MAX_LIVE_CANDIDATES:
            raise ValueError(f"{candidates} candidates, and at most {MAX_LIVE_CANDIDATES} while one speaks")
        return LiveSettings(settings, min(2.0, max(0.2, float(fields.get("pause", EndpointingConfig.end)))))
    except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ProtocolError(f"settings that cannot be read ({reason}): reload the page") from None


def _typed(fields: Mapping[str, Any]) -> TypedWords:
    words, seed = " ".join(str(fields["text"]).split()), fields.get("seed")
    if not words or len(words) > MAX_TYPED:
        raise ValueError(f"{len(words)} characters of typed words: send 1 to {MAX_TYPED}")
    GenerationRequest.read({"prompt": words, "seed": 0 if seed is None else seed})  # ValueError for a wrong seed
    return TypedWords(words, seed)


def default_settings() -> dict[str, Any]:
    """What is set before the first settings message."""
    return {"model": paths.default_model()}


def over_time_message() -> str:
    return f"{MAX_SECONDS / 60:.0f} minutes were heard: press the microphone again to go on"
