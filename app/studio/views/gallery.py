"""Gallery: a browser's own pictures and shared ones, shown by a component that calls app/web/pictures_api.py."""

import streamlit as st

from app.studio import generation_form, session
from app.studio.component import component

WALL = "wall"
COMPLAINT = "complaint of gallery"
LEAVE = "room to go to"


def gallery_page() -> None:
    if complaint := st.session_state.pop(COMPLAINT, ""):
        st.error(complaint, icon=":material/error:")
    if room := st.session_state.pop(LEAVE, None):
        session.enter(room)
    try:
        data = {"shares": session.studio().gallery.shares(session.owner())}
    except ValueError as error:
        st.error(session.explain(error), icon=":material/error:")
        return
    component("wall")(key=WALL, data=data, on_settings_change=_use_settings, on_share_change=_share)


def _use_settings() -> None:
    """Put a picture's request on the Draw page."""
    try:
        entry = session.studio().gallery.get(session.owner(), str(st.session_state[WALL].get("settings") or ""))
        if entry.request is not None:
            generation_form.fill(entry.request)
            st.session_state[LEAVE] = "draw"
    except ValueError as error:
        st.session_state[COMPLAINT] = session.explain(error)


def _share() -> None:
    """Share this browser's pictures with everyone on the server, or stop sharing."""
    if (shared := st.session_state[WALL].get("share")) is not None:
        try:
            session.studio().gallery.share(session.owner(), bool(shared))
        except ValueError as error:
            st.session_state[COMPLAINT] = session.explain(error)
