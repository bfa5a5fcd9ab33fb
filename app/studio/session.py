"""The state of one browser: its owner id, its model, and the job whose pictures it shows."""

import secrets
from typing import Any

import streamlit as st

from app.core import paths, registry
from app.core.gallery_store import OWNER
from app.core.visitor_settings import VisitorSettings
from app.serving.model_pool import LoadedModel
from app.serving.services import AppServices, get_services
from app.studio.wording import sentence
from app.web.access import get_policy
from app.web.public_message import public_message
from app.web.visitors import COOKIE

ROOMS = "rooms"
BOARD = "board"
MODEL = "model"
OPERATOR_KEY = "operator key"


def owner() -> str:
    """The id of this browser's gallery, from its cookie; for this session only if the browser takes no cookies."""
    cookie = st.context.cookies.get(COOKIE) or ""
    if OWNER.fullmatch(cookie):
        return cookie
    return st.session_state.setdefault("owner", secrets.token_urlsafe(18))


def is_operator() -> bool:
    """Whether this visitor may load folders, fetch models and change shared state (app/web/access.py). Without the
    project's server there is one visitor, who started the page."""
    policy = get_policy()
    return policy is None or policy.is_operator(st.context.headers, st.session_state.get(OPERATOR_KEY) or "")


def explain(error: object) -> str:
    """An error as a sentence for the page; folders of the server are named to operators only."""
    return sentence(error if is_operator() else public_message(error))


@st.cache_resource(show_spinner=False)
def studio() -> AppServices:
    """The engine, the recognizer and the gallery, shared by everybody. Raises ValueError when the gallery cannot be
    opened."""
    return get_services()


def visitor_settings() -> VisitorSettings:
    """What this visitor's page remembers."""
    return VisitorSettings(studio().gallery.folder, owner())


def board() -> dict[str, Any]:
    """Results of callbacks: the model that draws, the job that is shown, the transcript.

    It is a plain dictionary that a callback fetches before anything slow begins. On another press Streamlit ends the
    running callback when it next accesses the session, and its results would be lost.
    """
    return st.session_state.setdefault(BOARD, {})


def chosen() -> str:
    """The name of the model that this browser draws with."""
    return board().setdefault(MODEL, paths.default_model())


def at_hand(name: str) -> bool:
    """Whether this model can draw at once: it is bundled or in memory."""
    return name in studio().engine.loaded() or any(model.name == name for model in registry.bundled_models())


def model() -> registry.ModelInfo:
    """This browser's model, loaded. If it cannot be loaded, show what to do and stop the page.

    Nothing is fetched from the network here; the Models page and the program's start do that.
    """
    name = chosen()
    try:
        found = registry.find_local(name)
        if name not in studio().engine.loaded():
            with st.spinner(f"Loading the model {name} ..."):
                studio().engine.load(name)
        return found
    except ValueError as error:
        st.error(f"**The model cannot be opened.** {explain(error)}", icon=":material/image_not_supported:")
        st.stop()


def loaded(model: registry.ModelInfo) -> LoadedModel:
    """The model in memory."""
    return studio().engine.load(model.name)


def enter(room: str) -> None:
    """Go to another page of the menu."""
    st.switch_page(st.session_state[ROOMS][room])
