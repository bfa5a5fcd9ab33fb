"""Draw: a sentence, its settings, and the picture as it comes."""

import html

import streamlit as st

from app.catalogue import Model
from app.request import MAX_PROMPT
from app.studio import easel, memory, session, wish

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
        elif missed := st.session_state.get(wish.MISSED):
            st.html(f'<div class="notice">{html.escape(missed)}</div>')
        elif job is not None:
            said(model, job.request.prompt)
        wish.settings(session.loaded(model))
        examples(model)
        abilities(model)
    with right:
        easel.show(job, "Write a sentence, or take one of the examples.")


def ask(model: Model) -> None:
    """The prompt; Enter sends it."""
    examples = model.vocabulary.examples
    with st.form("ask", border=False, enter_to_submit=True), st.container(horizontal=True):
        shown = st.text_input(
            "Prompt",
            wish.value("prompt"),
            **wish.shown("prompt"),
            placeholder=examples[0] if examples else "a class: its number or name" if model.classes else DEFAULT,
            max_chars=MAX_PROMPT,
            label_visibility="collapsed",
        )
        send = {"on_click": _send, "args": (model.name,)}
        st.form_submit_button("Draw", type="primary", icon=":material/brush:", **send)
    if shown and memory.young():  # a press from before cannot be known to a session that has drawn nothing yet
        st.caption(":material/restart_alt: The studio was started anew since you came: press once more.")


def examples(model: Model) -> None:
    """A few sentences to press."""
    with st.container(horizontal=True, key="examples"):
        for example in model.vocabulary.examples[:6]:
            st.button(example, on_click=_take, args=(model.name, example))


def said(model: Model, prompt: str) -> None:
    """The prompt as the model reads it: words that it does not know are underlined."""
    words = model.vocabulary
    marked = "".join(
        html.escape(text) if known else f"<mark>{html.escape(text)}</mark>" for text, known in words.pieces(prompt)
    )
    st.html(f'<div class="said">“{marked}”</div>')
    if (read := words.written(prompt)) != prompt:
        st.html(f'<div class="facts">read as “{html.escape(read)}”</div>')
    if complaint := words.complaint(prompt):
        st.caption(f":material/help: {sentence(complaint)} It draws the rest.")
    if note := words.note(prompt):
        st.caption(f":material/help: {sentence(note)}")


def abilities(model: Model) -> None:
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
    memory.put(wish.key("prompt"), example)
    _send(model)


def _send(model: str) -> None:
    """Put what the page asks for on the easel; a drawing that is still going on there is stopped."""
    st.session_state[wish.MISSED] = ""
    board, owner = session.board(), session.owner()
    board[COMPLAINT] = ""
    try:
        request = wish.read(model, wish.value("prompt"))
        session.put(board, EASEL, session.studio().draw(request, owner))
    except ValueError as error:
        board[COMPLAINT] = sentence(error)


def sentence(text: object) -> str:
    """A complaint as one says it: 'no dog' -> 'No dog.'"""
    text = str(text)
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}"
