"""The Models page's list of released models: what each takes, and a button that fetches or removes it."""

import functools
import html

import streamlit as st

from app.core import released_models
from app.serving import model_pool
from app.serving.model_fetcher import ModelFetcher
from app.studio import session
from app.studio.wording import sentence
from maskgil.released import catalog, download
from maskgil.released.catalog import ReleasedModel

REFRESH = 2.0  # seconds between two looks at a fetch
GIGA = 1e9


@functools.cache
def fetcher() -> ModelFetcher:
    """The one of this process."""
    return ModelFetcher()


def section() -> None:
    """The released models, refreshed while one is on its way."""
    st.subheader("Released models", anchor=False)
    st.caption(
        "Photographs instead of drawn scenes. A model is fetched from Hugging Face once; then it needs no network."
    )
    running = _running()
    st.fragment(_rows, run_every=REFRESH if running else None)(running)


def _running() -> bool:
    """Whether any released model is on its way."""
    return any(fetcher().state(model.name).running for model in catalog.MODELS)


def _rows(refreshing: bool) -> None:
    """The rows. When a fetch begins or ends, the whole page is drawn again: it starts or stops refreshing them."""
    if _running() != refreshing:
        st.rerun(scope="app")
    for model in catalog.MODELS:
        _row(model)


def _row(model: ReleasedModel) -> None:
    fetch, here = fetcher().state(model.name), download.is_complete(model)
    with st.container(border=True, key=f"released-{model.name.replace('/', '-')}"):
        st.markdown(f"**{model.name}** — {model.good_for}")
        st.html(f'<div class="facts">{html.escape(" · ".join(released_models.model_facts(model)))}</div>')
        if reason := _too_large(model):
            st.caption(f":material/memory: {reason}")
        if fetch.running:
            done = download.bytes_here(model) / GIGA
            st.progress(min(1.0, done / model.gigabytes), f"{done:.1f} of about {model.gigabytes:.1f} GB")
            return
        if fetch.error:
            st.error(f"{fetch.error}.", icon=":material/cloud_off:")  # it begins with the name, as it is written
        with st.container(horizontal=True):
            if here:
                st.caption(":material/check: On this machine: it is listed above.")
                st.button("Remove", key=f"remove {model.name}", type="tertiary", on_click=_remove, args=(model.name,))
            else:
                label = "Go on fetching" if download.is_begun(model) else "Fetch"
                st.button(label, key=f"fetch {model.name}", on_click=fetcher().start, args=(model.name,))


def _too_large(model: ReleasedModel) -> str:
    """What to say where the model does not fit into the memory that is free."""
    free = model_pool.free_memory()
    if free is None or model.memory / 2 * GIGA <= free:
        return (
            "" if free is None or model.memory * GIGA <= free else "It fits in bf16 only: choose that before loading."
        )
    return f"It needs {model.memory / 2:.1f} GB in bf16, and {free / GIGA:.1f} GB are free here."


def _remove(name: str) -> None:
    session.studio().engine.unload(name)
    try:
        released_models.remove_model(name)
    except (OSError, ValueError) as error:
        st.toast(sentence(error))
