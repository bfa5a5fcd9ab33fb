"""Models: which there are, what each one is, which this browser draws with."""

import streamlit as st

from app import catalogue, places
from app.studio import session


def page() -> None:
    st.title("Models", anchor=False)
    engine = session.studio().engine
    chosen = st.session_state.setdefault("model", places.model())
    models = {model.name: model for model in catalogue.bundled()}
    if chosen not in models:
        try:
            models[chosen] = catalogue.find(chosen)
        except ValueError as error:
            st.error(str(error), icon=":material/image_not_supported:")
    for name, model in models.items():
        with st.container(border=True, key=f"model-{len(name)}-{name}"):
            loaded = name in engine.loaded()
            st.subheader(name, anchor=False)
            sizes = model.vocabulary.drawn
            memory = "in memory" if loaded else "on disk"
            st.html(f'<div class="facts">{model.reads} · {sizes} · {model.megabytes:.1f} MB · {memory}</div>')
            with st.container(horizontal=True, vertical_alignment="center"):
                st.button(
                    "Drawing with it" if name == chosen else "Draw with it",
                    key=f"choose {name}",
                    type="primary" if name == chosen else "secondary",
                    disabled=name == chosen,
                    on_click=_choose,
                    args=(name,),
                )
                if loaded:
                    st.button("Unload", key=f"unload {name}", on_click=engine.unload, args=(name,), type="tertiary")
            if model.card:
                with st.expander("Model card"):
                    st.markdown(model.card)
    st.caption(
        "Other models: start the studio with `python -m app ui --model <folder>`, or put the folder among the weights."
    )


def _choose(name: str) -> None:
    st.session_state["model"] = name
