"""Draw: a sentence, its settings, and the picture as it comes."""

import html

import streamlit as st

from app.core.registry import ModelInfo
from app.core.request import MAX_PROMPT
from app.studio import generation_form, job_view, session, widget_state

EASEL = "draw"
COMPLAINT = "complaint of draw"
DEFAULT = "two cats on the beach"


def page() -> None:
    model = session.model()
    job = session.job(EASEL)
    st.title("What shall I draw?", anchor=False)
    ask(model)
    left, right = st.columns([5, 6], gap="large")
    with left:
        if complaint := session.board().get(COMPLAINT):
            st.error(complaint, icon=":material/error:")
        elif missed := st.session_state.get(generation_form.MISSED):
            st.html(f'<div class="notice">{html.escape(missed)}</div>')
        elif job is not None:
            said(model, job.request.prompt)
        generation_form.settings(session.loaded(model))
        examples(model)
        abilities(model)
    with right:
        job_view.show(job, "Write a sentence, or take one of the examples.")


def ask(model: ModelInfo) -> None:
    """The prompt; Enter sends it."""
    examples = model.vocabulary.examples
    with st.form("ask", border=False, enter_to_submit=True), st.container(horizontal=True):
        shown = st.text_input(
            "Prompt",
            generation_form.value("prompt"),
            **generation_form.shown("prompt"),
            placeholder=examples[0] if examples else "a class: its number or name" if model.classes else DEFAULT,
            max_chars=MAX_PROMPT,
            label_visibility="collapsed",
        )
        send = {"on_click": _send, "args": (model.name,)}
        st.form_submit_button("Draw", type="primary", icon=":material/brush:", **send)
    if shown and widget_state.young():  # a press from before cannot be known to a session that has drawn nothing yet
        st.caption(":material/restart_alt: The studio was started anew since you came: press once more.")


def examples(model: ModelInfo) -> None:
    """A few sentences to press."""
    with st.container(horizontal=True, key="examples"):
        for example in model.vocabulary.examples[:6]:
            st.button(example, on_click=_take, args=(model.name, example))


def said(model: ModelInfo, prompt: str) -> None:
    """The prompt as the model reads it: words that it does not know are underlined."""
    words = model.vocabulary
    marked = "".join(
        html.escape(text) if known else f"<mark>{html.escape(text)}</mark>" for text, known in words.spans(prompt)
    )
    st.html(f'<div class="said">“{marked}”</div>')
    if (read := words.normalize(prompt)) != prompt:
        st.html(f'<div class="facts">read as “{html.escape(read)}”</div>')
    if complaint := words.unknown_words_message(prompt):
        st.caption(f":material/help: {sentence(complaint)} It draws the rest.")
    if note := words.color_note(prompt):
        st.caption(f":material/help: {sentence(note)}")


def abilities(model: ModelInfo) -> None:
    """What the model can draw, to read and to learn its words from."""
    words = model.vocabulary
    if not words.words:
        return
    with st.expander("What this model can draw", icon=":material/palette:"):
        st.caption("It learned a small language. Words outside it are ignored at best.")
        _chips("Things", [(thing.name, ", ".join(thing.synonyms)) for thing in words.objects])
        for title, things in (("Places", words.backgrounds), ("Styles", words.styles)):
            _chips(title, [((*thing.say, thing.name)[0], ", ".join(thing.say[1:])) for thing in things])
        _chips("How many", [(name, "") for name in words.counts])
        _chips("Colours of things", [(name, "") for name in words.colours])
        _chips("Where", [(name, "") for name in words.relations])


def _chips(title: str, names: list[tuple[str, str]]) -> None:
    if names:
        spans = "".join(f'<span title="{html.escape(hint)}">{html.escape(name)}</span>' for name, hint in names)
        st.html(f"<b>{title}</b><div class='chips'>{spans}</div>")


def _take(model: str, example: str) -> None:
    widget_state.put(generation_form.key("prompt"), example)
    _send(model)


def _send(model: str) -> None:
    """Put what the page asks for on the easel; a drawing that is still going on there is stopped."""
    st.session_state[generation_form.MISSED] = ""
    board, owner = session.board(), session.owner()
    board[COMPLAINT] = ""
    try:
        request = generation_form.read(model, generation_form.value("prompt"))
        session.put(board, EASEL, session.studio().draw(request, owner))
    except ValueError as error:
        board[COMPLAINT] = sentence(error)


def sentence(text: object) -> str:
    """A complaint as one says it: 'no dog' -> 'No dog.'"""
    text = str(text)
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}"
