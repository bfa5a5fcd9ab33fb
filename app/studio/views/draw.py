"""Draw: a sentence, its settings, and the picture as it comes."""

import html
import random
from urllib.parse import quote

import streamlit as st

from app.core.registry import ModelInfo
from app.studio import generation_form, remembered_settings, session, styles
from app.studio.component import component
from maskgil.params import options
from text_encoder.prompt_reader import COLUMNS, THINGS_PICTURE, surprise_prompts, vocabulary_groups

CANVAS = "canvas"
SURPRISES = 40  # prompts at random for one visit
DEFAULT = "two cats on the beach"


def draw_page() -> None:
    model = session.model()
    left, right = st.columns([7, 4], gap="large")
    with left, st.container(key="pictures"):
        canvas(model)
    with right:
        if missed := st.session_state.get(generation_form.MISSED):
            st.html(f'<div class="notice">{html.escape(missed)}</div>')
        st.html(f'<div class="facts">Drawn by the model <b>{html.escape(model.name)}</b></div>')
        generation_form.settings(session.loaded(model))
        remembered_settings.presets()
        example_buttons(model)
        abilities(model)


def canvas(model: ModelInfo) -> None:
    """The prompt and the pictures: a component that draws over its own socket (app/web/canvas_socket.py)."""
    loaded = session.loaded(model)
    generation_form.correct(loaded)
    examples = list(model.vocabulary.examples)
    data = {
        "model": model.name,
        "settings": generation_form.canvas_settings(model.name),
        "style": styles.style_words(generation_form.key("style"), loaded),
        "number": generation_form.setting("n"),
        "examples": examples,
        "surprises": surprises(model),
        "options": [*options(), "seed"],
        "placeholder": examples[0] if examples else "a class: its number or name" if model.classes else DEFAULT,
        "prompt": st.session_state.get(generation_form.NEW_PROMPT),
    }
    component("canvas")(key=CANVAS, data=data, on_use_change=_use, on_new_seed_change=generation_form.take_new_seeds)


def _use() -> None:
    """Take a picture's seed, and its words, for the drawings to come."""
    picture = st.session_state[CANVAS].get("use") or {}
    if isinstance(seed := picture.get("seed"), int):
        generation_form.take_seed(seed)
        generation_form.put_prompt(str(picture.get("prompt", "")))


def surprises(model: ModelInfo) -> list[str]:
    """Prompts for "Surprise me", others for each visit."""
    key = f"surprises {model.name}"
    if key not in st.session_state:
        st.session_state[key] = surprise_prompts(model.reader, SURPRISES, random.randrange(2**31))
    return st.session_state[key]


def example_buttons(model: ModelInfo) -> None:
    """A few sentences to press."""
    with st.container(horizontal=True, key="examples"):
        for example in model.vocabulary.examples[:6]:
            st.button(example, on_click=generation_form.put_prompt, args=(example, True))


def abilities(model: ModelInfo) -> None:
    """What the model can draw, to read and to learn its words from."""
    words = model.vocabulary
    if not words.words:
        return
    groups = [
        {
            "title": group.title,
            "items": [{"label": label, "hint": hint, "words": said} for label, hint, said in group.items],
            "is_prompt": group.is_prompt,
        }
        for group in vocabulary_groups(words)
    ]
    with st.expander("What this model can draw", icon=":material/palette:"):
        st.caption("Press a thing to draw it, a place or a style to add it. Other words get the nearest thing.")
        component("things")(key="things", data={"groups": groups, "columns": COLUMNS, "picture": things_address(model)})


def things_address(model: ModelInfo) -> str:
    """Where the small pictures of a model's things are, below /pictures; empty where it has none."""
    picture = model.folder / THINGS_PICTURE
    # A name may be a path, and hold any character.
    return f"things/{quote(model.name, safe='')}?v={picture.stat().st_mtime_ns}" if picture.is_file() else ""
