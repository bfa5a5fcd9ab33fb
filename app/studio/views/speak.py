"""Speak: live drawing, or a recording whose transcript can be corrected and drawn again."""

import streamlit as st

from app.core.registry import ModelInfo
from app.studio import generation_form, microphone, session
from app.studio.component import component
from maskgil.params import options
from speech.audio import EXTENSIONS

COMPLAINT = "complaint of speak"
HEARD = "heard"  # on the board, until the page takes it over: a Transcript
KINDS = list(EXTENSIONS)


def speak_page() -> None:
    model = session.model()
    st.title("Say what you want to see.", anchor=False)
    live, recording = st.tabs(["Live", "Record or upload"])
    with live:
        microphone.show(model)
        example_sentences(model)
    with recording:
        left, right = st.columns([4, 6], gap="large")
        with left:
            record(model)
            if complaint := session.board().get(COMPLAINT):
                st.warning(complaint, icon=":material/hearing:")
        with right:
            transcript(model)


def example_sentences(model: ModelInfo) -> None:
    """Show example sentences."""
    if model.vocabulary.examples:
        said = ", ".join(f"“{example}”" for example in model.vocabulary.examples[:4])
        st.caption(f"For example: {said}")


def record(model: ModelInfo) -> None:
    """Take a recording; it is written down, and drawn at once unless it was not understood."""
    st.audio_input("Say a sentence", key="recording", sample_rate=16000, on_change=_hear, args=("recording",))
    st.file_uploader(
        "or upload a recording", KINDS, key="upload", max_upload_size=16, on_change=_hear, args=("upload",)
    )


def transcript(model: ModelInfo) -> None:
    """The words that were heard, in the line of a canvas that draws them; they can be corrected there."""
    if heard := session.board().pop(HEARD, None):
        generation_form.put_prompt(heard.text, draw=heard.understood)
    loaded = session.loaded(model)
    generation_form.correct(loaded)
    data = {
        "name": "speak",
        "model": model.name,
        "settings": generation_form.canvas_settings(model.name, several=False),
        "number": 1,
        "examples": list(model.vocabulary.examples),
        "options": [*options(), "seed"],
        "placeholder": "What was heard appears here",
        "prompt": st.session_state.get(generation_form.NEW_PROMPT),
    }
    component("canvas")(key="canvas of speak", data=data, on_use_change=lambda: None, on_new_seed_change=lambda: None)


def _hear(widget: str) -> None:
    """Transcribe the recording of a widget."""
    recording, board = st.session_state[widget], session.board()
    board[COMPLAINT] = ""
    if recording is None:
        return
    try:
        heard = session.studio().recognizer.transcribe(recording.getvalue())
        board[COMPLAINT] = heard.reason
        board[HEARD] = None if heard.no_speech else heard
    except ValueError as error:
        board[COMPLAINT] = session.explain(error)
