"""The style of the drawings to come: words that end each prompt, of the model or saved by the visitor."""

import streamlit as st

from app.core.visitor_settings import MAX_NAME, MAX_STYLE
from app.serving.model_pool import LoadedModel
from app.studio import session, widget_state

WORDS = "words of a new style"
NAME = "name of a new style"
COMPLAINT = "complaint of styles"


def _reads_words(loaded: LoadedModel) -> bool:
    """Whether the model is driven by words; a class has no style."""
    return getattr(loaded.model.generator.config, "classes", None) is None


def style_phrases(loaded: LoadedModel) -> dict[str, str]:
    """The styles of a model, then those of the visitor: name -> the words that ask for it at the end of a prompt."""
    if not _reads_words(loaded):
        return {}
    phrases = {}
    for style in loaded.model.vocabulary.get("styles", ()):
        if isinstance(style, dict):
            after = [say for say in style.get("say", ()) if say.startswith(("in ", "as "))]
            phrases[style["name"]] = (after or [f"in {style['name']} style"])[0]
    return phrases | session.visitor_settings().styles()


def style_words(key: str, loaded: LoadedModel) -> str:
    """The words of the style that is chosen; empty without one. `key`: what the choice is kept under."""
    return style_phrases(loaded).get(widget_state.value(key), "")


def style_widgets(key: str, loaded: LoadedModel) -> None:
    """The style to choose, and a button that saves and deletes the visitor's own. `key` as in `style_words`."""
    if not _reads_words(loaded):
        return
    phrases = style_phrases(loaded)
    names = ["", *phrases]
    now = widget_state.value(key) if widget_state.value(key) in phrases else ""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Style",
            names,
            names.index(now),
            **widget_state.widget(key, names),
            format_func=lambda name: name or "any",
            width=200,
        )
        with st.popover("Save a style", icon=":material/palette:"):
            st.text_input("Words that end each prompt", key=WORDS, max_chars=MAX_STYLE, placeholder="on the beach")
            st.text_input("Name", key=NAME, max_chars=MAX_NAME, placeholder="its words")
            st.button("Save", key="save style", on_click=_save_style, args=(key,))
            for name in session.visitor_settings().styles():
                st.button(
                    f"Delete {name}", key=f"delete style {name}", icon=":material/delete:", type="tertiary",
                    on_click=_delete_style, args=(key, name),
                )  # fmt: skip
    if complaint := st.session_state.pop(COMPLAINT, ""):
        st.error(complaint)


def _save_style(key: str) -> None:
    """Save what was typed, and draw with it from now on."""
    try:
        name = session.visitor_settings().save_style(st.session_state[NAME], st.session_state[WORDS])
    except ValueError as error:
        st.session_state[COMPLAINT] = session.explain(error)
        return
    widget_state.put(key, name)
    st.session_state[NAME] = st.session_state[WORDS] = ""


def _delete_style(key: str, name: str) -> None:
    try:
        session.visitor_settings().delete_style(name)
    except ValueError as error:
        st.session_state[COMPLAINT] = session.explain(error)
        return
    if widget_state.value(key) == name:
        widget_state.put(key, "")
