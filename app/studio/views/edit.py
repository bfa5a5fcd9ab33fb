"""Edit: brush over a part of a picture, let new words change what they speak of, go on beyond its edge, or vary it."""

import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import streamlit as st
from PIL import Image

from app.core import png
from app.core.edit_request import edit_note, image_id
from app.core.registry import ModelInfo
from app.core.request import MAX_PROMPT, GenerationRequest
from app.serving.jobs import Status
from app.serving.model_pool import LoadedModel
from app.studio import generation_form, job_view, session, widget_state
from app.studio.component import component
from app.studio.views.draw import said, sentence
from maskgil import inpainting
from maskgil.inpainting import InpaintingInput
from maskgil.sampling import remasking

EASEL = "edit"
PICTURE = "picture to edit"  # PNG bytes
DRAWN_AFTER = "words that the picture to edit was drawn after"  # empty when they are not known
WORDS = "words of the edit"
SHARE = "share of the variation"
SIDE = "side to extend to"
ROOM = "size to extend to"
BRUSH = "brush"
LARGEST = 2048  # pixels a side of what is kept of a picture that is brought: no model draws more
BROUGHT_WORDS = "words of the picture that was brought"
BROUGHT = "picture that was brought"
COMPLAINT = "complaint of edit"
ARROWS = {
    "left": ":material/arrow_back: left",
    "right": ":material/arrow_forward: right",
    "up": ":material/arrow_upward: up",
    "down": ":material/arrow_downward: down",
    "around": ":material/zoom_out_map: around",
}

# What is drawn on, of the picture under the brush, and how that came about.
Begin = Callable[[LoadedModel, Image.Image, GenerationRequest], tuple[InpaintingInput, str]]


def page() -> None:
    model = session.model()
    state = st.session_state
    widget_state.keep(WORDS, "")
    widget_state.keep(SHARE, 0.4)
    if BROUGHT_WORDS in state:
        widget_state.put(WORDS, state.pop(BROUGHT_WORDS))
    st.title("Edit a picture", anchor=False)
    left, right = st.columns(2, gap="large")
    with left:
        loaded = session.loaded(model)
        image = _image(loaded) if PICTURE in state else None
        if image is not None:
            brush(model, image)
        bring()
        generation_form.settings(loaded, size=image and image.size)
    with right:
        job = session.job(EASEL)
        if complaint := session.board().get(COMPLAINT):
            st.error(complaint, icon=":material/error:")
        elif job is not None:
            said(model, job.request.prompt)
        job_view.show(job, "What you paint over, or beyond the edge, is drawn anew; the rest stays to the last pixel.")
        if job is not None and job.status is Status.DONE:
            st.button(
                "Edit this result", icon=":material/edit:", on_click=take, args=(job.pictures()[0], job.request.prompt)
            )


def take(image: Image.Image, prompt: str = "") -> None:
    """Put a picture under the brush."""
    st.session_state[PICTURE] = png.encode_png(image)
    st.session_state[DRAWN_AFTER] = prompt
    widget_state.put(WORDS, prompt)
    session.clear(EASEL)


def brush(model: ModelInfo, image: Image.Image) -> None:
    """The picture with its cells, what to draw there, and what can be done."""
    loaded = session.loaded(model)
    rows, columns = loaded.model.grid(image.size)
    data = {"image": png.data_uri(image), "rows": rows, "columns": columns}
    component("brush")(key=_brush(rows, columns), data=data, on_cells_change=lambda: None)
    if (brought := _brought().size) != image.size:
        st.caption(f"Scaled from {_measures(brought)} to {_measures(image.size)}, which this model draws.")
    with st.form("edit", border=False, enter_to_submit=True), st.container(horizontal=True):
        st.text_input(
            "What should be there",
            widget_state.value(WORDS),
            **widget_state.widget(WORDS),
            max_chars=MAX_PROMPT,
            label_visibility="collapsed",
            placeholder="Describe the whole picture after the change",
        )
        paint = {"on_click": _begin, "args": (model, _brushed)}
        st.form_submit_button("Paint", type="primary", icon=":material/brush:", **paint)
        reword = {"on_click": _begin, "args": (model, _reworded), "disabled": bool(_wordless())}
        st.form_submit_button(
            "Apply the new words only",
            icon=":material/edit_note:",
            help=_wordless()
            or f"Nothing needs to be brushed. It was drawn as “{generation_form.plain(_drawn_after())}”.",
            **reword,
        )
    extend(model, image)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        share = widget_state.value(SHARE)
        st.slider("Variation strength", 0.1, 0.9, share, 0.1, **widget_state.widget(SHARE), width=220)
        st.button("Make a variation", icon=":material/shuffle:", on_click=_begin, args=(model, _varied))


def extend(model: ModelInfo, image: Image.Image) -> None:
    """To which sides the picture can go on, and why not to the others."""
    loaded = session.loaded(model)
    ways = _ways(loaded, image.size)
    sides = [side for side in ARROWS if any(way.side == side for way in ways)]
    if sides:
        widget_state.keep(SIDE, sides[0])
        if widget_state.value(SIDE) not in sides:
            widget_state.put(SIDE, sides[0])
        side = widget_state.value(SIDE)
        with st.container(horizontal=True, vertical_alignment="bottom"):
            st.segmented_control(
                "Extend it",
                sides,
                default=side,
                **widget_state.widget(SIDE, sides),
                format_func=ARROWS.get,
                required=True,
                wrap=True,
            )
            rooms = [way.size for way in ways if way.side == side]
            widget_state.keep(ROOM, rooms[0])
            if widget_state.value(ROOM) not in rooms:
                widget_state.put(ROOM, rooms[0])
            room = widget_state.value(ROOM)
            if len(rooms) > 1:
                room = st.selectbox(
                    "to",
                    rooms,
                    rooms.index(room),
                    **widget_state.widget(ROOM, rooms),
                    format_func=_measures,
                    width=130,
                    label_visibility="collapsed",
                )
            st.button(
                f"Extend to {_measures(room)}",
                key="extend",
                icon=":material/aspect_ratio:",
                on_click=_begin,
                args=(model, partial(_extended, side=side, room=room)),
            )
    if reason := inpainting.fill_gaps(image.size, ways):
        st.caption(reason)
    if not sides and (smaller := _smaller(loaded, image.size)) is not None:
        st.button(
            f"Shrink to {_measures(smaller)} first",
            icon=":material/photo_size_select_small:",
            on_click=_shrink,
            args=(image, smaller),
        )


def bring() -> None:
    """Any PNG from outside."""
    file = st.file_uploader("Open a picture", ["png"], key="picture to bring", max_upload_size=32)
    if file is None or st.session_state.get(BROUGHT) == file.file_id:
        return
    st.session_state[BROUGHT] = file.file_id
    try:
        image, request = png.read(file.getvalue())
    except ValueError as error:
        st.error(sentence(error), icon=":material/error:")
        return
    st.session_state[BROUGHT_WORDS] = st.session_state[DRAWN_AFTER] = request.prompt if request else ""
    image.thumbnail((LARGEST, LARGEST))
    st.session_state[PICTURE] = png.encode_png(image)
    st.rerun()


def _begin(model: ModelInfo, begin: Begin) -> None:
    """Put what comes of it on the easel."""
    board, owner, name = session.board(), session.owner(), _id()
    board[COMPLAINT] = ""
    try:
        loaded = session.loaded(model)
        image = _image(loaded)
        request = generation_form.read(model.name, widget_state.value(WORDS))
        start, how = begin(loaded, image, request)  # the last look at the session is in here, before what is slow
        request = replace(request, size=start.image.size, edit=edit_note(start, name, how))
        session.put(board, EASEL, session.studio().draw(request, owner, start))
    except ValueError as error:
        board[COMPLAINT] = sentence(error)


def _brushed(loaded: LoadedModel, image: Image.Image, request: GenerationRequest) -> tuple[InpaintingInput, str]:
    cells = (st.session_state.get(_brush(*loaded.model.grid(image.size))) or {}).get("cells") or []
    return inpainting.inpainting_input(loaded.model, image, [int(cell) for cell in cells]), ""


def _varied(loaded: LoadedModel, image: Image.Image, request: GenerationRequest) -> tuple[InpaintingInput, str]:
    share = widget_state.value(SHARE)
    cells = inpainting.random_mask(share, request.seed, loaded.model.grid(image.size))
    return inpainting.inpainting_input(loaded.model, image, cells), f"a share of {share:g}"


def _reworded(loaded: LoadedModel, image: Image.Image, request: GenerationRequest) -> tuple[InpaintingInput, str]:
    old, margin = _drawn_after(), remasking.MARGIN
    before, after = loaded.encode(old), loaded.encode(request.prompt)
    start = inpainting.reword(loaded.model, image, before, after, request.seed, margin)
    return start, f"new words for “{old}”, margin {margin:g}"


def _extended(
    loaded: LoadedModel, image: Image.Image, request: GenerationRequest, side: str, room: tuple[int, int]
) -> tuple[InpaintingInput, str]:
    way = next((way for way in _ways(loaded, image.size) if (way.side, way.size) == (side, room)), None)
    if way is None:
        raise ValueError(f"the picture cannot go on {side} to {_measures(room)} with this model: choose again")
    return inpainting.outpaint(loaded.model, image, way), f"extended {side} from {image.width}x{image.height}"


def _ways(loaded: LoadedModel, size: tuple[int, int]) -> list[inpainting.Outpainting]:
    return inpainting.outpaintings(size, loaded.sizes, loaded.model.tokenizer.config.downsample)


def _smaller(loaded: LoadedModel, size: tuple[int, int]) -> tuple[int, int] | None:
    """The largest size of the same shape from which a picture can be extended."""
    fit = [s for s in loaded.sizes if s[0] < size[0] and s[0] * size[1] == s[1] * size[0] and _ways(loaded, s)]
    return max(fit, default=None)


def _shrink(image: Image.Image, size: tuple[int, int]) -> None:
    st.session_state[PICTURE] = png.encode_png(image.resize(size, Image.Resampling.LANCZOS))


def _wordless() -> str:
    """Why new words alone cannot change this picture; an empty text when they can."""
    return "" if _drawn_after() else "It is not known after which words the picture was drawn: brush over it instead."


def _drawn_after() -> str:
    return st.session_state.get(DRAWN_AFTER, "")


def _measures(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"


def _brought() -> Image.Image:
    """The picture under the brush, as it came; its pixels are read when they are needed."""
    return Image.open(io.BytesIO(st.session_state[PICTURE]))


def _image(loaded: LoadedModel) -> Image.Image:
    return inpainting.fit_to_size(_brought(), loaded.sizes)


def _brush(rows: int, columns: int) -> str:
    """The key of this picture's brush: another picture, or another grid over it, begins with no cell brushed."""
    return f"{BRUSH} {_id()} {rows}x{columns}"


def _id() -> str:
    """The name of the picture under the brush."""
    return image_id(st.session_state[PICTURE])
