"""What a visitor has set, which outlives the widget that shows it: Streamlit forgets it with the room that it is in.

Whatever the program writes under a widget's key is imposed on the widget, also on what the visitor did since that run
began; with the next click the older value comes back, and the newer choice is lost. So a value is imposed only on a
widget that was not there when the last run ended, which knows nothing yet.

A run that ended may not have reached the browser when the next one begins, and then the browser sees the widget for the
first time as that next run has it. So every widget is given its value as its default, too, from which it starts.
"""

from typing import Any

import streamlit as st

KEPT = "what is kept"  # key -> value
ROOM = "room of the last run"
THERE = "widgets that were there when the last run ended"
DRAWN = "widgets that this run has drawn"


def begin(room: str) -> None:
    """A run of this room begins."""
    state = st.session_state
    if state.get(ROOM) != room:
        state[THERE] = set()  # the widgets of another room are others, under the same keys
    state[ROOM], state[DRAWN] = room, set()


def end() -> None:
    """The run has ended; one that is cut short by the next click does not come here."""
    st.session_state[THERE] = st.session_state[DRAWN]


def keep(key: str, default: Any) -> None:
    """Give a key its value: the one it has, the one it had when it was last shown, or the default. In each run."""
    state = st.session_state
    kept = state.setdefault(KEPT, {})
    kept[key] = state.get(key, kept.get(key, default))
    if key not in state:
        state[key] = kept[key]


def value(key: str) -> Any:
    """What a kept key is set to; also in a callback, which comes before its run keeps anything.

    By then Streamlit has forgotten what was set in the room before.
    """
    state = st.session_state
    return state[key] if key in state else state[KEPT][key]


def widget(key: str, *shape: Any) -> str:
    """The key, for the widget that shows it. `shape`: its choices or range; with others it is another widget."""
    state = st.session_state
    drawn = key, repr(shape)
    if drawn not in state.get(THERE, ()):
        state[key] = state[key]
    state.setdefault(DRAWN, set()).add(drawn)
    return key
