"""Gallery: this browser's own pictures, to find, take, draw again and throw away."""

import html

import streamlit as st

from app import picture
from app.gallery import Entry, slug
from app.studio import edit, session, wish

AT_ONCE = 24
SHOWN = 208  # pixels
PICKED = "picked "
LEAVE = "room to go to"


def page() -> None:
    house, owner = session.studio(), session.owner()
    st.title("Gallery", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        search = st.text_input("Find", key="search", placeholder="words of the prompt", icon=":material/search:")
    there = house.gallery.count(owner, search)
    if not there:
        found = "No picture has these words." if search else "Nothing is kept yet: what you draw appears here."
        st.html(f'<div class="blank"><b>{found}</b></div>')
    else:
        pages = -(-there // AT_ONCE)
        number = st.number_input("Page", 1, pages, key="gallery page", width=140) if pages > 1 else 1
        entries = house.gallery.entries(owner, search, AT_ONCE, AT_ONCE * (number - 1))
        actions([entry for entry in entries if st.session_state.get(PICKED + entry.id)])
        wall(entries)
    bring()


def wall(entries: list[Entry]) -> None:
    """The pictures, each with its prompt."""
    gallery = session.studio().gallery
    with st.container(horizontal=True, key="wall"):
        for entry in entries:
            with st.container(width=SHOWN, gap="xsmall", key=f"card-{entry.id}"):
                try:
                    st.image(gallery.png(entry), width=SHOWN, output_format="PNG")
                except ValueError as error:
                    st.caption(str(error))
                st.caption(entry.prompt or "without a prompt")
                with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
                    st.checkbox("pick", key=PICKED + entry.id, label_visibility="collapsed")
                    if entry.request is not None:
                        st.button(
                            "Draw again",
                            key=f"again {entry.id}",
                            icon=":material/replay:",
                            type="tertiary",
                            help="Take this picture's prompt, seed and settings to the Draw page.",
                            on_click=_restore,
                            args=(entry,),
                        )
                    st.button(
                        "Edit", key=f"edit {entry.id}", icon=":material/ink_eraser:", type="tertiary",
                        on_click=_edit, args=(entry,),
                    )  # fmt: skip
    if room := st.session_state.pop(LEAVE, None):
        session.enter(room)


def actions(picked: list[Entry]) -> None:
    """What can be done with the pictures that are picked."""
    if not picked:
        st.caption("Pick pictures to download, compare or delete them.")
        return
    gallery = session.studio().gallery
    with st.container(horizontal=True, vertical_alignment="center"):
        notes = st.toggle("with settings inside", value=True, key="gallery notes")
        if len(picked) == 1:
            name = f"{slug(picked[0].prompt)}.png"
            data, mime, label = gallery.png(picked[0], notes), "image/png", "Download"
        else:
            name, data, mime = "pictures.zip", gallery.zip(picked, notes), "application/zip"
            label = f"Download {len(picked)}"
        st.download_button(label, data, name, mime, icon=":material/download:")
        st.button(
            f"Delete {len(picked)}", icon=":material/delete:", on_click=_delete, args=(picked,), key="delete picked"
        )
    if len(picked) == 2:
        for column, entry in zip(st.columns(2), picked, strict=True):
            column.image(gallery.png(entry), width=400, output_format="PNG")
            column.html(f'<div class="facts">{_facts(entry)}</div>')


def bring() -> None:
    """Read the settings of a PNG that was made here or elsewhere with the same program."""
    with st.expander("Bring a PNG back", icon=":material/upload:"):
        file = st.file_uploader("A picture made here remembers its settings", ["png"], key="bring", max_upload_size=32)
        if file is None:
            return
        try:
            image, request = picture.read(file.getvalue())
        except ValueError as error:
            st.error(str(error), icon=":material/error:")
            return
        st.image(picture.png(image), width=SHOWN, output_format="PNG")
        if request is None:
            st.warning("This picture does not remember how it was made.", icon=":material/help:")
            return
        st.code(picture.parameters(request), language=None, wrap_lines=True)
        if st.button("Draw again", icon=":material/replay:", on_click=wish.fill, args=(request,)):
            session.enter("draw")


def _facts(entry: Entry) -> str:
    return html.escape(picture.parameters(entry.request)) if entry.request else "without settings"


def _restore(entry: Entry) -> None:
    wish.fill(entry.request)
    st.session_state[LEAVE] = "draw"


def _edit(entry: Entry) -> None:
    edit.take(picture.read(session.studio().gallery.png(entry))[0], entry.prompt)
    st.session_state[LEAVE] = "edit"


def _delete(entries: list[Entry]) -> None:
    session.studio().gallery.delete(entries)
    for entry in entries:
        st.session_state.pop(PICKED + entry.id, None)
