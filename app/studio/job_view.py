"""Where a job's pictures appear: each step while it is drawn, then the finished ones and what can be done with them."""

import html
import io
import zipfile

import streamlit as st

from app.core import png
from app.core.gallery_store import slug
from app.core.request import GenerationRequest
from app.serving.jobs import Job, Status, summarize
from app.studio import widget_state
from app.studio.session import studio

NOTES = "notes"
POLL = 0.2  # seconds between two looks at a job
SHOWN = 448  # pixels, the width of a single picture on a wide screen


def show(job: Job | None, hint: str) -> None:
    """The job's pictures, or `hint` while there is none."""
    with st.container(key="easel"):
        if job is None:
            st.html(f'<div class="blank empty"><b>The canvas is empty</b><span>{hint}</span></div>')
        elif job.is_done:
            _finished(job)
        else:
            st.fragment(_working, run_every=POLL)(job.id)


def _working(id: str) -> None:
    job = studio().engine.job(id)
    if job is None or job.is_done:
        st.rerun()
    frames = len(job.frames)
    if job.status is Status.QUEUED:
        place = job.position
        st.progress(0.0, f"Waiting: {place - 1} before you" if place > 1 else "Waiting: you are next")
    else:
        of, revisions = (
            (job.frames[-1].total, job.frames[-1].refinement_passes) if frames else (job.request.params.steps, 0)
        )
        steps, left = of - revisions, job.remaining
        rest = f", about {left:.0f} s left" if left is not None and left > 1.5 else ""
        doing = f"Step {frames} of {steps}" if frames <= steps else f"Refinement pass {frames - steps} of {revisions}"
        st.progress(frames / of, doing + rest)
    if job.preview_steps:
        sheet(job.data_urls(), job.request)
    else:
        st.html(f'<div class="blank"><b>{"Waiting" if job.status is Status.QUEUED else "Starting"} ...</b></div>')
    if st.button("Stop", icon=":material/stop_circle:", key=f"stop {id}"):
        job.cancel()


def _finished(job: Job) -> None:
    if job.status is Status.FAILED:
        st.error(job.error, icon=":material/error:")
        return
    if job.status is Status.CANCELLED:
        st.info("Stopped. Nothing was kept.", icon=":material/stop_circle:")
        return
    request = job.request
    sheet(job.data_urls(), request)
    st.html(f'<div class="facts">{summarize(job)}</div>')
    if job.size_note:
        st.caption(f"{job.size_note[:1].upper()}{job.size_note[1:]}.")
    if job.note:
        st.warning(f"Not kept in the gallery: {job.note}")
    with st.container(horizontal=True, vertical_alignment="center"):
        widget_state.keep(NOTES, True)
        data = _file(job.id, widget_state.value(NOTES), job)
        if request.n == 1:
            st.download_button("Download", data, f"{slug(request.prompt)}.png", "image/png", icon=":material/download:")
        else:
            name = f"{slug(request.prompt)}.zip"
            st.download_button("Download all", data, name, "application/zip", icon=":material/download:")
        told = "Prompt, seed and settings are written into the PNG."
        st.toggle("Save settings in the file", widget_state.value(NOTES), **widget_state.widget(NOTES), help=told)


def sheet(addresses: list[str], request: GenerationRequest) -> None:
    """Pictures side by side, as wide as the screen allows.

    They are part of the page itself, not files beside it: a step is seen even when the next one is already there.
    """
    width, height = request.size
    single = SHOWN if width >= height else SHOWN * width // height
    limit = f"max-width:{single}px" if len(addresses) == 1 else ""
    shown = "".join(
        f'<img src="{address}" alt="{html.escape(request.prompt)}" style="aspect-ratio:{width}/{height};{limit}">'
        for address in addresses
    )
    st.html(f'<div class="sheet{" many" if len(addresses) > 1 else ""}">{shown}</div>')


@st.cache_data(max_entries=8, show_spinner=False)
def _file(id: str, notes: bool, _job: Job) -> bytes:
    """What is downloaded of a finished job: a PNG, or a ZIP of several. Encoded once, not at each run of the page."""
    pictures = _job.pictures()
    if len(pictures) == 1:
        return png.encode_png(pictures[0], _job.request if notes else None)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as bundle:
        for i, image in enumerate(pictures):
            request = _job.request.single(i)
            data = png.encode_png(image, request if notes else None)
            bundle.writestr(f"{slug(request.prompt)}-{request.seed}.png", data)
    return out.getvalue()
