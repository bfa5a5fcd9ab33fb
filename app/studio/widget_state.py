"""What a visitor has set: it outlives the widget that shows it, the room that it is in, and a restart of the server.

Streamlit keeps it under the widget's key, once the widget was shown and as long as `persist_state` says so; until then
the default is kept here. Whatever the program writes under a widget's key is imposed on the widget, also on what the
visitor did since that run began; with the next click the older value comes back, and the newer choice is lost. So the
program writes there only what it changes itself (`put`), and what a widget must take over that comes back with other
choices or another range.

Instead every widget is given its value as its default, from which it starts: a run that ended may not have reached the
browser when the next one begins, and then the browser sees the widget for the first time as that next run has it. And a
page may be older than its session: after a restart what it shows counts, since nothing here speaks against it.
"""

from typing import Any

import streamlit as st

KEPT = "what is kept"  # key -> value, while no widget has shown it
ROOM = "room of the last run"
YOUNG = "the first run of the session"
THERE = "widgets that were there when the last run ended"
DRAWN = "widgets that this run has drawn"


def begin(room: str) -> None:
    """A run of this room begins."""
    state = st.session_state
    state[YOUNG] = ROOM not in state
    if state.get(ROOM) != room:
        state[THERE] = set()  # the widgets of another room are others, under the same keys
    state[ROOM], state[DRAWN] = room, set()


def end() -> None:
    """The run has ended; one that is cut short by the next click does not come here."""
    st.session_state[THERE] = st.session_state[DRAWN]


def young() -> bool:
    """Whether this is the first run of its session."""
    return st.session_state.get(YOUNG, True)


def keep(key: str, default: Any) -> None:
    """From now on there is a value under this key: the default, while nothing else is set."""
    st.session_state.setdefault(KEPT, {}).setdefault(key, default)


def value(key: str) -> Any:
    """What a kept key is set to; also in a callback, and in rooms that do not show it."""
    state = st.session_state
    return state[key] if key in state else state[KEPT][key]


def put(key: str, value: Any) -> None:
    """Set it in the program's own name: the widget that shows it takes it over."""
    state = st.session_state
    if key in state:
        state[key] = value
    else:
        state.setdefault(KEPT, {})[key] = value


def widget(key: str, *shape: Any) -> dict[str, Any]:
    """Arguments of the widget that shows a kept key, which also needs `value(key)` as its default. `shape`: its choices
    or range; with others it is another widget."""
    state = st.session_state
    drawn = key, repr(shape)
    if drawn not in state.get(THERE, ()) and key in state:
        state[key] = state[key]
    state.setdefault(DRAWN, set()).add(drawn)
    return {"key": key, "persist_state": "session"}
