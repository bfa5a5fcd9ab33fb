"""The Models page's list of released models with their sizes, and a button that fetches or removes each."""

import functools
import html

import streamlit as st

from app.core import released_models
from app.core.memory_need import GIGA, fit_in_words
from app.serving import model_pool
from app.serving.model_fetcher import ModelFetcher
from app.studio import session
from app.studio.wording import sentence
from maskgil.released import catalog, download
from maskgil.released.catalog import ReleasedModel
from text_encoder.encoder_memory import available_memories

SPEED = (
    "CPU: float32 and random weights, which take as long as the released ones. Nothing could be fetched where this was "
    "written: the released weights themselves, and their speed on a GPU, are untested."
)
REFRESH = 2.0  # seconds between two looks at a fetch


@functools.cache
def fetcher() -> ModelFetcher:
    """The ModelFetcher of this process."""
    return ModelFetcher()


def section() -> None:
    """Show the released models, refreshed while one is fetched."""
    st.subheader("Released models", anchor=False)
    st.caption(
        "Photographs instead of drawn scenes. A model is fetched from Hugging Face once; then it needs no network."
    )
    with st.expander("Which one"):
        st.markdown(released_models.guide_table())
        st.caption(SPEED)
    running = _running()
    st.fragment(_rows, run_every=REFRESH if running else None)(running)


def _running() -> bool:
    """Whether any released model is being fetched."""
    return any(fetcher().state(model.name).running for model in catalog.MODELS)


def _rows(refreshing: bool) -> None:
    """Show the rows. When a fetch begins or ends, the whole page reruns, which starts or stops the refreshing."""
    if _running() != refreshing:
        st.rerun(scope="app")
    for model in catalog.MODELS:
        _row(model)


def _row(model: ReleasedModel) -> None:
    fetch, here = fetcher().state(model.name), download.is_complete(model)
    with st.container(border=True, key=f"released-{model.name.replace('/', '-')}"):
        st.markdown(f"**{model.name}** — {model.good_for}")
        st.html(f'<div class="facts">{html.escape(" · ".join(released_models.model_facts(model)))}</div>')
        if fit := _fit(model):
            st.caption(f":material/memory: {fit}")
        if fetch.running:
            done = download.bytes_here(model) / GIGA
            st.progress(min(1.0, done / model.gigabytes), f"{done:.1f} of about {model.gigabytes:.1f} GB")
            return
        if fetch.error:
            st.error(f"{fetch.error}.", icon=":material/cloud_off:")  # it begins with the model's name
        with st.container(horizontal=True):
            if here:
                st.caption(":material/check: On this machine: it is listed above.")
                st.button("Remove", key=f"remove {model.name}", type="tertiary", on_click=_remove, args=(model.name,))
            else:
                label = "Go on fetching" if download.is_begun(model) else "Fetch"
                st.button(label, key=f"fetch {model.name}", on_click=fetcher().start, args=(model.name,))


def _fit(model: ReleasedModel) -> str:
    """A note about memory and, before the model is fetched, disk space."""
    free = model_pool.free_memory()
    said = "" if free is None else fit_in_words(released_models.catalog_sizes(model), free, available_memories())
    room = download.free_disk(model)
    if not download.is_complete(model) and model.gigabytes * GIGA - download.bytes_here(model) > room:
        said = f"{said} The disk has {room / GIGA:.1f} GB free, which is too little to fetch it.".strip()
    return said


def _remove(name: str) -> None:
    session.studio().engine.unload(name)
    try:
        released_models.remove_model(name)
    except (OSError, ValueError) as error:
        st.toast(sentence(error))
