"""The live microphone: a component that talks to the /live socket on its own; the script only hands it the settings."""

import streamlit as st

from app.catalogue import Model
from app.studio import memory, session, wish
from app.studio.component import component

PAUSE = "pause"
PAUSES = {0.3: "0.3 s · quick", 0.5: "0.5 s", 0.7: "0.7 s · patient", 1.0: "1 s"}


def show(model: Model) -> None:
    """The microphone, the words, the pictures, and what of the settings matters while one speaks."""
    memory.keep(PAUSE, 0.3)
    loaded = session.loaded(model)
    wish.correct(loaded, several=False)
    (width, height), mode = wish.value("size"), wish.value("mode")
    settings = {
        "model": model.name,
        "size": f"{width}x{height}",
        "steps": wish.value("steps"),
        "guidance": wish.value("guidance"),
        "interval": list(wish.value("interval")),
        "temperature": wish.value("temperature"),
        "negative": wish.value("negative").strip(),
        "seed": None if memory.value(wish.NEW_SEED) else wish.value("seed"),
        "order": wish.value("order"),
        "sampler": wish.value("sampler"),
        "revisions": wish.value("revisions"),
        "candidates": wish.value("candidates"),
        "mode": mode,
        "ar_tokens": wish.value("ar_tokens") if mode == "hybrid" else None,
        "pause": memory.value(PAUSE),
    }
    component("microphone")(key="microphone", data=settings)
    wish.settings(loaded, several=False)  # what is said is one picture, which goes on
    st.select_slider(
        "A sentence ends after", list(PAUSES), memory.value(PAUSE), **memory.widget(PAUSE), format_func=PAUSES.get,
        width=280,
    )  # fmt: skip
