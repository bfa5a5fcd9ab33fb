"""Settings that outlive the session: the last ones, and presets that a visitor saves."""

from typing import Any

import streamlit as st

from app.studio import generation_form, session

SAVED = "settings as they were saved"
PRESET = "preset"
NAME = "name of a new preset"
COMPLAINT = "complaint of presets"


def load_settings() -> dict[str, Any]:
    """The settings of this browser's last session at the first call of a session; later an empty dictionary."""
    if SAVED in st.session_state:
        return {}
    st.session_state[SAVED] = values = session.visitor_settings().current()
    return values


def save_settings() -> None:
    """Save the current settings if they have changed."""
    values = generation_form.to_dict()
    if values != st.session_state.get(SAVED):
        st.session_state[SAVED] = values
        try:
            session.visitor_settings().remember(values)
        except ValueError as error:
            st.warning(session.explain(error))


def presets() -> None:
    """Show the row that applies, saves and deletes presets."""
    names = list(session.visitor_settings().presets())
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if names:
            st.selectbox(
                "Preset", names, None, key=PRESET, placeholder="Choose a preset", width=200, on_change=_take_preset
            )
        with st.popover("Save as preset", icon=":material/bookmark_add:"):
            st.text_input("Name", key=NAME, max_chars=40)
            st.button("Save", key="save preset", on_click=_save_preset)
            for name in names:
                st.button(
                    f"Delete {name}", key=f"delete preset {name}", icon=":material/delete:", type="tertiary",
                    on_click=_delete_preset, args=(name,),
                )  # fmt: skip
    if complaint := st.session_state.pop(COMPLAINT, ""):
        st.error(complaint)


def _take_preset() -> None:
    values = session.visitor_settings().presets().get(st.session_state[PRESET] or "")
    if values:
        generation_form.put_settings(values)


def _save_preset() -> None:
    try:
        session.visitor_settings().save_preset(st.session_state[NAME], generation_form.to_dict())
        st.session_state[NAME] = ""
    except ValueError as error:
        st.session_state[COMPLAINT] = session.explain(error)


def _delete_preset(name: str) -> None:
    try:
        session.visitor_settings().delete_preset(name)
    except ValueError as error:
        st.session_state[COMPLAINT] = session.explain(error)
