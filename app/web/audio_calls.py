"""The audio endpoints of the HTTP API: transcriptions and translations of a recording."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from whisper.tokenizer import LANGUAGES

from app.core import paths
from app.serving.recognizer import Recognizer, TimedTranscript, recording_calls
from app.serving.services import AppServices
from app.web.api_errors import ApiError
from app.web.image_calls import NO_BUFFER, Caller, places
from app.web.image_fields import brief_json
from app.web.public_message import public_message
from app.web.uploads import Form, read_form
from app.web.word_times import ESTIMATED, segments, to_srt, to_vtt
from speech.audio import RATE
from speech.backends import RawTranscript
from speech.greedy_decoding import AUTO, DecodingContext
from speech.transcriber import TranscribedPiece, Transcript

UNTIMED = ("json", "text")  # formats that need no times of words
FORMATS = (*UNTIMED, "verbose_json", "srt", "vtt")
GRANULARITIES = ("word", "segment")
# Names of OpenAI's recognizers, which clients send by default: the default recognizer is meant.
MODEL_ALIASES = ("", "whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
ENGLISH = ("en", "english", "en-us", "en-gb")
FIELDS = ("language", "model", "prompt", "response_format", "stream", "temperature")
LISTS = ("timestamp_granularities", "include")


@dataclass(frozen=True)
class AudioFields:
    """The checked fields of a call. `notes`: how fields were mapped."""

    response_format: str = "json"
    stream: bool = False
    granularities: tuple[str, ...] = ("segment",)
    notes: tuple[str, ...] = ()
    language: str = AUTO
    prompt: str = ""


async def transcriptions(call: Request, services: AppServices, caller: Caller) -> Response:
    """Transcribe a recording. One without speech has an empty text, and `reason` says why."""
    return await _answer(call, services, caller, "transcribe")


async def translations(call: Request, services: AppServices, caller: Caller) -> Response:
    """Write a recording in any language in English. A recognizer that knows only English transcribes it."""
    return await _answer(call, services, caller, "translate")


async def _answer(call: Request, services: AppServices, caller: Caller, task: str) -> Response:
    with places.place(caller.name):
        form = await read_form(call)
        recording = _recording(form)
        recognizer = _recognizer(services, form.texts.get("model", ""))
        fields = read_audio_fields(form.texts, form.lists, recognizer.name)
        loop = asyncio.get_running_loop()
        context = DecodingContext(fields.language, task, fields.prompt)
        if fields.response_format in UNTIMED:
            transcript = await loop.run_in_executor(recording_calls, recognizer.transcribe, recording, context)
            return _untimed_answer(transcript, fields)
        timed = await loop.run_in_executor(recording_calls, recognizer.transcribe_timed, recording, context)
        return _timed_answer(timed, fields, task)


def _untimed_answer(transcript: Transcript, fields: AudioFields) -> Response:
    if fields.stream:
        return StreamingResponse(_events(transcript), media_type="text/event-stream", headers=NO_BUFFER)
    if fields.response_format == "text":
        return PlainTextResponse(transcript.text + "\n")
    notes: dict[str, Any] = {"reason": transcript.reason} if transcript.reason else {}
    return JSONResponse({"text": transcript.text} | notes | ({"notes": list(fields.notes)} if fields.notes else {}))


def _timed_answer(timed: TimedTranscript, fields: AudioFields, task: str) -> Response:
    match fields.response_format:
        case "srt":
            return PlainTextResponse(to_srt(timed.words), media_type="application/x-subrip; charset=utf-8")
        case "vtt":
            return PlainTextResponse(to_vtt(timed.words), media_type="text/vtt; charset=utf-8")
    return JSONResponse(_verbose(timed, fields, task))


def _recognizer(services: AppServices, model: str) -> Recognizer:
    """Raises ApiError 404 for one that is not served."""
    if model in (*MODEL_ALIASES, paths.default_recognizer()):
        return services.recognizer
    recognizer = services.recognizer_named(model)
    if recognizer is None:
        served = public_message(services.recognizer.name)
        message = f"no recognizer {model[:80]!r}: this server transcribes with {served}"
        raise ApiError(404, message, "model_not_found")
    return recognizer


def _recording(form: Form) -> bytes:
    if stray := sorted(set(form.files) - {"file"}):
        raise ValueError(f"{stray[0][:40]!r} is a file: file is the only one")
    file = form.file("file")
    if file is None:
        raise ValueError("file is missing: send a recording of someone speaking")
    return file.data


def read_audio_fields(texts: Mapping[str, str], lists: Mapping[str, list[str]], recognizer: str) -> AudioFields:
    """The fields of a call to the recognizer of this name.

    Raises ValueError for a field that is unknown or cannot be done.
    """
    if unknown := sorted((set(texts) - {*FIELDS, *LISTS}) | (set(lists) - set(LISTS))):
        raise ValueError(f"unknown field {unknown[0][:40]!r}: there are file, {', '.join((*FIELDS, *LISTS))}")
    model = texts.get("model", "")
    response_format = texts.get("response_format", "json")
    if response_format not in FORMATS:
        raise ValueError(
            f"response_format is {brief_json(response_format)}: give {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        )
    stream = texts.get("stream", "false").lower()
    if stream not in ("true", "false"):
        raise ValueError(f"stream is {brief_json(stream)}: give true or false")
    if stream == "true" and response_format not in UNTIMED:
        raise ValueError(f"a stream has no {response_format}: leave response_format or stream out")
    language = texts.get("language", "").lower() or AUTO
    language = "en" if language in ENGLISH else language
    if language != AUTO and language not in LANGUAGES:
        raise ValueError(f"language is {brief_json(language)}: give a code such as en or de, or leave it out")
    granularities = tuple(lists.get("timestamp_granularities", [])) or ("segment",)
    if "timestamp_granularities" in texts:
        granularities = (texts["timestamp_granularities"],)
    if wrong := [name for name in granularities if name not in GRANULARITIES]:
        raise ValueError(f"timestamp_granularities has {brief_json(wrong[0])}: give word or segment")
    if lists.get("include") or texts.get("include"):
        raise ValueError("include asks for log probabilities, which this server does not return: leave it out")
    served = public_message(recognizer)
    notes = [f"{texts['model']} is not served here: {served} transcribes"] if model in MODEL_ALIASES[1:] else []
    try:
        temperature = float(texts.get("temperature", "0") or 0)
    except ValueError:
        raise ValueError(f"temperature is {brief_json(texts['temperature'])}: give 0") from None
    if not 0 <= temperature <= 1:
        raise ValueError(f"temperature is {temperature:g}: give a number from 0 to 1")
    if temperature:
        notes.append("temperature changes nothing: the recognizer decodes greedily")
    prompt = texts.get("prompt", "").strip()
    return AudioFields(response_format, stream == "true", granularities, tuple(notes), language, prompt)


def _verbose(timed: TimedTranscript, fields: AudioFields, task: str) -> dict[str, Any]:
    """OpenAI's verbose_json."""
    transcript, notes = timed.transcript, [*fields.notes, *([] if timed.is_aligned else [ESTIMATED])]
    language = LANGUAGES[transcript.language]
    result: dict[str, Any] = {"task": task, "language": language, "duration": round(timed.duration, 3)}
    result |= {"text": transcript.text, "notes": notes}
    if transcript.reason:
        result["reason"] = transcript.reason
    result["segments"] = [
        {"id": index, "start": group[0].start, "end": group[-1].end, "text": " ".join(word.word for word in group)}
        | _measured(transcript.pieces, group[0].start)
        for index, group in enumerate(segments(timed.words))
    ]
    if "word" in fields.granularities:
        result["words"] = [{"word": word.word, "start": word.start, "end": word.end} for word in timed.words]
    return result


def _measured(pieces: tuple[TranscribedPiece, ...], start: float) -> dict[str, Any]:
    """The fields of a segment that tell of the whole piece of sound that was transcribed with it."""
    before = [piece for piece in pieces if piece.start <= start * RATE + 1]
    piece = (before or list(pieces) or [TranscribedPiece(0, 0, RawTranscript("", 0.0))])[-1]
    draft = piece.draft
    return {
        "seek": round(piece.start / RATE * 100),
        "tokens": list(draft.tokens),
        "temperature": 0.0,
        "avg_logprob": round(draft.log_prob, 4),
        "compression_ratio": round(draft.compression, 4),
        "no_speech_prob": round(draft.no_speech, 4),
    }


async def _events(transcript: Transcript) -> AsyncIterator[str]:
    """Server-sent events: the text word by word, then all of it. The recognizer has finished by then."""

    def event(type: str, **values: Any) -> str:
        return f"event: {type}\ndata: {json.dumps({'type': type} | values)}\n\n"

    for index, word in enumerate(transcript.text.split()):
        yield event("transcript.text.delta", delta=word if index == 0 else f" {word}")
    yield event("transcript.text.done", text=transcript.text)
