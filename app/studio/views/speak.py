"""Speak: live, or a recording whose transcript can be mended before it is drawn again."""

from dataclasses import replace

import streamlit as st

from app.core.registry import ModelInfo
from app.core.request import MAX_PROMPT
from app.studio import generation_form, job_view, microphone, session, widget_state
from app.studio.views.draw import said
from speech.audio import EXTENSIONS

EASEL = "speak"
COMPLAINT = "complaint of speak"
HEARD = "heard"  # on the board, until the page takes it over
TRANSCRIPT = "transcript"


def page() -> None:
    model = session.model()
    st.title("Say what you want to see.", anchor=False)
    live, recording = st.tabs(["Live", "Record or upload"])
    with live:
        microphone.show(model)
    with recording:
        left, right = st.columns([5, 6], gap="large")
        with left:
            record(model)
        job = session.job(EASEL)
        with left:
            mend(model)
            if complaint := session.board().get(COMPLAINT):
                st.warning(complaint, icon=":material/hearing:")
            elif job is not None:
                said(model, job.request.prompt)
        with right:
            job_view.show(job, "Press the microphone, say a sentence, press again.")


def record(model: ModelInfo) -> None:
    """Take a recording; it is written down and drawn at once."""
    st.audio_input(
        "Say a sentence", key="recording", sample_rate=16000, on_change=_hear, args=(model.name, "recording")
    )
    st.file_uploader(
        "or upload a recording",
        list(EXTENSIONS),
        key="upload",
        max_upload_size=16,
        on_change=_hear,
        args=(model.name, "upload"),
    )


def mend(model: ModelInfo) -> None:
    """The words that were heard, to correct them."""
    widget_state.keep(TRANSCRIPT, None)
    if heard := session.board().pop(HEARD, ""):
        widget_state.put(TRANSCRIPT, heard)
    if widget_state.value(TRANSCRIPT) is None:
        return
    with st.form("mend", border=False, enter_to_submit=True):
        st.text_input(
            "I heard", widget_state.value(TRANSCRIPT), **widget_state.widget(TRANSCRIPT), max_chars=MAX_PROMPT
        )
        st.form_submit_button("Draw again", icon=":material/brush:", on_click=_draw, args=(model.name,))


def _hear(model: str, widget: str) -> None:
    """Write down what a widget has recorded, and draw it. In a callback: a new seed must come before its widget."""
    recording, board, owner = st.session_state[widget], session.board(), session.owner()
    board[COMPLAINT] = ""
    if recording is None:
        return
    try:
        request = generation_form.read(
            model, "what is said", several=False
        )  # from here on without the session: session.board
        transcript = session.studio().recognizer.transcribe(recording.getvalue())
        board[COMPLAINT] = transcript.reason
        if not transcript.no_speech:
            board[HEARD] = transcript.prompt
            session.put(board, EASEL, session.studio().draw(replace(request, prompt=transcript.prompt), owner))
    except ValueError as error:
        board[COMPLAINT] = str(error)


def _draw(model: str) -> None:
    board, owner = session.board(), session.owner()
    board[COMPLAINT] = ""
    try:
        request = generation_form.read(model, widget_state.value(TRANSCRIPT), several=False)
        session.put(board, EASEL, session.studio().draw(request, owner))
    except ValueError as error:
        board[COMPLAINT] = str(error)
