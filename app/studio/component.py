"""Own components of the page: NAME.html, NAME.css and NAME.js in this folder."""

from collections.abc import Callable
from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent


def component(name: str) -> Callable:
    """The component of this name, to be called with key and data."""
    html, css, js = ((HERE / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    return st.components.v2.component(name, html=html, css=css, js=js)
