"""Models: which there are, what each one is and takes, which of them are in memory, which this browser draws with."""

import streamlit as st

from app import catalogue, engine
from app.studio import session
from app.studio.draw import sentence

COMPLAINT = "complaint of models"
OTHER = "another model"


def page() -> None:
    st.title("Models", anchor=False)
    chosen = session.chosen()
    models = {model.name: model for model in catalogue.bundled()}
    for name in [chosen, *session.studio().engine.loaded()]:  # those from elsewhere too
        if name not in models:
            try:
                models[name] = catalogue.here(name)
            except ValueError as error:
                st.error(sentence(error), icon=":material/image_not_supported:")
    if complaint := st.session_state.pop(COMPLAINT, ""):
        st.error(complaint, icon=":material/error:")
    for name, model in models.items():
        card(model, name == chosen, name in session.studio().engine.loaded())
    for name, missing in catalogue.unfinished().items():
        with st.container(border=True):
            st.subheader(name, anchor=False)
            st.caption(f":material/block: Cannot run: {', '.join(missing)} missing in its folder.")
    another()


def card(model: catalogue.Model, chosen: bool, loaded: bool) -> None:
    """One model: what it draws, what it takes, and what can be done with it."""
    name, dtype = model.name, engine.precision()
    with st.container(border=True, key=f"model-{len(name)}-{name}"):
        st.subheader(name, anchor=False)
        numbers = model.parameters
        memory = f"{numbers * dtype.itemsize / 1e6:.1f} MB {'in memory' if loaded else 'when loaded'}"
        facts = [model.reads, model.vocabulary.drawn, f"{numbers / 1e6:.1f} M parameters"]
        facts += [f"{model.megabytes:.1f} MB on disk", f"{memory}, {engine.short(dtype)}"]
        st.html(f'<div class="facts">{" · ".join(facts)}</div>')
        if reason := "" if loaded else engine.obstacle(model):
            st.caption(f":material/block: Cannot run: {reason}.")
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button(
                "Drawing with it" if chosen else "Draw with it",
                key=f"choose {name}",
                type="primary" if chosen else "secondary",
                disabled=chosen or bool(reason),
                on_click=session.choose,
                args=(name,),
            )
            if loaded:
                unload = session.studio().engine.unload
                st.button("Unload", key=f"unload {name}", on_click=unload, args=(name,), type="tertiary")
            elif not reason:
                st.button("Load", key=f"load {name}", on_click=_load, args=(name,), type="tertiary")
        if model.card:
            with st.expander("Model card"):
                st.markdown(model.card)


def another() -> None:
    """A model that is not among the bundled ones, by its place."""
    with st.form("another", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Another model", key=OTHER, max_chars=300, placeholder="a folder, or a Hugging Face name: owner/model"
        )
        st.form_submit_button("Open", icon=":material/folder_open:", on_click=_open)


def _open() -> None:
    if (name := st.session_state[OTHER].strip()) and _load(name):
        session.choose(name)


def _load(name: str) -> bool:
    """Whether it is in memory now; if not, the page says why."""
    try:
        session.studio().engine.load(name)
    except ValueError as error:
        st.session_state[COMPLAINT] = sentence(error)
        return False
    return True
