"""Edit: mark a part of a picture with a brush and draw it anew, apply other words, vary, extend or upscale it."""

import streamlit as st

from app.studio import generation_form, session
from app.studio.component import component


def edit_page() -> None:
    model = session.model()
    loaded = session.loaded(model)
    generation_form.correct(loaded, several=False)
    left, right = st.columns([7, 3], gap="large")
    with left, st.container(key="pictures"):
        component("editor")(key="editor", data={"settings": generation_form.canvas_settings(model.name, several=False)})
    with right:
        generation_form.settings(loaded, several=False)
        st.caption("What is not edited stays to the last bit. Pictures of any size and format can be opened.")
