"""The script that the server runs for every visitor: styles, menu, and the chosen page."""

from pathlib import Path

import streamlit as st
from PIL import Image, ImageColor

from app.studio import generation_form, remembered_settings, session, widget_state
from app.studio.component import component
from app.studio.views import draw, edit, gallery, models, speak


def icon() -> Image.Image:
    """A canvas on which some tokens are decided. (Streamlit would fetch its own icons from the network.)"""
    cells = Image.new("RGBA", (4, 4))
    for place, colour in {
        (0, 1): "#f2b04a",
        (1, 1): "#e2673f",
        (1, 2): "#c8452b",
        (2, 2): "#5b8c7a",
        (3, 0): "#3f6f8c",
    }.items():
        cells.putpixel(place, ImageColor.getcolor(colour, "RGBA"))
    return cells.resize((64, 64), Image.Resampling.NEAREST)


st.set_page_config(page_title="Studio", page_icon=icon(), layout="wide")
st.html(Path(__file__).parent / "style.css")
try:
    session.studio()
except ValueError as error:
    st.error(f"**The studio cannot be opened.** {session.explain(error)}", icon=":material/error:")
    st.stop()
rooms = [
    st.Page(draw.draw_page, title="Draw", icon=":material/brush:", url_path="draw", default=True),
    st.Page(speak.speak_page, title="Speak", icon=":material/mic:", url_path="speak"),
    st.Page(edit.edit_page, title="Edit", icon=":material/ink_eraser:", url_path="edit"),
    st.Page(gallery.gallery_page, title="Gallery", icon=":material/photo_library:", url_path="gallery"),
    st.Page(models.models_page, title="Models", icon=":material/deployed_code:", url_path="models"),
]
st.session_state[session.ROOMS] = {room.url_path or "draw": room for room in rooms}
room = st.navigation(rooms, position="hidden")
widget_state.begin(room.url_path)
generation_form.keep_defaults(remembered_settings.load_settings())
with st.container(key="menu", horizontal=True):
    for each in rooms:
        st.page_link(each)
with st.container(key="strip"):
    component("strip")(key="last pictures")
room.run()
remembered_settings.save_settings()
widget_state.end()
