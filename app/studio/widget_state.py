"""Values of widgets, kept when the widget is hidden, when the page changes, and when the server restarts.

Streamlit keeps a value under the widget's key once the widget was shown, as long as `persist_state` is set; until then
the default is kept here. A value that the program writes under a widget's key overrides the widget, even what the
visitor chose after the run began; that choice is then lost. So the program writes only values that it changes itself
(`put`), and values of widgets that return with other choices or another range.

Each widget also gets its value as its default. A run that ended may not have reached the browser when the next one
begins; the browser then shows the widget for the first time as the next run defines it. After a restart of the server
the browser's page is older than the session, and its values are taken.
"""

from typing import Any

import streamlit as st

KEPT = "what is kept"  # key -> value, until a widget has shown it
ROOM = "room of the last run"
YOUNG = "the first run of the session"
THERE = "widgets that were there when the last run ended"
DRAWN = "widgets that this run has drawn"


def begin(room: str) -> None:
    """Note that a run of this page begins."""
    state = st.session_state
    state[YOUNG] = ROOM not in state
    if state.get(ROOM) != room:
        state[THERE] = set()  # another page has other widgets under the same keys
    state[ROOM], state[DRAWN] = room, set()


def end() -> None:
    """Note that the run has ended. A run that the next click interrupts does not call this."""
    st.session_state[THERE] = st.session_state[DRAWN]


def young() -> bool:
    """Whether this is the first run of its session."""
    return st.session_state.get(YOUNG, True)


def keep(key: str, default: Any) -> None:
    """Keep a value under this key: the default until another is set."""
    st.session_state.setdefault(KEPT, {}).setdefault(key, default)


def value(key: str) -> Any:
    """The value of a kept key, also in callbacks and on pages that do not show it."""
    state = st.session_state
    return state[key] if key in state else state[KEPT][key]


def put(key: str, value: Any) -> None:
    """Set a value; the widget that shows it takes it over."""
    state = st.session_state
    if key in state:
        state[key] = value
    else:
        state.setdefault(KEPT, {})[key] = value


def widget(key: str, *shape: Any) -> dict[str, Any]:
    """Arguments of the widget that shows a kept key; its default must be `value(key)`. `shape`: its choices or range.
    With another shape it is another widget."""
    state = st.session_state
    drawn = key, repr(shape)
    if drawn not in state.get(THERE, ()) and key in state:
        state[key] = state[key]
    state.setdefault(DRAWN, set()).add(drawn)
    return {"key": key, "persist_state": "session"}
