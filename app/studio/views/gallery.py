"""Gallery: this browser's own pictures, to find, take, draw again and throw away; and those that others share."""

import html
from collections.abc import Callable
from contextlib import suppress

import streamlit as st

from app.core import png
from app.core.gallery_store import Gallery, GalleryEntry, slug
from app.studio import generation_form, session, widget_state
from app.studio.views import edit
from app.studio.views.draw import sentence

AT_ONCE = 24
SHOWN = 208  # pixels
WHOSE = {False: "Mine", True: "Everyone's"}
VIEW = "whose pictures"
SHARING = "sharing"
PAGE = "gallery page"
PICKED = "picked "
NOTES = "gallery notes"
PICKS = "ids of the pictures that are picked"  # on whichever page they are
LEAVE = "room to go to"
COMPLAINT = "complaint of gallery"


def page() -> None:
    st.title("Gallery", anchor=False)
    if complaint := st.session_state.pop(COMPLAINT, ""):
        st.error(complaint, icon=":material/error:")
    try:
        everyones = st.session_state.get(VIEW, False)
        search = find()
        shown = look(search, everyones)
        actions(shown, everyones)
        wall(shown)
    except ValueError as error:
        st.error(sentence(error), icon=":material/error:")
    if room := st.session_state.pop(LEAVE, None):
        session.enter(room)
    bring()


def find() -> str:
    """What to look for, among whose pictures; and whether others see one's own."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        search = st.text_input("Find", key="search", placeholder="words of the prompt", icon=":material/search:")
        st.segmented_control(
            "Whose", list(WHOSE), key=VIEW, format_func=WHOSE.get, default=False, required=True,
            label_visibility="collapsed",
        )  # fmt: skip
        shares = session.studio().gallery.shares(session.owner())  # other tabs switch it, too
        _show_as(SHARING, shares)
        st.toggle(
            "Share my pictures",
            shares,
            key=SHARING,
            on_change=_share,
            help="Everyone on this server sees all your pictures, prompts and settings included, until you switch it "
            "off. Nobody sees whose they are, or can delete them.",
        )
    return search


def look(search: str, everyones: bool) -> list[GalleryEntry]:
    """The pictures of the page that was turned to."""
    gallery, owner = session.studio().gallery, session.owner()
    there = gallery.count(owner, search, everyones)
    if not there:
        none = "Nobody shares a picture yet." if everyones else "Nothing is kept yet: what you draw appears here."
        st.html(f'<div class="blank"><b>{"No picture has these words." if search else none}</b></div>')
        return []
    pages = -(-there // AT_ONCE)
    widget_state.keep(PAGE, 1)
    if widget_state.value(PAGE) > pages:
        widget_state.put(PAGE, pages)
    now = widget_state.value(PAGE)
    if pages > 1:
        st.number_input(f"Page {now} of {pages}", 1, pages, now, **widget_state.widget(PAGE), width=140)
    return gallery.entries(owner, search, AT_ONCE, AT_ONCE * (now - 1), everyones)


def wall(entries: list[GalleryEntry]) -> None:
    """The pictures, each with its prompt."""
    with st.container(horizontal=True, key="wall"):
        for entry in entries:
            with st.container(width=SHOWN, gap="xsmall", key=f"card-{entry.id}"):
                _image(entry, SHOWN)
                # not as Markdown: another visitor's words may hold the address of a picture elsewhere
                st.html(f'<div class="facts">{html.escape(entry.prompt or "without a prompt")}</div>')
                with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
                    picked = entry.id in _picks()
                    _show_as(PICKED + entry.id, picked)
                    st.checkbox(
                        f"pick {generation_form.plain(entry.prompt)}", picked, key=PICKED + entry.id,
                        label_visibility="collapsed", on_change=_pick, args=(entry.id,),
                    )  # fmt: skip
                    if entry.request is not None:
                        plain = f" {generation_form.PLAIN}" if entry.request.edit else ""
                        st.button(
                            "Use these settings",
                            key=f"again {entry.id}",
                            icon=":material/replay:",
                            type="tertiary",
                            help=f"Take this picture's prompt, model, seed and settings to the Draw page.{plain}",
                            on_click=_restore,
                            args=(entry.id,),
                        )
                    st.button(
                        "Edit", key=f"edit {entry.id}", icon=":material/ink_eraser:", type="tertiary",
                        on_click=_edit, args=(entry.id,),
                    )  # fmt: skip


def actions(shown: list[GalleryEntry], everyones: bool) -> None:
    """What can be done with the pictures that are picked, here and on other pages."""
    gallery, picked = session.studio().gallery, _picked()
    if not shown and not picked:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        if any(entry not in picked for entry in shown):
            ids = [entry.id for entry in shown]
            st.button("Select all on this page", icon=":material/select_all:", on_click=_pick_all, args=(ids,))
        if not picked:
            st.caption("Pick pictures to download, compare or delete them.")
            return
        st.button(f"Clear selection ({len(picked)})", icon=":material/deselect:", on_click=_picks().clear)
        widget_state.keep(NOTES, True)
        notes = st.toggle("Save settings in the file", widget_state.value(NOTES), **widget_state.widget(NOTES))
        ids = [entry.id for entry in picked]
        if len(picked) == 1:
            name, mime, label = f"{slug(picked[0].prompt)}.png", "image/png", "Download"
        else:
            name, mime, label = "pictures.zip", "application/zip", f"Download {len(picked)}"
        st.download_button(label, _file(gallery, session.owner(), ids, notes), name, mime, icon=":material/download:")
        own = [entry.id for entry in picked if entry.owner == session.owner()]
        if own and not everyones:
            st.button(
                f"Delete {len(own)}", icon=":material/delete:", on_click=_delete, args=(own,), key="delete picked"
            )
    if len(picked) == 2:
        for column, entry in zip(st.columns(2), picked, strict=True):
            with column:
                _image(entry, 400)
                st.html(f'<div class="facts">{_facts(entry)}</div>')


def bring() -> None:
    """Read the settings of a PNG that was made here or elsewhere with the same program."""
    with st.expander("Read a PNG's settings", icon=":material/upload:"):
        file = st.file_uploader("A picture made here remembers its settings", ["png"], key="bring", max_upload_size=32)
        if file is None:
            return
        try:
            image, request = png.read(file.getvalue())
        except ValueError as error:
            st.error(str(error), icon=":material/error:")
            return
        st.image(png.encode_png(image), width=SHOWN, output_format="PNG")
        if request is None:
            st.warning("This picture does not remember how it was made.", icon=":material/help:")
            return
        st.code(png.parameters(request), language=None, wrap_lines=True)
        if request.edit:
            st.caption(generation_form.PLAIN)
        if st.button("Use these settings", icon=":material/replay:", on_click=generation_form.fill, args=(request,)):
            session.enter("draw")


def _image(entry: GalleryEntry, width: int) -> None:
    try:
        st.image(session.studio().gallery.png(entry), width=width, output_format="PNG")
    except ValueError as error:
        st.caption(str(error))


def _facts(entry: GalleryEntry) -> str:
    return html.escape(png.parameters(entry.request)) if entry.request else "without settings"


def _picks() -> list[str]:
    return st.session_state.setdefault(PICKS, [])


def _picked() -> list[GalleryEntry]:
    """The picked pictures that are still there to be seen, in the order in which they were picked."""
    found = []
    for id in list(_picks()):
        try:
            found.append(session.studio().gallery.get(session.owner(), id))
        except ValueError:
            _picks().remove(id)
    return found


def _show_as(key: str, value: bool) -> None:
    """Have a switch show what is so. Where it does already it is left alone, for it may have been pressed since."""
    if st.session_state.get(key, value) != value:
        st.session_state[key] = value


def _pick(id: str) -> None:
    picked, picks = st.session_state[PICKED + id], _picks()
    if picked and id not in picks:
        picks.append(id)
    elif not picked and id in picks:
        picks.remove(id)


def _pick_all(ids: list[str]) -> None:
    _picks().extend(id for id in ids if id not in _picks())


def _file(gallery: Gallery, owner: str, ids: list[str], notes: bool) -> Callable[[], bytes]:
    """What makes the file once it is asked for, from what may then still be seen; it runs outside the page."""

    def file() -> bytes:
        entries = [gallery.get(owner, id) for id in ids]
        return gallery.png(entries[0], notes) if len(entries) == 1 else gallery.zip(entries, notes)

    return file


def _share() -> None:
    try:
        session.studio().gallery.share(session.owner(), st.session_state[SHARING])
    except ValueError as error:
        st.session_state[COMPLAINT] = sentence(error)


def _restore(id: str) -> None:
    if (entry := _seen(id)) is not None and entry.request is not None:
        generation_form.fill(entry.request)
        st.session_state[LEAVE] = "draw"


def _edit(id: str) -> None:
    if (entry := _seen(id)) is not None:
        try:
            edit.take(png.read(session.studio().gallery.png(entry))[0], entry.prompt)
            st.session_state[LEAVE] = "edit"
        except ValueError as error:
            st.session_state[COMPLAINT] = sentence(error)


def _seen(id: str) -> GalleryEntry | None:
    """The picture, if it may still be seen now that a button of it is pressed; else the page says why not."""
    try:
        return session.studio().gallery.get(session.owner(), id)
    except ValueError as error:
        st.session_state[COMPLAINT] = sentence(error)
        return None


def _delete(ids: list[str]) -> None:
    gallery, owner = session.studio().gallery, session.owner()
    there = []
    for id in ids:
        with suppress(ValueError):  # it is gone already: pressed twice, or in another tab
            there.append(gallery.get(owner, id))
    try:
        gallery.delete(owner, there)
    except ValueError as error:
        st.session_state[COMPLAINT] = sentence(error)
