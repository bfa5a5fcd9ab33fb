"""The live microphone: a component that uses the /live socket. The script only passes it the settings."""

import streamlit as st

from app.core.registry import ModelInfo
from app.studio import generation_form, session, widget_state
from app.studio.component import component

PAUSE = "pause"
PAUSES = {0.3: "0.3 s · quick", 0.5: "0.5 s", 0.7: "0.7 s", 1.0: "1 s · patient"}


def show(model: ModelInfo) -> None:
    """Show the microphone, the words and the pictures, with the settings that apply to speech."""
    widget_state.keep(PAUSE, 0.7)
    loaded = session.loaded(model)
    generation_form.correct(loaded, several=False)
    width, height = generation_form.setting("size")
    settings = {
        "model": model.name,
        "size": f"{width}x{height}",
        "negative_prompt": generation_form.setting("negative_prompt").strip(),
        "adapters": generation_form.setting("adapters").strip(),
        "seed": None if widget_state.value(generation_form.NEW_SEED) else generation_form.setting("seed"),
        **generation_form.params().to_dict(),
        "pause": widget_state.value(PAUSE),
    }
    component("microphone")(key="microphone", data=settings)
    generation_form.settings(loaded, several=False)  # speech draws one picture, which changes as it goes on
    st.select_slider(
        "Finish the picture after a pause of",
        list(PAUSES),
        widget_state.value(PAUSE),
        **widget_state.widget(PAUSE),
        format_func=PAUSES.get,
        width=280,
    )
