"""The token player: every step of a finished drawing, and when and how surely each of its tokens was decided."""

import streamlit as st

from app.core import png
from app.serving.jobs import Job
from app.studio import widget_state
from app.studio.component import component

ON = "player on"
REMEMBERED = 8  # pictures, each step of which is a PNG


def wanted() -> bool:
    """Whether this browser wants to see how, which takes the decoding of every step."""
    widget_state.keep(ON, False)
    return widget_state.value(ON)


def switch() -> None:
    told = "Every step, and when and how surely each part was decided."
    st.toggle("how it was drawn", wanted(), **widget_state.widget(ON), help=told)


def show(job: Job) -> None:
    """In the picture's place; a job of several pictures asks which one."""
    row = 0
    if job.request.n > 1:
        seeds = job.request.seeds
        row = st.segmented_control(
            "Picture", range(job.request.n), format_func=lambda i: f"seed {seeds[i]}", default=0, key=f"player {job.id}"
        )
    row = row or 0
    last = job.frames[-1].grid
    rows, columns = last.grid
    data = {
        "prompt": job.request.prompt,
        "frames": _frames(job.id, row, job),
        "steps": [job.frames[frame].step for frame in job.preview_steps],
        "rows": rows,
        "columns": columns,
        "revealed": last.unmasked_at[row].tolist(),
        # how likely a vector was when it was drawn is not computed: it would take as long again as drawing it
        "confidence": None if last.tokens.is_floating_point() else last.confidence[row].tolist(),
    }
    component("token_player")(key=f"player of {job.id} {row}", data=data)


@st.cache_data(max_entries=REMEMBERED, show_spinner=False)
def _frames(id: str, row: int, _job: Job) -> list[str]:
    """One picture after every step of a job that is over: decoded once, not at each run of the page."""
    return [png.data_uri(_job.preview_of_row(frame, row)) for frame in _job.preview_steps]
