"""The live microphone: a component that talks to the /live socket on its own; the script only hands it the settings."""

import streamlit as st

from app.catalogue import Model
from app.studio import memory, session, wish
from app.studio.component import component

PAUSES = {0.3: "0.3 s · quick", 0.5: "0.5 s", 0.7: "0.7 s · patient", 1.0: "1 s"}


def show(model: Model) -> None:
    """The microphone, the words, the pictures, and what of the settings matters while one speaks."""
    state = st.session_state
    memory.keep("pause", 0.3)
    loaded = session.loaded(model)
    wish.correct(loaded)
    (width, height), mode = state[wish.key("size")], state[wish.key("mode")]
    settings = {
        "model": model.name,
        "size": f"{width}x{height}",
        "steps": state[wish.key("steps")],
        "guidance": state[wish.key("guidance")],
        "interval": list(state[wish.key("interval")]),
        "temperature": state[wish.key("temperature")],
        "negative": state[wish.key("negative")].strip(),
        "seed": None if state[wish.NEW_SEED] else state[wish.key("seed")],
        "order": state[wish.key("order")],
        "sampler": state[wish.key("sampler")],
        "revisions": state[wish.key("revisions")],
        "mode": mode,
        "ar_tokens": state[wish.key("ar_tokens")] if mode == "hybrid" else None,
        "pause": state["pause"],
    }
    component("microphone")(key="microphone", data=settings)
    wish.settings(loaded, several=False)  # what is said is one picture, which goes on
    st.select_slider(
        "A sentence ends after", list(PAUSES), state["pause"], key=memory.widget("pause"), format_func=PAUSES.get,
        width=280,
    )  # fmt: skip
