"""Edit: brush over a part of a picture and say what should be there, or draw a variation of all of it."""

import hashlib
import io
from dataclasses import replace

import streamlit as st
from PIL import Image

from app import edit, picture
from app.catalogue import Model
from app.engine import Status
from app.request import MAX_PROMPT
from app.studio import easel, session, wish
from app.studio.component import component
from app.studio.draw import said, sentence

EASEL = "edit"
PICTURE = "picture to edit"  # PNG bytes
WORDS = "words of the edit"
SHARE = "share of the variation"
BRUSH = "brush"
BROUGHT_WORDS = "words of the picture that was brought"
BROUGHT = "picture that was brought"
COMPLAINT = "complaint of edit"


def page() -> None:
    model = session.model()
    state = st.session_state
    for key, value in ((WORDS, ""), (SHARE, 0.4)):
        state[key] = state.get(key, value)
    state[WORDS] = state.pop(BROUGHT_WORDS, state[WORDS])
    st.title("Paint over it.", anchor=False)
    left, right = st.columns(2, gap="large")
    with left:
        if PICTURE in state:
            brush(model)
        bring()
        wish.settings(session.loaded(model))
    with right:
        job = session.job(EASEL)
        if complaint := state.get(COMPLAINT):
            st.error(complaint, icon=":material/error:")
        elif job is not None:
            said(model, job.request.prompt)
        easel.show(job, "What you paint over is drawn anew; the rest stays to the last pixel.")
        if job is not None and job.status is Status.DONE:
            st.button(
                "Go on from this", icon=":material/edit:", on_click=take, args=(job.pictures()[0], job.request.prompt)
            )


def take(image: Image.Image, prompt: str = "") -> None:
    """Put a picture under the brush."""
    st.session_state[PICTURE] = picture.png(image)
    st.session_state[WORDS] = prompt
    session.clear(EASEL)


def brush(model: Model) -> None:
    """The picture with its cells, what to draw there, and what can be done."""
    image = _image(model)
    rows, columns = session.loaded(model).model.grid(image.size)
    data = {"image": picture.uri(image), "rows": rows, "columns": columns}
    component("brush")(key=_brush(), data=data, on_cells_change=lambda: None)
    with st.form("edit", border=False, enter_to_submit=True), st.container(horizontal=True):
        st.text_input(
            "What should be there", key=WORDS, max_chars=MAX_PROMPT, label_visibility="collapsed",
            placeholder="what the whole picture shows then",
        )  # fmt: skip
        st.form_submit_button("Paint", type="primary", icon=":material/brush:", on_click=_paint, args=(model, None))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.slider("or change this share of all", 0.1, 0.9, step=0.1, key=SHARE, width=220)
        st.button("Vary", icon=":material/shuffle:", on_click=_paint, args=(model, SHARE))


def bring() -> None:
    """Any PNG from outside."""
    file = st.file_uploader("Bring a picture (PNG)", ["png"], key="picture to bring", max_upload_size=32)
    if file is None or st.session_state.get(BROUGHT) == file.file_id:
        return
    st.session_state[BROUGHT] = file.file_id
    try:
        image, request = picture.read(file.getvalue())
    except ValueError as error:
        st.error(sentence(error), icon=":material/error:")
        return
    st.session_state[BROUGHT_WORDS] = request.prompt if request else ""
    st.session_state[PICTURE] = picture.png(image)
    st.rerun()


def _paint(model: Model, share: str | None) -> None:
    """Draw the brushed cells anew, or a share of all cells."""
    state = st.session_state
    state[COMPLAINT] = ""
    try:
        image = _image(model)
        loaded = session.loaded(model)
        request = replace(wish.read(model.name, state[WORDS]), size=image.size)
        grid = loaded.model.grid(image.size)
        cells = (state.get(_brush()) or {}).get("cells") or []
        if share is not None:
            cells = edit.scattered(state[share], request.seed, grid)
        start = edit.start(loaded.model, image, [int(cell) for cell in cells])
        request = replace(request, edit=f"{len(set(cells))} of {grid[0] * grid[1]} cells of {_id()}")
        session.put(EASEL, session.studio().draw(request, session.owner(), start))
    except ValueError as error:
        state[COMPLAINT] = sentence(error)


def _image(model: Model) -> Image.Image:
    return edit.fitted(Image.open(io.BytesIO(st.session_state[PICTURE])), session.loaded(model).sizes)


def _brush() -> str:
    """The key of this picture's brush: another picture begins with no cell brushed."""
    return f"{BRUSH} {_id()}"


def _id() -> str:
    """A short name of the picture under the brush, which its edits carry."""
    return hashlib.sha256(st.session_state[PICTURE]).hexdigest()[:12]
