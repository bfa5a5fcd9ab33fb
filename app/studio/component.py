"""Custom components: NAME.html, NAME.css and NAME.js in this folder, with the files that they share in front."""

from collections.abc import Callable
from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent
SHARED = ("studio_client", "canvas_connection", "picture_sheet", "token_player")
# Shared scripts and styles, which stand before a component's own, and shared HTML templates.
PARTS: dict[str, tuple[str, ...]] = {
    "canvas": (*SHARED, "prompt_chips", "picture_import", "start_picture"),
    "strip": ("studio_client",),
    "things": ("studio_client",),
    "microphone": ("studio_client", "prompt_chips"),
    "wall": ("studio_client", "picture_import"),
    "editor": ("studio_client", "canvas_connection", "picture_import", "mask_painter"),
}
TEMPLATES = {"canvas": "token_player"}


def sources(name: str) -> tuple[str, str, str]:
    """(HTML, CSS, JavaScript) of the component of this name."""
    css, js = (
        "\n".join(_read(part, kind) for part in (*PARTS.get(name, ()), name) if (HERE / f"{part}.{kind}").exists())
        for kind in ("css", "js")
    )
    html = _read(name, "html")
    if template := TEMPLATES.get(name):
        last = html.rindex("</div>")
        html = f"{html[:last]}<template>{_read(template, 'html')}</template>{html[last:]}"
    return html, css, js


def component(name: str) -> Callable:
    """The component of this name, to be called with key and data."""
    html, css, js = sources(name)
    return st.components.v2.component(name, html=html, css=css, js=js)


def _read(name: str, kind: str) -> str:
    return (HERE / f"{name}.{kind}").read_text(encoding="utf-8")
